"""Edit a waiting job's file in one atomic step (compare and swap), so that no claim and no other edit is lost.

renameat2 with EXCHANGE swaps the new file and the old one. It fails if the old one is gone: a job that a worker claims
meanwhile runs as it was, and never lies in two places. If the file that was swapped out is not the one that was read,
the two are swapped back.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import contextmanager, suppress
from functools import partial

from queuectl.errors import InvalidJob, KeyTaken, MoveError, QueuectlError
from queuectl.index.row import accept_as_indexed, last_in_line_first, row_of
from queuectl.job import record as jobs
from queuectl.job.fields import WAITING
from queuectl.job.times import micros
from queuectl.layout import PENDING
from queuectl.storage.rewriting import Change, Rewriting, checked, job_in, just_changed, read_own
from queuectl.system import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any

    from queuectl.config.settings import JobDefaults
    from queuectl.index.freshness import OwnChanges
    from queuectl.index.row import Row
    from queuectl.job.record import Job
    from queuectl.storage.transitions import Storage


Edit = Callable[[bytes, "Job"], "Job | None"]
"""Given the file's bytes and the job as it would run now: the new job, or None for no change."""


def edit(storage: Storage, row: Row, change: Edit, past: str) -> Job:
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
    storage: Storage, rows: Sequence[Row], change: Edit, past: str
) -> tuple[dict[str, Job], dict[str, QueuectlError]]:
    """Change waiting jobs, with one wait for the disk before the changes and one after them.

    In between they are changed from the end of the line: workers claim from the other end.

    Args:
        past: as for `edit`.

    Returns:
        the jobs as they are now, and the errors of those that were not changed, as for `edit`; both by id.
    """
    edited: dict[str, Job] = {}

    def prepare(row: Row) -> Change | None:
        edited[row.id], one = _prepared(storage, row, change, past)
        return one

    work = Rewriting(storage, "change", just_changed)
    work.run(last_in_line_first(rows), prepare, partial(_swap_in, storage), synced=[PENDING])
    return {job_id: job for job_id, job in edited.items() if job_id not in work.refused}, work.refused


def _prepared(storage: Storage, row: Row, change: Edit, past: str) -> tuple[Job, Change | None]:
    """Return a job as it will be, and the change that makes it so; None if nothing changes."""
    if row.state not in WAITING:
        hint = f"queuectl cancel {row.id}" if row.state == "processing" else f"queuectl show {row.id}"
        raise MoveError(f"job {row.id!r} is {row.state} and cannot be {past}", hint=hint)
    path = os.path.join(storage.layout.pending, row.name)
    data, was = read_own(path)
    now = _as_it_runs(job_in(data, was, row), row)
    wanted = change(data, now)
    if wanted is None:
        return now, None
    wanted.state, wanted.updated_at = wanted.waiting_state, storage.now()
    return wanted, checked(row, wanted, path, was)


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


def set_all(
    storage: Storage,
    rows: Sequence[Row],
    changes: Mapping[str, Any],
    defaults: JobDefaults,
    before: bytes | None = None,
) -> tuple[dict[str, Job], dict[str, QueuectlError]]:
    """Change fields of waiting jobs. None removes a field, so that the settings decide.

    Args:
        before: the content that their file must still have; None: whatever it has.

    Returns:
        as for `edit_all`. KeyTaken: another job has the unique key.
    """
    from queuectl.job.changes import changed_job

    def change(data: bytes, job: Job) -> Job:
        if before is not None and data != before:
            raise just_changed(job.id or "")
        wanted = changed_job(job, changes)
        if not changes.keys().isdisjoint(("run_at", "expires_at")):
            wanted.check_expiry()
        if any(name.startswith("after") for name in changes):
            from queuectl.storage import dependencies

            dependencies.refuse_unknown(storage, wanted, before=job)
            dependencies.refuse_ring(storage, wanted)
        if "run_at" in changes and job.next_retry_at is not None:
            wanted.next_retry_at = wanted.run_at or storage.now()  # a failed job waits for this moment
        return _accepted(wanted, defaults)

    return _edit_with_key(storage, rows, change, "changed", changes.get("unique"))


def try_all_now(
    storage: Storage, rows: Sequence[Row], changes: Mapping[str, Any], defaults: JobDefaults
) -> tuple[dict[str, Job], dict[str, QueuectlError]]:
    """Let failed jobs be tried again now instead of later, with some fields changed.

    Returns:
        as for `set_all`.
    """
    from queuectl.job.changes import changed_job

    def change(_: bytes, job: Job) -> Job:
        wanted = changed_job(job, changes)
        wanted.next_retry_at = storage.now()
        return _accepted(wanted, defaults)

    return _edit_with_key(storage, rows, change, "retried", changes.get("unique"))


def _edit_with_key(
    storage: Storage, rows: Sequence[Row], change: Edit, past: str, key: str | None
) -> tuple[dict[str, Job], dict[str, QueuectlError]]:
    """Change jobs, which all get this unique key, if any: one after the other, as each looks for the one before."""
    if key is None:
        return edit_all(storage, rows, change, past)
    edited: dict[str, Job] = {}
    refused: dict[str, QueuectlError] = {}
    for row in rows:
        try:
            with _key_free(storage, row, key):
                edited[row.id] = edit(storage, row, change, past)
        except QueuectlError as error:
            refused[row.id] = error
    return edited, refused


def replace(storage: Storage, row: Row, before: bytes, after: bytes, defaults: JobDefaults) -> Job:
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
        return _accepted(wanted, defaults)

    with _key_free(storage, row, wanted.unique):
        return edit(storage, row, change, "changed")


def _accepted(job: Job, defaults: JobDefaults) -> Job:
    job.fill_in(defaults.of(job.queue))
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


def _swap_in(storage: Storage, change: Change, ours: OwnChanges) -> Row:
    row, job, status = change.row, change.job, change.status or os.stat(change.scratch)
    with ours:
        if not files.exchange(change.scratch, change.path):
            # Neither the kernel nor the filesystem can swap. Then the write lock of the index keeps workers away.
            if not storage.index.in_transaction or change.was_changed(change.path):
                raise just_changed(row.id)
            files.replace(change.path, change.data)
            status = os.stat(change.path)
        elif change.was_changed(change.scratch):
            with suppress(FileNotFoundError):  # claimed meanwhile: then it runs as edited
                files.exchange(change.scratch, change.path)
            raise just_changed(row.id)
    now = micros(storage.now())
    # A held job has not waited: its waiting time starts now.
    arrived = now if row.held and not job.hold else row.arrived
    new = row_of(job, PENDING, row.name, status, state=job.state, arrived=arrived, now=now)
    new.ours, new.seq = 1, row.seq
    return new
