"""Which jobs `downstream=True` and `--downstream` add to those that are named: all that wait for them, in turn.

A named job to which the verb does not apply is passed over if it does apply to others behind it: who cancels what waits for a
dead job need not hear that this one is dead already.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from queuectl.api.listing import CANCELLED
from queuectl.api.retry import given_up
from queuectl.index.descendants import Descent
from queuectl.job.fields import STATES

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from typing import Any

    from queuectl.api.spool_base import SpoolBase
    from queuectl.index.row import Row


def to_cancel(spool: SpoolBase, ids: Sequence[str]) -> list[str]:
    """Return these jobs and those that still wait for them. What runs already is not ended for the sake of a parent."""
    return _applicable(ids, _find(spool, ids, Descent(waiting_only=True)), CANCELLED)


def to_remove(spool: SpoolBase, ids: Sequence[str]) -> list[str]:
    """Return these jobs and those that name them, but for completed ones: without its parents none of them could start."""
    descent = Descent(dead=True, accepts=lambda row: row.state != "completed")
    return _applicable(ids, _find(spool, ids, descent), STATES)


def to_retry(spool: SpoolBase, ids: Sequence[str], states: Collection[str]) -> tuple[list[str], list[Row]]:
    """Return these jobs and the dead ones that name them; a job comes after those for which it waits.

    A job that somebody has given up is left out, with those behind it, unless a named job was given up in the same way. So
    this undoes a cancel of the same jobs, and no other.

    Args:
        states: those in which a named job is retried.

    Returns:
        the ids, and the rows that were left out.
    """
    with spool._lock:
        undone = given_up(spool._rows(ids).values()).keys()
    left_out: list[Row] = []

    def accepts(row: Row) -> bool:
        if row.state == "dead" and given_up([row]).keys() - undone:
            left_out.append(row)
            return False
        return row.state != "completed"

    rows = _find(spool, ids, Descent(dead=True, accepts=accepts))
    named = {*ids}
    rows = [row for row in rows if row.id in named or row.state == "dead"]
    return _applicable(ids, rows, {*states, "dead"}), left_out


def parts_of(
    ids: Sequence[str], named: Collection[str], changes: Mapping[str, Any]
) -> list[tuple[list[str], Mapping[str, Any]]]:
    """Split jobs that are retried into those whose fields are changed, which are the named ones, and the others.

    The named ones come first: a job is given up again if it is put back before the dead one for which it waits.
    """
    if not changes:
        return [([*ids], changes)]
    first = [job_id for job_id in ids if job_id in named]
    rest = [job_id for job_id in ids if job_id not in named]
    return [(first, changes), (rest, {})]


def _find(spool: SpoolBase, ids: Sequence[str], descent: Descent) -> list[Row]:
    with spool._lock:
        spool._look()
        return spool._ask(lambda: descent.find(spool._index, ids))


def _applicable(ids: Sequence[str], rows: Sequence[Row], states: Collection[str]) -> list[str]:
    """Return the ids of the jobs in these states, and those of named jobs of which the verb has to say what is wrong."""
    named, known = {*ids}, {row.id for row in rows}
    found = [row.id for row in rows if row.state in states]
    if named.issuperset(found):
        found = [row.id for row in rows]
    return found + [job_id for job_id in dict.fromkeys(ids) if job_id not in known]
