"""`queuectl pause`, `resume`, `drain`: whether workers may start jobs."""

from __future__ import annotations

from typing import Any

import click

from queuectl.api import json_view
from queuectl.cli import options as takes
from queuectl.cli import render
from queuectl.cli.base import Session, command

_reason = click.option(
    "--reason",
    metavar="TEXT",
    default="",
    callback=takes.checked(takes.plain_text),
    help="Shown by `status`.",
)


@command(
    "pause",
    examples="""
    queuectl pause
    queuectl pause --reason "disk is being exchanged, back at noon"
    touch ~/.queuectl/paused                  the same from any tool; its text is the reason
    """,
)
@_reason
@click.pass_obj
def pause_command(session: Session, reason: str) -> None:
    """Have no worker start another job. Jobs that run go on, and new ones may be queued.

    When this returns, each worker has taken notice. It holds for workers that are started later, and over restarts
    of the machine, until `queuectl resume`.
    """
    spool = session.spool
    deaf = spool.pause(reason)
    _tell(session, "paused", {"workers_not_paused": deaf})
    if deaf:
        render.note(
            f"note: no answer yet from {', '.join(deaf)}, which may still start a job: queuectl worker list"
        )


@command(
    "resume",
    examples="""
    queuectl resume
    rm ~/.queuectl/paused                     the same from any tool
    """,
)
@click.pass_obj
def resume_command(session: Session) -> None:
    """Let the workers go on. A spool that is not paused stays as it is."""
    was = session.spool.resume()
    if session.json:
        render.json_value({"paused": None, "resumed": was})
    else:
        render.line("resumed" if was else "not paused")


@command(
    "drain",
    examples="""
    queuectl drain --reason deploy            then deploy, and: queuectl resume
    queuectl drain --timeout 10m              exit code 75 if jobs still run by then
    """,
)
@_reason
@click.option(
    "--timeout",
    metavar="TIME",
    callback=takes.checked(takes.duration),
    help="Wait no longer: 90, 10m, 2h. Then the exit code is 75.",
)
@click.pass_obj
def drain_command(session: Session, reason: str, timeout: float | None) -> None:
    """Pause the spool, and wait until nothing runs. It stays paused until `queuectl resume`.

    The exit code is 75 if jobs still run at the end of the time given; the spool stays paused all the same.
    (To leave when there is no job left, a worker is started with --drain.)
    """
    spool = session.spool
    spool.drain(reason, timeout=timeout, tell=_tell_running)
    _tell(session, "drained")


def _tell_running(jobs: list[str]) -> None:
    more = f" and {len(jobs) - 3} more" if len(jobs) > 3 else ""
    render.note(
        f"waiting for {', '.join(jobs[:3])}{more}" if jobs else "waiting for the workers to take notice"
    )


def _tell(session: Session, done: str, more: dict[str, Any] | None = None) -> None:
    if session.json:
        render.json_value({"paused": json_view.pause(session.spool.paused()), **(more or {})})
    else:
        render.line(done)
