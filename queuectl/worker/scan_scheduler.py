"""When a worker looks for new files: at once while idle, in slices and within bounds while busy.

A file that an event names is looked at first, so that an urgent job starts when the running one ends, even if many jobs wait.
Events are hints and a scan of the whole folder is the truth: a scan follows soon after, or at once where no events come.
"""

from __future__ import annotations

import math
import os
import time
from typing import TYPE_CHECKING

from queuectl.layout import PENDING, is_job_name
from queuectl.system.locks import Lock, is_locked
from queuectl.system.watcher import BURST
from queuectl.worker.burst import Burst
from queuectl.worker.edit_scan import BUSY_SHARE, SHORT_SLICE, SLICE, EditScan

if TYPE_CHECKING:
    from collections.abc import Iterator

    from queuectl.config.settings import Settings
    from queuectl.intake.drop_folder import DropFolder
    from queuectl.intake.reconcile import Intake
    from queuectl.layout import Layout
    from queuectl.system.watcher import FolderWatch
    from queuectl.worker.health import FaultBarrier

READING = 0.8
"""The share of a slice in which a worker only reads the files of a burst, if there are so many. Then it takes some in."""

URGENT_PAUSE = 0.01
"""Seconds in which no other slice begins after an urgent file was taken in: most running jobs of a flood end in this time."""

IDLE_SLICE = 1.0
"""Seconds that an idle worker gives to other users' drop folder at a time; a busy one gives a SLICE a second."""

SCAN_SHARE = 3.0
"""If the last scan took t seconds, a busy worker waits this many times t before the next one."""

SAFETY_PAUSE = 0.1
"""Seconds until a scan of a folder that looks unchanged, if this worker has moved a file out of it. The folder's time does
not show a file that arrives at the same time as such a move."""

SAFETY_SHARE = 50.0
"""These scans use at most 1/50 of a worker's time."""

SAFETY_WATCHED = 10.0
"""While events name all new files, the pause before such a scan is this many times longer."""

NAMED = 1000
"""Files of a burst that are taken in by name at a time: some 20 ms. With smaller parts each file costs 50 % more."""

SOON, LATER = 0.1, 0.3
"""Seconds after which files taken in by name are followed by a check scan: in the worker that took them in, in others."""

BUSY_PAUSE = 10.0
"""A busy worker waits this many times as long before its check scan."""

_STANDBY_PAUSE = 0.005
"""Seconds that an idle worker waits for another one that is taking in new files."""


class ScanScheduler:
    """Decides about scans of pending/ for one worker. One worker scans at a time; the others go on running jobs.

    Attributes:
        has_news: a file has arrived since this was last set to False.
        may_have_missed: a file may have arrived beside a move of our own.
    """

    def __init__(self, layout: Layout, intake: Intake, watch: FolderWatch, barrier: FaultBarrier) -> None:
        self.has_news = self.may_have_missed = False
        self._intake = intake
        self._watch = watch
        self._barrier = barrier
        self._burst = Burst(layout)
        self._edit_scan = EditScan(layout, intake, watch)
        self._index_path = layout.index
        self._busy = self._had_slice = self._is_standby = self._has_drop_folder = False
        self._next_slice_at = 0.0
        # The scan of the whole folder.
        self._lock_path = os.path.join(layout.data, "intake.lock")
        self._lock: Lock | None = None
        self._scan: Iterator[None] | None = None
        self._scanned_at: tuple[int, int] | None = None
        self._is_safety_scan = False
        self._scan_paused_until = 0.0
        self._cost = 0.0
        self._not_before = 0.0
        self._safety_at = time.monotonic() + SAFETY_PAUSE
        self._check_at: float | None = None

    # -- files that events name ------------------------------------------------------------------------------------

    @property
    def has_names(self) -> bool:
        """Whether events have named files that nobody has looked at."""
        return bool(self._watch.names)

    def take_in_named(self, *, busy: bool = False) -> None:
        """Take in the files that events have named since the last time, for a slice at the most.

        Args:
            busy: a job is running, so that this delays no start. Otherwise a burst gets one slice between two starts.
        """
        heard = self._watch.read()
        self.has_news = self.has_news or heard or self._watch.unnamed > 0
        if self._burst.is_joined and (time.monotonic() < self._next_slice_at if busy else self._had_slice):
            return
        if heard or self._burst.is_joined:
            with self._barrier:
                self._take_in_named()

    def _take_in_named(self) -> None:
        heard, burst = self._watch.names, self._burst
        if not (burst.is_joined or (len(heard) <= BURST and not self._is_standby)) and not self._join_burst():
            return
        began = time.monotonic()
        taken = self._intake.taken
        while (heard or len(burst)) and time.monotonic() - began < SLICE:
            part, is_urgent = list(heard), False
            heard.clear()
            if burst.is_joined:
                part, is_urgent = self._next_of_burst(part, began)
            self._intake.take_named([name for name in part if is_job_name(name)])
            self._watch.read()
            if is_urgent and len(part) < NAMED:
                # It can start at once, or when the running job ends, which may end now.
                self._next_slice_at = time.monotonic() + URGENT_PAUSE
                break
        self._had_slice = burst.is_joined
        if not heard and not len(burst):
            burst.leave()
        self._schedule_check(SOON if self._intake.taken > taken else LATER)

    def _next_of_burst(self, heard: list[str], began: float) -> tuple[list[str], bool]:
        """Return the files of a burst to take in next, and whether they are more urgent than others usually are.

        Reading the files takes a tenth of the time of taking them in, and an urgent one may be among those that nobody
        has read. So most of a slice is for reading, as long as there are files to read: with half of it two workers fell
        behind a program that dropped 50,000 files a second, and urgent ones waited for a second.

        Args:
            heard: the names that have just arrived.
            began: when the slice began.
        """
        burst, priority = self._burst, self._intake.default_priority
        burst.add(filter(is_job_name, heard))
        burst.read_ahead(priority)
        is_urgent = burst.has_above(priority)
        is_read = burst.is_read or time.monotonic() - began >= READING * SLICE
        return burst.take(NAMED) if is_urgent or is_read else [], is_urgent

    def _join_burst(self) -> bool:
        """Become one of the workers that take in a burst of files; a few files are looked at by every worker."""
        joined = self._burst.join(self._lock)
        if not joined:
            self._watch.names.clear()
            self._schedule_check(LATER)
        self._set_standby(not joined)
        return joined

    def _set_standby(self, on: bool) -> None:
        """Ignore events while another worker takes in a burst: each of them would end our wait."""
        if on is not self._is_standby:
            self._is_standby = on
            self._watch.mask(masked=on)

    def _is_on_standby(self) -> bool:
        """Whether another worker is still taking in the files that we have heard of."""
        if self._is_standby and not is_locked(self._lock_path):
            self._set_standby(False)
        return self._is_standby

    def _schedule_check(self, pause: float) -> None:
        if self._check_at is None:
            self._check_at = time.monotonic() + (pause * BUSY_PAUSE if self._busy else pause)

    def check_watch(self) -> None:
        """Once a second: start the watch if it is cheap, and see whether it has missed a new file."""
        self._watch.start(busy=True)
        self._is_on_standby()
        if self._watch.names_all and self._check_at is None and not self._intake.pending_agrees():
            self._schedule_check(0.0)

    # -- scans of the whole folder ---------------------------------------------------------------------------------

    def take_in(self) -> None:
        """Take in named files; else go on with a scan for a slice, or begin one if somebody has changed pending/."""
        before = self._intake.taken
        self.take_in_named()
        if self._intake.taken > before or self._burst.is_joined:
            return  # there is a job to start, and no check is due yet
        self._edit_scan.do_slice(busy=self._busy)
        began = time.monotonic()
        if self._is_scan_paused(began) or (self._scan is None and not self._begin_scan(began)):
            return
        spent, compared, taken = time.thread_time(), self._intake.compared, self._intake.taken
        length = SHORT_SLICE if self._is_safety_scan and self._busy else SLICE
        while self._scan is not None and time.monotonic() - began < length:
            if next(self._scan, self) is self:
                self._end_scan()
        now = time.monotonic()
        # Processor time and not clock time: on a busy machine clock time would delay the next scan by minutes. Time
        # spent on new files does not count, or a hundred thousand of them would have to wait after each slice.
        in_vain = 1 - (self._intake.taken - taken) / max(1, self._intake.compared - compared)
        self._cost += (time.thread_time() - spent) * max(0.0, in_vain)
        self._scan_paused_until = now + (now - began) * BUSY_SHARE
        self._not_before = now + self._cost * SCAN_SHARE
        self._safety_at = now + self._safety_pause()

    def _safety_pause(self) -> float:
        """Return the seconds until the next safety scan: more while events name all files, as a file is missed only if the
        events and the folder's time both fail.
        """
        return max(SAFETY_PAUSE, self._cost * SAFETY_SHARE) * (
            SAFETY_WATCHED if self._watch.names_all else 1.0
        )

    def continue_scan(self) -> None:
        """Continue a scan while a long job runs: until it ends, no other worker can start one."""
        if self._scan is not None or self._edit_scan.is_running or self._watch.names or self._burst.is_joined:
            self.take_in()

    def _begin_scan(self, now: float) -> bool:
        if now < self._not_before:
            return False
        self.may_have_missed = self.may_have_missed or self._watch.unnamed > 0
        is_overdue = self.may_have_missed and now >= self._safety_at
        agrees = self._intake.pending_agrees()
        tells_all = self._watch.names_all
        if agrees and not is_overdue:
            self._watch.is_lost = False
            self._check_at = None
            return False
        if tells_all and not is_overdue and not self._is_check_due(now):
            return False
        self._lock = self._lock or Lock.acquire(self._lock_path)
        if self._lock is None:
            self._not_before = now + SLICE if tells_all else 0.0
            if tells_all:
                # Another worker scans now. If every worker also waited for its turn, none could claim the next job
                # in the transaction that settles one: with dozens of workers that doubled the transactions.
                self._safety_at = max(self._safety_at, now + self._safety_pause())
            return False
        self.may_have_missed = self._watch.is_lost = False
        self._check_at = None
        self._scanned_at = self._intake.index.folder_time(PENDING)
        self._is_safety_scan = (agrees or tells_all) and self._busy
        note_time = not (agrees and self._busy)
        self._scan = self._intake.scan(PENDING, find_missing=not self._busy, note_time=note_time)
        self._cost = 0.0
        return True

    def _is_check_due(self, now: float) -> bool:
        self._schedule_check(SOON)
        return self._check_at is not None and now >= self._check_at

    def _is_scan_paused(self, now: float) -> bool:
        """Whether a safety scan leaves the time to the jobs; a new file ends it, as that needs an ordinary scan."""
        if self._scan is None or not self._is_safety_scan or not self._busy:
            return False
        if self._watch.names_all or self._intake.pending_agrees():
            return now < self._scan_paused_until
        self._end_scan()
        self._not_before = 0.0
        return False

    # -- what the worker asks and tells ----------------------------------------------------------------------------

    def is_up_to_date(self) -> bool:
        """Whether the next job can be claimed at once: no scan is due, and no file of other programs has arrived."""
        now, watch = time.monotonic(), self._watch
        if watch.unnamed or watch.names or self._burst.is_joined:
            return False
        if self._scan is not None and not (self._is_safety_scan and now < self._scan_paused_until):
            return False
        if self._edit_scan.is_due(now):
            return False
        if self._scan is None and self.may_have_missed and now >= self._safety_at:
            return False
        if watch.names_all:
            return (
                self._check_at is None
                or self._scan is not None
                or now < max(self._check_at, self._not_before)
            )
        return self._intake.pending_agrees()

    def job_claimed(self) -> None:
        """Note that the worker has claimed a job: it is busy, and a file may have arrived beside its own move."""
        self._busy, self._had_slice, self._next_slice_at = True, False, 0.0
        if not self.may_have_missed:
            self.may_have_missed = True
            self._safety_at = max(self._safety_at, time.monotonic() + self._safety_pause())

    def note_events(self) -> None:
        """Note events without names: a file may have arrived beside one of our own moves, or during a scan."""
        if self._watch.unnamed:
            self._watch.unnamed = 0
            self.may_have_missed = True

    @property
    def nothing_due(self) -> bool:
        """Whether nothing is to be looked at until an event comes, and an event will come."""
        return self._watch.names_all and not (
            self.may_have_missed
            or self._has_drop_folder
            or self._intake.index.path != self._index_path
            or self._is_standby
            or self._watch.names
            or self._watch.is_edited
            or self._intake.unfinished
            or self._check_at is not None
            or self._scan is not None
            or self._edit_scan.is_running
        )

    def has_work(self, *, leaving: bool = False) -> bool:
        """Whether there is something to take in. Only an idle worker asks, so nothing has to wait for jobs any more.

        Args:
            leaving: the worker wants to leave, so a scheduled check is due now.
        """
        self._busy = self._had_slice = False
        self._not_before = 0.0
        if self._edit_scan.is_running:
            self._edit_scan.end_pause()
            return True
        if self._scan is not None or self._watch.names or self._burst.is_joined or self._is_on_standby():
            return True
        if self._intake.unfinished:
            # While one file is not complete, the index does not note that it agrees with the folder.
            if leaving and self._intake.index.folder_time(PENDING) != self._scanned_at:
                self.look_again()
                return True
            return False
        if self._intake.pending_agrees():
            return False
        now = time.monotonic()
        if leaving:
            self._check_at = now
        elif self._check_at is not None:
            self._check_at = min(self._check_at, now + LATER)
        return not self._watch.names_all or self._is_check_due(now)

    def look_again(self) -> None:
        """Have the next call of `take_in` begin a scan, whatever events and the folder's time say."""
        self._busy, self.may_have_missed = False, True
        self._not_before = self._safety_at = 0.0

    def wait_limit(self, longest: float) -> float:
        """Seconds that an idle worker may wait, at most `longest`."""
        seconds = 0.0 if self.has_work() else min(longest, self.next_scan_in())
        is_ours = self._lock is not None or self._burst.is_joined
        if seconds == 0.0 and not is_ours and is_locked(self._lock_path):
            return _STANDBY_PAUSE
        return seconds

    def next_scan_in(self) -> float:
        """Seconds until the next safety scan or check scan; infinite if none is needed."""
        at = self._safety_at if self.may_have_missed else math.inf
        if self._check_at is not None:
            at = min(at, self._check_at)
        return max(0.0, at - time.monotonic())

    def take_from_drop_folder(self, drops: DropFolder, settings: Settings, *, busy: bool) -> None:
        """Take in what other users dropped, if a folder is set up for that and no other worker is doing it."""
        self._has_drop_folder = settings.incoming is not None
        if not self._has_drop_folder:
            return
        lock = Lock.acquire(self._lock_path)
        if lock is not None:
            try:
                drops.take_in(settings, SLICE if busy else IDLE_SLICE)
            finally:
                lock.release()

    def close(self) -> None:
        """End all scans, finished or not."""
        self._edit_scan.end()
        self._end_scan()
        self._burst.leave()

    def _end_scan(self) -> None:
        self._scan = None
        if self._lock is not None:
            self._lock.release()
            self._lock = None
