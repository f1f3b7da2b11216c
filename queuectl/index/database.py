"""The SQLite file of the index: opening it, checking it, replacing a damaged one, and write transactions.

It knows nothing of folders and rows. Whoever subclasses it asks for `db` and sets `broken` when a statement fails.
"""

from __future__ import annotations

import gc
import math
import os
import sqlite3
import stat
import time
from contextlib import contextmanager, suppress

from queuectl.index import schema
from queuectl.layout import INDEX_SCHEMA

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

WRITE_TIMEOUT = 1.0
"""Seconds that a command waits for another process that has the index locked. Then it goes on without the index: the
other one may be stopped (Ctrl+Z, a debugger, a paused container), or rebuild the index of a million jobs."""

WORKER_TIMEOUT = 30.0
"""The same for a worker. Without the shared index it would have to read all folders itself, again and again."""

_AGAIN_TIMEOUT, _FORGET_AFTER = 0.05, 5.0
"""Seconds that each further try may wait after one that waited in vain, and for how long this holds."""

_FIRST_PAUSE, _LAST_PAUSE = 0.00005, 0.01

_inherited: list[sqlite3.Connection] = []
"""Connections of the process from which this one was forked. Here they are never used and never closed."""

PAGE = 4096
"""Bytes of a page of the index. The file always consists of complete pages."""

_MAPPED = 4096
"""Bytes. When SQLite makes its shared memory file longer, it writes one byte into each part of this size."""

_COPY_ON_WRITE = frozenset(["btrfs", "bcachefs", "nilfs2"])
"""File systems that need room for a change of bytes that have their place already."""


def has_small_blocks(path: str) -> bool:
    """Whether the blocks of the disk are so small that a WAL is dangerous.

    The shared memory of a WAL is a mapped file. If the kernel finds no room on the disk for a page that is written into
    mapped memory, it ends the process (SIGBUS). SQLite prevents this where a block of the disk is at least as large as
    the parts into which it writes. Elsewhere the index has to do without a WAL, at the price that readers and writers
    wait for each other.
    """
    return hasattr(os, "statvfs") and os.statvfs(os.path.dirname(path)).f_frsize < _MAPPED


def copies_on_write(path: str) -> bool:
    """Whether a WAL is dangerous for another reason: a block that is written again moves to another place."""
    from queuectl.system.host import mount_of

    mount = mount_of(os.path.dirname(path))
    return mount is not None and mount.type in _COPY_ON_WRITE


def _casefold(text: object) -> str | None:
    """Compare texts as Python does: SQLite's own lower() knows the letters of ASCII only."""
    return text.casefold() if isinstance(text, str) else None


def is_busy(error: sqlite3.Error) -> bool:
    """Whether an error says that another process has the index locked."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY


class Database:
    """One connection to the index of one spool.

    Args:
        path: the database file, or ":memory:" for a spool that cannot be written.
        boot: the machine's boot id. An index from before the last boot may be out of date.

    Attributes:
        broken: why the index cannot be used any more; None while all is well.
        for_worker: wait for other processes as long as a worker does.
    """

    def __init__(self, path: str, boot: str) -> None:
        self.path = path
        self.for_worker = False
        self.boot = boot
        self.broken: str | None = None
        self._db: sqlite3.Connection | None = None
        self._inode = 0
        self._sqlite_waits = self._maps_memory = True
        self._in_vain_at = -math.inf

    # -- opening ---------------------------------------------------------------------------------------------------

    def open(self) -> bool:
        """Open the index, creating the file if there is none.

        Returns:
            True if its content may be trusted, False if it must be rebuilt.

        Raises:
            sqlite3.Error: it can neither be opened nor created.
        """
        if self.usable and self._is_same_file():
            return self._is_trusted()
        # A truncated file can be opened without an error. It fails again at the first missing page.
        known_bad = schema.is_damage(self.broken) and self._is_same_file()
        self.close()
        try:
            if known_bad:
                raise sqlite3.DatabaseError(self.broken)
            self._connect()
            if self._file_inode() < 0:
                raise sqlite3.DatabaseError("the file was cut short")
            if self.meta("inode") not in (None, self._file_inode()):
                # A backup was put back: SQLite would apply the journal of the newer file to it.
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
        return trusted

    def _connect(self) -> None:
        if self.path != ":memory:":
            self._make_file()
        # Threads take turns, see `api.spool_base.locked`. The object may also be deleted in any thread.
        self._db = sqlite3.connect(
            self.path, isolation_level=None, timeout=self.patience(), check_same_thread=False
        )
        self._db.create_function("casefold", 1, _casefold, deterministic=True)
        self._db.execute(f"PRAGMA page_size = {PAGE}")
        try:
            self._maps_memory = self._choose_journal()
        except sqlite3.OperationalError as error:
            if "locked" not in str(error):
                raise
            if self._is_without_wal():
                # Another process writes into it, perhaps for long, or was stopped while it did.
                self.note_wait_in_vain()
                raise
            # Other processes have the file open that used to be our index and was truncated or overwritten since.
            # They may keep it locked without end.
            raise sqlite3.DatabaseError("the file is no index any more") from None
        self._sqlite_waits = True
        self._db.execute("PRAGMA synchronous = OFF")

    def _choose_journal(self) -> bool:
        """Set the journal mode; return whether it is a WAL, whose shared memory is mapped. The file remembers a WAL."""
        if self.path == ":memory:":
            return True
        try:
            is_new = os.stat(self.path).st_size == 0
        except FileNotFoundError:  # another process has just deleted a damaged one
            is_new = True
        if has_small_blocks(self.path) or (is_new and copies_on_write(self.path)):
            mode = "TRUNCATE"
        else:
            now = "WAL" if is_new else self.db.execute("PRAGMA journal_mode").fetchone()[0]
            mode = "WAL" if now.upper() == "WAL" else "TRUNCATE"
        [answer] = self.db.execute(f"PRAGMA journal_mode = {mode}").fetchone()
        return bool(answer == "wal")

    def _is_without_wal(self) -> bool:
        """Whether the file may be a good index without a WAL, by its size and by what lies beside it.

        The file itself must not be opened: when a process closes a file, it loses all its locks on that file.
        """
        try:
            size = os.stat(self.path).st_size
        except OSError:
            return False
        return size > 0 and size % PAGE == 0 and not os.path.exists(f"{self.path}-wal")

    def _make_file(self) -> None:
        """Create the file, if there is none.

        Raises:
            sqlite3.DatabaseError: the path leads to another file, or has become a second name of one. SQLite would
                write into that file.
            sqlite3.OperationalError: the disk refused.
        """
        try:
            os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        except FileExistsError:
            with suppress(FileNotFoundError):  # another process has just deleted a damaged one
                if not _is_single_file(os.lstat(self.path)):
                    raise sqlite3.DatabaseError("the file is a link") from None
        except OSError as error:
            raise sqlite3.OperationalError(f"cannot make the file: {error.strerror}") from None

    def _create(self) -> None:
        """Create the tables, dropping those of another version."""
        db = self.db
        if self.meta("schema") not in (None, INDEX_SCHEMA):
            db.execute("BEGIN IMMEDIATE")
            schema.drop(db)
            db.execute("COMMIT")
        db.executescript("BEGIN IMMEDIATE;" + schema.tables() + schema.UNIQUE + schema.indexes() + "COMMIT;")

    def _start_over(self) -> None:
        """Replace a damaged file by a new one. Processes that have the old one open notice by its inode."""
        self.close()
        for suffix in ("-journal", "-wal", "-shm", ""):
            try:
                os.unlink(self.path + suffix)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise sqlite3.OperationalError(f"cannot delete the file: {error.strerror}") from None
        self._connect()
        self._create()

    def use_memory(self) -> None:
        """Go on without a file, for this process alone: the disk is read-only or full."""
        self.use_file(":memory:")

    def use_file(self, path: str) -> None:
        """Close the index and use another file from the next `open` on."""
        self.close()
        self.path, self.broken = path, None

    def close(self) -> None:
        """Close the connection."""
        if self._db is not None:
            with suppress(sqlite3.Error):
                self._db.close()
            self._db = None

    def __del__(self) -> None:
        """Close the connection of a program that has forgotten to. From Python 3.13 on, SQLite's module warns else."""
        self.close()

    def leave_to_parent(self) -> None:
        """Give the connection up without closing it: this process is a fork of the one that opened it.

        SQLite forbids both to use and to close a connection that was carried over a fork.
        """
        if self._db is not None:
            _inherited.append(self._db)
            self._db = None

    # -- checking --------------------------------------------------------------------------------------------------

    def meta(self, key: str) -> Any:
        """Return what the index notes about itself under this key, or None."""
        try:
            row = self.db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        except sqlite3.OperationalError as error:
            if "no such table" in str(error):
                return None
            raise
        return row[0] if row else None

    def _is_trusted(self) -> bool:
        try:
            found = self.db.execute("SELECT key, value FROM meta WHERE key IN ('boot', 'schema')").fetchall()
        except sqlite3.OperationalError as error:
            if "no such table" in str(error):
                return False
            raise
        return dict(found) == {"boot": self.boot, "schema": INDEX_SCHEMA}

    def _file_inode(self) -> int:
        """Return the file's inode: 0 for memory, -1 if the file is gone, is a link, or does not end at a page.

        SQLite would read the missing part of a page as zeros.
        """
        if self.path == ":memory:":
            return 0
        try:
            status = os.lstat(self.path)
        except OSError:
            return -1
        return status.st_ino if _is_single_file(status) and status.st_size % PAGE == 0 else -1

    def _is_same_file(self) -> bool:
        """Return whether the open file is still the one at `path`: writes into a deleted file vanish without an error."""
        return self._inode == self._file_inode()

    @property
    def inode(self) -> int:
        """The inode of the file that was opened last; 0 for memory."""
        return self._inode

    @property
    def usable(self) -> bool:
        """Whether the index is open and not broken."""
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

    # -- writing ---------------------------------------------------------------------------------------------------

    def _execute(self, statement: str, values: Iterable[Any] = ()) -> None:
        """Run one statement that writes; a failure is noted in `broken`."""
        try:
            if self.db.in_transaction:
                self.db.execute(statement, tuple(values))
            else:
                with self.write():
                    self.db.execute(statement, tuple(values))
        except sqlite3.Error as error:
            self.broken = str(error)

    @contextmanager
    def write(self) -> Iterator[None]:
        """Run the block in a write transaction, or as a part of the open one.

        The lock is taken at the beginning, so that the transaction never fails half way for want of it.

        Raises:
            sqlite3.Error: the lock cannot be had, or the file was replaced.
        """
        if self.db.in_transaction:
            yield
            return
        if not self._is_same_file():
            raise sqlite3.DatabaseError("the index file was replaced")
        self._take_write_lock()
        try:
            yield
        except BaseException:
            with suppress(sqlite3.Error):
                self.db.execute("ROLLBACK")
            raise
        self._commit()

    def _begin(self) -> bool:
        """Begin a transaction; returns whether it did. A failure is noted in `broken`."""
        if not self.usable:
            return False
        if not self._is_same_file():
            self.broken = "the index file was replaced"
            return False
        try:
            self._take_write_lock()
        except sqlite3.Error as error:
            self.broken = str(error)
        return self.broken is None

    def _end(self, *, commit: bool) -> None:
        """End the transaction that `_begin` began. A failure is noted in `broken`."""
        try:
            if commit and self.broken is None:
                self._commit()
            else:
                self.db.execute("ROLLBACK")
        except sqlite3.Error as error:
            self.broken = str(error)
        if self.broken is None and not self._is_same_file():
            self.broken = "the index file was replaced"

    def _commit(self) -> None:
        """Commit; if that is refused, end the transaction, so that later writes do not become a part of it.

        Raises:
            sqlite3.Error: refused: without a WAL a reader, perhaps a frozen one, keeps others from committing.
        """
        try:
            self.db.execute("COMMIT")
        except sqlite3.Error as error:
            if is_busy(error):
                self.note_wait_in_vain()
            with suppress(sqlite3.Error):
                self.db.execute("ROLLBACK")
            raise

    def _take_write_lock(self) -> None:
        """Begin a write transaction, waiting for the process that writes: usually for a tenth of a millisecond.

        SQLite itself sleeps for a millisecond or more, and two workers met at every fifth job. So SQLite's own waiting is
        switched off here, and every write has to come this way. Without a WAL, readers and commits wait for each other
        as well, and SQLite's waiting stays.
        """
        if self._sqlite_waits and self._maps_memory:
            self.db.execute("PRAGMA busy_timeout = 0")
            self._sqlite_waits = False
        give_up, pause = time.monotonic() + self.patience(), _FIRST_PAUSE
        while True:
            try:
                self.db.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                if not is_busy(error):
                    raise
                if time.monotonic() > give_up:
                    self.note_wait_in_vain()
                    raise
                time.sleep(pause)
                pause = min(pause * 1.5, _LAST_PAUSE)
            else:
                return

    def note_wait_in_vain(self) -> None:
        """Note that another process has been waited for in vain: the next tries need not take as long."""
        self._in_vain_at = time.monotonic()

    def patience(self) -> float:
        """Return for how many seconds to wait for another process now."""
        if time.monotonic() - self._in_vain_at < _FORGET_AFTER:
            return _AGAIN_TIMEOUT
        return WORKER_TIMEOUT if self.for_worker else WRITE_TIMEOUT

    @contextmanager
    def in_bulk(self) -> Iterator[None]:
        """Give SQLite a large cache, so that each page is written once, and switch the garbage collector off.

        Reading a hundred thousand files makes no reference cycles; looking for them took a tenth of the time.
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


def _is_single_file(status: os.stat_result) -> bool:
    """Return whether this is a regular file with one name: `cp -al` gives it a second one in a copy of the spool."""
    return stat.S_ISREG(status.st_mode) and status.st_nlink == 1
