"""What a dispatcher tells others, in its record and beside it: what runs where, and what is wrong."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

from queuectl.control import dispatched
from queuectl.control.dispatched import RunThere, WaitThere
from queuectl.engine.summary import told_of
from queuectl.job import times
from queuectl.worker import dispatch_check

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from queuectl.engine.summary import Summary
    from queuectl.worker.dispatcher import Dispatcher

LATE = 10.0
"""Seconds after which it is told that the share, or the engine, does not answer."""


class Reporter:
    """Tells what a dispatcher has out, and what is wrong.

    Args:
        say: called with a line for the log, when something becomes wrong, and when it is over.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._told: set[str] = set()

    def report(self, dispatcher: Dispatcher) -> None:
        """Write down what is out, and what is wrong. It is called once a second.

        Raises:
            OSError: the disk refused.
        """
        found = troubles(dispatcher)
        dispatcher.upkeep.note("troubles", "\n".join(found) or None)
        self._tell(found)
        _write(dispatcher)

    def _tell(self, found: list[str]) -> None:
        """Log what is new. A sentence in which only a number or a moment has changed is not new."""
        kinds = {_DIGITS.sub("0", text): text for text in found}
        for kind, text in kinds.items():
            if kind not in self._told:
                self._say(text)
        if self._told and not kinds:
            self._say("nothing is wrong any more")
        self._told = {*kinds}


_DIGITS = re.compile(r"[0-9][0-9,:. -]*")


def _write(dispatcher: Dispatcher) -> None:
    note, share = dispatcher.upkeep.note, dispatcher.share
    summary = share.summary if share is not None else None
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
    waits = ((WaitThere(one.number, one.reason), one.jobs) for one in summary.queued)
    dispatched.write_waiting(dispatcher.layout, dispatcher.name, waits)


def troubles(dispatcher: Dispatcher) -> list[str]:
    """Return what keeps jobs from being handed over, or collected: a sentence for each, each of them true now."""
    found: list[str] = []
    name, share, now = dispatcher.name, dispatcher.share, time.monotonic()
    folder = dispatcher.settings.slurm_dir or "slurm_dir"
    if dispatcher.trouble_of_share is not None:  # until it is open again, also while that is tried
        found.append(
            f"{name} cannot use the shared folder: {dispatch_check.fault_of(dispatcher.trouble_of_share)}"
        )
    if share is None:
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
        found += waits_in_words(name, share.summary.reasons) + _unreadable(name, share.summary)
    return found


def waits_in_words(name: str, reasons: Mapping[str, int]) -> list[str]:
    """Return what is told of the reasons for which jobs wait on an engine, one sentence for each cure.

    Args:
        reasons: how many jobs, by the reason.
    """
    found: dict[str, tuple[int, list[str]]] = {}
    for reason, number in sorted(reasons.items()):
        if text := told_of(reason):
            known, words = found.get(text, (0, []))
            found[text] = known + number, [*words, reason]
    return [
        f"{_jobs(number)} in {name} {text.format(reason=', '.join(words))}"
        for text, (number, words) in found.items()
    ]


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
