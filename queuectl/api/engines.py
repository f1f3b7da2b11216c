"""What is told of engines, on which jobs run elsewhere: what is out there, and whether somebody collects it."""

from __future__ import annotations

import os
from contextlib import suppress

from queuectl.control import dispatched, registry
from queuectl.errors import ConfigError
from queuectl.index import lanes
from queuectl.layout import ENGINES, is_engine
from queuectl.storage.queue_state import QueueView

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from queuectl.api.spool_base import SpoolBase
    from queuectl.config.settings import Settings
    from queuectl.control.registry import WorkerInfo
    from queuectl.job.record import Job
    from queuectl.layout import Layout


_ASKED = 100
"""How many jobs are asked on which engine they run: each costs a look into the index."""


def notes(spool: SpoolBase, settings: Settings, workers: list[WorkerInfo]) -> list[str]:
    """Return what is wrong with the engines of a spool, for `status`."""
    found = [line for worker in workers for line in worker.troubles]
    alive = {worker.name for worker in workers}
    for engine in ENGINES:
        if engine in alive:
            continue
        how = f"queuectl worker start --engine {engine}"
        if out := registry.claimed_for(spool.layout, engine):
            jobs, them = ("1 job is", "it") if len(out) == 1 else (f"{len(out)} jobs are", "them")
            found.append(
                f"{jobs} out on {engine}, and no dispatcher runs that collects what becomes of {them}: {how}"
            )
        if waiting := _waiting(spool, settings, engine):
            jobs = "1 job waits" if waiting == 1 else f"{waiting} jobs wait"
            found.append(f"{jobs} for {engine}, and no dispatcher runs: {how}")
    return found


def _waiting(spool: SpoolBase, settings: Settings, engine: str) -> int:
    """Return how many jobs wait in the queues of an engine. Where no queue has one, nothing is loaded and counted."""
    if settings.engine != engine and not _has_queue_files(spool):
        return 0
    try:
        view = QueueView(spool.layout, spool._index, settings)
        counts = spool._ask(lambda: view.counts)
    except ConfigError:
        return 0  # another note tells of it
    return sum(count.waiting for name, count in counts.items() if view.engine_of(name) == engine)


def _has_queue_files(spool: SpoolBase) -> bool:
    try:
        return bool(os.listdir(spool.layout.queues))
    except OSError:
        return False  # a spool of an earlier version has no such folder


def missing(spool: SpoolBase, ids: Sequence[str], workers: list[WorkerInfo]) -> str | None:
    """Return the engine on which all of these jobs run, if its dispatcher does not; None: something else is the case."""
    alive = {worker.name for worker in workers}
    with suppress(ConfigError):
        settings = spool.settings()
        if settings.engine in ENGINES or _has_queue_files(spool):
            view = QueueView(spool.layout, spool._index, settings)
            with spool._lock:
                rows = spool._ask(lambda: spool._index.rows_of(list(ids)[:_ASKED]))
            found = {view.engine_of(lanes.queue_of(row.lane)) for row in rows.values()}
            if len(found) == 1 and len(ids) <= _ASKED:
                engine = found.pop()
                return engine if engine in ENGINES and engine not in alive else None
    return None


def place(layout: Layout, job: Job) -> str:
    """Say where a job of an engine is now; "" for any other job."""
    if job.state != "processing" or not is_engine(job.worker or ""):
        return ""
    engine = job.worker or ""
    run = dispatched.read(layout, engine).get(job.id or "")
    return f"{engine}, waits there" if run is None else f"{engine}, job {run.number}, node {run.node}"
