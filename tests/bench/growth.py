"""What things cost as work grows: the same spool with few and with very many jobs waiting, measured in turn."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

import psutil

from .place import Box, bare_python, box, wait_for
from .tables import Samples, ratios, table

if TYPE_CHECKING:
    from pathlib import Path

    from .scale import Scale

FEW = 7
A_JOB = ("handed over in bulk", "Spool.enqueue", "claim, run `true`, settle", "queuectl reindex")
"""Costs of one job, compared with the smallest spool that has some."""

A_CALL = {
    "queuectl enqueue true": "ms",
    "queuectl status": "ms",
    "queuectl list --limit 20": "ms",
    "queuectl show ID": "ms",
    "python -c pass": "ms",
    "worker start, to its answer": "ms",
    "a worker's memory, resident": "MB",
    "of that its own": "MB",
}
"""What is compared with an empty spool."""


class _Size:
    """A spool with so many jobs in it, and what was measured there."""

    def __init__(self, name: str, made: Box, jobs: int) -> None:
        self.name = name
        self.made = made
        self.jobs = jobs
        self.found: dict[str, list[float]] = {}

    def note(self, what: str, value: float) -> None:
        self.found.setdefault(what, []).append(value)


def growth(scale: Scale, folder: Path) -> None:
    """(g) From an empty spool to the largest, and one in which all but the probes are scheduled for later."""
    with contextlib.ExitStack() as stack:
        counts = (0, *scale.backlogs)
        sizes = [_Size(f"{count:,}", stack.enter_context(box(folder)), count) for count in counts]
        most = scale.backlogs[-1]
        later = _Size(f"{most:,}, all for later", stack.enter_context(box(folder)), most)
        for size in (*sizes, later):
            _fill(size, "2090-01-01" if size is later else None)
        sizes.append(later)
        for _ in range(scale.rounds):
            for size in sizes:
                _probe(size, scale)
        for _ in range(min(FEW, scale.samples)):
            for size in sizes:
                _commands(size)
        for size in sizes[1:]:
            for _ in range(1 if size is later else scale.rounds):
                size.note("queuectl reindex", size.made.call("reindex") / size.jobs)
    _show(sizes)


def _fill(size: _Size, run_at: str | None) -> None:
    size.made.call("status")
    if size.jobs:
        took = size.made.hand_over(size.jobs, **({"run_at": run_at} if run_at else {}))
        size.note("handed over in bulk", took / size.jobs)


def _probe(size: _Size, scale: Scale) -> None:
    """Some jobs more, and as many worked off."""
    made = size.made
    half = scale.probe // 2
    began = time.perf_counter()
    for _ in range(half):
        made.spool.enqueue("true", priority=10)
    size.note("Spool.enqueue", (time.perf_counter() - began) / half)
    made.hand_over(scale.probe - half)
    before = made.done()
    began = time.perf_counter()
    pids = made.start(1)
    size.note("worker start, to its answer", time.perf_counter() - began)
    wait_for(lambda: len(made.done()) >= len(before) + scale.probe, pause=0.05)
    memory = psutil.Process(pids[0]).memory_full_info()
    size.note("a worker's memory, resident", memory.rss)
    size.note("of that its own", memory.uss)
    made.stop()
    size.note("claim, run `true`, settle", made.took(made.done() - before, scale.probe) / scale.probe)


def _commands(size: _Size) -> None:
    made = size.made
    size.note("queuectl status", made.call("status"))
    size.note("queuectl list --limit 20", made.call("list", "--limit", "20"))
    size.note("queuectl enqueue true", made.call("enqueue", "true"))
    size.note("queuectl show ID", made.call("show", made.spool.list(limit=1)[0].id))
    size.note("python -c pass", bare_python(made.environment))


def _show(sizes: list[_Size]) -> None:
    empty, least, most, later = sizes[0], sizes[1], sizes[-2], sizes[-1]
    rows = [
        [
            what,
            *(_cell(size, what, "us") for size in sizes[1:]),
            _rate(least, most, what),
            _rate(least, later, what),
        ]
        for what in A_JOB
    ]
    names = [size.name for size in sizes]
    heads = ("a job", *names[1:], f"rate at {most.name} to {least.name}", "rate with all for later")
    table("(g) what a job costs as work grows: median (least to most)", heads, rows)
    rows = [
        [
            what,
            *(_cell(size, what, unit) for size in sizes),
            _rate(most, empty, what),
            _rate(later, empty, what),
        ]
        for what, unit in A_CALL.items()
    ]
    heads = ("jobs in the spool", *names, f"{most.name} to none", "all for later to none")
    table("(h) what a command and a worker cost as work grows: median (least to most)", heads, rows)


def _cell(size: _Size, what: str, unit: str) -> str:
    return Samples(size.found[what]).cell(unit)


def _rate(one: _Size, other: _Size, what: str) -> str:
    pairs = list(zip(one.found[what], other.found[what], strict=False))
    return ratios([first for first, _ in pairs], [second for _, second in pairs])
