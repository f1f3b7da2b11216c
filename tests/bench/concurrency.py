"""One worker that runs many jobs at once: rate, memory, idleness, and how soon it does what one of many jobs needs."""

from __future__ import annotations

import subprocess
import time
from typing import TYPE_CHECKING

import psutil

from .drain import NAP
from .idle import used
from .latency import in_turn
from .place import box, wait_for
from .tables import HEADS, Samples, number, ratios, table

if TYPE_CHECKING:
    from pathlib import Path

    from .place import Box
    from .scale import Scale

LONG = "exec sleep 600"


def concurrency(scale: Scale, folder: Path) -> None:
    """(n) One worker with many jobs at once against `xargs -P`, and against a worker with one job or none."""
    _rates(scale, folder)
    _costs(scale, folder)
    _delays(scale, folder)


# -- how fast ----------------------------------------------------------------------------------------------------------


def _rates(scale: Scale, folder: Path) -> None:
    """Whole processes are timed, so their start counts."""
    many, crowd = scale.slots, scale.crowd
    nap, second = f"sleep {NAP}", "sleep 1"
    rows = []
    for title, command, jobs, option, at_once in (
        (f"`{nap}`, {many} at once", nap, scale.naps * many, "-j", many),
        (f"the same, {many} workers", nap, scale.naps * many, "--count", many),
        (f"`{second}`, {crowd} at once", second, crowd, "-j", crowd),
    ):
        ours, theirs = [], []
        for _ in range(scale.rounds):
            theirs.append(jobs / _xargs(command, jobs, at_once))
            ours.append(jobs / _drained(folder, command, jobs, option, at_once))
        cells = [Samples(ours).cell("/s"), Samples(theirs).cell("/s"), ratios(ours, theirs)]
        rows.append([f"{title}, {jobs:,} jobs", *cells])
    table("(n) many jobs at once, start included", ("", "queuectl", "xargs -P", "rate to xargs"), rows)


def _drained(folder: Path, command: str, jobs: int, option: str, at_once: int) -> float:
    """Seconds in which workers start, do all jobs, and leave."""
    with box(folder) as made:
        made.hand_over(jobs, command=command)
        took = made.call("worker", "start", "--foreground", "--drain", option, str(at_once))
        if len(made.done()) != jobs:
            raise RuntimeError(f"{len(made.done())} of {jobs} jobs are done")
    return took


def _xargs(command: str, jobs: int, at_once: int) -> float:
    began = time.perf_counter()
    words = ["xargs", f"-P{at_once}", "-d", "\n", "-n1", "sh", "-c"]
    subprocess.run(words, input=f"{command}\n" * jobs, text=True, check=True)
    return time.perf_counter() - began


# -- what it costs -----------------------------------------------------------------------------------------------------


def _costs(scale: Scale, folder: Path) -> None:
    """Memory with and without running jobs; an idle worker with one slot and with many."""
    rows = []
    for slots in (1, scale.slots):
        with box(folder) as made:
            [pid] = made.start(1, "-j", str(slots))
            time.sleep(min(2.0, scale.idle))  # its start is not idleness
            before, began = used([pid]), time.monotonic()
            time.sleep(scale.idle)
            share = 100 * (used([pid]) - before) / (time.monotonic() - began)
            empty = psutil.Process(pid).memory_full_info().uss
            _fill(made, slots)
            full = psutil.Process(pid).memory_full_info().uss
        name = f"a worker with {slots} slot{'s' if slots > 1 else ''}"
        cells = [number(share, "%"), number(empty, "MB"), number(full, "MB"), f"{full / empty:.2f}"]
        rows.append([name, *cells])
    heads = ("", "idle, % of a core", "memory of its own, idle", "all slots running", "ratio")
    table("(n) what a slot costs", heads, rows)


def _fill(made: Box, jobs: int) -> list[str]:
    """Let so many endless jobs run; returns their ids."""
    ids = made.spool.enqueue_many({"command": LONG, "timeout": 0} for _ in range(jobs))
    wait_for(lambda: sum(len(one.jobs) for one in made.spool.workers()) >= jobs, pause=0.05)
    return ids


# -- how soon ----------------------------------------------------------------------------------------------------------


def _delays(scale: Scale, folder: Path) -> None:
    """A drop, a cancel and a timeout, alone and among jobs that run."""
    rows = []
    for running, slots in ((0, 1), (scale.slots - 1, scale.slots)):
        with box(folder) as made:
            made.start(1, "-j", str(slots))
            _fill(made, running)
            ours, by_hand = in_turn(made, scale, "among")
        over = number(ours.median - by_hand.median, "ms")
        rows.append([f"drop to first instruction, {running} running", *ours.shown(), f"{over} over by hand"])
    for running in (0, scale.crowd - 1):
        with box(folder) as made:
            made.start(1, "-j", str(running + 1))
            _fill(made, running)
            cancels = Samples([_cancelled(made) for _ in range(scale.samples)])
            late = Samples([_late(made, turn) for turn in range(scale.rounds)])
        rows.append([f"`Spool.cancel` until its job has ended, {running} running", *cancels.shown(), ""])
        rows.append([f"a timeout of 1 s is over after, {running} running", *late.shown(), ""])
    table("(n) one job among many", ("", *HEADS, ""), rows)


def _cancelled(made: Box) -> float:
    [job_id] = made.spool.enqueue_many([{"command": LONG, "timeout": 0, "priority": 10}])
    wait_for(lambda: made.spool.get(job_id).started_at is not None)
    began = time.perf_counter()
    made.spool.cancel(job_id)
    return time.perf_counter() - began


def _late(made: Box, turn: int) -> float:
    """Seconds from the start of a job with a timeout of a second to its recorded end."""
    job_id = f"late{turn}"
    made.spool.enqueue(LONG, id=job_id, timeout=1, max_retries=0, priority=10)
    wait_for(lambda: made.spool.get(job_id).state == "dead")
    job = made.spool.get(job_id)
    return (job.finished_at or 0) - (job.started_at or 0)
