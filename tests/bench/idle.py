"""What workers cost that have nothing to do."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from .place import box
from .tables import HEADS, Samples, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .scale import Scale


def idle(scale: Scale, folder: Path) -> None:
    """(b) CPU time and system calls of ten idle workers together."""
    rows = []
    count = 10 if scale.rounds > 1 else 2
    with box(folder) as made:
        pids = made.start(count)
        time.sleep(min(2.0, scale.idle))  # their start is not idleness
        for title in ("empty spool", "a job due in an hour"):
            shares = []
            for _ in range(scale.rounds):
                before, began = used(pids), time.monotonic()
                time.sleep(scale.idle)
                shares.append(100 * (used(pids) - before) / (time.monotonic() - began))
            rows.append([title, *(f"{value:.3f} %" for value in _picked(shares)), calls(pids, scale.idle)])
            made.spool.enqueue("true", delay=3600)
            time.sleep(min(2.0, scale.idle))
    heads = ("", *HEADS, "system calls a second")
    table(f"(b) {count} idle workers together, over {scale.idle:g} s, in % of a core", heads, rows)


def _picked(values: Sequence[float]) -> tuple[float, float, float]:
    samples = Samples(values)
    return samples.median, samples.values[0], samples.values[-1]


def calls(pids: Sequence[int], seconds: float) -> str:
    """System calls a second of these processes with all their threads, and the most frequent ones."""
    if not shutil.which("strace"):
        return "strace is not here"
    words = ["strace", "-f", "-c", *(word for pid in pids for word in ("-p", str(pid)))]
    tracer = subprocess.Popen(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    time.sleep(max(1.0, seconds))
    tracer.send_signal(2)
    told = tracer.communicate(timeout=20)[0]
    # % time, seconds, usecs/call, calls, errors if any, name
    lines = re.findall(r"^ *[\d.]+ +[\d.]+ +\d+ +(\d+)(?: +\d+)? +(\w+)$", told, re.MULTILINE)
    found = {name: int(number) for number, name in lines if name != "total"}
    often = sorted(found, key=lambda name: -found[name])[:3]
    shown = ", ".join(f"{name} {found[name] / max(1.0, seconds):.1f}" for name in often)
    return f"{sum(found.values()) / max(1.0, seconds):.1f} ({shown or 'none'})"


def used(pids: Sequence[int]) -> float:
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
