"""The batches that jobs have: their names, and how many jobs of each are in which state; from the index.

The answers come from the SQL index of batches and states alone, and from numbers that are kept of a large spool: to count
a million jobs in a thousand batches takes 0.15 s.
"""

from __future__ import annotations

from queuectl.index.dependencies import BLOCKED
from queuectl.index.statistics import COUNT_ABOVE, COUNT_BATCHES
from queuectl.job.fields import WAITING

TYPE_CHECKING = False
if TYPE_CHECKING:
    from queuectl.index.queries import Queries

_STATES = "SELECT batch, state, count(*) FROM jobs WHERE {0} GROUP BY batch, state"
_KEPT = "SELECT name, state, n FROM batch_states WHERE {0} AND n > 0"
_NAMES = """WITH RECURSIVE found(one) AS (
    SELECT min(batch) FROM jobs WHERE batch IS NOT NULL AND batch >= ?
    UNION ALL SELECT (SELECT min(batch) FROM jobs WHERE batch IS NOT NULL AND batch > one) FROM found
        WHERE one IS NOT NULL)
    SELECT one FROM found WHERE one IS NOT NULL LIMIT ?"""
"""Jumps from each name to the next one: a batch of a million jobs costs no more than one of ten."""

_FIRST_READ = 100
"""Jobs of a batch, in the order of their arrival, among which old ones are looked for: `enqueue` asks at each job."""


def states(index: Queries, name: str | None = None) -> dict[str, dict[str, int]]:
    """Return how many jobs of each batch are in which state, or of one batch."""
    if index.has("batch_states_done", COUNT_BATCHES, above=COUNT_ABOVE):
        query = _KEPT.format("1" if name is None else "name = ?")
    else:
        query = _STATES.format("batch IS NOT NULL" if name is None else "batch = ?")
    found: dict[str, dict[str, int]] = {}
    for batch, state, number in index.db.execute(query, () if name is None else (name,)):
        found.setdefault(batch, {})[state] = number
    return found


def blocked(index: Queries, name: str | None = None) -> dict[str, int]:
    """Return how many jobs of each batch are blocked, or of one batch; batches without such jobs are left out."""
    if not index.has_waits():
        return {}
    chosen = "batch IS NOT NULL" if name is None else "batch = ?"
    query = f"SELECT batch, count(*) FROM jobs WHERE {chosen} AND seq IN ({BLOCKED}) GROUP BY batch"
    return dict(index.db.execute(query, () if name is None else (name,)).fetchall())


def has_blocked(index: Queries, name: str) -> bool:
    """Return whether a job of a batch is blocked that does not wait for the batch itself."""
    query = f"""SELECT EXISTS (SELECT 1 FROM jobs WHERE batch = ? AND member IS NOT NULL AND state IN {WAITING}
        AND seq IN ({BLOCKED}))"""
    return bool(index.db.execute(query, (name,)).fetchone()[0])


def names(index: Queries, beginning: str, limit: int) -> list[str]:
    """Return names of batches that begin with a text, sorted."""
    found = [name for (name,) in index.db.execute(_NAMES, (beginning, limit))]
    return [name for name in found if name.startswith(beginning)]


def ended_before(index: Queries, name: str, moment: int) -> list[str]:
    """Return the ids of jobs of a batch that ended before a moment, in microseconds: among the first that arrived."""
    query = (
        """SELECT id, finished_at, updated_at FROM jobs WHERE batch = ? AND state = ? ORDER BY seq LIMIT ?"""
    )
    return [
        job_id
        for state in ("completed", "dead")
        for job_id, finished, updated in index.db.execute(query, (name, state, _FIRST_READ))
        if (finished or updated or moment) < moment
    ]
