"""Enqueue jobs that wait for others: all of a list is checked before the first of them is queued."""

from __future__ import annotations

import time
from itertools import chain, islice
from typing import TYPE_CHECKING

from queuectl.api.enqueue import prepare, read
from queuectl.errors import DuplicateId, NeverStarts, QueuectlError
from queuectl.job import conditions
from queuectl.job.fields import BATCH
from queuectl.storage.dependencies import RING_STEPS, unknown

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from queuectl.api.spool_base import SpoolBase
    from queuectl.job.record import Job

    Record = Mapping[str, Any]

_RING_SHOWN = 20
"""Jobs of a ring that are named: it may be a list of a hundred thousand, each after the next."""


def admit(spool: SpoolBase, job: Job) -> None:
    """Check that a job which waits for others could start one day.

    Raises:
        NeverStarts: a job that it names does not exist, or it would wait for itself through others.
    """
    from queuectl.storage import dependencies

    try:
        dependencies.refuse_unknown(spool._storage, job)
    except NeverStarts:
        spool._mirror()  # where a file has another name than its job, only a scan finds it
        dependencies.refuse_unknown(spool._storage, job)
    dependencies.refuse_ring(spool._storage, job)


def checked(
    spool: SpoolBase, records: Iterator[Record], common: Record, size: int | None
) -> Iterator[Record]:
    """Yield the jobs of a list, unchanged. If one of them waits for another, all are checked before they are yielded.

    Half of a pipeline would be worse than none: it cannot be enqueued again, as its ids are taken.

    Args:
        common: fields that every job gets.
        size: how many jobs the caller enqueues together. A stream may never end: so many are read, and if one of them waits,
            all that follow. Jobs that came before these are enqueued already. None: read all.

    Raises:
        InvalidJob, DuplicateId: one of them is wrong.
        NeverStarts: one of them waits for a job that does not exist, or for itself.
    """
    seen: set[str] = set()
    before = 0
    while True:
        found: list[Record] = []
        failure: QueuectlError | None = None
        try:
            found.extend(islice(records, size))
        except QueuectlError as error:
            failure = error
        if any(_waits(record, common) for record in found):
            if failure is not None:
                raise failure
            found.extend(records)
            _Check(spool, common, seen, before).of(found)
            size = None
        yield from found
        if failure is not None:
            raise failure
        if size is None or len(found) < size:
            return
        before += size
        seen.update(str(record.get("id", "")) for record in found)


def is_pipeline(jobs: object, common: Record) -> bool:
    """Return whether the caller has all of the jobs in memory, and one of them waits for others."""
    return isinstance(jobs, list | tuple) and any(
        isinstance(job, dict) and _waits(job, common) for job in jobs
    )


def _waits(record: Record, common: Record) -> bool:
    return any(common.get(kind) or record.get(kind) for kind in conditions.FIELDS)


class _Check:
    """The check of jobs that are enqueued together.

    Args:
        seen: the ids of jobs of the same list that have no conditions and need no check.
        before: how many those are.
    """

    def __init__(self, spool: SpoolBase, common: Record, seen: set[str], before: int = 0) -> None:
        self._spool, self._common = spool, common
        self._seen, self._before = seen, before
        self._now = time.time()
        self._defaults = spool._job_defaults()
        self._graph: dict[str, list[str]] = {}
        self._batches: dict[str, list[str]] = {}

    def of(self, records: list[Record]) -> None:
        """Check them.

        Raises:
            InvalidJob, DuplicateId, NeverStarts: see `checked`.
        """
        for number, record in enumerate(records):
            try:
                self._add(record, number)
            except QueuectlError as error:
                error.position = self._before + number
                raise
        self._refuse_unknown()
        self._graph.update(self._batches)
        self._refuse_ring()

    def _add(self, record: Record, number: int) -> None:
        full = {**record, **self._common} if self._common else record
        # The whole preparation takes four times as long, and is done again for the file. Only it knows the resources.
        job = prepare(full, self._defaults).job if full.get("needs") else read(full, self._now)
        given = full.get("id")
        if given is not None and (given in self._graph or given in self._seen):
            error = DuplicateId(given, "earlier in the same list")
            error.hint = None  # none of them is queued
            raise error
        name = given or f"job {number}"  # no id has a space
        parents = [parent for _, parent in conditions.named(job)]
        self._graph[name] = parents
        batch = f"{BATCH}{job.batch}"
        if job.batch is not None and batch not in parents:
            self._batches.setdefault(batch, []).append(name)

    def _refuse_unknown(self) -> None:
        """Refuse a parent that is nowhere. A parent in the spool may wait for jobs of the list, through others."""
        known = self._graph.keys() | self._seen
        line = [
            parent
            for parent in dict.fromkeys(chain.from_iterable(self._graph.values()))
            if parent not in known and not parent.startswith(BATCH)
        ]
        for parent in line:
            if not self._exists(parent):
                raise unknown(parent)
        for number, job_id in enumerate(line):
            if number >= RING_STEPS:
                break  # doctor finds the rest
            if job_id not in self._graph:
                self._graph[job_id] = self._waits_of(job_id)
                line.extend(self._graph[job_id])

    def _exists(self, job_id: str) -> bool:
        from queuectl.storage import locate

        with self._spool._lock:
            if locate.state_of(self._spool._storage, job_id) is not None:
                return True
            self._spool._mirror()
            return locate.state_of(self._spool._storage, job_id) is not None

    def _waits_of(self, job_id: str) -> list[str]:
        index = self._spool._index
        return self._spool._ask(lambda: index.waits_of(job_id)) if index.usable else []

    def _refuse_ring(self) -> None:
        from graphlib import CycleError, TopologicalSorter

        try:
            TopologicalSorter(self._graph).prepare()
        except CycleError as error:
            [*ring] = error.args[1][-1:0:-1]
            places = {name: place for place, name in enumerate(self._graph)}
            first = min(range(len(ring)), key=lambda at: places[ring[at]])
            way = [*ring[first:], *ring[:first], ring[first]]
            if len(way) > _RING_SHOWN:
                way[_RING_SHOWN // 2 : -_RING_SHOWN // 2] = [f"{len(way) - _RING_SHOWN} more"]
            raise NeverStarts(f"{way[0]} waits for itself: {', '.join(way)}") from None
