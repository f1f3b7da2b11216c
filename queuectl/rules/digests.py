"""Rules that tell of many ends by one job, and of the moment at which nothing is left to run. One worker of all follows them.

The records of the jobs say what has ended, so no crash of a worker loses anything. The id of the job that tells is made from the
period, or from the run that ended last, and the note says up to when ends are told: so nothing is told twice either.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from queuectl.config.settings import JobDefaults
from queuectl.errors import QueuectlError
from queuectl.fast_start.dataclass import dataclass
from queuectl.index import ends
from queuectl.job.times import iso, micros, parse_moment
from queuectl.rules import hooks, job_queueing, occurrences, rule_note
from queuectl.rules.job_trigger import EMPTY, JobTrigger
from queuectl.rules.rule_note import Note

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from queuectl.config.settings import Settings
    from queuectl.layout import Layout
    from queuectl.rules.rule import Rule
    from queuectl.rules.rule_book import RuleBook, RuleFile
    from queuectl.storage.transitions import Storage

AFTER_END = 2.0
"""Seconds after the end of a period at which the job about it starts: what was recorded at its very end is in the index then."""

_YOUNG = 2_000_000_000
"""Nanoseconds within which a folder may have changed twice and have one time."""


@dataclass(slots=True)
class _Digest:
    """A rule, and what is known of it."""

    rule: Rule
    trigger: JobTrigger
    note: Note


def meant(storage: Storage, trigger: JobTrigger) -> ends.Ends:
    """Return the ends that a rule is about."""
    return ends.Ends(
        storage.index,
        trigger.event,
        tags=trigger.tags,
        queues=trigger.queues,
        batches=trigger.batches,
        rules=trigger.rules,
    )


def meant_at(layout: Layout, rule: str, moment: int) -> tuple[JobTrigger | None, int | None]:
    """Return what a rule about many ends said at a moment in microseconds, and when that was changed; None: it is not known.

    The file says what counts now. Its job may be about a time before.
    """
    note = rule_note.read(layout, rule)
    meaning, changed = note.meaning_at(moment) if note is not None else ({}, None)
    trigger = JobTrigger.of_meaning(meaning)
    return trigger, changed if trigger is not None and trigger.is_of_periods else None


def period_text(since: int, until: int) -> str:
    """Return a period in microseconds as it stands in the field `about`: two moments in ISO 8601 with / between."""
    return f"{iso(since / 1e6)}/{iso(until / 1e6)}"


def period_of(about: str) -> tuple[float, float] | None:
    """Return the period that `about` names, in epoch seconds; None: it names something else."""
    first, slash, last = about.partition("/")
    try:
        return (parse_moment(first), parse_moment(last)) if slash else None
    except ValueError:
        return None


class Digests:
    """The rules of one spool that tell of several ends at once, or of an empty spool, queue or batch.

    Args:
        settings: returns the settings of the spool.
        say: takes a line for the log.

    Attributes:
        refused: why one of them could not tell something yet; None if nothing is left.
    """

    def __init__(
        self, storage: Storage, settings: Callable[[], Settings], say: Callable[[str], None]
    ) -> None:
        self._storage, self._settings, self._say = storage, settings, say
        self._layout = storage.layout
        self._followed: dict[str, _Digest] = {}
        self._defaults = JobDefaults(storage.layout, settings())
        self._since = micros(rule_note.known_since(storage.layout))
        self._seen: list[int] | None = None
        self._unfollowed: RuleBook | None = None
        self.refused: str | None = None

    @property
    def are_there(self) -> bool:
        """Whether there are such rules."""
        return bool(self._followed) or self._unfollowed is not None

    def follow(self, book: RuleBook) -> None:
        """Follow the rules as they are in the book now."""
        before, self._followed = self._followed, {}
        self._seen = self._unfollowed = None
        for name, known in book.files.items():
            rule, old = known.rule, before.get(name)
            if rule is None or not isinstance(trigger := rule.trigger, JobTrigger):
                continue
            if trigger.is_told_at_once and rule_note.read(self._layout, name) is None:
                continue  # else it has told of many at once before
            note = self._note_of(rule, trigger, known, old)
            if note is None:
                self._unfollowed = book  # tried again at the next look
                continue
            if trigger.is_told_at_once:
                continue
            is_paused = name in book.paused
            if note.rests != is_paused:
                note.rests = is_paused
                if not is_paused:
                    # Whoever ended the rest changed the folder. What happened until then is not told.
                    note.told = max(note.told, min(self._now(), micros(book.changed_at)))
                self._write(name, note)
            self._followed[name] = _Digest(rule, trigger, note)

    def _note_of(self, rule: Rule, trigger: JobTrigger, known: RuleFile, old: _Digest | None) -> Note | None:
        name = rule.name
        note = old.note if old else rule_note.read(self._layout, name)
        arrived = micros(known.arrived)
        if note is None:
            note = Note(mark=rule.mark, told=max(arrived, self._since), means=trigger.meaning)
            self._write(name, note)
        elif note.mark != rule.mark:
            if not self._change(rule, trigger, note, arrived):
                return None
            self._write(name, note)
        elif note.means != trigger.meaning:  # an earlier version has noted nothing of it
            note.means = trigger.meaning
            self._write(name, note)
        return note

    def _change(self, rule: Rule, trigger: JobTrigger, note: Note, changed: int) -> bool:
        """Tell what happened before a change by what the rule said then, and let the new version count from the change on.

        The period of the change is cut in two. Its job may be queued already: what it tells ends at the change.

        Returns:
            False: something could not be queued yet.
        """
        before = JobTrigger.of_meaning(note.means)
        by_periods = before is not None and before.is_of_periods
        if before is not None and not note.rests:
            self.refused = None
            self._judge(_Digest(rule, before, note), changed - 1 if by_periods else self._now())
            if self.refused is not None:
                return False
        note.told = changed if by_periods else max(note.told, changed)
        note.note_meaning(trigger.meaning, changed)
        note.mark = rule.mark
        return True

    def look(self) -> None:
        """Tell what is to be told.

        Raises:
            sqlite3.Error: the index refused.
        """
        if self._unfollowed is not None:
            self.follow(self._unfollowed)
        is_unchanged = self._is_unchanged()
        if not self._followed or (is_unchanged and self.refused is None):
            return
        now, self.refused = self._now(), None
        self._defaults.refresh(self._settings())
        for one in self._followed.values():
            self._judge(one, now)

    def _is_unchanged(self) -> bool:
        """Whether no job has come, gone, or ended since the last look."""
        seen, before = self._stamps(), self._seen
        self._seen = seen
        return seen == before and max(seen, default=0) + _YOUNG < time.time_ns()

    def has_news(self) -> bool:
        """Return whether a job has come, gone, or ended since the last look."""
        return self.are_there and self._stamps() != self._seen

    def _stamps(self) -> list[int]:
        layout = self._layout
        try:
            return [os.stat(path).st_mtime_ns for path in (layout.pending, layout.done, layout.dead)]
        except OSError:
            return []

    def _judge(self, one: _Digest, now: int) -> None:
        if one.note.rests:
            one.note.told = now
            return
        if one.note.told > now + micros(max(one.trigger.within, 1)):
            one.note.told = now  # the clock was set back
        try:
            if one.trigger.event == EMPTY:
                self._judge_empty(one, now)
            elif one.trigger.is_of_periods:
                self._judge_periods(one, now)
            else:
                self._judge_number(one, now)
        except (QueuectlError, OSError) as error:
            if self.refused is None:
                self._say(f"rule {one.rule.name}: {error}")
            self.refused = f"rule {one.rule.name}: {error}"

    def _judge_periods(self, one: _Digest, now: int) -> None:
        """Queue a job for each period in which something has ended; it starts when the period is over."""
        found, span = meant(self._storage, one.trigger), micros(one.trigger.within)
        while (first := found.first(one.note.told)) is not None and first <= now:
            start = first // span * span
            end = start + span
            wait = {"run_at": end / 1e6 + AFTER_END} if end + micros(AFTER_END) > now else {}
            # What is left of the period of a change has a job of its own.
            begin = max(start, one.note.meant[-1][0]) if one.note.meant else start
            self._tell(one, begin, period_text(max(start, one.note.told), end), wait)
            self._note(one, end, begin)

    def _judge_number(self, one: _Digest, now: int) -> None:
        """Queue a job as soon as so many have ended within the span, but only one in each period."""
        span = micros(one.trigger.within)
        since = max(one.note.told, now - span)
        if len(meant(self._storage, one.trigger).of_period(since, now + 1, one.trigger.at_least)) < (
            one.trigger.at_least
        ):
            return
        start = now // span * span
        if start // 1_000_000 in one.note.queued:
            return
        self._tell(one, start, period_text(since, now + 1), {})
        self._note(one, now + 1, start)

    def _judge_empty(self, one: _Digest, now: int) -> None:
        trigger = one.trigger
        last = ends.last_run(self._storage.index, trigger.queues, trigger.batches)
        if last is None or last[0] < one.note.told:
            return
        if ends.is_any_left(self._storage.index, trigger.queues, trigger.batches):
            return
        span = micros(trigger.within)
        start = now // span * span if span else None
        if start is None or start // 1_000_000 not in one.note.queued:
            self._tell(one, start, trigger.whole, {}, *last)
        self._note(one, last[0] + 1, now if start is None else start)

    def _tell(
        self, one: _Digest, start: int | None, about: str, wait: Mapping[str, Any], *facts: object
    ) -> None:
        """Queue the jobs of a rule; they are there already if a crash came before the note."""
        event = one.trigger.event
        occurrence = (
            hooks.occurrence_of(event, *facts) if start is None else occurrences.text_of(start // 1_000_000)
        )
        now = self._storage.now()
        records = hooks.records_of(one.rule, occurrence, event, about, now, wait)
        batch = [job_queueing.prepared(self._defaults, record, now) for record in records]
        durable = self._defaults.settings.durability == "full"
        job_queueing.enqueue_several(self._storage, batch, durable=durable)

    def _note(self, one: _Digest, told: int, moment: int) -> None:
        one.note.told = told
        one.note.note_queued(moment // 1_000_000)
        self._write(one.rule.name, one.note)

    def _write(self, name: str, note: Note) -> None:
        try:
            rule_note.write(self._layout, name, note)
        except OSError as error:
            # Until it is written, the ids tell what was queued.
            reason = (error.strerror or str(error)).lower()
            self._say(f"rule {name}: its note cannot be written: {reason}")

    def _now(self) -> int:
        return micros(self._storage.now())
