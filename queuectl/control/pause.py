"""Pause a spool and know that it is: every worker says in its record that it starts nothing more."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

from queuectl.control import pause_file, registry
from queuectl.errors import StillUnderWay

if TYPE_CHECKING:
    from collections.abc import Callable

    from queuectl.layout import Layout

_POLL = 0.05
_TELL_EVERY = 5.0


def pause(layout: Layout, reason: str, *, patience: float) -> list[str]:
    """Pause, and wait until each worker has taken notice; returns those that have not within so many seconds.

    Who comes later looks for the marker before it starts anything.
    """
    pause_file.begin(layout, reason)
    registry.hurry(layout)
    end = time.monotonic() + patience
    deaf = [worker.name for worker in registry.living(layout)]
    while (deaf := [name for name in deaf if _may_start(layout, name)]) and time.monotonic() < end:
        time.sleep(_POLL)
    return deaf


def resume(layout: Layout) -> bool:
    """Let the workers go on; False when the spool was not paused.

    Raises:
        SpoolError: the file cannot be removed.
    """
    was_paused = pause_file.end(layout)
    if was_paused:
        registry.hurry(layout)
    return was_paused


def _may_start(layout: Layout, name: str) -> bool:
    """Whether a worker lives and does not know yet. That it knew of an earlier pause means nothing."""
    found = None
    with suppress(OSError):
        found = pause_file.read(layout)
    if found is not None and registry.look(layout, name).pause_seen == found.mark:
        return False
    # Nor does one know that is told to stop: it may not have read that yet.
    return any(worker.name == name for worker in registry.living(layout))


def drain(layout: Layout, reason: str, *, timeout: float | None, tell: Callable[[list[str]], None]) -> None:
    """Pause, and wait until nothing runs.

    Raises:
        StillUnderWay: some jobs run still.
    """
    began = time.monotonic()
    end = None if timeout is None else began + timeout
    pause_file.begin(layout, reason)
    registry.hurry(layout)
    tell_at = began + _TELL_EVERY
    while True:
        # In this order: who has taken notice can have begun nothing since.
        deaf = [worker.name for worker in registry.living(layout) if _may_start(layout, worker.name)]
        jobs = running(layout)
        if not deaf and not jobs:
            return
        now = time.monotonic()
        if end is not None and now >= end:
            raise StillUnderWay(_still(jobs, deaf), jobs, hint="queuectl worker list")
        if now >= tell_at:
            tell_at = now + _TELL_EVERY
            tell(jobs)
        time.sleep(_POLL if now - began < _TELL_EVERY else 4 * _POLL)


def running(layout: Layout) -> list[str]:
    """The jobs that run, those of workers that are gone included."""
    living = [worker.job_id for worker in registry.living(layout) if worker.job_id]
    return [*living, *(job_id for _, job_id in registry.haunted(layout))]


def _still(jobs: list[str], deaf: list[str]) -> str:
    if jobs:
        more = f" and {len(jobs) - 3} more" if len(jobs) > 3 else ""
        return f"still running: {', '.join(jobs[:3])}{more}; the spool stays paused"
    return f"{', '.join(deaf)} may still start a job; the spool stays paused"
