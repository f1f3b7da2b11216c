"""What a job waits for, and what waits for it, as people and programs are told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from queuectl._dataclasses import dataclass
from queuectl.index import batches
from queuectl.job import conditions
from queuectl.job.conditions import Verdict
from queuectl.job.fields import WAITING

if TYPE_CHECKING:
    from queuectl.api.spool_base import SpoolBase
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


def waits_for(spool: SpoolBase, job: Job) -> list[Waiting]:
    """Return what a waiting job still waits for."""
    if job.state not in WAITING:
        return []
    found = [*conditions.of_job(job)]
    states = spool._ask(lambda: spool._index.states([one.parent for one in found if one.batch is None]))
    blocked = spool._ask(lambda: spool._index.blocked([*states])) if states else set()
    told = (
        _of_batch(spool, one) if one.batch is not None else _of_job(one, states.get(one.parent), blocked)
        for one in found
    )
    return [one for one in told if one is not None]


def _of_job(one: Condition, state: str | None, blocked: set[str]) -> Waiting | None:
    if one.judge(state) != Verdict.WAIT:
        return None
    if state == "dead":
        return Waiting(one.parent, one.kind, state, blocked=True, hint=f"queuectl retry {one.parent}")
    is_blocked = state is None or one.parent in blocked
    return Waiting(
        one.parent, one.kind, f"{state}, blocked" if state and is_blocked else state, blocked=is_blocked
    )


def _of_batch(spool: SpoolBase, one: Condition) -> Waiting | None:
    waiting, done, dead = spool._ask(lambda: spool._index.batch_counts(one.batch or ""))
    if one.judge_batch(waiting, done, dead) != Verdict.WAIT:
        return None
    told = ", ".join(
        f"{number} {word}"
        for number, word in ((waiting, "not over"), (done, "completed"), (dead, "dead"))
        if number
    )
    more = "" if done + dead + waiting >= one.least else f" of {one.least}"
    hint = f"queuectl retry --batch {one.batch}" if dead and not waiting else ""
    blocked = not waiting or spool._ask(lambda: batches.has_blocked(spool._index, one.batch or ""))
    return Waiting(one.parent, one.kind, (told or "no job") + more, blocked=blocked, hint=hint)


def as_json(waiting: list[Waiting]) -> dict[str, Any]:
    """Return what `show --json` adds for a job."""
    return {
        "waits_for": [{"id": one.id, "want": one.kind, "state": one.state} for one in waiting[:SHOWN]],
        "waits_for_count": len(waiting),
        "blocked": any(one.blocked for one in waiting),
    }
