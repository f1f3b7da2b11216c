"""New rows for the table of jobs, with no columns named but those that say something.

Python takes a third of a microsecond to hand SQLite a None, and half the columns of a waiting job are empty: named,
they double what its row costs.
"""

from __future__ import annotations

from functools import lru_cache
from operator import itemgetter

from queuectl.lookups import COLUMNS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Any


def in_runs(rows: Sequence[Sequence[Any]]) -> Iterator[tuple[str, Iterable[tuple[Any, ...]]]]:
    """Split rows into runs that one statement each can insert, for `executemany`; ids that are known are passed over.

    Args:
        rows: as `values_of` gives them.
    """
    at = 0
    while at < len(rows):
        statement, said, unsaid, nothing = _naming(tuple(value is None for value in rows[at]))
        end = at + 1
        while end < len(rows) and unsaid(rows[end]) == nothing:
            end += 1
        yield statement, map(said, rows[at:end])
        at = end


@lru_cache(maxsize=64)
def _naming(empty: tuple[bool, ...]) -> tuple[str, itemgetter[Any], itemgetter[Any], tuple[None, ...]]:
    """The statement for rows that have nothing in these columns, what picks the others, and what tells such a row."""
    said = [place for place, is_empty in enumerate(empty) if not is_empty]
    unsaid = [place for place, is_empty in enumerate(empty) if is_empty]
    names = ", ".join(COLUMNS[place] for place in said)
    marks = ", ".join("?" * len(said))
    statement = f"INSERT OR IGNORE INTO jobs({names}) VALUES ({marks})"
    # Of ready_key, due and behind no job has two, so there are always several.
    return statement, itemgetter(*said), itemgetter(*unsaid), (None,) * len(unsaid)
