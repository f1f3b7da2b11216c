"""`queuectl list`: list jobs, with the columns that the user chooses."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from queuectl.api import dependencies, json_view, listing, places
from queuectl.cli import options, render, typed_ids
from queuectl.cli.base import Session, command
from queuectl.cli.selection import filter_options
from queuectl.index import lanes
from queuectl.job import times
from queuectl.job.fields import WAITING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from queuectl.api.spool import Spool
    from queuectl.index.filter import Filter
    from queuectl.index.row import Row

    Cell = Callable[["_List", Row], str]


class _List:
    """What the columns of a list need besides its rows."""

    def __init__(self, spool: Spool) -> None:
        self.spool, self.now = spool, time.time()
        self.waiting, self.places = dependencies.OfRows(spool), places.Places(spool)


def _attribute(name: str) -> Cell:
    def cell(_list: _List, row: Row) -> str:
        value = getattr(row, name)
        return "" if value is None else str(value)

    return cell


def _place(name: str) -> Cell:
    return lambda here, row: getattr(here.places.of_row(row), name) or ""


def _moment(*names: str) -> Cell:
    """The first of these times that the row has."""

    def cell(_list: _List, row: Row) -> str:
        value = next((found for name in names if (found := getattr(row, name)) is not None), None)
        if value is None:
            return ""
        return times.local(value / 1e6) if render.is_terminal() else times.iso(value / 1e6)

    return cell


def _full_text(place: int) -> Cell:
    return lambda here, row: json_view.full_texts(here.spool, row)[place] or ""


def _effective(here: _List, row: Row) -> str:
    value = row.effective(round(here.now * 1e6))
    return "" if value is None else f"{value:.1f}"


def _age(here: _List, row: Row) -> str:
    return _length(here.now - (row.created_at or row.arrived) / 1e6)


def _waited(here: _List, row: Row) -> str:
    micros = row.waited(round(here.now * 1e6))
    return "" if micros is None else _length(micros / 1e6)


def _length(seconds: float) -> str:
    return render.ago(seconds) if render.is_terminal() else f"{max(0.0, seconds):.0f}"


def _duration(_list: _List, row: Row) -> str:
    return "" if row.duration is None else f"{row.duration / 1e6:.3f}"


_CUT = ("Tags", "Command", "Note")
"""The columns that are cut, with … at the end, if the table is too wide."""

COLUMNS: dict[str, Cell] = {
    "id": _attribute("id"),
    "state": _attribute("state"),
    "priority": _attribute("priority"),
    "effective": _effective,
    "age": _age,
    "waited": _waited,
    "tags": lambda _list, row: " ".join((row.tags or "").split()),
    "attempts": lambda _list, row: str(render.attempts(row)),
    "max-retries": _attribute("max_retries"),
    "created": _moment("created_at", "arrived"),
    "updated": _moment("updated_at", "arrived"),
    "run-at": _moment("run_at"),
    "next-retry": _moment("next_retry_at"),
    "started": _moment("started_at"),
    "finished": _moment("finished_at"),
    "duration": _duration,
    "exit-code": _attribute("exit_code"),
    "worker": _attribute("worker"),
    "held": lambda _list, row: "held" if row.held else "",
    "unique": _attribute("unique_key"),
    "queue": lambda _list, row: lanes.queue_of(row.lane),
    "needs": lambda _list, row: (row.lane or "").partition(" ")[2],
    "engine": _place("engine"),
    "engine-id": _place("engine_id"),
    "node": _place("node"),
    "engine-reason": _place("engine_reason"),
    "batch": _attribute("batch"),
    "after": lambda _list, row: dependencies.names(row),
    "waits-for": lambda here, row: here.waiting.words(row),
    "command": _full_text(0),
    "error": _full_text(1),
}
"""The text of each column. In a pipe, times are UTC and lengths of time are in seconds, so that `sort` can order them."""


def _read_columns(text: str) -> tuple[str, ...]:
    names = [name.strip().lower().replace("_", "-") for name in text.split(",") if name.strip()]
    if not names:
        raise ValueError(f"names no column: {', '.join(COLUMNS)}")
    for name in names:
        if name not in COLUMNS:
            raise ValueError(f"{render.clip(repr(name), 60)} is not one of {', '.join(COLUMNS)}")
    return tuple(names)


def _complete_columns(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Complete the last name of the list."""
    before, comma, begun = incomplete.rpartition(",")
    given = before.split(",")
    return [f"{before}{comma}{name}" for name in COLUMNS if name.startswith(begun) and name not in given]


@command(
    "list",
    paged=True,
    examples="""
    queuectl list
    queuectl list --state pending --sort next             in the order in which they will run
    queuectl list --tag nightly --state dead --since 7d
    queuectl list --command ffmpeg --sort -duration --limit 10
    queuectl list --columns id,effective,age,tags --state pending --sort next
    queuectl list --blocked --columns id,waits-for        for which dead or missing jobs they wait
    queuectl list --engine slurm --columns id,state,node,engine-reason
    queuectl list --columns duration,command | sort -n | tail
    queuectl list --state dead --json | jq -r '.[].last_error'
    """,
)
@filter_options(sort=True)
@click.option(
    "--columns",
    metavar="NAMES",
    callback=options.checked(_read_columns),
    shell_complete=_complete_columns,
    help=f"Show these columns, in this order, separated by commas: {', '.join(COLUMNS)}.",
)
@click.pass_obj
def list_command(session: Session, where: Filter, columns: tuple[str, ...] | None) -> None:
    r"""List jobs, one on each line: ID - STATE - COMMAND. Without filters all jobs are listed.

    With --columns a tab separates the values, and there is no heading. A tab inside a value is written as \t. Times
    are in UTC, lengths of time in seconds. On a terminal both forms are tables. A priority of 5 +3.2 means priority
    5, plus 3.2 for the time that the job has waited (1 for each minute). `effective` is the sum: the job with the
    highest sum runs next. --json always prints all fields.
    """
    spool = session.spool
    rows = listing.select(spool, where=where)
    as_table = render.is_terminal()
    if session.json:
        render.json_array(json_view.of_rows(spool, rows, where.states))
    elif not rows:
        nothing = f"no {' or '.join(where.states)} jobs" if where.states else "no jobs"
        only_states = where.without_limit == type(where)(states=where.states, sort=where.sort)
        render.note(nothing if only_states else f"{nothing} match")
    elif columns:
        _print_columns(spool, rows, columns, table=as_table)
    elif as_table:
        _print_table(spool, rows)
    else:
        render.lines(f"{row.id} - {row.state} - {json_view.full_texts(spool, row)[0]}" for row in rows)


def _print_columns(spool: Spool, rows: Sequence[Row], names: Sequence[str], *, table: bool) -> None:
    here = _List(spool)
    cells = ([COLUMNS[name](here, row) for name in names] for row in rows)
    if not table:
        render.lines_of_cells(cells)
        return
    heads = ["ID" if name == "id" else name.replace("-", " ").title() for name in names]
    cut = [
        head
        for head, name in zip(heads, names, strict=True)
        if name in {"command", "error", "tags", "waits-for", "engine-reason"}
    ]
    visible = ([render.visible(cell) for cell in row] for row in cells)
    render.table(f"Jobs ({len(rows)})", heads, visible, cut=cut)


def _print_table(spool: Spool, rows: list[Row]) -> None:
    """Print the usual columns. If they are too wide, ids are shortened first, then columns are left out."""
    here = _List(spool)
    now = here.now
    columns = {
        "ID": [row.id for row in rows],
        "State": [row.state for row in rows],
        "Pri": [render.priority(row, now) for row in rows],
        "Tries": [render.tries(row) for row in rows],
        "Tags": [" ".join((row.tags or "").split()) for row in rows],
        "Command": [render.visible(row.command) for row in rows],
        "Note": [render.visible(_remark(here, row)) for row in rows],
    }
    if not any(columns["Tags"]):
        del columns["Tags"]
    for name in ("ID", "Note", "Tries", "Pri", "Tags", "Note"):
        if _fits(columns):
            break
        if name == "ID":
            columns["ID"] = _shortened(spool, columns["ID"])
        elif name != "Note" or "Pri" not in columns or not any(columns["Note"]):
            columns.pop(name, None)  # a note is left out at first only if all are empty
    cut = [name for name in columns if name in _CUT]
    render.table(f"Jobs ({len(rows)})", [*columns], zip(*columns.values(), strict=True), cut=cut)


def _fits(columns: Mapping[str, Sequence[str]]) -> bool:
    """Whether a table of these columns fits on the terminal, with those that may be cut at their narrowest."""
    natural = {name: max(len(name), *map(len, texts)) for name, texts in columns.items()}
    least = [min(width, render.NARROWEST) if name in _CUT else width for name, width in natural.items()]
    return render.table_width(least) <= render.console().width


def _shortened(spool: Spool, ids: list[str]) -> list[str]:
    """The beginnings of these ids, all of one length, of which each means one job and is enough for any command."""
    length = max(listing.unique_length(spool, ids), typed_ids.CERTAIN)
    return [job_id[:length] for job_id in ids]


def _remark(here: _List, row: Row) -> str:
    """When the job runs, which worker or node runs it, why it waits on an engine, or why it failed."""
    now = here.now
    due = row.next_retry_at if row.state == "failed" else row.run_at
    if row.state in WAITING and due is not None and due / 1e6 > now:
        why = f": {row.last_error}" if row.state == "failed" and row.last_error else ""
        return f"in {render.ago(due / 1e6 - now)}{why}"
    if row.held:
        return "held"
    if row.behind is not None:
        return "waits for its unique key"
    if row.state in WAITING and row.conditions is not None and row.ready_key is None and row.due is None:
        return "waits for other jobs"
    if row.state == "processing":
        place = here.places.of_row(row)
        return " ".join(filter(None, (row.worker, place.node, place.engine_reason)))
    return (row.last_error or "") if row.state in {"failed", "dead"} else ""
