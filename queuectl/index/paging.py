"""A list in parts: what follows a key in an order, or what comes before it.

A key is the values of the columns of the order. Unlike a number of rows that are skipped, it takes as long at the end of a
million jobs as at the beginning, and jobs that come or go meanwhile move no page.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from queuectl.index import sorting
from queuectl.index.filter import Filter

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    from queuectl.index.index import Index
    from queuectl.index.row import Row

    Key = tuple[int, ...]

STEP = 20_000
"""Rows that are looked through in one query, of a filter that may match none of them: 6 ms, or 20 ms with text to search for."""

NO_VALUE = -(10**16)
"""Stands in a key for a column without a value. As a time it is long before the first year."""


class _Order(NamedTuple):
    """An order that a list in parts can have.

    Attributes:
        columns: the columns of a key, the last one is different for each row.
        there: the rows that are in this order, in SQL.
        rest: those without a value in the first column, which come before all others, in SQL; None: they are left out.
        begins: what a key has before these columns.
    """

    columns: tuple[str, ...]
    there: str
    rest: str | None = None
    begins: Key = ()


ORDERS = {
    "arrived": _Order(("seq",), "1"),
    # A job that was cancelled before it ran has ended, and has no such time.
    "finished": _Order(("finished_at", "seq"), "finished_at IS NOT NULL", "finished_at IS NULL"),
    "next": _Order(("ready_key", "seq"), "ready_key IS NOT NULL"),
}
"""By the names that a filter has for them; with a leading - the other way round."""


def order_of(where: Filter) -> _Order:
    """Return the order of a filter.

    Raises:
        ValueError: a list in this order cannot be read in parts.
    """
    try:
        return ORDERS[where.sort.removeprefix("-")]
    except KeyError:
        raise ValueError(f"pages cannot be sorted by {where.sort}, only by {', '.join(ORDERS)}") from None


class Part(NamedTuple):
    """Rows that match, and the key up to which all rows have been looked at; None: there are no further ones."""

    rows: list[Row]
    reached: Key | None


def parts(index: Index, where: Filter, start: Key | None, limit: int, *, backwards: bool) -> Iterator[Part]:
    """Yield the rows that match a filter in its order, in steps.

    Args:
        start: the key after which to begin; None: at the beginning.
        limit: a step has at most so many rows.
        backwards: go the other way.
    """
    order = order_of(where)
    if order is ORDERS["arrived"] and len(where.states) == 1:
        order = _Order(order.columns, f"state = '{where.states[0]}'")
    down = where.sort.startswith("-") != backwards
    if order.rest is None:
        yield from _parts(index, where, order, start, limit, down=down)
        return
    first, second = order._replace(rest=None), _Order(("seq",), order.rest, begins=(NO_VALUE,))
    if not down:
        first, second = second, first
    if start is None or (start[0] == NO_VALUE) == bool(first.begins):
        for part in _parts(index, where, first, start, limit, down=down):
            if part.reached is not None:
                yield part
            elif part.rows:
                yield Part(part.rows, key_of(where, part.rows[-1]))
        start = None
    yield from _parts(index, where, second, start, limit, down=down)


def _parts(
    index: Index, where: Filter, order: _Order, start: Key | None, limit: int, *, down: bool
) -> Iterator[Part]:
    """Yield the rows of one order, see `parts`. Their keys are those of the order of the filter."""
    source, is_long = _source(index, where)
    keys = ", ".join(f"{column}{' DESC' if down else ''}" for column in order.columns)
    condition, values = where.conditions()
    ahead, behind = ("<", ">=") if down else (">", "<=")
    reached = start
    while True:
        here = _compared(order, ahead, reached)
        end = _end_of_step(index, source, order, keys, here) if is_long else None
        there = _compared(order, behind, end)
        found = index._rows(
            f"{source} WHERE {order.there} AND {here[0]} AND {there[0]} AND {condition} ORDER BY {keys} LIMIT ?",
            (*here[1], *there[1], *values, limit),
        )
        reached = key_of(where, found[-1]) if len(found) == limit else end
        yield Part(found, reached)
        if reached is None:
            return


def _source(index: Index, where: Filter) -> tuple[str, bool]:
    """Return the SQL index to read, and whether so many rows may be looked at in vain that it is done in steps."""
    counts = index.counts()
    if sum(counts.values()) <= sorting.LARGE:
        return "", False
    if len(where.states) == 1 and where.sort.removeprefix("-") == "arrived":
        may_be_in_vain = not where.is_about_states and counts[where.states[0]] > sorting.LARGE
        return "INDEXED BY jobs_state", may_be_in_vain
    if where.states and sum(counts[state] for state in where.states) <= sorting.LARGE:
        return "INDEXED BY jobs_state", False
    wanted = Filter(sort=where.sort.removeprefix("-"))
    name = sorting.name_of(wanted)
    if name is None:
        return "NOT INDEXED", bool(where.states) or not where.is_about_states
    return (f"INDEXED BY {name}", True) if index.has(name, sorting.definition(wanted, name)) else ("", False)


def _compared(order: _Order, sign: str, key: Key | None) -> tuple[str, Sequence[Any]]:
    if key is None:
        return "1", ()
    values = key[-len(order.columns) :]
    return f"({', '.join(order.columns)}) {sign} ({', '.join('?' * len(values))})", values


def _end_of_step(
    index: Index, source: str, order: _Order, keys: str, here: tuple[str, Sequence[Any]]
) -> Key | None:
    """Return the key of the last row of a step; None if fewer rows are left."""
    condition, values = here
    query = (
        f"SELECT {', '.join(order.columns)} FROM jobs {source} WHERE {order.there} AND {condition}"
        f" ORDER BY {keys} LIMIT 1 OFFSET {STEP - 1}"
    )
    found: Key | None = index.db.execute(query, values).fetchone()
    return None if found is None else (*order.begins, *found)


def key_of(where: Filter, row: Row) -> Key:
    """Return the key of a row in the order of a filter."""
    values = (getattr(row, column) for column in order_of(where).columns)
    return tuple(NO_VALUE if value is None else value for value in values)
