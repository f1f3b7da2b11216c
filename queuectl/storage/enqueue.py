"""Enqueue a job: written to a scratch file, linked into pending/, synced, and taken back if the disk refuses."""

from __future__ import annotations

import os
from contextlib import suppress

from queuectl.errors import DuplicateId, QueuedUnsafely, SpoolError
from queuectl.index.row import row_of, set_file, values_of
from queuectl.job.times import micros
from queuectl.layout import PENDING
from queuectl.system import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from queuectl.storage.transitions import Prepared, Storage


def enqueue(storage: Storage, made: Prepared, *, durable: bool = True) -> None:
    """Enqueue a job. When this returns, the job survives a power cut.

    Args:
        durable: False: do not wait for the disk; a crash of the machine may then lose the job.

    Raises:
        DuplicateId: a job has this id.
        KeyTaken: another job has its unique key, and it asks to be skipped then.
        SpoolFull, SpoolError: nothing was enqueued.
        QueuedUnsafely: a worker has claimed it already, but the disk did not confirm it.
    """
    if not made.needs_key:
        _enqueue_one(storage, made, durable=durable)
        return
    from queuectl.storage import unique_keys

    with unique_keys.locked(storage):
        _enqueue_one(storage, made, durable=durable)
        unique_keys.supersede(storage, [made])


def _enqueue_one(storage: Storage, made: Prepared, *, durable: bool) -> None:
    if made.chosen:
        # Loaded now for `publish`: inside the lock of the index all workers would wait for the import.
        from queuectl.storage import locate  # noqa: F401
    try:
        try:
            _enqueue(storage, made, durable=durable)
        except FileNotFoundError:  # somebody deleted a folder
            storage.layout.create()
            _enqueue(storage, made, durable=durable)
    except FileExistsError:
        raise DuplicateId(made.id, "pending") from None
    except OSError as error:
        raise SpoolError.from_os("queue a job in", storage.layout.pending, error) from None


def _enqueue(storage: Storage, made: Prepared, *, durable: bool) -> None:
    scratch = f"{storage.layout.tmp}{os.sep}{files.temporary_name()}"
    fd = os.open(scratch, files.CREATE, 0o600)
    try:
        files.write_all(fd, made.data)
        if durable:
            files.sync_data(fd)
        with storage.index.moving(PENDING):
            publish(storage, scratch, made)
            status = os.fstat(fd)
            mark = files.fingerprint(status)
            storage.index.insert_new([waiting_row(made, mark, micros(storage.now()))])
        if durable:
            sync_queued(storage, [made], fd)
    except BaseException:
        with suppress(OSError):
            os.unlink(scratch)
        raise
    finally:
        os.close(fd)


def publish(storage: Storage, scratch: str, made: Prepared, *, keep: bool = False) -> None:
    """Give a written file its name in pending/.

    Call it within `index.moving()`, so that no claim moves a job while its id is looked up.

    Args:
        keep: leave the temporary name.

    Raises:
        DuplicateId, FileExistsError: a job has this id.
        KeyTaken: another job has its unique key, and it asks to be skipped then.
    """
    if made.needs_key:
        from queuectl.storage import unique_keys

        unique_keys.admit(storage, made)
    if made.chosen:
        from queuectl.storage import locate

        locate.refuse_taken(storage, made.id)
    files.publish(scratch, f"{storage.layout.pending}{os.sep}{made.id}.json", keep=keep)


def waiting_row(made: Prepared, mark: files.Fingerprint, now: int) -> Sequence[Any]:
    """Return the row of a job that waits from now on, in the form that `Index.insert_new` takes.

    Args:
        mark: its file's inode, time of change in nanoseconds, and size.
        now: in microseconds.
    """
    if made.values is not None:
        set_file(made.values, now, mark)
        return made.values
    status, name = files.FileStat(*mark), f"{made.id}.json"
    arrived = now
    if made.supersedes:
        from queuectl.storage import unique_keys

        arrived = unique_keys.place_of(made.supersedes, now)
    row = row_of(made.job, PENDING, name, status, state="pending", arrived=arrived, now=now)
    row.ours = 1
    return values_of(row)


def sync_queued(storage: Storage, batch: Sequence[Prepared], fd: int | None = None) -> None:
    """Make published jobs durable, or take them back: a job whose producer was refused must not run.

    Args:
        fd: the job's file, if it is to be synced as well.

    Raises:
        OSError: the disk refused; the jobs are taken back.
        QueuedUnsafely: the disk refused, and some jobs could not be taken back.
    """
    try:
        if fd is not None:
            files.sync_file(fd)
        files.sync_folder(storage.layout.pending)
    except OSError as error:
        take_back(storage, batch, error)
        raise


def take_back(storage: Storage, batch: Sequence[Prepared], why: OSError) -> None:
    """Delete published jobs from pending/.

    Raises:
        QueuedUnsafely: some are not in pending/ any more; it names them. If their producer were told that they were
            refused, it would enqueue them again beside those that run.
    """
    left = []
    with storage.index.moving(PENDING):
        for made in batch:
            try:
                os.unlink(os.path.join(storage.layout.pending, f"{made.id}.json"))
                storage.index.drop(made.id)
            except OSError:
                left.append(made.id)
    if left:
        raise QueuedUnsafely(left, why) from None
