"""`queuectl status` and `queuectl list`: how many, and which."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, TypeVar

import click

from queuectl.cli import args as takes
from queuectl.cli import render
from queuectl.cli.frame import Session, command
from queuectl.fields import STATES
from queuectl.row import SHOWN

if TYPE_CHECKING:
    from collections.abc import Callable

    from queuectl.row import Row
    from queuectl.spool import Spool

FC = TypeVar("FC", bound="Callable[..., Any] | click.Command")
_MOST = 2**62
LONG = 1000
"""Jobs past which a terminal gets plain lines too: nobody reads such a table, and drawing it takes seconds."""


@command(
    "status",
    examples="""
    queuectl status
    queuectl status --json | jq .jobs.dead
    watch -n 2 queuectl status
    """,
)
@click.pass_obj
def status_command(session: Session) -> None:
    """Count the jobs in each state, and the workers.

    pending waits for a worker or its moment; processing runs; completed ended with exit code 0; failed is tried
    again by itself; dead has been given up (see queuectl dlq). On stderr stands what else is worth knowing.
    """
    spool = session.spool
    counts = spool.counts()
    workers = spool.workers()
    notes = spool.notes()
    if session.json:
        render.json_value(
            {
                "jobs": counts,
                "total": sum(counts.values()),
                "workers": len(workers),
                "spool": spool.layout.root,
                "index": spool.layout.index,
                "notes": notes,
            }
        )
        return
    if render.is_terminal():
        busy = sum(worker.job_id is not None for worker in workers)
        rows = [
            ("Total Jobs", str(sum(counts.values()))),
            *((_label(state), str(counts[state])) for state in STATES),
            ("Workers", f"{len(workers)} ({busy} busy)" if workers else "0"),
            ("Index", _home_short(spool.layout.index)),
        ]
        render.table("QueueCTL System Status", ("Metric", "Value"), rows)
    else:
        render.line(f"jobs: {counts}")
    for text in notes:
        render.note(f"note: {text}")


def _label(state: str) -> str:
    return "Dead (DLQ)" if state == "dead" else state.capitalize()


def _home_short(path: str) -> str:
    import os

    home = os.path.expanduser("~")
    return "~" + path[len(home) :] if home != "/" and path.startswith(home + os.sep) else path


def _state(text: str) -> str:
    """Read a state's name; done is what its folder is called.

    Raises:
        ValueError: it names none.
    """
    name = "completed" if text.lower() == "done" else text.lower()
    if name not in STATES:
        raise ValueError(f"{render.clip(repr(text), 60)} is none of {', '.join(STATES)}")
    return name


def _limit(text: str) -> int:
    value = (
        min(int(text), _MOST) if text.isascii() and text.isdigit() and len(text) < 4000 else takes.whole(text)
    )
    if value < 0:
        raise ValueError(f"must be 0 or more, not {value}")
    return value


def complete_states(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Complete the name of a state."""
    return [state for state in (*STATES, "done") if state.startswith(incomplete)]


def state_option(text: str) -> Callable[[FC], FC]:
    """The --state option, with this help."""
    return click.option(
        "--state", metavar="STATE", callback=takes.checked(_state), shell_complete=complete_states, help=text
    )


@command(
    "list",
    examples="""
    queuectl list
    queuectl list --state pending
    queuectl list --state done --limit 20
    queuectl list --state dead --json | jq -r '.[].last_error'
    """,
)
@state_option("Only jobs in this state: pending, processing, completed (done), failed, dead.")
@click.option("--limit", metavar="N", callback=takes.checked(_limit), help="At most so many. Default: all.")
@click.pass_obj
def list_command(session: Session, state: str | None, limit: int | None) -> None:
    """List jobs, one a line: ID - STATE - COMMAND. Nothing is left out unless you say so."""
    spool = session.spool
    rows = spool.list(state, limit)
    if session.json:
        render.json_array(told(spool, row) for row in rows)
    elif not rows:
        render.note("no jobs" if state is None else f"no {state} jobs")
    elif render.is_terminal() and len(rows) <= LONG:
        _table(rows)
    else:
        render.lines(f"{row.id} - {row.state} - {in_full(spool, row)[0]}" for row in rows)


def _table(rows: list[Row]) -> None:
    now = time.time()
    render.table(
        f"Jobs ({len(rows)})",
        ("ID", "State", "Pri", "Tries", "Command", "Note"),
        (
            (
                row.id,
                row.state,
                str(row.priority if row.priority is not None else ""),
                tries(row),
                render.visible(row.command),
                render.visible(_remark(row, now)),
            )
            for row in rows
        ),
        cut=("Command", "Note"),
    )


def tries(row: Row) -> str:
    """Attempts made, of how many: 1/3."""
    return str(row.attempts) if row.max_retries is None else f"{row.attempts}/{max(1, row.max_retries)}"


def _remark(row: Row, now: float) -> str:
    """What a reader of the table asks next: when it runs, who runs it, why it failed."""
    due = row.next_retry_at if row.state == "failed" else row.run_at
    if row.state in {"pending", "failed"} and due is not None and due / 1e6 > now:
        why = f": {row.last_error}" if row.state == "failed" and row.last_error else ""
        return f"in {render.ago(due / 1e6 - now)}{why}"
    if row.state == "processing":
        return row.worker or ""
    return (row.last_error or "") if row.state in {"failed", "dead"} else ""


def in_full(spool: Spool, row: Row) -> tuple[str, str | None]:
    """A row's command and last error in full: the index keeps the beginning of long ones."""
    if len(row.command) < SHOWN and len(row.last_error or "") < SHOWN:
        return row.command, row.last_error
    from queuectl.errors import JobNotFound

    try:
        job = spool.get(row.id)
    except JobNotFound:
        return row.command + "…", row.last_error  # gone meanwhile
    return job.shown_command or row.command, job.last_error or row.last_error


def told(spool: Spool, row: Row) -> dict[str, Any]:
    """What --json tells about a job in a list."""
    from queuectl import times

    def moment(value: int | None) -> str | None:
        return None if value is None else times.iso(value / 1e6)

    command, last_error = in_full(spool, row)
    return {
        "id": row.id,
        "state": row.state,
        "command": command,
        "priority": row.priority,
        "attempts": row.attempts,
        "max_retries": row.max_retries,
        "created_at": moment(row.created_at),
        "updated_at": moment(row.updated_at),
        "run_at": moment(row.run_at),
        "next_retry_at": moment(row.next_retry_at),
        "worker": row.worker,
        "exit_code": row.exit_code,
        "last_error": last_error,
    }
