"""Edit a waiting job's file in one atomic step (compare and swap), so that no claim and no other edit is lost.

renameat2 with EXCHANGE swaps the new file and the old one. It fails if the old one is gone: a job that a worker claims
meanwhile runs as it was, and never lies in two places. If the file that was swapped out is not the one that was read,
the two are swapped back.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import contextmanager, suppress

from queuectl._dataclasses import dataclass
from queuectl.errors import InvalidJob, KeyTaken, MoveError, QueuectlError, SpoolError
from queuectl.index.row import accept_as_indexed, last_in_line_first, row_of
from queuectl.job import record as jobs
from queuectl.job.fields import WAITING
from queuectl.job.times import micros
from queuectl.layout import PENDING
from queuectl.storage import bulk_moves, dead_letters
from queuectl.storage.bulk_moves import AT_ONCE
from queuectl.system import files, safe_open

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any

    from queuectl.config.settings import Settings
    from queuectl.index.row import Row
    from queuectl.job.record import Job
    from queuectl.storage.transitions import Storage


Change = Callable[[bytes, "Job"], "Job | None"]
"""Given the file's bytes and the job as it would run now: the new job, or None for no change."""


@dataclass(slots=True)
class _Edit:
    """One change on its way.

    Attributes:
        was: the fingerprint of the file that was read.
        scratch: the new file, and its status; empty until it is written.
    """

    row: Row
    path: str
    was: files.Fingerprint
    job: Job
    scratch: str = ""
    status: os.stat_result | None = None


def edit(storage: Storage, row: Row, change: Change, past: str) -> Job:
    """Change a waiting job. When this returns, the change survives a power cut.

    Args:
        past: the verb for a refusal, as in "job 'job1' is dead and cannot be held".

    Returns:
        the job as it is now.

    Raises:
        MoveError: it is not waiting, or somebody has just claimed, moved or changed it; nothing was done.
        InvalidJob: the file is not a valid job any more, or belongs to another user.
        SpoolError: the disk refused; nothing was done.
    """
    edited, refused = edit_all(storage, [row], change, past)
    for error in refused.values():
        raise error
    return edited[row.id]


def edit_all(
    storage: Storage, rows: Sequence[Row], change: Change, past: str
) -> tuple[dict[str, Job], dict[str, QueuectlError]]:
    """Change waiting jobs, with one wait for the disk before the changes and one after them.

    In between all are changed in one transaction, from the end of the line: workers claim from the other end.

    Args:
        past: as for `edit`.

    Returns:
        the jobs as they are now, and the errors of those that were not changed, as for `edit`; both by id.
    """
    edited: dict[str, Job] = {}
    refused: dict[str, QueuectlError] = {}
    rows = last_in_line_first(rows)
    for start in range(0, len(rows), AT_ONCE):
        edits = []
        for row in rows[start : start + AT_ONCE]:
            with _refusals(refused, row):
                now, one = _prepared(storage, row, change, past)
                edited[row.id] = now
                edits += [one] if one else []
        _carry_out(storage, edits, refused)
    return {job_id: job for job_id, job in edited.items() if job_id not in refused}, refused


def _prepared(storage: Storage, row: Row, change: Change, past: str) -> tuple[Job, _Edit | None]:
    """Return a job as it will be, and the edit that makes it so; None if nothing changes."""
    if row.state not in WAITING:
        hint = f"queuectl cancel {row.id}" if row.state == "processing" else f"queuectl show {row.id}"
        raise MoveError(f"job {row.id!r} is {row.state} and cannot be {past}", hint=hint)
    path = os.path.join(storage.layout.root, PENDING, row.name)
    data, was = bulk_moves.read_own(path)
    now = _as_it_runs(jobs.parse(data), row)
    wanted = change(data, now)
    if wanted is None:
        return now, None
    wanted.state, wanted.updated_at = wanted.waiting_state, storage.now()
    jobs.check_size(wanted, len(wanted.to_bytes()))
    return wanted, _Edit(row, path, files.fingerprint(was), wanted)


def _carry_out(storage: Storage, edits: Sequence[_Edit], refused: dict[str, QueuectlError]) -> None:
    if not edits:
        return
    try:
        for one in edits:
            path = os.path.join(storage.layout.tmp, files.temporary_name())
            one.status = files.write_new(path, one.job.to_bytes(), sync=len(edits) == 1)
            one.scratch = path
        if len(edits) > 1:
            files.sync_files(storage.layout.tmp, [one.scratch for one in edits])
        with storage.index.moving():
            for one in edits:
                with _refusals(refused, one.row), storage.index.own_change(PENDING):
                    _swap_in(storage, one)
        files.sync_folder(storage.layout.pending)
    except OSError as error:
        for one in edits:
            refused.setdefault(one.row.id, SpoolError.from_os("change", one.path, error))
    finally:
        for one in edits:
            with suppress(OSError):
                os.unlink(one.scratch)


@contextmanager
def _refusals(refused: dict[str, QueuectlError], row: Row) -> Iterator[None]:
    """Keep the refusal of one job among the others, in words."""
    try:
        yield
    except QueuectlError as error:
        refused[row.id] = error
    except safe_open.NotReadable as error:
        refused[row.id] = InvalidJob(str(error))
    except FileNotFoundError:
        refused[row.id] = just_changed(row.id)
    except OSError as error:
        refused[row.id] = SpoolError.from_os("change", os.path.join(row.place, row.name), error)


def set_hold(
    storage: Storage, rows: Sequence[Row], *, hold: bool, past: str
) -> tuple[dict[str, bool], dict[str, QueuectlError]]:
    """Hold or release waiting jobs.

    Returns:
        for each job whether it was changed, and the errors of those that were refused, as for `edit`; both by id.
    """
    changed = set()

    def change(_: bytes, job: Job) -> Job | None:
        if job.hold == hold:
            return None
        changed.add(job.id)
        job.hold = hold
        return job

    held, refused = edit_all(storage, rows, change, past)
    return {job_id: job_id in changed for job_id in held}, refused


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


def try_now(storage: Storage, row: Row, changes: Mapping[str, Any], settings: Settings) -> Job:
    """Let a failed job be tried again now instead of later, with some fields changed.

    Raises:
        MoveError, InvalidJob, SpoolError: as for edit.
        KeyTaken: another job has the unique key.
    """
    from queuectl.job.changes import changed

    def change(_: bytes, job: Job) -> Job:
        wanted = changed(job.to_bytes(), changes)
        wanted.next_retry_at = storage.now()
        return _accepted(wanted, settings)

    with _key_free(storage, row, changes.get("unique")):
        return edit(storage, row, change, "retried")


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


def _swap_in(storage: Storage, one: _Edit) -> None:
    row, job, status = one.row, one.job, one.status or os.stat(one.scratch)
    if not files.exchange(one.scratch, one.path):
        # Neither the kernel nor the filesystem can swap. Then the write lock of the index keeps workers away.
        if not storage.index.in_transaction or files.fingerprint(os.lstat(one.path)) != one.was:
            raise just_changed(row.id)
        files.replace(one.path, job.to_bytes())
        status = os.stat(one.path)
    elif files.fingerprint(os.lstat(one.scratch)) != one.was:
        with suppress(FileNotFoundError):  # claimed meanwhile: then it runs as edited
            files.exchange(one.scratch, one.path)
        raise just_changed(row.id)
    now = micros(storage.now())
    # A held job has not waited: its waiting time starts now.
    arrived = now if row.held and not job.hold else row.arrived
    new = row_of(job, PENDING, row.name, status, state=job.state, arrived=arrived, now=now)
    new.ours = 1
    storage.index.put(new)
