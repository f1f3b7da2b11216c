"""What is told of engines, on which jobs run elsewhere: what is out there, and whether somebody collects it."""

from __future__ import annotations

from contextlib import suppress

from queuectl.api import queues
from queuectl.api.places import Places
from queuectl.control import registry
from queuectl.errors import ConfigError
from queuectl.layout import ENGINES, LOCAL
from queuectl.storage.queue_state import QueueView

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from queuectl.api.spool_base import SpoolBase
    from queuectl.config.settings import Settings
    from queuectl.control.registry import WorkerInfo


_ASKED = 100
"""How many jobs are asked on which engine they run: each costs a look into the index."""

_USUAL = ("Resources", "Priority", "None")
"""Reasons for which everybody's jobs wait on a cluster: nobody has to do anything."""


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
    if settings.engine != engine and not queues.have_files(spool):
        return 0
    try:
        view = QueueView(spool.layout, spool._index, settings)
        counts = spool._ask(lambda: view.counts)
    except ConfigError:
        return 0  # another note tells of it
    return sum(count.waiting for name, count in counts.items() if view.engine_of(name) == engine)


def of_all(spool: SpoolBase, ids: Sequence[str]) -> str | None:
    """Return the engine on which all of these jobs run, or will run; None: several, or too many jobs to ask each."""
    with suppress(ConfigError):
        if spool.settings().engine == LOCAL and not queues.have_files(spool):
            return LOCAL
        with spool._lock:
            rows = spool._ask(lambda: spool._index.rows_of(list(ids)[:_ASKED]))
        places = Places(spool)
        found = {places.of_row(row).engine for row in rows.values()}
        return found.pop() if len(found) == 1 and len(ids) <= _ASKED else None
    return None


def obstacle(spool: SpoolBase, engine: str, ids: Sequence[str], workers: Sequence[WorkerInfo]) -> str | None:
    """Return what keeps all of these jobs from running on an engine, in a line; None: nothing, or what is usual there."""
    dispatcher = next((one for one in workers if one.name == engine), None)
    if dispatcher is None:
        return f"no dispatcher of {engine} runs: queuectl worker start --engine {engine}"
    with spool._lock:
        rows = spool._ask(lambda: spool._index.rows_of(list(ids)[:_ASKED]))
    places = Places(spool).by_id(rows.values())
    reasons = {place.engine_reason for place in places.values()}
    if len(reasons) != 1 or (reason := reasons.pop()) is None or reason in _USUAL:
        return None
    jobs = "it waits" if len(ids) == 1 else "they wait"
    return f"{jobs} in {engine}: {reason}"


def are_used(spool: SpoolBase) -> bool:
    """Return whether an engine is set up in this spool, or has jobs of it."""
    with suppress(ConfigError):  # another note tells of it
        if spool.settings().slurm_dir is not None:
            return True
    return any(registry.claimed_for(spool.layout, engine) for engine in ENGINES)
