"""How a sorted list is read: from an SQL index in that order, so that it takes as long whatever the number of jobs.

Each SQL index costs time at the end of each job. So those by which a list is rarely sorted are made when a large spool is
first asked for that order, as those for retention are. They go with the next rebuild.
"""

from __future__ import annotations

from queuectl.job.fields import WAITING

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from queuectl.index.filter import Filter

    Piece = tuple[str, list[Any]]

LARGE = 5_000
"""Of fewer jobs than this a list is sorted when it is asked for: 3 ms. Pages that people look at ask every two seconds."""

_SHARE = 8
"""An index is read in its order if at least one job in so many is in a state that is asked for. Else those are sorted."""

_AT_ALL_TIMES = frozenset({"arrived", "id", "state"})
"""Orders for which there always is an index."""

_WAITING = (
    ("INDEXED BY jobs_by_next WHERE ready_key IS NOT NULL", "ready_key"),
    ("INDEXED BY jobs_due WHERE due IS NOT NULL AND ready_key IS NULL", "due"),
    ("NOT INDEXED WHERE due IS NULL AND ready_key IS NULL", ""),
)
"""The parts of the order in which jobs run: those that can run, those that are due later, all others."""

_HAS_NO_PLACE = "due IS NULL AND ready_key IS NULL AND (state = 'pending' OR state = 'failed')"
_WITHOUT_PLACE = (f"INDEXED BY jobs_without_place WHERE {_HAS_NO_PLACE}", "")
"""All others of which a list has only jobs that wait: held ones, and those behind a key or other jobs."""

MAKE_WITHOUT_PLACE = f"CREATE INDEX IF NOT EXISTS jobs_without_place ON jobs(seq) WHERE {_HAS_NO_PLACE};"
"""The statement that makes their index: they may be a few among a million."""


def name_of(which: Filter) -> str | None:
    """Return the name of the SQL index that a list in this order needs and that is not always there, or None."""
    if which.sort.removeprefix("-") == "next":
        return "jobs_by_next"
    if which.sort in _AT_ALL_TIMES or which.sort.removeprefix("-") in _AT_ALL_TIMES - {"state"}:
        return None
    return f"jobs_by_{which.sort.replace('-', '_')}"


def can_follow_order(which: Filter, counts: Mapping[str, int]) -> bool:
    """Return whether the list is short, and the jobs that it is about are found early in any order.

    Args:
        counts: jobs by state.
    """
    jobs = sum(counts.values())
    if which.limit is None or jobs <= LARGE or not which.is_about_states:
        return False
    if which.sort.removeprefix("-") == "next" and which.states:
        return set(which.states) <= set(WAITING)
    return sum(counts[state] for state in which.states or counts) * _SHARE >= jobs


def definition(which: Filter, name: str) -> str:
    """Return the statement that makes the SQL index for an order."""
    if name == "jobs_by_next":
        # Workers look for the next job of each lane. So the index that is always there is not in the order of all.
        return f"CREATE INDEX IF NOT EXISTS {name} ON jobs(ready_key, seq) WHERE ready_key IS NOT NULL;"
    return f"CREATE INDEX IF NOT EXISTS {name} ON jobs({which.order()});"


def in_order(which: Filter) -> list[Piece]:
    """Return the ends of queries, and their values, that together give a list in its order without sorting anything."""
    condition, values = which.conditions()
    key = which.sort.removeprefix("-")
    if key == "next":
        way = " DESC" if which.sort != key else ""
        pieces = (*_WAITING[:2], _WITHOUT_PLACE) if which.states else _WAITING
        parts = [
            (
                f"{source} AND {condition} ORDER BY {f'{order}{way}, ' if order else ''}seq{way}",
                values,
            )
            for source, order in pieces
        ]
        return parts[::-1] if way else parts
    name = name_of(which) or {"id": "jobs_id", "state": "jobs_state"}.get(key)
    source = "NOT INDEXED" if name is None else f"INDEXED BY {name}"
    return [(f"{source} WHERE {condition} ORDER BY {which.order()}", values)]


def sorting(which: Filter) -> Piece:
    """Return the end of the query that reads a list, and its values, for an order in which no index is to be read.

    Few jobs may match. An index in the order of the list would look up each job in vain, in any place of the table.
    """
    condition, values = which.conditions()
    made_later = which.sort.removeprefix("-") not in {*_AT_ALL_TIMES, "next"}
    return f"WHERE {condition} ORDER BY {which.order(without_index=made_later)}", values
