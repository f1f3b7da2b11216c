"""The same commands through several programs, in turn: how fast they are taken, and how fast they are worked off."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from .place import folder_in

if TYPE_CHECKING:
    from collections.abc import Sequence

WORKERS = 2
COMMANDS = ("true", "/bin/true", "test -d / && echo yes", "echo a | cat >/dev/null")
"""A builtin of the shell, a program, two lines with shell syntax."""


class Peer(Protocol):
    """A program that runs shell commands, two at a time, or only keeps them.

    Attributes:
        name: how it is called in tables, with its settings.
        records: what it knows of a job when it is over.
        durable: what it has synced when it has taken a job.
        client: who hands jobs over: a program for each, or one process of Python's. "" if it takes none.
        runs: whether it runs them too.
        most: the number of jobs it can hold.
    """

    name: str
    records: str
    durable: str
    client: str
    runs: bool
    most: int

    def missing(self) -> str:
        """What has to be installed; "" if all is here."""
        ...

    def hand(self, root: Path, commands: Sequence[str]) -> float:
        """Hand these over one by one, in this order; returns the seconds it took."""
        ...

    def work(self, root: Path) -> None:
        """Work them off, and come back when the last has ended and nothing of the program runs any more."""
        ...

    def close(self, root: Path) -> None:
        """Leave nothing running, whatever happened."""
        ...


class Lap:
    """One go of one peer.

    Attributes:
        took: seconds of handing over, of all jobs.
        rate: jobs a second between the first two and the last two; None: it runs nothing.
        jobs: how many were handed over.
    """

    def __init__(self, took: float, rate: float | None, jobs: int) -> None:
        self.took = took
        self.rate = rate
        self.jobs = jobs


def lap(peer: Peer, folder: Path, command: str, jobs: int) -> Lap:
    """So many times this command, between marks that say when they began and ended.

    The marks are commands as well: two before and two after, because some deal the jobs out to two queues. The first
    two wait for each other, so that the time begins when both workers are there.

    Raises:
        RuntimeError: a mark is missing, so not everything was run.
    """
    root = folder_in(folder)
    jobs = min(jobs, peer.most)
    stamps = root / "stamps"
    mark = f"date +%s%N >>{stamps}"
    gate = f"echo >>{root}/gate; until [ $(wc -l <{root}/gate) -ge {WORKERS} ]; do sleep 0.002; done; {mark}"
    commands = [*[gate] * WORKERS, *[command] * jobs, *[mark] * WORKERS]
    try:
        took = peer.hand(root, commands)
        if not peer.runs:
            return Lap(took, None, len(commands))
        peer.work(root)
    finally:
        peer.close(root)
    marks = [int(line) for line in stamps.read_text(encoding="ascii").split()]
    if len(marks) != 2 * WORKERS:
        raise RuntimeError(f"{peer.name} ran {len(marks)} of {2 * WORKERS} marks")
    return Lap(took, jobs / (max(marks) - min(marks)) * 1e9, len(commands))


def prove(peer: Peer, folder: Path) -> None:
    """See that it runs each job that it is given once, and warm it up.

    Raises:
        RuntimeError: it does not.
    """
    root = folder_in(folder)
    ran = root / "ran"
    commands = [f"echo {number} >>{ran}" for number in range(10)]
    try:
        peer.hand(root, commands)
        if not peer.runs:
            return
        peer.work(root)
    finally:
        peer.close(root)
    numbers = sorted(ran.read_text(encoding="ascii").split())
    if numbers != [str(number) for number in range(10)]:
        raise RuntimeError(f"{peer.name} ran {numbers} of ten jobs")


def _briefly(error: Exception) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        return f"{Path(error.cmd[0]).name} ended with {error.returncode}"
    return str(error)


def race(
    peers: Sequence[Peer], folder: Path, command: str, jobs: int, rounds: int
) -> dict[str, list[Lap] | str]:
    """Each peer's laps, in turn, or why there are none."""
    laps: dict[str, list[Lap]] = {}
    without: dict[str, str] = {}
    for peer in peers:
        missing = peer.missing()
        if missing:
            without[peer.name] = f"not installed: {missing}"
    for number in range(rounds + 1):
        for peer in peers:
            if peer.name in without:
                continue
            began = time.monotonic()
            try:
                if number == 0:
                    prove(peer, folder)
                else:
                    laps.setdefault(peer.name, []).append(lap(peer, folder, command, jobs))
            # A program that fails here is a finding about it, and no reason to lose the others' figures.
            except (OSError, RuntimeError, TimeoutError, subprocess.SubprocessError, ValueError) as error:
                print(f"{peer.name}: {error}", file=sys.stderr)
                without[peer.name] = f"failed: {_briefly(error)}"
            print(f"{peer.name}: {time.monotonic() - began:.1f} s", file=sys.stderr, flush=True)
    return {peer.name: without.get(peer.name) or laps[peer.name] for peer in peers}
