"""The last look of a draining worker: it looks into the folder itself before it leaves.

What tells it of new files may fail. The time of pending/ does not show a file that came at the same time as a move of its
own, a file that is still being written keeps the whole folder in doubt, and the drop folder of other users is looked at only
once a second. A worker that goes on finds such a file a moment later. One that leaves would leave it behind.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from queuectl.worker.scan_scheduler import ScanScheduler
    from queuectl.worker.upkeep import Upkeep


class LastLook:
    """The last look of one worker."""

    def __init__(self, scheduler: ScanScheduler, upkeep: Upkeep) -> None:
        self._scheduler, self._upkeep = scheduler, upkeep
        self._has_begun = False

    def begin(self) -> bool:
        """Have everything looked at now, unless that was asked for already; returns whether it was not."""
        if self._has_begun:
            return False
        self._has_begun = True
        self._upkeep.due_at = 0.0
        self._upkeep.rules.look_again()
        self._scheduler.look_again()
        return True

    def is_over(self) -> bool:
        """Whether a scan of pending/ has begun since. While another worker scans, this one tries again soon."""
        if self._has_begun and not self._scheduler.may_have_missed:
            return True
        self._scheduler.look_again()
        return False

    def forget(self) -> None:
        """Note that there is something to do: when that is done, another look follows."""
        self._has_begun = False
