"""How fast jobs are worked off."""

from __future__ import annotations

import os
import subprocess
import time
from typing import TYPE_CHECKING

from queuectl import times

from .tools import HEADS, Samples, box, table

if TYPE_CHECKING:
    from pathlib import Path

    from .tools import Box, Scale


def drain(scale: Scale, folder: Path) -> None:
    """(e) Short jobs with two workers against `xargs -P2 sh -c`, in turn."""
    ours, theirs = [], []
    for _ in range(scale.rounds):
        theirs.append(_xargs(scale.drain))
        with box(folder) as made:
            list(made.spool.enqueue_many({"command": "true"} for _ in range(scale.drain)))
            ours.append(_worked_off(made, workers=2, jobs=scale.drain))
    one, other = Samples(ours), Samples(theirs)
    rows = [
        [
            "two workers",
            *one.shown("s"),
            f"{scale.drain / one.median:.0f}/s",
            f"{other.median / one.median:.2f}",
        ],
        ["xargs -P2 sh -c", *other.shown("s"), f"{scale.drain / other.median:.0f}/s", "1"],
    ]
    table(f"(e) {scale.drain:,} times `true`", ("", *HEADS, "rate", "rate to xargs"), rows)


def backlog(scale: Scale, folder: Path) -> None:
    """(f) What one job costs while few and while many wait, in turn: to hand it over, and to work it off."""
    handed: dict[int, list[float]] = {size: [] for size in scale.backlogs}
    worked: dict[int, list[float]] = {size: [] for size in scale.backlogs}
    jobs = min(500, scale.backlogs[0] // 2)
    for _ in range(scale.rounds):
        for size in scale.backlogs:
            with box(folder) as made:
                list(made.spool.enqueue_many({"command": "true"} for _ in range(size)))
                began = time.perf_counter()
                for _ in range(scale.samples):
                    made.spool.enqueue("true", priority=1)
                handed[size].append((time.perf_counter() - began) / scale.samples)
                worked[size].append(_worked_off(made, workers=1, jobs=jobs) / jobs)
    rows = []
    for title, costs in (("enqueue, durable", handed), ("claim, run `true`, settle", worked)):
        few, many = (Samples(costs[size]) for size in scale.backlogs)
        for size, samples in zip(scale.backlogs, (few, many), strict=True):
            ratio = f"{samples.median / few.median:.2f}"
            rows.append([f"{title}; {size:,} waiting", *samples.shown("us"), ratio])
    table("(f) cost of one job", ("", *HEADS, "ratio"), rows)


def _worked_off(made: Box, *, workers: int, jobs: int) -> float:
    """Seconds from the first start to the end of the job that ends as the jobs-th; the workers' own start is no part."""
    made.start(workers)
    made.wait_for(lambda: made.done() >= jobs)
    made.stop()
    records = [made.record(name.removesuffix(".json")) for name in os.listdir(made.path / "done")]
    first = min(times.parse_moment(record["started_at"]) for record in records)
    ends = sorted(times.parse_moment(record["finished_at"]) for record in records)
    return ends[jobs - 1] - first


def _xargs(jobs: int) -> float:
    lines = "".join(f"{number}\n" for number in range(jobs))
    began = time.perf_counter()
    subprocess.run(["xargs", "-P2", "-n1", "sh", "-c", "true"], input=lines, text=True, check=True)
    return time.perf_counter() - began
