"""Claim several short jobs at a time.

After a command has run, the processor's caches are full of what it left there, and the bookkeeping of a job costs two to
three times as much as when it is done several times in a row. So while jobs take a few milliseconds and many wait, a
worker claims several at once, runs them one after the other, and settles them together (see `settle_batch`). A job that
takes longer ends the batch at once: what has not started goes back, and other workers may take it.
"""

from __future__ import annotations

import os
import time
from collections import deque
from typing import TYPE_CHECKING

from queuectl.job.times import micros
from queuectl.storage.claim import claim_files, read_claim, release

if TYPE_CHECKING:
    from collections.abc import Callable

    from queuectl.index.row import Row
    from queuectl.storage.transitions import Claim, Storage
    from queuectl.worker.health import Readiness
    from queuectl.worker.scan_scheduler import ScanScheduler

BATCH_SECONDS = 0.025
"""Seconds of work that a worker claims at a time, judged by how long the last jobs took."""

MAX_BATCH = 16
"""The most jobs that it claims at a time."""

LONG_JOB = 0.005
"""Seconds after which a job counts as long, and the jobs claimed with it are put back."""

WAITING_SHARE = 4
"""Beyond its first job a worker claims at most one of this many waiting jobs: the last ones are for all workers."""

SINGLE_CLAIMS = 100
"""Claims of one job at a time after a job that must not run twice: where there is one, there are more."""


class Prefetch:
    """The jobs that one worker has claimed and not started.

    Args:
        storage: claims the jobs; its index says which come next.
        worker: the worker's name.
        scheduler: is told of each claim.
        readiness: says whether jobs may start.
        room: returns how many jobs can be started at once.
        running: returns how many are running.
        choose: returns the first jobs that may be claimed, at most so many; by default the first ones in order.
        admit: takes the permits of jobs, of which a number starts at once; returns those that can be claimed.
        clock: a monotonic one, in seconds.

    Attributes:
        ready: claimed and read, in the order in which they will run.
    """

    def __init__(
        self,
        storage: Storage,
        worker: str,
        scheduler: ScanScheduler,
        readiness: Readiness,
        *,
        room: Callable[[], int] = lambda: 1,
        running: Callable[[], int] = lambda: 1,
        choose: Callable[[int], list[Row]] | None = None,
        admit: Callable[[list[Row], int], list[Row]] = lambda rows, _: rows,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.ready: deque[Claim] = deque()
        self._storage, self._index, self._worker = storage, storage.index, worker
        self._scheduler, self._readiness, self._clock = scheduler, readiness, clock
        self._room, self._running, self._choose = room, running, choose or self._index.ready
        self._admit = admit
        self._unread: deque[tuple[Row, str]] = deque()
        self._size, self._started, self._batch_began = 1, 0, clock()
        self._runs_ended = 0.0
        self._single_claims = 0

    def __bool__(self) -> bool:
        return bool(self.ready or self._unread)

    @property
    def has_room(self) -> bool:
        """Whether a job can be started now."""
        return self._room() > 0

    @property
    def is_batch_fresh(self) -> bool:
        """Whether the batch was claimed a short while ago, so that its finished attempts need not be settled yet."""
        return self._clock() - self._batch_began < 2 * BATCH_SECONDS

    def note_runs_ended(self) -> None:
        """Note that outcomes are recorded from now on: a wait for the disk does not make the jobs long."""
        self._runs_ended = self._clock()

    def fill(self) -> None:
        """Claim the first jobs in order, if there are any, and read them.

        Raises:
            OSError, sqlite3.Error: the disk or the index refused.
        """
        while not self.ready:
            if not self._unread:
                with self._index.moving():
                    self.take()
            if not self._unread:
                return
            self.read()

    def take(self) -> None:
        """Claim the first jobs in order. Call it in a transaction, so that no two workers reach for the same file."""
        self._index.mark_due_ready(micros(self._storage.now()))
        refused: set[str] = set()
        while not (self._readiness.blocked or self._unread) and self._index.usable:
            rows = [row for row in self._next_rows() if row.id not in refused]
            if not rows:
                return
            # Lanes for which there is no permit are closed now. So the next rows, if any, are others.
            if admitted := self._admit(rows, max(1, self._room())):
                self._scheduler.job_claimed()
                self._unread.extend(claim_files(self._storage, admitted, self._worker))
            else:
                refused.update(row.id for row in rows)

    def read(self) -> None:
        """Read the claimed files. Call it outside of the transaction, as other workers wait for that.

        Raises:
            OSError, sqlite3.Error: the disk or the index refused. The remaining files can be read later; the one that was
                being read is taken back from the worker's folder once the worker holds no other job.
        """
        while self._unread:
            claim = read_claim(self._storage, *self._unread.popleft())
            if claim is not None:
                self.ready.append(claim)
        if len(self.ready) > 1:
            self._keep_fragile_alone()

    def _next_rows(self) -> list[Row]:
        size = max(self._next_size(), self._room())
        if size > 1:
            size = max(1, min(size, self._index.count_ready(size * WAITING_SHARE) // WAITING_SHARE))
        rows = self._choose(size)
        # A job with a unique key is claimed alone: whether it may run is decided for one job at a time.
        keyed = next((place for place, row in enumerate(rows) if row.unique_key is not None), len(rows))
        return rows[: max(1, keyed)]

    def _next_size(self) -> int:
        """How many jobs to claim: twice as many as last time, up to a batch of work; one while jobs are long."""
        now = self._clock()
        ended = self._runs_ended if self._runs_ended > self._batch_began else now
        # Of 64 jobs at once one may end each millisecond, and each of them is long all the same.
        spent = (ended - self._batch_began) * max(1, self._running())
        pace = spent / self._started if self._started else LONG_JOB
        self._batch_began, self._started = now, 0
        self._single_claims = max(0, self._single_claims - 1)
        single = self._single_claims or not 0 < pace < LONG_JOB
        self._size = 1 if single else max(1, min(2 * self._size, MAX_BATCH, int(BATCH_SECONDS / pace)))
        return self._size

    def _keep_fragile_alone(self) -> None:
        """Put back what was claimed beside a job that must not run twice: after a power cut every claim counts as begun."""
        for place, claim in enumerate(self.ready):
            if claim.job.on_crash == "dead":
                self.release(keep=max(1, place))
                self._single_claims = SINGLE_CLAIMS
                return

    def rows(self) -> list[Row]:
        """Return the rows of the jobs that have not started."""
        return [*(claim.row for claim in self.ready), *(row for row, _ in self._unread)]

    def next(self) -> Claim:
        """Take out the first of the ready jobs, to start it."""
        self._started += 1
        return self.ready.popleft()

    def take_out(self, condition: Callable[[Claim], bool]) -> list[Claim]:
        """Take out the ready jobs for which the condition is true."""
        chosen = [claim for claim in self.ready if condition(claim)]
        if chosen:
            self.ready = deque(claim for claim in self.ready if claim not in chosen)
        return chosen

    def claim_more_urgent(self) -> None:
        """Claim the first waiting job if it now comes before the ready ones.

        Raises:
            OSError, sqlite3.Error: the disk or the index refused.
        """
        first, mine = next(iter(self._choose(1)), None), self.ready[0].row
        if first is None or (first.ready_key, first.seq) > (mine.ready_key, mine.seq):
            return
        with self._index.moving():
            taken = claim_files(self._storage, self._admit([first], 1), self._worker)
        self.ready.extendleft(claim for one in taken if (claim := read_claim(self._storage, *one)))
        self._keep_fragile_alone()

    def release(self, *, keep: int = 0) -> None:
        """Put back the jobs that have not started, unchanged, except for the first `keep` of them.

        Raises:
            OSError, sqlite3.Error: the disk or the index refused; the jobs that could not be put back remain in `ready`.
        """
        self._size = 1
        while self._unread:
            self.read()
        while len(self.ready) > keep:
            if os.path.lexists(self.ready[-1].path):  # somebody may have taken the file away
                release(self._storage, self.ready[-1])
            self.ready.pop()
