"""Dead letters: one job or invalid file moved to dead/, edited there, and moved back; and the deletion of any job."""

from __future__ import annotations

import os
from contextlib import suppress

from queuectl.errors import InvalidJob, MoveError
from queuectl.index.row import invalid_row, is_file_of, row_of
from queuectl.job import record as jobs
from queuectl.job.times import micros
from queuectl.layout import DEAD, name_in_dead
from queuectl.storage import bulk_moves, locate
from queuectl.storage.rewriting import Change, Rewriting, checked, just_changed, just_moved, read_own
from queuectl.system import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from queuectl.errors import QueuectlError
    from queuectl.index.freshness import OwnChanges
    from queuectl.index.row import Row
    from queuectl.job.record import Job
    from queuectl.storage.transitions import Storage


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

    def change(data: bytes) -> Job:
        if data != before:
            raise just_moved(row.id)
        return jobs.parse(after)

    edited, refused = _edit_all(storage, [row], change)
    for error in refused.values():
        raise error
    return edited[row.id]


def set_all(
    storage: Storage, rows: Sequence[Row], changes: Mapping[str, Any], before: bytes | None = None
) -> tuple[dict[str, Job], dict[str, QueuectlError]]:
    """Change fields of dead jobs. None removes a field.

    Args:
        before: the content that their file must still have; None: whatever it has.

    Returns:
        the jobs as they are now, and the errors of those that were not changed, as for `edit`; both by the id before.
    """
    from queuectl.job.changes import changed

    def change(data: bytes) -> Job:
        if before is not None and data != before:
            raise just_changed(rows[0].id)
        return changed(data, changes)

    return _edit_all(storage, rows, change)


def _edit_all(
    storage: Storage, rows: Sequence[Row], change: Callable[[bytes], Job]
) -> tuple[dict[str, Job], dict[str, QueuectlError]]:
    edited: dict[str, Change] = {}

    def prepare(row: Row) -> Change:
        if row.state != "dead":
            hint = f"queuectl show {row.id}"
            raise MoveError(f"job {row.id!r} is {row.state}, and not a dead one", hint=hint)
        path = os.path.join(storage.layout.root, row.place, row.name)
        data, status = read_own(path)
        job = change(data)
        job.id = job.id or row.id
        if job.id != row.id and row.command:
            raise InvalidJob("cannot be changed: it names the job's files", field="id")
        job.state, job.updated_at = "dead", storage.now()
        job.last_error = job.last_error or (row.last_error and f"Edited; it was: {row.last_error}")
        return checked(row, job, path, status)

    def put(one: Change, _: OwnChanges) -> Row:
        new = _put_in_place(storage, one)
        edited[one.row.id] = one
        return new

    work = Rewriting(storage, "change")
    work.run(rows, prepare, put, moving=[DEAD], synced=[DEAD])
    for one in edited.values():
        with suppress(OSError):
            os.unlink(one.path + ".reason")
    return {job_id: one.job for job_id, one in edited.items() if job_id not in work.refused}, work.refused


def _put_in_place(storage: Storage, one: Change) -> Row:
    row, job = one.row, one.job
    if job.id != row.id:
        locate.refuse_taken(storage, job.id)
    if one.was_changed(one.path):
        raise just_moved(row.id)
    files.rename_over(one.scratch, one.path)
    if job.id != row.id:
        storage.index.drop(row.id)
    now, status = micros(storage.now()), one.status or os.stat(one.path)
    new = row_of(job, DEAD, row.name, status, state="dead", arrived=row.arrived, now=now)
    new.ours, new.seq = 1, row.seq
    return new


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
    """Move a file that is not a valid job to dead/, its bytes unchanged, with the reason beside it.

    Args:
        judged: the status of the file that the reason is about. A job that failed since may have got its name.

    Returns:
        its new row, or None if the file is gone or is another one.
    """
    if storage.read_only:
        return None
    if storage.before_end is not None and _is_there(path, judged):
        storage.before_end([(jobs.Job(id=job_id, last_error=reason), "dead")])
    # The index does not take over the time of pending/ here: while the reason is synced, a file may be dropped.
    with storage.index.moving(DEAD):
        try:
            target = _move_with_reason(path, storage.layout.dead, reason, judged)
        except FileNotFoundError:
            return None
        row = invalid_row(job_id, os.path.basename(target), os.lstat(target), reason)
        storage.index.put(row)
    return row


def _move_with_reason(path: str, folder: str, reason: str, judged: os.stat_result | None) -> str:
    """Write the reason, then move the file beside it; returns the file's new path.

    Without its reason, a file whose only fault is an id that another job has looks like a job that was given up by hand.
    If we died before the reason was written, the next reindex gave it that id, and the waiting job lost it.

    Raises:
        FileNotFoundError: the file is gone, or is another one than was judged.
    """
    name, number = name_in_dead(os.path.basename(path)), 0
    while True:
        number += 1
        target = os.path.join(folder, files.numbered(name, number))
        if os.path.lexists(target):
            continue
        with suppress(OSError):  # on a full disk it goes there without its reason
            files.replace(target + ".reason", f"{reason}\n".encode())
        try:
            # The wait for the disk may have been long, and somebody may have put another file there.
            if judged is not None and os.lstat(path).st_ino != judged.st_ino:
                raise FileNotFoundError(path)
            files.move(path, target)
        except FileExistsError:
            _delete_reason(target)
            continue
        except OSError:
            if not os.path.lexists(target):  # else another process has just moved this file, with this reason
                _delete_reason(target)
            raise
        with suppress(OSError):
            files.sync_folder(folder)
        return target


def _delete_reason(target: str) -> None:
    with suppress(OSError):
        os.unlink(target + ".reason")


def _is_there(path: str, judged: os.stat_result | None) -> bool:
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return False
    return judged is None or status.st_ino == judged.st_ino


def forget(
    storage: Storage, row: Row, *, unchanged: bool = False, own_changes: OwnChanges | None = None
) -> bool:
    """Delete a job's file and the reason beside it; return False if the file is gone already.

    Args:
        unchanged: delete it only if it is still the file from which the row was made; otherwise return False.
        own_changes: of its folder, if this is one of many deletions in a transaction.

    Raises:
        MoveError: the job is running.
    """
    if storage.read_only:
        return False
    if row.state == "processing":
        raise MoveError(f"job {row.id!r} is running and cannot be deleted", hint=f"queuectl cancel {row.id}")
    path = os.path.join(storage.layout.root, row.place, row.name)
    with own_changes or storage.index.moving(row.place):
        if unchanged and not _is_unchanged(row, path):
            return False
        try:
            files.delete(path)
            storage.deleted_in.add(row.place)
        except FileNotFoundError:
            return False
        finally:
            # Not by its id alone: a worker may have claimed it since the row was read.
            storage.index.drop_if_at(row.id, row.place, row.name)
    if row.place == DEAD:
        with suppress(FileNotFoundError):
            os.unlink(path + ".reason")
    return True


def _is_unchanged(row: Row, path: str) -> bool:
    try:
        return is_file_of(row, os.lstat(path))
    except FileNotFoundError:
        return False
