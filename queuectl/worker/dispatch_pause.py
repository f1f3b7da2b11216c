"""How a dispatcher heeds a pause: what has not begun on the cluster is taken back first, and then it says that it has noticed."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from queuectl.worker.dispatcher import Dispatcher


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
