"""Finds the jobs that a call is about: rows of the index, brought up to date. Lists and bulk changes begin here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from queuectl.api import job_files, running
from queuectl.job.fields import STATES, WAITING, state_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from queuectl.api.spool_base import SpoolBase
    from queuectl.index.filter import Filter
    from queuectl.index.row import Row

CANCELLED = (*WAITING, "processing")
"""The states of jobs that can be cancelled."""

RETRIED = ("failed", "completed", "dead")
"""The states of jobs that can be retried."""

SET = (*WAITING, "dead")
"""The states of jobs whose fields can be set."""

REMOVED = tuple(state for state in STATES if state != "processing")
"""The states of jobs that can be deleted without being cancelled."""


def select(
    spool: SpoolBase, state: str | None = None, limit: int | None = None, *, where: Filter | None = None
) -> list[Row]:
    """Return the rows of jobs, see `Spool.list`.

    Raises:
        ValueError: there is no such state, or no such order.
    """
    state = state_of(state)
    if where is not None:
        where = where if state is None else where.of_states(state)
        where = where if limit is None else where.limited_to(limit)
    with spool._lock:
        spool._look()
        if where is None:
            return spool._ask(lambda: _fresh(spool, lambda: spool._index.list(state, limit)))
        return spool._ask(lambda: _selected(spool, where))


def prepare(spool: SpoolBase, where: Filter) -> None:
    """Tell the index where queues run if a filter asks for engines: no column says that.

    Call it inside `spool._ask`: a connection that was opened anew does not know it.
    """
    if where.engines:
        from queuectl.api import places

        places.tell_index(spool)


def _fresh(spool: SpoolBase, look: Callable[[], list[Row]]) -> list[Row]:
    return running.show_runs(spool.layout, look() if spool._intake.freshen(rows := look()) else rows)


def _selected(spool: SpoolBase, where: Filter) -> list[Row]:
    prepare(spool, where)
    if not (where.command or where.reason):
        return _fresh(spool, lambda: spool._index.select(where))
    found = _fresh(spool, lambda: spool._index.select(where.without_limit))
    return [row for row in found if job_files.says(spool, row, where)][: where.limit]


def one(spool: SpoolBase, job_id: str) -> Row:
    """Return the row of one job.

    Raises:
        JobNotFound: there is no job with that id.
    """
    with spool._lock:
        spool._look()
        return spool._find(job_id)


def unique_length(spool: SpoolBase, ids: Sequence[str]) -> int:
    """Return how many characters of each of these ids are enough to tell it from all other ids of the spool."""
    with spool._lock:
        others = spool._ask(lambda: [spool._index.neighbours(job_id) for job_id in ids])
    return max((_unique(job_id, *pair) for job_id, pair in zip(ids, others, strict=True)), default=0)


def _unique(job_id: str, before: str, after: str) -> int:
    length = 1
    while length < len(job_id) and job_id[:length] in (before[:length], after[:length]):
        length += 1
    return length


def next_up(spool: SpoolBase, limit: int) -> list[Row]:
    """Return the rows of waiting jobs, see `Spool.next_up`."""
    with spool._lock:
        spool._look()
        return spool._ask(lambda: spool._index.next_up(limit))


def last_ended(spool: SpoolBase, limit: int) -> list[Row]:
    """Return the rows of the jobs that ended most recently, see `Spool.last_ended`."""
    with spool._lock:
        spool._look()
        return spool._ask(lambda: spool._index.last_ended(limit))


def chosen(
    spool: SpoolBase,
    ids: Iterable[str] | Filter,
    where: Filter | None,
    past: str,
    states: Sequence[str],
    usual: Sequence[str] = (),
) -> list[str]:
    """Return the ids of the jobs that a bulk change is about.

    Args:
        ids: ids, or a filter.
        where: a filter, instead of ids.
        past: what is done, as in "completed jobs cannot be cancelled".
        states: of the jobs to which it can be done.
        usual: those that a filter without states selects; default: the same.

    Raises:
        TypeError: one id and not several, or ids and a filter.
        ValueError: it cannot be done to jobs in a state of the filter.
    """
    from queuectl.index.filter import Filter

    if isinstance(ids, str | bytes):
        raise TypeError(f"takes several ids or a Filter, and not one {type(ids).__name__}")
    named: list[str] = []
    if not isinstance(ids, Filter):
        named = list(dict.fromkeys(ids))
    elif where is None:
        where = ids
    else:
        raise TypeError("takes one Filter, not two")
    if where is None:
        return named
    if named:
        raise TypeError("takes ids or a Filter, not both")
    for state in where.states:
        if state not in states:
            raise ValueError(f"{state} jobs cannot be {past}")
    return [row.id for row in select(spool, where=where.of_states(*(where.states or usual or states)))]
