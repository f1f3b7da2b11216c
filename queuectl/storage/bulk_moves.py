"""Move many jobs by a person's order: give up waiting ones, and send dead or completed ones back to pending/.

See `rewriting` for how the disk is waited for, and what one job that refuses does to the others: nothing.
"""

from __future__ import annotations

import os
from contextlib import suppress
from functools import partial

from queuectl.errors import MoveError, QueuectlError
from queuectl.index.row import row_of
from queuectl.job import record as jobs
from queuectl.job.times import micros
from queuectl.layout import DEAD, DONE, PENDING
from queuectl.storage import locate
from queuectl.storage.rewriting import Change, Rewriting, checked, job_in, just_moved, read_own
from queuectl.storage.transitions import check
from queuectl.system import files, safe_open

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from queuectl.index.freshness import OwnChanges
    from queuectl.index.row import Row
    from queuectl.job.record import Job
    from queuectl.storage.transitions import Storage


# -- give up ---------------------------------------------------------------------------------------------------------------


def bury_all(
    storage: Storage, rows: Sequence[Row], reason: str, *, if_still: Callable[[Job], bool] = lambda _: True
) -> dict[str, QueuectlError]:
    """Move waiting jobs to dead/. When this returns, the moves survive a power cut.

    Args:
        rows: the last one in the line should come first: workers claim from the other end.
        if_still: given a job as its file says it now; returns whether the reason still applies.

    Returns:
        the jobs that were not moved, by id, and why: MoveError: it does not wait, a worker has just claimed it,
        somebody has just changed it, or the reason does not apply any more. InvalidJob: its file is not a valid job any
        more. SpoolError: the disk refused. Each of them is where it was.
    """

    def prepare(row: Row) -> Change:
        check("bury", row.id, row.state, "dead")
        path = os.path.join(storage.layout.pending, row.name)
        data, status = safe_open.read_regular(path, jobs.READ_LIMIT)
        job = job_in(data, status, row)
        if not if_still(job):
            raise just_moved(row.id)
        job.id, job.state, job.last_error = row.id, "dead", reason
        job.hold = False  # or it would still be held after a requeue
        job.updated_at = storage.now()
        return Change(row, job, path, files.fingerprint(status), job.to_bytes())

    work = Rewriting(storage, "give up")
    if not storage.read_only:
        work.run(rows, prepare, partial(_move_to_dead, storage), moving=[DEAD], synced=[DEAD])
    return work.refused


def _move_to_dead(storage: Storage, change: Change, ours: OwnChanges) -> Row:
    row, job, folder = change.row, change.job, storage.layout.dead
    with ours:
        name = files.move_to_free_name(change.path, folder, f"{row.id}.json")
    target = os.path.join(folder, name)
    try:
        if change.was_changed(target):
            raise just_moved(row.id)
        files.rename_over(change.scratch, target)
    except (OSError, MoveError):
        # A refusal means that nothing was done: the job waits again.
        files.move_to_free_name(target, storage.layout.pending, row.name)
        raise
    now, status = micros(storage.now()), change.status or os.stat(target)
    new = row_of(job, DEAD, name, status, state="dead", arrived=row.arrived, now=now)
    new.ours, new.seq = 1, row.seq
    return new


# -- send back -------------------------------------------------------------------------------------------------------------


def requeue_all(
    storage: Storage, rows: Sequence[Row], changes: Mapping[str, Any]
) -> tuple[dict[str, Job], dict[str, QueuectlError]]:
    """Move dead and completed jobs back to pending/ with fresh attempts; their histories stay.

    Args:
        changes: fields to change in each of them, by name.

    Returns:
        the jobs by their old ids, and those that were not moved, with the reason. MoveError: it is neither dead nor
        completed, or somebody has just moved it. InvalidJob: the file is not a valid job, or a change is wrong.
        DuplicateId: the file is a valid job now, but another job has its id. SpoolError: the disk refused.
    """
    moved: dict[str, Change] = {}

    def put(change: Change, ours: OwnChanges) -> Row | None:
        new = _move_to_pending(storage, change, ours)
        moved[change.row.id] = change
        return new

    work = Rewriting(storage, "move back")
    places = sorted({row.place for row in rows if row.place in (DEAD, DONE)})
    work.run(
        rows,
        partial(renewed, storage, changes=changes),
        put,
        # In one transaction, or two processes that requeue a job at once would make two jobs of it.
        moving=[DEAD, DONE],
        synced=[PENDING, *places],
        at_the_end=True,
    )
    for change in moved.values():
        if change.row.place == DEAD:
            with suppress(OSError):
                os.unlink(change.path + ".reason")
    return {
        job_id: change.job for job_id, change in moved.items() if job_id not in work.refused
    }, work.refused


def renewed(storage: Storage, row: Row, changes: Mapping[str, Any]) -> Change:
    """Return a dead or completed job as it will be in pending/. Nothing is written.

    Raises:
        MoveError, InvalidJob, DuplicateId: it cannot be sent back.
        safe_open.NotReadable, OSError: its file cannot be read.
    """
    from queuectl.job.changes import changed

    check("requeue", row.id, row.state, "pending")
    source = os.path.join(storage.layout.root, row.place, row.name)
    data, status = read_own(source)
    job = changed(data, changes) if changes else job_in(data, status, row)
    job.id = job.id or row.id
    if job.id != row.id:
        locate.refuse_taken(storage, job.id)
    job.renew(storage.now())  # an expired job may run again
    job.check_expiry()
    job.updated_at = storage.now()
    return checked(row, job, source, status)


def _move_to_pending(storage: Storage, change: Change, ours: OwnChanges) -> Row | None:
    row, job = change.row, change.job
    if change.was_changed(change.path):
        raise just_moved(row.id)
    if job.id != row.id:
        locate.refuse_taken(storage, job.id or "")
    # First changed in place, then moved, so that there are never two files.
    files.rename_over(change.scratch, change.path)
    with ours:
        name = files.move_to_free_name(change.path, storage.layout.pending, f"{job.id}.json")
    if row.id != job.id:
        storage.index.drop(row.id)
    if job.needs_settings:
        # It was buried before the settings were copied onto it. The intake does that, as for any dropped file.
        storage.index.drop(job.id)
        if storage.index.usable:
            storage.index.mark_stale(PENDING)
        return None
    now = micros(storage.now())
    status = change.status or os.stat(os.path.join(storage.layout.pending, name))
    new = row_of(job, PENDING, name, status, state="pending", arrived=now, now=now)
    new.ours = 1
    return new
