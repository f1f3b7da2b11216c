"""Change a waiting job's file, in one step that no claim and no other hand can fall into.

The new file and the old one change places (renameat2 with EXCHANGE), which fails if the old one is gone: a job that a
worker takes meanwhile runs as it was, and never comes to lie in two places. What came out is looked at: if it is not
the file that was read, it goes back.
"""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress

from queuectl.errors import InvalidJob, KeyTaken, MoveError, SpoolError
from queuectl.index.row import accept_as_indexed, row_of
from queuectl.job import record as jobs
from queuectl.job.fields import WAITING
from queuectl.job.times import micros
from queuectl.layout import PENDING
from queuectl.system import files, safe_open

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any

    from queuectl.config.settings import Settings
    from queuectl.index.row import Row
    from queuectl.job.record import Job
    from queuectl.storage.mover import Mover
    from queuectl.storage.operator_moves import HandMoves


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
        data, was = safe_open.read_regular(path, jobs.READ_LIMIT)
        if safe_open.has_other_owner(was):
            # Written anew it would be ours, and run.
            raise safe_open.NotReadable(f"belongs to another user (uid {was.st_uid})")
        now = _as_it_runs(jobs.parse(data), row)
        wanted = change(data, now)
        if wanted is None:
            return now
        wanted.state, wanted.updated_at = wanted.waiting_state, mover.now()
        _land(mover, row, path, files.fingerprint(was), wanted)
    except safe_open.NotReadable as error:
        raise InvalidJob(str(error)) from None
    except FileNotFoundError:
        raise just_changed(row.id) from None
    except OSError as error:
        raise SpoolError.from_os("change", path, error) from None
    return wanted


def set_hold(mover: Mover, row: Row, *, hold: bool, past: str) -> bool:
    """Hold or release a waiting job; False when it is so already.

    Raises:
        MoveError, InvalidJob, SpoolError: as for amend.
    """
    changed = False

    def change(_: bytes, job: Job) -> Job | None:
        nonlocal changed
        changed = job.hold != hold
        job.hold = hold
        return job if changed else None

    amend(mover, row, change, past)
    return changed


def set_fields(mover: Mover, row: Row, changes: Mapping[str, Any], settings: Settings) -> Job:
    """Change fields of a waiting or dead job; None takes one away, so that the settings decide.

    Raises:
        MoveError, InvalidJob, SpoolError: as for amend.
        KeyTaken: another job has the unique key.
    """
    from queuectl.job.changes import changed

    if row.state == "dead":
        before = mover.read_dead(row)
        return mover.amend(row, before, changed(before, changes).to_bytes())

    def change(_: bytes, job: Job) -> Job:
        wanted = changed(job.to_bytes(), changes)
        if not changes.keys().isdisjoint(("run_at", "expires_at")):
            wanted.check_expiry()
        if "run_at" in changes and job.next_retry_at is not None:
            wanted.next_retry_at = wanted.run_at or mover.now()  # it is what such a job waits for
        return _settled(wanted, settings)

    with _key(mover, row, changes.get("unique")):
        return amend(mover, row, change, "changed")


def replace(mover: Mover, row: Row, before: bytes, after: bytes, settings: Settings) -> Job:
    """Put another file in the place of a waiting job's, if that is still as it was.

    Raises:
        MoveError, InvalidJob, SpoolError: as for amend.
        KeyTaken: another job has the unique key.
    """
    wanted = jobs.parse(after)
    wanted.id = wanted.id or row.id
    if wanted.id != row.id:
        raise InvalidJob("cannot be changed: it names the job's files", field="id")

    def change(data: bytes, _: Job) -> Job:
        if data != before:
            raise just_changed(row.id)
        return _settled(wanted, settings)

    with _key(mover, row, wanted.unique):
        return amend(mover, row, change, "changed")


def _settled(job: Job, settings: Settings) -> Job:
    job.fill_in(settings)
    return job


@contextmanager
def _key(mover: Mover, row: Row, key: str | None) -> Iterator[None]:
    """See that no other job has the unique key that this one gets.

    Raises:
        KeyTaken: one has.
    """
    if key is None or key == row.unique_key:
        yield
        return
    with mover.keys.deciding():
        others = [other for other in mover.keys.of(key) if other.id != row.id]
        if others:
            raise KeyTaken(key, others[0].id, others[0].state)
        yield


def _as_it_runs(job: Job, row: Row) -> Job:
    """The job with what was settled when it was accepted."""
    job.id = job.id or row.id
    if job.id != row.id:
        raise just_changed(row.id)
    if job.state in ("completed", "dead"):
        job.renew(row.arrived / 1e6)
    accept_as_indexed(job, row)
    return job


def just_changed(job_id: str) -> MoveError:
    """The refusal of a change that came too late."""
    return MoveError(
        f"job {job_id!r} has just been taken, moved or changed by somebody else; nothing was done to it",
        hint=f"queuectl show {job_id}",
    )


def _land(mover: HandMoves, row: Row, path: str, was: files.Fingerprint, job: Job) -> None:
    data = job.to_bytes()
    limit = jobs.READ_LIMIT // 2 if job.runs else jobs.SIZE_LIMIT
    if len(data) > limit:
        raise InvalidJob(f"too large: {len(data)} bytes, and the limit is {limit}")
    scratch = os.path.join(mover.layout.tmp, files.temporary_name())
    status = files.write_new(scratch, data, sync=True)
    try:
        with mover.index.moving(PENDING):
            if not files.exchange(scratch, path):
                # Nothing here can do it in one step. Workers take jobs under the index's lock, if we hold that.
                if not mover.index.in_transaction or files.fingerprint(os.lstat(path)) != was:
                    raise just_changed(row.id)
                files.replace(path, data)
                status = os.stat(path)
            elif files.fingerprint(os.lstat(scratch)) != was:
                with suppress(FileNotFoundError):  # taken in the meantime: then it runs as we made it
                    files.exchange(scratch, path)
                raise just_changed(row.id)
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
