"""Cancel jobs: first those that wait, from the end of the line and in one go; then those that run.

In any other order a worker starts the next job as soon as a cancelled one has made room for it.

A running job is ended by its worker, which is asked by a note about one run. A job that fails may run again before the
note is read. So this looks again until the job has ended, and asks anew for each new run.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from queuectl.control import commands, registry
from queuectl.errors import InvalidJob, JobNotFound, MoveError, QueuectlError, StillUnderWay
from queuectl.index.row import last_in_line_first
from queuectl.job import record as jobs
from queuectl.job.fields import WAITING
from queuectl.job.outcome import CANCELLED
from queuectl.layout import PROCESSING, is_engine
from queuectl.storage import bulk_moves, recovery
from queuectl.storage.transitions import check
from queuectl.system import safe_open

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from queuectl.api.spool_base import SpoolBase
    from queuectl.index.row import Row

_SETTLED = 2.0
"""Seconds, in addition to kill_grace, in which a worker records the end of a cancelled job."""

_SHORTEST, _LONGEST = 0.005, 0.1
"""Seconds between two looks at the claimed files."""

_WHOLE = 0.5
"""Seconds after which all of them are looked at closely, changed or not: their worker may have died."""


class Cancellation:
    """One cancel of some jobs.

    Args:
        ids: the jobs.
        timeout: how long to wait for the end of running jobs, in seconds; None: kill_grace and a little more.
        tell: called with the id of each job and what became of it: "cancelled", "ending", or an error.
    """

    def __init__(
        self,
        spool: SpoolBase,
        ids: Iterable[str],
        *,
        timeout: float | None = None,
        tell: Callable[[str, str | QueuectlError], None],
    ) -> None:
        self._spool, self._storage, self._layout = spool, spool._storage, spool.layout
        self._left = dict.fromkeys(ids)
        self._timeout = spool.settings().kill_grace + _SETTLED if timeout is None else timeout
        self._tell = tell
        self._asked: dict[str, tuple[str, int]] = {}
        self._seen: dict[str, object] = {}

    def run(self) -> None:
        """Cancel the jobs, and wait until they have ended.

        Raises:
            SpoolError: a folder cannot be read, or a note to a worker cannot be written.
        """
        end = time.monotonic() + self._timeout
        pause, close_at = _SHORTEST, 0.0
        while self._left:
            now = time.monotonic()
            if now >= close_at or any(self._seen.get(job_id) != self._stamp(job_id) for job_id in self._left):
                self._look_closely()
                close_at = now + _WHOLE
            if not self._left:
                return
            if now >= end:
                with self._spool._lock:
                    self._give_up_waiting()
                return
            time.sleep(min(pause, end - now))
            pause = min(pause * 1.2, _LONGEST)

    def _look_closely(self) -> None:
        with self._spool._lock:
            self._look_at_all()

    def _look_at_all(self) -> None:
        self._spool._mirror()
        rows = self._spool._ask(lambda: self._spool._index.rows_of(list(self._left)))
        for job_id in [job_id for job_id in self._left if job_id not in rows]:
            self._end(job_id, JobNotFound(job_id))
        self._cancel_waiting([row for row in rows.values() if row.state in WAITING])
        running = [row for row in rows.values() if row.state == "processing"]
        self._ask_workers(running)
        for row in rows.values():
            if row.id in self._left and row.state not in (*WAITING, "processing"):
                self._end_as(row)
        self._take_back({worker_of(row) for row in running})

    def _cancel_waiting(self, rows: list[Row]) -> None:
        rows = last_in_line_first(rows)
        refused = bulk_moves.bury_all(self._storage, rows, CANCELLED)
        for row in rows:
            error = refused.get(row.id)
            if isinstance(error, MoveError):
                self._seen[row.id] = "claimed"  # by a worker, just now: it is looked at again at once
            else:
                self._end(row.id, error or "cancelled")

    def _ask_workers(self, rows: list[Row]) -> None:
        """Ask the workers to end these jobs, each worker with one note."""
        wanted: dict[str, dict[str, int]] = {}
        for row in rows:
            self._seen[row.id] = self._stamp_of(row)
            run, worker = self._run_of(row), worker_of(row)
            if run and self._asked.get(row.id) != (worker, run):
                wanted.setdefault(worker, {})[row.id] = run
        for worker, runs in wanted.items():
            commands.request_cancel(self._layout, worker, runs)
            self._asked.update({job_id: (worker, run) for job_id, run in runs.items()})

    def _run_of(self, row: Row) -> int:
        """Return the number of the run for which a job is claimed; 0 if its file has just been moved."""
        with suppress(safe_open.NotReadable, InvalidJob, OSError):
            path = os.path.join(self._layout.root, row.place, f"{row.id}.json")
            return jobs.parse(safe_open.read_regular(path, jobs.READ_LIMIT)[0]).runs + 1
        return 0

    def _stamp(self, job_id: str) -> object:
        seen = self._seen.get(job_id)
        return self._stamp_at(seen[0]) if isinstance(seen, tuple) else None

    def _stamp_of(self, row: Row) -> object:
        return self._stamp_at(os.path.join(self._layout.root, row.place, f"{row.id}.json"))

    def _stamp_at(self, path: str) -> object:
        """What changes when the job at this path starts another run, or ends."""
        try:
            status = os.lstat(path)
        except OSError:
            return path, None
        return path, status.st_ino, status.st_ctime_ns

    def _end_as(self, row: Row) -> None:
        """Report a job that has ended."""
        if row.id not in self._asked:
            try:
                check("bury", row.id, row.state, "dead")
            except MoveError as error:
                self._end(row.id, error)
        elif row.state == "dead" and (row.last_error or "").startswith(CANCELLED):
            self._end(row.id, "cancelled")
        else:
            hint = f"queuectl show {row.id}"
            self._end(
                row.id, MoveError(f"job {row.id!r} was {row.state} before it could be ended", hint=hint)
            )

    def _take_back(self, workers: set[str]) -> None:
        """Give up the cancelled jobs of dead workers. Otherwise the next worker would do it, and none may come."""
        if workers:
            settings = self._spool.settings()
            recovery.recover_claims(self._storage, settings, lambda _: None, busy=workers)

    def _give_up_waiting(self) -> None:
        """Report the jobs that have not ended: in the index's transaction, as no worker settles a job then."""
        rows = self._spool._ask(lambda: self._spool._index.rows_of(list(self._left)))
        with self._storage.index.moving():
            sure = {
                row.id: row.state == "processing"
                and self._asked.get(row.id) == (worker_of(row), self._run_of(row))
                for row in rows.values()
            }
        for job_id in list(self._left):
            late = StillUnderWay(
                f"job {job_id!r} could not be cancelled in that time",
                [job_id],
                hint=f"queuectl cancel {job_id}",
            )
            self._end(job_id, self._uncollected(job_id) or ("ending" if sure.get(job_id) else late))

    def _uncollected(self, job_id: str) -> StillUnderWay | None:
        """The error about a job on a cluster, if no dispatcher runs that could end it."""
        engine = self._asked.get(job_id, ("", 0))[0]
        if not is_engine(engine) or any(one.name == engine for one in registry.live_workers(self._layout)):
            return None
        return StillUnderWay(
            f"job {job_id!r} is out on {engine}, and no dispatcher runs that can end it; the next one will",
            [job_id],
            hint=f"queuectl worker start --engine {engine}",
        )

    def _end(self, job_id: str, result: str | QueuectlError) -> None:
        del self._left[job_id]
        self._tell(job_id, result)


def worker_of(row: Row) -> str:
    """Return the name of the worker that has claimed a job."""
    return row.worker or row.place.removeprefix(PROCESSING + "/")
