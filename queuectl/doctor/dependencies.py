"""Examines the jobs that wait for others: rings, in which each waits for the next, and jobs that are blocked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from queuectl.doctor.finding import Finding
from queuectl.index import waits
from queuectl.job.conditions import Condition
from queuectl.job.fields import BATCH

if TYPE_CHECKING:
    from collections.abc import Iterator

    from queuectl.doctor.finding import Case

_MOST = 20
"""Findings of each kind: ten thousand jobs may wait for as many that are dead."""


def compare(case: Case) -> Iterator[Finding]:
    """Examine what jobs wait for, by the index, which agrees with the folders.

    Raises:
        sqlite3.Error: the index cannot be read.
    """
    if not case.index.has_waits():
        return
    yield from _rings(case)
    yield from _blocked(case)


def _rings(case: Case) -> Iterator[Finding]:
    """Look for rings of dropped files. The intake looks no further than a thousand jobs for the ring that a file closes."""
    for ring in waits.rings(case.index, _MOST):
        first, field = min(one for one in ring if one[1])
        names = [name for name, _ in ring]
        start = names.index(first)
        way = [*names[start:], *names[:start], first]
        shown = ", ".join(way if len(way) <= _MOST else [*way[: _MOST - 2], "…", *way[-2:]])
        fact = f"job {first} waits for itself: {shown}"
        yield Finding("ring", first, fact, f"let one of them go: queuectl set {first} {field}=")


def _blocked(case: Case) -> Iterator[Finding]:
    """Tell of each dead or missing job, and of each batch, for which jobs wait in vain."""
    found = waits.obstacles(case.index, _MOST + 1)
    for name, state, child, field, number in found[:_MOST]:
        waiting = f"job {child} waits" if number == 1 else f"{number:,} jobs wait, like {child},"
        fact, cure = _explained(case, name, state, child, field)
        yield Finding("blocked", name, f"{waiting} for {fact}", cure, harmless=True)
    if len(found) > _MOST:
        fact = f"there are more than {_MOST} dead or missing jobs for which others wait"
        yield Finding("blocked", "jobs", fact, "queuectl list --blocked", harmless=True)


def _explained(case: Case, name: str, state: str | None, child: str, field: str) -> tuple[str, str]:
    """Return what it is that jobs wait for in vain, and the command that helps."""
    if name.startswith(BATCH):
        batch = name.removeprefix(BATCH)
        _, done, dead = case.index.batch_counts(batch)
        fact = f"batch {batch}, of which no job is left ({done:,} completed, {dead:,} dead)"
        helps = dead and field == "after"  # for the other fields a dead job counts, and more jobs are missing
        return fact, Condition(name, field).retry if helps else f"queuectl show {child}"
    if state is None:
        return f"job {name}, and there is no such job", f"queuectl set {child} {field}-={name}"
    return f"job {name}, which is dead", Condition(name, field).retry
