"""The mirror: a SQLite file that suggests the next job, and answers counts and lists.

The folders are the truth. Every method here may fail, be wrong or find nothing without a job being lost: a failed
write leaves the index `broken`, the folders' stamps stop matching, and the next scan puts it right.
"""

from __future__ import annotations

import sqlite3
import time
from operator import attrgetter

from queuectl.index import schema
from queuectl.index.bulk_insert import in_runs
from queuectl.index.database import IndexFile
from queuectl.index.queries import COLUMNS
from queuectl.index.row import READY_KEY
from queuectl.index.schema import SCHEMA
from queuectl.layout import PENDING

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    from queuectl.index.row import Row

values_of = attrgetter(*COLUMNS)
"""A row as the tuple that is inserted."""

_INSERT = f"INSERT INTO jobs({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))})"
_OF_AN_END = tuple(
    c
    for c in COLUMNS
    if c
    not in ("id", "seq", "ready_key", "due", "arrived", "run_at", "command", "tags", "unique_key", "behind")
    and c != "expires"
)
_ENDED = f"""UPDATE jobs SET {", ".join(f"{c} = ?" for c in _OF_AN_END)}
 WHERE seq = ? AND id = ? AND ready_key IS NULL AND due IS NULL"""
_ended = attrgetter(*_OF_AN_END, "seq", "id")
_CLAIMED = """UPDATE jobs SET state = 'processing', place = ?, name = ?, ready_key = NULL, due = NULL, worker = ?
 WHERE seq = ? AND id = ?"""
_UPDATE = f"UPDATE jobs SET {', '.join(f'{c} = ?' for c in COLUMNS if c != 'id')} WHERE id = ?"


class Index(IndexFile):
    """The mirror of one spool: what is written into it."""

    def _attempt(self, statement: str, values: Iterable[Any] = ()) -> bool:
        try:
            if self.db.in_transaction:
                self.db.execute(statement, tuple(values))
            else:
                with self.write():
                    self.db.execute(statement, tuple(values))
        except sqlite3.Error as error:
            self.broken = str(error)
            return False
        return True

    def put(self, row: Row) -> None:
        """Insert the row, or replace the one of that id, which then keeps its number unless the row brings one."""
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

    def update(self, row: Row) -> None:
        """Replace the row of an id that is known, number and all; what the hot path does where `put` asks first."""
        if not self.usable:
            return
        values = list(values_of(row))
        del values[COLUMNS.index("id")]
        try:
            if row.seq is None or not self.db.execute(_UPDATE, [*values, row.id]).rowcount:
                self.put(row)
        except sqlite3.Error as error:
            self.broken = str(error)

    def insert_new(self, rows: Sequence[Sequence[Any]]) -> int:
        """Insert the rows, as `values_of` gives them, whose id and file are both not known; says how many were new."""
        try:
            runs = in_runs(rows) if self.usable else ()
            return sum(self.db.executemany(statement, run).rowcount for statement, run in runs)
        except sqlite3.Error as error:
            self.broken = str(error)
            return 0

    def drop(self, job_id: str) -> None:
        """Forget a row."""
        if self.usable:
            self._attempt("DELETE FROM jobs WHERE id = ?", (job_id,))

    def drop_if_at(self, job_id: str, place: str, name: str) -> None:
        """Forget a row if it still says that the job lies there."""
        self._attempt("DELETE FROM jobs WHERE id = ? AND place = ? AND name = ?", (job_id, place, name))

    def claimed(self, rows: Sequence[Row], place: str, worker: str) -> None:
        """Say that waiting jobs, just suggested, lie in a worker's folder now."""
        if not (rows and self.usable):
            return
        try:
            self.db.executemany(
                _CLAIMED, [(place, f"{row.id}.json", worker, row.seq, row.id) for row in rows]
            )
        except sqlite3.Error as error:
            self.broken = str(error)

    def ended(self, rows: Sequence[Row]) -> None:
        """Say that claimed jobs are over, or wait again.

        For those that are over few columns are named: each index of a named one is written anew.
        """
        if not self.usable:
            return
        over = [row for row in rows if row.place != PENDING]
        try:
            if self.db.executemany(_ENDED, map(_ended, over)).rowcount < len(over):
                for row in over:
                    if row.seq is None or not self.db.execute(_ENDED, _ended(row)).rowcount:
                        self.put(row)
        except sqlite3.Error as error:
            self.broken = str(error)
        for row in rows:
            if row.place == PENDING:
                self.update(row)

    def promote(self, now: int) -> None:
        """Let the jobs whose moment has come into the order of waiting jobs; they have waited since that moment."""
        if self.db.execute("SELECT 1 FROM jobs WHERE due <= ? LIMIT 1", (now,)).fetchone():
            self._attempt(f"UPDATE jobs SET ready_key = {READY_KEY}, due = NULL WHERE due <= ?", (now,))

    def put_behind(self, key: str, state: str | None = None) -> None:
        """Take the waiting jobs of a unique key, or those in a state, out of the order until its owner is over."""
        self._attempt(
            "UPDATE jobs SET behind = ready_key, ready_key = NULL"
            " WHERE unique_key = ? AND state IN (?, ?) AND ready_key IS NOT NULL",
            (key, state or "failed", "pending"),
        )

    def let_next(self, key: str) -> None:
        """Give those jobs of a unique key their place in the order that come next, if none of it runs."""
        self._attempt(schema.LET_NEXT.replace(":key", "?1"), (key,))

    def finish_rebuild(self) -> None:
        """Declare the content complete, as of this boot."""
        schema.finish(self.db)
        self.db.execute(
            "INSERT OR REPLACE INTO meta VALUES ('schema', ?), ('boot', ?), ('inode', ?), ('made', ?)",
            (SCHEMA, self.boot, self._file_inode(), time.time()),
        )

    def forget_all(self) -> None:
        """Empty it, for a rebuild, within whose transaction it is slow to tell states and the order of jobs."""
        schema.start_anew(self.db)
