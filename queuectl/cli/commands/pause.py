"""`queuectl pause`, `resume` and `drain`: stop workers from starting jobs, all or those of one queue, and end that."""

from __future__ import annotations

from functools import partial
from typing import Any

import click

from queuectl.api import json_view
from queuectl.cli import options, render
from queuectl.cli.base import Session, command

_reason = click.option(
    "--reason",
    metavar="TEXT",
    default="",
    callback=options.checked(options.utf8_text),
    help="A text that `status` shows.",
)
_queue = click.option(
    "--queue",
    metavar="NAME",
    callback=options.job_field("queue"),
    shell_complete=options.complete_queues,
    help="Only this queue.",
)


@command(
    "pause",
    examples="""
    queuectl pause
    queuectl pause --reason "replacing a disk, back at noon"
    queuectl pause --queue mail               only the jobs of the queue mail
    touch ~/.queuectl/paused                  the same without queuectl; the file's text is the reason
    """,
    changes=True,
)
@_reason
@_queue
@click.pass_obj
def pause_command(session: Session, reason: str, queue: str | None) -> None:
    """Stop all workers from starting jobs. Running jobs continue, and new jobs can be queued.

    When this command returns, every worker has seen the pause. The pause also holds for workers that start later, and
    after a restart of the machine, until `queuectl resume`. With --queue, jobs of other queues go on.
    """
    spool = session.spool
    options.note_unknown_queues(session, () if queue is None else (queue,))
    silent = spool.pause(reason, queue=queue)
    _report(session, "paused", queue, {"workers_not_paused": silent})
    if silent:
        names = ", ".join(silent)
        render.note(f"note: no answer yet from {names}, which may still start a job: queuectl worker list")


@command(
    "resume",
    examples="""
    queuectl resume
    queuectl resume --queue mail
    rm ~/.queuectl/paused                     the same without queuectl
    """,
    changes=True,
)
@_queue
@click.pass_obj
def resume_command(session: Session, queue: str | None) -> None:
    """Let the workers start jobs again. If the spool, or the queue, is not paused, nothing changes.

    A pause of the spool and that of a queue are two things: each is ended for itself.
    """
    was_paused = session.spool.resume(queue=queue)
    if session.json:
        render.json_value({**_named(queue), "paused": None, "resumed": was_paused})
    else:
        render.line("resumed" if was_paused else "not paused")


@command(
    "drain",
    examples="""
    queuectl drain --reason deploy            then deploy, and: queuectl resume
    queuectl drain --timeout 10m              exit code 75 if jobs are still running after 10 minutes
    queuectl drain --queue mail               only the jobs of the queue mail
    """,
    changes=True,
)
@_reason
@_queue
@click.option(
    "--timeout",
    metavar="TIME",
    callback=options.checked(options.limit),
    help="The longest time to wait: 90, 10m, 2h, none. After it the exit code is 75.",
)
@click.pass_obj
def drain_command(session: Session, reason: str, queue: str | None, timeout: float | None) -> None:
    """Pause the spool, and wait until no job is running. It stays paused until `queuectl resume`.

    If jobs are still running when the time is over, the exit code is 75, and the spool stays paused. (To make workers
    exit when no jobs are left, use `queuectl worker start --drain`.)
    """
    session.spool.drain(reason, queue=queue, timeout=timeout, tell=partial(_report_running, session))
    _report(session, "drained", queue)


def _report_running(session: Session, jobs: list[str]) -> None:
    from queuectl.control import pause

    more = f" and {len(jobs) - 3} more" if len(jobs) > 3 else ""
    names = f"{', '.join(jobs[:3])}{more}" if jobs else "the workers to see the pause"
    engine = pause.uncollected(session.spool.layout, jobs)
    nobody = f", and no dispatcher runs: queuectl worker start --engine {engine}" if engine else ""
    render.note(f"waiting for {names}{nobody}")


def _named(queue: str | None) -> dict[str, Any]:
    return {} if queue is None else {"queue": queue}


def _report(session: Session, done: str, queue: str | None, more: dict[str, Any] | None = None) -> None:
    if session.json:
        paused = json_view.pause(session.spool.paused(queue=queue))
        render.json_value({**_named(queue), "paused": paused, **(more or {})})
    else:
        render.line(done)
