"""What lists and trees ask about jobs that wait for jobs: see `dependencies` for the tables."""

from __future__ import annotations

from queuectl.index.dependencies import BLOCKED, FAILED, IS_STOPPED, OBSTACLES
from queuectl.job.conditions import Condition, Verdict
from queuectl.job.fields import BATCH

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from queuectl.index.index import Index
    from queuectl.index.queries import Queries
    from queuectl.index.row import Row


_WAITS = "unmet > 0 AND decided = 0 AND NOT hold AND state IN ('pending', 'failed')"


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


def all_failed(index: Index) -> set[str]:
    """Return the ids of all jobs that wait for the success of a dead job, or of a batch with one, be it through others."""
    if not index.has_waits():
        return set()
    return {job_id for (job_id,) in index.db.execute(f"SELECT id FROM jobs WHERE seq IN ({FAILED})")}


def parts_with_parents(index: Index, batch: str, limit: int) -> list[str]:
    """Return the ids of jobs of a batch that wait for others, but not for the batch itself."""
    query = """SELECT id FROM jobs JOIN children USING (seq)
        WHERE batch = ? AND member IS NOT NULL AND state IN ('pending', 'failed') LIMIT ?"""
    return [job_id for (job_id,) in index.db.execute(query, (batch, limit))]


def above(index: Index, name: str, limit: int) -> list[str]:
    """Return what a job has waited for, or the jobs of a batch that wait for others, like batch:parts.

    A job that runs does not begin to wait for the batch again when another one joins it.
    """
    if name.startswith(BATCH):
        return parts_with_parents(index, name.removeprefix(BATCH), limit)
    query = """SELECT parent FROM waits JOIN jobs USING (seq)
        WHERE id = ? AND (parent NOT GLOB 'batch:*' OR state IN ('pending', 'failed'))"""
    return [parent for (parent,) in index.db.execute(query, (name,))]


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
    # CROSS JOIN: else SQLite begins with all jobs that wait.
    query = f"""SELECT DISTINCT id FROM waits CROSS JOIN jobs USING (seq) WHERE parent IN ({marks})
        AND verdict = ? AND state IN ('pending', 'failed') ORDER BY jobs.seq"""
    return [job_id for (job_id,) in index.db.execute(query, (*names, Verdict.WAIT))]


def members(index: Index, batch: str, limit: int) -> list[str]:
    """Return the ids of the first jobs of a batch that do not wait for it themselves: dead ones, then those not over."""
    order = "CASE state WHEN 'dead' THEN 0 WHEN 'completed' THEN 2 ELSE 1 END, seq"
    query = f"SELECT id FROM jobs WHERE batch = ? AND member IS NOT NULL ORDER BY {order} LIMIT ?"
    return [job_id for (job_id,) in index.db.execute(query, (batch, limit))]


def ended_members(index: Index, batch: str) -> list[tuple[str, str, str]]:
    """Return the id, the folder and the file name of each job of a batch that is over."""
    query = "SELECT id, place, name FROM jobs WHERE batch = ? AND state IN ('completed', 'dead') AND member IS NOT NULL"
    return index.db.execute(query, (batch,)).fetchall()


def count(index: Queries) -> tuple[int, int]:
    """Return how many jobs wait for others, and how many of these are blocked. A held job waits for its release instead."""
    if not index.has_waits():
        return 0, 0
    every = f"SELECT count(*) FROM children JOIN jobs USING (seq) WHERE {_WAITS}"
    blocked = f"SELECT count(*) FROM jobs WHERE NOT hold AND seq IN ({BLOCKED})"
    return index.db.execute(every).fetchone()[0], index.db.execute(blocked).fetchone()[0]


def waiting(index: Index, limit: int) -> tuple[list[Row], set[str]]:
    """Return the jobs that wait for others and are not held, blocked ones first, each group in the order of arrival.

    Returns:
        the first ones, and the ids of all blocked jobs.
    """
    if not index.has_waits():
        return [], set()
    blocked = all_blocked(index)
    query = f"SELECT id FROM children JOIN jobs USING (seq) WHERE {_WAITS} ORDER BY seq"
    first: list[str] = []
    others: list[str] = []
    for (job_id,) in index.db.execute(query):
        (first if job_id in blocked else others).append(job_id)
    shown = (first + others)[:limit]
    rows = index.rows_of(shown)
    return [rows[job_id] for job_id in shown], blocked


def obstacles(index: Index, limit: int) -> list[tuple[str, str | None, str, str, int]]:
    """Return what blocks jobs and is no blocked job itself: dead and missing jobs, and batches of which no job is left.

    Returns:
        for each, those with the most jobs first: its name, the state of the job (None: there is none), a job that waits for
        it, by which field, and how many there are.
    """
    query = f"""SELECT waits.parent, parents.state, min(child.id), kind, count(*) {OBSTACLES}
        JOIN jobs AS child ON child.seq = waits.seq AND child.state IN ('pending', 'failed')
        WHERE verdict = 0 AND decided = 0 AND {IS_STOPPED} GROUP BY waits.parent ORDER BY count(*) DESC, waits.parent LIMIT ?"""
    return index.db.execute(query, (limit,)).fetchall()


def rings(index: Index, most: int) -> list[list[tuple[str, str]]]:
    """Return rings of jobs that wait for each other, at most so many of those that have no job in common.

    Returns:
        for each ring the jobs and batches in it, each with the field by which it names the next one; the last one names the
        first. A batch has no field.
    """
    from graphlib import CycleError, TopologicalSorter

    named: dict[str, dict[str, str]] = {}
    unmet = """SELECT child.id, waits.parent, kind FROM waits JOIN jobs AS child USING (seq)
        WHERE verdict = 0 AND child.state IN ('pending', 'failed')"""
    for child, parent, kind in index.db.execute(unmet):
        named.setdefault(child, {})[parent] = kind
    batches = {parent for parents in named.values() for parent in parents if parent.startswith(BATCH)}
    for batch in batches:
        parts = (
            "SELECT id FROM jobs WHERE batch = ? AND member IS NOT NULL AND state IN ('pending', 'failed')"
        )
        for (job_id,) in index.db.execute(parts, (batch.removeprefix(BATCH),)):
            named.setdefault(batch, {})[job_id] = ""
    found: list[list[tuple[str, str]]] = []
    while len(found) < most:
        try:
            TopologicalSorter(named).prepare()
        except CycleError as error:
            # Each is waited for by the next one; the last one is the first again.
            ring = error.args[1][:0:-1]
            found.append(
                [(one, named[one][other]) for one, other in zip(ring, (*ring[1:], ring[0]), strict=True)]
            )
            for one in ring:
                del named[one]
        else:
            break
    return found
