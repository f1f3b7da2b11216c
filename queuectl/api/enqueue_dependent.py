"""Enqueue jobs that wait for others: all of a list is checked before the first of them is queued."""

from __future__ import annotations

from typing import TYPE_CHECKING

from queuectl.errors import InvalidJob
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
        InvalidJob: a job that it names does not exist, or it would wait for itself, alone or through others.
    """
    from queuectl.storage import dependencies, locate

    conditions.check(job)
    for one in conditions.of_job(job):
        if one.batch is None and locate.state_of(storage, one.parent) is None:
            raise _unknown(one.parent, one.kind)
    dependencies.refuse_ring(storage, job)


def _unknown(parent: str, kind: str) -> InvalidJob:
    return InvalidJob(f"no job is called {parent}, so this could never start", field=kind)


def checked(
    records: Iterator[Mapping[str, Any]], common: Mapping[str, Any], exists: Callable[[str], bool]
) -> Iterator[Mapping[str, Any]]:
    """Yield the jobs of a list. From the first one on that waits for another, all are read and checked before that.

    Args:
        common: fields that every job gets.
        exists: whether the spool has a job with this id.

    Raises:
        InvalidJob: one of them waits for a job that does not exist, or for itself.
    """
    seen: set[str] = set()
    for record in records:
        if _parents({**record, **common}):
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
        for parent, kind in parents.items():
            if parent not in known and not exists(parent):
                raise _unknown(parent, kind)
        job_id = str(record.get("id", ""))
        graph[job_id] = [parent for parent in parents if parent != job_id]  # that is refused by itself
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        ring = error.args[1][::-1]
        raise InvalidJob(f"{ring[0]} waits for itself: {', '.join(ring)}") from None


def _parents(record: Mapping[str, Any]) -> dict[str, str]:
    """Return the jobs for which a job waits, each with the field that names it. A wrong value is refused later."""
    found: dict[str, str] = {}
    for kind in conditions.FIELDS:
        value = record.get(kind) or ()
        for one in (value,) if isinstance(value, str) else value if isinstance(value, list) else ():
            if isinstance(one, str) and is_id(one):
                found.setdefault(one, kind)
    return found
