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

CAUTION_SHARE = 9.0
"""A busy worker gives a long look out of caution (for files edited in place, or for what may have slipped in) one part
of its time to so many of jobs, beyond the first slice."""

EDITS_PAUSE = 1.0
"""Seconds until a worker asks again whether a colleague's look for edits is over."""

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
        self._cautious = False
        self._rest_until = 0.0
        self._edits_path = os.path.join(layout.data, "edits.lock")
        self._edits_lock: Lock | None = None
        self._edits: Iterator[None] | None = None
        self._edits_at = 0.0

    def take_in(self) -> None:
        """Go on with a scan for a slice, or begin one if somebody else has touched pending/."""
        if self._edits is not None or self._watch.written:
            self._look_for_edits(time.monotonic())
        began = time.monotonic()
        if self._is_resting(began) or (self._scan is None and not self._begin(began)):
            return
        spent, looked, taken = time.thread_time(), self._intake.looked, self._intake.taken
        while self._scan is not None and time.monotonic() - began < SLICE:
            if next(self._scan, self) is self:
                self._end_scan()
        now = time.monotonic()
        # Not by the clock: on a machine busy with others the next look would be put off for minutes. And what takes
        # in new files is no cost: a hundred thousand drops would have to wait for a rest after each part of them.
        in_vain = 1 - (self._intake.taken - taken) / max(1, self._intake.looked - looked)
        self._cost += (time.thread_time() - spent) * max(0.0, in_vain)
        self._rest_until = now + (now - began) * CAUTION_SHARE
        self._not_before = now + self._cost * SHARE
        self._safety_at = now + max(SAFETY, self._cost * SAFETY_SHARE)

    def go_on(self) -> None:
        """Go on with what has begun while a long job runs: colleagues wait for our look, and could not begin their own."""
        if self._scan is not None or self._edits is not None:
            self.take_in()

    def _begin(self, now: float) -> bool:
        if now < self._not_before:
            return False
        self.unsure = self.unsure or self._watch.events > 0
        overdue = self.unsure and now >= self._safety_at
        agrees = self._intake.pending_agrees()
        if agrees and not overdue:
            return False
        self._lock = Lock.acquire(self._lock_path)
        if self._lock is None:
            return False
        self.unsure = False
        self._cautious = agrees and self._busy
        self._scan = self._intake.scan(PENDING, thorough=not self._busy, stamped=not self._cautious)
        self._cost = 0.0
        return True

    def _is_resting(self, now: float) -> bool:
        """Whether a look out of caution leaves the time to the jobs; a real drop ends it, as that needs a real look."""
        if self._scan is None or not self._cautious or not self._busy:
            return False
        if self._intake.pending_agrees():
            return now < self._rest_until
        self._end_scan()
        self._not_before = 0.0
        return False

    def _look_for_edits(self, began: float) -> None:
        """Go on with the look for files edited in place; only its first slice keeps a busy worker from its jobs."""
        if began < self._edits_at:
            return
        if self._edits is None:
            self._edits_lock = Lock.acquire(self._edits_path)
            if self._edits_lock is None:
                self._edits_at = began + EDITS_PAUSE  # a colleague is at it, and may be past the file already
                return
            self._watch.written = False
            self._edits = self._intake.edits()
        now, over = began, False
        while not over and now - began < SLICE:
            over = next(self._edits, self) is self
            now = time.monotonic()
        if over:
            self._end_edits()
        self._edits_at = now + (now - began) * CAUTION_SHARE if self._busy and not over else 0.0

    def _end_edits(self) -> None:
        self._edits = None
        if self._edits_lock is not None:
            self._edits_lock.release()
            self._edits_lock = None

    def calm(self) -> bool:
        """Whether there is nothing to take in before the next claim: no scan under way, and nobody else's drop."""
        now = time.monotonic()
        if self._watch.events or (self._scan is not None and not (self._cautious and now < self._rest_until)):
            return False
        if (self._edits is not None or self._watch.written) and now >= self._edits_at:
            return False
        if self._scan is None and self.unsure and now >= self._safety_at:
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
        if self._edits is not None:
            self._edits_at = 0.0
            return True
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
        """End all looks, finished or not."""
        self._end_edits()
        self._end_scan()

    def _end_scan(self) -> None:
        self._scan = None
        if self._lock is not None:
            self._lock.release()
            self._lock = None
