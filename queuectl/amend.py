"""Change a waiting job's file, in one step that no claim and no other hand can fall into.

The new file and the old one change places (renameat2 with EXCHANGE), which fails if the old one is gone: a job that a
worker takes meanwhile runs as it was, and never comes to lie in two places. What came out is looked at: if it is not
the file that was read, it goes back.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress

from queuectl import files, libc
from queuectl import job as jobs
from queuectl.errors import InvalidJob, MoveError, SpoolError
from queuectl.layout import PENDING
from queuectl.row import accept_as_indexed, micros, row_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from queuectl.hand_moves import HandMoves
    from queuectl.job import Job
    from queuectl.row import Row

WAITING = ("pending", "failed")
"""The states of a job whose file may be changed."""

_EXCHANGE = 2
_AT_FDCWD = -100


def amend(mover: HandMoves, row: Row, change: Callable[[bytes, Job], Job | None], past: str) -> Job:
    """Change a waiting job; on return that is on the disk.

    Args:
        change: given the file's bytes and the job as it would run now, makes the job that is wanted; None: it is.
        past: what is done to it, for a refusal, as in "job 'job1' is dead and cannot be held".

    Returns:
        the job as it is now.

    Raises:
        MoveError: it does not wait, or has been taken, moved or changed by somebody else just now; nothing was done.
        InvalidJob: the file is no job any more, or belongs to somebody else.
        SpoolError: the disk refused; nothing was done.
    """
    if row.state not in WAITING:
        hint = f"queuectl cancel {row.id}" if row.state == "processing" else f"queuectl show {row.id}"
        raise MoveError(f"job {row.id!r} is {row.state} and cannot be {past}", hint=hint)
    path = os.path.join(mover.layout.root, PENDING, row.name)
    try:
        data, was = files.read_plain(path, jobs.READ_LIMIT)
        if files.is_strangers(was):
            # Written anew it would be ours, and run.
            raise files.Unfit(f"belongs to another user (uid {was.st_uid})")
        now = _as_it_runs(jobs.parse(data), row)
        wanted = change(data, now)
        if wanted is None:
            return now
        wanted.state, wanted.updated_at = wanted.waiting_state, mover.now()
        _land(mover, row, path, was, wanted)
    except files.Unfit as error:
        raise InvalidJob(str(error)) from None
    except FileNotFoundError:
        raise just_changed(row) from None
    except OSError as error:
        raise SpoolError.from_os("change", path, error) from None
    return wanted


def _as_it_runs(job: Job, row: Row) -> Job:
    """The job with what was settled when it was accepted."""
    job.id = job.id or row.id
    if job.id != row.id:
        raise just_changed(row)
    if job.state in ("completed", "dead"):
        job.renew(row.arrived / 1e6)
    accept_as_indexed(job, row)
    return job


def just_changed(row: Row) -> MoveError:
    """The refusal of a change that came too late."""
    return MoveError(
        f"job {row.id!r} has just been taken, moved or changed by somebody else; nothing was done to it",
        hint=f"queuectl show {row.id}",
    )


def _land(mover: HandMoves, row: Row, path: str, was: os.stat_result, job: Job) -> None:
    scratch = os.path.join(mover.layout.tmp, f".{files.token()}.tmp")
    status = files.write_new(scratch, job.to_bytes(), sync=True)
    try:
        with mover.index.moving(PENDING):
            if not _exchange(scratch, path):
                # Nothing here can do it in one step. Workers take jobs under the index's lock, which we hold.
                if not _is_same(os.lstat(path), was):
                    raise just_changed(row)
                files.replace(path, job.to_bytes())
                status = os.stat(path)
            elif not _is_same(os.lstat(scratch), was):
                with suppress(FileNotFoundError):  # taken in the meantime: then it runs as we made it
                    _exchange(scratch, path)
                raise just_changed(row)
            now = micros(mover.now())
            # What could not run before has not waited.
            arrived = now if row.held and not job.hold else row.arrived
            new = row_of(job, PENDING, row.name, status, state=job.state, arrived=arrived, now=now)
            new.ours = 1
            mover.index.put(new)
    finally:
        with suppress(OSError):
            os.unlink(scratch)
    files.sync_folder(mover.layout.pending)


def _is_same(status: os.stat_result, was: os.stat_result) -> bool:
    return (status.st_ino, status.st_mtime_ns, status.st_size) == (was.st_ino, was.st_mtime_ns, was.st_size)


def _exchange(one: str, other: str) -> bool:
    """Let two files change places; False where the kernel or the filesystem cannot do that.

    Raises:
        FileNotFoundError: one of them is gone; nothing changed.
    """
    if not sys.platform.startswith("linux"):
        return False
    if files._renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _EXCHANGE) == 0:
        return True
    code = libc.last_error()
    if code in files._NOT_HERE:
        return False
    raise OSError(code, os.strerror(code), one, None, other)
