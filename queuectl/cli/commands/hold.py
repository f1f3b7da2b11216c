"""`queuectl hold` and `release`: keep waiting jobs from running, and let them run again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from queuectl.cli import options
from queuectl.cli.base import Session, command
from queuectl.cli.selection import BulkAction, dry_run_option, filter_options
from queuectl.job.fields import WAITING

if TYPE_CHECKING:
    from queuectl.index.filter import Filter


@command(
    "hold",
    examples="""
    queuectl hold job1 job2
    queuectl hold --tag import
    queuectl hold --command ffmpeg --dry-run  show which jobs would be held
    queuectl list --held
    """,
)
@click.argument("ids", nargs=-1, metavar="[JOB...]", shell_complete=options.complete_ids(*WAITING))
@filter_options()
@click.option("--all", "everything", is_flag=True, help="All waiting jobs.")
@dry_run_option
@click.pass_obj
def hold_command(
    session: Session, ids: tuple[str, ...], where: Filter, everything: bool, dry_run: bool
) -> int:
    """Keep waiting jobs from running until `queuectl release`.

    This sets `"hold": true` in the job's file, which you can also do in an editor. A running job cannot be held.
    """
    spool = session.spool
    action = BulkAction(session, "hold", "held", WAITING)

    def hold(job_id: str) -> tuple[str, dict[str, Any]]:
        changed = spool.hold(job_id)
        text = f"{job_id}: {'held' if changed else 'held already'}"
        return text, {"id": job_id, "held": True, "changed": changed}

    return action.each(action.select(ids, where, everything=everything), hold, dry_run=dry_run)


@command(
    "release",
    examples="""
    queuectl release job1
    queuectl release --tag import
    queuectl release --all
    """,
)
@click.argument("ids", nargs=-1, metavar="[JOB...]", shell_complete=options.complete_ids(*WAITING))
@filter_options()
@click.option("--all", "everything", is_flag=True, help="All held jobs.")
@dry_run_option
@click.pass_obj
def release_command(
    session: Session, ids: tuple[str, ...], where: Filter, everything: bool, dry_run: bool
) -> int:
    """Let held jobs run. Their waiting time is counted from now.

    This sets `"hold": false` in the job's file; removing the field does the same.
    """
    spool = session.spool
    action = BulkAction(session, "release", "released", WAITING)

    def release(job_id: str) -> tuple[str, dict[str, Any]]:
        changed = spool.release(job_id)
        text = f"{job_id}: {'released' if changed else 'not held'}"
        return text, {"id": job_id, "held": False, "changed": changed}

    if not ids and (everything or not where.is_open):
        where, everything = where.of_held, False
    return action.each(action.select(ids, where, everything=everything), release, dry_run=dry_run)
