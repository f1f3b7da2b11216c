"""Enqueue jobs that wait for others: all of a list is checked before the first of them is queued."""

from __future__ import annotations

from typing import TYPE_CHECKING

from queuectl.errors import NeverStarts
from queuectl.job import conditions
from queuectl.job.fields import is_id

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any

    from queuectl.job.record import Job
    from queuectl.storage.transitions import Storage


def admit(storage: Storage, job: Job) -> None:
    """Check that a job which waits for others could start one day.

    Raises:
        NeverStarts: a job that it names does not exist, or it would wait for itself through others.
    """
    from queuectl.storage import dependencies, locate

    for one in conditions.of_job(job):
        if one.batch is None and locate.state_of(storage, one.parent) is None:
            raise _unknown(one.parent)
    dependencies.refuse_ring(storage, job)


def _unknown(parent: str) -> NeverStarts:
    return NeverStarts(f"no job is called {parent}, so this could never start", hint="queuectl list")


def checked(
    records: Iterator[Mapping[str, Any]], common: Mapping[str, Any], exists: Callable[[str], bool]
) -> Iterator[Mapping[str, Any]]:
    """Yield the jobs of a list. From the first one on that waits for another, all are read and checked before that.

    Args:
        common: fields that every job gets.
        exists: whether the spool has a job with this id.

    Raises:
        NeverStarts: one of them waits for a job that does not exist, or for itself.
    """
    seen: set[str] = set()
    for record in records:
        if _parents({**record, **common} if common else record):
            rest = [record, *records]
            _check(rest, common, seen, exists)
            yield from rest
            return
        seen.add(str(record.get("id", "")))
        yield record


def _check(
    records: list[Mapping[str, Any]],
    common: Mapping[str, Any],
    seen: set[str],
    exists: Callable[[str], bool],
) -> None:
    from graphlib import CycleError, TopologicalSorter

    known = seen | {str(record.get("id", "")) for record in records}
    graph: dict[str, list[str]] = {}
    for record in records:
        parents = _parents({**record, **common})
        for parent in parents:
            if parent not in known and not exists(parent):
                raise _unknown(parent)
        job_id = str(record.get("id", ""))
        graph[job_id] = [parent for parent in parents if parent != job_id]  # that is refused by itself
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        ring = error.args[1][::-1]
        raise NeverStarts(f"{ring[0]} waits for itself: {', '.join(ring)}") from None


def _parents(record: Mapping[str, Any]) -> list[str]:
    """Return the jobs for which a job waits. A wrong value is refused later."""
    found: dict[str, None] = {}
    for kind in conditions.FIELDS:
        value = record.get(kind) or ()
        for one in (value,) if isinstance(value, str) else value if isinstance(value, list) else ():
            if isinstance(one, str) and is_id(one):
                found[one] = None
    return [*found]
