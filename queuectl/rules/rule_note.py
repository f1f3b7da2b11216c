"""The note about a rule, `data/rules/NAME.json`: up to which moment it is done, and what came of the last ones.

It needs no sync. After a power cut it may be an older one: then the ids of the jobs show that they were queued. On some
file systems it may be empty: then its time shows up to when the rule was followed.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from queuectl.fast_start import fast_json
from queuectl.fast_start.dataclass import dataclass, field
from queuectl.system import files, safe_open

if TYPE_CHECKING:
    from queuectl.layout import Layout

SHOWN = 10
"""How many of the last jobs, and of the last moments without a job, are kept."""

_LIMIT = 1 << 16


@dataclass(slots=True)
class Note:
    """What is known of a rule. Moments are whole epoch seconds.

    Attributes:
        mark: of the `when` to which the note belongs, see Rule.
        done: nothing at this moment or before it is queued any more.
        queued: the last moments for which jobs were queued, the newest last.
        skipped: how many moments passed without a job.
        skips: the last of them, each with a reason.
        rests: the rule was paused, or its file away, when it was looked at last.
        told: of a rule about jobs: what ended before this is not told any more, in microseconds.
        means: of which ends it tells, as `JobTrigger.meaning` has it.
        meant: the same of earlier versions of its file, each with the moment in microseconds up to which it counted.
    """

    mark: str = ""
    done: int = 0
    queued: list[int] = field(default_factory=list)
    skipped: int = 0
    skips: list[tuple[int, str]] = field(default_factory=list)
    rests: bool = False
    told: int = 0
    means: dict[str, Any] = field(default_factory=dict)
    meant: list[tuple[int, dict[str, Any]]] = field(default_factory=list)

    def note_queued(self, moment: int) -> None:
        """Note that the jobs of a moment are queued."""
        self.queued = [*self.queued, moment][-SHOWN:]

    def note_meaning(self, means: dict[str, Any], since: int) -> None:
        """Note that from this moment on, in microseconds, the rule tells of other ends."""
        if self.means:
            self.meant = [*self.meant, (since, self.means)][-SHOWN:]
        self.means = means

    def meaning_at(self, moment: int) -> tuple[dict[str, Any], int | None]:
        """Return of which ends the rule told at a moment, and up to when, in microseconds; None: it still does."""
        return next(((means, until) for until, means in self.meant if moment < until), (self.means, None))

    def note_skipped(self, moment: int, reason: str, number: int = 1) -> None:
        """Note that a moment, or several up to this one, passed without a job."""
        self.skipped += number
        self.skips = [*self.skips, (moment, reason)][-SHOWN:]


def read(layout: Layout, rule: str) -> Note | None:
    """Return the note about a rule; None if there is none that can be read."""
    try:
        found = fast_json.loads(safe_open.read_regular(layout.rule_note(rule), _LIMIT)[0])
        return _checked(found)
    except (safe_open.NotReadable, OSError, ValueError, TypeError, KeyError):
        return None


def written_at(layout: Layout, rule: str) -> int:
    """Return when the note about a rule was written, in epoch seconds, also of one that cannot be read; 0: there is none."""
    try:
        return int(os.lstat(layout.rule_note(rule)).st_mtime)
    except OSError:
        return 0


def known_since(layout: Layout) -> float:
    """Return when data/ was made, in epoch seconds; 0: it cannot be read. Nobody writes or deletes the lock files in it.

    If it was deleted, it is not known what was queued before. The records of these jobs may have been purged.
    """
    try:
        with os.scandir(layout.data) as entries:
            return min((one.stat().st_mtime for one in entries if one.name.endswith(".lock")), default=0.0)
    except OSError:
        return 0.0


def _checked(found: Any) -> Note:
    return Note(
        mark=str(found["mark"]),
        done=int(found["done"]),
        queued=[int(one) for one in found["queued"]],
        skipped=int(found["skipped"]),
        skips=[(int(at), str(why)) for at, why in found["skips"]],
        rests=bool(found["rests"]),
        told=int(found.get("told", 0)),
        means=dict(found.get("means", {})),
        meant=[(int(until), dict(means)) for until, means in found.get("meant", [])],
    )


def write(layout: Layout, rule: str, note: Note) -> None:
    """Write the note about a rule.

    Raises:
        OSError: the disk refused.
    """
    fields = {name: getattr(note, name) for name in Note.__match_args__}
    os.makedirs(layout.rule_notes, mode=0o700, exist_ok=True)
    scratch = os.path.join(layout.rule_notes, files.temporary_name())
    files.write_new(scratch, fast_json.dumps(fields), sync=False)
    try:
        files.rename_over(scratch, layout.rule_note(rule))
    except BaseException:
        with suppress(OSError):
            os.unlink(scratch)
        raise
