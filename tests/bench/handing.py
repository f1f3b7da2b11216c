"""Handing jobs over from Python and from a file, against making the same files by hand."""

from __future__ import annotations

import ctypes
import os
import time
from typing import TYPE_CHECKING

from .place import box, folder_in
from .tables import HEADS, Samples, ratios, table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from .place import Box
    from .scale import Scale


def python(scale: Scale, folder: Path) -> None:
    """(p) `Spool.enqueue` against a create and two fsyncs by hand, in turn."""
    ours, theirs, careless, lax = [], [], [], []
    few = min(scale.samples, 20)
    with box(folder) as made, box(folder) as other:
        other.call("config", "set", "durability", "none")
        other.spool.enqueue("true")
        text = _a_job(made.spool.enqueue("true").id, made.path)
        by_hand = folder_in(folder)
        for turn in range(scale.samples):
            ours.append(_enqueue(made, few))
            names = [f"{turn}-{number}.json" for number in range(few)]
            theirs.append(make(by_hand, names, text, careful) / few)
            careless.append(make(by_hand, [f"c{name}" for name in names], text, _plain) / few)
            lax.append(_enqueue(other, few))
            os.sync()  # else the next turn's syncs pay for what these left behind
    rows = [
        [name, *Samples(values).shown("us"), ratios(theirs, values)]
        for name, values in (
            ("Spool.enqueue", ours),
            ("by hand: write, fsync, rename, fsync of the folder", theirs),
            ("Spool.enqueue, durability: none", lax),
            ("by hand: write, rename, nothing synced", careless),
        )
    ]
    table("(p) one job handed over from Python", ("", *HEADS, "rate to the careful one"), rows)


def _enqueue(made: Box, jobs: int) -> float:
    """Seconds a job, one after the other."""
    began = time.perf_counter()
    for _ in range(jobs):
        made.spool.enqueue("true")
    return (time.perf_counter() - began) / jobs


def bulk(scale: Scale, folder: Path) -> None:
    """(n) One NDJSON file against making as many files by hand, in turn."""
    few = max(1, scale.bulk // 50)
    ways = {
        f"queuectl enqueue --file, {scale.bulk:,} lines": "yes",
        "by hand: write all, one syncfs, rename all, fsync of the folder": "yes",
        f"by hand: two fsyncs a file ({few:,} of them)": "yes",
        "queuectl enqueue --file, durability: none": "no",
        "by hand: write, rename": "no",
    }
    took: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(scale.rounds):
        for name, seconds in zip(ways, _bulk_once(folder, scale.bulk, few), strict=True):
            took[name].append(seconds)
    together, careless = list(took.values())[1], list(took.values())[-1]
    rows = [
        [name, ways[name], *Samples(values).shown("us"), ratios(together, values), ratios(careless, values)]
        for name, values in took.items()
    ]
    heads = ("a job", "durable", *HEADS, "rate to one syncfs", "rate to no sync")
    table("(n) a file of jobs handed over", heads, rows)


def _bulk_once(folder: Path, jobs: int, few: int) -> Iterator[float]:
    """Seconds a job by each of the ways; what one has left unwritten is synced before the next begins."""
    names = [f"{number}.json" for number in range(jobs)]
    with box(folder) as made, box(folder) as other:
        other.call("config", "set", "durability", "none")
        text = _a_job(made.spool.enqueue("true").id, made.path)
        lines = made.root / "jobs.ndjson"
        lines.write_text('{"command": "true"}\n' * jobs, encoding="utf-8")
        os.sync()
        yield made.call("enqueue", "--file", str(lines)) / jobs
        yield _make_together(folder_in(folder), names, text) / jobs
        yield make(folder_in(folder), names[:few], text, careful) / few
        yield other.call("enqueue", "--file", str(lines)) / jobs
        os.sync()
        yield make(folder_in(folder), names, text, _plain) / jobs


def _a_job(job_id: str | None, spool: Path) -> bytes:
    """What a waiting job's file holds, so that by hand the same is written."""
    return (spool / "pending" / f"{job_id}.json").read_bytes()


def make(folder: Path, names: list[str], text: bytes, one: Callable[[str, str, bytes, int], None]) -> float:
    """Seconds of making these files one by one."""
    os.makedirs(folder / "tmp", exist_ok=True)
    os.makedirs(folder / "pending", exist_ok=True)
    opened = os.open(folder / "pending", os.O_RDONLY)
    scratch, target = f"{folder}/tmp/", f"{folder}/pending/"
    began = time.perf_counter()
    for name in names:
        one(scratch + name, target + name, text, opened)
    took = time.perf_counter() - began
    os.close(opened)
    return took


def careful(scratch: str, target: str, text: bytes, folder: int) -> None:
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    os.write(descriptor, text)
    os.fsync(descriptor)
    os.close(descriptor)
    os.rename(scratch, target)
    os.fsync(folder)


def _plain(scratch: str, target: str, text: bytes, folder: int) -> None:
    _write(scratch, text)
    os.rename(scratch, target)


def _write(path: str, text: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    os.write(descriptor, text)
    os.close(descriptor)


def _make_together(folder: Path, names: list[str], text: bytes) -> float:
    """Seconds of making these files with one sync for all."""
    scratch, target = f"{folder}/tmp/", f"{folder}/pending/"
    os.mkdir(scratch)
    os.mkdir(target)
    opened = os.open(target, os.O_RDONLY)
    libc = ctypes.CDLL(None, use_errno=True)
    began = time.perf_counter()
    for name in names:
        _write(scratch + name, text)
    if libc.syncfs(opened):
        raise OSError(ctypes.get_errno(), "syncfs")
    for name in names:
        os.rename(scratch + name, target + name)
    os.fsync(opened)
    took = time.perf_counter() - began
    os.close(opened)
    return took
