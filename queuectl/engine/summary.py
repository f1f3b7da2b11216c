"""What is out on an engine, in numbers and names: for the notes of a dispatcher, and for its decision how much to hand over."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from queuectl.engine.packs import DISPATCHER

if TYPE_CHECKING:
    from collections.abc import Mapping

    from queuectl.engine.handed import Handed
    from queuectl.engine.tracker import Tracker

NEVER = "PartitionConfig"
"""Slurm's reason for a job that wants what no node of its partition has. It may wait for ever: only an admin knows."""

DRAINED = "ReqNodeNotAvail"
"""The beginning of Slurm's reason for a job whose nodes are out of service."""


@dataclass(frozen=True, slots=True)
class Running:
    """An attempt that runs.

    Attributes:
        node: the name of the node.
        number: of the engine's job.
        output: the path of what it prints on stdout; `.err` instead of `.out`: on stderr.
    """

    node: str
    number: str
    output: str


@dataclass(frozen=True, slots=True)
class Summary:
    """What is out at one moment.

    Attributes:
        packs: how many packs.
        jobs: how many attempts of which no end is known.
        runners: how many are at work.
        idle: processors on which nothing runs; None: the engine has not answered yet.
        running: the attempts that run, by the id of the job.
        reasons: why attempts wait, by the engine's word: how many.
        over: the packs of which all outcomes are recorded.
        unreadable: why packs are left alone.
        doubtful: the ids of the jobs that may be in one of these; they count in no other number.
    """

    packs: int = 0
    jobs: int = 0
    runners: int = 0
    idle: int | None = None
    running: Mapping[str, Running] = field(default_factory=dict)
    reasons: Mapping[str, int] = field(default_factory=dict)
    over: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()
    doubtful: tuple[str, ...] = ()

    @property
    def waiting(self) -> int:
        """How many attempts wait there."""
        return max(0, self.jobs - len(self.running))

    @property
    def in_words(self) -> str:
        """How many run and wait, and why, in a line."""
        return in_words(self.jobs, len(self.running), self.reasons)


def in_words(jobs: int, running: int, reasons: Mapping[str, int]) -> str:
    """Say how many attempts run and wait, and why, in a line."""
    text = f"{running:,} run, {max(0, jobs - running):,} wait there"
    told = sorted(reasons.items(), key=lambda one: (-one[1], one[0]))[:3]
    return f"{text} ({', '.join(f'{name} {number:,}' for name, number in told)})" if told else text


def summarize(tracker: Tracker) -> Summary:
    """Return what is out now, by the last look."""
    running: dict[str, Running] = {}
    reasons: Counter[str] = Counter()
    jobs = runners = 0
    for handed in tracker.handed:
        jobs += len(handed.open)
        runners += handed.runners
        for number in handed.open & handed.claims.keys():
            if handed.claims[number] not in ("", DISPATCHER) and number not in handed.records:
                running[handed.pack.keys[number][0]] = _running(handed, number)
        waiting = len(handed.open - handed.claims.keys())
        reason = next((row.reason for row in handed.rows or () if row.state == "PENDING" and row.reason), "")
        if waiting and reason and not handed.runners:
            reasons[reason.strip("()").partition(",")[0]] += waiting
    return Summary(
        tracker.packs,
        jobs,
        runners,
        tracker.idle,
        running,
        dict(reasons),
        tuple(tracker.over()),
        tuple(tracker.unreadable.values()),
        tuple(sorted(job_id for job_id, _ in tracker.doubtful)),
    )


def _running(handed: Handed, number: int) -> Running:
    # A runner's name is node.number.pid, and a node's name may have dots.
    node, _, rest = handed.claims[number].rpartition(".")[0].rpartition(".")
    return Running(node, rest, handed.pack.path(f"{number}.out"))
