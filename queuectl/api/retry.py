"""Run jobs again by a person's order: dead and completed ones from the beginning, failed ones now instead of later."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from queuectl.api import listing
from queuectl.api.listing import RETRIED
from queuectl.config.settings import JobDefaults, Settings
from queuectl.errors import JobNotFound, MoveError, QueuectlError
from queuectl.index.row import BY_HAND
from queuectl.job.changes import changed
from queuectl.job.fields import WAITING
from queuectl.job.outcome import CANCELLED
from queuectl.job.record import READ_LIMIT, check_size
from queuectl.storage import bulk_moves, edit_pending
from queuectl.storage.rewriting import in_words
from queuectl.storage.transitions import check
from queuectl.storage.unique_keys import REPLACED
from queuectl.system import safe_open

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    from queuectl.api import row as shown
    from queuectl.api.spool_base import SpoolBase
    from queuectl.index.filter import Filter
    from queuectl.index.row import Row
    from queuectl.job.record import Job


LEFT_OUT = {
    REPLACED: "a newer job replaced them; to retry one, name it",
    CANCELLED: f"somebody cancelled them; to retry one, name it, or use --reason {CANCELLED.lower()}",
    BY_HAND: "somebody moved them to dead/; to retry one, name it",
}
"""The beginnings of the last errors of jobs that filters do not retry, and why not."""


def given_up(rows: Iterable[Row | shown.Row]) -> dict[str, set[str]]:
    """Return the jobs that a person does not want to run: who retries failed jobs must not bring those back.

    Returns:
        ids of held jobs under "held", and others under the key of LEFT_OUT that says why.
    """
    found: dict[str, set[str]] = {}
    for row in rows:
        keys = [key for key in LEFT_OUT if (row.last_error or "").startswith(key)]
        for key in ["held"] if row.held else keys:
            found.setdefault(key, set()).add(row.id)
    return found


def chosen(spool: SpoolBase, ids: Iterable[str] | Filter, where: Filter | None) -> list[str]:
    """Return the ids of the jobs that `Spool.retry_many` is about.

    Raises:
        TypeError, ValueError: as for listing.chosen.
    """
    found = listing.chosen(spool, ids, where, "retried", RETRIED, ("failed", "dead"))
    which = ids if where is None else where
    if getattr(which, "reason", "named") is not None:
        return found  # they were named, or selected by what was said when they were given up
    left_out = set().union(*given_up(spool._rows(found).values()).values())
    return [job_id for job_id in found if job_id not in left_out]


def retry_all(
    spool: SpoolBase,
    ids: Iterable[str],
    changes: Mapping[str, Any],
    tell: Callable[[str, Job | QueuectlError], None],
) -> None:
    """Retry these jobs; those that are dead or completed with one wait for the disk.

    Args:
        tell: called with each id and the job as it waits now, or the error that kept it from being retried.
    """
    rows = _found(spool, ids, tell)
    failed: list[Row] = []
    for row in rows:
        try:
            failed += [_checked_waiting(row)] if row.state in WAITING else []
        except MoveError as error:
            tell(row.id, error)
    ended = [row for row in rows if row.state not in WAITING]
    settings = spool.settings() if failed else Settings()
    defaults = JobDefaults(spool.layout, settings)
    tried, kept = edit_pending.try_all_now(spool._storage, failed, changes, defaults)
    moved, refused = bulk_moves.requeue_all(spool._storage, ended, changes)
    results: dict[str, Job | QueuectlError] = {**tried, **kept, **moved, **refused}
    for row in (*failed, *ended):
        tell(row.id, results[row.id])


def check_retry(spool: SpoolBase, job_id: str, changes: Mapping[str, Any]) -> Job:
    """Return the job as a retry would make it, and change nothing.

    Raises:
        QueuectlError: a retry would be refused, and why.
    """
    row = listing.one(spool, job_id)
    path = os.path.join(spool.layout.root, row.place, row.name)
    try:
        if row.state not in WAITING:
            return bulk_moves.renewed(spool._storage, row, changes).job
        _checked_waiting(row)
        job = changed(safe_open.read_regular(path, READ_LIMIT)[0], changes)
        check_size(job)
        return job
    except (safe_open.NotReadable, OSError) as error:
        raise in_words("move back", row, error) or error from None


def _found(
    spool: SpoolBase, ids: Iterable[str], tell: Callable[[str, Job | QueuectlError], None]
) -> list[Row]:
    ids = list(dict.fromkeys(ids))
    spool._mirror()
    rows = spool._ask(lambda: spool._index.rows_of(ids))
    for job_id in ids:
        if job_id not in rows:
            tell(job_id, JobNotFound(job_id))
    return [rows[job_id] for job_id in ids if job_id in rows]


def _checked_waiting(row: Row) -> Row:
    """Return a waiting job that can be tried now instead of later.

    Raises:
        MoveError: it has not failed, or it is held.
    """
    if row.state != "failed":
        check("requeue", row.id, row.state, "pending")
    if row.held:
        raise MoveError(f"job {row.id!r} is held, and is not tried again", hint=f"queuectl release {row.id}")
    return row
