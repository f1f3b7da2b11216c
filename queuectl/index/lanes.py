"""Lanes: all jobs of one queue that need the same resources. What is written in `Row.lane`, and how jobs of several come in one order.

See `row.lane_of` for how a job gets its lane.
"""

from __future__ import annotations

import sqlite3
from functools import lru_cache

from queuectl.index.row import order_of
from queuectl.job.fields import DEFAULT_QUEUE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from queuectl.index.row import Row


@lru_cache(maxsize=8192)
def parts_of(lane: str | None) -> tuple[str, dict[str, int]]:
    """Return the queue of a lane, and how many units of each resource each of its jobs needs.

    Raises:
        sqlite3.DatabaseError: it is no lane. An overwritten index may say so; it is made anew then.
    """
    if lane is None:
        return DEFAULT_QUEUE, {}
    queue, *needs = lane.split(" ")
    pairs = (part.partition("=") for part in needs)
    try:
        return queue, {name: int(number) for name, _, number in pairs}
    except ValueError:
        raise sqlite3.DatabaseError(f"malformed: the lane {lane!r}") from None


def queue_of(lane: str | None) -> str:
    """Return the queue of a lane."""
    return parts_of(lane)[0]


def with_first(
    heads: Sequence[tuple[str | None, int]], limit: int, served: Mapping[str, int] | None = None
) -> list[str | None]:
    """Return the lanes that the first jobs of all lanes belong to. Of a hundred lanes most need not be read.

    Args:
        heads: the lanes, each with the `ready_key` of its first job.
        limit: how many jobs.
        served: if queues take turns: as for `by_turns`.
    """
    if len(heads) <= limit:
        return [lane for lane, _ in heads]
    if served is None:
        last = sorted(key for _, key in heads)[limit - 1]
        return [lane for lane, key in heads if key <= last]
    ranks: dict[str, tuple[int, int]] = {}
    for lane, key in heads:
        queue = queue_of(lane)
        rank = served.get(queue, -1), key
        ranks[queue] = min(ranks.get(queue, rank), rank)
    worst = sorted(ranks.values())[:limit][-1]
    return [lane for lane, _ in heads if ranks[queue_of(lane)] <= worst]


def by_age(lanes: Sequence[Sequence[Row]], limit: int) -> list[Row]:
    """Return the first jobs of several lanes, each in its order, in the order in which they would run without limits."""
    if len(lanes) == 1:
        return [*lanes[0][:limit]]
    return sorted((row for rows in lanes for row in rows), key=order_of)[:limit]


def by_turns(lanes: Sequence[Sequence[Row]], limit: int, served: Mapping[str, int]) -> list[Row]:
    """Return the first jobs of several lanes so that queues take turns: the one that was served longest ago comes first.

    Args:
        served: when each queue was served last, as a number that grows; a queue that never was is not in it.
    """
    waiting: dict[str, list[Row]] = {}
    for row in by_age(lanes, sum(map(len, lanes))):
        waiting.setdefault(queue_of(row.lane), []).append(row)
    turn, latest = dict(served), max(served.values(), default=0)
    chosen: list[Row] = []
    while waiting and len(chosen) < limit:
        queue = min(waiting, key=lambda name: (turn.get(name, -1), order_of(waiting[name][0])))
        chosen.append(waiting[queue].pop(0))
        latest += 1
        turn[queue] = latest
        if not waiting[queue]:
            del waiting[queue]
    return chosen
