"""`queuectl purge`: delete old completed and dead jobs, and old output."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from queuectl.cli import options, render
from queuectl.cli.base import Session, Usage, command
from queuectl.cli.selection import dry_run_option, filter_options, note_needed, read_limit

if TYPE_CHECKING:
    from queuectl.index.filter import Filter
    from queuectl.storage.retention import Purged


@command(
    "purge",
    examples="""
    queuectl purge --older-than 30d --dry-run             show what would be deleted
    queuectl purge --older-than 7d --state done --yes     only completed jobs, without asking
    queuectl purge --keep 1000                            all but the newest 1000 of each state
    queuectl purge --older-than 7d --logs-only            delete the output, keep the job files
    """,
    changes=True,
)
@click.option(
    "--older-than",
    metavar="TIME",
    callback=options.checked(options.duration),
    help="Jobs that ended longer ago than this: 12h, 7d.",
)
@click.option(
    "--keep",
    metavar="N",
    callback=options.checked(read_limit),
    help="Keep the newest N jobs of each state, counted among those that the filters select.",
)
@filter_options()
@click.option("--logs-only", is_flag=True, help="Delete the output of the jobs, and keep their files.")
@dry_run_option
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@click.pass_obj
def purge_command(
    session: Session,
    older_than: float | None,
    keep: int | None,
    where: Filter,
    logs_only: bool,
    dry_run: bool,
    yes: bool,
) -> None:
    """Delete old jobs that are completed or dead, with their output. Shows what would be deleted, and asks first.

    Workers do this automatically if the settings keep_done, keep_dead and keep_logs are set. Waiting and running jobs
    are never deleted, nor are jobs for which another job waits. Files in dead/ that are not valid jobs are kept too; `queuectl dlq clear` deletes them.
    """
    if older_than is None and keep is None:
        raise Usage(
            "give --older-than TIME, --keep N, or both", hint="queuectl purge --older-than 30d --dry-run"
        )
    wrong = [name for name in where.states if name not in {"completed", "dead"}]
    if wrong:
        raise Usage(f"{wrong[0]} jobs have not ended", hint="queuectl clear --help")
    from queuectl.api import access
    from queuectl.storage.retention import summary

    spool = session.spool
    if not dry_run:
        access.refuse_others(spool.layout, "purge …")  # also where there is nothing to delete yet
    found = spool.purge(older_than=older_than, keep=keep, where=where, logs_only=logs_only, dry_run=True)
    nothing = not (found.jobs or found.logs)
    if dry_run or nothing:
        if session.json:
            render.json_value({**_record(found), "dry_run": dry_run})
        else:
            render.line("Nothing to delete" if nothing else f"Would delete {summary(found)}")
        note_needed(found.kept)
        return
    if not session.json:
        render.note(f"to be deleted: {summary(found)}")
    options.confirm("Delete permanently", yes=yes)
    gone = spool.purge(older_than=older_than, keep=keep, where=where, logs_only=logs_only)
    if session.json:
        render.json_value({**_record(gone), "dry_run": False})
    else:
        render.line(f"Deleted {summary(gone)}")
    note_needed(gone.kept)


def _record(found: Purged) -> dict[str, int]:
    return {
        "done": found.completed,
        "dead": found.dead,
        "logs": found.logs,
        "bytes": found.bytes,
        "kept": found.kept,
    }
