"""New rows for the table of jobs, made after others, and with no columns named but those that say something.

Python takes a third of a microsecond to hand SQLite a None, and half the columns of a waiting job are empty: named,
they double what its row costs.
"""

from __future__ import annotations

from functools import lru_cache
from operator import itemgetter

from queuectl.index.queries import COLUMNS
from queuectl.index.row import SHOWN, ready_key

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Any

    from queuectl.system.files import Mark


_AT = {name: place for place, name in enumerate(COLUMNS)}
_ID, _NAME, _COMMAND = _AT["id"], _AT["name"], _AT["command"]
_ARRIVED, _READY, _PRIORITY = _AT["arrived"], _AT["ready_key"], _AT["priority"]
_CREATED, _UPDATED = _AT["created_at"], _AT["updated_at"]
_INODE, _MTIME, _SIZE = _AT["inode"], _AT["mtime"], _AT["size"]


def row_like(like: list[Any], job_id: str, command: str, created: int, updated: int | None) -> list[Any]:
    """The row of a job that says what another one said, but for these, and for what `fill` puts in.

    Args:
        command: as one line.
        created, updated: in microseconds.
    """
    made = like.copy()
    made[_ID], made[_NAME], made[_COMMAND] = job_id, f"{job_id}.json", command[:SHOWN]
    made[_CREATED], made[_UPDATED] = created, updated
    return made


def fill(made: list[Any], arrived: int, mark: Mark) -> None:
    """Say in a row since when its file waits, in microseconds, and which file it is: inode, time in ns, size."""
    made[_ARRIVED], made[_READY] = arrived, ready_key(arrived, made[_PRIORITY])
    made[_INODE], made[_MTIME], made[_SIZE] = mark


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
