"""Dead letters: jobs and invalid files moved to dead/, edited there, and moved back; and the deletion of any job."""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress

from queuectl.errors import InvalidJob, MoveError, SpoolError
from queuectl.index.row import invalid_row, is_file_of, row_of
from queuectl.job import record as jobs
from queuectl.job.times import micros
from queuectl.layout import DEAD, PENDING
from queuectl.storage import locate
from queuectl.storage.transitions import check
from queuectl.system import files, safe_open

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any

    from queuectl.index.row import Row
    from queuectl.job.record import Job
    from queuectl.storage.transitions import Storage


def requeue(storage: Storage, row: Row, changes: Mapping[str, Any]) -> Job:
    """Move a dead job back to pending/ with fresh attempts; its history stays.

    Args:
        changes: fields to change, by name.

    Raises:
        MoveError: it is not dead.
        InvalidJob: the file is still not a valid job.
        DuplicateId: the file is a valid job now, but another job has its id.
        SpoolError: the disk refused.
    """
    from queuectl.job.changes import changed

    check("requeue", row.id, row.state, "pending")
    source = os.path.join(storage.layout.root, row.place, row.name)
    with _in_words("move back", row, source):
        # All in one transaction, or two processes that requeue it at once would make two jobs of it. The index takes
        # over the folders' times only around the renames: during the slow sync it would miss a file dropped then.
        with storage.index.moving(), _scratch(storage) as scratch:
            was = files.fingerprint(os.lstat(source))
            job = changed(_read(source), changes)
            job.id = job.id or row.id
            if job.id != row.id:
                locate.refuse_taken(storage, job.id)
            job.renew(storage.now())  # an expired job may run again
            job.check_expiry()
            job.updated_at = storage.now()
            files.write_new(scratch, job.to_bytes(), sync=True)
            with storage.index.moving(DEAD, PENDING):
                if files.fingerprint(os.lstat(source)) != was:
                    raise _just_moved(row)
                # First changed in place, then moved, so that there are never two files.
                files.rename_over(scratch, source)
                name = files.move_to_free_name(source, storage.layout.pending, f"{job.id}.json")
                _index_requeued(storage, job, row, name)
        files.sync_folder(storage.layout.pending)
        files.sync_folder(storage.layout.dead)
    with suppress(OSError):
        os.unlink(source + ".reason")
    return job


@contextmanager
def _scratch(storage: Storage) -> Iterator[str]:
    """Yield a path for a scratch file; delete the file at the end if it is still there."""
    path = os.path.join(storage.layout.tmp, files.temporary_name())
    try:
        yield path
    finally:
        with suppress(OSError):
            os.unlink(path)


def read_dead(storage: Storage, row: Row) -> bytes:
    """Return the bytes of a dead job's file, valid or not.

    Raises:
        InvalidJob: it is not a regular file, or belongs to another user.
        MoveError: it is gone.
    """
    try:
        return _read(os.path.join(storage.layout.root, row.place, row.name))
    except safe_open.NotReadable as error:
        raise InvalidJob(str(error)) from None
    except OSError:
        raise _just_moved(row) from None


def _read(path: str) -> bytes:
    data, status = safe_open.read_regular(path, jobs.READ_LIMIT)
    if safe_open.has_other_owner(status):
        # Rewritten by queuectl it would belong to this user, and run.
        raise safe_open.NotReadable(f"belongs to another user (uid {status.st_uid})")
    return data


def edit(storage: Storage, row: Row, before: bytes, after: bytes) -> Job:
    """Change a dead job's file in place; an invalid file may become a valid job.

    Args:
        before: the bytes that were read when the edit began.

    Raises:
        MoveError: it is not dead, or the file has changed since.
        InvalidJob: the new bytes are not a valid job, or have another id.
        DuplicateId: an invalid file becomes a job whose id another job has.
        SpoolError: the disk refused; nothing changed.
    """
    if row.state != "dead":
        hint = f"queuectl show {row.id}"
        raise MoveError(f"job {row.id!r} is {row.state}, and not a dead one", hint=hint)
    path = os.path.join(storage.layout.root, row.place, row.name)
    job = jobs.parse(after)
    job.id = job.id or row.id
    if job.id != row.id and row.command:
        raise InvalidJob("cannot be changed: it names the job's files", field="id")
    with _in_words("change", row, path), storage.index.moving():
        if job.id != row.id:
            locate.refuse_taken(storage, job.id)
        if _read(path) != before:
            raise _just_moved(row)
        job.state, job.updated_at = "dead", storage.now()
        job.last_error = job.last_error or (row.last_error and f"Edited; it was: {row.last_error}")
        with storage.index.moving(DEAD):
            files.replace(path, job.to_bytes())
            now, status = micros(job.updated_at), os.stat(path)
            new = row_of(job, DEAD, row.name, status, state="dead", arrived=row.arrived, now=now)
            if row.id != job.id:
                storage.index.drop(row.id)
            storage.index.put(new)
    with suppress(OSError):
        os.unlink(path + ".reason")
    return job


def _index_requeued(storage: Storage, job: Job, row: Row, name: str) -> None:
    now = micros(storage.now())
    status = os.stat(os.path.join(storage.layout.pending, name))
    new = row_of(job, PENDING, name, status, state="pending", arrived=now, now=now)
    if storage.index.usable:
        new.seq = storage.index.next_seq()
    if row.id != job.id:
        storage.index.drop(row.id)
    if job.needs_settings:
        # It was buried before the settings were copied onto it. The intake does that, as for any dropped file.
        storage.index.drop(new.id)
        if storage.index.usable:
            storage.index.mark_stale(PENDING)
        return
    storage.index.put(new)


def bury(
    storage: Storage, row: Row, reason: str, *, if_still: Callable[[Job], bool] = lambda _: True
) -> None:
    """Move a waiting job to dead/.

    Args:
        if_still: given the job as its file says it now; returns whether the reason still applies.

    Raises:
        MoveError: it is not waiting, a worker has just claimed it, or the reason does not apply any more.
        InvalidJob: the file is not a valid job any more.
        SpoolError: the disk refused; the job still waits.
    """
    if storage.read_only:
        return
    check("bury", row.id, row.state, "dead")
    source = os.path.join(storage.layout.pending, row.name)
    with _in_words("give up", row, source), storage.index.moving(DEAD):
        # Without `own_change`, each buried job would cause another scan of pending/. It covers only the rename: during
        # the slow sync the index would miss a file dropped then.
        with storage.index.own_change(PENDING):
            name = files.move_to_free_name(source, storage.layout.dead, f"{row.id}.json")
        target = os.path.join(storage.layout.dead, name)
        try:
            job = jobs.parse(safe_open.read_regular(target, jobs.READ_LIMIT)[0])
            if not if_still(job):
                raise _just_moved(row)
            job.id, job.state, job.last_error = row.id, "dead", reason
            job.hold = False  # or it would still be held after a requeue
            job.updated_at = storage.now()
            files.replace(target, job.to_bytes())
        except (OSError, safe_open.NotReadable, InvalidJob, MoveError):
            # A refusal means that nothing was done: the job waits again.
            files.move_to_free_name(target, storage.layout.pending, row.name)
            raise
        status = os.stat(target)
        now = micros(storage.now())
        storage.index.put(row_of(job, DEAD, name, status, state="dead", arrived=row.arrived, now=now))


def bury_file(
    storage: Storage, path: str, job_id: str, reason: str, *, judged: os.stat_result | None = None
) -> Row | None:
    """Move a file that is not a valid job to dead/, its bytes unchanged, and write the reason beside it.

    Args:
        judged: the status of the file that the reason is about. A job that failed since may have got its name.

    Returns:
        its new row, or None if the file is gone or is another one.
    """
    if storage.read_only:
        return None
    # The index does not take over the time of pending/ here: while the reason is synced, a file may be dropped.
    with storage.index.moving(DEAD):
        try:
            if judged is not None and os.lstat(path).st_ino != judged.st_ino:
                return None
            name = files.move_to_free_name(path, storage.layout.dead, os.path.basename(path))
        except FileNotFoundError:
            return None
        target = os.path.join(storage.layout.dead, name)
        with suppress(OSError):
            files.replace(target + ".reason", f"{reason}\n".encode())
        row = invalid_row(job_id, name, os.lstat(target), reason)
        storage.index.put(row)
    return row


def forget(storage: Storage, row: Row, *, unchanged: bool = False) -> bool:
    """Delete a job's file and the reason beside it; return False if the file is gone already.

    Args:
        unchanged: delete it only if it is still the file from which the row was made; otherwise return False.

    Raises:
        MoveError: the job is running.
    """
    if storage.read_only:
        return False
    if row.state == "processing":
        raise MoveError(f"job {row.id!r} is running and cannot be deleted", hint=f"queuectl cancel {row.id}")
    path = os.path.join(storage.layout.root, row.place, row.name)
    with storage.index.moving(row.place):
        if unchanged and not _is_unchanged(row, path):
            return False
        try:
            files.delete(path)
        except FileNotFoundError:
            return False
        finally:
            storage.index.drop(row.id)
    with suppress(FileNotFoundError):
        os.unlink(path + ".reason")
    return True


@contextmanager
def _in_words(what: str, row: Row, path: str) -> Iterator[None]:
    """Turn errors of the disk and of the file into errors of this program."""
    try:
        yield
    except safe_open.NotReadable as error:
        raise InvalidJob(str(error)) from None
    except FileNotFoundError:
        raise _just_moved(row) from None
    except OSError as error:
        raise SpoolError.from_os(what, path, error) from None


def _is_unchanged(row: Row, path: str) -> bool:
    try:
        return is_file_of(row, os.lstat(path))
    except FileNotFoundError:
        return False


def _just_moved(row: Row) -> MoveError:
    return MoveError(f"job {row.id!r} has just been taken or moved", hint=f"queuectl show {row.id}")
