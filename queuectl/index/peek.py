"""Read an index file without changing a byte of the spool: SQLite itself makes two more files beside one that it opens."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from contextlib import suppress
from urllib.parse import quote

from queuectl.index.index import Index
from queuectl.system import file_times

_JOURNALS = ("-wal", "-journal")
"""Files that a killed worker leaves beside the index, by the journal mode."""


class Peek(Index):
    """An index that is only read. See Freshness for the arguments."""

    def __init__(self, path: str, root: str, boot: str) -> None:
        super().__init__(path, root, boot)
        self._fine_times = self._can_find_out() and file_times.has_fine_times(tempfile.gettempdir())
        self._copy: str | None = None

    def _can_find_out(self) -> bool:
        """Whether the folder for temporary files is on the same disk: finding out makes a file, and not in the spool."""
        try:
            return os.stat(self._root).st_dev == os.stat(tempfile.gettempdir()).st_dev
        except OSError:
            return False

    def look(self, *, in_use: bool) -> None:
        """Open the file, if there is one.

        Args:
            in_use: a worker lives, which has the file open and changes it.

        Raises:
            sqlite3.DatabaseError: the file is a link, or is damaged.
            sqlite3.OperationalError: it cannot be read now.
        """
        self.close()
        if not os.path.lexists(self.path):
            return
        inode = self._file_inode()
        if inode < 0:
            raise sqlite3.DatabaseError("the file is a link, has a second name, or was cut short")
        try:
            self._db = self._connection(in_use=in_use)
            self._inode, self.broken = inode, None
            [answer] = self._db.execute("PRAGMA quick_check(1)").fetchone()
        except OSError as error:
            raise sqlite3.OperationalError(str(error)) from None
        if answer != "ok":
            raise sqlite3.DatabaseError(" ".join(answer.split()))
        if not self._is_trusted() or self.meta("inode") not in (None, inode):
            self.close()  # the next command rebuilds it, so it says nothing

    def _connection(self, *, in_use: bool) -> sqlite3.Connection:
        path = self.path
        left = [end for end in _JOURNALS if os.path.exists(path + end) and os.path.getsize(path + end)]
        if in_use:
            options = "mode=ro"  # the files beside it exist already
        elif not left:
            options = "immutable=1"
        else:
            # A worker was killed. Only in a copy can SQLite read the journal that it left without changing it.
            self._copy = tempfile.mkdtemp(prefix="queuectl-")
            path = os.path.join(self._copy, "index")
            shutil.copyfile(self.path, path)
            for end in left:
                shutil.copyfile(self.path + end, path + end)
            options = "mode=rw"
        return sqlite3.connect(
            f"file:{quote(os.fsencode(path))}?{options}", uri=True, timeout=5, isolation_level=None
        )

    def close(self) -> None:
        """Close the connection, and delete the copy if there is one."""
        super().close()
        if self._copy is not None:
            with suppress(OSError):
                shutil.rmtree(self._copy)
            self._copy = None
