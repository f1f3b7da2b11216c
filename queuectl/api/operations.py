"""The part of Spool that changes jobs, and pauses the spool: retry, set, cancel, hold, forget, purge, pause."""

from __future__ import annotations

from queuectl.api import access
from queuectl.api.queries import Queries, locked
from queuectl.errors import JobNotFound, MoveError, QueuectlError, SpoolError
from queuectl.job.fields import state_of
from queuectl.job.times import micros
from queuectl.system import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    import builtins
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from typing import Any, TypeVar, Unpack

    from queuectl.api.job_fields import JobChanges
    from queuectl.index.filter import Filter
    from queuectl.index.row import Row
    from queuectl.job.record import Job
    from queuectl.storage.retention import Purged

    T = TypeVar("T")

PAGE = 20_000
"""How many jobs are deleted between two reports of progress."""


class Operations(Queries):
    """A spool whose jobs can be changed."""

    def _begin_change(self, words: str) -> None:
        """Make the index agree with the folders before jobs are changed; `words` are the command for the hint."""
        access.refuse_others(self.layout, words)
        self._mirror()
        access.refuse_unwritable(self._storage)

    def retry(self, job_id: str, **fields: Unpack[JobChanges]) -> Job:
        """Run a job again. A dead or completed job goes back to pending/: its attempts are counted from 0 again, and its
        history is kept. A failed job, which waits for its next attempt, is tried now; its attempts still count.

        Args:
            fields: new values for fields of the job file, as in timeout=60 or priority=9; None removes a field, so that
                the setting applies. This can also correct a wrong value in a rejected file.

        Raises:
            JobNotFound, MoveError: there is no such job, or it runs, is held, or has not run yet.
            InvalidJob: the file is still not a valid job, or a field is wrong.
            DuplicateId: a rejected file is valid now, but another job has its id.
            UnknownField: no field has this name; it is a TypeError, too.
        """
        return _only(self.retry_many([job_id], **fields))

    @locked
    def retry_many(
        self,
        ids: Iterable[str],
        *,
        tell: Callable[[str, Job | QueuectlError], None] = lambda *_: None,
        **fields: Unpack[JobChanges],
    ) -> dict[str, Job | QueuectlError]:
        """Run several jobs again, with one wait for the disk.

        Args:
            tell: called with the id of each job and its result, as soon as that is known.
            fields: as for `retry`, for all of them.

        Returns:
            for each id the job as it waits now, or the error that kept it from being retried, as for `retry`.

        Raises:
            SpoolError: the spool cannot be read.
        """
        from queuectl.api.retry import retry_all

        results: dict[str, Job | QueuectlError] = {}

        def told(job_id: str, result: Job | QueuectlError) -> None:
            results[job_id] = result
            tell(job_id, result)

        changes = _changes("retry", fields)
        self._begin_change("retry …")
        retry_all(self, ids, changes, told)
        return results

    @locked
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

    @locked
    def set(self, job_id: str, **fields: Unpack[JobChanges]) -> Job:
        """Change fields of a waiting or a dead job.

        Args:
            fields: new values for fields of the job file, as in priority=9 or run_at=time.time() + 3600; None removes a
                field, so that the setting applies. For a failed job, run_at is the time of its next attempt.

        Returns:
            the job as it is now.

        Raises:
            JobNotFound, MoveError: there is no such job, it runs or is completed, or it was changed at the same moment.
            InvalidJob, KeyTaken: a field is wrong or cannot be changed, or another job has the unique key.
            UnknownField: no field has this name; it is a TypeError, too.
        """
        from queuectl.storage import edit_pending

        changes = _changes("set", fields)
        return edit_pending.set_fields(self._storage, self._now(job_id), changes, self.settings())

    def cancel(self, job_id: str, *, timeout: float | None = None) -> str:
        """Cancel a job: a waiting one is moved to dead/; a running one is ended by its worker, and then moved there.

        Args:
            timeout: how long to wait for the end of a running job, in seconds; None: kill_grace and two seconds more.

        Returns:
            "cancelled"; or "ending" if its worker has been asked and the job has not ended in that time. It will not be
            tried again, whatever its retry policy says.

        Raises:
            JobNotFound, MoveError: there is no such job, or it has ended by itself.
            StillUnderWay: in that time it could not be made sure that it will end.
        """
        return _only(self.cancel_many([job_id], timeout=timeout))

    def cancel_many(
        self,
        ids: Iterable[str],
        *,
        timeout: float | None = None,
        tell: Callable[[str, str | QueuectlError], None] = lambda *_: None,
    ) -> dict[str, str | QueuectlError]:
        """Cancel several jobs: first all that wait, in one go, so that no worker starts them; then those that run.

        Args:
            timeout: as for `cancel`, for all of them together.
            tell: called with the id of each job and its result, as soon as that is known.

        Returns:
            for each id "cancelled" or "ending", see `cancel`, or the error that kept it from being cancelled.

        Raises:
            SpoolError: the spool cannot be read, or a note to a worker cannot be written.
        """
        from queuectl.api.cancel import Cancellation

        results: dict[str, str | QueuectlError] = {}

        def told(job_id: str, result: str | QueuectlError) -> None:
            results[job_id] = result
            tell(job_id, result)

        self._begin_change("cancel …")
        Cancellation(self, ids, timeout=timeout, tell=told).run()
        return results

    def hold(self, job_id: str) -> bool:
        """Keep a waiting job from running until it is released; return False if it was held already.

        Raises:
            JobNotFound, MoveError: there is no such job, or it is not waiting.
        """
        return _only(self.hold_many([job_id]))

    def release(self, job_id: str) -> bool:
        """Release a held job: it is queued as if it had just arrived; return False if it was not held.

        Raises:
            JobNotFound, MoveError: there is no such job, or it is not waiting.
        """
        return _only(self.hold_many([job_id], hold=False))

    @locked
    def hold_many(self, ids: Iterable[str], *, hold: bool = True) -> dict[str, bool | QueuectlError]:
        """Hold several waiting jobs at once, so that no worker starts them meanwhile; or release them.

        Returns:
            for each id whether the job was changed, or the error, as for `hold`.

        Raises:
            SpoolError: the spool cannot be read.
        """
        from queuectl.storage import edit_pending

        ids = list(ids)
        self._begin_change("set …")
        rows = self.rows(ids)
        if self._ask(lambda: self._intake.freshen(list(rows.values()))):
            rows = self.rows(ids)
        past = "held" if hold else "released"
        changed, refused = edit_pending.set_hold(self._storage, list(rows.values()), hold=hold, past=past)
        missing = {job_id: JobNotFound(job_id) for job_id in ids if job_id not in rows}
        return {**missing, **refused, **changed}

    @locked
    def _now(self, job_id: str) -> Row:
        """Return the row of a job, updated from its file."""
        self._begin_change("set …")
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

        access.make(self.layout, "pause")
        return pause.pause(self.layout, reason, patience=patience)

    def resume(self) -> bool:
        """End the pause; return False if the spool was not paused.

        Raises:
            SpoolError: the file cannot be removed.
        """
        from queuectl.control import pause

        access.refuse_others(self.layout, "resume")
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

        access.make(self.layout, "drain")
        pause.drain(self.layout, reason, timeout=timeout, tell=tell)

    def forget(self, job_id: str, *, cancel: bool = False, durable: bool = True) -> None:
        """Delete a job and its output. When this returns, the job is nowhere in the spool.

        Args:
            cancel: end it first if it runs; this may take as long as the setting kill_grace.
            durable: with False, a power cut may bring the job back until `sync_deletions`: faster for many jobs.

        Raises:
            JobNotFound, MoveError: there is no such job, or it runs.
            StillUnderWay: it was cancelled, but has not ended in time; or a worker still has its file.
        """
        _only(self.forget_many([job_id], cancel=cancel))
        if durable:
            self.sync_deletions()

    def forget_many(
        self,
        ids: Iterable[str],
        *,
        cancel: bool = False,
        tell: Callable[[str, QueuectlError | None], None] = lambda *_: None,
    ) -> dict[str, QueuectlError | None]:
        """Delete several jobs and their output: first all that wait, in one go, so that no worker starts them.

        A power cut may bring jobs back until `sync_deletions`.

        Args:
            cancel: end running jobs first.
            tell: called with the id of each job and its result, as soon as that is known.

        Returns:
            for each id None if it is deleted, else the error, as for `forget`.

        Raises:
            SpoolError: the spool cannot be read.
        """
        from queuectl.api.removal import Removal

        results: dict[str, QueuectlError | None] = {}

        def told(job_id: str, error: QueuectlError | None) -> None:
            results[job_id] = error
            tell(job_id, error)

        self._begin_change("remove …")
        Removal(self, ids, cancel=cancel, tell=told).run()
        return results

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
            StillUnderWay: a worker still has the file of a job.
            SpoolError: a file cannot be deleted.
        """
        state, where = state_of(state), where if where is None or state is None else where.of_states(state)
        self._begin_change("clear")
        deleted = kept = 0

        def told(_: str, error: QueuectlError | None) -> None:
            nonlocal deleted, kept
            deleted += error is None
            kept += type(error) is MoveError
            if error is not None and not isinstance(error, MoveError | JobNotFound):
                raise error

        for ids in self._pages(state) if where is None else [[row.id for row in self.list(where=where)]]:
            self.forget_many(ids, tell=told)
            if progress:
                progress(deleted)
        self.sync_deletions()
        return deleted, kept

    def _pages(self, state: str | None) -> Iterator[builtins.list[str]]:
        """Yield the ids of the jobs in this state, or in all, some thousand at a time, from the end of the line."""
        ids = self._ask(lambda: self._index.ids_from_the_end(state))
        return (ids[start : start + PAGE] for start in range(0, len(ids), PAGE))

    @locked
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
            keep: keep this many of the newest jobs in each state; with `where`, of the jobs that it selects.
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
        self._begin_change("purge …")
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

    @locked
    def sync_deletions(self) -> None:
        """Make deletions durable: a deleted job that comes back after a power cut would run."""
        for folder in (self.layout.pending, self.layout.done, self.layout.dead):
            try:
                files.sync_folder(folder)
            except FileNotFoundError:
                continue  # there is no spool, or somebody has deleted the folder
            except OSError as error:
                raise SpoolError.from_os("sync", folder, error) from None


def _changes(call: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keywords of a call as changes of a job's file.

    Raises:
        UnknownField: one of them is no field.
    """
    from queuectl.api import job_fields

    job_fields.refuse_unknown(call, fields, job_fields.CHANGES)
    return job_fields.as_in_a_file(fields)


def _only(results: Mapping[str, T | QueuectlError]) -> T:
    """Return the result of the only job, or raise its error."""
    [result] = results.values()
    if isinstance(result, QueuectlError):
        raise result
    return result
