"""How a dispatcher leaves: at once, without what runs, or after it has ended all of it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from queuectl.worker.dispatcher import Dispatcher

PATIENCE = 10.0
"""Seconds for the share to take back what has not begun. What is not taken back is found by the next dispatcher."""

FORCE_PATIENCE = 30.0
"""Seconds besides kill_grace that what runs gets to end. Without the controller, a runner sees an order at its next beat."""


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
