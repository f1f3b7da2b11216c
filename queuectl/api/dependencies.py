"""What a job waits for, what waits for it, and what blocks it, as people and programs are told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from queuectl.fast_start.dataclass import dataclass
from queuectl.index import batches, waits
from queuectl.job import conditions
from queuectl.job.conditions import Verdict
from queuectl.job.fields import BATCH, WAITING
from queuectl.storage.dependencies import RING_STEPS

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from queuectl.api.spool_base import SpoolBase
    from queuectl.index.row import Row
    from queuectl.job.conditions import Condition
    from queuectl.job.record import Job

SHOWN = 20
"""How many of the jobs that a job waits for are named. It may have ten thousand."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """One thing that a job waits for.

    Attributes:
        id: a job, or "batch:NAME".
        kind: after, after_any or after_failure.
        state: of the job; of a batch, how many of its jobs are in which state; None: there is no such job.
        blocked: it ends only once somebody has done something.
        hint: a command that helps, or "".
    """

    id: str
    kind: str
    state: str | None
    blocked: bool = False
    hint: str = ""

    def __str__(self) -> str:
        """Return it in words: `load (dead; queuectl retry load)`."""
        return f"{self.id} ({'; '.join(filter(None, (self.state or 'there is no such job', self.hint)))})"


def names(row: Row) -> str:
    """Return which jobs and batches a job names, as a column of a list: `extract, batch:parts=3, after_any load`."""
    found = waits.conditions(row)
    told = [
        f"{'' if one.kind == 'after' else f'{one.kind} '}{one.parent}{f'={one.least}' if one.least != 1 else ''}"
        for one in found[:SHOWN]
    ]
    return ", ".join(told) + (f" and {len(found) - SHOWN} more" if len(found) > SHOWN else "")


def waits_for(spool: SpoolBase, job: Job) -> list[Waiting]:
    """Return what a waiting job still waits for."""
    if job.state not in WAITING:
        return []
    found = [*conditions.of_job(job)]
    states = spool._ask(lambda: spool._index.states([one.parent for one in found if one.batch is None]))
    blocked = spool._ask(lambda: spool._index.blocked([*states])) if states else set()
    told = (
        _of_job(one, states.get(one.parent), blocked)
        if one.batch is None
        else _of_batch(spool, one, lambda batch: _has_blocked(spool, batch))
        for one in found
    )
    return [one for one in told if one is not None]


def waited_for_by(spool: SpoolBase, row: Row) -> list[str]:
    """Return the ids of the jobs that still wait for this one, or for its batch, in the order of their arrival."""
    names = [row.id] if row.member is None else [row.id, BATCH + row.member]
    return spool._ask(lambda: waits.waiting_for(spool._index, names))


def waiting(spool: SpoolBase, limit: int) -> tuple[list[Row], dict[str, str], set[str]]:
    """Return the jobs that wait for others, blocked ones first, what each still waits for, and the ids of all blocked jobs.

    Args:
        limit: at most so many jobs.
    """
    with spool._lock:
        rows, blocked = spool._ask(lambda: waits.waiting(spool._index, limit))
        told = OfRows(spool)
        return rows, {row.id: told.words(row) for row in rows}, blocked


class OfRows:
    """What the jobs of a list wait for. Which ones are blocked is asked once, and only if a job waits for another."""

    def __init__(self, spool: SpoolBase) -> None:
        self._spool = spool
        self._blocked: set[str] | None = None
        self._batches: dict[str, bool] = {}

    def words(self, row: Row) -> str:
        """Return what a job waits for, as a column of a list: `extract (dead), batch:parts`."""
        waiting, number = self._waits_for(row, ())
        told = [
            one.id if one.state and one.state != "dead" else f"{one.id} ({one.state or 'missing'})"
            for one in waiting
        ]
        return ", ".join(told) + (f" and {number - len(told)} more" if number > len(told) else "")

    def as_json(self, row: Row) -> dict[str, Any]:
        """Return what `list --json` adds for a job."""
        blocked = self._all_blocked() if row.conditions is not None else ()
        waiting, number = self._waits_for(row, blocked)
        shown = [{"id": one.id, "want": one.kind, "state": one.state} for one in waiting]
        return {"waits_for": shown, "waits_for_count": number, "blocked": row.id in blocked}

    def _all_blocked(self) -> set[str]:
        if self._blocked is None:
            self._blocked = self._spool._ask(lambda: waits.all_blocked(self._spool._index))
        return self._blocked

    def _has_blocked(self, batch: str) -> bool:
        if batch not in self._batches:
            self._batches[batch] = _has_blocked(self._spool, batch)
        return self._batches[batch]

    def _waits_for(self, row: Row, blocked: Collection[str]) -> tuple[list[Waiting], int]:
        if row.conditions is None or row.state not in WAITING:
            return [], 0
        spool = self._spool
        found = spool._ask(lambda: waits.unmet(spool._index, row))
        shown = found[:SHOWN]
        states = spool._ask(lambda: spool._index.states([one.parent for one in shown]))
        told = (
            _of_job(one, states.get(one.parent), blocked)
            if one.batch is None
            else _of_batch(spool, one, self._has_blocked if blocked else lambda _: False)
            for one in shown
        )
        return [one for one in told if one is not None], len(found)


def _of_job(one: Condition, state: str | None, blocked: Collection[str]) -> Waiting | None:
    if one.judge(state) != Verdict.WAIT:
        return None
    if state == "dead":
        return Waiting(one.parent, one.kind, state, blocked=True, hint=one.retry)
    is_blocked = state is None or one.parent in blocked
    return Waiting(
        one.parent, one.kind, f"{state}, blocked" if state and is_blocked else state, blocked=is_blocked
    )


def _has_blocked(spool: SpoolBase, batch: str) -> bool:
    return spool._ask(lambda: batches.has_blocked(spool._index, batch))


def _of_batch(spool: SpoolBase, one: Condition, has_blocked: Callable[[str], bool]) -> Waiting | None:
    batch = one.batch or ""
    waiting, done, dead = spool._ask(lambda: spool._index.batch_counts(batch))
    if one.judge_batch(waiting, done, dead) != Verdict.WAIT:
        return None
    told = ", ".join(
        f"{number} {word}"
        for number, word in ((waiting, "not over"), (done, "completed"), (dead, "dead"))
        if number
    )
    more = "" if done + dead + waiting >= one.least else f" of {one.least}"
    # For the other fields a dead job counts, and more jobs are missing.
    helps = one.kind == "after" and dead and not waiting
    hint = one.retry if helps else ""
    blocked = not waiting or has_blocked(batch)
    return Waiting(one.parent, one.kind, (told or "no job") + more, blocked=blocked, hint=hint)


def as_json(waiting: list[Waiting]) -> dict[str, Any]:
    """Return what `show --json` adds for a job."""
    return {
        "waits_for": [{"id": one.id, "want": one.kind, "state": one.state} for one in waiting[:SHOWN]],
        "waits_for_count": len(waiting),
        "blocked": any(one.blocked for one in waiting),
    }


# -- what keeps it from starting -------------------------------------------------------------------------------------------


def cause(spool: SpoolBase, job_id: str, *, dead_only: bool = False) -> str | None:
    """Return what blocks a job, with a command that helps: `job extract is dead: queuectl retry extract`.

    The chain is followed up to the job that has to be mended. Only so many jobs are looked at that nobody waits for it.

    Args:
        dead_only: it must be a dead job, and not one that is missing and may still come.
    """
    return spool._ask(lambda: next(_causes(spool, job_id, dead_only=dead_only), None))


def _causes(spool: SpoolBase, job_id: str, *, dead_only: bool) -> Iterator[str]:
    line = {job_id: None}
    todo = [job_id]
    for waiting in todo:
        row = spool._index.get(waiting)
        for one in waits.unmet(spool._index, row) if row is not None else ():
            dead, missing, above = _look(spool, one, waiting)
            if dead or (missing and not dead_only):
                yield dead or missing
            todo.extend(name for name in above if name not in line and len(todo) < RING_STEPS)
            line.update(dict.fromkeys(above))


def _look(spool: SpoolBase, one: Condition, waiting: str) -> tuple[str, str, list[str]]:
    """Return what is wrong with a condition: a dead job, or a missing one, else "" twice; and the jobs to look at next."""
    index = spool._index
    if one.batch is None:
        state = index.states([one.parent]).get(one.parent)
        if state is None:
            return "", f"there is no job {one.parent}: queuectl set {waiting} {one.kind}-={one.parent}", []
        if state == "dead":
            return f"job {one.parent} is dead: {one.retry}", "", []
        return "", "", [one.parent]
    left, done, dead = index.batch_counts(one.batch)
    if dead and one.kind == "after":
        jobs = f"{dead} dead job{'s' * (dead > 1)}"
        return f"batch {one.batch} has {jobs}: {one.retry}", "", []
    if left:
        return "", "", waits.parts_with_parents(index, one.batch, RING_STEPS)
    return "", f"batch {one.batch} has {done + dead} of {one.least} jobs: queuectl show {waiting}", []
