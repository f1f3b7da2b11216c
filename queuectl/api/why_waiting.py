"""Why a job does not run yet, in sentences: see `Spool.why_waiting`."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

from queuectl.api import dependencies, job_files, listing, places, queues, status
from queuectl.control import pause, registry
from queuectl.errors import ConfigError, JobNotFound, SpoolError
from queuectl.job import times
from queuectl.job.fields import WAITING
from queuectl.layout import LOCAL

if TYPE_CHECKING:
    from collections.abc import Iterator

    from queuectl.api.spool_base import SpoolBase
    from queuectl.index.row import Row
    from queuectl.job.record import Job


def sentences(spool: SpoolBase, job_id: str) -> list[str]:
    """Return what keeps a waiting job from starting, what a person must mend first; nothing for other jobs.

    Raises:
        JobNotFound: there is no such job.
    """
    job = job_files.current(spool, job_id)
    if job.state not in WAITING:
        return []
    row: Row | None = None
    with suppress(JobNotFound):  # it has just been deleted
        row = listing.one(spool, job_id)
    return [*_of_job(spool, job), *_of_time(job), *_of_queue(spool, row), *of_spool(spool, row)]


def _of_job(spool: SpoolBase, job: Job) -> Iterator[str]:
    if job.hold:
        yield "it is held until somebody releases it"
    for one in dependencies.waits_for(spool, job)[: dependencies.SHOWN]:
        yield f"it waits for {one}"
    if job.unique:
        key = job.unique
        for row in spool._ask(lambda: spool._index.with_key(key, "processing")):
            yield f"job {row.id} runs and has the same unique key"


def _of_time(job: Job) -> Iterator[str]:
    now = time.time()
    if job.state == "failed" and (job.next_retry_at or 0) > now:
        yield f"its last attempt failed; the next one is at {times.local(job.next_retry_at or 0)}"
    elif (job.run_at or 0) > now:
        yield f"it starts at {times.local(job.run_at or 0)} or later"


def _of_queue(spool: SpoolBase, row: Row | None) -> Iterator[str]:
    if row is None or row.ready_key is None:
        return
    with suppress(ConfigError), spool._lock:  # `settings_fault` tells of it
        for why in queues.closed_lanes(spool, {row.lane}).values():
            yield f"queue {why}"


def of_spool(spool: SpoolBase, row: Row | None) -> Iterator[str]:
    """Yield what keeps this job and others from starting: a pause, no worker, or workers that start nothing."""
    if found := pause.read(spool.layout):
        yield found.sentence
    alive = registry.live_workers(spool.layout)
    engine = LOCAL if row is None else places.Places(spool).of_row(row).engine
    if engine != LOCAL:
        dispatcher = next((one for one in alive if one.name == engine), None)
        yield from (f"no dispatcher of {engine} runs",) if dispatcher is None else dispatcher.troubles
        return
    workers = [one for one in alive if one.kind == "worker"]
    with suppress(ConfigError, SpoolError, OSError):  # `status` tells of it
        if blocked := status.start_obstacle(spool.layout, spool.settings()):
            yield blocked
    if not workers:
        yield "no worker runs"
    elif row is not None and row.ready_key is not None and not any(one.free for one in workers):
        yield "all workers are busy"
