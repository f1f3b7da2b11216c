"""The mirror: a SQLite file that suggests the next job, and answers counts and lists.

The folders are the truth. Every method here may fail, be wrong or find nothing without a job being lost: a failed
write leaves the index `broken`, the folders' stamps stop matching, and the next scan puts it right.
"""

from __future__ import annotations

import gc
import os
import sqlite3
import time
from contextlib import contextmanager, suppress
from operator import attrgetter

from queuectl import schema
from queuectl.layout import DEAD, DONE, PENDING, STATES
from queuectl.row import READY_KEY, Row
from queuectl.schema import SCHEMA
from queuectl.stamps import Moving, Stamps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

SETTLING = 2.0
"""Seconds to wait while others make the file what it is to be; afterwards nobody holds it so that it cannot be opened."""

BUSY = 30.0
"""Seconds to wait for another writer. A rebuild of a million jobs is the longest one."""

PAGE = 4096
"""Bytes of a page of the index. Its file always has whole ones."""

_COLUMNS = tuple(Row.__match_args__)
values_of = attrgetter(*_COLUMNS)
"""A row as the tuple that is inserted."""

_SELECT = f"SELECT {', '.join(_COLUMNS)} FROM jobs"
_INSERT = f"INSERT INTO jobs({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))})"
_INSERT_NEW = _INSERT.replace("INSERT", "INSERT OR IGNORE", 1)
_OF_AN_END = tuple(
    c for c in _COLUMNS if c not in ("id", "seq", "ready_key", "due", "arrived", "run_at", "command")
)
_ENDED = f"""UPDATE jobs SET {", ".join(f"{c} = ?" for c in _OF_AN_END)}
 WHERE seq = ? AND id = ? AND ready_key IS NULL AND due IS NULL"""
_ended = attrgetter(*_OF_AN_END, "seq", "id")
_UPDATE = f"UPDATE jobs SET {', '.join(f'{c} = ?' for c in _COLUMNS if c != 'id')} WHERE id = ?"


class Index(Stamps):
    """One connection to the mirror of one spool.

    Args:
        path: the database file, or ":memory:" for a spool that cannot be written.
        root: the spool's folder.
        boot: the machine's boot id. An index from before the last boot is intact but may be old.
    """

    def __init__(self, path: str, root: str, boot: str) -> None:
        self.path = path
        self.broken: str | None = None
        super().__init__(root)
        self.boot = boot
        self._db: sqlite3.Connection | None = None
        self._inode = 0
        self._untold: set[str] = set()

    # -- opening ---------------------------------------------------------------------------------------------------

    def open(self) -> bool:
        """Open it, making it if there is none; True when its content may be believed, False when it must be rebuilt.

        Raises:
            sqlite3.Error: it cannot be opened or made at all.
        """
        if self.usable and self._is_the_file_there():
            return self._is_trusted() and self._own_up()
        # A file cut short opens well, and fails again at the first page that is missing.
        known_bad = schema.is_damage(self.broken) and self._is_the_file_there()
        self.close()
        try:
            if known_bad:
                raise sqlite3.DatabaseError(self.broken)
            self._connect()
            if self._file_inode() < 0:
                raise sqlite3.DatabaseError("the file was cut short")
            if self.meta("inode") not in (None, self._file_inode()):
                # A backup put back: SQLite would lay the journal of the newer file over it.
                raise sqlite3.DatabaseError("the file is a copy")
            trusted = self._is_trusted()
            if not trusted:
                self._create()
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError) and not schema.is_damage(str(error)):
                raise
            self._start_over()
            trusted = False
        self._inode = self._file_inode()
        self.broken = None
        return trusted and self._own_up()

    def _own_up(self) -> bool:
        """Have the folders scanned whose moves of ours this file may not know of; always True.

        Somebody who used this file meanwhile may have carried a folder's time along over such a move.
        """
        for place in tuple(self._untold):
            self.distrust(place)
            if self.usable:
                self._untold.discard(place)
        return True

    def _connect(self) -> None:
        if self.path != ":memory:":
            with suppress(FileExistsError):
                os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        self._db = sqlite3.connect(self.path, isolation_level=None, timeout=SETTLING, check_same_thread=False)
        self._db.execute(f"PRAGMA page_size = {PAGE}")
        try:
            self._db.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error):
                raise
            # Others hold what once was our file, cut short or overwritten, and may do so for ever.
            raise sqlite3.DatabaseError("the file is no index any more") from None
        self._db.execute(f"PRAGMA busy_timeout = {round(BUSY * 1000)}")
        self._db.execute("PRAGMA synchronous = OFF")

    def _create(self) -> None:
        """Make the tables, dropping those of another version."""
        db = self.db
        if self.meta("schema") not in (None, SCHEMA):
            db.execute("BEGIN IMMEDIATE")
            for table in ("meta", "folders", "jobs", "counts"):
                db.execute(f"DROP TABLE IF EXISTS {table}")
            db.execute("COMMIT")
        db.executescript("BEGIN IMMEDIATE;" + schema.TABLES + schema.ORDERS + "COMMIT;")

    def _start_over(self) -> None:
        """Put a damaged file aside by making a new one; whoever has the old one open notices by its inode."""
        self.close()
        for suffix in ("", "-wal", "-shm"):
            with suppress(FileNotFoundError):
                os.unlink(self.path + suffix)
        self._connect()
        self._create()

    def use_memory(self) -> None:
        """Go on without a file, for this process alone: the disk is read-only or full."""
        self.close()
        self.path = ":memory:"
        self.broken = None

    def use_file(self, path: str) -> None:
        """Go back to the file; of what was moved meanwhile it may not know."""
        self.close()
        self.path, self.broken = path, None
        self._untold.update((PENDING, DONE, DEAD))

    def _file_inode(self) -> int:
        """The file's inode; -1 when it is gone, or cut within a page: SQLite reads the rest of that page as zeros."""
        try:
            status = None if self.path == ":memory:" else os.stat(self.path)
        except OSError:
            return -1
        if status is None:
            return 0
        return -1 if status.st_size % PAGE else status.st_ino

    def _is_the_file_there(self) -> bool:
        """An index deleted or replaced under us would take our writes into nowhere, without an error."""
        return self._inode == self._file_inode()

    def _is_trusted(self) -> bool:
        return bool(self.meta("schema") == SCHEMA and self.meta("boot") == self.boot)

    @property
    def usable(self) -> bool:
        """Whether it is open and nothing has gone wrong with it."""
        return self._db is not None and self.broken is None

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open."""
        return self._db is not None and self._db.in_transaction

    @property
    def db(self) -> sqlite3.Connection:
        """The open connection."""
        if self._db is None:
            raise sqlite3.OperationalError("the index is not open")
        return self._db

    def close(self) -> None:
        """Let go of the file."""
        if self._db is not None:
            with suppress(sqlite3.Error):
                self._db.close()
            self._db = None

    # -- writing ---------------------------------------------------------------------------------------------------

    @contextmanager
    def write(self) -> Iterator[None]:
        """One write transaction, or a part of the one that is open.

        It takes the lock at its start, so that it never fails half way for want of it.
        """
        if self.db.in_transaction:
            yield
            return
        if not self._is_the_file_there():
            raise sqlite3.DatabaseError("the index file was replaced")
        self.db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            with suppress(sqlite3.Error):
                self.db.execute("ROLLBACK")
            raise
        self.db.execute("COMMIT")

    def moving(self, *places: str) -> Moving:
        """Wrap moves of job files: rows change and the folders' stamps are carried along, in one transaction.

        Trouble with the index never reaches the move: the body runs all the same, and `broken` says why the mirror
        lags behind. `put` and `drop` do nothing then.
        """
        return Moving(self, places)

    def begin_moving(self, places: tuple[str, ...]) -> bool:
        """Begin a transaction for moves unless one is open; says whether it did."""
        self._untold.update(places)
        return not self.in_transaction and self._begin()

    def end_moving(self, *, well: bool) -> None:
        """End the transaction that begin_moving began."""
        self._attempt("COMMIT" if well and self.broken is None else "ROLLBACK")
        if self.broken is None and not self._is_the_file_there():
            self.broken = "the index file was replaced"
        if well and self.broken is None:
            self._untold.clear()

    def _begin(self) -> bool:
        if not self.usable:
            return False
        if not self._is_the_file_there():
            self.broken = "the index file was replaced"
            return False
        return self._attempt("BEGIN IMMEDIATE")

    def _attempt(self, statement: str, values: Iterable[Any] = ()) -> bool:
        try:
            self.db.execute(statement, tuple(values))
        except sqlite3.Error as error:
            self.broken = str(error)
            return False
        return True

    @contextmanager
    def in_bulk(self) -> Iterator[None]:
        """Have room in memory for what many writes touch, so that each page is written once.

        A hundred thousand files make no garbage in rings: looking for it took a tenth of the time.
        """
        collecting = gc.isenabled()
        gc.disable()
        self.db.execute("PRAGMA cache_size = -65536")
        self.db.execute("PRAGMA wal_autocheckpoint = 0")
        try:
            yield
        finally:
            with suppress(sqlite3.Error):
                self.db.execute("PRAGMA wal_autocheckpoint = 1000")
                self.db.execute("PRAGMA cache_size = -2000")
            if collecting:
                gc.enable()

    def put(self, row: Row) -> None:
        """Insert the row, or replace the one of that id, which then keeps its number unless the row brings one."""
        if not self.usable:
            return
        values = list(values_of(row))
        try:
            self.db.execute(
                "DELETE FROM jobs WHERE place = ? AND name = ? AND id != ?", (row.place, row.name, row.id)
            )
            if row.seq is None:
                found = self.db.execute("SELECT seq FROM jobs WHERE id = ?", (row.id,)).fetchone()
                if found is None:
                    self.db.execute(_INSERT, values)
                    return
                values[_COLUMNS.index("seq")] = found[0]
            del values[_COLUMNS.index("id")]
            if not self.db.execute(_UPDATE, [*values, row.id]).rowcount:
                self.db.execute(_INSERT, values_of(row))
        except sqlite3.Error as error:
            self.broken = str(error)

    def update(self, row: Row) -> None:
        """Replace the row of an id that is known, number and all; what the hot path does where `put` asks first."""
        if not self.usable:
            return
        values = list(values_of(row))
        del values[_COLUMNS.index("id")]
        try:
            if row.seq is None or not self.db.execute(_UPDATE, [*values, row.id]).rowcount:
                self.put(row)
        except sqlite3.Error as error:
            self.broken = str(error)

    def insert_new(self, rows: Iterable[tuple[Any, ...]]) -> int:
        """Insert the rows, as `values_of` gives them, whose id and file are both not known; says how many were new."""
        try:
            return self.db.executemany(_INSERT_NEW, rows).rowcount if self.usable else 0
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

    # -- asking ----------------------------------------------------------------------------------------------------

    def _one(self, query: str, *values: Any) -> Any:
        return self.db.execute(query, values).fetchone()[0]

    def _rows(self, tail: str, values: Iterable[Any] = ()) -> list[Row]:
        return [Row(*found) for found in self.db.execute(f"{_SELECT} {tail}", tuple(values))]

    def get(self, job_id: str) -> Row | None:
        """The row of one job."""
        found = self._rows("WHERE id = ?", (job_id,))
        return found[0] if found else None

    def at(self, place: str, names: list[str]) -> dict[str, Row]:
        """The rows of these files of a folder, by name."""
        marks = ", ".join("?" * len(names))
        return {
            row.name: row for row in self._rows(f"WHERE place = ? AND name IN ({marks})", (place, *names))
        }

    def inodes_at(self, place: str, names: list[str]) -> dict[str, int]:
        """The inodes that are known of these files of a folder, by name."""
        marks = ", ".join("?" * len(names))
        query = f"SELECT name, inode FROM jobs WHERE place = ? AND name IN ({marks})"
        return dict(self.db.execute(query, (place, *names)).fetchall())

    def all_at(self, place: str, after: str, limit: int) -> list[tuple[str, str]]:
        """(id, name) of a folder's rows in the order of their names, a page at a time."""
        query = "SELECT id, name FROM jobs WHERE place = ? AND name > ? ORDER BY name LIMIT ?"
        return self.db.execute(query, (place, after, limit)).fetchall()

    def count_at(self, place: str) -> int:
        """How many rows a folder has."""
        return int(self._one("SELECT count(*) FROM jobs WHERE place = ?", place))

    def claim_places(self) -> list[str]:
        """The workers' folders that have rows. The range keeps SQLite from walking through a million others."""
        query = "SELECT DISTINCT place FROM jobs WHERE place > 'processing/' AND place < 'processing0'"
        return [place for (place,) in self.db.execute(query)]

    def counts(self) -> dict[str, int]:
        """Jobs by state, in the order of STATES."""
        found = dict(self.db.execute("SELECT state, n FROM counts").fetchall())
        return {state: found.get(state, 0) for state in STATES}

    def list(self, state: str | None, limit: int | None, after: int = -1) -> list[Row]:
        """Rows in the order of arrival, of one state or all; after is the last number already seen."""
        where = "WHERE seq > ?" if state is None else "WHERE state = ? AND seq > ?"
        values: tuple[Any, ...] = (after,) if state is None else (state, after)
        return self._rows(f"{where} ORDER BY seq LIMIT ?", (*values, -1 if limit is None else limit))

    def next_seq(self) -> int:
        """A number behind all others, for a job that goes to the end of the line."""
        return int(self._one("SELECT coalesce(max(seq), 0) + 1 FROM jobs"))

    def claimed(self, row: Row, place: str, name: str, worker: str) -> None:
        """Say that a waiting job, just suggested, lies in a worker's folder now."""
        self._attempt(
            "UPDATE jobs SET state = 'processing', place = ?, name = ?, ready_key = NULL, due = NULL, worker = ?"
            " WHERE seq = ?",
            (place, name, worker, row.seq),
        )

    def ended(self, row: Row) -> None:
        """Say that a claimed job is over. It names few columns: each index of a named one is written anew."""
        if not self.usable:
            return
        try:
            if row.seq is None or not self.db.execute(_ENDED, _ended(row)).rowcount:
                self.put(row)
        except sqlite3.Error as error:
            self.broken = str(error)

    def promote(self, now: int) -> None:
        """Let the jobs whose moment has come into the order of waiting jobs; they have waited since that moment."""
        if self.db.execute("SELECT 1 FROM jobs WHERE due <= ? LIMIT 1", (now,)).fetchone():
            self._attempt(f"UPDATE jobs SET ready_key = {READY_KEY}, due = NULL WHERE due <= ?", (now,))

    def outlook(self) -> tuple[bool, int | None]:
        """Whether a job can run now, and the moment of the next scheduled one or retry."""
        ready = "EXISTS (SELECT 1 FROM jobs WHERE ready_key IS NOT NULL)"
        due = "(SELECT min(due) FROM jobs WHERE due IS NOT NULL)"
        found = self.db.execute(f"SELECT {ready}, {due}").fetchone()
        return bool(found[0]), found[1]

    def suggest(self) -> Row | None:
        """The waiting job that is first in order."""
        return next(iter(self._rows("WHERE ready_key IS NOT NULL ORDER BY ready_key, seq LIMIT 1")), None)

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
