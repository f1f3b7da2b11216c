"""`queuectl worker`: start, stop, list, logs, and the hidden `run` that each worker process executes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, TypeVar

import click

from queuectl.api import json_view
from queuectl.cli import options, render
from queuectl.cli.base import Group, Session, Usage, command
from queuectl.config.keys import MAX_CONCURRENCY
from queuectl.config.settings import Settings
from queuectl.errors import ConfigError, WorkerError
from queuectl.layout import ENGINES, LOCAL

if TYPE_CHECKING:
    from collections.abc import Callable

    from queuectl.control.registry import WorkerInfo
    from queuectl.worker.stopping import Stopped

FC = TypeVar("FC", bound="Callable[..., Any] | click.Command")

MAX_WORKERS = 1000
"""A larger --count is most likely a typing error, and would overload the machine."""

worker_command = Group(
    name="worker",
    short_help="Start, stop and watch the processes that run jobs.",
    help="""Workers are the processes that run jobs. Each worker runs one job at a time, or several (--concurrency).

    They run in the background and continue when the terminal is closed, or in this terminal with --foreground. You
    can start and stop workers at any time, more than once, and from any terminal.""",
    examples="""
    queuectl worker start --count 4           four in the background
    queuectl worker start --foreground        one here; Ctrl+C lets it finish its job, twice ends it
    queuectl worker start --drain             run the waiting jobs, then exit
    queuectl worker list                      show which worker runs which job
    queuectl worker scale 4                   start or stop as many as needed
    queuectl worker stop                      finish the running jobs, then exit
    """,
    other_words={
        "ls": "list",
        "ps": "list",
        "status": "list",
        "show": "list",
        "info": "list",
        "count": "list",
        "kill": "stop --force",
        "add": "start",
        "log": "logs",
        "tail": "logs -f",
        "follow": "logs -f",
        "pause": "queuectl pause",
        "unpause": "queuectl resume",
        "resume": "queuectl resume",
        "drain": "queuectl drain",
        "quit": "stop",
        "shutdown": "stop",
        "terminate": "stop",
    },
    needless={
        "restart": ("stop the workers and start new ones", "queuectl worker stop && queuectl worker start"),
        "reload": ("workers follow the settings by themselves", "queuectl config get"),
    },
    sections={
        "Commands": {
            "start": ("worker", "Start workers, in the background or in this terminal."),
            "stop": ("worker", "Stop workers when they have finished their jobs: all of the spool, or some."),
            "scale": ("worker_scale", "Start or stop as many workers as needed to have N."),
            "list": ("worker", "Show the workers and what they run."),
            "logs": ("worker_logs", "Print the logs of the workers, or follow them."),
        }
    },
    hidden_commands={"run": "worker"},
)


concurrency_option = click.option(
    "--concurrency",
    "-j",
    metavar="N",
    callback=options.between(1, MAX_CONCURRENCY),
    help=f"How many jobs each of them runs at once, 1 to {MAX_CONCURRENCY}. Default: the setting concurrency, also when "
    "it changes.",
)


def queue_options(function: FC) -> FC:
    """The options --queue and --not-queue of what starts workers."""
    for option in (
        options.queues_option("--not-queue", "not_queues", "Run no jobs of this queue."),
        options.queues_option(
            "--queue", "queues", "Run only jobs of this queue; `default` has those that name none."
        ),
    ):
        function = option(function)
    return function


def check_queues(queues: tuple[str, ...], not_queues: tuple[str, ...]) -> None:
    """Refuse two options that contradict each other.

    Raises:
        Usage: they do.
    """
    if both := sorted({*queues} & {*not_queues}):
        raise Usage(f"--queue {both[0]} and --not-queue {both[0]} contradict each other")


@command(
    "start",
    examples="""
    queuectl worker start                            one in the background (or worker_count of them)
    queuectl worker start --count 3
    queuectl worker start -j 32                      one that runs up to 32 jobs at once
    queuectl worker start --foreground --count 2     live, in this terminal
    queuectl worker start --foreground --drain --wait-retries
    queuectl worker start --queue mail --queue default
    queuectl worker start --count 2 --not-queue gpu
    queuectl worker start --engine slurm             hand jobs to a cluster, see queuectl guide slurm
    """,
)
@click.option(
    "--count", "-n", metavar="N", callback=options.between(1, MAX_WORKERS), help="How many to start."
)
@concurrency_option
@click.option(
    "--foreground", "-f", is_flag=True, help="Run in this terminal and show the start and end of every job."
)
@click.option("--drain", is_flag=True, help="Exit when no job is left to run.")
@click.option("--wait-retries", is_flag=True, help="With --drain: wait for retries and scheduled jobs too.")
@queue_options
@click.option(
    "--engine",
    type=click.Choice(ENGINES),
    help="Start the dispatcher of this engine, which hands the jobs of its queues over: see queuectl guide slurm.",
)
@click.pass_obj
def start_command(
    session: Session,
    count: int | None,
    concurrency: int | None,
    foreground: bool,
    drain: bool,
    wait_retries: bool,
    queues: tuple[str, ...],
    not_queues: tuple[str, ...],
    engine: str | None,
) -> int:
    """Start workers, in the background or in this terminal.

    Without --foreground they run in the background and continue when the terminal is closed. The command returns when
    each of them is ready, or says why one is not. Without --count it starts as many as the setting worker_count says,
    or one.

    With --queue or --not-queue they serve some queues only. With --drain they exit when no job of these is left.

    With --engine it starts the one dispatcher of a cluster. That runs no job itself: it hands the jobs of the queues with this
    engine to the cluster, and records what becomes of them. Workers leave those queues out.
    """
    if engine is not None:
        refuse_for_engine(count=count, concurrency=concurrency, queue=queues, not_queue=not_queues)
    if wait_retries and not drain:
        raise Usage("--wait-retries works only with --drain")
    if foreground and session.json:
        raise Usage("--json does not work with --foreground: the output of such a worker is text for people")
    check_queues(queues, not_queues)
    from queuectl.worker import pool, supervisor
    from queuectl.worker.program import WorkerOptions

    spool = session.spool
    number = 1 if engine else count or spool.settings().worker_count or 1
    wanted = WorkerOptions(drain, wait_retries, concurrency, queues, not_queues, engine)
    options.note_unknown_queues(session, (*queues, *not_queues))
    if foreground:
        return supervisor.foreground(spool.layout, number, wanted)
    show_started(session, pool.start(spool.layout, number, wanted))
    if paused := spool.paused():
        verb = "hand no job over" if engine else "start no job"
        effect = "exit at once" if drain else f"{verb} until: queuectl resume"
        render.note(f"note: {paused.sentence}; they {effect}")
    return 0


def refuse_for_engine(count: int | None, **given: object) -> None:
    """Refuse what means nothing for a dispatcher.

    Raises:
        Usage: it was given.
    """
    if count is not None and count > 1:
        raise Usage("--engine starts one dispatcher, so --count cannot be more than 1")
    for name, value in given.items():
        if value:
            raise Usage(f"--{name.replace('_', '-')} does not work with --engine")


def show_started(session: Session, started: list[WorkerInfo]) -> None:
    """Print the new workers."""
    # Workers become ready in any order; show them in the order of their names.
    started = sorted(started, key=lambda worker: (len(worker.name), worker.name))
    if session.json:
        render.json_array(json_view.worker(worker) for worker in started)
        return
    for worker in started:
        render.line(f"[{worker.name}] started PID={worker.pid}")
    render.line(f"Started {len(started)} worker(s)")
    render.line(f"Worker PIDs: {[worker.pid for worker in started]}")


def _complete_names(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    names = options.ask_spool(ctx, lambda spool: [worker.name for worker in spool.workers()])
    return [name for name in names if name.startswith(incomplete)]


@command(
    "stop",
    examples="""
    queuectl worker stop                      wait for the running jobs
    queuectl worker stop worker-3             only this one
    queuectl worker stop --timeout 0          tell the workers to stop, and do not wait
    queuectl worker stop --force              end the running jobs too; they go back to pending
    queuectl worker stop --engine slurm       only the dispatcher; what runs on the cluster runs on
    """,
    changes=True,
)
@click.argument("names", nargs=-1, metavar="[WORKER...]", shell_complete=_complete_names)
@click.option(
    "--force",
    is_flag=True,
    help="End the running jobs. They go back to pending, and this does not count as an attempt.",
)
@click.option(
    "--timeout",
    metavar="TIME",
    callback=options.checked(options.duration),
    help="How long to wait for the workers. Default: the setting stop_timeout; longer for --force on a cluster.",
)
@click.option(
    "--engine",
    type=click.Choice((LOCAL, *ENGINES)),
    help="Stop only the dispatcher of this engine; local: only the workers.",
)
@click.pass_obj
def stop_command(
    session: Session, names: tuple[str, ...], force: bool, timeout: float | None, engine: str | None
) -> None:
    """Stop all workers of the spool, or only those with these names, from any terminal.

    Each worker finishes the job that it runs and starts no other. The command waits for that. When the time of
    --timeout is over, the workers that still run a job are listed and the exit code is 1; they stop when their jobs end.

    With --force, a worker that does not answer is killed, and its job goes back. A job may call this command: the
    worker of that job is not waited for, and stops when the job ends.

    The dispatcher of a cluster takes back what has not begun there, and leaves at once. What runs there runs on, and the next
    dispatcher records its end; with --force it is ended too, and put back.
    """
    from queuectl.worker import stopping

    if engine is not None:
        if names:
            raise Usage("give either the names of workers or --engine")
        names = tuple(
            one.name
            for one in session.spool.workers()
            if (one.name if one.kind == "dispatcher" else LOCAL) == engine
        )
        if not names:
            show_stopped(session, stopping.Stopped(0, [], None))
            return
    from queuectl.system import process

    limit = timeout
    if limit is None:
        limit = max(stop_timeout(session), stopping.forced_patience(session.spool.layout) if force else 0.0)
    done = stopping.stop(
        session.spool.layout,
        force=force,
        timeout=limit,
        report=report_busy,
        names=names,
        asked_at=process.started_at(),
    )
    show_stopped(session, done)


def stop_timeout(session: Session) -> float:
    """The setting, or the built-in value when the settings are not valid: workers must be stoppable all the same."""
    try:
        return session.spool.settings().stop_timeout
    except ConfigError as error:
        render.note(f"note: {error}; the built-in stop_timeout is used")
        return Settings().stop_timeout


def show_stopped(session: Session, done: Stopped) -> None:
    """Print how many workers have ended.

    Raises:
        WorkerError: some have not.
    """
    if session.json:
        busy = [json_view.worker(worker) for worker in done.busy]
        render.json_value({"started": [], "stopped": done.ended, "busy": busy})
    elif done.ended or not (done.busy or done.own):
        render.line(f"Stopped {done.ended} worker(s)" if done.ended else "No workers to stop")
    for name, number in done.left_on.items():
        jobs, their = (
            ("1 job runs", "its outcome is") if number == 1 else (f"{number} jobs run", "their outcomes are")
        )
        render.note(f"{jobs} on {name}; {their} collected by the next: queuectl worker start --engine {name}")
    if done.own:
        render.note(f"{done.own.worker} stops when job {done.own.job_id} ends, which this command belongs to")
    if done.busy:
        names = ", ".join(f"{worker.name} ({_activity(worker)})" for worker in done.busy)
        raise WorkerError(
            f"still running: {names}; each worker stops when its jobs have ended",
            hint="queuectl worker stop --force ends the jobs",
        )


def report_busy(busy: list[WorkerInfo]) -> None:
    """Print which workers are waited for."""
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
    """Show the workers that are alive, the job that each one runs, and for how long.

    Of a worker that runs several jobs at once it shows how many it runs, how many it may run, and the oldest one; --json
    has all of them.
    """
    found = session.spool.workers()
    if session.json:
        render.json_array(json_view.worker(worker) for worker in found)
    elif not found:
        render.note("no workers: queuectl worker start")
    elif render.is_terminal():
        rows = [
            (
                w.name,
                f"{w.pid} (elsewhere)" if w.elsewhere else str(w.pid),
                _since(w.started_at),
                _activity(w) + _bound(w),
            )
            for w in found
        ]
        render.table("Workers", ("Worker", "PID", "Running For", "Doing"), rows)
    else:
        for worker in found:
            where = " in another container" if worker.elsewhere else ""
            render.line(
                f"{worker.name} - PID={worker.pid or '-'}{where} - {_activity(worker)}{_bound(worker)}"
            )


def _since(moment: float | None) -> str:
    return "?" if moment is None else render.ago(time.time() - moment)


def _bound(worker: WorkerInfo) -> str:
    """Which queues a worker serves, if not all."""
    only = f" (only {', '.join(worker.queues)})" if worker.queues else ""
    return only + (f" (not {', '.join(worker.not_queues)})" if worker.not_queues else "")


def _activity(worker: WorkerInfo) -> str:
    if worker.mode == "starting":
        return "starting"
    if worker.engine is not None:
        many = "1 job" if worker.handed == 1 else f"{worker.handed:,} jobs"
        return f"{many} on {worker.name}: {worker.engine}" + (", stops" if worker.stopping else "")
    if worker.job_id is None:
        if worker.paused and not worker.stopping:
            return f"paused: {worker.paused}"
        return "stopping" if worker.stopping else "idle"
    stopping = ", then stops" if worker.stopping else ""
    text = f"job {worker.job_id} for {_since(worker.job_since)}"
    if worker.concurrency > 1 or len(worker.jobs) > 1:  # more, if it was lowered a moment ago
        text = f"{len(worker.jobs)}/{worker.concurrency} jobs, the oldest: {text.removeprefix('job ')}"
    return f"{text}{stopping}"


@command("run", examples="", hidden=True)
@click.option("--mode", type=click.Choice(["background", "foreground", "child"]), default="background")
@click.option("--drain", is_flag=True)
@click.option("--wait-retries", is_flag=True)
@click.option("--concurrency", type=int, default=None)
@click.option("--queue", "queues", multiple=True)
@click.option("--not-queue", "not_queues", multiple=True)
@click.option("--engine", default=None)
@click.option("--launch", metavar="JSON", default=None)
@click.pass_obj
def run_command(
    session: Session,
    mode: str,
    drain: bool,
    wait_retries: bool,
    concurrency: int | None,
    queues: tuple[str, ...],
    not_queues: tuple[str, ...],
    engine: str | None,
    launch: str | None,
) -> int:
    """Be a worker. `worker start` executes this."""
    from queuectl.control.launch import Launch
    from queuectl.worker import process
    from queuectl.worker.program import WorkerOptions

    try:
        known = None if launch is None else Launch.of_text(launch)
    except ValueError as error:
        raise Usage(f"--launch: {error}") from None
    wanted = WorkerOptions(drain, wait_retries, concurrency, queues, not_queues, engine)
    if engine is not None:
        from queuectl.worker import pool

        return pool.be_one(session.spool.layout, mode, wanted, known)
    return process.be_worker(session.spool.layout, mode, wanted, known)
