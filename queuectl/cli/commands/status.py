"""`queuectl status`: count the jobs in each state, and the workers."""

from __future__ import annotations

import click

from queuectl.cli import status_answer
from queuectl.cli.base import Session, command


@command(
    "status",
    examples="""
    queuectl status
    queuectl status --json | jq .jobs.dead
    watch -n 2 queuectl status
    """,
)
@click.pass_obj
def status_command(session: Session) -> None:
    """Count the jobs in each state, and the workers.

    pending: waits for a worker or for its time. processing: runs now. completed: ended with exit code 0. failed: will
    be tried again automatically. dead: is not tried again (see queuectl dlq). Notes about the spool go to stderr.
    """
    status_answer.write(session.spool, json=session.json)
