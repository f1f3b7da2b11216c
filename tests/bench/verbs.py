"""The verbs that change many jobs at once, against doing the same to as many files by hand."""

from __future__ import annotations

import contextlib
import json
import os
import time
from typing import TYPE_CHECKING

from queuectl import Filter
from queuectl.system import files

from .place import box, folder_in
from .tables import HEADS, Samples, ratios, table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from queuectl import Spool

    from .scale import Scale

    Verb = Callable[[Spool, list[str]], object]

VERBS: dict[str, tuple[str, Verb]] = {
    "hold": ("rewrite", lambda spool, ids: spool.hold_many(ids)),
    "release": ("rewrite", lambda spool, ids: spool.release_many(ids)),
    "set": ("rewrite", lambda spool, ids: spool.set_many(ids, priority=7)),
    "cancel": ("rewrite", lambda spool, ids: spool.cancel_many(ids)),
    "set, dead jobs": ("rewrite", lambda spool, ids: spool.set_many(ids, priority=8)),
    "retry": ("rewrite", lambda spool, ids: spool.retry_many(ids)),
    "remove": ("delete", lambda spool, ids: _remove(spool, ids[: len(ids) // 2])),
    "cancel the rest": ("rewrite", lambda spool, ids: spool.cancel_many(ids[len(ids) // 2 :])),
    "purge": ("delete", lambda spool, _: spool.purge(keep=0, where=Filter(states="dead"))),
}
"""Each with the work by hand that is comparable. One spool goes through all of them in this order."""

HALVED = {"remove", "cancel the rest", "purge"}
"""The verbs that get half of the jobs."""


def verbs(scale: Scale, folder: Path) -> None:
    """(v) Each verb with many jobs, in turn with the same work by hand."""
    ours: dict[str, list[tuple[float, float, int]]] = {name: [] for name in VERBS}
    by_hand: dict[str, list[float]] = {name: [] for name in VERBS}
    for _ in range(scale.rounds):
        with box(folder) as made:
            ids = made.spool.enqueue_many({"command": "true"} for _ in range(scale.verbs))
            text = (made.path / "pending" / f"{ids[0]}.json").read_bytes()
            for name, (kind, verb) in VERBS.items():
                os.sync()  # else it pays for what the one before left behind
                many = len(ids) // (1 + (name in HALVED))
                ours[name].append(_measured(made.spool, ids, verb, many))
                by_hand[name].append(_by_hand(folder_in(folder), text, many, kind))
    rows = []
    for name, found in ours.items():
        wall, cpu = Samples([one[0] for one in found]), Samples([one[1] for one in found])
        hand = by_hand[name]
        cells = [*wall.shown("us"), cpu.cell("us"), str(max(one[2] for one in found))]
        rows.append([name, *cells, Samples(hand).cell("us"), ratios(hand, [one[0] for one in found])])
    heads = ("a job", *HEADS, "processor", "waits for all", "by hand, one sync", "rate to by hand")
    table(f"(v) {scale.verbs:,} jobs changed at once, durable", heads, rows)


def _measured(spool: Spool, ids: list[str], verb: Verb, many: int) -> tuple[float, float, int]:
    """Seconds a job by the clock and of processor time, and how often all of them waited for the disk."""
    with _waits() as waits:
        cpu, began = time.process_time(), time.perf_counter()
        verb(spool, ids)
        took, used = time.perf_counter() - began, time.process_time() - cpu
    return took / many, used / many, len(waits)


@contextlib.contextmanager
def _waits() -> Iterator[list[None]]:
    """A list that gets an entry at each wait for the disk."""
    waits: list[None] = []
    fsync, syncfs = os.fsync, files._syncfs

    def counted(call: Callable[[int], object]) -> Callable[[int], object]:
        def wait(fd: int) -> object:
            waits.append(None)
            return call(fd)

        return wait

    os.fsync, files._syncfs = counted(fsync), counted(syncfs)  # type: ignore[assignment]
    try:
        yield waits
    finally:
        os.fsync, files._syncfs = fsync, syncfs


def _remove(spool: Spool, ids: list[str]) -> None:
    spool.forget_many(ids)
    spool.sync_deletions()


def _by_hand(folder: Path, text: bytes, many: int, kind: str) -> float:
    """Seconds a file of reading, changing and renaming them with one sync for all, or of deleting them."""
    scratch, pending, other = (f"{folder}/{name}" for name in ("tmp", "pending", "dead"))
    for path in (scratch, pending, other):
        os.mkdir(path)
    names = [f"{number}.json" for number in range(many)]
    for name in names:
        _write(f"{pending}/{name}", text)
    os.sync()
    began = time.perf_counter()
    if kind == "delete":
        for name in names:
            os.unlink(f"{pending}/{name}")
        files.sync_folder(pending)
    else:
        for name in names:
            with open(f"{pending}/{name}", "rb") as file:
                record = json.loads(file.read())
            record["priority"] = 7
            _write(f"{scratch}/{name}", json.dumps(record, indent=2).encode())
        files.sync_filesystem(scratch)
        for name in names:
            os.rename(f"{scratch}/{name}", f"{pending}/{name}")
            os.rename(f"{pending}/{name}", f"{other}/{name}")
        files.sync_folder(other)
    return (time.perf_counter() - began) / many


def _write(path: str, text: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    os.write(descriptor, text)
    os.close(descriptor)
