"""`queuectl dlq`: the dead letters: list, retry, clear."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from queuectl.cli import args as takes
from queuectl.cli import render
from queuectl.cli.choose import Bulk, dry_run_option, filter_options
from queuectl.cli.frame import Group, Session, command
from queuectl.cli.jobs import LONG, in_full, told, tries

if TYPE_CHECKING:
    from queuectl.filters import Filter

dlq_command = Group(
    name="dlq",
    callback=lambda: None,
    short_help="The dead letter queue: list, retry, clear.",
    help="""The dead letter queue holds what has been given up, each with its reason.

    A job lands here when it has failed as often as max_retries says, when its workers died under it again and again,
    or when its file can be no job at all. Nothing leaves it by itself.""",
    examples="""
    queuectl dlq list
    queuectl dlq retry job1 job2
    queuectl dlq retry job1 --timeout 60
    queuectl dlq retry --all
    queuectl dlq clear
    """,
    sections={
        "Commands": {
            "list": ("dlq", "List the dead jobs, with the reasons."),
            "retry": ("dlq", "Send dead jobs back to pending."),
            "clear": ("dlq", "Delete the dead jobs."),
        }
    },
)


@command(
    "list",
    examples="""
    queuectl dlq list
    queuectl dlq list --json | jq -r '.[] | .id + ": " + .last_error'
    """,
)
@click.pass_obj
def list_command(session: Session) -> None:
    """List the dead jobs, one a line: ID - COMMAND - ATTEMPTS - LAST ERROR."""
    spool = session.spool
    rows = spool.list("dead")
    if session.json:
        render.json_array(told(spool, row) for row in rows)
    elif not rows:
        render.note("the dead letter queue is empty")
    elif render.is_terminal() and len(rows) <= LONG:
        heads = ("Job ID", "Command", "Attempts", "Last Error")
        cells = (
            (row.id, render.visible(row.command), tries(row), render.visible(row.last_error or ""))
            for row in rows
        )
        render.table("Dead Letter Queue (DLQ)", heads, cells, cut=("Command",))
    else:
        for row in rows:
            text, error = in_full(spool, row)
            render.line(f"{row.id} - {text or '(no job)'} - {row.attempts} - {error or ''}")


@command(
    "retry",
    examples="""
    queuectl dlq retry job1
    queuectl dlq retry job1 job2 --timeout 60
    queuectl dlq retry --tag import --exit-code 75
    queuectl dlq retry --all --dry-run
    """,
)
@click.argument("ids", nargs=-1, metavar="[JOB...]", shell_complete=takes.complete_ids("dead"))
@filter_options()
@click.option("--all", "everything", is_flag=True, help="All dead jobs.")
@click.option(
    "--timeout",
    metavar="TIME",
    callback=takes.job_field("timeout"),
    help="Give them this time limit from now on: 60, 10m, 0 for none.",
)
@dry_run_option
@click.pass_obj
def retry_command(
    session: Session,
    ids: tuple[str, ...],
    where: Filter,
    everything: bool,
    timeout: float | None,
    dry_run: bool,
) -> int:
    """Send dead jobs back to pending, with fresh attempts. Their history stays.

    With several jobs each is reported, and the exit code is 1 if any could not be sent back.
    """
    spool = session.spool
    bulk = Bulk(session, "retry", "retried", ("dead",))

    def retry(job_id: str) -> tuple[str, dict[str, Any]]:
        job = spool.retry(job_id, timeout=timeout)
        return f"requeued job {job.id}", {"id": job.id, "state": job.state}

    return bulk.each(bulk.chosen(ids, where, everything=everything), retry, dry_run=dry_run)


@command(
    "clear",
    examples="""
    queuectl dlq clear
    queuectl dlq clear --yes                  for scripts: do not ask
    """,
)
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@click.pass_obj
def clear_command(session: Session, yes: bool) -> None:
    """Delete all dead jobs for good, and what they wrote. Asks first."""
    spool = session.spool
    there = spool.counts()["dead"]
    if there:
        takes.agree(f"Delete {render.count(there, 'dead job')} for good", yes=yes)
    deleted, _ = spool.clear("dead")
    if session.json:
        render.json_value({"deleted": deleted})
    elif deleted:
        render.line(f"Deleted {deleted} job(s)")
    else:
        render.line("Dead letter queue is empty")
