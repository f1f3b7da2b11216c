"""When a worker looks for what has landed: at once when idle, in slices and within bounds when busy."""

from __future__ import annotations

import math
import os
import time
from typing import TYPE_CHECKING

from queuectl.layout import PENDING
from queuectl.owner import Lock, is_held

if TYPE_CHECKING:
    from collections.abc import Iterator

    from queuectl.config import Settings
    from queuectl.incoming import Drops
    from queuectl.intake import Intake
    from queuectl.layout import Layout
    from queuectl.wake import FolderWatch

SLICE = 0.05
"""Seconds of scanning between two claims, so that a hundred thousand drops do not hold up the next start."""

IDLE_SLICE = 1.0
"""Seconds that an idle worker gives to other users' drops at a time; a busy one gives a SLICE a second."""

SHARE = 3.0
"""A busy worker scans again only after this many times as long as the last scan took."""

SAFETY = 0.1
"""Seconds after which a worker looks even though nothing seems to have changed, if anything was moved meanwhile: a
drop that falls between the two looks at the folder's time around one of our own moves leaves no trace there."""

SAFETY_SHARE = 50.0
"""That look takes at most one part in so many of a worker's time."""

_BESIDE = 0.005
"""Seconds an idle worker waits for a colleague who is taking in what has landed."""


class Lookout:
    """Decides about scans of pending/ for one worker. One worker scans at a time; the others go on running jobs."""

    def __init__(self, layout: Layout, intake: Intake, watch: FolderWatch) -> None:
        self._intake = intake
        self._watch = watch
        self._lock_path = os.path.join(layout.data, "intake.lock")
        self._lock: Lock | None = None
        self._scan: Iterator[None] | None = None
        self._cost = 0.0
        self._not_before = 0.0
        self._safety_at = time.monotonic() + SAFETY
        self.unsure = False
        self._busy = False

    def take_in(self) -> None:
        """Go on with a scan for a slice, or begin one if somebody else has touched pending/."""
        began = time.monotonic()
        if self._scan is None and not self._begin(began):
            return
        while self._scan is not None and time.monotonic() - began < SLICE:
            if next(self._scan, self) is self:
                self.close()
        now = time.monotonic()
        self._cost += now - began
        self._not_before = now + self._cost * SHARE
        self._safety_at = now + max(SAFETY, self._cost * SAFETY_SHARE)

    def _begin(self, now: float) -> bool:
        if now < self._not_before:
            return False
        deep = self._watch.written
        self.unsure = self.unsure or self._watch.events > 0
        overdue = self.unsure and now >= self._safety_at
        if not deep and not overdue and self._intake.pending_agrees():
            return False
        self._lock = Lock.acquire(self._lock_path)
        if self._lock is None:
            return False
        self._watch.written = self.unsure = False
        self._scan = self._intake.scan(PENDING, deep=deep, thorough=not self._busy)
        self._cost = 0.0
        return True

    def calm(self) -> bool:
        """Whether there is nothing to take in before the next claim: no scan under way, and nobody else's drop."""
        if self._scan is not None or self._watch.written or self._watch.events:
            return False
        if self.unsure and time.monotonic() >= self._safety_at:
            return False
        return self._intake.pending_agrees()

    def moved(self) -> None:
        """The worker has claimed a job: it is busy, and something may have dropped in beside its own move."""
        self.unsure = self._busy = True

    def hear(self) -> None:
        """Note what rang the bell: it may have dropped in beside one of our own moves, during a scan too."""
        if self._watch.events:
            self._watch.events = 0
            self.unsure = True

    def doubt(self) -> float:
        """Seconds until the look that settles whether anything slipped in; endless if nothing can have."""
        return max(0.0, self._safety_at - time.monotonic()) if self.unsure else math.inf

    def has_work(self) -> bool:
        """Whether there is something to take in; an idle worker, who asks, need not save its time."""
        self._busy = False
        self._not_before = 0.0
        return self._scan is not None or not (self._intake.unfinished or self._intake.pending_agrees())

    def patience(self) -> float:
        """Seconds to wait before looking again when there is work: none, unless a colleague is at it."""
        return _BESIDE if self._lock is None and is_held(self._lock_path) else 0.0

    def take_from_others(self, drops: Drops, settings: Settings, *, busy: bool) -> None:
        """Take in what other users dropped, if a folder is set up for that and no colleague is at it."""
        if settings.incoming is None:
            return
        lock = Lock.acquire(self._lock_path)
        if lock is not None:
            try:
                drops.take_in(settings, SLICE if busy else IDLE_SLICE)
            finally:
                lock.release()

    def close(self) -> None:
        """End a scan, finished or not."""
        self._scan = None
        if self._lock is not None:
            self._lock.release()
            self._lock = None
