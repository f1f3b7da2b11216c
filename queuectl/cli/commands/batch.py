"""`queuectl batch`: show the batches of the spool, and what failed in one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from queuectl.api import json_view
from queuectl.cli import options, render
from queuectl.cli.base import Group, Session, command
from queuectl.errors import JobError
from queuectl.index.filter import Filter
from queuectl.job.fields import STATES

if TYPE_CHECKING:
    from queuectl.api.row import Row
    from queuectl.api.spool_batch import Batch

SHOWN = 10
"""How many dead jobs are named. A batch may have ten thousand."""

batch_command = Group(
    name="batch",
    short_help="Show batches, and what failed in them.",
    help="""Jobs whose field `batch` has the same name belong together. Other jobs can wait for all of them: --after batch:NAME.
    Batches need not be declared, and are gone with their last job. `queuectl guide dependencies` explains it all.""",
    examples="""
    queuectl batch list
    queuectl batch show nightly-2026-12-31
    queuectl list --batch nightly-2026-12-31
    queuectl retry --batch nightly-2026-12-31     run its dead and failed jobs again
    queuectl wait --batch nightly-2026-12-31
    """,
    other_words={
        "ls": "list",
        "status": "list",
        "get": "show",
        "cat": "show",
        "info": "show",
        "wait": "queuectl wait --batch",
        "retry": "queuectl retry --batch",
        "cancel": "queuectl cancel --batch",
        "delete": "queuectl remove --batch",
        "remove": "queuectl remove --batch",
        "rm": "queuectl remove --batch",
        "help": "queuectl guide dependencies",
    },
    needless={
        "create": ("a batch need not be declared", "queuectl enqueue --batch NAME …"),
        "add": ("a batch need not be declared", "queuectl enqueue --batch NAME …"),
        "new": ("a batch need not be declared", "queuectl enqueue --batch NAME …"),
    },
    sections={
        "Commands": {
            "list": ("batch", "List the batches: how many of their jobs wait, run and are over."),
            "show": ("batch", "Show how far a batch is, and what failed."),
        }
    },
)


@command(
    "list",
    examples="""
    queuectl batch list
    queuectl batch list --json | jq -r '.[] | select(.dead > 0) | .name'
    """,
)
@click.pass_obj
def list_command(session: Session) -> None:
    """List the batches that jobs have, by name.

    Each line shows: name, waiting jobs, running jobs, completed jobs, dead jobs, and how many of the waiting ones are
    blocked: they start only once somebody has mended another job. In a pipe a tab separates the values.
    """
    found = session.spool.batches()
    if session.json:
        render.json_array(json_view.batch(batch) for batch in found)
    elif not found:
        render.note("no job has a batch")
    elif render.is_terminal():
        heads = ("Batch", "Waiting", "Running", "Completed", "Dead", "Blocked")
        render.table("Batches", heads, [_cells(batch) for batch in found])
    else:
        render.lines_of_cells(_cells(batch) for batch in found)


def _cells(batch: Batch) -> tuple[str, ...]:
    numbers = batch.waiting, batch.processing, batch.completed, batch.dead, batch.blocked
    return batch.name, *map(str, numbers)


@command("show", examples="queuectl batch show nightly-2026-12-31")
@click.argument(
    "name",
    metavar="BATCH",
    callback=options.job_field("batch"),
    shell_complete=options.complete_batches,
)
@click.pass_obj
def show_command(session: Session, name: str) -> None:
    """Show how many jobs of a batch are in which state, and the dead ones that ended last, each with its last error."""
    batch = session.spool.batch(name)
    if not batch.jobs:
        raise JobError(f"no job has the batch {name}", hint="queuectl batch list")
    where = Filter(batch=name, states="dead", sort="-finished", limit=SHOWN)
    dead = session.spool.list(where=where)
    if session.json:
        render.json_value(json_view.batch(batch) | {"dead_jobs": [_dead(row) for row in dead]})
        return
    facts = {
        "batch": name,
        "jobs": str(batch.jobs),
        **{state: str(getattr(batch, state)) for state in STATES},
    }
    if batch.blocked:
        facts["blocked"] = f"{batch.blocked} of those that wait"
    width = max(map(len, facts)) + 2
    render.lines(f"{label + ':':<{width}}{text}" for label, text in facts.items())
    render.lines(render.visible(f"{row.id} - dead - {row.last_error or 'no reason known'}") for row in dead)
    if batch.dead:
        render.note(f"hint: queuectl retry --batch {name}; queuectl dlq list --batch {name}")
    elif batch.blocked:
        render.note(f"hint: queuectl list --blocked --batch {name}")


def _dead(row: Row) -> dict[str, Any]:
    return {"id": row.id, "exit_code": row.exit_code, "last_error": row.last_error}
