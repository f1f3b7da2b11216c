"""Very many files dropped by a stranger while workers run."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
import time
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from queuectl.job import times

from .latency import STAMP
from .place import box, wait_for
from .tables import HEADS, Samples, number, table

if TYPE_CHECKING:
    from pathlib import Path

    from .place import Box
    from .scale import Scale

RENAME = (
    "import os, sys\n"
    "source, target = sys.argv[1:]\n"
    "for name in os.listdir(source): os.rename(source + name, target + name)\n"
)


def flood(scale: Scale, folder: Path) -> None:
    """(x) How fast the files are taken in, and how late an urgent job dropped among them starts."""
    rates, drops, late, gaps = [], [], [], []
    for _ in range(scale.rounds):
        with box(folder) as made:
            source = _prepare(made, scale.files)
            made.start(2)
            result = _flood(made, source, scale.files)
            rates.append(result.rate)
            drops.append(scale.files / result.dropping)
            late += result.late
            gaps.append(result.gap)
    starts = Samples(late)
    rows = [
        [
            "files known to the index, from the first rename to the last file known",
            *Samples(rates).shown("/s"),
        ],
        ["files renamed into pending/ by one process meanwhile", *Samples(drops).shown("/s")],
        [f"urgent job, rename to first instruction ({len(late)} of them)", *starts.shown()],
        ["of these 99 of 100 within", number(starts.at_99, "ms"), "", ""],
        ["longest time in which no job started until the last file was known", *Samples(gaps).shown()],
    ]
    table(f"(x) {scale.files:,} foreign files dropped while two workers run", ("", *HEADS), rows)


def _prepare(made: Box, files: int) -> str:
    """Whole files beside pending/, so that dropping them costs a rename."""
    source = f"{made.root}/prepared/"
    os.mkdir(source)
    for turn in range(files):
        with open(f"{source}job{turn}.json", "w", encoding="utf-8") as file:
            file.write(f'{{"command": "echo {turn}"}}\n')
    os.sync()  # else the disk is busy with these while others are measured
    return source


class _Result(NamedTuple):
    """Files taken in a second, seconds of dropping, seconds until each urgent job started, and the longest gap."""

    rate: float
    dropping: float
    late: list[float]
    gap: float


def _flood(made: Box, source: str, files: int) -> _Result:
    # The index says how many jobs it knows; a command would itself take in what lies there.
    index = sqlite3.connect(f"file:{made.path}/data/queuectl.db?mode=ro", uri=True, check_same_thread=False)
    before = _known(index)
    urgent = _Urgent(made)
    since, began = time.time(), time.perf_counter()
    words = [sys.executable, "-c", RENAME, source, f"{made.path}/pending/"]
    dropper = subprocess.Popen(words, stdin=subprocess.DEVNULL)
    with urgent:
        if dropper.wait():
            raise RuntimeError("the files could not be dropped")
        dropping = time.perf_counter() - began
        wait_for(lambda: _known(index) - len(urgent.dropped) >= before + files, pause=0.02)
        took = time.perf_counter() - began
    late = urgent.starts()
    index.close()
    made.stop()
    return _Result(files / took, dropping, late, _longest_gap(made, since, since + took))


def _longest_gap(made: Box, since: float, until: float) -> float:
    """The longest time between two starts of jobs."""
    starts = [
        times.parse_moment(made.record(name.removesuffix(".json"))["started_at"]) for name in made.done()
    ]
    moments = [since, *sorted(at for at in starts if since < at < until), until]
    return max(after - before for before, after in pairwise(moments))


def _known(index: sqlite3.Connection) -> int:
    return int(index.execute("SELECT sum(n) FROM counts").fetchone()[0])


class _Urgent:
    """Jobs of the highest priority, dropped every 100 ms until told to stop, and at least one."""

    def __init__(self, made: Box) -> None:
        self.dropped: dict[str, int] = {}
        self._made = made
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while True:
            name = f"urgent{len(self.dropped)}"
            self.dropped[name] = self._made.drop(name, command=STAMP, priority=10)
            if self._over.wait(0.1):
                return

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def starts(self) -> list[float]:
        """Seconds from each rename to the first instruction."""
        found = []
        for name, dropped in self.dropped.items():
            wait_for((self._made.path / "done" / f"{name}.json").exists, pause=0.02)
            found.append((int(self._made.record(name)["output"]) - dropped) / 1e9)
        return found
