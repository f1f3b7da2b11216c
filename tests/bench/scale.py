"""How much is measured."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """Sizes of everything that is measured.

    Attributes:
        samples: repetitions of what takes milliseconds.
        starts: jobs whose way to their first instruction is timed, in each scenario.
        rounds: repetitions of what takes seconds.
        idle: seconds over which idle workers are watched.
        files: jobs dropped by hand.
        bulk: jobs in one NDJSON file.
        verbs: jobs that are changed at once.
        drain: jobs in a drain.
        laps: drains of each kind; many short ones, so that each has its rival close beside it.
        naps: jobs a worker sleeps through.
        workers: how many workers sleep side by side.
        slots: jobs that one worker runs at once.
        crowd: the same, as many as anybody would.
        lanes: numbers of queues with work at which a claim is compared with that of one.
        graph: jobs that wait for some others each.
        siblings: jobs for which one job waits, and jobs that wait for one.
        rules: rules with a time.
        ticks: moments of a rule whose lateness is measured.
        watched: files in a folder that a rule watches.
        backlogs: numbers of waiting jobs at which the cost of one is compared, least first.
        probe: jobs that are worked off, and handed over again, at each of these.
        peers: jobs handed to each of the other programs.
        sites: numbers of jobs in the spools that are looked at in a browser, least first.
        cluster: short jobs on a cluster.
        cluster_naps: jobs there that sleep.
        cluster_starts: jobs there whose way to their first instruction is timed.
    """

    samples: int = 60
    starts: int = 200
    rounds: int = 3
    idle: float = 10
    files: int = 100_000
    bulk: int = 100_000
    verbs: int = 10_000
    drain: int = 1000
    laps: int = 9
    naps: int = 40
    workers: tuple[int, ...] = (1, 2, 4, 8, 16, 64)
    slots: int = 64
    crowd: int = 500
    lanes: tuple[int, ...] = (5, 20, 100)
    graph: int = 20_000
    siblings: int = 10_000
    rules: int = 1000
    ticks: int = 20
    watched: int = 100_000
    backlogs: tuple[int, ...] = (1000, 10_000, 100_000, 1_000_000)
    probe: int = 400
    peers: int = 500
    sites: tuple[int, ...] = (1000, 200_000, 1_000_000)
    cluster: int = 600
    cluster_naps: int = 240
    cluster_starts: int = 10


TINY = Scale(
    samples=3,
    starts=3,
    rounds=1,
    idle=0.3,
    files=30,
    bulk=30,
    verbs=30,
    drain=20,
    laps=1,
    naps=2,
    workers=(1, 2),
    slots=3,
    crowd=4,
    lanes=(2,),
    graph=30,
    siblings=20,
    rules=20,
    ticks=2,
    watched=30,
    backlogs=(20, 40),
    probe=8,
    peers=8,
    sites=(40, 80),
    cluster=6,
    cluster_naps=2,
    cluster_starts=2,
)
"""So little that the numbers mean nothing, and every line of the measurements has run."""
