"""`queuectl hold` and `release`: keep waiting jobs from running, and let them run again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from queuectl.cli import options
from queuectl.cli.base import Session, command
from queuectl.cli.selection import BulkAction, dry_run_option, filter_options
from queuectl.errors import QueuectlError
from queuectl.job.fields import WAITING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from queuectl.cli.selection import Tell
    from queuectl.index.filter import Filter


@command(
    "hold",
    examples="""
    queuectl hold job1 job2
    queuectl hold --tag import
    queuectl hold --command ffmpeg --dry-run  show which jobs would be held
    queuectl list --held
    """,
    changes=True,
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

    def hold(chosen: Sequence[str], tell: Tell) -> None:
        for job_id, changed in spool.hold_many(chosen).items():
            tell(job_id, _told(job_id, changed, ("held", "held already"), held=True))

    return action.together(action.select(ids, where, everything=everything), hold, dry_run=dry_run)


def _told(
    job_id: str, changed: bool | QueuectlError, words: tuple[str, str], *, held: bool
) -> tuple[str, dict[str, Any]] | QueuectlError:
    if isinstance(changed, QueuectlError):
        return changed
    return f"{job_id}: {words[not changed]}", {"id": job_id, "held": held, "changed": changed}


@command(
    "release",
    examples="""
    queuectl release job1
    queuectl release --tag import
    queuectl release --all
    """,
    changes=True,
)
@click.argument("ids", nargs=-1, metavar="[JOB...]", shell_complete=options.complete_held)
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

    def release(chosen: Sequence[str], tell: Tell) -> None:
        for job_id, changed in spool.hold_many(chosen, hold=False).items():
            tell(job_id, _told(job_id, changed, ("released", "not held"), held=False))

    if not ids and (everything or not where.is_open):
        where, everything = where.of_held, False
    return action.together(action.select(ids, where, everything=everything), release, dry_run=dry_run)
