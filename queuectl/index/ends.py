"""The jobs that have ended in some way within a period, for those who tell of them; and whether anything is left to run."""

from __future__ import annotations

from typing import NamedTuple

from queuectl.index import statistics
from queuectl.index.dependencies import FREE
from queuectl.index.filter import Filter
from queuectl.index.row import BY_HAND, eligible_at

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from queuectl.index.index import Index

_MAKE = """CREATE INDEX IF NOT EXISTS jobs_ends ON jobs(state, coalesce(updated_at, arrived))
    WHERE state IN ('completed', 'dead') AND about IS NULL;"""
_MAKE_HOOKS = "CREATE INDEX IF NOT EXISTS jobs_hooks ON jobs(state) WHERE about IS NOT NULL;"
_CHANGED = "coalesce(updated_at, arrived)"
_BY_PERSON = f"(last_error = 'Cancelled' OR last_error = '{BY_HAND}' OR last_error LIKE 'Replaced by job %')"

_WHAT = {
    "dead": f"state = 'dead' AND NOT coalesce({_BY_PERSON}, 0)",
    "done": "state = 'completed' AND finished_at IS NOT NULL",
    "recovered": "state = 'completed' AND recovered IS NOT NULL",
}
"""Each event, and of what jobs it is told. What a person has done is not told, nor what was completed without a run."""


class Ends:
    """Which ends are meant.

    Args:
        event: dead, done or recovered.
        tags, queues, batches, rules: the job has one of these; none: whatever it has.
    """

    def __init__(
        self,
        index: Index,
        event: str,
        *,
        tags: Sequence[str] = (),
        queues: Sequence[str] = (),
        batches: Sequence[str] = (),
        rules: Sequence[str] = (),
    ) -> None:
        self._index = index
        condition, values = Filter(queues=queues).conditions()
        parts: list[str] = [_WHAT[event], "about IS NULL", condition]
        self._values: list[Any] = values
        for part, names in (
            ("instr(tags, ' ' || ? || ' ') > 0", tags),
            ("batch = ?", batches),
            ("(id > ? || '.' AND id < ? || '/')", [both for name in rules for both in (name, name)]),
        ):
            if names:
                parts.append(f"({' OR '.join([part] * (len(names) // part.count('?')))})")
                self._values += names
        self._where = " AND ".join(parts)

    def first(self, since: int) -> int | None:
        """Return when the first of them has ended at this moment or later, both in microseconds; None: none has."""
        self._index.has("jobs_ends", _MAKE)
        query = f"SELECT min({_CHANGED}) FROM jobs WHERE {self._where} AND {_CHANGED} >= ?"
        [found] = self._index.db.execute(query, (*self._values, since)).fetchone()
        return None if found is None else int(found)

    def of_period(self, since: int, until: int, limit: int = -1) -> list[tuple[str, str, str]]:
        """Return id, state, and path within the spool of those that ended in a period, in the order of their ends.

        Args:
            since, until: in microseconds; `until` does not belong to it.
        """
        self._index.has("jobs_ends", _MAKE)
        query = f"""SELECT id, state, place || '/' || name FROM jobs WHERE {self._where}
            AND {_CHANGED} >= ? AND {_CHANGED} < ? ORDER BY {_CHANGED}, seq LIMIT ?"""
        found = self._index.db.execute(query, (*self._values, since, until, limit))
        return [(str(job_id), str(state), str(path)) for job_id, state, path in found]


def _within(queues: Sequence[str], batches: Sequence[str]) -> tuple[str, list[Any]]:
    condition, values = Filter(queues=queues).conditions()
    of_batch = f" AND batch IN ({', '.join('?' * len(batches))})" if batches else ""
    return f"about IS NULL AND {condition}{of_batch}", [*values, *batches]


def last_run(index: Index, queues: Sequence[str], batches: Sequence[str]) -> tuple[int, str] | None:
    """Return when the run that ended last has ended, in microseconds, and its job; None: none has."""
    from queuectl.index import statistics

    index.has("jobs_ended", statistics.MAKE_ENDED)
    where, values = _within(queues, batches)
    query = f"""SELECT {statistics.ENDED_AT}, id FROM jobs WHERE {statistics.HAS_ENDED} AND finished_at IS NOT NULL AND {where}
        ORDER BY {statistics.ENDED_AT} DESC, seq DESC LIMIT 1"""
    found = index.db.execute(query, values).fetchone()
    return None if found is None else (int(found[0]), str(found[1]))


def dead_hooks(index: Index) -> dict[str, int]:
    """Return how many dead jobs each rule about jobs has."""
    index.has("jobs_hooks", _MAKE_HOOKS)
    query = "SELECT id FROM jobs WHERE state = 'dead' AND about IS NOT NULL"
    found: dict[str, int] = {}
    for (job_id,) in index.db.execute(query):
        rule = str(job_id).partition(".")[0]
        found[rule] = found.get(rule, 0) + 1
    return found


_WAITS = f"SELECT seq FROM children WHERE NOT ({FREE})"
"""The jobs that wait for others. Only if all that is left are such jobs, it is asked for what they wait."""

_STUCK = """WITH RECURSIVE stuck(seq) AS (
    SELECT seq FROM jobs WHERE state IN ('pending', 'failed') AND hold
    UNION SELECT waits.seq FROM stuck JOIN jobs AS parent ON parent.seq = stuck.seq
    JOIN waits ON waits.verdict = 0 AND waits.parent IN (parent.id, 'batch:' || parent.member))"""
"""The jobs that somebody holds, those that wait for one of them, and so on."""


class WaitingHook(NamedTuple):
    """A job of a rule about jobs that has not begun.

    Attributes:
        since: when it could have begun, in microseconds; None: it waits for a moment or for another job.
    """

    id: str
    about: str
    since: int | None

    @property
    def rule(self) -> str:
        """The name of its rule."""
        return self.id.partition(".")[0]


def waiting_hooks(index: Index) -> list[WaitingHook]:
    """Return the jobs of rules about jobs that have not begun, the first in the order first."""
    query = f"""SELECT id, about, {eligible_at("ready_key")} FROM jobs
        WHERE state IN ('pending', 'failed') AND about IS NOT NULL ORDER BY ready_key, seq"""
    return [WaitingHook(*row) for row in index.db.execute(query)]


def is_any_left(index: Index, queues: Sequence[str], batches: Sequence[str]) -> bool:
    """Return whether a job runs, or will run without anybody doing something for it."""
    where, values = _within(queues, batches)
    going = Filter(states=("pending", "processing", "failed"), held=False, blocked=False)
    condition, more = going.conditions()
    for start, kept in (("", _WAITS), (_STUCK, "SELECT seq FROM stuck")):
        query = f"{start} SELECT 1 FROM jobs WHERE {where} AND {condition} AND seq NOT IN ({kept}) LIMIT 1"
        if index.db.execute(query, (*values, *more)).fetchone() is not None:
            return True
    return False


def by_step(index: Index, since: int, step: int) -> dict[int, tuple[int, int]]:
    """Return how many jobs were completed and died in each step of time in which one ended.

    Args:
        since: microseconds since the epoch.
        step: microseconds.

    Returns:
        the numbers by the beginning of the step, in microseconds.
    """
    way = "INDEXED BY jobs_ended" if index.has("jobs_ended", statistics.MAKE_ENDED) else "NOT INDEXED"
    query = (
        f"SELECT finished_at / ?, sum(state = 'completed'), sum(state = 'dead') FROM jobs {way}"
        f" WHERE {statistics.HAS_ENDED} AND {statistics.IS_COUNTED} AND {statistics.ENDED_AT} >= ? GROUP BY 1"
    )
    return {place * step: (well, dead) for place, well, dead in index.db.execute(query, (step, since))}
