"""How a dispatcher heeds a pause, and how it leaves.

Before a pause, what has not begun on the cluster is taken back; then the dispatcher says that it has noticed. It leaves at
once, without what runs, or after it has ended all of it.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from queuectl.worker.dispatcher import Dispatcher

PATIENCE = 10.0
"""Seconds for the share to take back what has not begun. What is not taken back is found by the next dispatcher."""

FORCE_PATIENCE = 30.0
"""Seconds besides kill_grace that what runs gets to end. Without the controller, a runner sees an order at its next beat."""


class Pauses:
    """The pauses of one dispatcher, of the spool and of its queues."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self.forget()

    def forget(self) -> None:
        """Ask again: the orders that were given are not carried out any more."""
        self._asked: str | None = None
        self._heeded: str | None = None
        self._queues_asked: str | None = None
        self._queues_heeded: str | None = None

    def heed(self, mark: str | None) -> str | None:
        """Take back what has not begun.

        Args:
            mark: of the pause; None: there is none.

        Returns:
            the mark, when nothing can begin any more that was handed over before; else None.
        """
        one = self._dispatcher
        if mark is None or not one.handover.jobs:
            self._asked = self._heeded = mark
        elif mark != self._asked and one.share is not None:
            self._asked = mark
            one.share.post(lambda tracker, _: tracker.take_back(), partial(self._note, mark))
        return mark if self._heeded == mark else None

    def _note(self, mark: str) -> None:
        self._heeded = mark
        self._dispatcher.upkeep.note("pause_seen", mark)

    def heed_those_of_queues(self) -> None:
        """Take back what has not begun of the queues that are paused now, and then say that this was noticed."""
        one = self._dispatcher
        queues = one.feed.queues
        seen = queues.pauses_seen()
        keys = one.handover.of_queues(queues.paused()) if seen != self._queues_heeded else set()
        if not keys:
            self._queues_asked = self._queues_heeded = seen
        elif seen != self._queues_asked and one.share is not None:
            self._queues_asked = seen
            one.share.post(lambda tracker, _: tracker.take_back(keys), partial(self._note_queues, seen))
        one.upkeep.note("queues_seen", self._queues_heeded)

    def _note_queues(self, seen: str | None) -> None:
        self._queues_heeded = seen
        self._dispatcher.upkeep.note("queues_seen", seen)


class Leaving:
    """The end of one dispatcher.

    Attributes:
        ended: the attempts that were recorded before the share was opened last.
    """

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._give_up_at = 0.0
        self._has_begun = self._is_forced = self._is_ready = False
        self.ended = 0

    def is_over(self) -> bool:
        """Begin to stop, or go on with it; whether the dispatcher may leave now."""
        one, now = self._dispatcher, time.monotonic()
        if one.share is None or one.share.fault is not None:
            return True  # nothing can be taken back
        if one.flags.forced and not self._is_forced:
            self._is_forced, self._is_ready = True, False
            self._give_up_at = now + one.settings.kill_grace + FORCE_PATIENCE
            one.handover.end_all()
        elif not self._has_begun:
            self._give_up_at = now + PATIENCE
            one.share.post(lambda tracker, _: tracker.take_back(), self._clear)
        self._has_begun = True
        if now >= self._give_up_at:
            return True
        if self._is_forced and not self._is_ready and not one.has_work:
            self._is_ready = True
            self._clear()
            return False
        return self._is_ready and one.share.is_up_to_date and not one.share.has_reports

    def _clear(self) -> None:
        """All that has not begun is back in the spool. Delete the packs that have nothing else."""
        self._is_ready = True
        self._dispatcher.handover.clear()
