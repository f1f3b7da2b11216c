"""Jobs that may have killed their workers: each starts apart from the others, and none waits for ever.

Of several jobs that ran when their worker died, one may be the cause. If it is run beside others again, it takes them
with it: each death counts for all of them, and after a few they are dead. So a suspect starts while no other job of its
worker is young, and no other one starts while it is young itself. A run that has lasted for a minute is company no
longer. Otherwise a job without end would keep all suspects from running, or a suspect without end all other jobs.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from queuectl.job.outcome import is_suspect

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from queuectl.index.index import Index
    from queuectl.index.row import Row
    from queuectl.job.record import Job
    from queuectl.worker.job_run import JobRun

APART = 60.0
"""Seconds for which a run is young. Also how long other jobs pass a suspect that waits, before none is started."""


class Suspects:
    """Says when the suspects of one worker start, and when other jobs do.

    Args:
        runs: what the worker runs.
        index: knows where the suspects wait.
        ready: returns the first jobs that may start as far as their limits go, at most so many.
        is_open: whether jobs of a lane may start. No other job is kept waiting for a suspect of a paused or full queue.
        clock: a monotonic one, in seconds.
    """

    def __init__(
        self,
        runs: Mapping[int, JobRun],
        index: Index,
        ready: Callable[[int], list[Row]],
        is_open: Callable[[str | None], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._runs, self._index, self._first, self._clock = runs, index, ready, clock
        self._is_open = is_open
        self._waiting: set[str] = set()
        self._pass_until = 0.0
        self._newest: JobRun | None = None

    def __bool__(self) -> bool:
        """Whether suspects wait for their turn here."""
        return bool(self._waiting)

    def must_wait(self, job: Job) -> bool:
        """Whether a job is a suspect that may not start now; the others pass it from now on, for a limited time."""
        if not is_suspect(job) or not self._has_company():
            return False
        if not self._waiting:
            self._pass_until = self._clock() + APART
        self._waiting.add(job.id or "")
        return True

    def note_start(self, run: JobRun) -> None:
        """Take note of a run that is started. After a suspect the other jobs have their turn."""
        if is_suspect(run.claim.job):
            self._newest = run
            self._waiting.discard(run.job_id)
            self._pass_until = self._clock() + 2 * APART

    @property
    def hold(self) -> bool:
        """Whether no job may start now: a suspect is young, or it is the turn of one that waits."""
        newest = self._newest
        if newest is not None and self._runs.get(newest.slot) is newest and self._is_young(newest):
            return True
        return bool(self._waiting) and self._is_their_turn and self._has_company()

    def next_rows(self, limit: int) -> list[Row]:
        """Return the jobs to claim next, in order, at most `limit`; those that wait for their turn come at their turn."""
        if not self._waiting:
            return self._first(limit)
        if self.hold:
            return []
        others = [row for row in self._first(limit + len(self._waiting)) if row.id not in self._waiting]
        if (others and not self._is_their_turn) or self._has_company():
            return others[:limit]
        first = min(self._ready(), key=lambda row: (row.ready_key, row.seq), default=None)
        return others[:limit] if first is None else [first]

    def forget_gone(self) -> None:
        """Forget those that another worker has taken, or somebody has moved, or that their queue keeps from starting.

        No job is kept from starting for them.
        """
        self._waiting = {row.id for row in self._ready()}

    def _ready(self) -> list[Row]:
        rows = self._index.rows_of([*self._waiting]).values()
        return [row for row in rows if row.ready_key is not None and self._is_open(row.lane)]

    @property
    def _is_their_turn(self) -> bool:
        return not self._runs or self._clock() >= self._pass_until

    def _has_company(self) -> bool:
        return any(map(self._is_young, self._runs.values()))

    def _is_young(self, run: JobRun) -> bool:
        return run.began > self._clock() - APART
