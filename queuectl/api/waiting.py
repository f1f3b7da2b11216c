"""Wait for jobs to end: poll the times of two folders, and read the index when they have changed.

A poll is two `stat` calls. It is repeated every 20 ms at first, and four times a second after half a minute. So a wait of
hours costs next to nothing, and it takes none of the few inotify instances that a user has.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from queuectl.control import own_job, pause, registry
from queuectl.errors import ConfigError, JobError, SpoolError, StillUnderWay
from queuectl.fast_start.dataclass import dataclass
from queuectl.job.fields import WAITING
from queuectl.layout import ENGINES, LOCAL
from queuectl.storage import locate
from queuectl.system import file_times

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from queuectl.api.spool_base import SpoolBase
    from queuectl.index.row import Row

OVER = ("completed", "dead")
"""The states that no job leaves by itself."""

_CODES = {"Timeout exceeded": 124, "Cannot start": 127}
"""Exit codes of jobs that did not end by themselves, by the beginning of their error: as timeout(1) and a shell have them."""

_MIN_PAUSE, _MAX_PAUSE = 0.02, 0.25
"""Seconds between two polls, at least and at most."""

_PAUSE_SHARE = 0.01
"""Between these limits, a pause takes this share of the time waited so far."""

_INDEX_PERIOD = 2.0
"""Seconds after which the index is read in any case: a waiting job that is deleted changes neither folder."""

_COST_FACTOR = 20.0
"""A pause takes this many times as long as the last reading of the index, which is slow for thousands of jobs."""

_REMOVED_AFTER = 0.3
"""Seconds for which a job must not be found to count as removed: while it is moved, it is found nowhere."""

_OBSTACLE_PERIOD = 10.0
"""Seconds between two checks of what keeps the jobs from running."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a job ended.

    Attributes:
        state: completed, dead, or removed: somebody deleted it. In a wait for success also blocked: it has not ended,
            but a job for which it waits is dead.
        exit_code: of its last run; None if that had none.
        last_error: why it is dead, or what blocks it.
    """

    id: str
    state: str
    exit_code: int | None = None
    last_error: str | None = None

    @property
    def code(self) -> int:
        """The exit code for a program that stands for the job: that of the command.

        124 if its time limit ended it, 127 if it could not be started, 1 if it has no exit code.
        """
        if self.state == "completed":
            return 0
        for beginning, code in _CODES.items():
            if (self.last_error or "").startswith(beginning):
                return code
        return (self.exit_code or 1) & 0xFF or 1


class Waiting:
    """One wait for some jobs.

    Args:
        ids: the jobs.
        success: end the wait as soon as one of them cannot succeed any more, or not before somebody has mended a dead job.
        more: called when all of them have ended; returns the jobs to wait for, those that are known and further ones.
        tell: called with each job when it has ended.
        obstacle: called with a line about what keeps them from running, once each.
        beat: called after each poll.
        clock: a monotonic one, in seconds.
        sleep: waits so many seconds.
    """

    def __init__(
        self,
        spool: SpoolBase,
        ids: Iterable[str],
        *,
        success: bool = False,
        more: Callable[[], Iterable[str]] = list,
        tell: Callable[[Ended], None] = lambda _: None,
        obstacle: Callable[[str], None] = lambda _: None,
        beat: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._spool = spool
        self._left = dict.fromkeys(ids)
        self._success, self._more = success, more
        self._tell, self._obstacle, self._beat = tell, obstacle, beat
        self._clock, self._sleep = clock, sleep
        self._ended: list[Ended] = []
        self._missing: dict[str, float] = {}
        self._last_times: object = None
        self._read_index_at = self._obstacle_check_at = 0.0
        self._reported: set[str] = set()
        self._cost = 0.0

    @property
    def ended(self) -> list[Ended]:
        """The jobs that have ended, in the order of their ends."""
        return self._ended

    @property
    def left(self) -> list[str]:
        """The jobs that have not ended."""
        return [*self._left]

    def run(self, timeout: float | None = None) -> list[Ended]:
        """Wait for all of them.

        Args:
            timeout: seconds; None waits as long as it takes.

        Raises:
            JobNotFound: there is no such job to begin with.
            QueuectlError: this process belongs to one of the jobs, which would wait for itself.
            StillUnderWay: some have not ended in that time.
        """
        own = own_job.find(self._spool.layout)
        if own is not None and own.job_id in self._left:
            own_job.refuse_to_wait(
                self._spool.layout, "which would wait for itself", hint="queuectl wait --help"
            )
        with self._spool._lock:
            self._spool._mirror()
            for job_id in self._left:
                self._spool._find(job_id)
        began = self._clock()
        while not self._poll():
            waited = self._clock() - began
            if timeout is not None and waited >= timeout:
                raise StillUnderWay(self._late_message(), list(self._left), hint="queuectl list")
            pause = max(_MIN_PAUSE, min(_MAX_PAUSE, waited * _PAUSE_SHARE), self._cost * _COST_FACTOR)
            self._sleep(pause if timeout is None else min(pause, max(0.0, timeout - waited)))
        return self._ended

    def _late_message(self) -> str:
        first, *more = self._left
        others = f" and {len(more)} more have" if more else " has"
        return f"{first}{others} not ended in that time"

    def _poll(self) -> bool:
        """Whether the wait is over."""
        now = self._clock()
        times = self._folder_times()
        if times is None or times != self._last_times or now >= self._read_index_at:
            self._read_index(now)
            self._last_times = times
            self._read_index_at = 0.0 if self._missing else now + _INDEX_PERIOD
            self._cost = self._clock() - now
        failed = self._success and any(one.state != "completed" for one in self._ended)
        if not self._left and not failed:
            known = {one.id for one in self._ended}
            self._left = dict.fromkeys(job_id for job_id in self._more() if job_id not in known)
            self._read_index_at = 0.0  # one that is over already changes no folder
        over = failed or not self._left
        if not over and now >= self._obstacle_check_at:
            self._obstacle_check_at = now + _OBSTACLE_PERIOD
            self._check_obstacle()
        self._beat()
        return over

    def _folder_times(self) -> object:
        """Return the folders' times, which change when a job ends; None if they prove nothing now."""
        layout = self._spool.layout
        try:
            found = [os.stat(path) for path in (layout.done, layout.dead)]
        except OSError:
            return None
        now = time.time_ns()
        if any(file_times.may_hide_changes(one.st_mtime_ns, now) for one in found):
            return None
        return [(one.st_mtime_ns, one.st_ino) for one in found]

    def _read_index(self, now: float) -> None:
        with self._spool._lock:  # not while `tell` is called, which may do anything
            over = list(self._newly_ended(now))
        for one in over:
            self._end(one)

    def _newly_ended(self, now: float) -> Iterator[Ended]:
        spool = self._spool
        spool._mirror()
        rows = spool._ask(lambda: spool._index.states(list(self._left)))
        for job_id in list(self._left):
            state = rows.get(job_id)
            if state in OVER:
                row = spool._ask(lambda: spool._index.get(job_id))  # noqa: B023 (asked at once)
                yield _ended(job_id, row)
            elif state is not None or locate.state_of(spool._storage, job_id) is not None:
                self._missing.pop(job_id, None)
            elif now - self._missing.setdefault(job_id, now) >= _REMOVED_AFTER:
                yield Ended(job_id, "removed")
        if self._success:
            yield from self._blocked({job_id for job_id in self._left if rows.get(job_id) in WAITING})

    def _blocked(self, waiting: set[str]) -> Iterator[Ended]:
        """Yield the jobs that cannot succeed unless somebody mends a dead one. One that is missing may still come."""
        from queuectl.api import dependencies
        from queuectl.index import waits

        spool = self._spool
        for job_id in sorted(spool._ask(lambda: waits.all_failed(spool._index)) & waiting):
            yield Ended(job_id, "blocked", None, dependencies.cause(spool, job_id, dead_only=True))

    def _end(self, one: Ended) -> None:
        del self._left[one.id]
        self._missing.pop(one.id, None)
        self._ended.append(one)
        self._tell(one)

    def _check_obstacle(self) -> None:
        found = find_obstacle(self._spool, list(self._left))
        if found and found not in self._reported:
            self._reported.add(found)
            self._obstacle(found)


def of_batch(spool: SpoolBase, batch: str) -> list[str]:
    """Return the ids of all jobs of a batch.

    Raises:
        JobError: there are none. Whoever waits for a mistyped name would think that all is done.
    """
    found = now_in_batch(spool, batch)
    if not found:
        raise JobError(f"no job has the batch {batch}", hint="queuectl batch list")
    return found


def now_in_batch(spool: SpoolBase, batch: str) -> list[str]:
    """Return the ids of all jobs that a batch has now: also of one that came and died while others ran."""
    from queuectl.api import listing
    from queuectl.index.filter import Filter

    return [row.id for row in listing.select(spool, where=Filter(batch=batch))]


def _ended(job_id: str, row: Row | None) -> Ended:
    if row is None or row.state not in OVER:
        return Ended(job_id, "removed")
    return Ended(job_id, row.state, row.exit_code, row.last_error)


def find_obstacle(spool: SpoolBase, ids: list[str]) -> str | None:
    """Return what keeps all of these jobs from running until somebody acts, in one line with a hint; None: nothing."""
    if found := pause.read(spool.layout):
        return f"{found.sentence}: queuectl resume"
    workers = registry.live_workers(spool.layout)
    from queuectl.api import engines

    engine = engines.of_all(spool, ids)
    if engine in ENGINES and (found_there := engines.obstacle(spool, engine, ids, workers)):
        return found_there
    if engine == LOCAL:
        workers = [one for one in workers if one.kind == "worker"]
    if not workers:
        return "no worker runs: queuectl worker start"
    from queuectl.api import status

    with suppress(ConfigError, SpoolError, OSError):  # `status` tells of it
        if blocked := status.start_obstacle(spool.layout, spool.settings()):
            return blocked
    # A worker that has just taken one of these jobs into its last slot is not free, and all is well.
    taken = {job.id for one in workers for job in one.jobs}
    is_helpless = not any(one.free for one in workers) and taken.isdisjoint(ids)
    if (own := own_job.find(spool.layout)) and is_helpless:
        return f"no worker is free while {own.worker} runs job {own.job_id}, which waits here: queuectl worker start"
    rows = spool._ask(lambda: [spool._index.get(job_id) for job_id in ids[:100]])
    if len(ids) <= len(rows) and all(row is not None and row.held for row in rows):
        return (
            f"{ids[0]} is held: queuectl release {ids[0]}"
            if len(ids) == 1
            else "all are held: queuectl release"
        )
    if found_cause := _blocked(spool, ids):
        return found_cause
    if len(ids) > len(rows):
        return None
    from queuectl.api import queues

    with suppress(ConfigError), spool._lock:
        return queues.obstacle(spool, {row.lane for row in rows if row is not None})
    return None


def _blocked(spool: SpoolBase, ids: list[str]) -> str | None:
    """Return what blocks the first of these jobs, if all of them are blocked."""
    from queuectl.api import dependencies
    from queuectl.index import waits

    with spool._lock:
        if not spool._ask(lambda: waits.all_blocked(spool._index)).issuperset(ids):
            return None
        found = dependencies.cause(spool, ids[0])
        return None if found is None else f"{ids[0]} cannot start, as {found}"
