"""What lists and trees ask about jobs that wait for jobs: see `dependencies` for the tables."""

from __future__ import annotations

from queuectl.index.dependencies import BLOCKED
from queuectl.job.conditions import Condition, Verdict

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from queuectl.index.index import Index
    from queuectl.index.row import Row


def condition(entry: Sequence[Any]) -> Condition:
    """Return a condition as it was stored."""
    parent, kind, least, dies = entry
    return Condition(parent, kind, least, bool(dies))


def conditions(row: Row) -> list[Condition]:
    """Return all conditions of a job, also of one that is over."""
    import json

    return [] if row.conditions is None else [condition(entry) for entry in json.loads(row.conditions)]


def unmet(index: Index, row: Row) -> list[Condition]:
    """Return the conditions that keep a job waiting."""
    query = "SELECT parent, kind, least, dies FROM waits WHERE seq = ? AND verdict = ? ORDER BY rowid"
    return [condition(entry) for entry in index.db.execute(query, (row.seq, Verdict.WAIT))]


def all_blocked(index: Index) -> set[str]:
    """Return the ids of all blocked jobs, see `Index.count_blocked`."""
    if not index.has_waits():
        return set()
    return {job_id for (job_id,) in index.db.execute(f"SELECT id FROM jobs WHERE seq IN ({BLOCKED})")}


def children(index: Index, name: str, limit: int) -> tuple[list[tuple[str, str]], int]:
    """Return which jobs that wait or run name this job, or this batch like batch:parts.

    Returns:
        of the first ones the kind of the condition and the id, and how many there are.
    """
    named = "FROM waits JOIN jobs USING (seq) WHERE parent = ?"
    found = index.db.execute(f"SELECT kind, id {named} ORDER BY seq LIMIT ?", (name, limit)).fetchall()
    if len(found) < limit:
        return found, len(found)
    return found, index.db.execute(f"SELECT count(*) {named}", (name,)).fetchone()[0]


def waiting_for(index: Index, names: Sequence[str]) -> list[str]:
    """Return the ids of the jobs that still wait for one of these jobs or batches, each once, in the order of arrival."""
    marks = ", ".join("?" * len(names))
    query = f"""SELECT DISTINCT id FROM waits JOIN jobs USING (seq) WHERE parent IN ({marks})
        AND verdict = ? AND state IN ('pending', 'failed') ORDER BY jobs.seq"""
    return [job_id for (job_id,) in index.db.execute(query, (*names, Verdict.WAIT))]


def members(index: Index, batch: str, limit: int) -> list[str]:
    """Return the ids of the first jobs of a batch that do not wait for it themselves: dead ones, then those not over."""
    order = "CASE state WHEN 'dead' THEN 0 WHEN 'completed' THEN 2 ELSE 1 END, seq"
    query = f"SELECT id FROM jobs WHERE batch = ? AND member IS NOT NULL ORDER BY {order} LIMIT ?"
    return [job_id for (job_id,) in index.db.execute(query, (batch, limit))]


def waiting(index: Index, limit: int) -> tuple[list[Row], set[str]]:
    """Return the jobs that wait for others and are not held, blocked ones first, each group in the order of arrival.

    Returns:
        the first ones, and the ids of all blocked jobs.
    """
    if not index.has_waits():
        return [], set()
    blocked = all_blocked(index)
    query = """SELECT id FROM children JOIN jobs USING (seq) WHERE unmet > 0 AND decided = 0 AND NOT hold
        AND state IN ('pending', 'failed') ORDER BY seq"""
    first: list[str] = []
    others: list[str] = []
    for (job_id,) in index.db.execute(query):
        (first if job_id in blocked else others).append(job_id)
    shown = (first + others)[:limit]
    rows = index.rows_of(shown)
    return [rows[job_id] for job_id in shown], blocked
