"""What the index can be asked for: single jobs, lists, counts, and the next job to run."""

from __future__ import annotations

import sqlite3

from queuectl.index.freshness import Freshness
from queuectl.index.row import COLUMNS, Row, order_of
from queuectl.job.fields import STATES

TYPE_CHECKING = False
if TYPE_CHECKING:
    import builtins
    from collections.abc import Iterable, Sequence
    from typing import Any

    from queuectl.index.filter import Filter
    from queuectl.system.files import Fingerprint

_SELECT = f"SELECT {', '.join(COLUMNS)} FROM jobs"
_TEXTS = frozenset(
    {
        "id",
        "state",
        "place",
        "name",
        "command",
        "worker",
        "last_error",
        "settings",
        "tags",
        "unique_key",
        "lane",
        "conditions",
        "batch",
        "member",
        "about",
    }
)
_NEVER_EMPTY = frozenset({"id", "state", "place", "name", "seq", "arrived"})
_AT_ONCE = 500
"""Ids asked for in one statement; SQLite limits the number of its parameters."""

_FOUND = """WITH RECURSIVE found(lane) AS (
    SELECT min(lane) FROM jobs WHERE ready_key IS NOT NULL AND lane > ''
    UNION ALL SELECT (SELECT min(lane) FROM jobs WHERE ready_key IS NOT NULL AND lane > found.lane) FROM found
    WHERE found.lane IS NOT NULL)"""
"""The lanes of ready jobs but the plain one. Each is found by one step in the SQL index, however many jobs it has."""

_LANES = f"{_FOUND} SELECT lane FROM found WHERE lane IS NOT NULL"
_HEAD_OF = "SELECT min(ready_key) FROM jobs WHERE lane IS {} AND ready_key IS NOT NULL"
_PLAIN_HEAD = _HEAD_OF.format("NULL")
_HEADS = f"{_FOUND} SELECT lane, ({_HEAD_OF.format('found.lane')}) FROM found WHERE lane IS NOT NULL"


_shapes: set[tuple[type, ...]] = set()
"""Types of the columns of rows that were found valid."""


def _row(found: Sequence[Any]) -> Row:
    """Make a row of what SQLite found.

    Raises:
        sqlite3.DatabaseError: a column has the wrong type, or the lane is none. SQLite reports no error for text in place of a number, which
            an overwritten file may hold.
    """
    shape = tuple(map(type, found))
    if shape not in _shapes:
        for name, kind in zip(COLUMNS, shape, strict=True):
            wanted = str if name in _TEXTS else int
            if kind is not wanted and (kind is not type(None) or name in _NEVER_EMPTY):
                raise sqlite3.DatabaseError(f"malformed: {name} is {kind.__name__}")
        _shapes.add(shape)
    row = Row(*found)
    if row.lane is not None:
        from queuectl.index.lanes import parts_of

        parts_of(row.lane)
    return row


def _number(value: object) -> int:
    if type(value) is not int:
        raise sqlite3.DatabaseError(f"malformed: a number is {type(value).__name__}")
    return value


def _text(value: object) -> str:
    if type(value) is not str:
        raise sqlite3.DatabaseError(f"malformed: a text is {type(value).__name__}")
    return value


class Queries(Freshness):
    """The part of the index that reads rows."""

    def _one(self, query: str, *values: Any) -> Any:
        return self.db.execute(query, values).fetchone()[0]

    def _rows(self, tail: str, values: Iterable[Any] = ()) -> list[Row]:
        return [_row(found) for found in self.db.execute(f"{_SELECT} {tail}", tuple(values))]

    def get(self, job_id: str) -> Row | None:
        """Return the row of one job, or None."""
        found = self._rows("WHERE id = ?", (job_id,))
        return found[0] if found else None

    def states(self, ids: builtins.list[str]) -> dict[str, str]:
        """Return the states of these jobs by id; unknown ones are left out."""
        found: dict[str, str] = {}
        for start in range(0, len(ids), _AT_ONCE):
            part = ids[start : start + _AT_ONCE]
            query = f"SELECT id, state FROM jobs WHERE id IN ({', '.join('?' * len(part))})"
            found.update(self.db.execute(query, part).fetchall())
        return found

    def rows_of(self, ids: builtins.list[str]) -> dict[str, Row]:
        """Return the rows of these jobs by id; unknown ones are left out."""
        found: dict[str, Row] = {}
        for start in range(0, len(ids), _AT_ONCE):
            part = ids[start : start + _AT_ONCE]
            found.update(
                (row.id, row) for row in self._rows(f"WHERE id IN ({', '.join('?' * len(part))})", part)
            )
        return found

    def at(self, place: str, names: list[str]) -> dict[str, Row]:
        """Return the rows of these files of a folder, by name."""
        marks = ", ".join("?" * len(names))
        return {
            row.name: row for row in self._rows(f"WHERE place = ? AND name IN ({marks})", (place, *names))
        }

    def fingerprints_of(self, place: str, names: list[str]) -> dict[str, Fingerprint]:
        """Return the known fingerprints of these files of a folder, by name."""
        some = ", ".join("?" * len(names))
        query = f"SELECT name, inode, mtime, size FROM jobs WHERE place = ? AND name IN ({some})"
        return {name: (*mark,) for name, *mark in self.db.execute(query, (place, *names))}

    def all_at(self, place: str, after: str, limit: int) -> list[tuple[str, str]]:
        """Return (id, name) of a folder's rows in the order of names: the first ones after a name."""
        query = "SELECT id, name FROM jobs WHERE place = ? AND name > ? ORDER BY name LIMIT ?"
        return [
            (_text(job_id), _text(name)) for job_id, name in self.db.execute(query, (place, after, limit))
        ]

    def fingerprints_at(self, place: str, after: str, limit: int) -> dict[str, Fingerprint]:
        """Return the fingerprints of a folder's files, by name, in the order of names: the first ones after a name."""
        query = "SELECT name, inode, mtime, size FROM jobs WHERE place = ? AND name > ? ORDER BY name LIMIT ?"
        return {_text(name): (*mark,) for name, *mark in self.db.execute(query, (place, after, limit))}

    def count_at(self, place: str) -> int:
        """Return how many rows a folder has."""
        return _number(self._one("SELECT count(*) FROM jobs WHERE place = ?", place))

    def claim_places(self) -> list[str]:
        """Return the workers' folders that have rows. The range keeps SQLite from reading a million other rows."""
        query = "SELECT DISTINCT place FROM jobs WHERE place > 'processing/' AND place < 'processing0'"
        return [_text(place) for (place,) in self.db.execute(query)]

    def counts(self) -> dict[str, int]:
        """Return the number of jobs by state, in the order of STATES."""
        found = dict(self.db.execute("SELECT state, n FROM counts").fetchall())
        return {state: _number(found.get(state, 0)) for state in STATES}

    def list(self, state: str | None, limit: int | None, after: int = -1) -> list[Row]:
        """Return rows in the order of arrival, of one state or of all.

        Args:
            after: only rows with a higher number than this.
        """
        where = "WHERE seq > ?" if state is None else "WHERE state = ? AND seq > ?"
        values: tuple[Any, ...] = (after,) if state is None else (state, after)
        return self._rows(f"{where} ORDER BY seq LIMIT ?", (*values, -1 if limit is None else limit))

    def select(self, which: Filter) -> builtins.list[Row]:
        """Return the rows that match a filter, in its order. Long commands always match: their files hold the rest."""
        from queuectl.index import sorting

        follow = sorting.can_follow_order(which, self.counts()) and self._has_order(which)
        limit = -1 if which.limit is None else which.limit
        rows: builtins.list[Row] = []
        for tail, values in sorting.in_order(which) if follow else [sorting.sorting(which)]:
            if len(rows) != limit:
                rows += self._rows(f"{tail} LIMIT ?", (*values, limit - len(rows) if follow else limit))
        return rows

    def count(self, which: Filter) -> int:
        """Return how many rows match a filter, but at most its limit. No row is read for that."""
        condition, values = which.conditions()
        found = f"SELECT 1 FROM jobs WHERE {condition} LIMIT ?"
        return _number(
            self._one(f"SELECT count(*) FROM ({found})", *values, -1 if which.limit is None else which.limit)
        )

    def _has_order(self, which: Filter) -> bool:
        from queuectl.index import sorting

        name = sorting.name_of(which)
        if name is None or not self.has(name, sorting.definition(which, name)):
            return name is None
        return name != "jobs_by_next" or self.has("jobs_without_place", sorting.MAKE_WITHOUT_PLACE)

    def has(self, name: str, make: str, *, above: int | None = None) -> bool:
        """Return whether something is there that is made when a large spool first needs it.

        For a million jobs this takes half a second, in which nobody else writes; each later question saves as much. A
        process that alone has this index, or cannot write it, answers without.

        Args:
            name: an SQL index or trigger.
            make: the statements that make it.
            above: of how many jobs on it is made; default: `sorting.LARGE`.
        """
        from queuectl.index import schema
        from queuectl.index.sorting import LARGE

        if self.db.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (name,)).fetchone():
            return True
        if self.path == ":memory:" or sum(self.counts().values()) <= (LARGE if above is None else above):
            return False
        try:
            with self.write():
                schema.run(self.db, make)
        except sqlite3.OperationalError as error:
            if schema.is_damage(str(error)):
                raise
            return False
        return True

    def ids(self, prefix: str, states: Sequence[str], limit: int) -> builtins.list[str]:
        """Return the ids with this prefix, in these states or in all. Without a prefix the latest come first."""
        where, values = ["id >= ?", "id < ?"], [prefix, f"{prefix}~"]
        if states:
            where.append(f"state IN ({', '.join('?' * len(states))})")
            values += states
        order = "id" if prefix else "seq DESC"
        query = f"SELECT id FROM jobs WHERE {' AND '.join(where)} ORDER BY {order} LIMIT ?"
        return [_text(job_id) for (job_id,) in self.db.execute(query, (*values, limit))]

    def neighbours(self, job_id: str) -> tuple[str, str]:
        """Return the ids before and after this one in the order of ids; "" where there is none."""
        query = "SELECT (SELECT max(id) FROM jobs WHERE id < ?), (SELECT min(id) FROM jobs WHERE id > ?)"
        before, after = self.db.execute(query, (job_id, job_id)).fetchone()
        return before or "", after or ""

    def ids_from_the_end(self, state: str | None) -> builtins.list[str]:
        """Return the ids of the jobs in a state, or in all: waiting ones first, and of those the last in the line."""
        where, values = ("WHERE state = ?", (state,)) if state else ("", ())
        order = "state IN ('pending', 'failed') DESC, ready_key IS NULL DESC, ready_key DESC, seq DESC"
        query = f"SELECT id FROM jobs {where} ORDER BY {order}"
        return [_text(job_id) for (job_id,) in self.db.execute(query, values)]

    def tags(self) -> builtins.list[str]:
        """Return the tags of all jobs, sorted."""
        found = self.db.execute("SELECT DISTINCT tags FROM jobs WHERE tags IS NOT NULL LIMIT 10000")
        return sorted({tag for (tags,) in found for tag in _text(tags).split()})

    def ended_before(
        self, state: str, moment: str, before: int, limit: int, offset: int
    ) -> builtins.list[Row]:
        """Return the jobs of a final state that ended before a moment, the oldest first.

        Args:
            moment: an SQL expression for when a job ended; the index jobs_over_<state> is made for it.
            before: in microseconds.
            offset: skip so many.
        """
        where = f"INDEXED BY jobs_over_{state} WHERE state = '{state}' AND {moment} < ?"
        return self._rows(f"{where} ORDER BY {moment}, seq LIMIT ? OFFSET ?", (before, limit, offset))

    def by_seq(self, numbers: Sequence[int]) -> builtins.list[Row]:
        """Return the rows with these numbers."""
        return self._rows(f"WHERE seq IN ({', '.join(map(str, numbers))})") if numbers else []

    def with_key(self, key: str, *states: str, limit: int = -1) -> builtins.list[Row]:
        """Return the jobs in these states with this unique key."""
        marks = ", ".join("?" * len(states))
        return self._rows(f"WHERE unique_key = ? AND state IN ({marks}) LIMIT ?", (key, *states, limit))

    def has_begun(self, key: str, but: int) -> bool:
        """Return whether another job with this unique key, but not number `but`, waits for its next attempt."""
        waits = "coalesce(ready_key, due, behind) IS NOT NULL"
        query = (
            f"SELECT 1 FROM jobs WHERE unique_key = ? AND state = 'failed' AND {waits} AND seq != ? LIMIT 1"
        )
        return self.db.execute(query, (key, but)).fetchone() is not None

    def keys_with_waiting(self) -> builtins.list[str]:
        """Return the unique keys for which a job waits until another one has ended."""
        query = "SELECT DISTINCT unique_key FROM jobs WHERE behind IS NOT NULL AND unique_key IS NOT NULL"
        return [_text(key) for (key,) in self.db.execute(query)]

    def expired(self, now: int, limit: int) -> builtins.list[Row]:
        """Return waiting jobs that have expired, the longest expired first."""
        # Without INDEXED BY, SQLite reads all waiting jobs.
        where = "INDEXED BY jobs_expires WHERE expires < ? AND place = 'pending' ORDER BY expires LIMIT ?"
        return self._rows(where, (now, limit))

    def next_expiry(self) -> int | None:
        """Return when the next waiting job expires, in microseconds; None if none does."""
        query = "SELECT min(expires) FROM jobs INDEXED BY jobs_expires WHERE expires IS NOT NULL AND place = 'pending'"
        found = self._one(query)
        return None if found is None else _number(found)

    def next_up(self, limit: int) -> builtins.list[Row]:
        """Return the ready jobs that come first, then those that wait for their unique key, then those that are due first."""
        rows = self.ready(limit)
        for column in ("behind", "due"):
            if left := limit - len(rows):
                rows += self._rows(f"WHERE {column} IS NOT NULL ORDER BY {column}, seq LIMIT ?", (left,))
        return rows

    def last_ended(self, limit: int) -> builtins.list[Row]:
        """Return the jobs that last ended an attempt or were given up, the latest first."""
        from queuectl.index.statistics import ENDED_AT, HAS_ENDED, MAKE_ENDED

        way = "INDEXED BY jobs_ended" if self.has("jobs_ended", MAKE_ENDED) else "NOT INDEXED"
        order = f"{ENDED_AT} DESC, seq DESC"
        return self._rows(f"{way} WHERE {HAS_ENDED} ORDER BY {order} LIMIT ?", (limit,))

    def next_seq(self) -> int:
        """Return a number above all others, for a job that goes to the end of the order of arrival."""
        return _number(self._one("SELECT coalesce(max(seq), 0) + 1 FROM jobs"))

    def ready_and_due(self) -> tuple[bool, int | None]:
        """Return whether a job can run now, and when the next scheduled job or retry is due (microseconds or None)."""
        ready = "EXISTS (SELECT 1 FROM jobs WHERE ready_key IS NOT NULL)"
        due = "(SELECT min(due) FROM jobs WHERE due IS NOT NULL)"
        found = self.db.execute(f"SELECT {ready}, {due}").fetchone()
        return bool(found[0]), None if found[1] is None else _number(found[1])

    def has_work(self, *, later: bool) -> bool:
        """Return whether a job can run now.

        Args:
            later: count jobs, too, that are running or will run by themselves; held ones do not.
        """
        ready, due = self.ready_and_due()
        if ready or not later:
            return ready
        behind = "SELECT EXISTS (SELECT 1 FROM jobs WHERE behind IS NOT NULL)"
        return due is not None or self.counts()["processing"] > 0 or bool(self._one(behind))

    def ready_lanes(self) -> builtins.list[str | None]:
        """Return the lanes (see `row.lane_of`) with a job that could run now, by one look at each lane."""
        plain = "SELECT 1 FROM jobs WHERE lane IS NULL AND ready_key IS NOT NULL LIMIT 1"
        found: builtins.list[str | None] = [None] if self.db.execute(plain).fetchone() else []
        found += (_text(lane) for (lane,) in self.db.execute(_LANES))
        return found

    def ready_heads(self) -> builtins.list[tuple[str | None, int]]:
        """Return the lanes with a job that could run now, each with the `ready_key` of its first job."""
        plain = self._one(_PLAIN_HEAD)
        found: builtins.list[tuple[str | None, int]] = [] if plain is None else [(None, _number(plain))]
        found += ((_text(lane), _number(key)) for lane, key in self.db.execute(_HEADS))
        return found

    def batch_counts(self, batch: str) -> tuple[int, int, int]:
        """Return how many jobs of a batch wait or run, are completed, and are dead, but for those that wait for it."""
        query = "SELECT waiting, done, dead FROM batches WHERE batch = ?"
        found = self.db.execute(query, (batch,)).fetchone() or (0, 0, 0)
        return _number(found[0]), _number(found[1]), _number(found[2])

    def has_waits(self) -> bool:
        """Return whether a job waits for another."""
        return self.db.execute("SELECT 1 FROM waits LIMIT 1").fetchone() is not None

    def is_waited_for(self, job_id: str) -> bool:
        """Return whether a job that waits or runs names this one among its conditions."""
        query = "SELECT 1 FROM waits WHERE parent = ? LIMIT 1"
        return self.db.execute(query, (job_id,)).fetchone() is not None

    def is_needed(self, row: Row) -> bool:
        """Return whether a job that waits or runs names this one, or its batch."""
        return self.is_waited_for(row.id) or (
            row.batch is not None and self.is_waited_for(f"batch:{row.batch}")
        )

    def count_blocked(self) -> int:
        """Return how many waiting jobs start only once somebody has mended a job for which they wait."""
        from queuectl.index.dependencies import BLOCKED

        return _number(self._one(f"SELECT count(*) FROM ({BLOCKED})")) if self.has_waits() else 0

    def blocked(self, ids: Sequence[str]) -> set[str]:
        """Return those of these jobs that are blocked, see `count_blocked`."""
        from queuectl.index.dependencies import BLOCKED

        if not self.has_waits():
            return set()
        if len(ids) > _AT_ONCE:
            every = self.db.execute(f"SELECT id FROM jobs WHERE seq IN ({BLOCKED})")
            return {_text(job_id) for (job_id,) in every}.intersection(ids)
        marks = ", ".join("?" * len(ids))
        query = f"SELECT id FROM jobs WHERE id IN ({marks}) AND seq IN ({BLOCKED})"
        return {_text(job_id) for (job_id,) in self.db.execute(query, tuple(ids))}

    def members_of(self, batch: str) -> builtins.list[str]:
        """Return the ids of the jobs of a batch, but for those that wait for it themselves."""
        query = "SELECT id FROM jobs WHERE batch = ? AND member IS NOT NULL ORDER BY seq"
        return [_text(job_id) for (job_id,) in self.db.execute(query, (batch,))]

    def children_of(self, job_id: str, limit: int) -> builtins.list[tuple[str, str, str]]:
        """Return the jobs that wait for this one, or have waited for it and run: id, field that names it, and state."""
        query = (
            "SELECT id, kind, state FROM waits JOIN jobs USING (seq) WHERE parent = ? ORDER BY seq LIMIT ?"
        )
        return self.db.execute(query, (job_id, limit)).fetchall()

    def waits_of(self, job_id: str) -> builtins.list[str]:
        """Return what a job that waits or runs has waited for: ids, and batches like batch:parts."""
        query = "SELECT parent FROM waits WHERE seq = (SELECT seq FROM jobs WHERE id = ?)"
        return [_text(parent) for (parent,) in self.db.execute(query, (job_id,))]

    def lanes_with_work(self) -> builtins.list[str | None]:
        """Return the lanes with a job that runs, or that will run by itself."""
        some = "SELECT DISTINCT lane FROM jobs WHERE"
        rest = (f"{some} due IS NOT NULL", f"{some} behind IS NOT NULL", f"{some} state = 'processing'")
        found = (lane for query in rest for (lane,) in self.db.execute(query))
        return [*dict.fromkeys([*self.ready_lanes(), *found])]

    def ready_in(self, lane: str | None, limit: int) -> builtins.list[Row]:
        """Return the jobs of a lane that could run now, in the order in which they run."""
        where = "WHERE lane IS ? AND ready_key IS NOT NULL ORDER BY ready_key, seq LIMIT ?"
        return self._rows(where, (lane, limit))

    def count_ready_in(self, lane: str | None, most: int) -> int:
        """Return how many jobs of a lane can run now, but at most `most`."""
        few = "SELECT 1 FROM jobs WHERE lane IS ? AND ready_key IS NOT NULL LIMIT ?"
        return _number(self._one(f"SELECT count(*) FROM ({few})", lane, most))

    def ready(self, limit: int) -> builtins.list[Row]:
        """Return the jobs that could run now, whatever their limits allow, in the order in which they run."""
        lanes = self.ready_lanes()
        rows = [row for lane in lanes for row in self.ready_in(lane, limit)]
        return rows if len(lanes) == 1 else sorted(rows, key=order_of)[:limit]

    def count_ready(self, most: int) -> int:
        """Return how many jobs can run now, but at most `most`."""
        few = "SELECT 1 FROM jobs WHERE ready_key IS NOT NULL LIMIT ?"
        return _number(self._one(f"SELECT count(*) FROM ({few})", most))
