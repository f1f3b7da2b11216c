"""Finds jobs that somebody has moved into or out of done/ and dead/ by hand, while other jobs wait for them.

A worker looks into these folders for no other reason: what it puts there itself it knows. Without this a job would wait for ever
for one that a file manager has moved.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from queuectl.layout import DEAD, DONE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from queuectl.index.index import Index
    from queuectl.intake.reconcile import Intake

SLICE = 0.05
"""Seconds of each second for which a worker compares names. A folder may have a million."""


class ParentScan:
    """The looks of one worker.

    Args:
        index: knows whether jobs wait for others, and whether it agrees with the folders.
        intake: makes it agree.
    """

    def __init__(self, index: Index, intake: Intake) -> None:
        self._index, self._intake = index, intake
        self._scan: Iterator[None] | None = None

    def look(self) -> None:
        """Compare names for a slice of time if somebody has changed a folder; go on with it at the next call.

        Raises:
            SpoolError, sqlite3.Error: the folder cannot be read, or the index refused.
        """
        until = time.monotonic() + SLICE
        # Forgotten before it goes on: one that has failed begins anew.
        scan, self._scan = self._scan or self._begin(), None
        for _ in scan:
            if time.monotonic() > until:
                self._scan = scan
                return

    def _begin(self) -> Iterator[None]:
        # Both, one after the other: somebody may change the first one all the time.
        for place in (DONE, DEAD):
            if self._is_in_doubt(place):
                yield from self._intake.scan(place)

    def _is_in_doubt(self, place: str) -> bool:
        index = self._index
        return index.usable and index.has_waits() and not index.agrees(place, time.time_ns())
