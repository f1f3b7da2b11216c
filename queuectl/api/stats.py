"""Statistics of the jobs that have ended, from the index: how many, with which result, how long they waited and ran.

The index keeps the sums of each quarter of an hour. They are enough for all jobs, for a period, and by day or hour. Of a
quarter that the period cuts, of other groups and with other filters, the jobs are counted in SQL. Percentiles are computed
from the times of each job; of more than SAMPLE jobs, from ENOUGH of those in the index jobs_sampled.
"""

from __future__ import annotations

import sqlite3
import time
from bisect import bisect_left
from collections import Counter
from itertools import chain
from typing import TYPE_CHECKING, Any

from queuectl.fast_start.dataclass import dataclass, field
from queuectl.index import statistics as kept
from queuectl.index.queue_counts import ENGINE, QUEUE
from queuectl.index.statistics import ENDED_AT, HAS_ENDED, IS_COUNTED, QUARTER, QUARTER_OF, WAITED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from queuectl.index.filter import Filter
    from queuectl.index.index import Index
    from queuectl.index.row import Row

SAMPLE = 50_000
"""Up to so many jobs, percentiles are computed from all of them; beyond, from a sample."""

ENOUGH = 20_000
"""Jobs of the largest sample. Half of all 99th percentiles that are computed from so many lie between 98.95 and 99.05."""

BOUNDS = (
    *(0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0),
    *(60.0, 180.0, 600.0, 1800.0, 3600.0, 10800.0, 36000.0, 86400.0, 259200.0, 864000.0),
)
"""Upper bounds of the steps of a histogram, in seconds; the last step has none."""

_PERCENTILES = (50, 90, 99)
_KEYS = {
    "tag": "tags",
    "day": "NULL",
    "hour": "NULL",
    "command": "substr(command, 1, instr(command || ' ', ' ') - 1)",
    "worker": "worker",
    "exit-code": "exit_code",
    "reason": "CASE WHEN state = 'dead' THEN last_error END",
    "queue": QUEUE,
    "engine": ENGINE,
}
_BY_TIME = (None, "day", "hour")
"""Groups that consist of whole quarters of an hour."""

GROUPS = tuple(_KEYS)
"""What jobs can be grouped by. Of a command the first word counts; a job with two tags is counted for both. The reason is
why a job is dead, its first 200 characters; completed jobs have none."""


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


def gather(index: Index, where: Filter, by: str | None, now: float) -> Stats:
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
    which = _Selection(index, where, _KEYS.get(by or "", "NULL"))
    try:
        made = Stats(now, now if where.until is None else min(now, where.until))
        keys_of = _keys(by)
        _count(made, keys_of, which.sums() if by in _BY_TIME and which.has_sums else which.counted())
        if made.steps:
            made.since = made.steps[0][0] if where.since is None else where.since
        made.sampled = made.all.ended > SAMPLE
        _take_times(made, keys_of, which.times(made.all.ended))
    except TypeError as error:
        raise sqlite3.DatabaseError(f"malformed: {error}") from None
    return made


class _Selection:
    """The jobs of which statistics are made.

    Args:
        key: what they are grouped by, in SQL.

    Attributes:
        has_sums: they are all that ended in the period, and the index keeps the sums of their quarters of an hour.
    """

    def __init__(self, index: Index, where: Filter, key: str) -> None:
        self._is_kept = index.has("ends_done", kept.MAKE)
        self.has_sums = self._is_kept and where.without_period.is_open
        self._db = index.db
        self._key = key
        self._condition, self._values = where.without_period.conditions(only_index=True)
        self._since = None if where.since is None else round(where.since * 1e6)
        self._until = None if where.until is None else round(where.until * 1e6)

    def sums(self) -> Iterator[Sequence[Any]]:
        """Yield the sums of each quarter of an hour: the quarter, no key, and the columns `kept.ENDS`."""
        since, until = self._since, self._until
        length = QUARTER * 1_000_000
        first = 0 if since is None else -(-since // length)
        end = 1 << 40 if until is None else until // length
        if first > end:  # the period is a part of one quarter
            yield from self.counted()
            return
        whole = "FROM ends WHERE quarter >= ? AND quarter < ?"
        query = f"SELECT quarter, NULL, {', '.join(kept.ENDS)} {whole} AND NOT unsure"
        yield from self._db.execute(query, (first, end))
        unsure = self._db.execute(f"SELECT quarter {whole} AND unsure", (first, end)).fetchall()
        for (quarter,) in unsure:
            yield from self._counted(quarter * length, (quarter + 1) * length)
        if since is not None and since < first * length:
            yield from self._counted(since, first * length)
        if until is not None and until > end * length:
            yield from self._counted(end * length, until)

    def counted(self) -> Iterator[Sequence[Any]]:
        """Yield the same by quarter and key, from the jobs."""
        return self._counted(self._since, self._until)

    def _counted(self, since: int | None, until: int | None) -> Iterator[Sequence[Any]]:
        source, values = self._source(since, until)
        query = f"SELECT {QUARTER_OF}, {self._key}, {kept.COUNT_ENDS} FROM {source} GROUP BY 1, 2"
        return self._db.execute(query, values)

    def times(self, ended: int) -> Iterator[Sequence[Any]]:
        """Yield of each job, or of a sample: how long it waited and ran, its key, its quarter of an hour.

        Args:
            ended: how many jobs there are.
        """
        source, values = self._source(self._since, self._until)
        if ended > SAMPLE:
            part = min(kept.SAMPLED, ENOUGH * (1 << 20) // ended)
            if self._is_kept:
                source, values = self._source(self._since, self._until, "jobs_sampled")
                source += f" AND {kept.IS_SAMPLED}"
            source += f" AND {kept.SAMPLE_PLACE} < {part}"
        return self._db.execute(f"SELECT {WAITED}, duration, {self._key}, {QUARTER_OF} FROM {source}", values)

    def _source(self, since: int | None, until: int | None, index: str = "") -> tuple[str, list[Any]]:
        """Return the source of a query, with its condition, and the values.

        Args:
            index: read this SQL index; default: jobs_ended, or the whole table where that is quicker.
        """
        period, values = "", list(self._values)
        for sign, moment in ((">=", since), ("<", until)):
            if moment is not None:
                period += f" AND {ENDED_AT} {sign} ?"
                values.append(moment)
        if not index and self._is_kept:
            index = "jobs_ended" if period or not self._most_have_ended() else ""
        way = f"INDEXED BY {index}" if index else "NOT INDEXED"
        return f"jobs {way} WHERE {HAS_ENDED} AND {IS_COUNTED} AND {self._condition}{period}", values

    def _most_have_ended(self) -> bool:
        """Whether walking through the table is quicker than through an index, which finds jobs in another order."""
        counts = dict(self._db.execute("SELECT state, n FROM counts").fetchall())
        ended: int = counts.get("completed", 0) + counts.get("dead", 0)
        return 2 * ended > sum(counts.values())


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
    made: Stats, keys_of: Callable[[Any, int], Iterable[str | None]], sums: Iterable[Sequence[Any]]
) -> None:
    steps: dict[int, list[int]] = {}
    for quarter, key, completed, dead, attempts, retried, ran, waited, longest, start, end in sums:
        step = steps.setdefault(quarter, [0, 0])
        step[0] += completed
        step[1] += dead
        first, last = start / 1e6, end / 1e6
        made.first_start = first if made.first_start is None else min(first, made.first_start)
        made.last_end = last if made.last_end is None else max(last, made.last_end)
        for tally in chain((made.all,), (_group(made, one) for one in keys_of(key, quarter))):
            tally.completed += completed
            tally.dead += dead
            tally.attempts += attempts
            tally.retried += retried
            tally.seconds += ran / 1e6
            tally.waiting.longest = _later(tally.waiting.longest, waited)
            tally.running.longest = _later(tally.running.longest, longest)
    made.steps = [(quarter * QUARTER, well, dead) for quarter, (well, dead) in sorted(steps.items())]


def _later(known: float | None, micros: int | None) -> float | None:
    return known if micros is None else max(known or 0.0, micros / 1e6)


def _group(made: Stats, key: str | None) -> Tally:
    return made.groups.setdefault(key, Tally())


def _take_times(
    made: Stats, keys_of: Callable[[Any, int], Iterable[str | None]], times: Iterable[Sequence[Any]]
) -> None:
    every: tuple[Tally, list[int], list[int]] = (made.all, [], [])
    found: dict[str | None, tuple[Tally, list[int], list[int]]] = {}
    for waited, ran, key, quarter in times:
        for one in keys_of(key, quarter):
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


def recent_times(rows: list[Row]) -> tuple[Times, Times]:
    """Return how long these jobs, which have ended, waited and ran. Only those that needed one attempt count as waiting."""
    waiting, running = Times(), Times()
    waits = [
        row.started_at - max(row.arrived if row.created_at is None else row.created_at, row.run_at or 0)
        for row in rows
        if row.started_at is not None and row.attempts < 2
    ]
    runs = [row.duration for row in rows if row.duration is not None]
    for made, found in ((waiting, waits), (running, runs)):
        made.fill(found)
        # A file that does not say when its job was made may have come after its start.
        made.longest = max(0, *found) / 1e6 if found else None
    return waiting, running


def recent_reasons(errors: list[str | None]) -> list[tuple[str, int]]:
    """Return why jobs are dead, each reason with its number, the most frequent first."""
    counted = Counter(error for error in errors if error)
    return sorted(counted.items(), key=lambda one: (-one[1], one[0]))
