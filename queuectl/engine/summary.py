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

_NODES_DOWN = "Nodes required for job are DOWN"
"""The beginning of the one reason of Slurm that is a sentence."""

_TOLD = (
    (
        (
            *(
                "PartitionConfig",
                "PartitionNodeLimit",
                "PartitionTimeLimit",
                "BadConstraints",
                "MaxMemPerLimit",
            ),
            *("AccountNotAllowed", "QOSNotAllowed", "InvalidAccount", "InvalidQOS", "ReservationDeleted"),
        ),
        "for what it may never have: {reason}",
    ),
    (("ReqNodeNotAvail", "NodesDown", "NodeDown"), "for nodes that are out of service: sinfo -R"),
    (("PartitionDown", "PartitionInactive"), "for a partition that starts nothing now: sinfo"),
    (("JobHeldAdmin", "JobHeldUser"), "as somebody holds it there: scontrol release"),
    (
        ("FAILED", "NODE_FAIL", "BOOT_FAIL", "OUT_OF_MEMORY"),
        "to be sent again, as no start came of it: queuectl engine check",
    ),
)
"""Reasons of Slurm for which a job may wait for ever, as a person has to do something, and what is told of them. All others
are usual on a full cluster, or limits of an account or QOS."""


def word_of(reason: str) -> str:
    """Return the reason without its details, like the names of nodes."""
    return "NodesDown" if reason.startswith(_NODES_DOWN) else reason.partition(",")[0]


def told_of(word: str) -> str | None:
    """Return what is told of a reason; None: nobody has to do anything."""
    # A limit for what one job may have does not become free.
    if word.endswith(("PerJob", "PerJobLimit", "PerNode")) or word.startswith("QOSMin"):
        return _TOLD[0][1]
    return next((text for words, text in _TOLD if word in words), None)


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
class Queued:
    """A pack for which no runner has come yet.

    Attributes:
        number: of the engine's job.
        reason: why it waits, in the engine's words; how its last start has ended; "": it has not said.
        jobs: the ids of its jobs.
    """

    number: str
    reason: str
    jobs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Summary:
    """What is out at one moment.

    Attributes:
        packs: how many packs.
        jobs: how many attempts of which no end is known.
        runners: how many are at work.
        idle: processors on which nothing runs; None: the engine has not answered yet.
        running: the attempts that run, by the id of the job.
        queued: the packs that wait, as far as the engine knows them.
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
    queued: tuple[Queued, ...] = ()
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
    queued: list[Queued] = []
    reasons: Counter[str] = Counter()
    jobs = runners = 0
    for handed in tracker.handed:
        jobs += len(handed.open)
        runners += handed.runners
        for number in handed.open & handed.claims.keys():
            if handed.claims[number] not in ("", DISPATCHER) and number not in handed.records:
                running[handed.pack.keys[number][0]] = _running(handed, number)
        if handed.rows and not handed.runners and (one := _queued(handed)):
            queued.append(one)
            if one.reason:
                reasons[word_of(one.reason)] += len(one.jobs)
    return Summary(
        tracker.packs,
        jobs,
        runners,
        tracker.idle,
        running,
        tuple(queued),
        dict(reasons),
        tuple(tracker.over()),
        tuple(tracker.unreadable.values()),
        tuple(sorted(job_id for job_id, _ in tracker.doubtful)),
    )


def _queued(handed: Handed) -> Queued | None:
    """What is known of a pack that nobody has begun; None: the engine does not say why."""
    pending = [row for row in handed.rows or () if row.state == "PENDING"]
    row = max(pending, key=lambda one: one.reason != "", default=None)
    reason = row.reason.strip("()") if row else ""
    last = handed.last_row
    if last is not None and not handed.is_live and last.state != "COMPLETED":
        # A node could not begin it, and it is sent again.
        row, reason = last, f"{last.state}, {last.reason}".removesuffix(", ")
    waiting = handed.open - handed.claims.keys() if row else ()
    if row is None or not waiting:
        return None
    return Queued(row.number, reason, tuple(handed.pack.keys[number][0] for number in waiting))


def _running(handed: Handed, number: int) -> Running:
    # A runner's name is node.number.pid, and a node's name may have dots.
    node, _, rest = handed.claims[number].rpartition(".")[0].rpartition(".")
    return Running(node, rest, handed.pack.path(f"{number}.out"))
