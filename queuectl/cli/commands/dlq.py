"""`queuectl dlq`: the dead letters: list, retry, clear; `letter` has what is done with one of them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from queuectl.api import json_view
from queuectl.cli import options as takes
from queuectl.cli import render
from queuectl.cli.base import Group, Session, Usage, command
from queuectl.cli.commands.clear import delete
from queuectl.cli.commands.list import LONG, tries
from queuectl.cli.selection import Bulk, dry_run_option, filter_options
from queuectl.storage.unique_keys import REPLACED

if TYPE_CHECKING:
    from queuectl.api.spool import Spool
    from queuectl.index.filter import Filter

dlq_command = Group(
    name="dlq",
    callback=lambda: None,
    short_help="The dead letter queue: list, show, edit, retry, clear.",
    help="""The dead letter queue holds what has been given up, each with its reason.

    A job lands here when it has failed as often as max_retries says, when its workers died under it again and again,
    or when its file can be no job at all. Nothing leaves it by itself, unless the setting keep_dead says so.""",
    examples="""
    queuectl dlq list
    queuectl dlq show job1                    why it is dead, what it wrote, what to do
    queuectl dlq edit job1                    change or mend its file
    queuectl dlq retry job1 --timeout 60
    queuectl dlq retry --tag import --since 2h
    queuectl dlq clear
    """,
    other_words={
        "ls": "list",
        "requeue": "retry",
        "replay": "retry",
        "rm": "clear",
        "purge": "clear",
        "cat": "show",
    },
    sections={
        "Commands": {
            "list": ("dlq", "List the dead jobs, with the reasons."),
            "show": ("dlq_job", "Show why one is dead, its runs, and the end of its output."),
            "edit": ("dlq_job", "Change or mend its file in your editor."),
            "retry": ("dlq", "Send dead jobs back to pending."),
            "clear": ("dlq", "Delete the dead jobs."),
        }
    },
)


@command(
    "list",
    paged=True,
    examples="""
    queuectl dlq list
    queuectl dlq list --since 1d --exit-code 75 --sort -updated
    queuectl dlq list --json | jq -r '.[] | .id + ": " + .last_error'
    """,
)
@filter_options(sort=True)
@click.pass_obj
def list_command(session: Session, where: Filter) -> None:
    """List the dead jobs, one a line: ID - COMMAND - ATTEMPTS - LAST ERROR. A terminal also gets how long ago it was."""
    spool = session.spool
    rows = spool.list(where=among_dead(where))
    if session.json:
        render.json_array(json_view.listed(spool, row) for row in rows)
    elif not rows:
        described = where.without_limit != type(where)(states=where.states, sort=where.sort)
        render.note("no dead jobs of that kind" if described else "the dead letter queue is empty")
    elif render.is_terminal() and len(rows) <= LONG:
        now = time.time()
        heads = ("Job ID", "Command", "Attempts", "Age", "Last Error")
        cells = (
            (
                row.id,
                render.visible(row.command),
                tries(row),
                render.ago(now - (row.updated_at or row.arrived) / 1e6),
                render.visible(row.last_error or ""),
            )
            for row in rows
        )
        render.table("Dead Letter Queue (DLQ)", heads, cells, cut=("Command",))
    else:
        for row in rows:
            text, error = json_view.full_texts(spool, row)
            render.line(f"{row.id} - {text or '(no job)'} - {row.attempts} - {error or ''}")


def among_dead(where: Filter) -> Filter:
    """The filter, for dead jobs alone.

    Raises:
        Usage: it asks for others.
    """
    if set(where.states) - {"dead"}:
        raise Usage("the dead letter queue has dead jobs only", hint="queuectl list --help")
    return where.of_states("dead")


@command(
    "retry",
    examples="""
    queuectl dlq retry job1
    queuectl dlq retry job1 job2 --timeout 60
    queuectl dlq retry job1 --set max_retries=5 --set "command=./import.sh --slowly"
    queuectl dlq retry --tag import --exit-code 75 --set priority=9
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
@click.option(
    "--set",
    "changes",
    metavar="FIELD=VALUE",
    multiple=True,
    callback=takes.changes,
    help="Give them this, too; lists as a,b; nothing after the = takes the field away. May be repeated.",
)
@dry_run_option
@click.pass_obj
def retry_command(
    session: Session,
    ids: tuple[str, ...],
    where: Filter,
    everything: bool,
    timeout: float | None,
    changes: dict[str, Any],
    dry_run: bool,
) -> int:
    """Send dead jobs back to pending, with fresh attempts. Their history stays.

    What --timeout and --set say stays in the job's file. A file that is no job is refused until it is mended; a single
    wrong field can be put right with --set. With several jobs each is reported, and the exit code is 1 if any could not be sent back.
    Jobs that a newer one with their unique key has replaced are retried only by name.
    """
    spool = session.spool
    bulk = Bulk(session, "retry", "retried", ("dead",))
    if timeout is not None:
        changes = {**changes, "timeout": timeout}

    def retry(job_id: str) -> tuple[str, dict[str, Any]]:
        job = spool.retry(job_id, **changes)
        return f"requeued job {job.id}", {"id": job.id, "state": job.state}

    chosen = bulk.chosen(ids, where, everything=everything)
    return bulk.each(chosen if ids else _not_replaced(spool, chosen), retry, dry_run=dry_run)


def _not_replaced(spool: Spool, ids: list[str]) -> list[str]:
    """Leave out what a newer job has superseded: nobody who retries what has failed means to bring that back."""
    replaced = {row.id for row in spool.list("dead") if (row.last_error or "").startswith(REPLACED)}
    left = replaced.intersection(ids)
    if left:
        render.note(
            f"{render.count(len(left), 'job')} left alone that newer ones have replaced; name them to run them"
        )
    return [job_id for job_id in ids if job_id not in left]


@command(
    "clear",
    examples="""
    queuectl dlq clear
    queuectl dlq clear --until 30d --dry-run   what has been dead for a month
    queuectl dlq clear --yes                   for scripts: do not ask
    """,
)
@filter_options()
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@dry_run_option
@click.pass_obj
def clear_command(session: Session, where: Filter, yes: bool, dry_run: bool) -> int:
    """Delete dead jobs for good, and what they wrote: all, or those that you describe. Asks first."""
    return delete(session, among_dead(where), yes=yes, dry_run=dry_run, nothing="Dead letter queue is empty")
