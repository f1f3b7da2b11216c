"""What is known of one rule with a time: its note, its next moment, and which of those that have passed make jobs. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from queuectl.fast_start.dataclass import dataclass
from queuectl.rules import occurrences

if TYPE_CHECKING:
    from queuectl.rules.rule import Rule
    from queuectl.rules.rule_note import Note
    from queuectl.rules.time_trigger import TimeTrigger

ON_TIME = 3.0
"""Seconds. What is no later than this was not missed: a worker looks once a second, also while a job runs."""


def choose(due: list[int], trigger: TimeTrigger, now: float) -> list[int]:
    """Return those of the moments up to now for which jobs are queued.

    Args:
        due: in order; all that are not done.
    """
    if trigger.missed == "all" or not due:
        return due
    on_time = [moment for moment in due if now - moment <= ON_TIME]
    if on_time or trigger.missed == "once":
        return on_time or due[-1:]
    return due[-1:] if now - due[-1] <= trigger.grace else []


@dataclass(slots=True)
class Plan:
    """A rule, what is known of it, and when it is due next, in whole epoch seconds; None: never again."""

    rule: Rule
    trigger: TimeTrigger
    note: Note
    next: int | None = None

    def find_next(self) -> None:
        """Find out when it is due next."""
        self.next = occurrences.first(self.trigger.schedule.after(self.note.done))

    def choose(self, now: float) -> list[int]:
        """Return the moments up to now for which jobs are to be queued, in order. The others are noted as skipped."""
        note = self.note
        due = occurrences.between(self.trigger.schedule, note.done, int(now))
        if self.trigger.missed == "all" and len(due) == occurrences.MOST:
            self._count_older(due[0])
        chosen = choose(due, self.trigger, now)
        wanted = set(chosen)
        if passed := [moment for moment in due if moment not in wanted]:
            note.note_skipped(passed[-1], "missed", len(passed))
            note.done = max(note.done, chosen[0] - 1 if chosen else due[-1])
        return chosen

    def _count_older(self, oldest: int) -> None:
        """Note moments that are too many to be caught up, though no more than another MOST of them."""
        if older := occurrences.between(self.trigger.schedule, self.note.done, oldest - 1):
            self.note.note_skipped(older[-1], "more moments were missed than are caught up", len(older))
            self.note.done = older[-1]

    def note_result(self, moment: int, reason: str | None) -> None:
        """Note what came of a moment.

        Args:
            reason: why no job was queued for it; None: one was.
        """
        if reason is None:
            self.note.note_queued(moment)
        else:
            self.note.note_skipped(moment, reason)
        self.note.done = moment
