"""What rules cost: very many that rest, the moment at which they are all due, and how late one is."""

from __future__ import annotations

import functools
import os
import signal
import time
from typing import TYPE_CHECKING

import psutil

from queuectl.job import times

from .idle import used
from .place import box, wait_for
from .tables import Samples, number, table

if TYPE_CHECKING:
    from pathlib import Path

    from .place import Box
    from .scale import Scale


def rules(scale: Scale, folder: Path) -> None:
    """(x) Very many rules, and single ones."""
    table(
        "(x) rules with a time",
        ("", "measured", "at most"),
        [*_many(scale, folder), *_lateness(scale, folder), _new_holder(scale, folder)],
    )


def _write(made: Box, name: str, when: str) -> None:
    scratch = made.path / "tmp" / f".{name}"
    scratch.write_text(f"when: {when}\njob: {{command: 'true', timeout: 8h}}\n", encoding="utf-8")
    os.rename(scratch, made.path / "rules" / f"{name}.yaml")


def _many(scale: Scale, folder: Path) -> list[list[str]]:
    """A worker without rules, the same with very many that are due far away, and then all of them at one moment.

    What the first look is made of, and why it does not take 0.2 s, is in tests/README.md. A look of a busy worker at 1,000
    rules in which nothing has changed took 19 ms while it looked at each file, and takes 1.6.
    """
    with box(folder) as made:
        (bare,) = made.start(1)
        time.sleep(min(2.0, scale.idle))
        before = _idle(bare, scale.idle), psutil.Process(bare).memory_info().rss
        first = used([bare])
        for at in range(scale.rules):
            _write(made, f"far-{at}", f'{{cron: "{at % 60} {at % 24} 1 1 *", timezone: Europe/Berlin}}')
        _wait_until_noted(made, scale.rules)
        look = used([bare]) - first
        time.sleep(min(2.0, scale.idle))
        after = _idle(bare, scale.idle), psutil.Process(bare).memory_info().rss
        moment = int(time.time()) + max(3, scale.rules // 100)
        for at in range(scale.rules):
            _write(made, f"soon-{at}", f"{{at: '{times.iso(moment)}'}}")
        wait_for(lambda: len(made.done()) >= scale.rules, pause=0.05)
        names = [name for name in made.done() if name.startswith("soon-")]
        last = max(
            times.parse_moment(made.record(name.removesuffix(".json"))["created_at"]) for name in names
        )
    many = f"{scale.rules:,} rules"
    return [
        [f"{many}, processor time of the first look", number(look, "s"), "0.2 s"],
        [f"{many}, an idle worker, in % of a core more", number(after[0] - before[0], "%"), "0.1 %"],
        [f"{many}, memory of a worker more", number(after[1] - before[1], "MB"), "5 MB"],
        [f"{many} at one moment, until all are queued", number(last - moment, "s"), "3 s"],
    ]


def _idle(pid: int, seconds: float) -> float:
    before, began = used([pid]), time.monotonic()
    time.sleep(seconds)
    return 100 * (used([pid]) - before) / (time.monotonic() - began)


def _wait_until_noted(made: Box, count: int) -> None:
    notes = made.path / "data" / "rules"
    wait_for(lambda: notes.is_dir() and len(os.listdir(notes)) >= count, pause=0.05)


def _lateness(scale: Scale, folder: Path) -> list[list[str]]:
    """From a moment to the job in pending/, while two workers have nothing to do."""
    with box(folder) as made:
        made.start(2)
        _write(made, "tick", "{every: 1s, overlap: allow}")
        wait_for(lambda: len(made.done()) > scale.ticks, pause=0.05)
        late = Samples([_late(made, name.removesuffix(".json")) for name in made.done()])
    return [["from a moment to the job, two idle workers", late.cell(), "20 ms"]]


def _late(made: Box, name: str) -> float:
    record = made.record(name)
    return times.parse_moment(record["created_at"]) - times.parse_moment(record["scheduled_for"])


def _new_holder(scale: Scale, folder: Path) -> list[str]:
    """From the death of the worker that queues what is due to the next one that does."""
    taken = []
    for _ in range(scale.rounds):
        with box(folder) as made:
            made.start(2)
            _write(made, "far", '{cron: "0 0 1 1 *"}')
            _wait_until_noted(made, 1)
            path = made.spool.layout.rules_lock
            holder, other = sorted(made.pids, key=lambda pid: not _has(pid, path))
            began = time.perf_counter()
            os.kill(holder, signal.SIGKILL)
            wait_for(functools.partial(_has, other, path))
            taken.append(time.perf_counter() - began)
    return ["from the death of who queues them to the next one", Samples(taken).cell(), "2 s"]


def _has(pid: int, path: str) -> bool:
    inode = f":{os.stat(path).st_ino} "
    with open("/proc/locks", encoding="ascii") as file:
        return any(inode in line and f" {pid} " in line for line in file)
