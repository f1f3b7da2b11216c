"""`queuectl cancel`: give jobs up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from queuectl.cli import options as takes
from queuectl.cli.base import Session, command
from queuectl.cli.selection import Bulk, dry_run_option, filter_options
from queuectl.job.fields import WAITING

if TYPE_CHECKING:
    from queuectl.index.filter import Filter

_AMONG = (*WAITING, "processing")


@command(
    "cancel",
    examples="""
    queuectl cancel job1 job2
    queuectl cancel --tag import --dry-run    say what would be cancelled
    queuectl cancel --state pending --command ffmpeg
    """,
)
@click.argument("ids", nargs=-1, metavar="[JOB...]", shell_complete=takes.complete_ids(*_AMONG))
@filter_options()
@click.option("--all", "everything", is_flag=True, help="All jobs that wait or run.")
@dry_run_option
@click.pass_obj
def cancel_command(
    session: Session, ids: tuple[str, ...], where: Filter, everything: bool, dry_run: bool
) -> int:
    """Give jobs up: one that waits goes to the dead letters, one that runs is ended first.

    `queuectl dlq retry` brings it back. With several jobs each is reported, and the exit code is 1 if any refused.
    """
    spool = session.spool
    bulk = Bulk(session, "cancel", "cancelled", _AMONG)

    def cancel(job_id: str) -> tuple[str, dict[str, Any]]:
        done = spool.cancel(job_id)
        return f"{job_id}: {done}", {"id": job_id, "done": done}

    return bulk.each(bulk.chosen(ids, where, everything=everything), cancel, dry_run=dry_run)
