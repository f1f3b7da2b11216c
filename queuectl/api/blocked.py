"""What keeps a job from starting until somebody acts: the dead or missing job at the beginning of its chain."""

from __future__ import annotations

from typing import TYPE_CHECKING

from queuectl.index import waits
from queuectl.storage.dependencies import RING_STEPS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from queuectl.api.spool_base import SpoolBase
    from queuectl.job.conditions import Condition


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
            return f"job {one.parent} is dead: queuectl retry {one.parent}", "", []
        return "", "", [one.parent]
    left, done, dead = index.batch_counts(one.batch)
    if dead and one.kind == "after":
        jobs = f"{dead} dead job{'s' * (dead > 1)}"
        return f"batch {one.batch} has {jobs}: queuectl retry --batch {one.batch}", "", []
    if left:
        return "", "", waits.parts_with_parents(index, one.batch, RING_STEPS)
    return "", f"batch {one.batch} has {done + dead} of {one.least} jobs: queuectl show {waiting}", []
