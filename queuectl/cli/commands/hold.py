"""`queuectl hold` and `release`: keep jobs from running for a while."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from queuectl.cli import options as takes
from queuectl.cli.base import Session, command
from queuectl.cli.selection import Bulk, dry_run_option, filter_options
from queuectl.job.fields import WAITING

if TYPE_CHECKING:
    from queuectl.index.filter import Filter


@command(
    "hold",
    examples="""
    queuectl hold job1 job2
    queuectl hold --tag import
    queuectl hold --command ffmpeg --dry-run  say what would be held
    queuectl list --held
    """,
)
@click.argument("ids", nargs=-1, metavar="[JOB...]", shell_complete=takes.complete_ids(*WAITING))
@filter_options()
@click.option("--all", "everything", is_flag=True, help="All jobs that wait.")
@dry_run_option
@click.pass_obj
def hold_command(
    session: Session, ids: tuple[str, ...], where: Filter, everything: bool, dry_run: bool
) -> int:
    """Keep waiting jobs from running until `queuectl release`.

    In the job's file it is `"hold": true`, which an editor can write too. A job that runs cannot be held.
    """
    spool = session.spool
    bulk = Bulk(session, "hold", "held", WAITING)

    def hold(job_id: str) -> tuple[str, dict[str, Any]]:
        changed = spool.hold(job_id)
        return f"{job_id}: {'held' if changed else 'held already'}", {
            "id": job_id,
            "held": True,
            "changed": changed,
        }

    return bulk.each(bulk.chosen(ids, where, everything=everything), hold, dry_run=dry_run)


@command(
    "release",
    examples="""
    queuectl release job1
    queuectl release --tag import
    queuectl release --all
    """,
)
@click.argument("ids", nargs=-1, metavar="[JOB...]", shell_complete=takes.complete_ids(*WAITING))
@filter_options()
@click.option("--all", "everything", is_flag=True, help="All jobs that are held.")
@dry_run_option
@click.pass_obj
def release_command(
    session: Session, ids: tuple[str, ...], where: Filter, everything: bool, dry_run: bool
) -> int:
    """Let held jobs run. They take their place in the line as if they came now.

    In the job's file it is `"hold": false`, or no such field.
    """
    spool = session.spool
    bulk = Bulk(session, "release", "released", WAITING)

    def release(job_id: str) -> tuple[str, dict[str, Any]]:
        changed = spool.release(job_id)
        return f"{job_id}: {'released' if changed else 'not held'}", {
            "id": job_id,
            "held": False,
            "changed": changed,
        }

    if not ids and (everything or not where.is_open):
        where, everything = where.of_held, False
    return bulk.each(bulk.chosen(ids, where, everything=everything), release, dry_run=dry_run)
