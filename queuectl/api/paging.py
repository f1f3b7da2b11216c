"""Lists in pages, for programs that show one at a time: see `Spool.page`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from queuectl.api import job_files, listing, running
from queuectl.fast_start.dataclass import dataclass, field
from queuectl.index import paging

if TYPE_CHECKING:
    from collections.abc import Callable

    from queuectl.api.row import Row
    from queuectl.api.spool_base import SpoolBase
    from queuectl.index.filter import Filter
    from queuectl.index.paging import Key
    from queuectl.index.row import Row as IndexRow


_DIGITS = 18
"""A number with more of them is none that SQLite can hold."""


@dataclass(slots=True)
class Page:
    """A part of a list.

    Attributes:
        rows: the jobs, in the order of the filter.
        first, last: where the page begins and ends: for `before` and `after` of the next call. None: it has no jobs, and
            there are none on its far side.
        more: whether further jobs may follow in the direction in which the page was read.
        is_searched: False: the patience was over before the page was full. `last` says how far the search has come.
    """

    rows: list[Row] = field(default_factory=list)
    first: str | None = None
    last: str | None = None
    more: bool = False
    is_searched: bool = True


class Found(NamedTuple):
    """What was found: rows of the index in the order of reading, where the first one lies, and how far the reading went."""

    rows: list[IndexRow]
    begins: Key | None
    reached: Key | None
    more: bool
    is_searched: bool


def read(
    spool: SpoolBase,
    where: Filter,
    start: str | None,
    limit: int,
    patience: float,
    *,
    backwards: bool,
    clock: Callable[[], float] = time.monotonic,
) -> Found:
    """Read a page, see `Spool.page`."""
    listing.prepare(spool, where)
    key = None if start is None else _key(where, start)
    until = clock() + patience

    def collect() -> Found:
        return _collect(spool, where, key, limit, lambda: clock() > until, backwards=backwards)

    found = collect()
    if spool._intake.freshen(found.rows):
        found = collect()
    return found._replace(rows=running.show_runs(spool.layout, found.rows))


def _collect(
    spool: SpoolBase,
    where: Filter,
    start: Key | None,
    limit: int,
    is_time_up: Callable[[], bool],
    *,
    backwards: bool,
) -> Found:
    rows: list[IndexRow] = []

    def found(reached: Key | None, *, more: bool, is_searched: bool = True) -> Found:
        begins = paging.key_of(where, rows[0]) if rows else reached
        return Found(rows[:limit], begins, reached, more, is_searched)

    # One more than is wanted shows whether more follow.
    for part in paging.parts(spool._index, where, start, limit + 1, backwards=backwards):
        rows += [row for row in part.rows if job_files.says(spool, row, where)]
        if len(rows) > limit:
            return found(paging.key_of(where, rows[limit - 1]), more=True)
        if part.reached is not None and is_time_up():
            return found(part.reached, more=True, is_searched=False)
    return found(paging.key_of(where, rows[-1]) if rows else start, more=False)


def page_of(found: Found, rows: list[Row], *, backwards: bool) -> Page:
    """Return what a program gets.

    Args:
        rows: those of `found`, as programs get them.
    """
    near, far = _text(found.begins), _text(found.reached)
    if backwards:
        return Page(rows[::-1], far, near, found.more, found.is_searched)
    return Page(rows, near, far, found.more, found.is_searched)


def _text(key: Key | None) -> str | None:
    return None if key is None else ".".join(map(str, key))


def _key(where: Filter, text: str) -> Key:
    """Read a place in a list.

    Raises:
        ValueError: it is none, or one in a list with another order.
    """
    parts = text.split(".")
    if len(parts) != len(paging.order_of(where).columns) or not all(
        part.isascii() and part.removeprefix("-").isdecimal() and len(part) <= _DIGITS for part in parts
    ):
        raise ValueError(f"{text[:60]!r} is not a place in a list that is sorted by {where.sort}")
    return tuple(map(int, parts))
