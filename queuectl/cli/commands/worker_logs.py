"""`queuectl worker logs`: what the workers wrote, in the order of time."""

from __future__ import annotations

import os
import re
import sys
import time
from heapq import merge
from typing import TYPE_CHECKING

import click

from queuectl.cli import render
from queuectl.cli.base import Session, Usage, command
from queuectl.cli.log_stream import INTERRUPTED, Sink
from queuectl.errors import QueuectlError, WorkerError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from queuectl.layout import Layout

PAUSE = 0.2
_STAMP = re.compile(rb"\d{4}-\d\d-\d\dT[0-9:.]+Z")


def _complete(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    try:
        names = _names(ctx.ensure_object(Session).spool.layout)
    except (QueuectlError, OSError):
        return []
    return [name for name in names if name.startswith(incomplete)]


@command(
    "logs",
    examples="""
    queuectl worker logs
    queuectl worker logs -f
    queuectl worker logs worker-0 | grep failed
    """,
)
@click.argument("name", metavar="[WORKER]", required=False, shell_complete=_complete)
@click.option("--follow", "-f", is_flag=True, help="Go on until Ctrl+C.")
@click.option("--raw", is_flag=True, help="On a terminal too, pass control characters through as they are.")
@click.pass_obj
def logs_command(session: Session, name: str | None, follow: bool, raw: bool) -> int:
    """Print what background workers wrote: each job's start and end, and what else happened to them.

    The lines of all workers, of those too that have left, in the order of time; or those of one WORKER.
    What jobs wrote is in `queuectl logs JOB`.
    """
    if session.json:
        raise Usage(
            "worker logs prints lines for people, there is no JSON of them",
            hint="queuectl worker list --json",
        )
    layout = session.spool.layout
    names = _names(layout)
    if name is not None:
        if name not in names:
            raise WorkerError(
                f"no worker {name!r} has written a log in this spool", hint="queuectl worker list"
            )
        names = [name]
    elif not names and not follow:
        render.note("no worker has written a log yet")
    sink = Sink(sys.stdout, raw=raw)
    try:
        ends = _print_all(layout, names, sink)
        sink.flush()
        while follow:
            time.sleep(PAUSE)
            for one in _names(layout) if name is None else names:
                _print_new(layout.worker_file(one, "log"), ends, sink)
            sink.flush()
    except KeyboardInterrupt:
        return INTERRUPTED  # the way to leave
    finally:
        sink.finish()
    return 0


def _names(layout: Layout) -> list[str]:
    """The workers that have a log, in order."""
    try:
        return sorted(name[:-4] for name in os.listdir(layout.workers) if name.endswith(".log"))
    except FileNotFoundError:
        return []


def _print_all(layout: Layout, names: list[str], sink: Sink) -> dict[str, int]:
    """Print the logs as one; returns how far each was read."""
    paths = [layout.worker_file(name, "log") for name in names]
    ends = {path: _size(path) for path in paths}
    older = [path + ".1" for path in paths]
    sources = [_stamped(path, ends.get(path)) for path in older + paths]
    for _, text in merge(*sources, key=lambda pair: pair[0]):
        sink.write(text)
    return ends


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0


def _stamped(path: str, end: int | None) -> Iterator[tuple[bytes, bytes]]:
    """The lines of a log with their time; a line without one, as in a traceback, goes with the line before it."""
    stamp = b""
    try:
        with open(path, "rb") as file:
            at = 0
            for text in file:
                at += len(text)
                if end is not None and at > end:
                    return
                found = _STAMP.match(text)
                stamp = found[0] if found else stamp
                yield stamp, text
    except FileNotFoundError:
        return


def _print_new(path: str, ends: dict[str, int], sink: Sink) -> None:
    """Print what was added to a log since the last look; one that got shorter was begun anew."""
    size = _size(path)
    start = ends.get(path, 0)
    if size < start:
        start = 0
    if size > start:
        try:
            with open(path, "rb") as file:
                file.seek(start)
                data = file.read(size - start)
        except FileNotFoundError:
            return
        # Whole lines only: the lines of two workers must not run into each other.
        data = data[: data.rfind(b"\n") + 1]
        sink.write(data)
        ends[path] = start + len(data)
