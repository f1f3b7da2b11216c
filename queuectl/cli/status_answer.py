"""What `status` answers: the counts, the workers, and notes about the spool."""

from __future__ import annotations

from queuectl.api import json_view
from queuectl.cli import render
from queuectl.job.fields import STATES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from queuectl.api.spool import Spool
    from queuectl.control.registry import WorkerInfo


def write(spool: Spool, *, json: bool) -> None:
    """Print the status of a spool, and its notes on stderr.

    Args:
        json: print one JSON object with the same content instead.
    """
    counts = spool.counts()
    found = spool.workers()
    workers = [one for one in found if one.kind == "worker"]
    dispatchers = [one for one in found if one.kind == "dispatcher"]
    notes = spool.notes()
    if json:
        render.json_value(
            {
                "jobs": counts,
                "total": sum(counts.values()),
                "workers": len(workers),
                "slots": sum(worker.concurrency for worker in workers),
                "slots_used": sum(len(worker.jobs) for worker in workers),
                "dispatchers": [json_view.worker(one) for one in dispatchers],
                "spool": spool.layout.root,
                "index": spool.layout.index,
                "paused": json_view.pause(spool.paused()),
                "notes": notes,
            }
        )
        return
    alive = _alive(workers)
    if render.is_terminal():
        rows = [
            ("Total Jobs", str(sum(counts.values()))),
            *((_label(state), str(counts[state])) for state in STATES),
            ("Workers", alive),
            *((one.name.capitalize(), _there(one)) for one in dispatchers),
            ("Index", render.short_path(spool.layout.index)),
        ]
        render.table("QueueCTL System Status", ("Metric", "Value"), rows)
    else:
        render.line(f"jobs: {counts}")
        render.line(f"workers: {alive}")
        for one in dispatchers:
            render.line(f"{one.name}: {_there(one)}")
    for text in notes:
        render.note(f"note: {text}")


def _alive(workers: list[WorkerInfo]) -> str:
    """How many workers there are, and what they do. Slots are named where a worker has several."""
    if not workers:
        return "0"
    busy = sum(worker.job_id is not None for worker in workers)
    slots = sum(worker.concurrency for worker in workers)
    used = sum(len(worker.jobs) for worker in workers)
    several = slots > len(workers) or used > busy
    return f"{len(workers)} ({busy} busy{f', {used} of {slots} slots' if several else ''})"


def _there(dispatcher: WorkerInfo) -> str:
    """What the jobs of a dispatcher do where they are."""
    return dispatcher.engine or "no job is there"


def _label(state: str) -> str:
    return "Dead (DLQ)" if state == "dead" else state.capitalize()
