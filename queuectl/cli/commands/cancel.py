"""`queuectl cancel`: cancel waiting and running jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from queuectl.cli import options
from queuectl.cli.base import Session, command
from queuectl.cli.selection import BulkAction, dry_run_option, filter_options
from queuectl.job.fields import WAITING

if TYPE_CHECKING:
    from queuectl.index.filter import Filter

_STATES = (*WAITING, "processing")


@command(
    "cancel",
    examples="""
    queuectl cancel job1 job2
    queuectl cancel --tag import --dry-run    show which jobs would be cancelled
    queuectl cancel --state pending --command ffmpeg
    """,
)
@click.argument("ids", nargs=-1, metavar="[JOB...]", shell_complete=options.complete_ids(*_STATES))
@filter_options()
@click.option("--all", "everything", is_flag=True, help="All waiting and running jobs.")
@dry_run_option
@click.pass_obj
def cancel_command(
    session: Session, ids: tuple[str, ...], where: Filter, everything: bool, dry_run: bool
) -> int:
    """Cancel jobs: end a running job, and move the job to the dead letter queue.

    `queuectl dlq retry` runs a cancelled job again. With several jobs each result is reported; the exit code is 1 if
    any was refused.
    """
    spool = session.spool
    action = BulkAction(session, "cancel", "cancelled", _STATES)

    def cancel(job_id: str) -> tuple[str, dict[str, Any]]:
        done = spool.cancel(job_id)
        return f"{job_id}: {done}", {"id": job_id, "done": done}

    return action.each(action.select(ids, where, everything=everything), cancel, dry_run=dry_run)
