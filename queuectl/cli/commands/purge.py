"""`queuectl purge`: delete old jobs that are over, and old output."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from queuectl.cli import options as takes
from queuectl.cli import render
from queuectl.cli.base import Session, Usage, command
from queuectl.cli.selection import dry_run_option, filter_options, limit

if TYPE_CHECKING:
    from queuectl.index.filter import Filter
    from queuectl.storage.retention import Purged


@command(
    "purge",
    examples="""
    queuectl purge --older-than 30d --dry-run             what would go?
    queuectl purge --older-than 7d --state done --yes     only what has ended well; for cron
    queuectl purge --keep 1000                            all but the newest 1000 of each state
    queuectl purge --older-than 7d --logs-only            the output goes, the records stay
    """,
)
@click.option(
    "--older-than",
    metavar="TIME",
    callback=takes.checked(takes.duration),
    help="What has been over for longer: 12h, 7d.",
)
@click.option("--keep", metavar="N", callback=takes.checked(limit), help="Never the newest N of each state.")
@filter_options()
@click.option("--logs-only", is_flag=True, help="Delete what the jobs wrote, and keep their records.")
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
    """Delete old jobs that are done or dead, with what they wrote. Says what would go, and asks first.

    Workers do the same by themselves with the settings keep_done, keep_dead and keep_logs. Jobs that wait or run are
    never touched, nor is what lies in dead/ and cannot be read as a job: `queuectl dlq clear` deletes that, too.
    """
    if older_than is None and keep is None:
        raise Usage(
            "say what is to go: --older-than TIME, --keep N, or both", hint="queuectl purge --older-than 30d"
        )
    wrong = [name for name in where.states if name not in {"completed", "dead"}]
    if wrong:
        raise Usage(f"{wrong[0]} jobs are not over yet", hint="queuectl clear --help")
    from queuectl.storage.retention import told

    spool = session.spool
    found = spool.purge(older_than=older_than, keep=keep, where=where, logs_only=logs_only, dry_run=True)
    nothing = not (found.jobs or found.logs)
    if dry_run or nothing:
        if session.json:
            render.json_value({**_record(found), "dry_run": dry_run})
        else:
            render.line("Nothing to delete" if nothing else f"Would delete {told(found)}")
        return
    if not session.json:
        render.note(f"to be deleted: {told(found)}")
    takes.agree("Delete it for good", yes=yes)
    gone = spool.purge(older_than=older_than, keep=keep, where=where, logs_only=logs_only)
    if session.json:
        render.json_value({**_record(gone), "dry_run": False})
    else:
        render.line(f"Deleted {told(gone)}")


def _record(found: Purged) -> dict[str, int]:
    return {"done": found.completed, "dead": found.dead, "logs": found.logs, "bytes": found.bytes}
