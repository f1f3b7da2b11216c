"""Periodic maintenance by a worker: the index's health, files left behind, dead workers, expired jobs, old records.

Nothing here is urgent, and all of it together takes some microseconds a second.
"""

from __future__ import annotations

import math
import os
import sqlite3
import stat
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from queuectl.errors import InvalidJob, MoveError, QueuectlError
from queuectl.index.index import Index
from queuectl.index.row import accept_as_indexed
from queuectl.job import times
from queuectl.layout import PENDING
from queuectl.storage import dead_letters, dependencies, locate, recovery, scratch, unique_keys
from queuectl.storage.claim import release
from queuectl.storage.retention import Retention
from queuectl.storage.settle import settle
from queuectl.system import files, safe_open

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from queuectl.config.settings import Settings
    from queuectl.index.row import Row
    from queuectl.job.conditions import Condition
    from queuectl.job.record import Job
    from queuectl.layout import Layout
    from queuectl.storage.file_pool import FilePool
    from queuectl.storage.transitions import Claim, Storage

EVERY = 5.0
"""Seconds between rounds of maintenance."""

LONGEST = 300.0
"""The longest pause, in seconds, before an index that was refused is tried again: each success has every folder scanned."""

DOUBT_AFTER = 600.0
"""Seconds after which one of the workers compares pending/ with the index although nothing seems to have changed:
whatever made the index lose a job, the job starts after that time at the latest."""

CLAIMANTS_A_SECOND = 10.0
"""Workers with claims that one worker checks each second, on the average: with more of them each checks less often."""

SLOW_TAKE_BACK = 0.3
"""Seconds. Taking jobs back takes so long only if processes of their runs have to be ended, and wait for it."""

REST_AFTER_SLOW = 10
"""If that took t seconds in vain, that worker's jobs are tried again after this many times t: processes of another user
cannot be ended at all, and meanwhile no job would start, and none be ended at its timeout."""

CLOCK_STEP = 1.0
"""Seconds by which the wall clock must have been set back to be noticed. NTP corrects small errors without a step."""

SWEEP_EVERY = 3600.0
"""Seconds between sweeps of tmp/, and between compressions of logs."""

STALE = 24 * 3600.0
"""Seconds after which a file in tmp/ is deleted: no producer takes a day between writing a job's file and queueing it."""

SLICE = 0.05
"""Seconds of a round for compressing logs (a hundredth of the time), and for expired jobs, each of which is synced."""

MAX_CHECKED = 64 << 20
"""Bytes up to which the index is checked when a worker starts: that takes a tenth of a second."""

_EXPIRED_PAGE = 200


class Maintenance:
    """The maintenance that one worker does.

    Args:
        say: takes a line for the log.
        say_once: the same, for what may be found again in each round.
    """

    def __init__(self, storage: Storage, say: Callable[[str], None], say_once: Callable[[str], None]) -> None:
        self._layout, self._index, self._now = storage.layout, storage.index, storage.now
        self._storage, self._say, self._say_once = storage, say, say_once
        self._retention = Retention(storage, say)
        self._next_round = self._next_sweep = 0.0
        self._return_pause = EVERY
        self._next_return = 0.0
        self._compressing: Iterator[None] | None = None
        self._claims_seen = locate.BusyWorkers(self._layout)
        self._claimants: list[str] = []
        self._next_claimants = 0.0
        self._not_before: dict[str, float] = {}
        self._clock_offset = math.inf

    def take_back(self, settings: Settings, worker: str, *, has_no_job: bool) -> None:
        """Take back the jobs of dead workers.

        Args:
            worker: our own name.
            has_no_job: we hold no job, so what lies in our folder is from an earlier worker of that name.

        Raises:
            OSError, sqlite3.Error: the disk or the index refused.
        """
        if (began := time.monotonic()) < self._next_claimants:
            return
        self._claimants = self._claims_seen.names(self._now())
        self._next_claimants = began + len(self._claimants) / CLAIMANTS_A_SECOND
        for claimant in self._claimants:
            if (claimant != worker or has_no_job) and began >= self._not_before.get(claimant, 0.0):
                self._take_back_from(claimant, settings, mine=claimant == worker)

    def _take_back_from(self, claimant: str, settings: Settings, *, mine: bool) -> None:
        began = time.monotonic()
        if mine:
            recovery.recover_worker(self._storage, settings, claimant, self._say_once)
        else:
            recovery.recover_claims(self._storage, settings, self._say_once, busy=(claimant,))
        now = time.monotonic()
        self._not_before.pop(claimant, None)
        if now - began > SLOW_TAKE_BACK and locate.claimed_by(self._layout, claimant):
            self._not_before[claimant] = now + REST_AFTER_SLOW * (now - began)

    @property
    def nothing_due(self) -> bool:
        """Whether nothing is due, and no other worker held a job at the last look."""
        return not self._claimants and time.monotonic() < self._next_round

    def seconds_to_next(self) -> float:
        """Seconds until something is due that must not be late by half a minute.

        Raises:
            sqlite3.Error: the index refused.
        """
        if self._compressing is not None:
            return 0.0
        expiry = self._index.next_expiry()
        return math.inf if expiry is None else expiry / 1e6 - self._now()

    def begin(self, died_at_start: float | None) -> None:
        """Make sure that the index can be believed.

        Args:
            died_at_start: when the last worker of our name started, if it died, in epoch seconds.

        Raises:
            sqlite3.Error: the index refused.
        """
        if died_at_start is not None and self._index.usable:
            recovery.distrust_if_rebuilt(self._index, died_at_start)
        self._check_index()

    def _check_index(self) -> None:
        """Have a damaged index rebuilt. Damage in a part that is seldom read would not show otherwise."""
        index = self._index
        with suppress(OSError):
            if not index.usable or os.stat(index.path).st_size > MAX_CHECKED:
                return
            try:
                [answer] = index.db.execute("PRAGMA quick_check(1)").fetchone()
            except sqlite3.DatabaseError as error:
                answer = str(error)
            if answer != "ok":
                index.broken = f"database disk image is malformed: {' '.join(answer.split())}"
                self._say("the index is damaged and will be rebuilt")

    def look(self, settings: Settings, worker: str) -> None:
        """Do what is due.

        Args:
            worker: our own name.

        Raises:
            OSError, sqlite3.Error: the disk or the index refused; the rest is done in a later round.
        """
        now = time.monotonic()
        if now < self._next_round:
            return
        self._next_round = now + EVERY
        if now >= self._next_sweep:
            self._next_sweep = now + SWEEP_EVERY
            sweep_tmp(self._layout, self._now())
        self._return_to_file(now)
        if self._index.usable:
            self._look_at_clock()
            recovery.clear_dead_workers(self._layout, self._index, self._say_once, mine=worker)
            self._doubt_index()
            unique_keys.unblock(self._storage)
            self._compress_logs(settings.compress_logs)
            all_given_up = give_up_all_expired(self._storage, self._say)
            if not (self._retention.look(settings) and all_given_up):
                self._next_round = now

    def _look_at_clock(self) -> None:
        """Shorten the waits for retries if the wall clock was set back, or may have been before we started.

        A job may come later than that, and its parents may have ended before. So this is looked for each time.
        """
        now = self._now()
        offset = now - time.monotonic()
        if offset < self._clock_offset - CLOCK_STEP:
            self._index.shorten_waits(times.micros(now))
        self._clock_offset = offset
        self._index.shorten_waits_for_parents(times.micros(now))

    def _return_to_file(self, now: float) -> None:
        """Go back from an index in memory to the one in its file, once that can be written again."""
        if self._index.path == self._layout.index:
            self._return_pause = EVERY
        elif now >= self._next_return:
            if self._is_file_writable():
                self._index.use_file(self._layout.index)
                self._say("the index is kept in its file again")
            self._next_return = now + self._return_pause
            self._return_pause = min(self._return_pause * 2, LONGEST)

    def _is_file_writable(self) -> bool:
        path = os.path.join(self._layout.data, files.temporary_name())
        probe = Index(self._layout.index, self._layout.root, self._index.boot)
        try:
            files.write_new(path, bytes(1 << 16), sync=True)
            os.unlink(path)
            probe.open()
            with probe.write():
                pass
        except (OSError, sqlite3.Error, QueuectlError):
            return False
        finally:
            probe.close()
        return True

    def _doubt_index(self) -> None:
        is_known = self._index.meta("doubted") is not None
        if self._is_our_turn("doubted", DOUBT_AFTER) and is_known:
            with self._index.write():
                self._index.mark_stale(PENDING)

    def _is_our_turn(self, what: str, every: float) -> bool:
        """Whether no worker has done this for so many seconds; then this worker has to do it."""
        index, now = self._index, self._now()
        last = index.meta(what)
        if last is not None and 0 <= now - last < every:
            return False
        with index.write():
            index.db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (what, now))
        return True

    def _compress_logs(self, age: float | None) -> None:
        """Compress some of the logs that are older than `age` seconds; many of them are spread over many rounds."""
        if age is None:
            self._compressing = None
            return
        from queuectl.storage import job_logs

        steps, self._compressing = self._compressing, None
        if steps is None and self._is_our_turn("packed logs", SWEEP_EVERY):
            steps = job_logs.compress(self._layout, self._now() - age)
        # Kept only when the slice ended well: a fault of the disk ends the compression until the next hour.
        if steps is not None and not job_logs.run_steps(steps, SLICE):
            self._compressing = steps


def tell_what_waits(
    index: Index, say: Callable[[str], None], barrier: AbstractContextManager[object]
) -> None:
    """Say how many failed jobs are left that run again later: for a worker that leaves, drained is not all done."""
    with barrier:
        if failed := index.counts()["failed"]:
            say(f"{failed} failed job(s) wait for another attempt; --wait-retries waits for them")


def sweep_tmp(layout: Layout, now: float) -> None:
    """Delete what killed producers left in tmp/ a day ago or more; nothing that may belong to anybody else.

    Raises:
        OSError: the folder cannot be read.
    """
    with os.scandir(layout.tmp) as entries:
        for entry in entries:
            is_batch = scratch.is_scratch_folder(entry.name)
            if is_batch or files.is_temporary_name(entry.name):
                with suppress(OSError):
                    status = entry.stat(follow_symlinks=False)
                    touched = max(status.st_mtime, status.st_ctime)
                    fits = stat.S_ISDIR if is_batch else stat.S_ISREG
                    if (
                        fits(status.st_mode)
                        and not safe_open.has_other_owner(status)
                        and now - touched > STALE
                    ):
                        (scratch.delete_folder if is_batch else os.unlink)(entry.path)


# -- expired jobs ------------------------------------------------------------------------------------------------------


def give_up_expired(storage: Storage, claim: Claim, say: Callable[[str], None]) -> None:
    """Move a claimed job that has expired before its start to dead/, uncharged.

    It goes back to pending/ first, as only a run can be settled.

    Raises:
        QueuectlError, OSError: the disk refused, or somebody has taken the job meanwhile.
    """
    reason = _reason(claim.job.expires_at or 0)
    if storage.before_end is not None:
        storage.before_end([(claim.job, "dead")])
    dead_letters.bury(storage, release(storage, claim), reason)
    say(f"dead {claim.job.id}: {reason}")


def settle_decided(
    storage: Storage, claim: Claim, decides: Condition, pool: FilePool | None, say: Callable[[str], None]
) -> None:
    """Record a claimed job without a run, as one of its conditions has decided.

    Ten thousand jobs may wait for one. With two waits for the disk for each, their worker did nothing else for a minute.

    Args:
        pool: the worker's recycled files, see `settle`.

    Raises:
        QueuectlError, OSError: the disk refused.
    """
    state, why = dependencies.what_follows(decides)
    if state == "dead":
        claim.job.last_error = why
    settle_without_run(storage, claim, why, pool, say, state=state)


def settle_without_run(
    storage: Storage,
    claim: Claim,
    why: str,
    pool: FilePool | None,
    say: Callable[[str], None],
    *,
    state: str = "completed",
) -> None:
    """Record a claimed job without a run.

    Raises:
        QueuectlError, OSError: the disk refused.
    """
    job = claim.job
    if state != "dead":
        job.not_run = why
    # Statistics count the jobs that have finished a run, and this one has not.
    job.finished_at, job.next_retry_at = None, None
    if settle(storage, claim, state, pool):
        say(f"dead {job.id}: {why}" if state == "dead" else f"completed {job.id} without a run: {why}")


def _reason(expires_at: float) -> str:
    return f"Expired (expires_at was {times.iso(expires_at)})"


def give_up_all_expired(storage: Storage, say: Callable[[str], None]) -> bool:
    """Move waiting jobs that have expired to dead/, wherever they stand in the order; True when none is left.

    Args:
        storage: whose index and clock count.
        say: takes a line for each.

    Raises:
        SpoolError: the disk refused.
    """
    began = time.monotonic()
    now = storage.now()
    for row in storage.index.expired(times.micros(now), _EXPIRED_PAGE):
        if time.monotonic() - began > SLICE:
            return False
        reason = _reason((row.expires or 0) / 1e6)
        try:
            dead_letters.bury(storage, row, reason, if_still=partial(_gives_up, storage, row, now))
        except (MoveError, InvalidJob):
            # Claimed or edited meanwhile. If the row stayed, its file would be moved to and fro in every round.
            with storage.index.write():
                storage.index.drop_if_at(row.id, row.place, row.name)
                storage.index.mark_stale(PENDING)
        else:
            say(f"dead {row.id}: {reason}")
    return True


def _gives_up(storage: Storage, row: Row, now: float, job: Job) -> bool:
    """Whether a job has expired, by its file. Then rules tell of it before it is moved."""
    if job.state in ("completed", "dead"):
        job.renew(row.arrived / 1e6)
    accept_as_indexed(job, row)
    if not job.expired(now):
        return False
    if storage.before_end is not None:
        job.id = row.id
        storage.before_end([(job, "dead")])
    return True
