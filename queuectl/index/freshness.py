"""A folder's modification time as of the moment when index and folder were known to agree.

Our own moves carry the stamp along, so a stamp that does not match means that somebody else touched the folder.
"""

from __future__ import annotations

import os
import sqlite3
import time

from queuectl.system import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from queuectl.index.database import IndexFile

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

    def carrying(self, place: str) -> Carried:
        """Wrap a single rename within a transaction: the closest look at a folder's time before and after it.

        What a stranger drops between the two looks goes unnoticed until the next scan, so they stand close together.
        """
        return Carried(self, place)

    def look(self, place: str) -> tuple[int, int] | None:
        """The time and the inode of a folder as it is now, for carry(); None when it cannot be had."""
        try:
            status = os.stat(f"{self._root}{os.sep}{place}")
        except OSError:
            return None
        return status.st_mtime_ns, status.st_ino

    def carry(self, place: str, before: tuple[int, int] | None) -> None:
        """After a move of ours: take over the folder's new time, if the one looked at before it was the known one."""
        after = self.look(place) if before else None
        if before and after:
            self._attempt(
                "UPDATE folders SET mtime = ?, stamped = ? WHERE place = ? AND mtime = ? AND inode = ?",
                (after[0], time.time_ns(), place, *before),
            )

    def meta(self, key: str) -> Any:
        """What the index notes about itself, or None."""
        try:
            row = self.db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        except sqlite3.OperationalError as error:
            if "no such table" in str(error):
                return None
            raise
        return row[0] if row else None

    def agrees(self, place: str, now_ns: int, *, whole: bool = True) -> bool:
        """Whether nobody but us has touched the folder since the index last agreed with it.

        Args:
            whole: False: it is enough that every file has its row, even if a row has lost its file.
        """
        query = "SELECT mtime, inode, stamped, whole FROM folders WHERE place = ?"
        found = self.db.execute(query, (place,)).fetchone()
        if found is None or (found[3] or 0) < 1 + whole or found[:2] != self.look(place):
            return False
        mtime, _, stamped, _ = found
        return stamped - mtime >= YOUNG or now_ns - mtime < YOUNG or self._has_fine_times()

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


class Carried:
    """See Stamps.carrying."""

    __slots__ = ("_before", "_place", "_stamps")

    def __init__(self, stamps: Stamps, place: str) -> None:
        self._stamps = stamps
        self._place = place

    def __enter__(self) -> None:
        self._before = self._stamps.look(self._place) if self._stamps.usable else None

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None and self._stamps.usable:
            self._stamps.carry(self._place, self._before)


class Moving:
    """See Index.moving. A class, as a generator would cost more than what it wraps."""

    __slots__ = ("_before", "_begun", "_index", "_places")

    def __init__(self, index: IndexFile, places: tuple[str, ...]) -> None:
        self._index = index
        self._places = places
        self._before: list[tuple[int, int] | None] = []

    def __enter__(self) -> None:
        self._begun = self._index.begin_moving(self._places)
        if self._index.in_transaction:
            self._before = [self._index.look(place) for place in self._places]

    def __exit__(self, kind: object, *_: object) -> None:
        index = self._index
        if kind is None and index.broken is None:
            for place, before in zip(self._places, self._before, strict=False):
                index.carry(place, before)
        if self._begun:
            index.end_moving(well=kind is None)
