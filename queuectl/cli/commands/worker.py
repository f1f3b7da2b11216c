"""`queuectl worker`: start, stop, list, logs, and the hidden `run` that each worker process executes."""

from __future__ import annotations

import os
import re
import sys
import time
from typing import TYPE_CHECKING

import click

from queuectl.api import json_view
from queuectl.cli import options, render
from queuectl.cli.base import Group, Session, Usage, command
from queuectl.errors import WorkerError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from queuectl.cli.log_stream import Sink
    from queuectl.control.registry import WorkerInfo
    from queuectl.layout import Layout

MAX_WORKERS = 1000
"""A larger --count is most likely a typing error, and would overload the machine."""

FOLLOW_INTERVAL = 0.2
"""Seconds between two checks of `worker logs -f`."""

_TIMESTAMP = re.compile(rb"\d{4}-\d\d-\d\dT[0-9:.]+Z")

worker_command = Group(
    name="worker",
    short_help="Start, stop and watch the processes that run jobs.",
    help="""Workers are the processes that run jobs. Each worker runs one job at a time.

    They run in the background and continue when the terminal is closed, or in this terminal with --foreground. You
    can start and stop workers at any time, more than once, and from any terminal.""",
    examples="""
    queuectl worker start --count 4           four in the background
    queuectl worker start --foreground        one here; Ctrl+C lets it finish its job, twice ends it
    queuectl worker start --drain             run the waiting jobs, then exit: for cron
    queuectl worker list                      show which worker runs which job
    queuectl worker stop                      finish the running jobs, then exit
    """,
    other_words={
        "ls": "list",
        "ps": "list",
        "status": "list",
        "kill": "stop --force",
        "tail": "logs -f",
    },
    sections={
        "Commands": {
            "start": ("worker", "Start workers, in the background or in this terminal."),
            "stop": ("worker", "Stop all workers of the spool when they have finished their jobs."),
            "list": ("worker", "Show the workers and what they run."),
            "logs": ("worker", "Print the logs of the workers, or follow them."),
        }
    },
    hidden_commands={"run": "worker"},
)


@command(
    "start",
    examples="""
    queuectl worker start                            one in the background (or worker_count of them)
    queuectl worker start --count 3
    queuectl worker start --foreground --count 2     live, in this terminal
    queuectl worker start --foreground --drain --wait-retries
    """,
)
@click.option(
    "--count", "-n", metavar="N", callback=options.between(1, MAX_WORKERS), help="How many to start."
)
@click.option(
    "--foreground", "-f", is_flag=True, help="Run in this terminal and show the start and end of every job."
)
@click.option("--drain", is_flag=True, help="Exit when no job is left to run.")
@click.option("--wait-retries", is_flag=True, help="With --drain: wait for retries and scheduled jobs too.")
@click.pass_obj
def start_command(
    session: Session, count: int | None, foreground: bool, drain: bool, wait_retries: bool
) -> int:
    """Start workers, in the background or in this terminal.

    Without --foreground they run in the background and continue when the terminal is closed. The command returns when
    each of them is ready, or says why one is not. Without --count it starts as many as the setting worker_count says,
    or one.
    """
    if wait_retries and not drain:
        raise Usage("--wait-retries works only with --drain")
    if foreground and session.json:
        raise Usage("--json does not work with --foreground: the output of such a worker is text for people")
    from queuectl.worker import pool

    spool = session.spool
    number = count or spool.settings().worker_count or 1
    if foreground:
        return pool.foreground(spool.layout, number, drain=drain, wait_retries=wait_retries)
    _show_started(session, pool.start(spool.layout, number, drain=drain, wait_retries=wait_retries))
    if paused := spool.paused():
        effect = "exit at once" if drain else "start no job until: queuectl resume"
        render.note(f"note: {paused.sentence}; they {effect}")
    return 0


def _show_started(session: Session, started: list[WorkerInfo]) -> None:
    # Workers become ready in any order; show them in the order of their names.
    started = sorted(started, key=lambda worker: (len(worker.name), worker.name))
    if session.json:
        render.json_array(json_view.worker(worker) for worker in started)
        return
    for worker in started:
        render.line(f"[{worker.name}] started PID={worker.pid}")
    render.line(f"Started {len(started)} worker(s)")
    render.line(f"Worker PIDs: {[worker.pid for worker in started]}")


@command(
    "stop",
    examples="""
    queuectl worker stop                      wait for the running jobs
    queuectl worker stop --timeout 0          tell the workers to stop, and do not wait
    queuectl worker stop --force              end the running jobs too; they go back to pending
    """,
    changes=True,
)
@click.option(
    "--force",
    is_flag=True,
    help="End the running jobs. They go back to pending, and this does not count as an attempt.",
)
@click.option(
    "--timeout",
    metavar="TIME",
    callback=options.checked(options.duration),
    help="How long to wait for the workers. Default: the setting stop_timeout.",
)
@click.pass_obj
def stop_command(session: Session, force: bool, timeout: float | None) -> None:
    """Stop all workers of the spool, from any terminal.

    Each worker finishes the job that it runs and starts no other. The command waits for that. When the time of
    --timeout is over, the workers that still run a job are listed and the exit code is 1; they stop when their jobs end.
    """
    from queuectl.worker import pool

    spool = session.spool
    limit = spool.settings().stop_timeout if timeout is None else timeout
    stopped, busy = pool.stop(spool.layout, force=force, timeout=limit, report=_report_busy)
    if session.json:
        render.json_value({"stopped": stopped, "busy": [json_view.worker(worker) for worker in busy]})
    elif stopped or not busy:
        render.line(f"Stopped {stopped} worker(s)" if stopped else "No workers to stop")
    if busy:
        names = ", ".join(f"{worker.name} ({_activity(worker)})" for worker in busy)
        raise WorkerError(
            f"still running: {names}; each worker stops when its job ends",
            hint="queuectl worker stop --force ends the jobs",
        )


def _report_busy(busy: list[WorkerInfo]) -> None:
    for worker in busy:
        render.note(f"waiting for {worker.name}: {_activity(worker)}")


@command(
    "list",
    examples="""
    queuectl worker list
    queuectl worker list --json | jq -r '.[].job_id'
    """,
)
@click.pass_obj
def list_command(session: Session) -> None:
    """Show the workers that are alive, the job that each one runs, and for how long."""
    found = session.spool.workers()
    if session.json:
        render.json_array(json_view.worker(worker) for worker in found)
    elif not found:
        render.note("no workers: queuectl worker start")
    elif render.is_terminal():
        rows = [(w.name, str(w.pid), _since(w.started_at), _activity(w)) for w in found]
        render.table("Workers", ("Worker", "PID", "Running For", "Doing"), rows)
    else:
        for worker in found:
            render.line(f"{worker.name} - PID={worker.pid} - {_activity(worker)}")


def _since(moment: float | None) -> str:
    return "?" if moment is None else render.ago(time.time() - moment)


def _activity(worker: WorkerInfo) -> str:
    if worker.job_id is None:
        if worker.paused and not worker.stopping:
            return f"paused: {worker.paused}"
        return "stopping" if worker.stopping else "idle"
    stopping = ", then stops" if worker.stopping else ""
    return f"job {worker.job_id} for {_since(worker.job_since)}{stopping}"


@command("run", examples="", hidden=True)
@click.option("--mode", type=click.Choice(["background", "foreground", "child"]), default="background")
@click.option("--drain", is_flag=True)
@click.option("--wait-retries", is_flag=True)
@click.pass_obj
def run_command(session: Session, mode: str, drain: bool, wait_retries: bool) -> int:
    """Be a worker. `worker start` executes this."""
    from queuectl.worker import process

    return process.be_worker(session.spool.layout, mode=mode, drain=drain, wait_retries=wait_retries)


def _complete_logs(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    names = options.ask_spool(ctx, lambda spool: _logged_names(spool.layout))
    return [name for name in names if name.startswith(incomplete)]


@command(
    "logs",
    examples="""
    queuectl worker logs
    queuectl worker logs -f
    queuectl worker logs worker-0 | grep failed
    """,
)
@click.argument("name", metavar="[WORKER]", required=False, shell_complete=_complete_logs)
@click.option("--follow", "-f", is_flag=True, help="Print new lines as they come, until Ctrl+C.")
@click.option(
    "--raw", is_flag=True, help="On a terminal, print control characters as they are instead of as escapes."
)
@click.pass_obj
def logs_command(session: Session, name: str | None, follow: bool, raw: bool) -> int:
    """Print the logs of background workers: the start and end of each job, and other events.

    The lines of all workers are merged in the order of time, including workers that have stopped. With WORKER, only
    the lines of that worker are printed. The output of jobs is in `queuectl logs JOB`.
    """
    if session.json:
        raise Usage("worker logs are lines of text, without a JSON form", hint="queuectl worker list --json")
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
        ends = _print_all(layout, names, sink)
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
        return sorted(name[:-4] for name in os.listdir(layout.workers) if name.endswith(".log"))
    except FileNotFoundError:
        return []


def _print_all(layout: Layout, names: list[str], sink: Sink) -> dict[str, int]:
    """Print the logs merged by time; return the offset up to which each file was read."""
    from heapq import merge

    paths = [layout.worker_file(name, "log") for name in names]
    ends = {path: _size(path) for path in paths}
    rotated = [path + ".1" for path in paths]
    sources = [_timed_lines(path, ends.get(path)) for path in rotated + paths]
    for _, text in merge(*sources, key=lambda pair: pair[0]):
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
        with open(path, "rb") as file:
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
            with open(path, "rb") as file:
                file.seek(start)
                data = file.read(size - start)
        except FileNotFoundError:
            return
        # Whole lines only: otherwise the lines of two workers could be mixed.
        data = data[: data.rfind(b"\n") + 1]
        sink.write(data)
        ends[path] = start + len(data)
