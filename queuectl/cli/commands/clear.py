"""`queuectl clear` and `reindex`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from queuectl.cli import options as takes
from queuectl.cli import render
from queuectl.cli.base import Session, Usage, command
from queuectl.cli.selection import Bulk, dry_run_option, filter_options

if TYPE_CHECKING:
    from queuectl.index.filter import Filter


_AMONG = ("pending", "completed", "failed", "dead")


@command(
    "clear",
    examples="""
    queuectl clear                            everything but what runs; asks first
    queuectl clear --state done --yes         only what has ended well, without asking
    queuectl clear --tag test --dry-run       only say what would go
    """,
)
@filter_options()
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@dry_run_option
@click.pass_obj
def clear_command(session: Session, where: Filter, yes: bool, dry_run: bool) -> int:
    """Delete jobs for good, and what they wrote: all, or those that you describe. Asks first.

    Running jobs are left alone.
    """
    if "processing" in where.states:
        raise Usage("a running job cannot be deleted", hint="queuectl cancel JOB")
    return delete(session, where, yes=yes, dry_run=dry_run, nothing="No jobs to delete")


def delete(session: Session, where: Filter, *, yes: bool, dry_run: bool, nothing: str) -> int:
    """Delete the jobs that are meant, once somebody has agreed.

    Args:
        nothing: what to say when there are none.

    Returns:
        the exit code.
    """
    spool = session.spool
    if dry_run:
        bulk = Bulk(session, "delete", "deleted", _AMONG)
        return bulk.each(bulk.chosen((), where, everything=True), lambda _: ("", {}), dry_run=True)
    state = where.states[0] if len(where.states) == 1 else None
    counts = spool.counts()
    if where == type(where)(states=(state,) if state else ()):
        there = counts[state] if state else sum(n for name, n in counts.items() if name != "processing")
        described = None
    else:
        there, described = sum(row.state != "processing" for row in spool.list(where=where)), where
    if there:
        takes.agree(f"Delete {render.count(there, f'{state} job' if state else 'job')} for good", yes=yes)
    deleted, running = spool.clear(state, where=described)
    if session.json:
        render.json_value({"deleted": deleted, "running": running})
        return 0
    if not deleted and described is not None and (counts[state] if state else any(counts.values())):
        nothing = "No jobs of that kind"
    render.line(f"Deleted {deleted} job(s)" if deleted else nothing)
    if running:
        render.note(f"note: {render.count(running, 'running job')} left alone")
    return 0


@command("reindex", examples="queuectl reindex")
@click.pass_obj
def reindex_command(session: Session) -> None:
    """Build the index anew from the folders.

    The folders are the truth and the index is their mirror; it looks after itself, so this is never needed, and
    never does harm.
    """
    spool = session.spool
    if render.is_terminal() and not session.json:
        with render.console(stderr=True).status("reading the folders"):
            found = spool.reindex()
    else:
        found = spool.reindex()
    if session.json:
        render.json_value({"jobs": found})
    else:
        render.line(f"Indexed {found} job(s)")
