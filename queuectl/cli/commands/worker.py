"""`queuectl worker`: start, stop, list, logs, and the hidden `run` that a worker process is."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from queuectl.api import json_view
from queuectl.cli import options as takes
from queuectl.cli import render
from queuectl.cli.base import Group, Session, Usage, command
from queuectl.errors import WorkerError

if TYPE_CHECKING:
    from queuectl.control.registry import WorkerInfo

MOST_WORKERS = 1000
"""A count past it is a slip of the finger, and would take the machine down."""

worker_command = Group(
    name="worker",
    callback=lambda: None,
    short_help="Start, stop and watch the processes that run jobs.",
    help="""Workers are the processes that run jobs, one job at a time each.

    They run in the background and outlive the terminal, or with --foreground in this one. Workers may be started
    and stopped at any time, several times, from any terminal.""",
    examples="""
    queuectl worker start --count 4           four in the background
    queuectl worker start --foreground        one here; Ctrl+C lets it finish its job, twice ends it
    queuectl worker start --drain             run what is there, then leave: for cron
    queuectl worker list                      who runs what
    queuectl worker stop                      finish the jobs in hand, then leave
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
            "start": ("worker", "Start workers, in the background or here."),
            "stop": ("worker", "Let all workers of the spool finish and leave."),
            "list": ("worker", "Show the workers and what they run."),
            "logs": ("worker_logs", "Print what workers wrote, or follow it."),
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
@click.option("--count", "-n", metavar="N", callback=takes.between(1, MOST_WORKERS), help="How many.")
@click.option(
    "--foreground", "-f", is_flag=True, help="Live in this terminal and show every job's start and end."
)
@click.option("--drain", is_flag=True, help="Leave when nothing is left to do.")
@click.option("--wait-retries", is_flag=True, help="With --drain: wait for retries and scheduled jobs too.")
@click.pass_obj
def start_command(
    session: Session, count: int | None, foreground: bool, drain: bool, wait_retries: bool
) -> int:
    """Start workers.

    Without --foreground they run in the background, outlive the terminal, and the command returns when each of them
    is ready, or says why one is not. Without --count there are as many as the setting worker_count says, else one.
    """
    if wait_retries and not drain:
        raise Usage("--wait-retries goes with --drain")
    if foreground and session.json:
        raise Usage("--json and --foreground do not go together: what a worker shows is for people")
    from queuectl.worker import pool

    spool = session.spool
    many = count or spool.settings().worker_count or 1
    if foreground:
        return pool.foreground(spool.layout, many, drain=drain, wait_retries=wait_retries)
    _show_started(session, pool.start(spool.layout, many, drain=drain, wait_retries=wait_retries))
    if paused := spool.paused():
        then = "leave at once" if drain else "start nothing until: queuectl resume"
        render.note(f"note: {paused.sentence}; they {then}")
    return 0


def _show_started(session: Session, started: list[WorkerInfo]) -> None:
    # Whichever got ready first took the first name; a reader wants them in order.
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
    queuectl worker stop                      wait for the jobs in hand
    queuectl worker stop --timeout 0          only tell them to stop
    queuectl worker stop --force              end the jobs too; they are put back and run again later
    """,
)
@click.option(
    "--force", is_flag=True, help="End the jobs in hand; they are put back, and it costs them no attempt."
)
@click.option(
    "--timeout",
    metavar="TIME",
    callback=takes.checked(takes.duration),
    help="How long to wait for them. Default: the setting stop_timeout.",
)
@click.pass_obj
def stop_command(session: Session, force: bool, timeout: float | None) -> None:
    """Stop all workers of the spool, whoever started them.

    Each finishes the job that it has in hand and takes no other. If some are still busy at the end of the time they
    stop later, by themselves, and the exit code is 1.
    """
    from queuectl.worker import pool

    spool = session.spool
    patience = spool.settings().stop_timeout if timeout is None else timeout
    stopped, busy = pool.stop(spool.layout, force=force, timeout=patience, report=_report_busy)
    if session.json:
        render.json_value({"stopped": stopped, "busy": [json_view.worker(worker) for worker in busy]})
    elif stopped or not busy:
        render.line(f"Stopped {stopped} worker(s)" if stopped else "No workers to stop")
    if busy:
        names = ", ".join(f"{worker.name} ({_doing(worker)})" for worker in busy)
        raise WorkerError(
            f"still busy: {names}; each stops when its job ends",
            hint="queuectl worker stop --force ends the jobs",
        )


def _report_busy(busy: list[WorkerInfo]) -> None:
    for worker in busy:
        render.note(f"waiting for {worker.name}: {_doing(worker)}")


@command(
    "list",
    examples="""
    queuectl worker list
    queuectl worker list --json | jq -r '.[].job_id'
    """,
)
@click.pass_obj
def list_command(session: Session) -> None:
    """Show the workers that are alive, and what each of them runs since when."""
    found = session.spool.workers()
    if session.json:
        render.json_array(json_view.worker(worker) for worker in found)
    elif not found:
        render.note("no workers: queuectl worker start")
    elif render.is_terminal():
        rows = [(w.name, str(w.pid), _since(w.started_at), _doing(w)) for w in found]
        render.table("Workers", ("Worker", "PID", "Running For", "Doing"), rows)
    else:
        for worker in found:
            render.line(f"{worker.name} - PID={worker.pid} - {_doing(worker)}")


@command("run", examples="", hidden=True)
@click.option("--mode", type=click.Choice(["background", "foreground", "child"]), default="background")
@click.option("--drain", is_flag=True)
@click.option("--wait-retries", is_flag=True)
@click.pass_obj
def run_command(session: Session, mode: str, drain: bool, wait_retries: bool) -> int:
    """Be a worker. This is what `worker start` executes."""
    from queuectl.worker import process

    return process.be_worker(session.spool.layout, mode=mode, drain=drain, wait_retries=wait_retries)


def _since(moment: float | None) -> str:
    return "?" if moment is None else render.ago(time.time() - moment)


def _doing(worker: WorkerInfo) -> str:
    if worker.job_id is None:
        if worker.paused and not worker.stopping:
            return f"paused: {worker.paused}"
        return "stopping" if worker.stopping else "idle"
    stopping = ", then stops" if worker.stopping else ""
    return f"job {worker.job_id} for {_since(worker.job_since)}{stopping}"
