"""The moves that no worker makes for its own job: back again, given up, buried, deleted. Part of the mover."""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import contextmanager, suppress

from queuectl.errors import DuplicateId, InvalidJob, MoveError, SpoolError
from queuectl.index.row import Row, invalid_row, is_file_of, row_of
from queuectl.job import record as jobs
from queuectl.job.times import micros
from queuectl.layout import DEAD, PENDING
from queuectl.storage.transitions import check
from queuectl.system import files, safe_open

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any

    from queuectl.index.index import Index
    from queuectl.job.record import Job
    from queuectl.layout import Layout


class HandMoves:
    """What a person does to a job, and what is done to a file that is none.

    Args:
        now: the wall clock, in epoch seconds.

    Attributes:
        refresh: makes the index agree with the folders; set by whoever does not see to that all the time.
    """

    def __init__(self, layout: Layout, index: Index, now: Callable[[], float] = time.time) -> None:
        self.layout = layout
        self.index = index
        self.now = now
        self.refresh: Callable[[], None] = lambda: None

    def refuse_taken(self, job_id: str) -> None:
        """See that no job has this id.

        Raises:
            DuplicateId: one has.
        """
        try:
            state = self.state_of(job_id)
        except sqlite3.Error as error:
            self.index.broken = str(error)  # the folders know as well, and the next look makes it anew
            state = self.state_of(job_id)
        if state:
            raise DuplicateId(job_id, state)

    def state_of(self, job_id: str, *, but: str | None = None) -> str | None:
        """The state of the job of this id by the folders themselves, or None; `but` is a path that does not count."""
        name = f"{job_id}.json"
        for state, folder in (
            ("completed", self.layout.done),
            ("dead", self.layout.dead),
            ("pending", self.layout.pending),
        ):
            path = os.path.join(folder, name)
            if path != but and os.path.lexists(path):
                return state
        with os.scandir(self.layout.processing) as workers:
            if any(os.path.lexists(os.path.join(worker.path, name)) for worker in workers):
                return "processing"
        row = self.index.get(job_id) if self.index.usable else None
        if row is None:
            return None
        path = os.path.join(self.layout.root, row.place, row.name)
        return row.state if path != but and os.path.lexists(path) else None

    def requeue(self, row: Row, changes: Mapping[str, Any]) -> Job:
        """Send a dead job back with fresh attempts; its history stays.

        Args:
            changes: fields that it gets, by name.

        Raises:
            MoveError: it is not dead.
            InvalidJob: the file is still no job.
            DuplicateId: it is one, and its id belongs to another.
            SpoolError: the disk refused.
        """
        from queuectl.job.changes import changed

        check("requeue", row.id, row.state, "pending")
        source = os.path.join(self.layout.root, row.place, row.name)
        with _worded("move back", row, source):
            # All in one transaction: of two who send it back at once, one would make a second job of it. The folders'
            # times are carried along only around the renames, or a drop could slip in unseen beside the slow sync.
            with self.index.moving(), self._scratch() as scratch:
                was = files.fingerprint(os.lstat(source))
                job = changed(self._read_dead(source), changes)
                job.id = job.id or row.id
                if job.id != row.id:
                    self.refuse_taken(job.id)
                job.renew(self.now())  # what has expired may run again
                job.check_expiry()
                job.updated_at = self.now()
                files.write_new(scratch, job.to_bytes(), sync=True)
                with self.index.moving(DEAD, PENDING):
                    if files.fingerprint(os.lstat(source)) != was:
                        raise _just_moved(row)
                    # First mended where it lies, then moved: at no moment are there two.
                    files.rename_over(scratch, source)
                    name = files.move_to_free_name(source, self.layout.pending, f"{job.id}.json")
                    self._tell_renewed(job, row, name)
            files.sync_folder(self.layout.pending)
            files.sync_folder(self.layout.dead)
        with suppress(OSError):
            os.unlink(source + ".reason")
        return job

    @contextmanager
    def _scratch(self) -> Iterator[str]:
        """A name for a file that is written before anybody may see it; what lies there in the end goes."""
        path = os.path.join(self.layout.tmp, files.temporary_name())
        try:
            yield path
        finally:
            with suppress(OSError):
                os.unlink(path)

    def read_dead(self, row: Row) -> bytes:
        """The file of a dead job, whatever it holds.

        Raises:
            InvalidJob: it cannot be read, or belongs to somebody else.
            MoveError: it is gone.
        """
        try:
            return self._read_dead(os.path.join(self.layout.root, row.place, row.name))
        except safe_open.NotReadable as error:
            raise InvalidJob(str(error)) from None
        except OSError:
            raise _just_moved(row) from None

    def _read_dead(self, path: str) -> bytes:
        data, status = safe_open.read_regular(path, jobs.READ_LIMIT)
        if safe_open.has_other_owner(status):
            # Written anew it would be ours, and run.
            raise safe_open.NotReadable(f"belongs to another user (uid {status.st_uid})")
        return data

    def amend(self, row: Row, before: bytes, after: bytes) -> Job:
        """Change a dead job's file where it lies, or make a job of what was none.

        Args:
            before: what was read when the change was begun.

        Raises:
            MoveError: it is not dead, or the file has changed meanwhile.
            InvalidJob: the new bytes are no job, or have another id.
            DuplicateId: they make a job of what was none, and its id belongs to another.
            SpoolError: the disk refused; it is as it was.
        """
        if row.state != "dead":
            hint = f"queuectl show {row.id}"
            raise MoveError(f"job {row.id!r} is {row.state}, and not a dead one", hint=hint)
        path = os.path.join(self.layout.root, row.place, row.name)
        job = jobs.parse(after)
        job.id = job.id or row.id
        if job.id != row.id and row.command:
            raise InvalidJob("cannot be changed: it names the job's files", field="id")
        with _worded("change", row, path), self.index.moving():
            if job.id != row.id:
                self.refuse_taken(job.id)
            if self._read_dead(path) != before:
                raise _just_moved(row)
            job.state, job.updated_at = "dead", self.now()
            job.last_error = job.last_error or (row.last_error and f"Mended; it was: {row.last_error}")
            with self.index.moving(DEAD):
                files.replace(path, job.to_bytes())
                now, status = micros(job.updated_at), os.stat(path)
                new = row_of(job, DEAD, row.name, status, state="dead", arrived=row.arrived, now=now)
                if row.id != job.id:
                    self.index.drop(row.id)
                self.index.put(new)
        with suppress(OSError):
            os.unlink(path + ".reason")
        return job

    def _tell_renewed(self, job: Job, row: Row, name: str) -> None:
        now = micros(self.now())
        status = os.stat(os.path.join(self.layout.pending, name))
        new = row_of(job, PENDING, name, status, state="pending", arrived=now, now=now)
        if self.index.usable:
            new.seq = self.index.next_seq()
        if row.id != job.id:
            self.index.drop(row.id)
        if job.needs_settings:
            # Given up before it ever ran: what it leaves open is settled by the intake, as for any job dropped now.
            self.index.drop(new.id)
            if self.index.usable:
                self.index.mark_stale(PENDING)
            return
        self.index.put(new)

    def bury(self, row: Row, reason: str, *, if_still: Callable[[Job], bool] = lambda _: True) -> None:
        """Give a waiting job up.

        Args:
            if_still: whether the reason still holds, for the job as its file says it now.

        Raises:
            MoveError: it does not wait, a worker has just taken it, or the reason does not hold.
            InvalidJob: the file is no job any more.
            SpoolError: the disk refused; it waits on.
        """
        check("bury", row.id, row.state, "dead")
        source = os.path.join(self.layout.pending, row.name)
        with _worded("give up", row, source), self.index.moving(DEAD):
            # pending/ would be compared with the index again for each of a thousand jobs that are given up. Its
            # time is carried along only around the rename, or a drop could slip in unseen beside the slow sync.
            with self.index.own_change(PENDING):
                name = files.move_to_free_name(source, self.layout.dead, f"{row.id}.json")
            target = os.path.join(self.layout.dead, name)
            try:
                job = jobs.parse(safe_open.read_regular(target, jobs.READ_LIMIT)[0])
                if not if_still(job):
                    raise _just_moved(row)
                job.id, job.state, job.last_error = row.id, "dead", reason
                job.hold = False  # or it would be held when it comes back
                job.updated_at = self.now()
                files.replace(target, job.to_bytes())
            except (OSError, safe_open.NotReadable, InvalidJob, MoveError):
                # Refused means that nothing was done: it waits on.
                files.move_to_free_name(target, self.layout.pending, row.name)
                raise
            status = os.stat(target)
            now = micros(self.now())
            self.index.put(row_of(job, DEAD, name, status, state="dead", arrived=row.arrived, now=now))

    def bury_file(
        self, path: str, job_id: str, reason: str, *, judged: os.stat_result | None = None
    ) -> Row | None:
        """Put what can never be a job into dead/, its bytes untouched, the reason beside it; None if it is gone.

        Args:
            judged: of the file that the reason is about. A job that failed meanwhile may have come back to its name.
        """
        # The time of pending/ is not carried along: syncing the reason takes long enough for a drop to slip in unseen.
        with self.index.moving(DEAD):
            try:
                if judged is not None and os.lstat(path).st_ino != judged.st_ino:
                    return None
                name = files.move_to_free_name(path, self.layout.dead, os.path.basename(path))
            except FileNotFoundError:
                return None
            target = os.path.join(self.layout.dead, name)
            with suppress(OSError):
                files.replace(target + ".reason", f"{reason}\n".encode())
            row = invalid_row(job_id, name, os.lstat(target), reason)
            self.index.put(row)
        return row

    def forget(self, row: Row, *, unchanged: bool = False) -> bool:
        """Delete a job's file, and the reason beside it; False when it is gone already.

        Args:
            unchanged: only if it still is the file that the row was made of; else it stays, and this is False.

        Raises:
            MoveError: it runs.
        """
        if row.state == "processing":
            raise MoveError(
                f"job {row.id!r} is running and cannot be deleted", hint=f"queuectl cancel {row.id}"
            )
        path = os.path.join(self.layout.root, row.place, row.name)
        with self.index.moving(row.place):
            if unchanged and not _is_as_known(row, path):
                return False
            try:
                files.delete(path)
            except FileNotFoundError:
                return False
            finally:
                self.index.drop(row.id)
        with suppress(FileNotFoundError):
            os.unlink(path + ".reason")
        return True


@contextmanager
def _worded(what: str, row: Row, path: str) -> Iterator[None]:
    """Say in our own words what the disk refuses, or the file does not allow."""
    try:
        yield
    except safe_open.NotReadable as error:
        raise InvalidJob(str(error)) from None
    except FileNotFoundError:
        raise _just_moved(row) from None
    except OSError as error:
        raise SpoolError.from_os(what, path, error) from None


def _is_as_known(row: Row, path: str) -> bool:
    try:
        return is_file_of(row, os.lstat(path))
    except FileNotFoundError:
        return False


def _just_moved(row: Row) -> MoveError:
    return MoveError(f"job {row.id!r} has just been taken or moved", hint=f"queuectl show {row.id}")
