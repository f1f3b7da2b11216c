"""`list --columns`: which facts of a job a list can show, and how each is written."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from queuectl.api import json_view
from queuectl.cli import render

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import click

    from queuectl.api.spool import Spool
    from queuectl.index.row import Row

    Cell = Callable[[Spool, Row, float], str]


def priority(row: Row, now: float) -> str:
    """A job's priority, and what waiting has added to it: 5 +3.2; now is in epoch seconds."""
    if row.priority is None:
        return ""
    gained = (row.waited(round(now * 1e6)) or 0) / 60e6
    return f"{row.priority} +{gained:.1f}" if gained >= 0.05 else str(row.priority)


def _effective(_spool: Spool, row: Row, now: float) -> str:
    value = row.effective(round(now * 1e6))
    return "" if value is None else f"{value:.1f}"


def _length(seconds: float) -> str:
    return render.ago(seconds) if render.is_terminal() else f"{max(0.0, seconds):.0f}"


def _age(_spool: Spool, row: Row, now: float) -> str:
    return _length(now - (row.created_at or row.arrived) / 1e6)


def _waited(_spool: Spool, row: Row, now: float) -> str:
    micros = row.waited(round(now * 1e6))
    return "" if micros is None else _length(micros / 1e6)


def _plain(name: str) -> Cell:
    def cell(_spool: Spool, row: Row, _now: float) -> str:
        value = getattr(row, name)
        return "" if value is None else str(value)

    return cell


def _moment(*names: str) -> Cell:
    def cell(_spool: Spool, row: Row, _now: float) -> str:
        from queuectl.job import times

        value = next((found for name in names if (found := getattr(row, name)) is not None), None)
        if value is None:
            return ""
        return times.local(value / 1e6) if render.is_terminal() else times.iso(value / 1e6)

    return cell


def _duration(_spool: Spool, row: Row, _now: float) -> str:
    return "" if row.duration is None else f"{row.duration / 1e6:.3f}"


def _full_text(place: int) -> Cell:
    def cell(spool: Spool, row: Row, _now: float) -> str:
        return json_view.full_texts(spool, row)[place] or ""

    return cell


COLUMNS: dict[str, Cell] = {
    "id": _plain("id"),
    "state": _plain("state"),
    "priority": _plain("priority"),
    "effective": _effective,
    "age": _age,
    "waited": _waited,
    "tags": lambda _spool, row, _now: " ".join((row.tags or "").split()),
    "attempts": _plain("attempts"),
    "max-retries": _plain("max_retries"),
    "created": _moment("created_at", "arrived"),
    "updated": _moment("updated_at", "arrived"),
    "run-at": _moment("run_at"),
    "next-retry": _moment("next_retry_at"),
    "started": _moment("started_at"),
    "finished": _moment("finished_at"),
    "duration": _duration,
    "exit-code": _plain("exit_code"),
    "worker": _plain("worker"),
    "held": lambda _spool, row, _now: "held" if row.held else "",
    "unique": _plain("unique_key"),
    "command": _full_text(0),
    "error": _full_text(1),
}
"""A column's name and what stands in it: in a pipe moments are UTC and lengths seconds, as sort wants them."""


def read(text: str) -> tuple[str, ...]:
    """Read the names of columns, with commas between them.

    Raises:
        ValueError: there is no such column, or none is named.
    """
    names = [name.strip().lower().replace("_", "-") for name in text.split(",") if name.strip()]
    if not names:
        raise ValueError(f"names no column: {', '.join(COLUMNS)}")
    for name in names:
        if name not in COLUMNS:
            raise ValueError(f"{render.clip(repr(name), 60)} is none of {', '.join(COLUMNS)}")
    return tuple(names)


def complete(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Complete the last of the names."""
    before, comma, begun = incomplete.rpartition(",")
    given = before.split(",")
    return [f"{before}{comma}{name}" for name in COLUMNS if name.startswith(begun) and name not in given]


def show(spool: Spool, rows: Sequence[Row], names: Sequence[str], *, table: bool) -> None:
    r"""Print these columns of the rows: a table, or lines with a tab between two columns and no heading.

    A tab within a value stands as \t, so that the lines can be cut at tabs.
    """
    now = time.time()
    cells = ([COLUMNS[name](spool, row, now) for name in names] for row in rows)
    if not table:
        render.lines_of_cells(cells)
        return
    heads = ["ID" if name == "id" else name.replace("-", " ").title() for name in names]
    giving = [head for head, name in zip(heads, names, strict=True) if name in {"command", "error", "tags"}]
    render.table(
        f"Jobs ({len(rows)})", heads, ([render.visible(cell) for cell in row] for row in cells), cut=giving
    )
