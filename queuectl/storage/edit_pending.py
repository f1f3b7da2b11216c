"""Edit a waiting job's file in one atomic step (compare and swap), so that no claim and no other edit is lost.

renameat2 with EXCHANGE swaps the new file and the old one. It fails if the old one is gone: a job that a worker claims
meanwhile runs as it was, and never lies in two places. If the file that was swapped out is not the one that was read,
the two are swapped back.
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
from queuectl.storage import dead_letters
from queuectl.system import files, safe_open

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any

    from queuectl.config.settings import Settings
    from queuectl.index.row import Row
    from queuectl.job.record import Job
    from queuectl.storage.transitions import Storage


def edit(storage: Storage, row: Row, change: Callable[[bytes, Job], Job | None], past: str) -> Job:
    """Change a waiting job. When this returns, the change survives a power cut.

    Args:
        change: given the file's bytes and the job as it would run now; returns the new job, or None for no change.
        past: the verb for a refusal, as in "job 'job1' is dead and cannot be held".

    Returns:
        the job as it is now.

    Raises:
        MoveError: it is not waiting, or somebody has just claimed, moved or changed it; nothing was done.
        InvalidJob: the file is not a valid job any more, or belongs to another user.
        SpoolError: the disk refused; nothing was done.
    """
    if row.state not in WAITING:
        hint = f"queuectl cancel {row.id}" if row.state == "processing" else f"queuectl show {row.id}"
        raise MoveError(f"job {row.id!r} is {row.state} and cannot be {past}", hint=hint)
    path = os.path.join(storage.layout.root, PENDING, row.name)
    try:
        data, was = safe_open.read_regular(path, jobs.READ_LIMIT)
        if safe_open.has_other_owner(was):
            # Rewritten by queuectl it would belong to this user, and run.
            raise safe_open.NotReadable(f"belongs to another user (uid {was.st_uid})")
        now = _as_it_runs(jobs.parse(data), row)
        wanted = change(data, now)
        if wanted is None:
            return now
        wanted.state, wanted.updated_at = wanted.waiting_state, storage.now()
        _swap_in(storage, row, path, files.fingerprint(was), wanted)
    except safe_open.NotReadable as error:
        raise InvalidJob(str(error)) from None
    except FileNotFoundError:
        raise just_changed(row.id) from None
    except OSError as error:
        raise SpoolError.from_os("change", path, error) from None
    return wanted


def set_hold(storage: Storage, row: Row, *, hold: bool, past: str) -> bool:
    """Hold or release a waiting job; return False if nothing changes.

    Raises:
        MoveError, InvalidJob, SpoolError: as for edit.
    """
    changed = False

    def change(_: bytes, job: Job) -> Job | None:
        nonlocal changed
        changed = job.hold != hold
        job.hold = hold
        return job if changed else None

    edit(storage, row, change, past)
    return changed


def set_fields(storage: Storage, row: Row, changes: Mapping[str, Any], settings: Settings) -> Job:
    """Change fields of a waiting or dead job. None removes a field, so that the settings decide.

    Raises:
        MoveError, InvalidJob, SpoolError: as for edit.
        KeyTaken: another job has the unique key.
    """
    from queuectl.job.changes import changed

    if row.state == "dead":
        before = dead_letters.read_dead(storage, row)
        return dead_letters.edit(storage, row, before, changed(before, changes).to_bytes())

    def change(_: bytes, job: Job) -> Job:
        wanted = changed(job.to_bytes(), changes)
        if not changes.keys().isdisjoint(("run_at", "expires_at")):
            wanted.check_expiry()
        if "run_at" in changes and job.next_retry_at is not None:
            wanted.next_retry_at = wanted.run_at or storage.now()  # a failed job waits for this moment
        return _accepted(wanted, settings)

    with _key_free(storage, row, changes.get("unique")):
        return edit(storage, row, change, "changed")


def replace(storage: Storage, row: Row, before: bytes, after: bytes, settings: Settings) -> Job:
    """Replace a waiting job's file if it still holds the bytes `before`.

    Raises:
        MoveError, InvalidJob, SpoolError: as for edit.
        KeyTaken: another job has the unique key.
    """
    wanted = jobs.parse(after)
    wanted.id = wanted.id or row.id
    if wanted.id != row.id:
        raise InvalidJob("cannot be changed: it names the job's files", field="id")

    def change(data: bytes, _: Job) -> Job:
        if data != before:
            raise just_changed(row.id)
        return _accepted(wanted, settings)

    with _key_free(storage, row, wanted.unique):
        return edit(storage, row, change, "changed")


def _accepted(job: Job, settings: Settings) -> Job:
    job.fill_in(settings)
    return job


@contextmanager
def _key_free(storage: Storage, row: Row, key: str | None) -> Iterator[None]:
    """Check that no other job has the unique key that this one gets.

    Raises:
        KeyTaken: one has.
    """
    if key is None or key == row.unique_key:
        yield
        return
    from queuectl.storage import unique_keys

    with unique_keys.locked(storage):
        others = [other for other in unique_keys.jobs_with(storage, key) if other.id != row.id]
        if others:
            raise KeyTaken(key, others[0].id, others[0].state)
        yield


def _as_it_runs(job: Job, row: Row) -> Job:
    """Return the job with the settings that were copied when it was accepted."""
    job.id = job.id or row.id
    if job.id != row.id:
        raise just_changed(row.id)
    if job.state in ("completed", "dead"):
        job.renew(row.arrived / 1e6)
    accept_as_indexed(job, row)
    return job


def just_changed(job_id: str) -> MoveError:
    """Return the refusal of a change that came too late."""
    return MoveError(
        f"job {job_id!r} has just been taken, moved or changed by somebody else; nothing was done to it",
        hint=f"queuectl show {job_id}",
    )


def _swap_in(storage: Storage, row: Row, path: str, was: files.Fingerprint, job: Job) -> None:
    data = job.to_bytes()
    limit = jobs.READ_LIMIT // 2 if job.runs else jobs.SIZE_LIMIT
    if len(data) > limit:
        raise InvalidJob(f"too large: {len(data)} bytes, and the limit is {limit}")
    scratch = os.path.join(storage.layout.tmp, files.temporary_name())
    status = files.write_new(scratch, data, sync=True)
    try:
        with storage.index.moving(PENDING):
            if not files.exchange(scratch, path):
                # Neither the kernel nor the filesystem can swap. Then the write lock of the index keeps workers away.
                if not storage.index.in_transaction or files.fingerprint(os.lstat(path)) != was:
                    raise just_changed(row.id)
                files.replace(path, data)
                status = os.stat(path)
            elif files.fingerprint(os.lstat(scratch)) != was:
                with suppress(FileNotFoundError):  # claimed meanwhile: then it runs as edited
                    files.exchange(scratch, path)
                raise just_changed(row.id)
            now = micros(storage.now())
            # A held job has not waited: its waiting time starts now.
            arrived = now if row.held and not job.hold else row.arrived
            new = row_of(job, PENDING, row.name, status, state=job.state, arrived=arrived, now=now)
            new.ours = 1
            storage.index.put(new)
    finally:
        with suppress(OSError):
            os.unlink(scratch)
    files.sync_folder(storage.layout.pending)
