"""Dead letters: one job or invalid file moved to dead/, edited there, and moved back; and the deletion of any job."""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress

from queuectl.errors import InvalidJob, MoveError
from queuectl.index.row import invalid_row, is_file_of, row_of
from queuectl.job import record as jobs
from queuectl.job.times import micros
from queuectl.layout import DEAD, name_in_dead
from queuectl.storage import bulk_moves, locate
from queuectl.storage.bulk_moves import in_words, just_moved, read_own
from queuectl.system import files, safe_open

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any

    from queuectl.index.row import Row
    from queuectl.job.record import Job
    from queuectl.storage.transitions import Storage


def requeue(storage: Storage, row: Row, changes: Mapping[str, Any]) -> Job:
    """Move a dead or completed job back to pending/ with fresh attempts; its history stays.

    Args:
        changes: fields to change, by name.

    Raises:
        MoveError, InvalidJob, DuplicateId, SpoolError: see `bulk_moves.requeue_all`.
    """
    moved, refused = bulk_moves.requeue_all(storage, [row], changes)
    for error in refused.values():
        raise error
    return moved[row.id]


def read_dead(storage: Storage, row: Row) -> bytes:
    """Return the bytes of a dead job's file, valid or not.

    Raises:
        InvalidJob: it is not a regular file, or belongs to another user.
        MoveError: it is gone.
    """
    try:
        return read_own(os.path.join(storage.layout.root, row.place, row.name))[0]
    except safe_open.NotReadable as error:
        raise InvalidJob(str(error)) from None
    except OSError:
        raise just_moved(row) from None


def edit(storage: Storage, row: Row, before: bytes, after: bytes) -> Job:
    """Change a dead job's file in place; an invalid file may become a valid job.

    Args:
        before: the bytes that were read when the edit began.

    Raises:
        MoveError: it is not dead, or the file has changed since.
        InvalidJob: the new bytes are not a valid job, are too large, or have another id.
        DuplicateId: an invalid file becomes a job whose id another job has.
        SpoolError: the disk refused; nothing changed.
    """
    if row.state != "dead":
        hint = f"queuectl show {row.id}"
        raise MoveError(f"job {row.id!r} is {row.state}, and not a dead one", hint=hint)
    path = os.path.join(storage.layout.root, row.place, row.name)
    job = jobs.parse(after)
    jobs.check_size(job)
    job.id = job.id or row.id
    if job.id != row.id and row.command:
        raise InvalidJob("cannot be changed: it names the job's files", field="id")
    with _in_words("change", row), storage.index.moving():
        if job.id != row.id:
            locate.refuse_taken(storage, job.id)
        if read_own(path)[0] != before:
            raise just_moved(row)
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


def bury(
    storage: Storage, row: Row, reason: str, *, if_still: Callable[[Job], bool] = lambda _: True
) -> None:
    """Move a waiting job to dead/.

    Args:
        if_still: given the job as its file says it now; returns whether the reason still applies.

    Raises:
        MoveError, InvalidJob, SpoolError: see `bulk_moves.bury_all`; the job still waits.
    """
    for error in bulk_moves.bury_all(storage, [row], reason, if_still=if_still).values():
        raise error


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
            name = name_in_dead(os.path.basename(path))
            name = files.move_to_free_name(path, storage.layout.dead, name)
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
            # Not by its id alone: a worker may have claimed it since the row was read.
            storage.index.drop_if_at(row.id, row.place, row.name)
    with suppress(FileNotFoundError):
        os.unlink(path + ".reason")
    return True


@contextmanager
def _in_words(what: str, row: Row) -> Iterator[None]:
    """Turn errors of the disk and of the file into errors of this program."""
    try:
        yield
    except (safe_open.NotReadable, OSError) as error:
        raise in_words(what, row, error) or error from None


def _is_unchanged(row: Row, path: str) -> bool:
    try:
        return is_file_of(row, os.lstat(path))
    except FileNotFoundError:
        return False
