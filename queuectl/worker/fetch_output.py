"""What runs on a cluster have printed: copied from the shared folder into logs/, by the thread that may hang there.

A pause must be heeded, and a dispatcher must be able to stop, while the file server of the share is away. So the main
thread reads nothing there, not even the output of a run that has ended.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from queuectl.engine.handed import Ended, Lost
from queuectl.storage import job_logs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from queuectl.engine.handed import Event, Key
    from queuectl.job.record import Job
    from queuectl.layout import Layout
    from queuectl.storage.transitions import Claim


def with_output(events: Iterable[Event], claims: Mapping[Key, Claim]) -> list[tuple[Ended | Lost, Job]]:
    """Return the ends of runs whose output lies in the share, of claimed jobs, each with its job."""
    return [
        (event, claims[event.key].job)
        for event in events
        if isinstance(event, Ended | Lost) and event.output is not None and event.key in claims
    ]


def fetch(
    layout: Layout, printed: Iterable[tuple[Ended | Lost, Job]], limit: int, say: Callable[[str], None]
) -> Sequence[Event]:
    """Copy the output of runs, and return their ends with the bytes that were copied.

    Args:
        limit: bytes of each stream that the job's record repeats.
        say: takes a line for each output that cannot be kept. Its run is recorded all the same.
    """
    fetched: list[Event] = []
    for event, job in printed:
        sizes = None
        try:
            sizes = job_logs.copy_output(layout, job, event.output or (), limit=limit)
        except OSError as error:
            say(f"cannot keep the output of {job.id}: {(error.strerror or str(error)).lower()}")
        fetched.append(replace(event, output=None, printed=sizes))
    return fetched
