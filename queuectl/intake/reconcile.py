"""From a foreign file to a job, or to dead/ with a reason; and the scan that makes index and folders agree.

A scan compares names and inodes, and reads only what is new. Where the folder's stamp still holds there is nothing
to compare. A file that is not complete yet is left alone and looked at again.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections import deque
from contextlib import suppress
from itertools import islice
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from queuectl._dataclasses import dataclass
from queuectl.errors import SpoolError
from queuectl.index.row import row_of
from queuectl.intake.admission import UNFINISHED, Admission
from queuectl.intake.dropped_file import read_foreign
from queuectl.intake.reader import Reader
from queuectl.job.times import micros
from queuectl.layout import DEAD, DONE, PENDING, PROCESSING, is_job_name
from queuectl.storage import claims, power_loss
from queuectl.system import files
from queuectl.system.fork import in_two

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from queuectl.config.settings import Settings
    from queuectl.index.index import Index
    from queuectl.index.row import Row
    from queuectl.layout import Layout
    from queuectl.storage.mover import Mover

_ALL = 1 << 30

CHUNK = 500
"""Names compared, and files taken in, per transaction of a worker: some 20 ms, in which no other can claim."""

LARGE_CHUNK = 20_000
"""The same where nobody waits for us: half the time in all, as neighbours in the index are written once."""

SORTED = 100_000
"""Names that are brought into the order of their inodes before they are read: some 25 MB."""

_ORDER = (DONE, DEAD, PENDING)
"""pending/ comes last: whether an id is taken is known only once the other folders have been read."""


@dataclass(slots=True)
class _Part:
    """Names of a folder that are being compared with the index.

    `new`: those that it does not know, `changed`: those that are other files now; `read` gives what was read of the new.
    """

    place: str
    size: int
    new: list[str]
    changed: list[str]
    read: Callable[[], list[Any]]


class Intake:
    """Takes foreign files in and keeps the mirror right, for one spool.

    Args:
        settings: gives the settings in force, which are copied onto a job when it is accepted.
        report: called with the number of files looked at so far, for a progress bar.
    """

    def __init__(
        self,
        layout: Layout,
        index: Index,
        mover: Mover,
        settings: Callable[[], Settings],
        report: Callable[[int], None] | None = None,
    ) -> None:
        self.layout = layout
        self.index = index
        self.mover = mover
        self.unfinished = self.looked = self.taken = 0
        self._settings = settings
        self.report = report
        self._reader = Reader(layout.root)
        self._admission = Admission(layout, index, mover, self._reader)

    # -- whole passes ----------------------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Make the index agree with every folder that somebody else has touched since it last did.

        Where no index can be kept, on a full or read-only disk, one in memory serves this process.

        Raises:
            SpoolError: the folders cannot be read.
        """
        self._admission.fault = None
        try:
            self._refresh()
        except sqlite3.Error as error:
            self.index.broken = str(error)
            try:
                self._refresh()
            except sqlite3.Error:
                self.index.use_memory()
                self._refresh()

    def _refresh(self) -> None:
        if not self.index.open():
            self.rebuild()
            return
        mirror_claims(self.layout, self.index, self.mover.now())
        for place in _ORDER:
            if not self.index.agrees(place, time.time_ns()):
                self._scan_all(place)

    def _scan_all(self, place: str) -> None:
        """Scan in one go."""
        with self.index.in_bulk():
            deque(self.scan(place, chunk=LARGE_CHUNK), maxlen=0)

    def rebuild(self) -> int:
        """Make the index anew out of the folders; returns the number of jobs found.

        In one transaction: whoever looks meanwhile sees the old index or waits, never half of a new one.
        """
        trusted = self.index.open()
        with suppress(OSError):  # a read-only disk keeps what a power cut left as it is
            power_loss.restore(self.layout, self.index.boot)
        with self.index.write():
            if not trusted and self.index.open():
                return sum(self.index.counts().values())  # another process has just done it
            self.index.begin_rebuild()
            mirror_claims(self.layout, self.index, self.mover.now())
            for place in _ORDER:
                self._scan_all(place)
            self.index.finish_rebuild()
            return sum(self.index.counts().values())

    @property
    def fault(self) -> OSError | None:
        """Why a file could not be read since the last refresh."""
        return self._admission.fault

    def pending_agrees(self) -> bool:
        """Whether pending/ holds nothing that the index does not know."""
        return self.unfinished == 0 and self.index.agrees(PENDING, time.time_ns(), exact=False)

    # -- one folder ------------------------------------------------------------------------------------------------

    def scan(
        self, place: str, *, chunk: int = CHUNK, thorough: bool = True, stamped: bool = True
    ) -> Iterator[None]:
        """Compare one folder with the index, a chunk of names at each step.

        Args:
            stamped: False: a look out of caution, which leaves what is believed of the folder as it is.
            thorough: look for rows whose file is gone, too. A busy worker leaves that to the next who asks: every
                claim between two chunks looks like one, and a claim itself finds out what is gone.
        """
        scan = files.token()
        folder = os.path.join(self.layout.root, place)
        unfinished = 0
        try:
            if stamped:
                with self.index.write():
                    self.index.begin_scan(place, scan)
            present = 0
            empty = not self.index.count_at(place)
            for part in self._parts(place, folder, chunk, empty=empty):
                in_rows, incomplete = self._put_in(part)
                present += in_rows
                unfinished += incomplete
                self.looked += part.size
                if self.report:
                    self.report(self.looked)
                yield
            exact = present == self.index.count_at(place)
            if thorough and not exact:
                yield from self._drop_vanished(place)
                exact = True
            if place == PENDING:
                self.unfinished = unfinished
            if stamped and not unfinished:
                with self.index.write():
                    self.index.end_scan(place, scan, exact=exact)
        except FileNotFoundError:
            self.layout.create()
        except OSError as error:
            raise SpoolError.from_os("read", folder, error) from None

    def _parts(self, place: str, folder: str, size: int, *, empty: bool) -> Iterator[_Part]:
        """A folder in parts. Where nobody waits for us, the next one is read while this one is put in."""
        begun: deque[_Part] = deque()
        ahead = int(size >= LARGE_CHUNK)
        try:
            for names in self._chunks(folder, size):
                begun.append(self._begin(place, names, empty=empty))
                if len(begun) > ahead:
                    yield begun.popleft()
            while begun:
                yield begun.popleft()
        finally:
            for part in begun:
                part.read()  # or the copy that reads it would be left behind

    def _chunks(self, folder: str, size: int) -> Iterator[dict[str, int]]:
        """The names of a folder that can be jobs, with their inodes."""
        with os.scandir(folder) as entries:
            found = ((entry.name, entry.inode()) for entry in entries if is_job_name(entry.name))
            # Inodes lie beside each other on the disk, names come in the order of a hash.
            at_once = size if size < LARGE_CHUNK else SORTED
            while many := sorted(islice(found, at_once), key=itemgetter(1)):
                for start in range(0, len(many), size):
                    yield dict(many[start : start + size])

    def _begin(self, place: str, names: dict[str, int], *, empty: bool = False) -> _Part:
        """See what is new of these names, and begin to read it.

        Args:
            empty: the index knows of none of them.
        """
        known = {} if empty else self.index.marks_of(place, list(names))
        changed = [name for name, inode in names.items() if name in known and known[name][0] != inode]
        new = [name for name in names if name not in known]
        if new or changed:
            self._reader.begin(micros(self.mover.now()), self._settings())
        read = in_two(lambda some: self._reader.rows(place, some, self._admission.left_dead), new)
        return _Part(place, len(names), new, changed, read)

    def _put_in(self, part: _Part) -> tuple[int, int]:
        """Take in what is new of a part; returns how many of its files have a row now, and how many are not complete."""
        place, new, changed = part.place, part.new, part.changed
        present = part.size - len(new) - len(changed)
        if not new and not changed:
            return present, 0
        known_before = present
        folder = os.path.join(self.layout.root, place)
        made = part.read()
        made.sort(key=itemgetter(slice(4)))
        unfinished = 0
        buried, looked_at = [], []
        with self.index.write():
            rows = [values for *_, values in made if values]
            odd = []
            if self.index.insert_new(rows) < len(new):
                there = self.index.marks_of(place, new)
                odd = [name for *_, name, values in made if values is None or name not in there]
            present += len(new) - len(odd)
            for name in changed + odd:
                what = self._reader.read(place, f"{folder}{os.sep}{name}")
                verdict = self._admission.take(place, name, what)
                if isinstance(verdict, str):
                    buried.append((name, verdict, what.status))
                    continue
                looked_at.append(name)
                unfinished += verdict is UNFINISHED
            present += len(self.index.marks_of(place, looked_at))
        for name, reason, status in buried:
            self._admission.bury(f"{folder}{os.sep}{name}", reason, status)
        self.taken += present - known_before + len(buried)
        return present, unfinished

    @property
    def usual_priority(self) -> int:
        """The priority of a job that names none."""
        return self._settings().priority

    def take_named(self, names: list[str]) -> None:
        """Take in these files of pending/, as far as they are new, or are other files than those that were known."""
        known = self.index.marks_of(PENDING, names)
        self.looked += len(names)
        self._look_again(
            [name for name in names if name not in known or self._mark(name) != known[name]], new=not known
        )

    def edits(self) -> Iterator[None]:
        """Look for waiting files that were edited in place, a chunk at each step: no folder's time tells of them."""
        after = ""
        while page := self.index.marks_at(PENDING, after, CHUNK):
            self._look_again([name for name, mark in page.items() if self._mark(name) != mark])
            after = next(reversed(page))
            yield

    def freshen(self, rows: list[Row]) -> bool:
        """Look whether files of these waiting jobs were edited in place; True when any row changed."""
        marks = {row.name: (row.inode, row.mtime, row.size) for row in rows if row.place == PENDING}
        stale = [name for name, mark in marks.items() if self._mark(name) != mark]
        for start in range(0, len(stale), CHUNK):
            self._look_again(stale[start : start + CHUNK])
        return bool(stale)

    def _look_again(self, names: list[str], *, new: bool = False) -> None:
        """Read these waiting files; `new`: the index knows of none of them."""
        if names:
            self._put_in(self._begin(PENDING, dict.fromkeys(names, -1), empty=new))

    def _mark(self, name: str) -> files.Fingerprint | None:
        try:
            return files.fingerprint(os.lstat(f"{self.layout.pending}{os.sep}{name}"))
        except OSError:
            return None

    def _drop_vanished(self, place: str) -> Iterator[None]:
        """Forget the rows whose file is gone: deleted by hand, or moved to a folder whose scan will find it."""
        after = ""
        while page := self.index.all_at(place, after, CHUNK):
            gone = [
                (job_id, name)
                for job_id, name in page
                if not os.path.lexists(os.path.join(self.layout.root, place, name))
            ]
            if gone:
                if place == DEAD:
                    self._admission.left_dead |= {
                        row.id: row for row in self.index.at(place, [n for _, n in gone]).values()
                    }
                with self.index.write():
                    for job_id, name in gone:
                        self.index.drop_if_at(job_id, place, name)
                        if place == DEAD:
                            self._admission.drop_reason(name)
            after = page[-1][1]
            yield


def mirror_claims(layout: Layout, index: Index, now: float) -> None:
    """Make the index agree with the workers' folders. They hold a job each, so they are simply read."""
    here = {f"{PROCESSING}/{worker}": set(names) for worker, names in claims.by_worker(layout).items()}
    known: dict[str, set[str]] = {place: set() for place in here} | {
        place: {name for _, name in index.all_at(place, "", _ALL)} for place in index.claim_places()
    }
    for place, names in known.items():
        for name in here.get(place, set()) - names:
            _add(layout, index, place, name, now)
        for name in names - here.get(place, set()):
            if os.path.lexists(os.path.join(layout.root, place, name)):
                continue  # claimed since the folder was listed
            with index.write():
                index.drop_if_at(name.removesuffix(".json"), place, name)


def _add(layout: Layout, index: Index, place: str, name: str, now: float) -> None:
    found = read_foreign(os.path.join(layout.root, place, name), micros(now), 0)
    if found.job is None or found.status is None:
        return
    found.job.id = name.removesuffix(".json")
    if found.job.state in ("completed", "dead"):
        found.job.renew(found.arrived / 1e6)  # put back by hand, and claimed as it was
    found.job.worker = place.rpartition("/")[2]
    row = row_of(
        found.job, place, name, found.status, state="processing", arrived=found.arrived, now=micros(now)
    )
    with index.write():
        old = index.get(row.id)
        # A copy left behind by a crash in mid-settle does not hide where the job really is.
        if old is None or not _exists(layout, old):
            index.put(row)


def _exists(layout: Layout, row: Row) -> bool:
    return os.path.lexists(os.path.join(layout.root, row.place, row.name))
