"""The file of the mirror: opened and judged, made anew when it is damaged, locked for writing. Knows nothing of rows."""

from __future__ import annotations

import gc
import os
import sqlite3
import time
from contextlib import contextmanager, suppress

from queuectl.index import schema
from queuectl.index.freshness import Moving
from queuectl.index.queries import Lookups
from queuectl.index.schema import SCHEMA
from queuectl.layout import DEAD, DONE, PENDING

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

SETTLING = 2.0
"""Seconds to wait while others make the file what it is to be; afterwards nobody holds it so that it cannot be opened."""

BUSY = 30.0
"""Seconds to wait for another writer. A rebuild of a million jobs is the longest one."""

_PATIENT = f"PRAGMA busy_timeout = {round(BUSY * 1000)}"
_FIRST_PAUSE, _LAST_PAUSE = 0.00005, 0.01

PAGE = 4096
"""Bytes of a page of the index. Its file always has whole ones."""


class IndexFile(Lookups):
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
        self._waits_itself = True
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
        self._db.execute(_PATIENT)
        self._waits_itself = True
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
    def inode(self) -> int:
        """The file that was opened last; 0 for memory."""
        return self._inode

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

    # -- transactions ---------------------------------------------------------------------------------------------------

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
        self._take_write_lock()
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
        try:
            self.db.execute("COMMIT" if well and self.broken is None else "ROLLBACK")
        except sqlite3.Error as error:
            self.broken = str(error)
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
        try:
            self._take_write_lock()
        except sqlite3.Error as error:
            self.broken = str(error)
        return self.broken is None

    def _take_write_lock(self) -> None:
        """Begin to write, waiting for whoever does so now: for a tenth of a millisecond, as a rule.

        SQLite itself would sleep a whole one at least, and two workers met at every fifth job. So it waits no more from
        here on, and all that writes has to come this way.
        """
        if self._waits_itself:
            self.db.execute("PRAGMA busy_timeout = 0")
            self._waits_itself = False
        give_up, pause = time.monotonic() + BUSY, _FIRST_PAUSE
        while True:
            try:
                self.db.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > give_up:
                    raise
                time.sleep(pause)
                pause = min(pause * 1.5, _LAST_PAUSE)
            else:
                return

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
