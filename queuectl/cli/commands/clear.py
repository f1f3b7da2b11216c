"""`queuectl clear`: delete all jobs, or those that match the filters."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from queuectl.cli import options, render
from queuectl.cli.base import Session, Usage, command
from queuectl.cli.selection import BulkAction, dry_run_option, filter_options, note_needed
from queuectl.errors import StillNeeded

if TYPE_CHECKING:
    from queuectl.errors import QueuectlError
    from queuectl.index.filter import Filter


_STATES = ("pending", "completed", "failed", "dead")


@command(
    "clear",
    examples="""
    queuectl clear                            all jobs except running ones; asks first
    queuectl clear --state done --yes         only completed jobs, without asking
    queuectl clear --tag test --dry-run       only show what would be deleted
    """,
    changes=True,
)
@filter_options()
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@dry_run_option
@click.pass_obj
def clear_command(session: Session, where: Filter, yes: bool, dry_run: bool) -> int:
    """Delete jobs permanently, with their output: all jobs, or those that match the filters. Asks first.

    Running jobs are not deleted, nor are jobs for which another one waits that is not deleted as well.
    """
    if "processing" in where.states:
        raise Usage("a running job cannot be deleted", hint="queuectl cancel JOB")
    return delete(session, where, yes=yes, dry_run=dry_run, nothing="No jobs to delete")


def delete(session: Session, where: Filter, *, yes: bool, dry_run: bool, nothing: str) -> int:
    """Delete the matching jobs after a confirmation.

    Args:
        nothing: the text to print when no job matches.

    Returns:
        the exit code.
    """
    spool = session.spool
    if dry_run:
        action = BulkAction(session, "delete", "deleted", _STATES)
        return action.each(action.select((), where, everything=True), lambda _: ("", {}), dry_run=True)
    state = where.states[0] if len(where.states) == 1 else None
    counts = spool.counts()
    if where == type(where)(states=(state,) if state else ()):
        matching = counts[state] if state else sum(n for name, n in counts.items() if name != "processing")
        described = None
    else:
        matching, described = sum(row.state != "processing" for row in spool.list(where=where)), where
    if matching:
        noun = f"{state} job" if state else "job"
        options.confirm(f"Delete {render.count(matching, noun)} permanently", yes=yes)
    needed = 0

    def told(_: str, error: QueuectlError | None) -> None:
        nonlocal needed
        needed += isinstance(error, StillNeeded)

    deleted, running = spool.clear(state, where=described, tell=told)
    if session.json:
        render.json_value({"deleted": deleted, "running": running, "needed": needed})
        return 0
    if not deleted and described is not None and (counts[state] if state else any(counts.values())):
        nothing = "No jobs match"
    render.line(f"Deleted {deleted} job(s)" if deleted else nothing)
    if running:
        render.note(f"note: {render.count(running, 'running job')} not deleted")
    note_needed(needed)
    return 0
