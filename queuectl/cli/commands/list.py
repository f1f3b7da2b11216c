"""`queuectl list`: which jobs there are."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from queuectl.api import json_view
from queuectl.cli import columns as known
from queuectl.cli import options as takes
from queuectl.cli import render
from queuectl.cli.base import Session, command
from queuectl.cli.selection import filter_options
from queuectl.job.fields import WAITING

if TYPE_CHECKING:
    from queuectl.index.filter import Filter
    from queuectl.index.row import Row

LONG = 1000
"""Jobs past which a terminal gets plain lines too: nobody reads such a table, and drawing it takes seconds."""


@command(
    "list",
    paged=True,
    examples="""
    queuectl list
    queuectl list --state pending --sort next             in the order in which they will run
    queuectl list --tag nightly --state dead --since 7d
    queuectl list --command ffmpeg --sort -duration --limit 10
    queuectl list --columns id,effective,age,tags --state pending --sort next
    queuectl list --columns duration,command | sort -n | tail
    queuectl list --state dead --json | jq -r '.[].last_error'
    """,
)
@filter_options(sort=True)
@click.option(
    "--columns",
    metavar="NAMES",
    callback=takes.checked(known.read),
    shell_complete=known.complete,
    help=f"These, in this order, with commas between them: {', '.join(known.COLUMNS)}.",
)
@click.pass_obj
def list_command(session: Session, where: Filter, columns: tuple[str, ...] | None) -> None:
    r"""List jobs, one a line: ID - STATE - COMMAND. Nothing is left out unless you say so.

    With --columns there is a tab between two values, and no heading; a tab within a value is written \t, moments are
    UTC and lengths seconds. On a terminal both are tables, and a priority of 5 +3.2 is 5 and what 3 minutes of waiting have added. `effective` is the
    sum, by which the next job is chosen. --json has the same fields whatever you choose.
    """
    spool = session.spool
    rows = spool.list(where=where)
    as_table = render.is_terminal() and len(rows) <= LONG
    if session.json:
        render.json_array(json_view.listed(spool, row) for row in rows)
    elif not rows:
        kind = f"no {' or '.join(where.states)} jobs" if where.states else "no jobs"
        only = where.without_limit == type(where)(states=where.states, sort=where.sort)
        render.note(kind if only else f"{kind} of that kind")
    elif columns:
        known.show(spool, rows, columns, table=as_table)
    elif as_table:
        _table(rows)
    else:
        render.lines(f"{row.id} - {row.state} - {json_view.full_texts(spool, row)[0]}" for row in rows)


def _table(rows: list[Row]) -> None:
    now = time.time()
    tagged = any(row.tags for row in rows)
    tags = ("Tags",) if tagged else ()
    render.table(
        f"Jobs ({len(rows)})",
        ("ID", "State", "Pri", "Tries", *tags, "Command", "Note"),
        (
            (
                row.id,
                row.state,
                known.priority(row, now),
                tries(row),
                *((" ".join((row.tags or "").split()),) if tagged else ()),
                render.visible(row.command),
                render.visible(_remark(row, now)),
            )
            for row in rows
        ),
        cut=(*tags, "Command", "Note"),
    )


def tries(row: Row) -> str:
    """Attempts made, of how many: 1/3."""
    return str(row.attempts) if row.max_retries is None else f"{row.attempts}/{max(1, row.max_retries)}"


def _remark(row: Row, now: float) -> str:
    """What a reader of the table asks next: when it runs, who runs it, why it failed."""
    due = row.next_retry_at if row.state == "failed" else row.run_at
    if row.state in WAITING and due is not None and due / 1e6 > now:
        why = f": {row.last_error}" if row.state == "failed" and row.last_error else ""
        return f"in {render.ago(due / 1e6 - now)}{why}"
    if row.held:
        return "held"
    if row.behind is not None:
        return "waits for its unique key"
    if row.state == "processing":
        return row.worker or ""
    return (row.last_error or "") if row.state in {"failed", "dead"} else ""
