"""Statistics of the jobs that have ended, from the index: how many, with which result, how long they waited and ran.

There are two passes over the index, whatever its size. One counts in SQL. The other reads the times from which the
percentiles are computed; of more than SAMPLE jobs it reads a sample of about that many.
"""

from __future__ import annotations

import sqlite3
import time
from bisect import bisect_left
from itertools import chain
from typing import TYPE_CHECKING, Any

from queuectl._dataclasses import dataclass, field

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from queuectl.index.filter import Filter

SAMPLE = 200_000
"""Up to so many jobs, percentiles are computed from all of them; beyond, from a sample of about this size."""

QUARTER = 900
"""Seconds of the smallest step in time. In every time zone, a day begins on such a step."""

BOUNDS = (
    *(0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0),
    *(60.0, 180.0, 600.0, 1800.0, 3600.0, 10800.0, 36000.0, 86400.0, 259200.0, 864000.0),
)
"""Upper bounds of the steps of a histogram, in seconds; the last step has none."""

_PERCENTILES = (50, 90, 99)
_ENDED = "state IN ('completed', 'dead') AND finished_at IS NOT NULL"
_WAITED = (
    "CASE WHEN attempts < 2 THEN started_at - max(coalesce(created_at, arrived), coalesce(run_at, 0)) END"
)
_KEYS = {
    "tag": "tags",
    "day": "NULL",
    "hour": "NULL",
    "command": "substr(command, 1, instr(command || ' ', ' ') - 1)",
    "worker": "worker",
    "exit-code": "exit_code",
}
GROUPS = tuple(_KEYS)
"""What jobs can be grouped by. Of a command the first word counts; a job with two tags is counted for both."""


@dataclass(slots=True)
class Times:
    """How long something took, in seconds: a distribution.

    Attributes:
        count: for how many jobs it is known.
        steps: a histogram: the number of jobs below each of BOUNDS and not below the one before; the last number is
            of those above all of them.
    """

    count: int = 0
    mean: float | None = None
    p50: float | None = None
    p90: float | None = None
    p99: float | None = None
    longest: float | None = None
    steps: tuple[int, ...] = ()

    def fill(self, micros: list[int]) -> None:
        """Compute the distribution of these times in microseconds, except for `longest`, which `_count` sets."""
        if not micros:
            return
        micros.sort()
        seconds = [max(0, value) / 1e6 for value in micros]
        ends = [bisect_left(seconds, bound) for bound in BOUNDS] + [len(seconds)]
        self.count, self.mean = len(seconds), round(sum(seconds) / len(seconds), 6)
        self.p50, self.p90, self.p99 = (seconds[-(-len(seconds) * n // 100) - 1] for n in _PERCENTILES)
        self.steps = tuple(end - before for before, end in zip([0, *ends], ends, strict=False))

    def to_dict(self) -> dict[str, Any]:
        """Return the values for JSON; the histogram as pairs of an upper bound and a number of jobs."""
        steps = zip((*BOUNDS, None), self.steps, strict=False)
        return {
            "count": self.count,
            "mean": self.mean,
            **{f"p{n}": getattr(self, f"p{n}") for n in _PERCENTILES},
            "max": self.longest,
            "steps": [{"below": below, "jobs": jobs} for below, jobs in steps if jobs],
        }


@dataclass(slots=True)
class Tally:
    """The numbers of a group of jobs that have ended.

    Attributes:
        attempts: the sum of the attempts of all jobs.
        retried: the number of jobs that needed more than one attempt.
        seconds: the sum of the durations of their last attempts.
        waiting: the time from when a job could first run to its start. Only jobs that ended at the first attempt count.
        running: the duration of the last attempt.
    """

    completed: int = 0
    dead: int = 0
    attempts: int = 0
    retried: int = 0
    seconds: float = 0.0
    waiting: Times = field(default_factory=Times)
    running: Times = field(default_factory=Times)

    @property
    def ended(self) -> int:
        """The number of jobs."""
        return self.completed + self.dead

    @property
    def success(self) -> float | None:
        """The share of completed jobs, from 0 to 1; None if there are no jobs."""
        return self.completed / self.ended if self.ended else None

    def to_dict(self) -> dict[str, Any]:
        """Return the values for JSON."""
        return {
            "ended": self.ended,
            "completed": self.completed,
            "dead": self.dead,
            "success": self.success,
            "attempts": self.attempts,
            "retried": self.retried,
            "run_seconds": round(self.seconds, 6),
            "waiting": self.waiting.to_dict(),
            "running": self.running.to_dict(),
        }


@dataclass(slots=True)
class Stats:
    """The result of `gather`. Moments are epoch seconds.

    Attributes:
        since, until: the period: what the filter gives, else from the first end of a job to now.
        first_start, last_end: of the last attempts of these jobs; None if there are no jobs.
        all: the numbers of all jobs.
        groups: the numbers of each group by its key; the key None is for jobs without one.
        steps: (begin, completed, dead) for each quarter of an hour in which a job ended.
        sampled: whether the percentiles were computed from a sample.
    """

    since: float
    until: float
    first_start: float | None = None
    last_end: float | None = None
    all: Tally = field(default_factory=Tally)
    groups: dict[str | None, Tally] = field(default_factory=dict)
    steps: list[tuple[int, int, int]] = field(default_factory=list)
    sampled: bool = False

    @property
    def per_hour(self) -> float:
        """Jobs that ended in an hour, on average from the first start to the last end, which count as at least 1 s apart."""
        if self.first_start is None or self.last_end is None:
            return 0.0
        return self.all.ended / max(self.last_end - self.first_start, 1.0) * 3600


def gather(db: sqlite3.Connection, where: Filter, by: str | None, now: float) -> Stats:
    """Compute the statistics of the jobs that match a filter and have run to an end, completed or dead.

    Args:
        by: one of GROUPS, or None.
        now: epoch seconds.

    Raises:
        ValueError: there is no such group.
        sqlite3.DatabaseError: the index is damaged.
    """
    if by is not None and by not in _KEYS:
        raise ValueError(f"{by!r} is not one of {', '.join(GROUPS)}")
    condition, values = where.conditions(only_index=True)
    # Most jobs of a large spool have ended: walking through the table is quicker than through an index on the state.
    tail = f"{_ENDED} AND {condition}"
    key = _KEYS.get(by or "", "NULL")
    try:
        made = Stats(now, now if where.until is None else min(now, where.until))
        keys_of = _keys(by)
        _count(db, made, keys_of, key, tail, values)
        span = f"SELECT min(coalesce(started_at, finished_at)), max(finished_at) FROM jobs NOT INDEXED WHERE {tail}"
        first, last = db.execute(span, values).fetchone()
        if first is not None:
            made.first_start, made.last_end = first / 1e6, last / 1e6
        if made.steps:
            made.since = made.steps[0][0] if where.since is None else where.since
        _take_times(db, made, keys_of, key, tail, values)
    except TypeError as error:
        raise sqlite3.DatabaseError(f"malformed: {error}") from None
    return made


def _keys(by: str | None) -> Callable[[Any, int], Iterable[str | None]]:
    """Return a function from the key in SQL and the quarter of an hour to the keys of the groups of a row."""
    if by is None:
        return lambda _key, _quarter: ()
    if by == "tag":
        return lambda key, _quarter: key.split() if key else (None,)
    if by in {"day", "hour"}:
        shape = "%Y-%m-%d" if by == "day" else "%Y-%m-%d %H:00"
        known: dict[int, tuple[str]] = {}

        def local(_key: Any, quarter: int) -> tuple[str]:
            if quarter not in known:
                known[quarter] = (time.strftime(shape, time.localtime(quarter * QUARTER)),)
            return known[quarter]

        return local
    return lambda key, _quarter: (None if key is None else str(key),)


def _count(
    db: sqlite3.Connection,
    made: Stats,
    keys_of: Callable[[Any, int], Iterable[str | None]],
    key: str,
    tail: str,
    values: Sequence[Any],
) -> None:
    query = (
        f"SELECT finished_at / {QUARTER}000000, {key}, count(*), sum(state = 'completed'), sum(attempts),"
        f" sum(attempts > 1), sum(coalesce(duration, 0)), max({_WAITED}), max(duration)"
        f" FROM jobs NOT INDEXED WHERE {tail} GROUP BY 1, 2"
    )
    steps: dict[int, list[int]] = {}
    for quarter, name, jobs, completed, attempts, retried, micros, waited, ran in db.execute(query, values):
        step = steps.setdefault(quarter, [0, 0])
        step[0] += completed
        step[1] += jobs - completed
        for tally in chain((made.all,), (_group(made, one) for one in keys_of(name, quarter))):
            tally.completed += completed
            tally.dead += jobs - completed
            tally.attempts += attempts
            tally.retried += retried
            tally.seconds += micros / 1e6
            tally.waiting.longest = _later(tally.waiting.longest, waited)
            tally.running.longest = _later(tally.running.longest, ran)
    made.steps = [(quarter * QUARTER, well, dead) for quarter, (well, dead) in sorted(steps.items())]


def _later(known: float | None, micros: int | None) -> float | None:
    return known if micros is None else max(known or 0.0, micros / 1e6)


def _group(made: Stats, key: str | None) -> Tally:
    return made.groups.setdefault(key, Tally())


def _take_times(
    db: sqlite3.Connection,
    made: Stats,
    keys_of: Callable[[Any, int], Iterable[str | None]],
    key: str,
    tail: str,
    values: Sequence[Any],
) -> None:
    made.sampled = made.all.ended > SAMPLE
    if made.sampled:
        # Multiplying spreads consecutive numbers: without it, a sample of jobs that alternate would miss one kind.
        part = SAMPLE * (1 << 20) // made.all.ended
        tail = f"((seq * 2654435761) >> 12) & {(1 << 20) - 1} < {part} AND {tail}"
    query = (
        f"SELECT {_WAITED}, duration, {key}, finished_at / {QUARTER}000000 FROM jobs NOT INDEXED WHERE {tail}"
    )
    every: tuple[Tally, list[int], list[int]] = (made.all, [], [])
    found: dict[str | None, tuple[Tally, list[int], list[int]]] = {}
    for waited, ran, name, quarter in db.execute(query, values):
        for one in keys_of(name, quarter):
            if one not in found:
                found[one] = (_group(made, one), [], [])
            _, waits, runs = found[one]
            if waited is not None:
                waits.append(waited)
            if ran is not None:
                runs.append(ran)
        if waited is not None:
            every[1].append(waited)
        if ran is not None:
            every[2].append(ran)
    for tally, waits, runs in (every, *found.values()):
        tally.waiting.fill(waits)
        tally.running.fill(runs)
