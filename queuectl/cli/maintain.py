"""`queuectl clear` and `reindex`."""

from __future__ import annotations

import click

from queuectl.cli import args as takes
from queuectl.cli import render
from queuectl.cli.choose import state_option
from queuectl.cli.frame import Session, Usage, command


@command(
    "clear",
    examples="""
    queuectl clear                            everything but what runs; asks first
    queuectl clear --state done --yes         only what has ended well, without asking
    """,
)
@state_option("Only jobs in this state: pending, completed (done), failed, dead.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@click.pass_obj
def clear_command(session: Session, state: str | None, yes: bool) -> None:
    """Delete jobs for good, and what they wrote. Running jobs are left alone. Asks first."""
    if state == "processing":
        raise Usage("a running job cannot be deleted", hint="queuectl cancel JOB")
    spool = session.spool
    counts = spool.counts()
    there = sum(n for name, n in counts.items() if name != "processing") if state is None else counts[state]
    kind = "job" if state is None else f"{state} job"
    if there:
        takes.agree(f"Delete {render.count(there, kind)} for good", yes=yes)
    deleted, running = spool.clear(state)
    if session.json:
        render.json_value({"deleted": deleted, "running": running})
        return
    render.line(f"Deleted {deleted} job(s)" if deleted else "No jobs to delete")
    if running:
        render.note(f"note: {render.count(running, 'running job')} left alone")


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
