"""Run jobs again by a person's order: dead and completed ones from the beginning, failed ones now instead of later."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from queuectl.errors import JobNotFound, MoveError, QueuectlError
from queuectl.job.changes import changed
from queuectl.job.fields import WAITING
from queuectl.job.record import READ_LIMIT
from queuectl.storage import bulk_moves, edit_pending
from queuectl.storage.transitions import check
from queuectl.system import safe_open

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    from queuectl.api.queries import Queries
    from queuectl.index.row import Row
    from queuectl.job.record import Job

RETRIED = ("failed", "completed", "dead")
"""The states of jobs that can be retried."""


def retry_all(
    spool: Queries,
    ids: Iterable[str],
    changes: Mapping[str, Any],
    tell: Callable[[str, Job | QueuectlError], None],
) -> None:
    """Retry these jobs; those that are dead or completed with one wait for the disk.

    Args:
        tell: called with each id and the job as it waits now, or the error that kept it from being retried.
    """
    rows = _found(spool, ids, tell)
    moved, refused = bulk_moves.requeue_all(
        spool._storage, [row for row in rows if row.state not in WAITING], changes
    )
    for row in rows:
        if row.state in WAITING:
            try:
                tell(row.id, _try_now(spool, row, changes))
            except QueuectlError as error:
                tell(row.id, error)
        else:
            tell(row.id, refused.get(row.id) or moved[row.id])


def check_retry(spool: Queries, job_id: str, changes: Mapping[str, Any]) -> Job:
    """Return the job as a retry would make it, and change nothing.

    Raises:
        QueuectlError: a retry would be refused, and why.
    """
    row = spool.row(job_id)
    path = os.path.join(spool.layout.root, row.place, row.name)
    try:
        if row.state not in WAITING:
            return bulk_moves.renewed(spool._storage, row, changes).job
        _refuse_waiting(row)
        return changed(safe_open.read_regular(path, READ_LIMIT)[0], changes)
    except (safe_open.NotReadable, OSError) as error:
        raise bulk_moves.in_words("move back", row, error) or error from None


def _found(spool: Queries, ids: Iterable[str], tell: Callable[[str, Job | QueuectlError], None]) -> list[Row]:
    ids = list(dict.fromkeys(ids))
    spool._mirror()
    rows = spool._ask(lambda: spool._index.rows_of(ids))
    for job_id in ids:
        if job_id not in rows:
            tell(job_id, JobNotFound(job_id))
    return [rows[job_id] for job_id in ids if job_id in rows]


def _try_now(spool: Queries, row: Row, changes: Mapping[str, Any]) -> Job:
    """Let a failed job be tried again now. Its attempts still count."""
    _refuse_waiting(row)
    return edit_pending.try_now(spool._storage, row, changes, spool.settings())


def _refuse_waiting(row: Row) -> None:
    """Refuse to retry a job that has not failed, or that is held.

    Raises:
        MoveError: it is such a job.
    """
    if row.state != "failed":
        check("requeue", row.id, row.state, "pending")
    if row.held:
        raise MoveError(f"job {row.id!r} is held, and is not tried again", hint=f"queuectl release {row.id}")
