"""How long commands take from the prompt to the next prompt."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import TYPE_CHECKING

from .tools import HEADS, Samples, box, table, timed

if TYPE_CHECKING:
    from pathlib import Path

    from .tools import Scale

FEW = 5


def enqueue(scale: Scale, folder: Path) -> None:
    """(c) `queuectl enqueue "true"` against `python -c pass`, in turn."""
    ours, bare = [], []
    with box(folder) as made:
        made.call("enqueue", "true")  # compiles modules, makes folders
        for _ in range(scale.samples):
            ours.append(made.call("enqueue", "true"))
            bare.append(timed([sys.executable, "-c", "pass"], made.environment))
    one, other = Samples(ours), Samples(bare)
    rows = [
        ['queuectl enqueue "true"', *one.shown(), f"{one.median / other.median:.2f}"],
        ["python -c pass", *other.shown(), "1"],
    ]
    table("(c) one durable enqueue from the shell", ("", *HEADS, "ratio"), rows)


def dropped(scale: Scale, folder: Path) -> None:
    """(d) `status` and `list` with many files dropped by hand and no worker: the first time, and after."""
    with box(folder) as made:
        pending = made.path / "pending"
        for number in range(scale.files):
            with open(pending / f"job{number}.json", "w", encoding="utf-8") as file:
                file.write(f'{{"command": "echo {number}"}}\n')
        plain = Samples([_plain_loop(str(pending)) for _ in range(scale.rounds)])
        first = Samples([made.call("status")])
        few = min(FEW, scale.samples)
        after = Samples([made.call("status") for _ in range(few)])
        page = Samples([made.call("list", "--limit", "20") for _ in range(few)])
        everything = Samples([made.call("list") for _ in range(scale.rounds)])
        bare = Samples([timed([sys.executable, "-c", "pass"], made.environment) for _ in range(few)])
    rows = [
        [
            name,
            *samples.shown(),
            f"{samples.median / plain.median:.2f}",
            f"{samples.median / bare.median:.1f}",
        ]
        for name, samples in (
            ("reading and parsing them in a Python loop", plain),
            ("queuectl status, the first", first),
            ("queuectl status, after", after),
            ("queuectl list --limit 20, after", page),
            ("queuectl list, after", everything),
            ("python -c pass", bare),
        )
    ]
    heads = ("", *HEADS, "to the loop", "to python -c pass")
    table(f"(d) {scale.files:,} files dropped by hand, no worker", heads, rows)


def _plain_loop(folder: str) -> float:
    """What anybody has to do who wants to know what is in these files."""
    began = time.perf_counter()
    with os.scandir(folder) as entries:
        for entry in entries:
            with open(entry.path, "rb") as file:
                json.loads(file.read())
    return time.perf_counter() - began
