"""How fast jobs are worked off."""

from __future__ import annotations

import subprocess
import time
from typing import TYPE_CHECKING

from .bare import Bare
from .ours import InProcess
from .place import box, wait_for
from .race import COMMANDS, WORKERS, race
from .shell import Xargs
from .tables import HEADS, Samples, ratios, table

if TYPE_CHECKING:
    from pathlib import Path

    from .race import Lap
    from .scale import Scale

NAP = 0.05


def drain(scale: Scale, folder: Path) -> None:
    """(e) Short jobs with two workers against `xargs -P2 sh -c`, in turn, and against a loop that keeps no promise."""
    ours, bare, theirs = InProcess(), Bare(), Xargs()
    rows = []
    for command in COMMANDS:
        results = race([theirs, ours, bare], folder, command, scale.drain, scale.laps)
        rates = {name: _rates(result) for name, result in results.items()}
        for peer in (ours, bare, theirs):
            shown = Samples(rates[peer.name]).shown("/s")
            rows.append([f"`{command}`, {peer.name}", *shown, ratios(rates[peer.name], rates[theirs.name])])
    table(f"(e) {scale.drain:,} short commands, {WORKERS} at a time", ("", *HEADS, "rate to xargs"), rows)


def _rates(result: list[Lap] | str) -> list[float]:
    if isinstance(result, str):
        raise RuntimeError(result)
    return [lap.rate for lap in result if lap.rate is not None]


def sleepers(scale: Scale, folder: Path) -> None:
    """(s) More and more workers whose jobs only sleep, against what the sleeping alone takes."""
    rows = []
    for workers in scale.workers:
        ours, theirs = [], []
        ideal = scale.naps * NAP
        for _ in range(scale.rounds):
            theirs.append(ideal / _xargs_naps(workers, workers * scale.naps))
            ours.append(ideal / _our_naps(folder, workers, workers * scale.naps))
        cells = [
            [f"{value:.3f}" for value in (s.median, s.values[0])] for s in (Samples(ours), Samples(theirs))
        ]
        name = f"{workers} worker{'s' if workers > 1 else ''}"
        rows.append([name, *cells[0], *cells[1], ratios(ours, theirs)])
    heads = ("", "share of ideal, median", "least", "xargs -P, median", "least", "rate to xargs")
    table(f"(s) `sleep {NAP}`, {scale.naps} jobs a worker", heads, rows)


def _our_naps(folder: Path, workers: int, jobs: int) -> float:
    with box(folder) as made:
        made.start(workers)
        made.hand_over(jobs, command=f"sleep {NAP}")
        time.sleep(jobs * NAP / workers)  # looking costs the machine something, so not before it can be over
        wait_for(lambda: len(made.done()) >= jobs, pause=0.1)
        return made.took(made.done(), jobs)


def _xargs_naps(workers: int, jobs: int) -> float:
    lines = f"sleep {NAP}\n" * jobs
    began = time.perf_counter()
    words = ["xargs", f"-P{workers}", "-d", "\n", "-n1", "sh", "-c"]
    subprocess.run(words, input=lines, text=True, check=True)
    return time.perf_counter() - began
