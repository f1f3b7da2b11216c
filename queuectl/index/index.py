"""The index: a SQLite mirror of the folders that suggests the next job, and answers counts and lists.

The folders are the truth. Every method here may fail, be wrong or find nothing without a job being lost: a failed write
sets `broken`, the noted times of the folders no longer match, and the next scan corrects the index.
"""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import suppress
from functools import lru_cache
from operator import attrgetter, itemgetter

from queuectl.index import schema
from queuectl.index.queries import Queries
from queuectl.index.row import COLUMNS, READY_KEY, values_of
from queuectl.layout import DEAD, DONE, INDEX_SCHEMA, PENDING
from queuectl.system import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Any

    from queuectl.index.row import Row
    from queuectl.layout import Layout

_KEPT_AT_END = frozenset(
    {
        "id",
        "seq",
        "ready_key",
        "due",
        "arrived",
        "run_at",
        "command",
        "tags",
        "unique_key",
        "behind",
        "expires",
        "lane",
        "hold",
        "conditions",
        "batch",
        "member",
        "about",
    }
)
_SET_AT_END = tuple(name for name in COLUMNS if name not in _KEPT_AT_END)
_end_values = attrgetter(*_SET_AT_END, "seq", "id")

_INSERT = f"INSERT INTO jobs({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))})"
_END = f"""UPDATE jobs SET {", ".join(f"{name} = ?" for name in _SET_AT_END)}
 WHERE seq = ? AND id = ? AND ready_key IS NULL AND due IS NULL"""
_PUT_BACK = """UPDATE OR IGNORE jobs SET state = 'pending', place = 'pending', name = ?, arrived = ?, inode = 0
    WHERE id = ? AND place = ? AND name = ?"""
_CLAIM = """UPDATE jobs SET state = 'processing', place = ?, name = ?, ready_key = NULL, due = NULL, worker = ?
 WHERE seq = ? AND id = ?"""
_UPDATE = f"UPDATE jobs SET {', '.join(f'{name} = ?' for name in COLUMNS if name != 'id')} WHERE id = ?"
_WITHOUT_ID = tuple(name for name in COLUMNS if name != "id")
_update_values = attrgetter(*_WITHOUT_ID, "id")


class Index(Queries):
    """The index of one spool: what is written into it. See Freshness for the arguments."""

    def put(self, row: Row) -> None:
        """Insert the row, or replace the one of the same id, which keeps its number unless the new row has one."""
        if not self.usable:
            return
        try:
            with self.write():
                self._put(row)
        except sqlite3.Error as error:
            self.broken = str(error)

    def _put(self, row: Row) -> None:
        values = list(values_of(row))
        self.db.execute(
            "DELETE FROM jobs WHERE place = ? AND name = ? AND id != ?", (row.place, row.name, row.id)
        )
        if row.seq is None:
            found = self.db.execute("SELECT seq FROM jobs WHERE id = ?", (row.id,)).fetchone()
            if found is None:
                self.db.execute(_INSERT, values)
                return
            values[COLUMNS.index("seq")] = found[0]
        del values[COLUMNS.index("id")]
        if not self.db.execute(_UPDATE, [*values, row.id]).rowcount:
            self.db.execute(_INSERT, values_of(row))

    def put_all(self, rows: Sequence[Row], *, at_the_end: bool = False) -> None:
        """Put many rows, most of which are known with their numbers; one statement for each of those.

        Args:
            at_the_end: give them numbers above all others, in this order.
        """
        if not (rows and self.usable):
            return
        try:
            with self.write():
                if at_the_end:
                    for number, row in enumerate(rows, self.next_seq()):
                        row.seq = number
                if not self._update_known(rows):
                    for row in rows:
                        if not at_the_end:
                            row.seq = None  # another row may have this number by now
                        self._put(row)
        except sqlite3.Error as error:
            self.broken = str(error)

    def _update_known(self, rows: Sequence[Row]) -> bool:
        """Replace the rows of known ids; return False if some are not known, or another row has the file of one."""
        try:
            return self.db.executemany(_UPDATE, map(_update_values, rows)).rowcount == len(rows)
        except sqlite3.IntegrityError:
            return False

    def insert_new(self, rows: Sequence[Sequence[Any]]) -> int:
        """Insert rows of which neither the id nor the file is known; returns how many were inserted.

        Args:
            rows: as `values_of` gives them.
        """
        try:
            runs = _runs(rows) if self.usable else ()
            return sum(self.db.executemany(statement, run).rowcount for statement, run in runs)
        except sqlite3.Error as error:
            self.broken = str(error)
            return 0

    def drop(self, job_id: str) -> None:
        """Delete a row."""
        if self.usable:
            self._execute("DELETE FROM jobs WHERE id = ?", (job_id,))

    def drop_if_at(self, job_id: str, place: str, name: str) -> None:
        """Delete a row if it says that the job's file is place/name."""
        self._execute("DELETE FROM jobs WHERE id = ? AND place = ? AND name = ?", (job_id, place, name))

    def mark_put_back(self, job_id: str, place: str, name: str, now: int) -> None:
        """Note that somebody has moved an ended job from place/name into pending/. The next scan reads its file.

        Args:
            now: microseconds since the epoch.
        """
        values = (f"{job_id}.json", now, job_id, place, name)
        self._execute(_PUT_BACK, values)
        self.mark_stale(PENDING)

    def mark_claimed(self, rows: Sequence[Row], place: str, worker: str) -> None:
        """Note that waiting jobs, just suggested, are in a worker's folder now."""
        if not (rows and self.usable):
            return
        try:
            self.db.executemany(_CLAIM, [(place, f"{row.id}.json", worker, row.seq, row.id) for row in rows])
        except sqlite3.Error as error:
            self.broken = str(error)

    def mark_ended(self, rows: Sequence[Row]) -> None:
        """Note that claimed jobs have ended, or wait again.

        For those that have ended only the columns that can change are set: SQLite writes each index of a set column.
        """
        if not self.usable:
            return
        ended = [row for row in rows if row.place != PENDING]
        try:
            if self.db.executemany(_END, map(_end_values, ended)).rowcount < len(ended):
                for row in ended:
                    if row.seq is None or not self.db.execute(_END, _end_values(row)).rowcount:
                        self.put(row)
        except sqlite3.Error as error:
            self.broken = str(error)
        for row in rows:
            if row.place == PENDING:
                self._replace(row)

    def _replace(self, row: Row) -> None:
        """Replace the row of a known id, number included. One statement, where `put` needs several."""
        if not self.usable:
            return
        values = list(values_of(row))
        del values[COLUMNS.index("id")]
        try:
            if row.seq is None or not self.db.execute(_UPDATE, [*values, row.id]).rowcount:
                self.put(row)
        except sqlite3.Error as error:
            self.broken = str(error)

    def mark_due_ready(self, now: int) -> None:
        """Give the jobs that are due by now, in microseconds, their place in the order of ready jobs."""
        if self.db.execute("SELECT 1 FROM jobs WHERE due <= ? LIMIT 1", (now,)).fetchone():
            self._execute(f"UPDATE jobs SET ready_key = {READY_KEY}, due = NULL WHERE due <= ?", (now,))

    def shorten_waits(self, now: int) -> None:
        """After the clock was set back: let no retry wait longer from now, in microseconds, than its own wait.

        An attempt that ended later than now ended before the clock was set back.
        """
        self._execute(
            """UPDATE jobs SET due = ? + next_retry_at - finished_at
            WHERE due > ? + next_retry_at - finished_at AND finished_at > ? AND next_retry_at >= finished_at""",
            (now, now, now),
        )

    def shorten_waits_for_parents(self, now: int) -> None:
        """Let a job start now whose last parent ended later than now: the clock was set back after that end.

        A moment that somebody has set with `run_at`, and the wait for a retry, stay as they are.
        """
        if not self.has_waits():
            return
        from queuectl.index import dependencies

        late = f"""due > ? AND coalesce(next_retry_at, run_at, 0) <= ?
            AND seq IN (SELECT seq FROM children WHERE {dependencies.FREE})"""
        if self.db.execute(f"SELECT 1 FROM jobs WHERE {late} LIMIT 1", (now, now)).fetchone():
            self._execute(f"UPDATE jobs SET due = ? WHERE {late}", (now, now, now))

    def put_behind(self, key: str, *, pending_only: bool = False) -> None:
        """Take the waiting jobs of a unique key out of the order, until the job that has the key now has ended.

        Args:
            pending_only: leave those that wait for another attempt in the order.
        """
        self._execute(
            "UPDATE jobs SET behind = ready_key, ready_key = NULL"
            " WHERE unique_key = ? AND state IN (?, ?) AND ready_key IS NOT NULL",
            (key, "pending" if pending_only else "failed", "pending"),
        )

    def release_next(self, key: str) -> None:
        """Put the next jobs of a unique key back into the order, if none of this key is running."""
        self._execute(schema.RELEASE_NEXT.replace(":key", "?1"), (key,))

    # -- building --------------------------------------------------------------------------------------------------

    def begin_rebuild(self, *, ahead: bool) -> None:
        """Empty the index within the open transaction. Until `finish_rebuild`, asking for states or the order is slow.

        Args:
            ahead: begin with the rows that were read before.
        """
        schema.start_anew(self.db)
        if ahead:
            names = ", ".join(name for name in COLUMNS if name != "seq")
            self.db.execute(f"INSERT INTO jobs({names}) SELECT {names} FROM temp.ahead ORDER BY rowid")
        schema.make_unique(self.db)

    def begin_ahead(self) -> None:
        """Make a place for rows that are read before a rebuild takes the lock. It is this connection's own."""
        self.end_ahead()
        self.db.execute(f"CREATE TEMP TABLE ahead({', '.join(COLUMNS)})")

    def put_ahead(self, rows: Sequence[Sequence[Any]]) -> None:
        """Keep these rows for the rebuild; of two with one id or one file the first one stays. See `insert_new`."""
        self.db.execute("BEGIN")
        for statement, run in _runs(rows, "temp.ahead"):
            self.db.executemany(statement, run)
        self.db.execute("COMMIT")

    def end_ahead(self) -> None:
        """Give up the rows that were kept."""
        if self._db is not None:
            with suppress(sqlite3.Error):
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                self._db.execute("DROP TABLE IF EXISTS temp.ahead")

    def finish_rebuild(self) -> None:
        """Declare the content complete, as of this boot."""
        schema.finish(self.db)
        self.db.execute(
            "INSERT OR REPLACE INTO meta VALUES ('schema', ?), ('boot', ?), ('inode', ?), ('made', ?)",
            (INDEX_SCHEMA, self.boot, self._file_inode(), time.time()),
        )

    def begin_new_spool(self, layout: Layout) -> None:
        """Declare this new index complete if the spool is new, too: it holds no job, and no worker has been here.

        Otherwise it is left as it is. Without this a worker would take the first enqueued files for dropped ones: it
        would check each of them, and would not reuse the files. A spool in which a worker has been is not new: after a
        power cut its outcomes may have to be restored, which a rebuild does.

        Raises:
            sqlite3.Error: the index cannot be written.
            OSError: a folder cannot be read.
        """
        if self.meta("schema") is not None or not _is_empty(layout):
            return
        with self.write():
            if self.open():
                return  # another process has just done it
            scan = files.token()
            for place in (DONE, DEAD, PENDING):
                self.begin_scan(place, scan)
            if not _is_empty(layout):  # checked after noting the times: what arrives later changes them
                return
            for place in (DONE, DEAD, PENDING):
                self.end_scan(place, scan)
            self.finish_rebuild()


def _is_empty(layout: Layout) -> bool:
    for folder in (layout.workers, layout.processing, layout.done, layout.dead, layout.pending):
        with os.scandir(folder) as entries:
            if next(entries, None) is not None:
                return False
    return True


def _runs(
    rows: Sequence[Sequence[Any]], table: str = "jobs"
) -> Iterator[tuple[str, Iterable[tuple[Any, ...]]]]:
    """Split rows into runs with the same empty columns; yields a statement for each run, and its values.

    Half the columns of a waiting job are empty. Handing SQLite a None for each of them would double the cost of a row.
    """
    start = 0
    while start < len(rows):
        statement, filled, empty, nones = _insert_for(tuple(value is None for value in rows[start]), table)
        end = start + 1
        while end < len(rows) and empty(rows[end]) == nones:
            end += 1
        yield statement, map(filled, rows[start:end])
        start = end


@lru_cache(maxsize=64)
def _insert_for(
    is_empty: tuple[bool, ...], table: str
) -> tuple[str, itemgetter[Any], itemgetter[Any], tuple[None, ...]]:
    """Return the statement for rows that are empty in these columns, and getters of the filled and the empty ones.

    The last value is what the second getter returns for such a row. The statement ignores ids that are known.
    """
    filled = [at for at, empty in enumerate(is_empty) if not empty]
    unfilled = [at for at, empty in enumerate(is_empty) if empty]
    names = ", ".join(COLUMNS[at] for at in filled)
    statement = f"INSERT OR IGNORE INTO {table}({names}) VALUES ({', '.join('?' * len(filled))})"
    # No job has two of ready_key, due and behind, so at least two columns are empty, and the getter returns a tuple.
    return statement, itemgetter(*filled), itemgetter(*unfilled), (None,) * len(unfilled)
