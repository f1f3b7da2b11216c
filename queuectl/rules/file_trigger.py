"""Reads the `when:` of a rule that watches a folder: `file`, and what goes with it. Pure."""

from __future__ import annotations

import os
import re
from fnmatch import fnmatchcase, translate
from glob import escape
from typing import TYPE_CHECKING, Any

from queuectl.fast_start.dataclass import dataclass
from queuectl.job import times
from queuectl.layout import is_utf8
from queuectl.rules import when_fields
from queuectl.rules.rule import Wrong

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import tzinfo

    from queuectl.layout import Layout

KIND = "file"
"""The key of `when` that says that a rule watches a folder."""

SOURCE = ("leave", "move", "delete")
KEYS = ("match", "recursive", "settle", "companion", "source", "at_most", "poll")
"""What may stand beside `file`."""

SETTLE, AT_MOST, POLL = 2.0, 1000, 10.0
"""The defaults."""

MOST_WAITING = 100_000
"""The most that `at_most` may be."""

_BEGINNINGS = (".", "~", "#", "$", "_rsync")
_ENDINGS = (
    *(".tmp", ".temp", ".part", ".partial", ".filepart", ".crdownload", ".download", ".opdownload"),
    *(".!qb", ".!ut", ".aria2", ".swp", ".swx", ".lck", ".lock", "~"),
)
_OF_SYSTEMS = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"})
_WILD = re.compile(r"[*?\[\]]")
"""What can stand for other characters in a pattern. A ] alone does not, but may end what does."""

_COMPANION = re.compile(r"\{(name|stem)\}")


def is_unfinished(name: str) -> bool:
    """Whether a name is one that a program gives to a file which is not complete yet, or that a system uses for itself.

    rsync, editors and sync tools begin it with a dot, ~, # or $; WinSCP, browsers and others put an ending behind it.
    """
    low = name.lower()
    return low.startswith(_BEGINNINGS) or low.endswith(_ENDINGS) or low in _OF_SYSTEMS


@dataclass(frozen=True, slots=True)
class FileTrigger:
    """Which files of a folder a rule takes.

    Attributes:
        folder: its absolute path.
        patterns: one of them must match the name; none: any name will do.
        recursive: also files in the folders below.
        settle: seconds for which a file must be unchanged.
        companion: the name of the file that must lie beside it, with {name} or {stem}; None: none is needed.
        source: what becomes of the file: leave, move or delete.
        at_most: so many jobs of the rule wait at once.
        poll: seconds between two looks where the system does not tell of changes.
        timezone, overlap, jitter: as in a rule with a time, for the jobs.
        schedule: no moment is known at which it is due.
    """

    folder: str
    patterns: tuple[str, ...] = ()
    recursive: bool = False
    settle: float = SETTLE
    companion: str | None = None
    source: str = "leave"
    at_most: int = AT_MOST
    poll: float = POLL
    timezone: tzinfo | None = None
    overlap: str = "allow"
    jitter: float = 0.0
    schedule: None = None

    @property
    def words(self) -> str:
        """What it says, as an English sentence without its end."""
        which = f"{' or '.join(self.patterns)} " if self.patterns else "a file "
        return f"{which}appears in {self.folder}{' or below' if self.recursive else ''}"

    @property
    def moves(self) -> bool:
        """Whether a file is taken out of the folder before its job is queued."""
        return self.source != "leave"

    def overlaps(self, layout: Layout) -> bool:
        """Whether the folder lies in the spool, or the spool in it: each job file would be taken for a file to work on."""
        real, root = os.path.realpath(self.folder), os.path.realpath(layout.root)
        return layout.contains(self.folder) or f"{root}{os.sep}".startswith(f"{real.rstrip(os.sep)}{os.sep}")

    def companion_of(self, name: str) -> str | None:
        """Return the name of the file that must lie beside one; None: none is needed."""
        if self.companion is None:
            return None
        parts = {"name": name, "stem": os.path.splitext(name)[0]}
        return _COMPANION.sub(lambda mark: parts[mark[1]], self.companion)

    def chooser(self) -> Callable[[str], bool]:
        """Return a function that says whether the rule means a file of this name. Case counts, also on macOS."""
        wanted = re.compile("|".join(map(translate, self.patterns))) if self.patterns else None
        is_companion = self.companion_finder()

        def is_meant(name: str) -> bool:
            if is_unfinished(name) or (wanted is not None and wanted.match(name) is None):
                return False
            return not is_companion(name)

        return is_meant

    def may_share_names_with(self, other: FileTrigger) -> bool:
        """Whether a file may have a name that both rules mean. A companion goes with its file, so it counts, too."""
        return any(_may_meet(one, another) for one in self._all_patterns for another in other._all_patterns)

    @property
    def _all_patterns(self) -> tuple[str, ...]:
        if self.companion is None or not self.patterns:
            return self.patterns or ("*",)
        return (*self.patterns, "*".join(map(escape, _COMPANION.split(self.companion)[::2])))

    def companion_finder(self) -> Callable[[str], bool]:
        """Return a function that says whether a file of this name can be a companion: it is never taken for itself."""
        if self.companion is None:
            return lambda _: False
        form = re.compile("(?s:.+)".join(map(re.escape, _COMPANION.split(self.companion)[::2])))
        return lambda name: form.fullmatch(name) is not None


def _may_meet(one: str, other: str) -> bool:
    """Whether a name may match both patterns: False if what they begin or end with says that none can."""
    if not _WILD.search(one):
        return fnmatchcase(one, other)
    if not _WILD.search(other):
        return fnmatchcase(other, one)
    literal, others = _WILD.split(one), _WILD.split(other)
    begins = literal[0].startswith(others[0]) or others[0].startswith(literal[0])
    return begins and (literal[-1].endswith(others[-1]) or others[-1].endswith(literal[-1]))


def read(when: Mapping[str, Any], kind: str) -> FileTrigger:
    """Read `when` of a rule.

    Args:
        kind: `file`.

    Raises:
        Wrong: a value is wrong, or not known.
    """
    when_fields.refuse_unknown(when, kind, KEYS)
    return FileTrigger(
        folder=when_fields.value_of(when, kind, _folder, ""),
        patterns=_patterns(when.get("match")),
        recursive=when_fields.value_of(when, "recursive", _yes_or_no, default=False),
        settle=when_fields.value_of(when, "settle", times.parse_duration, SETTLE),
        companion=when_fields.value_of(when, "companion", _companion, None),
        source=when_fields.value_of(when, "source", _source, "leave"),
        at_most=when_fields.value_of(when, "at_most", _number, AT_MOST),
        poll=when_fields.value_of(when, "poll", _poll, POLL),
    )


def _folder(value: object) -> str:
    if not isinstance(value, str) or not value or "\0" in value or not is_utf8(value):
        raise ValueError("must be the path of a folder")
    if not os.path.isabs(value):
        raise ValueError("must be an absolute path")
    return os.path.normpath(value)


def _patterns(value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    found = []
    for number, one in enumerate(value) if isinstance(value, list) else [(None, value)]:
        path = ("when", "match") if number is None else ("when", "match", number)
        if not isinstance(one, str) or not one:
            raise Wrong(path, "must be a pattern like '*.pdf', or a list of them")
        if "/" in one:
            raise Wrong(
                path, "must be a pattern for names, without folders; recursive: true looks into these"
            )
        found.append(one)
    if not found:
        raise Wrong(("when", "match"), "is an empty list")
    return tuple(found)


def _yes_or_no(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("must be true or false")
    return value


def _companion(value: object) -> str:
    if not isinstance(value, str) or "/" in value or "\0" in value:
        raise ValueError("must be a name like '{name}.done'")
    marks = re.findall(r"\{[^}]*\}", value)
    if len(marks) != 1 or not _COMPANION.fullmatch(marks[0]):
        raise ValueError("must have {name} or {stem} once, as in '{name}.done'")
    if value == "{name}":
        raise ValueError("is the file itself")
    return value


def _source(value: object) -> str:
    if value not in SOURCE:
        raise ValueError("must be leave, move or delete")
    return str(value)


def _number(value: object) -> int:
    if type(value) is not int or not 1 <= value <= MOST_WAITING:
        raise ValueError(f"must be a whole number from 1 to {MOST_WAITING}")
    return value


def _poll(value: object) -> float:
    seconds = times.parse_duration(value)
    if seconds < 1:
        raise ValueError("must be at least 1s")
    return seconds
