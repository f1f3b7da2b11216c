"""What workers cost that have nothing to do."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from .tools import HEADS, Samples, box, table

if TYPE_CHECKING:
    from .tools import Scale


def idle(scale: Scale, folder: Path) -> None:
    """(b) The CPU time of two idle workers, in percent of one core."""
    rows = []
    with box(folder) as made:
        pids = made.start(2)
        time.sleep(min(1.0, scale.idle))  # their start is not idleness
        for title in ("empty spool", "a job due in an hour"):
            shares = []
            for _ in range(scale.rounds):
                before, began = _used(pids), time.monotonic()
                time.sleep(scale.idle)
                shares.append(100 * (_used(pids) - before) / (time.monotonic() - began))
            rows.append([title, *Samples(shares).shown("%")])
            made.spool.enqueue("true", delay=3600)
            time.sleep(min(1.0, scale.idle))
    table(f"(b) two idle workers together, over {scale.idle:g} s, in % of a core", ("", *HEADS), rows)


def _used(pids: list[int]) -> float:
    """Seconds of CPU that these processes have used so far."""
    return sum(_used_by(pid) for pid in pids)


def _used_by(pid: int) -> float:
    try:
        # Nanoseconds a thread; the usual figure counts in ticks of 10 ms, too coarse for what is nearly nothing.
        tasks = Path(f"/proc/{pid}/task").glob("*/schedstat")
        return sum(int(task.read_text(encoding="ascii").split()[0]) for task in tasks) / 1e9
    except OSError:
        times = psutil.Process(pid).cpu_times()
        return float(times.user + times.system)
