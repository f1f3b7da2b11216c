"""What a person does with a spool and its jobs: retry, cancel, hold, forget, pause. Part of the Python door."""

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

_TO_END = 30.0
"""Seconds, beyond the grace, that a cancelled job is given to be over."""

_HEEDED = 0.1
"""Seconds that a cancelled job which runs is waited for: most end at once."""

_IN_HAND, _IN_HAND_PAUSE = 2.0, 0.005
"""Seconds that a job which a worker has claimed and not begun is waited for, and between two looks."""

PAGE = 2000
"""Jobs that are looked up together when many are to be deleted."""


class Operations(Queries):
    """A spool whose jobs can be acted upon."""

    def _refuse_root(self) -> None:
        if hasattr(os, "geteuid") and os.geteuid() == 0 and os.stat(self.layout.root).st_uid != 0:
            from queuectl.control import permissions

            permissions.refuse_root(self.layout)

    def retry(self, job_id: str, **fields: Any) -> Job:
        """Send a dead job back to pending/ with fresh attempts; its history stays.

        Args:
            fields: fields of the job file that it gets, as in timeout=60 or priority=9; None takes one away, so that
                the settings decide. A value that is wrong in a rejected file can be put right so.

        Raises:
            JobNotFound, MoveError: there is none, or it is not dead.
            InvalidJob: the file is still no job, or a field is wrong.
            DuplicateId: a rejected file is a job now, and its id belongs to another.
        """
        from queuectl.storage import dead_letters

        self.refresh()
        self._refuse_root()
        return dead_letters.requeue(self._storage, self._find(job_id), fields)

    def amend(self, job_id: str, before: bytes, after: bytes) -> Job:
        """Change the file of a waiting or a dead job where it lies.

        A rejected file becomes a dead job that can be retried.

        Args:
            before: the file as it was read; if it is another one by now, nothing is changed.
            after: the file as it is to be.

        Raises:
            JobNotFound, MoveError: there is none, it runs or is done, or it has changed meanwhile.
            InvalidJob, DuplicateId, KeyTaken: the new bytes are no job, or have an id or a key that they cannot have.
        """
        from queuectl.storage import dead_letters, edit_pending

        row = self._now(job_id)
        if row.state == "dead":
            return dead_letters.edit(self._storage, row, before, after)
        return edit_pending.replace(self._storage, row, before, after, self.settings())

    def set(self, job_id: str, **fields: Any) -> Job:
        """Change fields of a waiting or a dead job.

        Args:
            fields: by field of the job file, as in priority=9 or run_at=time.time() + 3600; None takes one away, so
                that the settings decide. Of a job that failed, run_at is the moment of its next attempt.

        Returns:
            the job as it is now.

        Raises:
            JobNotFound, MoveError: there is none, it runs or is done, or somebody else has just changed it.
            InvalidJob, KeyTaken: a field is wrong or cannot be changed, or another job has the unique key.
        """
        from queuectl.storage import edit_pending

        return edit_pending.set_fields(self._storage, self._now(job_id), fields, self.settings())

    def cancel(self, job_id: str) -> str:
        """Give a job up: a waiting one goes to dead/, a running one is ended and goes there too.

        Returns:
            what was done: "cancelled" or "ending".

        Raises:
            JobNotFound, MoveError: there is none, or it is over already.
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
            row, run = self._once_begun(job_id)  # it may have failed by itself just before, and run again
        if told and row.state not in ("pending", "failed"):
            return "ending"
        check("bury", row.id, row.state, "dead")
        try:
            dead_letters.bury(self._storage, row, "Cancelled")
        except MoveError:
            if not told:
                raise
            return "ending"  # its worker has given it up
        return "cancelled"

    def _has_left(self, row: Row) -> bool:
        """Whether a job that its worker was told to end is out of its hands within a moment, as most are."""
        end = time.monotonic() + _HEEDED
        path = os.path.join(self.layout.root, row.place, f"{row.id}.json")
        while os.path.lexists(path):
            if time.monotonic() > end:
                return False
            time.sleep(_IN_HAND_PAUSE)
        return True

    def _once_begun(self, job_id: str) -> tuple[Row, int]:
        """The row of a job that no worker has merely in hand, and the number of its next run, or of that under way.

        One that is merely in hand is begun, put back or recorded in a moment.
        """
        from queuectl.control import run_lock

        end = time.monotonic() + _IN_HAND
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
            if time.monotonic() > end + _IN_HAND:
                raise MoveError(f"job {job_id!r} cannot be read", hint=f"queuectl show {job_id}")
            time.sleep(_IN_HAND_PAUSE)

    def hold(self, job_id: str) -> bool:
        """Keep a waiting job from running until it is released; False when it is held already.

        Raises:
            JobNotFound, MoveError: there is none, or it does not wait.
        """
        return self._set_hold(job_id, hold=True, past="held")

    def release(self, job_id: str) -> bool:
        """Let a job that is held take its place in the line, as if it came now; False when it is not held.

        Raises:
            JobNotFound, MoveError: there is none, or it does not wait.
        """
        return self._set_hold(job_id, hold=False, past="released")

    def _set_hold(self, job_id: str, *, hold: bool, past: str) -> bool:
        from queuectl.storage import edit_pending

        return edit_pending.set_hold(self._storage, self._now(job_id), hold=hold, past=past)

    def _now(self, job_id: str) -> Row:
        """The row of a job as its file is now."""
        self.refresh()
        self._refuse_root()
        row = self._find(job_id)
        return self._find(job_id) if self._ask(lambda: self._intake.freshen([row])) else row

    def pause(self, reason: str = "", *, patience: float = 5.0) -> builtins.list[str]:
        """Have no worker start another job; what runs goes on. `paused` in the spool's folder says so.

        Args:
            patience: seconds to wait for the workers to take notice, which takes one inside a program up to one.

        Returns:
            the names of those that have not.

        Raises:
            SpoolError: the file cannot be written.
        """
        from queuectl.control import pause

        self.layout.create()
        self._refuse_root()
        return pause.pause(self.layout, reason, patience=patience)

    def resume(self) -> bool:
        """Let the workers go on; False when the spool was not paused.

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
            timeout: seconds; None waits as long as it takes.
            tell: called now and then with the jobs that run still.

        Raises:
            StillUnderWay: some run still; the spool stays paused.
            SpoolError: the file cannot be written.
        """
        from queuectl.control import pause

        self.layout.create()
        self._refuse_root()
        pause.drain(self.layout, reason, timeout=timeout, tell=tell)

    def forget(self, job_id: str, *, cancel: bool = False, durable: bool = True) -> None:
        """Delete a job and what it printed.

        Args:
            cancel: end it first if it runs, which may take as long as the setting kill_grace.
            durable: False: a power cut may bring it back until `sync_deletions`, which is quicker for many.

        Raises:
            JobNotFound, MoveError: there is none, or it runs.
            StillUnderWay: it has not ended though it was told to.
        """
        self.refresh()
        row = self._find(job_id)
        if cancel and row.state == "processing":
            with suppress(MoveError):  # it has just ended
                self.cancel(job_id)
            self.wait(job_id, timeout=self.settings().kill_grace + _TO_END)
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
        """Delete all jobs, those of a state or those that a filter describes, but never one that runs.

        Returns:
            how many were deleted, and how many were left because they run.

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
        """Delete old jobs that are done or dead, with what they printed; the oldest first.

        What has changed meanwhile stays, and so does what cannot be read as a job.

        Args:
            older_than: only what has been over for so long, in seconds or like "7d".
            keep: never the newest so many of each state.
            where: only these.
            logs_only: delete what the jobs printed, and keep their records.
            dry_run: only count.
            progress: called with the number of jobs looked at so far.

        Returns:
            how many jobs and files of output were deleted, or would be, and their bytes.

        Raises:
            ValueError: neither older_than nor keep says what is to go, or one of them makes no sense.
            SpoolError: the disk refused.
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
        """See that a power cut brings none of the deleted jobs back: a waiting one would run."""
        for folder in (self.layout.pending, self.layout.done, self.layout.dead):
            try:
                files.sync_folder(folder)
            except OSError as error:
                raise SpoolError.from_os("sync", folder, error) from None


def _worker_of(row: Row) -> str:
    """The worker that has a job in hand."""
    return row.worker or row.place.removeprefix(PROCESSING + "/")
