"""Makes the index agree with the folders: dropped files become jobs, or go to dead/ with a reason.

A scan compares names and inodes with the index and reads only new files. A folder whose time is the noted one needs no
scan. A file that is not complete yet is left alone and looked at again later.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections import deque
from contextlib import suppress
from itertools import islice
from operator import itemgetter

from queuectl.errors import SpoolError
from queuectl.fast_start.dataclass import dataclass
from queuectl.intake import rebuild
from queuectl.intake.admission import INCOMPLETE, Admission
from queuectl.intake.claims import mirror_claims
from queuectl.intake.loader import Loader
from queuectl.intake.rebuild import LARGE_CHUNK, PLACES
from queuectl.job.times import micros
from queuectl.layout import DEAD, DONE, PENDING, is_job_name
from queuectl.system import files
from queuectl.system.fork import split_work

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from queuectl.config.settings import Settings
    from queuectl.index.index import Index
    from queuectl.index.row import Row
    from queuectl.layout import Layout
    from queuectl.storage.transitions import Storage

CHUNK = 500
"""Names that a worker compares, and files that it takes in, per transaction: about 20 ms in which no other can claim."""

LARGE_FOLDER, LARGE_FOLDER_SIZE = 1_000, 128 << 10
"""Files, and bytes that the folder itself takes, from which on a scan is left to `Intake.refresh_elsewhere`."""

_SORTED = 100_000
"""Names that are sorted by inode before their files are read: about 25 MB of memory."""


@dataclass(slots=True)
class _Part:
    """Some files of a folder, compared with the index.

    Attributes:
        size: how many files were compared.
        new: the names that the index does not know.
        changed: the names that are other files now.
        load: returns what `Loader.load` returns for the new files.
    """

    place: str
    size: int
    new: list[str]
    changed: list[str]
    load: Callable[[], list[Any]]


class Intake:
    """Takes dropped files in and keeps the index of one spool right.

    Args:
        settings: returns the current settings, which are copied onto a job when it is accepted.
        report: called with the number of files compared so far, for a progress bar.

    Attributes:
        unfinished: files in pending/ that the last scan found incomplete.
        compared: files compared so far.
        taken: files taken in so far, as jobs or as dead letters.
        refresh_elsewhere: brings the index up to date and returns when that is done, or raises if it takes long; see
            `SpoolBase.answer_at_once`. What may take long is left to it. None: it is done here, however long it takes.
        keeps_file: never build the index in memory.
    """

    def __init__(
        self,
        layout: Layout,
        index: Index,
        storage: Storage,
        settings: Callable[[], Settings],
        report: Callable[[int], None] | None = None,
    ) -> None:
        self.layout = layout
        self.index = index
        self.storage = storage
        self.unfinished = self.compared = self.taken = 0
        self.settings = settings
        self.report = report
        self.refresh_elsewhere: Callable[[bool], None] | None = None
        self.keeps_file = False
        self.loader = Loader(layout.root)
        self.admission = Admission(layout, index, storage, self.loader)

    # -- all folders -----------------------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Make the index agree with every folder that somebody else has changed.

        If the disk is full or read-only, the index is built in memory for this process.

        Raises:
            SpoolError: the folders cannot be read.
            sqlite3.Error: the index cannot be written, and `keeps_file` is set.
        """
        self.admission.fault = None
        try:
            self._refresh()
        except sqlite3.Error as error:
            self.index.broken = str(error)
            try:
                self._refresh()
            except sqlite3.Error:
                if self.keeps_file:
                    raise
                self.index.use_memory()
                self._refresh()

    def _refresh(self) -> None:
        if not self.index.open():
            if self.refresh_elsewhere is None or self.index.path == ":memory:":
                self.rebuild()
                return
            self.refresh_elsewhere(True)
            if not self.index.open():
                raise sqlite3.OperationalError("the index cannot be made anew")
        self._refuse_broken()
        mirror_claims(self.layout, self.index, self.storage.now(), self.storage.owner)
        for place in PLACES:
            if not self.index.agrees(place, time.time_ns()):
                if self.refresh_elsewhere is not None and self._is_large(place):
                    self.refresh_elsewhere(False)
                    break
                self.scan_all(place)
        self._refuse_broken()

    def _is_large(self, place: str) -> bool:
        """Return whether a scan of this folder may take more than some milliseconds. The size tells of files without rows."""
        counts = self.index.counts()
        rows = {
            DONE: counts["completed"],
            DEAD: counts["dead"],
            PENDING: counts["pending"] + counts["failed"],
        }
        size = 0
        with suppress(OSError):
            size = os.stat(os.path.join(self.layout.root, place)).st_size
        return rows[place] > LARGE_FOLDER or size > LARGE_FOLDER_SIZE

    def _refuse_broken(self) -> None:
        """Let nobody ask an index in which a write has failed: a file that was just moved to dead/ may have no row.

        Raises:
            sqlite3.DatabaseError: a write has failed, and was only noted.
        """
        if self.index.broken is not None:
            raise sqlite3.DatabaseError(self.index.broken)

    def scan_all(self, place: str, *, closely: bool = False) -> None:
        """Scan a folder in one go."""
        with self.index.in_bulk():
            deque(self.scan(place, chunk=LARGE_CHUNK, closely=closely), maxlen=0)

    def rebuild(self) -> int:
        """Rebuild the index from the folders; returns the number of jobs. See `intake.rebuild`.

        Raises:
            sqlite3.Error: the index cannot be written, or another process is rebuilding it for longer than this one may
                wait.
        """
        return rebuild.rebuild(self)

    def rebuild_in_any_case(self) -> int:
        """Rebuild the index, also one that is damaged where it is only seen when it is emptied.

        Raises:
            SpoolError: the disk or the folder refuses it.
        """
        try:
            return self.rebuild()
        except sqlite3.DatabaseError as error:
            self.index.broken = str(error)
        try:
            return self.rebuild()
        except sqlite3.Error as error:
            raise SpoolError(f"cannot make the index {self.index.path} anew: {error}") from None

    @property
    def fault(self) -> OSError | None:
        """The error that kept a file from being read since the last refresh, or None."""
        return self.admission.fault

    def pending_agrees(self) -> bool:
        """Return whether the index knows every file in pending/."""
        return self.unfinished == 0 and self.index.agrees(PENDING, time.time_ns(), exact=False)

    # -- one folder ------------------------------------------------------------------------------------------------

    def scan(
        self,
        place: str,
        *,
        chunk: int = CHUNK,
        find_missing: bool = True,
        note_time: bool = True,
        closely: bool = False,
    ) -> Iterator[None]:
        """Compare one folder with the index, a chunk of names at each step.

        Args:
            chunk: names per step.
            find_missing: look for rows whose file is gone, too. A busy worker leaves this to the next process that
                asks: every claim between two chunks looks like a missing file, and a claim notices a missing file itself.
            note_time: note the folder's time, so that the index may be believed afterwards. False for an extra scan
                as a precaution.
            closely: compare times and sizes too. Rows that were read before this scan may be older than their file, and
                a file that was written anew may have the inode of one before.

        Raises:
            SpoolError: the folder cannot be read.
        """
        scan = files.token()
        folder = os.path.join(self.layout.root, place)
        unfinished = 0
        try:
            if note_time:
                with self.index.write():
                    self.index.begin_scan(place, scan)
            present = 0
            empty = not self.index.count_at(place)
            for part in self._parts(place, folder, chunk, empty=empty, closely=closely):
                in_rows, incomplete = self._take_in(part)
                present += in_rows
                unfinished += incomplete
                self.compared += part.size
                if self.report:
                    self.report(self.compared)
                yield
            exact = present == self.index.count_at(place)
            if find_missing and not exact:
                yield from self._drop_missing(place)
                exact = True
            if place == PENDING:
                self.unfinished = unfinished
            if note_time and not unfinished:
                with self.index.write():
                    self.index.end_scan(place, scan, exact=exact)
        except FileNotFoundError:
            if not self.storage.read_only:  # else a folder that is missing counts as empty
                self.layout.create()
        except OSError as error:
            raise SpoolError.from_os("read", folder, error) from None

    def _parts(self, place: str, folder: str, size: int, *, empty: bool, closely: bool) -> Iterator[_Part]:
        """Yield the parts of a folder. With large chunks the next part is read while the caller handles this one."""
        begun: deque[_Part] = deque()
        ahead = int(size >= LARGE_CHUNK)
        try:
            for names in self.chunks(folder, size):
                begun.append(self._compare(place, names, empty=empty, closely=closely))
                if len(begun) > ahead:
                    yield begun.popleft()
            while begun:
                yield begun.popleft()
        finally:
            for part in begun:
                part.load()  # else the forked copy that reads it would be left behind

    def chunks(self, folder: str, size: int) -> Iterator[dict[str, int]]:
        """Yield the names in a folder that can be jobs, with their inodes."""
        with os.scandir(folder) as entries:
            found = ((entry.name, entry.inode()) for entry in entries if is_job_name(entry.name))
            # Reading in the order of inodes is reading in the order on the disk. scandir gives the order of a hash.
            at_once = size if size < LARGE_CHUNK else _SORTED
            while many := sorted(islice(found, at_once), key=itemgetter(1)):
                for start in range(0, len(many), size):
                    yield dict(many[start : start + size])

    def _compare(
        self, place: str, names: dict[str, int], *, empty: bool = False, closely: bool = False
    ) -> _Part:
        """Compare names with the index and begin to read the new files.

        Args:
            names: with the inode of each; -1 if the file has changed in any case.
            empty: the index knows none of them.
        """
        known = {} if empty else self.index.fingerprints_of(place, list(names))
        changed = [
            name
            for name, inode in names.items()
            if name in known
            and (known[name][0] != inode or (closely and self._fingerprint(name, place) != known[name]))
        ]
        new = [name for name in names if name not in known]
        if new or changed:
            self.loader.owner = self.storage.owner
            self.loader.start(micros(self.storage.now()), self.settings())
        load = split_work(lambda some: self.loader.load(place, some, self.admission.left_dead), new)
        return _Part(place, len(names), new, changed, load)

    def _take_in(self, part: _Part) -> tuple[int, int]:
        """Take in the new files of a part; returns how many of its files have a row now, and how many are incomplete."""
        place, new, changed = part.place, part.new, part.changed
        present = part.size - len(new) - len(changed)
        if not new and not changed:
            return present, 0
        known_before = present
        folder = os.path.join(self.layout.root, place)
        loaded = part.load()
        loaded.sort(key=itemgetter(slice(4)))
        unfinished = 0
        rejected, looked_at = [], []
        with self.index.write():
            rows = [values for *_, values in loaded if values]
            unclear: list[str] = []
            self.admission.first_new = 0 if self.admission.unchecked is not None else self.index.next_seq()
            if self.index.insert_new(rows) < len(new):
                there = self.index.fingerprints_of(place, new)
                unclear = [name for *_, name, values in loaded if values is None or name not in there]
            present += len(new) - len(unclear)
            line = changed + unclear
            for name in line:
                found = self.loader.read(place, f"{folder}{os.sep}{name}")
                verdict = self.admission.admit(place, name, found)
                line += self.admission.displaced
                present -= len(self.admission.displaced)
                self.admission.displaced.clear()
                if isinstance(verdict, str):
                    rejected.append((name, verdict, found.status))
                    continue
                looked_at.append(name)
                unfinished += verdict is INCOMPLETE
            present += len(self.index.fingerprints_of(place, looked_at))
        for name, reason, status in rejected:
            self.admission.move_to_dead(f"{folder}{os.sep}{name}", reason, status)
        self._refuse_broken()
        self.taken += present - known_before + len(rejected)
        return present, unfinished

    @property
    def default_priority(self) -> int:
        """The priority of a job that sets none."""
        return self.settings().priority

    def take_named(self, names: list[str]) -> None:
        """Take in those of these files in pending/ that are new or have changed."""
        known = self.index.fingerprints_of(PENDING, names)
        self.compared += len(names)
        self._read_again(
            [name for name in names if name not in known or self._fingerprint(name) != known[name]],
            new=not known,
        )

    def edits(self) -> Iterator[None]:
        """Look for files in pending/ that were edited in place, a chunk at each step. The folder's time does not show them."""
        after = ""
        while page := self.index.fingerprints_at(PENDING, after, CHUNK):
            self._read_again(
                [name for name, fingerprint in page.items() if self._fingerprint(name) != fingerprint]
            )
            after = next(reversed(page))
            yield

    def freshen(self, rows: list[Row]) -> bool:
        """Look for files of these jobs in pending/ that were edited in place; returns whether any was."""
        known = {row.name: (row.inode, row.mtime, row.size) for row in rows if row.place == PENDING}
        stale = [name for name, fingerprint in known.items() if self._fingerprint(name) != fingerprint]
        for start in range(0, len(stale), CHUNK):
            self._read_again(stale[start : start + CHUNK])
        return bool(stale)

    def _read_again(self, names: list[str], *, new: bool = False) -> None:
        """Read these files in pending/.

        Args:
            new: the index knows none of them.
        """
        if names:
            self._take_in(self._compare(PENDING, dict.fromkeys(names, -1), empty=new))

    def _fingerprint(self, name: str, place: str = PENDING) -> files.Fingerprint | None:
        try:
            return files.fingerprint(os.lstat(f"{self.layout.root}{os.sep}{place}{os.sep}{name}"))
        except OSError:
            return None

    def _drop_missing(self, place: str) -> Iterator[None]:
        """Delete the rows whose file is gone: it was deleted, or moved to a folder whose scan finds it."""
        after = ""
        while page := self.index.all_at(place, after, CHUNK):
            gone = [
                (job_id, name)
                for job_id, name in page
                if not os.path.lexists(os.path.join(self.layout.root, place, name))
            ]
            if gone:
                if place == DEAD:
                    self.admission.left_dead |= {
                        row.id: row for row in self.index.at(place, [n for _, n in gone]).values()
                    }
                with self.index.write():
                    for job_id, name in gone:
                        self.index.drop_if_at(job_id, place, name)
                        if place == DEAD:
                            self.admission.delete_reason(name)
            after = page[-1][1]
            yield
