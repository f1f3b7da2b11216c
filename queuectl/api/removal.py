"""Delete jobs, and say only what is so at the end: a worker may take a job, or still have one that seems to be over.

Waiting jobs are deleted first, from the end of the line and in one go: in any other order workers start those that are
to be deleted. A job of which a worker's folder still has a file is not deleted yet. After a crash, recovery would put
that file back and the job would run again. So this waits until the worker is finished with it.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from queuectl.api.cancel import Cancellation
from queuectl.errors import JobNotFound, MoveError, QueuectlError, SpoolError, StillNeeded, StillUnderWay
from queuectl.index.row import last_in_line_first
from queuectl.job import record as jobs
from queuectl.job.fields import WAITING
from queuectl.storage import dead_letters, locate, recovery
from queuectl.storage.rewriting import AT_ONCE, job_in
from queuectl.system import safe_open

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from queuectl.api.spool_base import SpoolBase
    from queuectl.index.freshness import OwnChanges
    from queuectl.index.row import Row

_PATIENCE = 5.0
"""Seconds to wait for workers that still have a file of a job."""

_PAUSE = 0.02
"""Seconds between two looks."""


class Removal:
    """One removal of some jobs.

    Args:
        ids: the jobs.
        cancel: end running jobs first; otherwise they are refused.
        needed_too: delete jobs as well for which others wait.
        timeout: how long a cancelled job may take to end, in seconds; None: as for a cancel.
        tell: called with the id of each job, and None if it is deleted, else the error that says why not.
    """

    def __init__(
        self,
        spool: SpoolBase,
        ids: Iterable[str],
        *,
        cancel: bool,
        timeout: float | None = None,
        needed_too: bool = False,
        tell: Callable[[str, QueuectlError | None], None],
    ) -> None:
        self._spool, self._storage, self._layout = spool, spool._storage, spool.layout
        self._left = dict.fromkeys(ids)
        self._cancel, self._timeout, self._needed_too = cancel, timeout, needed_too
        self._tell = tell
        self._known: set[str] = set()

    def run(self) -> None:
        """Delete the jobs. `Spool.sync_deletions` makes that durable.

        Raises:
            SpoolError: a folder cannot be read.
        """
        end = time.monotonic() + _PATIENCE
        while self._left:
            with self._spool._lock:
                running = self._look()
            if running and self._cancel:
                self._end_running(running)
                end = time.monotonic() + _PATIENCE
            elif self._left:
                if time.monotonic() >= end:
                    self._give_up()
                    return
                time.sleep(_PAUSE)

    def _look(self) -> list[str]:
        """Delete what can be deleted now; return the ids of the jobs that run and are to be cancelled."""
        self._spool._mirror()
        rows = self._spool._ask(lambda: self._spool._index.rows_of(list(self._left)))
        for job_id in [job_id for job_id in self._left if job_id not in rows]:
            self._missing(job_id)
        self._known.update(rows)
        running = [row.id for row in rows.values() if row.state == "processing"]
        waiting = last_in_line_first(row for row in rows.values() if row.state in WAITING)
        ended = [row for row in rows.values() if row.state not in (*WAITING, "processing")]
        # Before the others: a job whose child runs on is kept for that child.
        for job_id in [] if self._cancel else running:
            hint = f"queuectl cancel {job_id}"
            self._end(job_id, MoveError(f"job {job_id!r} is running and cannot be deleted", hint=hint))
        held_by = self._delete([*waiting, *ended])
        if held_by:
            recovery.recover_claims(self._storage, self._spool.settings(), lambda _: None, busy=held_by)
        return running if self._cancel else []

    def _missing(self, job_id: str) -> None:
        if job_id not in self._known:
            self._end(job_id, JobNotFound(job_id))
        elif locate.state_of(self._storage, job_id) is None:
            self._end(job_id, None)

    def _delete(self, rows: list[Row]) -> set[str]:
        """Delete these jobs, except those of which a worker has a file; return the names of these workers."""
        holders: set[str] = set()
        for start in range(0, len(rows), AT_ONCE):
            part = [(row, self._runs_of(row)) for row in rows[start : start + AT_ONCE]]
            deleted = []
            index = self._storage.index
            ours = {place: index.own_changes(place) for place in {row.place for row, _ in part}}
            with index.moving():
                claimed = {
                    name.removesuffix(".json"): worker
                    for worker, names in locate.claimed_by_worker(self._layout).items()
                    for name in names
                }
                for row, runs in part:
                    if row.id in claimed:
                        holders.add(claimed[row.id])
                    elif not self._needed_too and (child := self._child_of(row)):
                        self._refuse_needed(row.id, *child)
                    elif self._delete_one(row, ours[row.place]):
                        deleted.append((row.id, runs))
                for own_changes in ours.values():
                    own_changes.note()
            for job_id, runs in deleted:
                self._delete_logs(job_id, runs)
        return holders

    def _child_of(self, row: Row) -> tuple[str, str, str] | None:
        """Return a job that names this one, or its batch, and is not to be deleted as well: id, field and state."""
        index = self._storage.index
        if not index.is_needed(row):
            return None
        most = len(self._left) + 1
        waiting = index.children_of(row.id, most)
        if row.batch is not None:
            waiting += index.children_of(f"batch:{row.batch}", most)
        return next((child for child in waiting if child[0] not in self._left), None)

    def _refuse_needed(self, job_id: str, child: str, field: str, state: str) -> None:
        """Keep a job for which another one waits: without its record that one would never start."""
        runs = state == "processing"
        why = f"job {child!r} has waited for it, and runs" if runs else f"job {child!r} waits for it"
        hint = f"queuectl wait {child}" if runs else f"queuectl set {child} {field}="
        self._end(job_id, StillNeeded(f"job {job_id!r} cannot be deleted: {why}", hint=hint))

    def _runs_of(self, row: Row) -> int:
        with suppress(QueuectlError, safe_open.NotReadable, OSError):
            path = os.path.join(self._layout.root, row.place, row.name)
            return job_in(*safe_open.read_regular(path, jobs.READ_LIMIT), row).runs
        return 0

    def _delete_one(self, row: Row, own_changes: OwnChanges) -> bool:
        try:
            if not dead_letters.forget(self._storage, row, own_changes=own_changes):
                return False  # a worker or a person has moved it; it is looked for again
        except OSError as error:
            self._end(row.id, SpoolError.from_os("delete", os.path.join(row.place, row.name), error))
            return False
        self._end(row.id, None)
        return True

    def _delete_logs(self, job_id: str, runs: int) -> None:
        for path in self._layout.log_files(job_id, runs):
            with suppress(FileNotFoundError):
                os.unlink(path)

    def _end_running(self, ids: list[str]) -> None:
        """Cancel running jobs. Those that have ended are deleted by the next look."""

        def told(job_id: str, result: str | QueuectlError) -> None:
            if result == "ending":
                late = f"job {job_id!r} was cancelled, but has not ended yet"
                self._end(job_id, StillUnderWay(late, [job_id], hint=f"queuectl show {job_id}"))
            elif isinstance(result, QueuectlError) and not isinstance(result, MoveError | JobNotFound):
                self._end(job_id, result)

        Cancellation(self._spool, ids, timeout=self._timeout, tell=told).run()

    def _give_up(self) -> None:
        for job_id in list(self._left):
            late = f"job {job_id!r} is not deleted: a worker still has its file"
            self._end(job_id, StillUnderWay(late, [job_id], hint=f"queuectl remove {job_id}"))

    def _end(self, job_id: str, error: QueuectlError | None) -> None:
        del self._left[job_id]
        self._tell(job_id, error)
