"""The part of Spool that changes jobs, and pauses the spool: retry, set, cancel, hold, forget, purge, pause."""

from __future__ import annotations

import os
import time
from contextlib import suppress

from queuectl.api.queries import Queries
from queuectl.errors import InvalidJob, MoveError, QueuectlError, SpoolError
from queuectl.job import record as jobs
from queuectl.job.fields import state_of
from queuectl.job.times import micros
from queuectl.layout import PROCESSING
from queuectl.storage.transitions import check
from queuectl.system import files, safe_open

TYPE_CHECKING = False
if TYPE_CHECKING:
    import builtins
    from collections.abc import Callable, Iterator
    from typing import Any

    from queuectl.index.filter import Filter
    from queuectl.index.row import Row
    from queuectl.job.record import Job
    from queuectl.storage.retention import Purged

_CANCEL_TIMEOUT = 30.0
"""Seconds, in addition to kill_grace, in which a cancelled job must have ended."""

_END_TIMEOUT = 0.1
"""Seconds to wait for the end of a running job that was cancelled: most end at once."""

_START_TIMEOUT, _START_INTERVAL = 2.0, 0.005
"""Seconds to wait for a job that a worker has claimed but not started, and seconds between two checks."""

PAGE = 2000
"""How many jobs are listed at a time when many are to be deleted."""


class Operations(Queries):
    """A spool whose jobs can be changed."""

    def _refuse_root(self) -> None:
        if hasattr(os, "geteuid") and os.geteuid() == 0 and os.stat(self.layout.root).st_uid != 0:
            from queuectl.control import permissions

            permissions.refuse_root(self.layout)

    def retry(self, job_id: str, **fields: Any) -> Job:
        """Move a dead job back to pending/; its attempts are counted from 0 again, and its history is kept.

        Args:
            fields: new values for fields of the job file, as in timeout=60 or priority=9; None removes a field, so that
                the setting applies. This can also correct a wrong value in a rejected file.

        Raises:
            JobNotFound, MoveError: there is no such job, or it is not dead.
            InvalidJob: the file is still not a valid job, or a field is wrong.
            DuplicateId: a rejected file is valid now, but another job has its id.
        """
        from queuectl.storage import dead_letters

        self.refresh()
        self._refuse_root()
        return dead_letters.requeue(self._storage, self._find(job_id), fields)

    def amend(self, job_id: str, before: bytes, after: bytes) -> Job:
        """Replace the content of a waiting or a dead job's file.

        A rejected file becomes a dead job that can be retried.

        Args:
            before: the content as it was read; if the file has changed since then, nothing is written.
            after: the new content.

        Raises:
            JobNotFound, MoveError: there is no such job, it runs or is completed, or its file has changed meanwhile.
            InvalidJob, DuplicateId, KeyTaken: the new content is not a valid job, or its id or unique key is taken.
        """
        from queuectl.storage import dead_letters, edit_pending

        row = self._now(job_id)
        if row.state == "dead":
            return dead_letters.edit(self._storage, row, before, after)
        return edit_pending.replace(self._storage, row, before, after, self.settings())

    def set(self, job_id: str, **fields: Any) -> Job:
        """Change fields of a waiting or a dead job.

        Args:
            fields: new values for fields of the job file, as in priority=9 or run_at=time.time() + 3600; None removes a
                field, so that the setting applies. For a failed job, run_at is the time of its next attempt.

        Returns:
            the job as it is now.

        Raises:
            JobNotFound, MoveError: there is no such job, it runs or is completed, or it was changed at the same moment.
            InvalidJob, KeyTaken: a field is wrong or cannot be changed, or another job has the unique key.
        """
        from queuectl.storage import edit_pending

        return edit_pending.set_fields(self._storage, self._now(job_id), fields, self.settings())

    def cancel(self, job_id: str) -> str:
        """Cancel a job: a waiting one is moved to dead/; a running one is ended by its worker, and then moved there.

        Returns:
            "cancelled", or "ending" if it is being ended.

        Raises:
            JobNotFound, MoveError: there is no such job, or it has ended already.
        """
        from queuectl.control import commands
        from queuectl.storage import dead_letters

        row, run = self._once_begun(job_id)
        told = False
        while row.state == "processing":
            commands.request_cancel(self.layout, _worker_of(row), job_id, run)
            told = True
            if not self._has_left(row):
                return "ending"
            row, run = self._once_begun(job_id)  # it may have failed just before the request, and run again
        if told and row.state not in ("pending", "failed"):
            return "ending"
        check("bury", row.id, row.state, "dead")
        try:
            dead_letters.bury(self._storage, row, "Cancelled")
        except MoveError:
            if not told:
                raise
            return "ending"  # its worker has moved it to dead/
        return "cancelled"

    def _has_left(self, row: Row) -> bool:
        """Return True if a cancelled job has left processing/ within a short time, as most do."""
        end = time.monotonic() + _END_TIMEOUT
        path = os.path.join(self.layout.root, row.place, f"{row.id}.json")
        while os.path.lexists(path):
            if time.monotonic() > end:
                return False
            time.sleep(_START_INTERVAL)
        return True

    def _once_begun(self, job_id: str) -> tuple[Row, int]:
        """Return the row of a job, and the number of its current run; 0 if it is not in processing/.

        If a worker has claimed the job and not started it, this waits: the worker starts it or puts it back soon.
        """
        from queuectl.control import run_lock

        end = time.monotonic() + _START_TIMEOUT
        while True:
            self.refresh()
            row = self._find(job_id)
            if row.state != "processing":
                return row, 0
            with suppress(safe_open.NotReadable, InvalidJob, OSError):  # it has just been moved
                path = os.path.join(self.layout.root, row.place, f"{row.id}.json")
                run = jobs.parse(safe_open.read_regular(path, jobs.READ_LIMIT)[0]).runs + 1
                signed = run_lock.read(self.layout, _worker_of(row))
                begun = signed is None or (signed.job_id, signed.number) == (job_id, run)
                if begun or time.monotonic() > end:
                    return row, run
            if time.monotonic() > end + _START_TIMEOUT:
                raise MoveError(f"job {job_id!r} cannot be read", hint=f"queuectl show {job_id}")
            time.sleep(_START_INTERVAL)

    def hold(self, job_id: str) -> bool:
        """Keep a waiting job from running until it is released; return False if it was held already.

        Raises:
            JobNotFound, MoveError: there is no such job, or it is not waiting.
        """
        return self._set_hold(job_id, hold=True, past="held")

    def release(self, job_id: str) -> bool:
        """Release a held job: it is queued as if it had just arrived; return False if it was not held.

        Raises:
            JobNotFound, MoveError: there is no such job, or it is not waiting.
        """
        return self._set_hold(job_id, hold=False, past="released")

    def _set_hold(self, job_id: str, *, hold: bool, past: str) -> bool:
        from queuectl.storage import edit_pending

        return edit_pending.set_hold(self._storage, self._now(job_id), hold=hold, past=past)

    def _now(self, job_id: str) -> Row:
        """Return the row of a job, updated from its file."""
        self.refresh()
        self._refuse_root()
        row = self._find(job_id)
        return self._find(job_id) if self._ask(lambda: self._intake.freshen([row])) else row

    def pause(self, reason: str = "", *, patience: float = 5.0) -> builtins.list[str]:
        """Pause the spool: workers start no more jobs; running jobs go on. The file `paused` in the spool says so.

        Args:
            patience: seconds to wait until all workers have noticed; a worker may need up to one second.

        Returns:
            the names of the workers that have not noticed in that time.

        Raises:
            SpoolError: the file cannot be written.
        """
        from queuectl.control import pause

        self.layout.create()
        self._refuse_root()
        return pause.pause(self.layout, reason, patience=patience)

    def resume(self) -> bool:
        """End the pause; return False if the spool was not paused.

        Raises:
            SpoolError: the file cannot be removed.
        """
        from queuectl.control import pause

        self._refuse_root()
        return pause.resume(self.layout)

    def drain(
        self,
        reason: str = "",
        *,
        timeout: float | None = None,
        tell: Callable[[builtins.list[str]], None] = lambda _: None,
    ) -> None:
        """Pause, and wait until nothing runs.

        Args:
            timeout: in seconds; None means no limit.
            tell: called now and then with the ids of the jobs that are still running.

        Raises:
            StillUnderWay: some jobs are still running; the spool stays paused.
            SpoolError: the file cannot be written.
        """
        from queuectl.control import pause

        self.layout.create()
        self._refuse_root()
        pause.drain(self.layout, reason, timeout=timeout, tell=tell)

    def forget(self, job_id: str, *, cancel: bool = False, durable: bool = True) -> None:
        """Delete a job and its output.

        Args:
            cancel: end it first if it runs; this may take as long as the setting kill_grace.
            durable: with False, a power cut may bring the job back until `sync_deletions`: faster for many jobs.

        Raises:
            JobNotFound, MoveError: there is no such job, or it runs.
            StillUnderWay: it was cancelled, but has not ended in time.
        """
        self.refresh()
        row = self._find(job_id)
        if cancel and row.state == "processing":
            with suppress(MoveError):  # it has just ended
                self.cancel(job_id)
            self.wait(job_id, timeout=self.settings().kill_grace + _CANCEL_TIMEOUT)
            row = self._find(job_id)
        self._forget(row)
        if durable:
            self.sync_deletions()

    def _forget(self, row: Row) -> bool:
        from queuectl.storage import dead_letters

        runs = 0
        with suppress(QueuectlError, safe_open.NotReadable, OSError):
            path = os.path.join(self.layout.root, row.place, row.name)
            runs = jobs.parse(safe_open.read_regular(path, jobs.READ_LIMIT)[0]).runs
        if not dead_letters.forget(self._storage, row):
            return False
        for path in self.layout.log_files(row.id, runs):
            with suppress(FileNotFoundError):
                os.unlink(path)
        return True

    def clear(
        self,
        state: str | None = None,
        progress: Callable[[int], None] | None = None,
        *,
        where: Filter | None = None,
    ) -> tuple[int, int]:
        """Delete all jobs, those of one state, or those that a filter selects; running jobs are kept.

        Returns:
            how many were deleted, and how many were kept because they run.

        Raises:
            ValueError: there is no such state.
        """
        state, where = state_of(state), where if where is None or state is None else where.of_states(state)
        self.refresh()
        deleted = kept = 0
        for rows in self._pages(state) if where is None else [self.list(where=where)]:
            for row in rows:
                try:
                    deleted += self._forget(row)
                except MoveError:
                    kept += 1
                except OSError as error:
                    raise SpoolError.from_os("delete", os.path.join(row.place, row.name), error) from None
            if progress:
                progress(deleted)
        self.sync_deletions()
        return deleted, kept

    def _pages(self, state: str | None) -> Iterator[list[Row]]:
        after = -1
        while rows := self._ask(lambda: self._index.list(state, PAGE, after)):  # noqa: B023 (asked at once)
            yield rows
            after = rows[-1].seq or 0

    def purge(
        self,
        *,
        older_than: float | str | None = None,
        keep: int | None = None,
        where: Filter | None = None,
        logs_only: bool = False,
        dry_run: bool = False,
        progress: Callable[[int], None] | None = None,
    ) -> Purged:
        """Delete old jobs that are completed or dead, with their output; the oldest first.

        Jobs that have changed meanwhile are kept, and so are files that are not valid jobs.

        Args:
            older_than: only jobs that ended this long ago, in seconds or like "7d".
            keep: keep this many of the newest jobs in each state.
            where: only jobs that this filter selects.
            logs_only: delete the output of the jobs, and keep the jobs.
            dry_run: only count.
            progress: called with the number of jobs checked so far.

        Returns:
            how many jobs and log files were deleted, or would be, and their size.

        Raises:
            ValueError: neither older_than nor keep is given, or a value is wrong.
            SpoolError: a file could not be deleted.
        """
        from queuectl.job import times
        from queuectl.storage import retention

        if older_than is None and keep is None:
            raise ValueError("say what is to go: older_than, keep, or both")
        if keep is not None and keep < 0:
            raise ValueError(f"keep must be 0 or more, not {keep}")
        self.refresh()
        before = (
            None if older_than is None else micros(self._storage.now() - times.parse_duration(older_than))
        )
        states = [
            name for name in ("completed", "dead") if not (where and where.states) or name in where.states
        ]
        only = None if where is None or where.is_open else {row.id for row in self.list(where=where)}
        try:
            return retention.purge(
                self._storage,
                before=before,
                keep=keep or 0,
                states=states,
                only=only,
                logs_only=logs_only,
                dry_run=dry_run,
                progress=progress,
            )
        except OSError as error:
            raise SpoolError.from_os("delete", error.filename or self.layout.root, error) from None

    def sync_deletions(self) -> None:
        """Make deletions durable: a deleted job that comes back after a power cut would run."""
        for folder in (self.layout.pending, self.layout.done, self.layout.dead):
            try:
                files.sync_folder(folder)
            except OSError as error:
                raise SpoolError.from_os("sync", folder, error) from None


def _worker_of(row: Row) -> str:
    """Return the name of the worker that has claimed a job."""
    return row.worker or row.place.removeprefix(PROCESSING + "/")
