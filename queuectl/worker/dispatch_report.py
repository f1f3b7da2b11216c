"""What a dispatcher tells others, in its record and beside it: what runs where, and what is wrong."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from queuectl.control import dispatched
from queuectl.control.dispatched import RunThere
from queuectl.engine.summary import DRAINED, NEVER
from queuectl.job import times
from queuectl.worker import dispatch_check

if TYPE_CHECKING:
    from collections.abc import Callable

    from queuectl.engine.summary import Summary
    from queuectl.worker.dispatcher import Dispatcher

LATE = 10.0
"""Seconds after which it is told that the share, or the engine, does not answer."""


def report(dispatcher: Dispatcher) -> None:
    """Write down what is out, and what is wrong. It is called once a second.

    Raises:
        OSError: the disk refused.
    """
    note, share = dispatcher.upkeep.note, dispatcher.share
    summary = share.summary if share is not None else None
    note("troubles", "\n".join(troubles(dispatcher)) or None)
    if summary is None:
        return
    note("engine", summary.in_words if summary.jobs else None)
    note("handed", summary.jobs or None)
    now, before = time.time(), dispatcher.running
    dispatcher.running = {
        job_id: before[job_id]
        if job_id in before and before[job_id].output == one.output
        else RunThere(one.node, one.number, one.output, now)
        for job_id, one in summary.running.items()
    }
    dispatched.write(dispatcher.layout, dispatcher.name, dispatcher.running)


def troubles(dispatcher: Dispatcher) -> list[str]:
    """Return what keeps jobs from being handed over, or collected: a sentence for each, each of them true now."""
    found: list[str] = []
    name, share, now = dispatcher.name, dispatcher.share, time.monotonic()
    folder = dispatcher.settings.slurm_dir or "slurm_dir"
    if share is None:
        if dispatcher.trouble_of_share is not None:
            found.append(
                f"{name} cannot use the shared folder: {dispatch_check.fault_of(dispatcher.trouble_of_share)}"
            )
        return found
    busy_since = share.busy_since
    if busy_since is not None and now - busy_since > LATE:
        found.append(f"{folder} has not answered since {_moment(busy_since, now)}")
    if share.danger:
        found.append(f"{name} starts nothing: {share.danger}")
    if dispatcher.has_moved:
        found.append("slurm_dir is another folder now; it counts when nothing is out in the old one any more")
    connection = dispatcher.connection
    if connection is not None and connection.trouble and now - connection.answered_at > LATE:
        since = _moment(connection.answered_at, now)
        found.append(f"{name} has not answered since {since}; nothing is lost, running jobs are collected")
    if (rest := dispatcher.pace.rests_until) > now:
        jobs = (
            "1 of our jobs" if dispatcher.pace.cancelled == 1 else f"{dispatcher.pace.cancelled} of our jobs"
        )
        found.append(f"{name}: somebody cancelled {jobs}; feeding again at {_moment(rest, now)}")
    if share.summary is not None:
        found += _reasons(name, share.summary) + _unreadable(name, share.summary)
    return found


def _reasons(name: str, summary: Summary) -> list[str]:
    found = []
    if number := summary.reasons.get(NEVER):
        found.append(f"{_jobs(number)} in {name} for what it may never have: {NEVER}")
    if number := sum(many for reason, many in summary.reasons.items() if reason.startswith(DRAINED)):
        found.append(f"{_jobs(number)} in {name} for nodes that are out of service: sinfo -R")
    return found


def tell_what_stays(dispatcher: Dispatcher, say: Callable[[str], None]) -> None:
    """Say which claimed jobs a drain leaves behind, and why."""
    if dispatcher.share is not None and dispatcher.share.summary is not None:
        for line in _unreadable(dispatcher.name, dispatcher.share.summary):
            say(line)


def _unreadable(name: str, summary: Summary) -> list[str]:
    left = len(summary.doubtful)
    jobs = "1 job that may be in it stays" if left == 1 else f"{left} jobs that may be in it stay"
    return [
        f"{name} leaves alone: {reason}; {jobs} claimed until it is deleted" for reason in summary.unreadable
    ]


def _jobs(number: int) -> str:
    return "1 job waits" if number == 1 else f"{number} jobs wait"


def _moment(at: float, now: float) -> str:
    """The time of day of a monotonic moment."""
    return times.local(time.time() + at - now)
