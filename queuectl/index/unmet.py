"""What jobs still wait for, and which of them could succeed only once somebody has mended a dead job; from the index."""

from __future__ import annotations

from queuectl.index.dependencies import BLOCKED, FAILED
from queuectl.job.conditions import Condition, Verdict
from queuectl.job.fields import WAITING

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container

    from queuectl.index.queries import Queries


def conditions_of(index: Queries, job_id: str) -> list[Condition]:
    """Return the conditions of a waiting job that are not met."""
    query = """SELECT parent, kind, least, dies FROM waits
        WHERE seq = (SELECT seq FROM jobs WHERE id = ?) AND verdict = ?"""
    found = index.db.execute(query, (job_id, Verdict.WAIT))
    return [Condition(parent, kind, least, bool(dies)) for parent, kind, least, dies in found]


def waiting_parts(index: Queries, batch: str, limit: int) -> list[str]:
    """Return the ids of jobs of a batch that wait for others, but not for the batch itself."""
    query = f"""SELECT id FROM jobs JOIN children USING (seq)
        WHERE batch = ? AND member IS NOT NULL AND state IN {WAITING} LIMIT ?"""
    return [job_id for (job_id,) in index.db.execute(query, (batch, limit))]


def failed(index: Queries, ids: Container[str]) -> list[str]:
    """Return those of these jobs that wait for a dead job, or a batch with a dead job, be it through others."""
    if not index.has_waits():
        return []
    found = index.db.execute(f"SELECT id FROM jobs WHERE seq IN ({FAILED})")
    return [job_id for (job_id,) in found if job_id in ids]


def count_blocked(index: Queries, ids: Container[str]) -> int:
    """Return how many of these jobs are blocked, see `Queries.count_blocked`; there may be a hundred thousand."""
    if not index.has_waits():
        return 0
    found = index.db.execute(f"SELECT id FROM jobs WHERE seq IN ({BLOCKED})")
    return sum(job_id in ids for (job_id,) in found)
