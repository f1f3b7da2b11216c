"""When a worker looks for what has landed: at once when idle, in slices and within bounds when busy.

What an event names is looked at first, by its name: an urgent job starts at the next gap, however many others wait. A
scan of the whole folder stays the truth. It follows when it does not matter so much, and where no events come, at once.
"""

from __future__ import annotations

import math
import os
import time
from typing import TYPE_CHECKING

from queuectl.layout import PENDING, is_job_name
from queuectl.system.locks import Lock, is_locked
from queuectl.system.watcher import STORM
from queuectl.worker.burst import Storm

if TYPE_CHECKING:
    from collections.abc import Iterator

    from queuectl.config.settings import Settings
    from queuectl.intake.drop_folder import DropFolder
    from queuectl.intake.reconcile import Intake
    from queuectl.layout import Layout
    from queuectl.system.watcher import FolderWatch
    from queuectl.worker.fault_barrier import Troubles

SLICE = 0.05
"""Seconds of scanning between two claims, so that a hundred thousand drops do not hold up the next start."""

SHORT_SLICE = 0.005
"""The same of a look that nobody waits for."""

IDLE_SLICE = 1.0
"""Seconds that an idle worker gives to other users' drops at a time; a busy one gives a SLICE a second."""

SHARE = 3.0
"""A busy worker scans again only after this many times as long as the last scan took."""

SAFETY = 0.1
"""Seconds after which a worker looks even though nothing seems to have changed, if anything was moved meanwhile: a
drop that falls between the two looks at the folder's time around one of our own moves leaves no trace there."""

SAFETY_SHARE = 50.0
"""That look takes at most one part in so many of a worker's time."""

SAFETY_TOLD = 10.0
"""It comes so many times later where events tell what lands."""

CAUTION_SHARE = 19.0
"""A busy worker gives a long look out of caution (for files edited in place, or for what may have slipped in) one part
of its time to so many of jobs, beyond the first slice."""

EDITS_PAUSE = 1.0
"""Seconds until a worker asks again whether a colleague's look for edits is over."""

NAMED = 1000
"""Files of a storm that are taken in by name at a time: some 20 ms. In smaller parts each costs half as much again."""

SOON, LATER = 0.1, 0.3
"""Seconds until what was taken in by name is followed by the scan that makes sure: by whoever was first, by others."""

BUSY_PAUSE = 10.0
"""A busy worker lets so many times as long go by until then."""

_BESIDE = 0.005
"""Seconds an idle worker waits for a colleague who is taking in what has landed."""


class Lookout:
    """Decides about scans of pending/ for one worker. One worker scans at a time; the others go on running jobs."""

    def __init__(self, layout: Layout, intake: Intake, watch: FolderWatch, troubles: Troubles) -> None:
        self._intake = intake
        self._watch = watch
        self._troubles = troubles
        self._storm = Storm(layout)
        self._lock_path = os.path.join(layout.data, "intake.lock")
        self._lock: Lock | None = None
        self._scan: Iterator[None] | None = None
        self._cost = 0.0
        self._not_before = 0.0
        self._safety_at = time.monotonic() + SAFETY
        self._sure_at: float | None = None
        self._beside = False
        self.unsure = self.news = False
        self._busy = False
        self._cautious = self._stamped = False
        self._rest_until = 0.0
        self._edits_path = os.path.join(layout.data, "edits.lock")
        self._edits_lock: Lock | None = None
        self._edits: Iterator[None] | None = None
        self._edits_at = 0.0
        self._told = 0
        self._index_path = layout.index
        self._others = self._had_slice = False

    # -- what events name ------------------------------------------------------------------------------------------

    def take_named(self, *, meanwhile: bool = False) -> None:
        """Take in what has landed since the last time, by the names that were told, for a slice at the most.

        Args:
            meanwhile: a job runs, so no start is held up; otherwise a storm gets one slice between two starts.
        """
        heard = self._watch.hear()
        self.news = self.news or heard or self._watch.events > 0
        if self._storm.is_joined and self._had_slice and not meanwhile:
            return
        if heard or self._storm.is_joined:
            with self._troubles.outlive():
                self._take_named()

    def _take_named(self) -> None:
        heard, storm = self._watch.heard, self._storm
        if not (storm.is_joined or (len(heard) <= STORM and not self._beside)) and not self._join():
            return
        began = time.monotonic()
        taken = self._intake.taken
        while (heard or len(storm)) and time.monotonic() - began < SLICE:
            part = list(heard)
            heard.clear()
            if storm.is_joined:
                storm.hear(filter(is_job_name, part))
                part = storm.take(NAMED, self._intake.default_priority)
            self._intake.take_named([name for name in part if is_job_name(name)])
            self._watch.hear()
        self._had_slice = storm.is_joined
        if not heard and not len(storm):
            storm.leave()
        self._make_sure(SOON if self._intake.taken > taken else LATER)

    def _join(self) -> bool:
        """Take part in dealing with very many names; few are looked at by all."""
        joined = self._storm.join(self._lock)
        if not joined:
            self._watch.heard.clear()
            self._make_sure(LATER)
        self._stand(beside=not joined)
        return joined

    def _stand(self, *, beside: bool) -> None:
        """While a colleague takes in what has landed, each event of a storm would end our wait."""
        if beside is not self._beside:
            self._beside = beside
            self._watch.hush(quiet=beside)

    def _make_sure(self, pause: float) -> None:
        if self._sure_at is None:
            self._sure_at = time.monotonic() + (pause * BUSY_PAUSE if self._busy else pause)

    def glance(self) -> None:
        """Once a second: is there a watch, if it is cheap, and has something landed of which it has not told?"""
        self._watch.arm(busy=True)
        self._waits_for_a_colleague()
        if self._watch.tells_all and self._sure_at is None and not self._intake.pending_agrees():
            self._make_sure(0.0)

    # -- looks at all names ----------------------------------------------------------------------------------------

    def take_in(self) -> None:
        """Go on with a scan for a slice, or begin one if somebody else has touched pending/."""
        before = self._intake.taken
        self.take_named()
        if self._intake.taken > before or self._storm.is_joined:
            return  # there is something to start, and nothing to make sure of yet
        if self._told != self._intake.index.inode:
            # Another file than the one that was told of edits in place, or maybe not told any more.
            self._end_edits()
            self._told, self._watch.written = self._intake.index.inode, True
        if self._edits is not None or self._watch.written:
            self._look_for_edits(time.monotonic())
        began = time.monotonic()
        if self._is_resting(began) or (self._scan is None and not self._begin(began)):
            return
        spent, looked, taken = time.thread_time(), self._intake.compared, self._intake.taken
        length = SHORT_SLICE if self._cautious and self._busy else SLICE
        while self._scan is not None and time.monotonic() - began < length:
            if next(self._scan, self) is self:
                self._end_scan()
        now = time.monotonic()
        # Not by the clock: on a machine busy with others the next look would be put off for minutes. And what takes
        # in new files is no cost: a hundred thousand drops would have to wait for a rest after each part of them.
        in_vain = 1 - (self._intake.taken - taken) / max(1, self._intake.compared - looked)
        self._cost += (time.thread_time() - spent) * max(0.0, in_vain)
        self._rest_until = now + (now - began) * CAUTION_SHARE
        self._not_before = now + self._cost * SHARE
        self._safety_at = now + self._safe_for()

    def _safe_for(self) -> float:
        """Seconds until the next look out of caution. Where events tell all, something else must fail besides."""
        return max(SAFETY, self._cost * SAFETY_SHARE) * (SAFETY_TOLD if self._watch.tells_all else 1.0)

    def go_on(self) -> None:
        """Go on with what has begun while a long job runs: colleagues wait for our look, and could not begin their own."""
        if self._scan is not None or self._edits is not None or self._watch.heard or self._storm.is_joined:
            self.take_in()

    def _begin(self, now: float) -> bool:
        if now < self._not_before:
            return False
        self.unsure = self.unsure or self._watch.events > 0
        overdue = self.unsure and now >= self._safety_at
        agrees = self._intake.pending_agrees()
        told = self._watch.tells_all
        if agrees and not overdue:
            self._watch.missed = False
            self._sure_at = None
            return False
        if told and not overdue and not self._is_due_to_make_sure(now):
            return False
        self._lock = self._lock or Lock.acquire(self._lock_path)
        if self._lock is None:
            self._not_before = now + SLICE if told else 0.0
            if told:
                # A colleague looks at everything just now. To wait for our turn, none of us would take a job beside
                # the end of another: with dozens of workers that was twice the transactions.
                self._safety_at = max(self._safety_at, now + self._safe_for())
            return False
        self.unsure = self._watch.missed = False
        self._sure_at = None
        self._cautious, self._stamped = (agrees or told) and self._busy, not (agrees and self._busy)
        self._scan = self._intake.scan(PENDING, find_missing=not self._busy, note_time=self._stamped)
        self._cost = 0.0
        return True

    def _is_due_to_make_sure(self, now: float) -> bool:
        self._make_sure(SOON)
        return self._sure_at is not None and now >= self._sure_at

    def _is_resting(self, now: float) -> bool:
        """Whether a look out of caution leaves the time to the jobs; a real drop ends it, as that needs a real look."""
        if self._scan is None or not self._cautious or not self._busy:
            return False
        if self._watch.tells_all or self._intake.pending_agrees():
            return now < self._rest_until
        self._end_scan()
        self._not_before = 0.0
        return False

    def _look_for_edits(self, began: float) -> None:
        """Go on with the look for files edited in place; only its first slice keeps a busy worker from its jobs."""
        if began < self._edits_at or not self._intake.index.usable:
            return
        if self._edits is None:
            self._edits_lock = Lock.acquire(self._edits_path)
            if self._edits_lock is None:
                self._edits_at = began + EDITS_PAUSE  # a colleague is at it, and may be past the file already
                return
            self._watch.written = False
            self._edits = self._intake.edits()
        now, over = began, False
        length = SHORT_SLICE if self._busy else SLICE
        while not over and now - began < length:
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

    # -- what the worker asks --------------------------------------------------------------------------------------

    def calm(self) -> bool:
        """Whether there is nothing to take in before the next claim: no scan under way, and nobody else's drop."""
        now, watch = time.monotonic(), self._watch
        if watch.events or watch.heard or self._storm.is_joined:
            return False
        if self._scan is not None and not (self._cautious and now < self._rest_until):
            return False
        if (self._edits is not None or watch.written) and now >= self._edits_at:
            return False
        if self._scan is None and self.unsure and now >= self._safety_at:
            return False
        if watch.tells_all:
            return (
                self._sure_at is None or self._scan is not None or now < max(self._sure_at, self._not_before)
            )
        return self._intake.pending_agrees()

    def moved(self) -> None:
        """The worker has claimed a job: it is busy, and something may have dropped in beside its own move."""
        self._busy, self._had_slice = True, False
        if not self.unsure:
            self.unsure = True
            self._safety_at = max(self._safety_at, time.monotonic() + self._safe_for())

    def hear(self) -> None:
        """Note what rang the bell: it may have dropped in beside one of our own moves, during a scan too."""
        if self._watch.events:
            self._watch.events = 0
            self.unsure = True

    @property
    def at_rest(self) -> bool:
        """Whether nothing is to be looked at until an event tells of something, which it will."""
        return self._watch.tells_all and not (
            self.unsure
            or self._others
            or self._intake.index.path != self._index_path
            or self._beside
            or self._watch.heard
            or self._watch.written
            or self._intake.unfinished
            or self._sure_at is not None
            or self._scan is not None
            or self._edits is not None
        )

    def doubt(self) -> float:
        """Seconds until the look that settles whether anything slipped in; endless if nothing can have."""
        at = self._safety_at if self.unsure else math.inf
        if self._sure_at is not None:
            at = min(at, self._sure_at)
        return max(0.0, at - time.monotonic())

    def has_work(self, *, leaving: bool = False) -> bool:
        """Whether there is something to take in; an idle worker, who asks, need not save its time.

        Args:
            leaving: the worker would leave: what is to be made sure of is to be so now.
        """
        self._busy = self._had_slice = False
        self._not_before = 0.0
        if self._edits is not None:
            self._edits_at = 0.0
            return True
        if (
            self._scan is not None
            or self._watch.heard
            or self._storm.is_joined
            or self._waits_for_a_colleague()
        ):
            return True
        if self._intake.unfinished or self._intake.pending_agrees():
            return False
        now = time.monotonic()
        if leaving:
            self._sure_at = now
        elif self._sure_at is not None:
            self._sure_at = min(self._sure_at, now + LATER)
        return not self._watch.tells_all or self._is_due_to_make_sure(now)

    def _waits_for_a_colleague(self) -> bool:
        """Whether a colleague takes in what we have heard of, too."""
        if self._beside and not is_locked(self._lock_path):
            self._stand(beside=False)
        return self._beside

    def patience(self, longest: float) -> float:
        """Seconds that an idle worker may wait; so many at the most."""
        if self.has_work():
            # None, unless a colleague is at it.
            is_ours = self._lock is not None or self._storm.is_joined
            return _BESIDE if not is_ours and is_locked(self._lock_path) else 0.0
        return min(longest, self.doubt())

    def take_from_others(self, drops: DropFolder, settings: Settings, *, busy: bool) -> None:
        """Take in what other users dropped, if a folder is set up for that and no colleague is at it."""
        self._others = settings.incoming is not None
        if not self._others:
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
        self._storm.leave()

    def _end_scan(self) -> None:
        self._scan = None
        self._release()

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.release()
            self._lock = None
