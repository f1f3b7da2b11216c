"""All peers in turn, and what came of it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from . import install, library, ours, shell
from .race import COMMANDS, WORKERS, race
from .tables import Samples, ratios, table

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from .race import Lap, Peer
    from .scale import Scale

OURS = ours.InProcess()


class ByHand:
    """What a careful program does by itself: the yardstick of handing over."""

    name = "by hand: write, fsync, rename, fsync of the folder"
    records = "runs nothing"
    durable = "file and folder"
    client = "Python"
    runs = False
    most = 1_000_000

    def missing(self) -> str:
        """Nothing."""
        return ""

    def hand(self, root: Path, commands: Sequence[str]) -> float:
        """A file for each."""
        from .handing import careful, make

        return make(root, [f"{number}.json" for number in range(len(commands))], b"x" * 400, careful)

    def work(self, root: Path) -> None:
        """Nothing."""

    def close(self, root: Path) -> None:
        """Nothing runs."""


RUNNERS: tuple[Peer, ...] = (
    shell.Xargs(),
    OURS,
    shell.Parallel(),
    shell.ParallelResults(),
    shell.TaskSpooler(),
    shell.Nq(),
    shell.Filespooler(),
    library.HueySqlite(),
    library.HueyFile(),
    library.RqSimple(),
    library.RqFork(),
    library.RqSynced(),
    library.CeleryRedis(),
    library.CeleryThreads(),
    library.CeleryFiles(),
)
KEEPERS: tuple[Peer, ...] = (
    ByHand(),
    ours.ByCommand(),
    library.PersistQueueFile(),
    library.PersistQueueSqlite(),
    library.Dirq(),
)


def peers(scale: Scale, folder: Path) -> None:
    """(q) The same commands through every peer: the drain, and the handing over."""
    print(f"\npeers: {install.versions() or 'none installed'}; {os.cpu_count()} cores", flush=True)
    handed: dict[str, list[Lap] | str] = {}
    for command in (COMMANDS[0], COMMANDS[2]):
        # Handing over is compared once, all in one race: what was measured minutes apart has no ratio.
        laps = race(RUNNERS if handed else (*KEEPERS, *RUNNERS), folder, command, scale.peers, scale.rounds)
        handed = handed or laps
        _drained(command, laps, scale)
    _handed(handed)


def _drained(command: str, laps: dict[str, list[Lap] | str], scale: Scale) -> None:
    mine = _rates(laps[OURS.name])
    floor = _rates(laps[RUNNERS[0].name])
    rows = []
    for peer in RUNNERS:
        found = laps[peer.name]
        if isinstance(found, str):
            rows.append([peer.name, found, "", "", "", peer.records])
            continue
        rates = _rates(found)
        # Some have done part of the work when they have taken a job: its process is there already, and waits.
        whole = [1 / (1 / rate + lap.took / lap.jobs) for rate, lap in zip(rates, found, strict=True)]
        both = Samples(whole).cell("/s") if peer.client else "takes none"
        ratio = [_over(rates, floor), _over(mine, rates)]
        rows.append([peer.name, Samples(rates).cell("/s"), *ratio, both, peer.records])
    heads = (
        "",
        "jobs a second",
        "rate to xargs",
        "queuectl to it",
        "with handing over",
        "on record afterwards",
    )
    title = f"(q) drain of {scale.peers:,} times `{command}`, {WORKERS} at a time, median of {scale.rounds}"
    table(title, heads, rows)


def _handed(laps: dict[str, list[Lap] | str]) -> None:
    rows = []
    yard = _costs(laps[KEEPERS[0].name])
    for peer in sorted((*KEEPERS, *RUNNERS), key=lambda peer: peer.client != "Python"):
        if not peer.client:
            continue
        found = laps[peer.name]
        if isinstance(found, str):
            rows.append([peer.name, found, "", peer.client, peer.durable])
            continue
        costs = _costs(found)
        rows.append([peer.name, Samples(costs).cell("us"), _over(costs, yard), peer.client, peer.durable])
    heads = ("", "a job", "time to by hand", "handed over by", "synced when it is taken")
    table("(r) one job handed over", heads, rows)


def _over(ones: list[float], others: list[float]) -> str:
    """Each over the one of the same round, if both came to their end each time."""
    return ratios(ones, others) if len(ones) == len(others) else "-"


def _rates(found: list[Lap] | str) -> list[float]:
    return [] if isinstance(found, str) else [lap.rate for lap in found if lap.rate is not None]


def _costs(found: list[Lap] | str) -> list[float]:
    return [] if isinstance(found, str) else [lap.took / lap.jobs for lap in found]
