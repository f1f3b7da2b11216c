"""`queuectl remove`: delete jobs for good."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from queuectl.cli import options as takes
from queuectl.cli import render
from queuectl.cli.base import Session, command
from queuectl.cli.selection import Bulk, dry_run_option, filter_options
from queuectl.job.fields import STATES

if TYPE_CHECKING:
    from queuectl.index.filter import Filter


@command(
    "remove",
    examples="""
    queuectl remove job1 job2
    queuectl remove --tag import --dry-run    say what would be removed
    queuectl remove --state done --until 30d --yes
    queuectl remove --cancel job3             end it first, if it runs
    """,
)
@click.argument("ids", nargs=-1, metavar="[JOB...]", shell_complete=takes.complete_ids())
@filter_options()
@click.option("--all", "everything", is_flag=True, help="All jobs.")
@click.option("--cancel", is_flag=True, help="End those that run first. Else they are left alone.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@dry_run_option
@click.pass_obj
def remove_command(
    session: Session,
    ids: tuple[str, ...],
    where: Filter,
    everything: bool,
    cancel: bool,
    yes: bool,
    dry_run: bool,
) -> int:
    """Delete jobs and what they wrote, for good. It is what `rm` does to the job's file, and to its logs.

    Asks first when the jobs are described, and not when they are named. A running one is refused unless --cancel is
    given. With several jobs each is reported, and the exit code is 1 if any refused.
    """
    spool = session.spool
    among = STATES if cancel else tuple(state for state in STATES if state != "processing")
    bulk = Bulk(session, "remove", "removed", among)
    chosen = bulk.chosen(ids, where, everything=everything)
    if chosen and not ids and not dry_run:
        takes.agree(f"Remove {render.count(len(chosen), 'job')} for good", yes=yes)

    def remove(job_id: str) -> tuple[str, dict[str, Any]]:
        spool.forget(job_id, cancel=cancel, durable=False)
        return f"{job_id}: removed", {"id": job_id, "removed": True}

    try:
        return bulk.each(chosen, remove, dry_run=dry_run)
    finally:
        if not dry_run:
            spool.sync_deletions()
