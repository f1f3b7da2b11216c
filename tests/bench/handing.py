"""Handing jobs over from Python and from a file, against making the same files by hand."""

from __future__ import annotations

import ctypes
import os
import time
from typing import TYPE_CHECKING

from .place import box, folder_in
from .tables import HEADS, Samples, ratios, table

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from .scale import Scale


def python(scale: Scale, folder: Path) -> None:
    """(p) `Spool.enqueue` against a create and two fsyncs by hand, in turn."""
    ours, theirs, careless = [], [], []
    few = min(scale.samples, 20)
    with box(folder) as made:
        text = _a_job(made.spool.enqueue("true").id, made.path)
        by_hand = folder_in(folder)
        for turn in range(scale.samples):
            began = time.perf_counter()
            for _ in range(few):
                made.spool.enqueue("true")
            ours.append((time.perf_counter() - began) / few)
            names = [f"{turn}-{number}.json" for number in range(few)]
            theirs.append(make(by_hand, names, text, careful) / few)
            careless.append(make(by_hand, [f"c{name}" for name in names], text, _plain) / few)
    rows = [
        [name, *Samples(values).shown("us"), ratios(theirs, values)]
        for name, values in (
            ("Spool.enqueue", ours),
            ("by hand: write, fsync, rename, fsync of the folder", theirs),
            ("by hand: write, rename, nothing synced", careless),
        )
    ]
    table("(p) one job handed over from Python", ("", *HEADS, "rate to the careful one"), rows)


def bulk(scale: Scale, folder: Path) -> None:
    """(n) One NDJSON file against making as many files by hand, in turn."""
    ours, together, one_by_one, careless = [], [], [], []
    few = max(1, scale.bulk // 50)
    for _ in range(scale.rounds):
        with box(folder) as made:
            text = _a_job(made.spool.enqueue("true").id, made.path)
            lines = made.root / "jobs.ndjson"
            lines.write_text('{"command": "true"}\n' * scale.bulk, encoding="utf-8")
            by_hand = folder_in(folder)
            names = [f"{number}.json" for number in range(scale.bulk)]
            careless.append(make(by_hand, names, text, _plain) / scale.bulk)
            ours.append(made.call("enqueue", "--file", str(lines)) / scale.bulk)
            together.append(_make_together(folder_in(folder), names, text) / scale.bulk)
            one_by_one.append(make(by_hand, [f"c{name}" for name in names[:few]], text, careful) / few)
    rows = [
        [name, durable, *Samples(values).shown("us"), ratios(together, values), ratios(careless, values)]
        for name, durable, values in (
            (f"queuectl enqueue --file, {scale.bulk:,} lines", "yes", ours),
            ("by hand: write all, one syncfs, rename all, fsync of the folder", "yes", together),
            (f"by hand: two fsyncs a file ({few:,} of them)", "yes", one_by_one),
            ("by hand: write, rename", "no", careless),
        )
    ]
    heads = ("a job", "durable", *HEADS, "rate to one syncfs", "rate to no sync")
    table("(n) a file of jobs handed over", heads, rows)


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
