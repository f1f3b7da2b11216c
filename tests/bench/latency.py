"""From the rename into pending/ to the first instruction of the command."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from typing import TYPE_CHECKING

from .place import box, wait_for
from .tables import HEADS, Samples, number, table

if TYPE_CHECKING:
    from pathlib import Path

    from .place import Box
    from .scale import Scale

STAMP = "exec date +%s%N"
"""A command that says when it began. Starting it costs something too: the same is started by hand, in turn."""


def latency(scale: Scale, folder: Path) -> None:
    """(a) Idle workers; beside others that drop short jobs; a more urgent job in the middle of a drain."""
    rows = []
    with box(folder) as made:
        made.start(1)
        rows += _rows("idle worker", *in_turn(made, scale, "idle"))
    with box(folder) as made:
        made.start(2)
        with _Trickle(made):
            rows += _rows("two workers, a drop every 20 ms", *in_turn(made, scale, "beside"))
    # So many for each urgent one that some still wait when the last of these is over.
    for command, many in (("true", 120), ("sleep 0.005", 50)):
        with box(folder) as made:
            made.hand_over(many * scale.starts, command=command, priority=1)
            made.start(2)
            found = in_turn(made, scale, "urgent")
            left = made.spool.counts()["pending"]
        rows += _rows(f"more urgent, in a drain of `{command}` ({left:,} still wait)", *found)
    heads = ("", *HEADS, "99 of 100", "median over by hand", "99 of 100 over")
    table("(a) rename into pending/ to the first instruction", heads, rows)


def _rows(name: str, ours: Samples, by_hand: Samples) -> list[list[str]]:
    """A line for the dropped jobs and one for the same started by hand meanwhile."""
    over = number(ours.median - by_hand.median, "ms")
    late = number(ours.at_99 - by_hand.median, "ms")
    return [
        [name, *ours.shown(), number(ours.at_99, "ms"), over, late],
        ["started by hand meanwhile", *by_hand.shown(), number(by_hand.at_99, "ms"), "", ""],
    ]


def in_turn(made: Box, scale: Scale, name: str) -> tuple[Samples, Samples]:
    """Drop a job, then start the same by hand, and so on."""
    dropped, by_hand = [], []
    for turn in range(scale.starts):
        dropped.append(_dropped(made, f"{name}{turn}"))
        by_hand.append(_spawned(made))
        # Not in step with the worker's own second.
        time.sleep(0.03 + turn % 7 * 0.003)
    return Samples(dropped), Samples(by_hand)


def _dropped(made: Box, name: str) -> float:
    before = made.drop(name, command=STAMP, priority=10)
    path = made.path / "done" / f"{name}.json"
    wait_for(path.exists)
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
        turn = 0
        while not self._over.wait(0.02):
            turn += 1
            scratch = self._made.path / "tmp" / f".other{turn}"
            scratch.write_text('{"command": "true", "priority": 1}', encoding="utf-8")
            os.rename(scratch, self._made.path / "pending" / f"other{turn}.json")

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
