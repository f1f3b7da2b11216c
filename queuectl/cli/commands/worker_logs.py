"""`queuectl worker logs`: print the logs of background workers, merged by time, or follow them."""

from __future__ import annotations

import os
import re
import sys
import time
from collections import deque
from typing import TYPE_CHECKING

import click

from queuectl.cli import options, render
from queuectl.cli.base import Session, command
from queuectl.errors import WorkerError
from queuectl.storage import job_logs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from queuectl.cli.log_stream import Sink
    from queuectl.layout import Layout

FOLLOW_INTERVAL = 0.2
"""Seconds between two checks of `worker logs -f`."""

_TIMESTAMP = re.compile(rb"\d{4}-\d\d-\d\dT[0-9:.]+Z")


def _complete_logs(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    names = options.ask_spool(ctx, lambda spool: _logged_names(spool.layout))
    return [name for name in names if name.startswith(incomplete)]


@command(
    "logs",
    paged=True,
    no_json=("worker logs are lines of text, without a JSON form", "queuectl worker list --json"),
    examples="""
    queuectl worker logs
    queuectl worker logs -n 50 -f             the last 50 lines, then new ones
    queuectl worker logs worker-0 | grep failed
    """,
)
@click.argument("name", metavar="[WORKER]", required=False, shell_complete=_complete_logs)
@click.option("--follow", "-f", is_flag=True, help="Print new lines as they come, until Ctrl+C.")
@options.lines_option("Only the last N lines.")
@options.raw_option
@click.pass_obj
def logs_command(session: Session, name: str | None, follow: bool, lines: int | None, raw: bool) -> int:
    """Print the logs of background workers: the start and end of each job, and other events.

    The lines of all workers are merged in the order of time, including workers that have stopped. With WORKER, only
    the lines of that worker are printed. The output of jobs is in `queuectl logs JOB`.
    """
    from queuectl.cli.log_stream import INTERRUPTED, Sink

    layout = session.spool.layout
    names = _logged_names(layout)
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
        ends = _print_all(layout, names, sink, lines)
        sink.flush()
        while follow:
            time.sleep(FOLLOW_INTERVAL)
            for one in _logged_names(layout) if name is None else names:
                _print_new(layout.worker_file(one, "log"), ends, sink)
            sink.flush()
    except KeyboardInterrupt:
        return INTERRUPTED  # the normal way to end --follow
    finally:
        sink.finish()
    return 0


def _logged_names(layout: Layout) -> list[str]:
    """The workers that have a log, sorted."""
    try:
        with os.scandir(layout.workers) as entries:
            # Not a FIFO of that name: opening it would wait for ever.
            return sorted(
                entry.name[:-4]
                for entry in entries
                if entry.name.endswith(".log") and entry.is_file(follow_symlinks=False)
            )
    except FileNotFoundError:
        return []


def _print_all(layout: Layout, names: list[str], sink: Sink, lines: int | None) -> dict[str, int]:
    """Print the logs merged by time, or their last lines; return the offset up to which each file was read."""
    from heapq import merge

    paths = [layout.worker_file(name, "log") for name in names]
    ends = {path: _size(path) for path in paths}
    rotated = [path + ".1" for path in paths if os.path.isfile(path + ".1")]
    sources = [_timed_lines(path, ends.get(path)) for path in rotated + paths]
    merged = merge(*sources, key=lambda pair: pair[0])
    for _, text in merged if lines is None else deque(merged, maxlen=lines):
        sink.write(text)
    return ends


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0


def _timed_lines(path: str, end: int | None) -> Iterator[tuple[bytes, bytes]]:
    """Yield each line with its timestamp. A line without one, as in a traceback, gets that of the line before it."""
    timestamp = b""
    try:
        with job_logs.opened(path) as file:
            at = 0
            for text in file:
                at += len(text)
                if end is not None and at > end:
                    return
                found = _TIMESTAMP.match(text)
                timestamp = found[0] if found else timestamp
                yield timestamp, text
    except FileNotFoundError:
        return


def _print_new(path: str, ends: dict[str, int], sink: Sink) -> None:
    """Print what was added to a log since the last check. A log that is shorter than before was rotated."""
    size = _size(path)
    start = ends.get(path, 0)
    if size < start:
        start = 0
    if size > start:
        try:
            with job_logs.opened(path) as file:
                file.seek(start)
                data = file.read(size - start)
        except FileNotFoundError:
            return
        # Whole lines only: otherwise the lines of two workers could be mixed.
        data = data[: data.rfind(b"\n") + 1]
        sink.write(data)
        ends[path] = start + len(data)
