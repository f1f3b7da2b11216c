"""Whether the index may be believed about a folder: the folder's modification time when both last agreed.

Our own moves update the noted time. A time that does not match means that somebody else has changed the folder.
"""

from __future__ import annotations

import os
import sqlite3
import time

from queuectl.index.database import Database
from queuectl.layout import DEAD, DONE, PENDING
from queuectl.system import file_times

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self


class Freshness(Database):
    """The part of the index that knows which folders it agrees with.

    Args:
        path, boot: see Database.
        root: the spool's folder.
        for_worker: see Database.
    """

    def __init__(self, path: str, root: str, boot: str, *, for_worker: bool = False) -> None:
        super().__init__(path, boot)
        self.for_worker = for_worker
        self._root = root
        self._fine_times: bool | None = None
        # Folders in which we moved files, and the file at `path` may not know it.
        self._unconfirmed: set[str] = set()

    def open(self) -> bool:
        """Open the index, see `Database.open`.

        While we wrote elsewhere, another process may have updated the noted time of a folder past a move of ours. So
        these folders are scanned again.
        """
        trusted = super().open()
        if trusted and self._unconfirmed:
            for place in tuple(self._unconfirmed):
                self.mark_stale(place)
                if self.usable:
                    self._unconfirmed.discard(place)
        return trusted

    def use_file(self, path: str) -> None:
        """Use another file from the next `open` on. It may not know of what was moved meanwhile."""
        super().use_file(path)
        if path != ":memory:":
            self._unconfirmed.update((PENDING, DONE, DEAD))

    def believe(self) -> bool:
        """Return whether the index can be read although a write has just been refused; then `broken` is forgotten.

        What was refused has left nothing: the lock is taken before anything is written.
        """
        try:
            is_good = self._db is not None and self._is_same_file() and self._is_trusted()
        except sqlite3.Error:
            return False
        if is_good:
            self.broken = None
        return is_good

    # -- our own moves ---------------------------------------------------------------------------------------------

    def moving(self, *places: str) -> Moving:
        """Wrap moves of job files: one transaction, in which the noted times of these folders are updated.

        A failure of the index never stops the move: the block runs in any case, and `broken` says what failed. `put`
        and `drop` do nothing then.
        """
        return Moving(self, places)

    def begin_moving(self, places: tuple[str, ...]) -> bool:
        """Begin a transaction for moves unless one is open; returns whether it did."""
        self._unconfirmed.update(places)
        return not self.in_transaction and self._begin()

    def end_moving(self, *, commit: bool) -> None:
        """End the transaction that begin_moving began."""
        self._end(commit=commit)
        if commit and self.broken is None:
            self._unconfirmed.clear()

    def own_change(self, place: str) -> OwnChange:
        """Wrap a rename within a transaction: the change of this folder is ours, and its noted time is updated.

        What others drop between the two looks at the folder goes unnoticed until the next full scan, so the block
        should be as short as possible.
        """
        return OwnChange(self, place)

    def own_changes(self, place: str) -> OwnChanges:
        """Do what `own_change` does for many renames in one transaction. Call `note` of the result at the end."""
        self._unconfirmed.add(place)
        return OwnChanges(self, place)

    def folder_time(self, place: str) -> tuple[int, int] | None:
        """Return the modification time (ns) and the inode of a folder; None if it cannot be read."""
        try:
            status = os.stat(f"{self._root}{os.sep}{place}")
        except OSError:
            return None
        return status.st_mtime_ns, status.st_ino

    def note_own_change(self, place: str, before: tuple[int, int] | None) -> None:
        """After a move of ours, note the folder's new time, if its time before the move was the noted one.

        Args:
            before: what `folder_time` returned before the move.
        """
        after = self.folder_time(place) if before else None
        if before and after:
            self.note_time(place, before, after)

    def note_time(self, place: str, before: tuple[int, int], after: tuple[int, int]) -> None:
        """Note that our moves have taken a folder from one time to another, if the first one is the noted one."""
        self._execute(
            "UPDATE folders SET mtime = ?, stamped = ? WHERE place = ? AND mtime = ? AND inode = ?",
            (after[0], time.time_ns(), place, *before),
        )

    # -- scans -----------------------------------------------------------------------------------------------------

    def agrees(self, place: str, now_ns: int, *, exact: bool = True) -> bool:
        """Return whether nobody but us has changed the folder since the index last agreed with it.

        Args:
            now_ns: the present, in nanoseconds.
            exact: False: it is enough that every file has its row; rows may have lost their file.
        """
        query = "SELECT mtime, inode, stamped, whole FROM folders WHERE place = ?"
        found = self.db.execute(query, (place,)).fetchone()
        if found is None or (found[3] or 0) < 1 + exact or found[:2] != self.folder_time(place):
            return False
        mtime, _, noted_at, _ = found
        if not file_times.may_hide_changes(mtime, noted_at):
            return True
        # A time that was noted so soon after the change is believed only while the folder goes on changing, or where
        # the file system's clock is finer than that.
        if file_times.is_coarse(mtime):
            return False
        return now_ns - mtime < file_times.YOUNG or self._has_fine_times()

    def _has_fine_times(self) -> bool:
        if self.path == ":memory:":
            return False  # the probe would write into a spool in which this process may not, or cannot, write
        if self._fine_times is None:
            self._fine_times = file_times.has_fine_times(os.path.join(self._root, "tmp"))
        return self._fine_times

    def mark_stale(self, place: str) -> None:
        """Have a folder scanned although its time may match: the index is known to be wrong about it."""
        self._execute("UPDATE folders SET whole = 0, scan = NULL WHERE place = ?", (place,))

    def begin_scan(self, place: str, scan: str) -> None:
        """Note a folder's time at the beginning of a scan. Our moves update it, changes of others do not.

        Args:
            scan: a token of this scan.
        """
        status = os.stat(os.path.join(self._root, place))
        self.db.execute(
            "INSERT OR REPLACE INTO folders VALUES (?, ?, ?, ?, ?, 0)",
            (place, status.st_mtime_ns, status.st_ino, time.time_ns(), scan),
        )

    def believe_folder(self, place: str, read: tuple[int, int], since: int) -> bool:
        """Believe a folder that was read without a lock if nobody has changed it since; return whether that is certain.

        Args:
            read: what `folder_time` returned before it was read.
            since: the moment of that, in nanoseconds.
        """
        if self.folder_time(place) != read or file_times.may_hide_changes(read[0], since):
            return False
        self.db.execute("INSERT OR REPLACE INTO folders VALUES (?, ?, ?, ?, NULL, 2)", (place, *read, since))
        return True

    def end_scan(self, place: str, scan: str, *, exact: bool = True) -> None:
        """Believe the noted time from now on, unless another scan has begun.

        Args:
            exact: as for `agrees`.
        """
        self.db.execute(
            "UPDATE folders SET whole = ?, stamped = ? WHERE place = ? AND scan = ?",
            (1 + exact, time.time_ns(), place, scan),
        )


class OwnChange:
    """See Freshness.own_change. A class, because a generator costs more than what it wraps."""

    __slots__ = ("_before", "_index", "_place")

    def __init__(self, index: Freshness, place: str) -> None:
        self._index = index
        self._place = place

    def __enter__(self) -> None:
        self._before = self._index.folder_time(self._place) if self._index.usable else None

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None and self._index.usable:
            self._index.note_own_change(self._place, self._before)


class OwnChanges:
    """See Freshness.own_changes. Wraps one rename after another.

    While nobody else changes the folder, each rename finds it as the one before left it. So the noted time is written
    once, and not at each of them.
    """

    __slots__ = ("_before", "_first", "_index", "_last", "_place")

    def __init__(self, index: Freshness, place: str) -> None:
        self._index, self._place = index, place
        self._before: tuple[int, int] | None = None
        self._first: tuple[int, int] | None = None
        self._last: tuple[int, int] | None = None

    def __enter__(self) -> None:
        self._before = self._index.folder_time(self._place) if self._index.usable else None
        if self._first is None:
            self._first = self._last = self._before

    def __exit__(self, kind: object, *_: object) -> None:
        # A time that is not the last one means that somebody else has changed the folder: it is scanned again.
        if kind is None and self._before and self._before == self._last:
            self._last = self._index.folder_time(self._place)

    def note(self) -> None:
        """Note the folder's time after the last of these renames."""
        if self._first and self._last and self._last != self._first and self._index.usable:
            self._index.note_time(self._place, self._first, self._last)


class Moving:
    """See Freshness.moving. A class, because a generator costs more than what it wraps."""

    __slots__ = ("_before", "_begun", "_index", "_is_over", "_places")

    def __init__(self, index: Freshness, places: tuple[str, ...]) -> None:
        self._index = index
        self._places = places
        self._before: list[tuple[int, int] | None] = []
        self._is_over = False

    def __enter__(self) -> Self:
        self._begun = self._index.begin_moving(self._places)
        if self._index.in_transaction:
            self._before = [self._index.folder_time(place) for place in self._places]
        return self

    def end(self) -> None:
        """Note the times of the folders now: what else the block does moves nothing in them.

        A change by somebody else between the first look and this one goes unnoticed until the folder changes again.
        """
        self._is_over = True
        if self._index.broken is None:
            for place, before in zip(self._places, self._before, strict=False):
                self._index.note_own_change(place, before)

    def __exit__(self, kind: object, *_: object) -> None:
        index = self._index
        if kind is None and not self._is_over:
            self.end()
        if self._begun:
            index.end_moving(commit=kind is None)
