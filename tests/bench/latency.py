"""From the rename into pending/ to the first instruction of the command."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from typing import TYPE_CHECKING

from .tools import HEADS, Samples, box, table

if TYPE_CHECKING:
    from pathlib import Path

    from .tools import Box, Scale

STAMP = "exec date +%s%N"
"""A command that says when it began. Starting it costs something too: the same is started by hand, in turn."""


def latency(scale: Scale, folder: Path) -> None:
    """(a) Idle workers; while another worker claims and runs short jobs; in the middle of a backlog."""
    rows = []
    with box(folder) as made:
        alone = Samples([_spawned(made) for _ in range(scale.samples)])
        made.start(1)
        idle, by_hand = _in_turn(made, scale, "idle")
        rows.append(["started by hand, nothing between", *alone.shown(), ""])
        rows.append(["the same, beside an idle worker", *by_hand.shown(), ""])
        rows.append(["idle worker", *idle.shown(), _over(idle, by_hand)])
    with box(folder) as made:
        made.start(2)
        with _Trickle(made):
            beside, by_hand = _in_turn(made, scale, "beside")
        rows.append(["two workers, 100 other drops/s", *beside.shown(), _over(beside, by_hand)])
    with box(folder) as made:
        backlog = 40 * scale.samples
        list(made.spool.enqueue_many({"command": "sleep 0.005", "priority": 1} for _ in range(backlog)))
        made.start(2)
        busy, by_hand = _in_turn(made, scale, "busy")
        left = made.spool.counts()["pending"]
        rows.append([f"two busy workers, {backlog} to {left} waiting", *busy.shown(), _over(busy, by_hand)])
    table("(a) rename into pending/ to the first instruction", ("", *HEADS, "over by hand"), rows)


def _over(one: Samples, other: Samples) -> str:
    return f"{(one.median - other.median) * 1e3:+.2f} ms"


def _in_turn(made: Box, scale: Scale, name: str) -> tuple[Samples, Samples]:
    """Drop a job, then start the same by hand, and so on."""
    dropped, by_hand = [], []
    for number in range(scale.samples):
        dropped.append(_dropped(made, f"{name}{number}"))
        by_hand.append(_spawned(made))
        # Not in step with the worker's own second.
        time.sleep(0.03 + number % 7 * 0.003)
    return Samples(dropped), Samples(by_hand)


def _dropped(made: Box, name: str) -> float:
    before = made.drop(name, command=STAMP, priority=10)
    path = made.path / "done" / f"{name}.json"
    made.wait_for(path.exists)
    return (int(made.record(name)["output"]) - before) / 1e9


def _spawned(made: Box) -> float:
    """Start the command as a worker does: in a shell, in a session of its own, output to a file."""
    target = made.root / "stamp"
    with open(target, "wb") as output:
        before = time.time_ns()
        subprocess.run(["/bin/sh", "-c", STAMP], stdout=output, check=True, start_new_session=True)
    return (int(target.read_text(encoding="utf-8")) - before) / 1e9


class _Trickle:
    """Others who drop short jobs all the time, so that claims move out of pending/ while somebody watches it."""

    def __init__(self, made: Box) -> None:
        self._made = made
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        number = 0
        while not self._over.wait(0.01):
            number += 1
            scratch = self._made.path / "tmp" / f".other{number}"
            scratch.write_text('{"command": "true", "priority": 1}', encoding="utf-8")
            os.rename(scratch, self._made.path / "pending" / f"other{number}.json")

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
