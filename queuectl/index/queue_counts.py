"""How many jobs of each queue wait, run or are dead, and how long the first one has waited; from the index."""

from __future__ import annotations

from queuectl.fast_start.dataclass import dataclass, field
from queuectl.index.lanes import parts_of
from queuectl.index.statistics import COUNT_ABOVE, COUNT_LANES
from queuectl.job.fields import WAITING
from queuectl.layout import ENGINES, LOCAL, PROCESSING

TYPE_CHECKING = False
if TYPE_CHECKING:
    from queuectl.index.queries import Queries

COUNTED = ("pending", "failed", "processing", "dead")
"""The states that are counted. Completed jobs are many, and belong to no queue any more."""

QUEUE = "substr(coalesce(lane, 'default'), 1, instr(coalesce(lane, 'default') || ' ', ' ') - 1)"
"""In SQL: the queue of a job."""

_RUNS = " ".join(f"WHEN place = '{PROCESSING}/{one}' THEN '{one}'" for one in ENGINES)
_RAN = " ".join(f"WHEN worker = '{one}' OR worker LIKE '{one}/%' THEN '{one}'" for one in ENGINES)
ENGINE = f"""CASE {_RUNS} WHEN state = 'processing' THEN '{LOCAL}'
 WHEN worker IS NULL OR state IN ('{"', '".join(WAITING)}') THEN engine_of({QUEUE}) {_RAN} ELSE '{LOCAL}' END"""
"""In SQL: the engine of a job: where it runs; of one that is over, where it has run; of any other one, where its queue has its
jobs run. The connection must have the function `engine_of`, see `api.places`."""

_READY = "SELECT lane, count(*) FROM jobs WHERE ready_key IS NOT NULL GROUP BY 1"
"""Answered from the SQL index of ready jobs alone: 10 ms for 100,000."""

_LATER = (
    "SELECT lane, count(*), min(due) FROM jobs INDEXED BY jobs_due WHERE due IS NOT NULL GROUP BY 1",
    "SELECT lane, count(*), NULL FROM jobs INDEXED BY jobs_behind WHERE behind IS NOT NULL GROUP BY 1",
)
_HELD = """SELECT lane, count(*) FROM jobs
 WHERE state IN ('pending', 'failed') AND coalesce(ready_key, due, behind) IS NULL GROUP BY 1"""
_DUE = "SELECT lane, min(due) FROM jobs INDEXED BY jobs_due WHERE due <= ? GROUP BY 1"
_OTHERS = (
    "SELECT lane, state, count(*) FROM jobs WHERE state IN ('failed', 'processing', 'dead') GROUP BY 1, 2"
)


@dataclass(slots=True)
class LaneCount:
    """The jobs of one lane.

    Attributes:
        states: how many there are, by state; only those of COUNTED.
        since: since when the first in line of those that could run has waited, in microseconds; None if none could.
    """

    states: dict[str, int] = field(default_factory=dict)
    since: int | None = None

    @property
    def waiting(self) -> int:
        """How many wait, for whatever."""
        return self.states.get("pending", 0) + self.states.get("failed", 0)

    @property
    def running(self) -> int:
        """How many run, or are claimed."""
        return self.states.get("processing", 0)

    def add(self, other: LaneCount) -> None:
        """Add the jobs of another lane."""
        for state, number in other.states.items():
            self.states[state] = self.states.get(state, 0) + number
        moments = [one for one in (self.since, other.since) if one is not None]
        self.since = min(moments, default=None)


def by_lane(index: Queries, now: int) -> dict[str | None, LaneCount]:
    """Return the counts of each lane that has such jobs.

    Of a large spool the jobs are not read one by one: `status` asks this of a queue with a million.

    Args:
        now: microseconds since the epoch.
    """
    if index.has("lane_states_done", COUNT_LANES, above=COUNT_ABOVE):
        found = _kept(index, now)
    else:
        found = _counted(index, now)
    for lane in index.ready_lanes():
        first = next(iter(index.ready_in(lane, 1)), None)
        if first is not None and lane in found:
            found[lane].add(LaneCount(since=first.ready_since(now)))
    return found


def _kept(index: Queries, now: int) -> dict[str | None, LaneCount]:
    """Return the numbers that the index keeps of a large spool, and since when a job of each lane has been due."""
    found: dict[str | None, LaneCount] = {}
    for lane, state, number in index.db.execute("SELECT name, state, n FROM lane_states WHERE n > 0"):
        found.setdefault(lane or None, LaneCount()).states[state] = number
    for lane, moment in index.db.execute(_DUE, (now,)):
        if lane in found:
            found[lane].since = moment
    return found


def _counted(index: Queries, now: int) -> dict[str | None, LaneCount]:
    """Return the same of a spool whose jobs are counted each time."""
    waiting: dict[str | None, int] = ready(index)
    due: dict[str | None, int] = {}
    for query in _LATER:
        for lane, number, moment in index.db.execute(query):
            waiting[lane] = waiting.get(lane, 0) + number
            if moment is not None and moment <= now:
                due[lane] = moment
    counts = index.counts()
    if sum(waiting.values()) < counts["pending"] + counts["failed"]:
        for lane, number in index.db.execute(_HELD):
            waiting[lane] = waiting.get(lane, 0) + number
    found = {lane: LaneCount({"pending": number}, due.get(lane)) for lane, number in waiting.items()}
    for lane, state, number in index.db.execute(_OTHERS):
        count = found.setdefault(lane, LaneCount())
        count.states[state] = number
        if state == "failed":
            count.states["pending"] = max(0, count.states.get("pending", 0) - number)
    return found


def running(index: Queries) -> dict[str | None, int]:
    """Return how many jobs of each lane run, or are claimed. They are few: this takes no time."""
    query = "SELECT lane, count(*) FROM jobs WHERE state = 'processing' GROUP BY 1"
    return dict(index.db.execute(query).fetchall())


def ready(index: Queries) -> dict[str | None, int]:
    """Return how many jobs of each lane could run now but for their limits."""
    return dict(index.db.execute(_READY).fetchall())


def by_queue(lanes: dict[str | None, LaneCount]) -> dict[str, LaneCount]:
    """Return the counts of each queue."""
    found: dict[str, LaneCount] = {}
    for lane, count in lanes.items():
        found.setdefault(parts_of(lane)[0], LaneCount()).add(count)
    return found


def has_jobs_of(index: Queries, queue: str) -> bool:
    """Return whether any job has this queue, also one that has ended."""
    query = f"SELECT EXISTS (SELECT 1 FROM jobs WHERE {QUEUE} = ?)"
    return bool(index.db.execute(query, (queue,)).fetchone()[0])
