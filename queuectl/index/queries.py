"""What the index is asked: single jobs, lists, counts, and which job comes next."""

from __future__ import annotations

import sqlite3

from queuectl.index.freshness import Stamps
from queuectl.index.row import Row
from queuectl.job.fields import STATES

TYPE_CHECKING = False
if TYPE_CHECKING:
    import builtins
    from collections.abc import Iterable, Sequence
    from typing import Any

    from queuectl.index.filter import Filter
    from queuectl.system.files import Mark

COLUMNS = tuple(Row.__match_args__)
_SELECT = f"SELECT {', '.join(COLUMNS)} FROM jobs"
_TEXTS = frozenset(
    {"id", "state", "place", "name", "command", "worker", "last_error", "settings", "tags", "unique_key"}
)
_ALWAYS = frozenset({"id", "state", "place", "name", "seq", "arrived"})
_AT_ONCE = 500
_shapes: set[tuple[type, ...]] = set()


def _row(found: Sequence[Any]) -> Row:
    """Make a row of what SQLite found. A file that was written over may give text for a number, without an error.

    Raises:
        sqlite3.DatabaseError: it did.
    """
    shape = tuple(map(type, found))
    if shape not in _shapes:
        for name, kind in zip(COLUMNS, shape, strict=True):
            wanted = (
                (str if name in _TEXTS else int,)
                if name in _ALWAYS
                else (str if name in _TEXTS else int, type(None))
            )
            if kind not in wanted:
                raise sqlite3.DatabaseError(f"malformed: {name} is {kind.__name__}")
        _shapes.add(shape)
    return Row(*found)


def _number(value: object) -> int:
    if type(value) is not int:
        raise sqlite3.DatabaseError(f"malformed: a number is {type(value).__name__}")
    return value


def _text(value: object) -> str:
    if type(value) is not str:
        raise sqlite3.DatabaseError(f"malformed: a text is {type(value).__name__}")
    return value


class Lookups(Stamps):
    """The part of the index that answers."""

    def _one(self, query: str, *values: Any) -> Any:
        return self.db.execute(query, values).fetchone()[0]

    def _rows(self, tail: str, values: Iterable[Any] = ()) -> list[Row]:
        return [_row(found) for found in self.db.execute(f"{_SELECT} {tail}", tuple(values))]

    def get(self, job_id: str) -> Row | None:
        """The row of one job."""
        found = self._rows("WHERE id = ?", (job_id,))
        return found[0] if found else None

    def states(self, ids: builtins.list[str]) -> dict[str, str]:
        """The states of these jobs, as far as they are known."""
        found: dict[str, str] = {}
        for start in range(0, len(ids), _AT_ONCE):
            part = ids[start : start + _AT_ONCE]
            query = f"SELECT id, state FROM jobs WHERE id IN ({', '.join('?' * len(part))})"
            found.update(self.db.execute(query, part).fetchall())
        return found

    def at(self, place: str, names: list[str]) -> dict[str, Row]:
        """The rows of these files of a folder, by name."""
        marks = ", ".join("?" * len(names))
        return {
            row.name: row for row in self._rows(f"WHERE place = ? AND name IN ({marks})", (place, *names))
        }

    def marks_of(self, place: str, names: list[str]) -> dict[str, Mark]:
        """The marks that are known of these files of a folder, by name."""
        some = ", ".join("?" * len(names))
        query = f"SELECT name, inode, mtime, size FROM jobs WHERE place = ? AND name IN ({some})"
        return {name: (*mark,) for name, *mark in self.db.execute(query, (place, *names))}

    def all_at(self, place: str, after: str, limit: int) -> list[tuple[str, str]]:
        """(id, name) of a folder's rows in the order of their names, a page at a time."""
        query = "SELECT id, name FROM jobs WHERE place = ? AND name > ? ORDER BY name LIMIT ?"
        return [
            (_text(job_id), _text(name)) for job_id, name in self.db.execute(query, (place, after, limit))
        ]

    def marks_at(self, place: str, after: str, limit: int) -> dict[str, Mark]:
        """The marks of a folder's files by name, in the order of names, a page at a time."""
        query = "SELECT name, inode, mtime, size FROM jobs WHERE place = ? AND name > ? ORDER BY name LIMIT ?"
        return {_text(name): (*mark,) for name, *mark in self.db.execute(query, (place, after, limit))}

    def count_at(self, place: str) -> int:
        """How many rows a folder has."""
        return _number(self._one("SELECT count(*) FROM jobs WHERE place = ?", place))

    def claim_places(self) -> list[str]:
        """The workers' folders that have rows. The range keeps SQLite from walking through a million others."""
        query = "SELECT DISTINCT place FROM jobs WHERE place > 'processing/' AND place < 'processing0'"
        return [_text(place) for (place,) in self.db.execute(query)]

    def counts(self) -> dict[str, int]:
        """Jobs by state, in the order of STATES."""
        found = dict(self.db.execute("SELECT state, n FROM counts").fetchall())
        return {state: _number(found.get(state, 0)) for state in STATES}

    def list(self, state: str | None, limit: int | None, after: int = -1) -> list[Row]:
        """Rows in the order of arrival, of one state or all; after is the last number already seen."""
        where = "WHERE seq > ?" if state is None else "WHERE state = ? AND seq > ?"
        values: tuple[Any, ...] = (after,) if state is None else (state, after)
        return self._rows(f"{where} ORDER BY seq LIMIT ?", (*values, -1 if limit is None else limit))

    def select(self, which: Filter) -> builtins.list[Row]:
        """The rows that a filter describes, in its order; of long commands only the beginning has been looked at."""
        condition, values = which.conditions()
        limit = -1 if which.limit is None else which.limit
        return self._rows(f"WHERE {condition} ORDER BY {which.order()} LIMIT ?", (*values, limit))

    def ids(self, beginning: str, states: Sequence[str], limit: int) -> builtins.list[str]:
        """Ids of jobs that begin so, in these states or in all; without a beginning the latest come first."""
        where, values = ["id >= ?", "id < ?"], [beginning, f"{beginning}~"]
        if states:
            where.append(f"state IN ({', '.join('?' * len(states))})")
            values += states
        order = "id" if beginning else "seq DESC"
        query = f"SELECT id FROM jobs WHERE {' AND '.join(where)} ORDER BY {order} LIMIT ?"
        return [_text(job_id) for (job_id,) in self.db.execute(query, (*values, limit))]

    def tags(self) -> builtins.list[str]:
        """The tags that jobs have, in order."""
        found = self.db.execute("SELECT DISTINCT tags FROM jobs WHERE tags IS NOT NULL LIMIT 10000")
        return sorted({tag for (tags,) in found for tag in _text(tags).split()})

    def over(self, state: str, moment: str, before: int, limit: int, offset: int) -> builtins.list[Row]:
        """The jobs of a state that is the end, the oldest first.

        Args:
            moment: when a job was over, in SQL; there is an index of it.
            before: in microseconds.
            offset: pass so many over.
        """
        where = f"INDEXED BY jobs_over_{state} WHERE state = '{state}' AND {moment} < ?"
        return self._rows(f"{where} ORDER BY {moment}, seq LIMIT ? OFFSET ?", (before, limit, offset))

    def numbered(self, numbers: Sequence[int]) -> builtins.list[Row]:
        """The rows with these numbers."""
        return self._rows(f"WHERE seq IN ({', '.join(map(str, numbers))})") if numbers else []

    def with_key(self, key: str, *states: str, limit: int = -1) -> builtins.list[Row]:
        """The jobs in these states with this unique key."""
        marks = ", ".join("?" * len(states))
        return self._rows(f"WHERE unique_key = ? AND state IN ({marks}) LIMIT ?", (key, *states, limit))

    def begun(self, key: str, but: int) -> bool:
        """Whether a job with this unique key waits for its next attempt, other than the one of this number."""
        waits = "coalesce(ready_key, due, behind) IS NOT NULL"
        query = (
            f"SELECT 1 FROM jobs WHERE unique_key = ? AND state = 'failed' AND {waits} AND seq != ? LIMIT 1"
        )
        return self.db.execute(query, (key, but)).fetchone() is not None

    def keys_waited_for(self) -> builtins.list[str]:
        """The unique keys behind whose owner a job waits."""
        query = "SELECT DISTINCT unique_key FROM jobs WHERE behind IS NOT NULL AND unique_key IS NOT NULL"
        return [_text(key) for (key,) in self.db.execute(query)]

    def expired(self, now: int, limit: int) -> builtins.list[Row]:
        """Waiting jobs that are not worth starting any more, those that have been so for the longest time first."""
        # Left to choose, SQLite walks through all that wait.
        where = "INDEXED BY jobs_expires WHERE expires < ? AND place = 'pending' ORDER BY expires LIMIT ?"
        return self._rows(where, (now, limit))

    def next_expiry(self) -> int | None:
        """When the first of the waiting jobs will not be worth starting any more."""
        query = "SELECT min(expires) FROM jobs INDEXED BY jobs_expires WHERE expires IS NOT NULL AND place = 'pending'"
        found = self._one(query)
        return None if found is None else _number(found)

    def next_up(self, limit: int) -> builtins.list[Row]:
        """The waiting jobs that are first in order, then those that are due first."""
        rows = self.first(limit)
        rest = limit - len(rows)
        return rows + (self._rows("WHERE due IS NOT NULL ORDER BY due, seq LIMIT ?", (rest,)) if rest else [])

    def last_ended(self, limit: int) -> builtins.list[Row]:
        """The jobs of which an attempt ended last, or that were given up last; the latest first."""
        ended = "state IN ('completed', 'failed', 'dead')"
        order = "coalesce(finished_at, updated_at, arrived) DESC, seq DESC"
        return self._rows(f"WHERE {ended} ORDER BY {order} LIMIT ?", (limit,))

    def next_seq(self) -> int:
        """A number behind all others, for a job that goes to the end of the line."""
        return _number(self._one("SELECT coalesce(max(seq), 0) + 1 FROM jobs"))

    def outlook(self) -> tuple[bool, int | None]:
        """Whether a job can run now, and the moment of the next scheduled one or retry."""
        ready = "EXISTS (SELECT 1 FROM jobs WHERE ready_key IS NOT NULL)"
        due = "(SELECT min(due) FROM jobs WHERE due IS NOT NULL)"
        found = self.db.execute(f"SELECT {ready}, {due}").fetchone()
        return bool(found[0]), None if found[1] is None else _number(found[1])

    def has_work(self, *, later: bool) -> bool:
        """Whether a job can run now.

        Args:
            later: or runs, or will run by itself; a held one does not.
        """
        ready, due = self.outlook()
        if ready or not later:
            return ready
        behind = "SELECT EXISTS (SELECT 1 FROM jobs WHERE behind IS NOT NULL)"
        return due is not None or self.counts()["processing"] > 0 or bool(self._one(behind))

    def first(self, limit: int) -> builtins.list[Row]:
        """The jobs that can run now and are first in order."""
        return self._rows("WHERE ready_key IS NOT NULL ORDER BY ready_key, seq LIMIT ?", (limit,))

    def suggest(self) -> Row | None:
        """The waiting job that is first in order."""
        return next(iter(self.first(1)), None)

    def count_ready(self, most: int) -> int:
        """How many jobs can run now; counted up to so many."""
        few = "SELECT 1 FROM jobs WHERE ready_key IS NOT NULL LIMIT ?"
        return _number(self._one(f"SELECT count(*) FROM ({few})", most))
