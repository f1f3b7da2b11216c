"""A folder's modification time as of the moment when index and folder were known to agree.

Our own moves carry the stamp along, so a stamp that does not match means that somebody else touched the folder.
"""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import contextmanager

from queuectl import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

YOUNG = 25_000_000
"""Nanoseconds: older kernels stamp files with a clock that ticks every 4 to 10 ms, so a second change within a tick
of the first leaves the same time. A stamp that young is believed only while the folder goes on changing, or where
the clock of files is finer than that."""


class Stamps:
    """The part of the index that knows when to believe itself.

    Args:
        root: the spool's folder.
    """

    def __init__(self, root: str) -> None:
        self._root = root
        self._fine_times: bool | None = None

    @property
    def db(self) -> sqlite3.Connection:
        """The open connection."""
        raise NotImplementedError

    @property
    def usable(self) -> bool:
        """Whether the index is open and nothing has gone wrong with it."""
        raise NotImplementedError

    def _attempt(self, statement: str, values: Iterable[Any] = ()) -> bool:
        raise NotImplementedError

    def _stamp_matches(self, place: str) -> bool:
        try:
            found = self.db.execute("SELECT mtime, inode FROM folders WHERE place = ?", (place,)).fetchone()
            status = os.stat(os.path.join(self._root, place))
        except (sqlite3.Error, OSError):
            return False
        return bool(found == (status.st_mtime_ns, status.st_ino))

    @contextmanager
    def carrying(self, place: str) -> Iterator[None]:
        """Wrap a single rename within a transaction: the closest look at a folder's time before and after it.

        What a stranger drops between the two looks goes unnoticed until the next scan, so they stand close together.
        """
        carried = self.usable and self._stamp_matches(place)
        yield
        if carried:
            self._carry_stamps((place,))

    def _carry_stamps(self, places: Iterable[str]) -> None:
        for place in places:
            mtime = os.stat(os.path.join(self._root, place)).st_mtime_ns
            self._attempt(
                "UPDATE folders SET mtime = ?, stamped = ? WHERE place = ?", (mtime, time.time_ns(), place)
            )

    def agrees(self, place: str, now_ns: int, *, whole: bool = True) -> bool:
        """Whether nobody but us has touched the folder since the index last agreed with it.

        Args:
            whole: False: it is enough that every file has its row, even if a row has lost its file.
        """
        query = "SELECT mtime, inode, stamped, whole FROM folders WHERE place = ?"
        found = self.db.execute(query, (place,)).fetchone()
        try:
            status = os.stat(os.path.join(self._root, place))
        except OSError:
            return False
        if found is None or (found[3] or 0) < 1 + whole or found[:2] != (status.st_mtime_ns, status.st_ino):
            return False
        was_young = found[2] - found[0] < YOUNG
        return not was_young or now_ns - status.st_mtime_ns < YOUNG or self._has_fine_times()

    def _has_fine_times(self) -> bool:
        if self._fine_times is None:
            self._fine_times = files.has_fine_times(os.path.join(self._root, "tmp"))
        return self._fine_times

    def begin_scan(self, place: str, scan: str) -> None:
        """Stamp a folder for a scan that begins; our moves carry the stamp along, a stranger's change leaves it."""
        status = os.stat(os.path.join(self._root, place))
        self.db.execute(
            "INSERT OR REPLACE INTO folders VALUES (?, ?, ?, ?, ?, 0)",
            (place, status.st_mtime_ns, status.st_ino, time.time_ns(), scan),
        )

    def distrust(self, place: str) -> None:
        """Have a folder scanned although its time may match: the index is known to be wrong about it."""
        self._attempt("UPDATE folders SET whole = 0, scan = NULL WHERE place = ?", (place,))

    def end_scan(self, place: str, scan: str, *, whole: bool = True) -> None:
        """Believe the stamp from now on, if no other scan has begun; it stays unmatched if a stranger came between."""
        self.db.execute(
            "UPDATE folders SET whole = ?, stamped = ? WHERE place = ? AND scan = ?",
            (1 + whole, time.time_ns(), place, scan),
        )
