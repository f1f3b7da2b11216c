"""Look for waiting job files that somebody has edited in place, which changes no folder's time.

All waiting files have to be looked at, so this is done by one worker for all, in slices.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from queuectl.system.locks import Lock

if TYPE_CHECKING:
    from collections.abc import Iterator

    from queuectl.intake.reconcile import Intake
    from queuectl.layout import Layout
    from queuectl.system.watcher import FolderWatch

SLICE = 0.05
"""Seconds of scanning between two claims, so that a hundred thousand files do not hold up the next job."""

SHORT_SLICE = 0.005
"""The same for a scan that no job waits for, while there are jobs to run."""

BUSY_SHARE = 19.0
"""A busy worker gives such scans one part of its time, and this many parts to jobs, beyond the first slice."""

LOCKED_PAUSE = 1.0
"""Seconds until a worker asks again whether another worker's scan has ended."""


class EditScan:
    """One worker's part in these scans."""

    def __init__(self, layout: Layout, intake: Intake, watch: FolderWatch) -> None:
        self._intake, self._watch = intake, watch
        self._lock_path = os.path.join(layout.data, "edits.lock")
        self._lock: Lock | None = None
        self._steps: Iterator[None] | None = None
        self._not_before = 0.0
        self._index_file = 0

    @property
    def is_running(self) -> bool:
        """Whether a scan has begun and not ended."""
        return self._steps is not None

    def is_due(self, now: float) -> bool:
        """Whether a slice is to be done at this monotonic moment."""
        return (self._steps is not None or self._watch.is_edited) and now >= self._not_before

    def end_pause(self) -> None:
        """Let the next slice be due at once: the worker has no job to run."""
        self._not_before = 0.0

    def do_slice(self, *, busy: bool) -> None:
        """Begin a scan or go on with it, if one is due.

        Args:
            busy: jobs wait for the worker.

        Raises:
            OSError, sqlite3.Error: the disk or the index refused.
        """
        if self._index_file != self._intake.index.inode:
            # This index may not have been told of the edits that another one knew.
            self.end()
            self._index_file, self._watch.is_edited = self._intake.index.inode, True
        began = time.monotonic()
        if not self.is_due(began) or not self._intake.index.usable:
            return
        if self._steps is None:
            self._lock = Lock.acquire(self._lock_path)
            if self._lock is None:
                self._not_before = (
                    began + LOCKED_PAUSE
                )  # another worker scans, and may be past the file already
                return
            self._watch.is_edited = False
            self._steps = self._intake.edits()
        now, is_over = began, False
        length = SHORT_SLICE if busy else SLICE
        while not is_over and now - began < length:
            is_over = next(self._steps, self) is self
            now = time.monotonic()
        if is_over:
            self.end()
        self._not_before = now + (now - began) * BUSY_SHARE if busy and not is_over else 0.0

    def end(self) -> None:
        """End the scan, finished or not."""
        self._steps = None
        if self._lock is not None:
            self._lock.release()
            self._lock = None
