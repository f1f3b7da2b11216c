"""How long lists, statistics and metrics of very many ended jobs take, beside those of a spool that has few."""

from __future__ import annotations

import contextlib
import json
import os
import random
import time
from typing import TYPE_CHECKING

from queuectl import Filter
from queuectl.job import times

from .place import Box, box
from .tables import Samples, number, ratio, table

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from .scale import Scale

DAYS = 20
"""The jobs have ended within so many days until now."""

ASKED: dict[str, Callable[[Box], object]] = {
    "list, newest first": lambda made: _listed(made, "-arrived"),
    "list, in the order in which they run": lambda made: _listed(made, "next"),
    "list, last ended first": lambda made: _listed(made, "-finished"),
    "list, longest first": lambda made: _listed(made, "-duration"),
    "Spool.last_ended(20)": lambda made: made.spool.last_ended(20),
    "Spool.stats()": lambda made: made.spool.stats(),
    "the same, by day": lambda made: made.spool.stats(by="day"),
    "the same, by command": lambda made: made.spool.stats(by="command"),
    "Spool.metrics()": lambda made: made.spool.metrics(),
}
"""What is asked, as a program asks: 20 jobs of each list."""


def reports(scale: Scale, folder: Path) -> None:
    """(r) Each question in turn to a spool with few jobs and to the largest; what is asked first there makes an index."""
    few, many = scale.backlogs[0], scale.backlogs[-1]
    with contextlib.ExitStack() as stack:
        boxes = [stack.enter_context(box(folder)) for _ in (few, many)]
        for made, jobs in zip(boxes, (few, many), strict=True):
            _fill(made, jobs)
        rows = [_asked(what, ask, boxes, scale) for what, ask in ASKED.items()]
    heads = ("processor time", f"of {few:,} ended jobs", f"of {many:,}", "times as long", "the first time")
    table(f"(r) lists and statistics of {many:,} ended jobs: median (least to most)", heads, rows)


def _listed(made: Box, order: str) -> object:
    return made.spool.list(where=Filter(sort=order, limit=20))


def _asked(what: str, ask: Callable[[Box], object], boxes: list[Box], scale: Scale) -> list[str]:
    first = [_timed(ask, made) for made in boxes][-1]
    found: tuple[list[float], list[float]] = ([], [])
    for _ in range(scale.rounds * 3):
        for values, made in zip(found, boxes, strict=True):
            values.append(_timed(ask, made))
    small, large = (Samples(values) for values in found)
    return [what, small.cell(), large.cell(), ratio(large, small), number(first, "ms")]


def _timed(ask: Callable[[Box], object], made: Box) -> float:
    began = time.process_time()
    ask(made)
    return time.process_time() - began


def _fill(made: Box, jobs: int) -> None:
    """Files of jobs that have ended, as a worker leaves them."""
    chance, now = random.Random(7), time.time()
    for turn in range(jobs):
        ended, ran = now - DAYS * 86400 * (jobs - turn) / jobs, chance.random()
        record = {
            "id": f"{chance.getrandbits(48):012x}{turn}",
            "command": f"program{turn % 5} {turn}",
            "state": "completed",
            "attempts": 1,
            "created_at": times.iso(ended - ran - chance.random()),
            "started_at": times.iso(ended - ran),
            "finished_at": times.iso(ended),
            "updated_at": times.iso(ended),
            "duration": ran,
            "exit_code": 0,
            "worker": "worker-0",
        }
        path = made.path / "done" / f"{record['id']}.json"
        file = os.open(path, os.O_CREAT | os.O_WRONLY, 0o600)
        os.write(file, json.dumps(record).encode())
        os.close(file)
    made.spool.refresh()
