"""The part of Spool that changes jobs: retry, set, cancel, hold, release."""

from __future__ import annotations

from queuectl.api.spool_base import SpoolBase, all_of, locked, only
from queuectl.job.fields import WAITING

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any, Unpack

    from queuectl.api.job_fields import JobChanges
    from queuectl.errors import QueuectlError
    from queuectl.index.filter import Filter
    from queuectl.job.record import Job


class ChangePart(SpoolBase):
    """Changes jobs."""

    def retry(self, job_id: str, *, downstream: bool = False, **fields: Unpack[JobChanges]) -> Job:
        """Run a job again. A dead or completed job goes back to pending/: its attempts are counted from 0 again, and its
        history is kept. A failed job, which waits for its next attempt, is tried now; its attempts still count.

        Args:
            downstream: run the dead jobs that wait for it again as well, and those that wait for these, see `retry_many`.
            fields: new values for fields of the job file, as in timeout=60 or priority=9; None removes a field, so that
                the setting applies. This can also correct a wrong value in a rejected file.

        Returns:
            the job as it waits now; with `downstream` and nothing to be done to the job itself, the job as it is.

        Raises:
            JobNotFound, MoveError: there is no such job, or it runs, is held, or has not run yet.
            InvalidJob: the file is still not a valid job, or a field is wrong.
            DuplicateId: a rejected file is valid now, but another job has its id.
            UnknownField: no field has this name; it is a TypeError, too.
        """
        results = self.retry_many([job_id], downstream=downstream, **fields)
        if not downstream:
            return only(results)
        from queuectl.api import job_files

        return all_of(results).get(job_id) or job_files.current(self, job_id)

    @locked
    def retry_many(
        self,
        ids: Iterable[str] | Filter = (),
        *,
        where: Filter | None = None,
        downstream: bool = False,
        tell: Callable[[str, Job | QueuectlError], None] = lambda *_: None,
        **fields: Unpack[JobChanges],
    ) -> dict[str, Job | QueuectlError]:
        """Run several jobs again, with one wait for the disk.

        Args:
            ids: the jobs, by id or by a filter, which may also be given as `where`. A filter without states selects dead
                and failed jobs. Unless it has a `reason`, it leaves out held jobs and those that somebody has given up:
                cancelled, replaced by a newer one, or moved to dead/ by hand.
            downstream: as well the dead jobs that wait for these, in turn: those that `if_blocked: dead` has given up, and
                those that have failed. One that somebody has given up is left out, with what waits for it, unless one of
                these jobs was given up in the same way. A job that cannot be retried is passed over if others are.
            tell: called with the id of each job and its result, as soon as that is known.
            fields: as for `retry`, for all of them, but not for those that `downstream` adds.

        Returns:
            for each id the job as it waits now, or the error that kept it from being retried, as for `retry`.

        Raises:
            SpoolError: the spool cannot be read.
            ValueError: jobs in a state of the filter cannot be retried.
            TypeError: both ids and a filter are given, or one id that is not in a list.
        """
        from queuectl.api.downstream import parts_of, to_retry
        from queuectl.api.listing import RETRIED
        from queuectl.api.retry import chosen, retry_all

        results: dict[str, Job | QueuectlError] = {}

        def told(job_id: str, result: Job | QueuectlError) -> None:
            results[job_id] = result
            tell(job_id, result)

        changes = _changes("retry", fields)
        self._begin_change("retry …")
        which = chosen(self, ids, where)
        every = to_retry(self, which, RETRIED)[0] if downstream else which
        for part, fields_of_part in parts_of(every, set(which), changes):
            retry_all(self, part, fields_of_part, told)
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
        return edit_pending.replace(self._storage, row, before, after, self._job_defaults())

    def set(self, job_id: str, *, if_unchanged: bytes | None = None, **fields: Unpack[JobChanges]) -> Job:
        """Change fields of a waiting or a dead job.

        Args:
            if_unchanged: the content of its file as it was read; if that has changed since then, nothing is done.
            fields: new values for fields of the job file, as in priority=9 or run_at=time.time() + 3600; None removes a
                field, so that the setting applies. For a failed job, run_at is the time of its next attempt.

        Returns:
            the job as it is now.

        Raises:
            JobNotFound, MoveError: there is no such job, it runs or is completed, or it was changed at the same moment.
            InvalidJob, KeyTaken: a field is wrong or cannot be changed, or another job has the unique key.
            UnknownField: no field has this name; it is a TypeError, too.
        """
        return only(self._set([job_id], None, if_unchanged, fields))

    @locked
    def set_many(
        self,
        ids: Iterable[str] | Filter = (),
        *,
        where: Filter | None = None,
        **fields: Unpack[JobChanges],
    ) -> dict[str, Job | QueuectlError]:
        """Change fields of several jobs at once.

        Args:
            ids: the jobs, by id or by a filter, which may also be given as `where`. A filter without states selects
                waiting jobs.
            fields: as for `set`, for all of them.

        Returns:
            for each id the job as it is now, or the error that kept it from being changed, as for `set`.

        Raises:
            SpoolError: the spool cannot be read.
            ValueError, TypeError: as for `retry_many`.
        """
        return self._set(ids, where, None, fields)

    @locked
    def _set(
        self,
        ids: Iterable[str] | Filter,
        where: Filter | None,
        before: bytes | None,
        fields: Mapping[str, Any],
    ) -> dict[str, Job | QueuectlError]:
        from queuectl.api import listing
        from queuectl.storage import dead_letters, edit_pending

        changes = _changes("set", fields)
        self._begin_change("set …")
        which = listing.chosen(self, ids, where, "changed", listing.SET, WAITING)
        rows = self._fresh_rows(which)
        waiting = [row for row in rows.values() if row.state != "dead"]
        dead = [row for row in rows.values() if row.state == "dead"]
        edited, refused = edit_pending.set_all(self._storage, waiting, changes, self._job_defaults(), before)
        mended, kept = dead_letters.set_all(self._storage, dead, changes, before)
        results: dict[str, Job | QueuectlError] = {**edited, **refused, **mended, **kept}
        return {job_id: results.get(job_id) or self._unknown(job_id) for job_id in which}

    def cancel(self, job_id: str, *, downstream: bool = False, timeout: float | None = None) -> str:
        """Cancel a job: a waiting one is moved to dead/; a running one is ended by its worker, and then moved there.

        Args:
            downstream: cancel the jobs that wait for it as well, and those that wait for these; the job itself may be over
                already.
            timeout: how long to wait for the end of a running job, in seconds; None: kill_grace and two seconds more.

        Returns:
            "cancelled"; or "ending" if its worker has been asked and the job has not ended in that time. It will not be
            tried again, whatever its retry policy says.

        Raises:
            JobNotFound, MoveError: there is no such job, or it has ended by itself.
            StillUnderWay: in that time it could not be made sure that it will end.
        """
        results = self.cancel_many([job_id], downstream=downstream, timeout=timeout)
        return "ending" if "ending" in all_of(results).values() else "cancelled"

    def cancel_many(
        self,
        ids: Iterable[str] | Filter = (),
        *,
        where: Filter | None = None,
        downstream: bool = False,
        timeout: float | None = None,
        tell: Callable[[str, str | QueuectlError], None] = lambda *_: None,
    ) -> dict[str, str | QueuectlError]:
        """Cancel several jobs: first all that wait, in one go, so that no worker starts them; then those that run.

        Args:
            ids: the jobs, by id or by a filter, which may also be given as `where`. A filter without states selects
                waiting and running jobs.
            downstream: the jobs that wait for these as well, in turn. A job that is over is passed over if others wait
                for it.
            timeout: as for `cancel`, for all of them together.
            tell: called with the id of each job and its result, as soon as that is known.

        Returns:
            for each id "cancelled" or "ending", see `cancel`, or the error that kept it from being cancelled.

        Raises:
            SpoolError: the spool cannot be read, or a note to a worker cannot be written.
            ValueError, TypeError: as for `retry_many`.
        """
        from queuectl.api import listing
        from queuectl.api.cancel import Cancellation

        results: dict[str, str | QueuectlError] = {}

        def told(job_id: str, result: str | QueuectlError) -> None:
            results[job_id] = result
            tell(job_id, result)

        self._begin_change("cancel …")
        which = listing.chosen(self, ids, where, "cancelled", listing.CANCELLED)
        if downstream:
            from queuectl.api.downstream import to_cancel

            which = to_cancel(self, which)
        Cancellation(self, which, timeout=timeout, tell=told).run()
        return results

    def hold(self, job_id: str) -> bool:
        """Keep a waiting job from running until it is released; return False if it was held already.

        Raises:
            JobNotFound, MoveError: there is no such job, or it is not waiting.
        """
        return only(self.hold_many([job_id]))

    def release(self, job_id: str) -> bool:
        """Release a held job: it is queued as if it had just arrived; return False if it was not held.

        Raises:
            JobNotFound, MoveError: there is no such job, or it is not waiting.
        """
        return only(self.release_many([job_id]))

    @locked
    def hold_many(
        self, ids: Iterable[str] | Filter = (), *, where: Filter | None = None, hold: bool = True
    ) -> dict[str, bool | QueuectlError]:
        """Hold several waiting jobs at once, so that no worker starts them meanwhile.

        Args:
            ids: the jobs, by id or by a filter, which may also be given as `where`.
            hold: False releases them, see `release_many`.

        Returns:
            for each id whether the job was changed, or the error, as for `hold`.

        Raises:
            SpoolError: the spool cannot be read.
            ValueError, TypeError: as for `retry_many`.
        """
        from queuectl.api import listing
        from queuectl.storage import edit_pending

        self._begin_change("set …")
        past = "held" if hold else "released"
        which = listing.chosen(self, ids, where, past, WAITING)
        rows = self._fresh_rows(which)
        changed, refused = edit_pending.set_hold(self._storage, list(rows.values()), hold=hold, past=past)
        missing = {job_id: self._unknown(job_id) for job_id in which if job_id not in rows}
        return {**missing, **refused, **changed}

    def release_many(
        self, ids: Iterable[str] | Filter = (), *, where: Filter | None = None
    ) -> dict[str, bool | QueuectlError]:
        """Release several held jobs: they are queued as if they had just arrived.

        Args:
            ids: the jobs, by id or by a filter, which may also be given as `where`. A filter selects held jobs only.

        Returns:
            for each id whether the job was changed, or the error, as for `release`.

        Raises:
            SpoolError: the spool cannot be read.
            ValueError, TypeError: as for `retry_many`.
        """
        if hasattr(ids, "of_held"):
            ids = ids.of_held
        return self.hold_many(ids, where=where and where.of_held, hold=False)


def _changes(call: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keywords of a call as changes of a job's file.

    Raises:
        UnknownField: one of them is no field.
    """
    from queuectl.api import job_fields

    job_fields.refuse_unknown(call, fields, job_fields.CHANGES)
    return job_fields.as_in_a_file(fields)
