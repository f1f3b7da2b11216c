"""`queuectl pause`, `resume` and `drain`: stop workers from starting jobs, and let them start jobs again."""

from __future__ import annotations

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


@command(
    "pause",
    examples="""
    queuectl pause
    queuectl pause --reason "replacing a disk, back at noon"
    touch ~/.queuectl/paused                  the same without queuectl; the file's text is the reason
    """,
    changes=True,
)
@_reason
@click.pass_obj
def pause_command(session: Session, reason: str) -> None:
    """Stop all workers from starting jobs. Running jobs continue, and new jobs can be queued.

    When this command returns, every worker has seen the pause. The pause also holds for workers that start later, and
    after a restart of the machine, until `queuectl resume`.
    """
    spool = session.spool
    silent = spool.pause(reason)
    _report(session, "paused", {"workers_not_paused": silent})
    if silent:
        names = ", ".join(silent)
        render.note(f"note: no answer yet from {names}, which may still start a job: queuectl worker list")


@command(
    "resume",
    examples="""
    queuectl resume
    rm ~/.queuectl/paused                     the same without queuectl
    """,
    changes=True,
)
@click.pass_obj
def resume_command(session: Session) -> None:
    """Let the workers start jobs again. If the spool is not paused, nothing changes."""
    was_paused = session.spool.resume()
    if session.json:
        render.json_value({"paused": None, "resumed": was_paused})
    else:
        render.line("resumed" if was_paused else "not paused")


@command(
    "drain",
    examples="""
    queuectl drain --reason deploy            then deploy, and: queuectl resume
    queuectl drain --timeout 10m              exit code 75 if jobs are still running after 10 minutes
    """,
    changes=True,
)
@_reason
@click.option(
    "--timeout",
    metavar="TIME",
    callback=options.checked(options.limit),
    help="The longest time to wait: 90, 10m, 2h, none. After it the exit code is 75.",
)
@click.pass_obj
def drain_command(session: Session, reason: str, timeout: float | None) -> None:
    """Pause the spool, and wait until no job is running. It stays paused until `queuectl resume`.

    If jobs are still running when the time is over, the exit code is 75, and the spool stays paused. (To make workers
    exit when no jobs are left, use `queuectl worker start --drain`.)
    """
    session.spool.drain(reason, timeout=timeout, tell=_report_running)
    _report(session, "drained")


def _report_running(jobs: list[str]) -> None:
    more = f" and {len(jobs) - 3} more" if len(jobs) > 3 else ""
    names = f"{', '.join(jobs[:3])}{more}" if jobs else "the workers to see the pause"
    render.note(f"waiting for {names}")


def _report(session: Session, done: str, more: dict[str, Any] | None = None) -> None:
    if session.json:
        render.json_value({"paused": json_view.pause(session.spool.paused()), **(more or {})})
    else:
        render.line(done)
