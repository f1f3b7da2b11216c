"""What is told of engines, on which jobs run elsewhere: what is out there, and whether somebody collects it."""

from __future__ import annotations

import os

from queuectl.control import dispatched, registry
from queuectl.layout import ENGINES, is_engine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from queuectl.api.spool_base import SpoolBase
    from queuectl.config.settings import Settings
    from queuectl.control.registry import WorkerInfo
    from queuectl.job.record import Job
    from queuectl.layout import Layout


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
    try:
        has_files = bool(os.listdir(spool.layout.queues))
    except OSError:
        has_files = False  # a spool of an earlier version has no such folder
    if settings.engine != engine and not has_files:
        return 0
    from queuectl.errors import ConfigError
    from queuectl.storage.queue_state import QueueView

    try:
        view = QueueView(spool.layout, spool._index, settings)
        counts = spool._ask(lambda: view.counts)
    except ConfigError:
        return 0  # another note tells of it
    return sum(count.waiting for name, count in counts.items() if view.engine_of(name) == engine)


def place(layout: Layout, job: Job) -> str:
    """Say where a job of an engine is now; "" for any other job."""
    if job.state != "processing" or not is_engine(job.worker or ""):
        return ""
    engine = job.worker or ""
    run = dispatched.read(layout, engine).get(job.id or "")
    return f"{engine}, waits there" if run is None else f"{engine}, job {run.number}, node {run.node}"
