"""How long commands take from the prompt to the next prompt."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING

from .place import bare_python, box
from .tables import HEADS, Samples, ratio, table

if TYPE_CHECKING:
    from pathlib import Path

    from .scale import Scale

FEW = 5


def enqueue(scale: Scale, folder: Path) -> None:
    """(c) One durable enqueue from the shell against `python -c pass`, in turn."""
    ways = {
        'queuectl enqueue "true"': ["enqueue", "true"],
        "queuectl enqueue -- ls -l": ["enqueue", "--", "ls", "-l"],
        'queuectl enqueue \'{"command": "true"}\'': ["enqueue", '{"command": "true"}'],
        "queuectl enqueue --priority 8 true": ["enqueue", "--priority", "8", "true"],
    }
    took: dict[str, list[float]] = {name: [] for name in (*ways, "python -c pass")}
    with box(folder) as made:
        for words in ways.values():
            made.call(*words)  # compiles modules, makes folders
        for _ in range(scale.samples):
            for name, words in ways.items():
                took[name].append(made.call(*words))
            took["python -c pass"].append(bare_python(made.environment))
    bare = took["python -c pass"]
    rows = [
        [name, *Samples(values).shown(), ratio(Samples(values), Samples(bare))]
        for name, values in took.items()
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
        bare = Samples([bare_python(made.environment) for _ in range(few)])
    found = {
        "reading and parsing them in a Python loop": plain,
        "queuectl status, the first": first,
        "queuectl status, after": after,
        "queuectl list --limit 20, after": page,
        "queuectl list, after": everything,
        "python -c pass": bare,
    }
    rows = [[name, *took.shown(), ratio(took, plain), ratio(took, bare)] for name, took in found.items()]
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
