"""What a worker has been told: by signals, by notes in the spool, by whoever holds it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from queuectl.job.outcome import Ending

if TYPE_CHECKING:
    from collections.abc import Callable

    from queuectl.control.registry import Seat
    from queuectl.storage.mover import Claim
    from queuectl.system.watcher import Bell


class Orders:
    """The orders of one worker. `stop` and `hurry` are safe in a signal handler, and in another thread.

    Args:
        bell: ends the worker's wait when there is a new one.

    Attributes:
        stopping: it is to finish the job in hand, and leave.
        forced: it is to end that job, and put it back.
        hurried: it is to look now for what it looks for once a second.
    """

    def __init__(self, bell: Bell) -> None:
        self.stopping = self.forced = self.hurried = False
        self._bell = bell
        self._is_over: Callable[[], bool] = lambda: False

    def stop(self, *, force: bool) -> None:
        """Have it leave."""
        self.stopping = True
        self.forced = self.forced or force
        self._bell.ring()

    def hurry(self) -> None:
        """Have it look now."""
        self.hurried = True
        self._bell.ring()

    def leave_when(self, over: Callable[[], bool]) -> None:
        """Have it leave once this says so."""
        self._is_over = over

    @property
    def pressing(self) -> bool:
        """Whether there is something for a worker at rest to do."""
        return self.stopping or self.hurried or self._is_over()

    def look(self, seat: Seat | None) -> None:
        """See whether somebody has left a note, or what it is there for is over."""
        wanted = seat.stop_wanted() if seat else None
        if wanted or self._is_over():
            self.stopping = True
        self.forced = self.forced or wanted == "force"


def heed_late_cancel(seat: Seat | None, claim: Claim) -> None:
    """See that a job which failed by itself, just as somebody wanted it ended, is not tried again."""
    outcome = claim.outcome
    if outcome is None or seat is None or outcome.ending in (Ending.SUCCEEDED, Ending.CANCELLED):
        return
    if seat.cancel_wanted(claim.job.id or "", claim.job.runs + 1):
        outcome.ending, outcome.error = Ending.CANCELLED, "Cancelled"
