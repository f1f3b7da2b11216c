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
from typing import TYPE_CHECKING, Any, cast

import orjson

from queuectl import claims, files, ids, spares
from queuectl.errors import SpoolError
from queuectl.foreign import Found, explanation, is_job_name
from queuectl.layout import DEAD, DONE, PENDING
from queuectl.plain import dataclass
from queuectl.reader import Reader
from queuectl.row import RENEWED, Row, accept_as_indexed, invalid_row, is_file_of, micros
from queuectl.second_core import in_two

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from queuectl.config import Settings
    from queuectl.index import Index
    from queuectl.job import Job
    from queuectl.layout import Layout
    from queuectl.moves import Mover

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
        self._left_dead: dict[str, Row] = {}
        self.fault: OSError | None = None
        self._reader = Reader(layout.root)

    # -- whole passes ----------------------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Make the index agree with every folder that somebody else has touched since it last did.

        Where no index can be kept, on a full or read-only disk, one in memory serves this process.

        Raises:
            SpoolError: the folders cannot be read.
        """
        self.fault = None
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
        claims.mirror(self.layout, self.index, self.mover.now())
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
            spares.restore(self.layout, self.index.boot)
        with self.index.write():
            if not trusted and self.index.open():
                return sum(self.index.counts().values())  # another process has just done it
            self.index.forget_all()
            claims.mirror(self.layout, self.index, self.mover.now())
            for place in _ORDER:
                self._scan_all(place)
            self.index.finish_rebuild()
            return sum(self.index.counts().values())

    def pending_agrees(self) -> bool:
        """Whether pending/ holds nothing that the index does not know."""
        return self.unfinished == 0 and self.index.agrees(PENDING, time.time_ns(), whole=False)

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
            whole = present == self.index.count_at(place)
            if thorough and not whole:
                yield from self._drop_vanished(place)
                whole = True
            if place == PENDING:
                self.unfinished = unfinished
            if stamped and not unfinished:
                with self.index.write():
                    self.index.end_scan(place, scan, whole=whole)
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
        known = {} if empty else self.index.inodes_at(place, list(names))
        changed = [name for name, inode in names.items() if known.get(name, inode) != inode]
        new = [name for name in names if name not in known]
        if new or changed:
            self._reader.begin(micros(self.mover.now()), self._settings())
        read = in_two(lambda some: self._reader.rows(place, some, self._left_dead), new)
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
                there = self.index.inodes_at(place, new)
                odd = [name for *_, name, values in made if values is None or name not in there]
            present += len(new) - len(odd)
            for name in changed + odd:
                what = self._reader.read(place, f"{folder}{os.sep}{name}")
                verdict = self._take(place, name, what)
                if isinstance(verdict, str):
                    buried.append((name, verdict, what.status))
                    continue
                looked_at.append(name)
                unfinished += verdict is _UNFINISHED
            present += len(self.index.inodes_at(place, looked_at))
        for name, reason, status in buried:
            self._bury(os.path.join(folder, name), reason, status)
        self.taken += present - known_before + len(buried)
        return present, unfinished

    @property
    def usual_priority(self) -> int:
        """The priority of a job that names none."""
        return self._settings().priority

    def take_named(self, names: list[str]) -> None:
        """Take in these files of pending/, as far as they are new, or are other files than those that were known."""
        known = self.index.at(PENDING, names)
        odd = [name for name in names if name not in known or not self._unchanged(known[name])]
        self.looked += len(names)
        if odd:
            self._put_in(self._begin(PENDING, dict.fromkeys(odd, -1), empty=not known))

    def edits(self) -> Iterator[None]:
        """Look for waiting files that were edited in place, a chunk at each step: no folder's time tells of them."""
        after = ""
        while page := self.index.all_at(PENDING, after, CHUNK):
            after = page[-1][1]
            self.freshen(list(self.index.at(PENDING, [name for _, name in page]).values()))
            yield

    def _unchanged(self, row: Row) -> bool:
        try:
            status = os.lstat(f"{self.layout.root}{os.sep}{row.place}{os.sep}{row.name}")
        except OSError:
            return False
        return is_file_of(row, status)

    def freshen(self, rows: list[Row]) -> bool:
        """Look whether files of these waiting jobs were edited in place; True when any row changed."""
        stale = [row.name for row in rows if row.place == PENDING and not self._unchanged(row)]
        for start in range(0, len(stale), CHUNK):
            part = stale[start : start + CHUNK]
            self._put_in(self._begin(PENDING, dict.fromkeys(part, -1)))
        return bool(stale)

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
                    self._left_dead |= {
                        row.id: row for row in self.index.at(place, [n for _, n in gone]).values()
                    }
                with self.index.write():
                    for job_id, name in gone:
                        self.index.drop_if_at(job_id, place, name)
                        if place == DEAD:
                            self._drop_reason(name)
            after = page[-1][1]
            yield

    def _drop_reason(self, name: str) -> None:
        """Delete the reason that lay beside a file which has left dead/."""
        with suppress(OSError):
            os.unlink(os.path.join(self.layout.dead, f"{name}.reason"))

    # -- one file --------------------------------------------------------------------------------------------------

    def _take(self, place: str, name: str, found: Found) -> object:
        """Put one file into the index; returns a reason when it has to be buried, or _UNFINISHED."""
        if found.gone:
            self.fault = found.fault or self.fault
            return _UNFINISHED if found.reason else None
        if found.job is None:
            if place == PENDING:
                return _UNFINISHED if found.may_grow else found.reason
            self._take_invalid(place, name, found)
            return None
        job = found.job
        path = os.path.join(self.layout.root, place, name)
        reason = self._name_it(job, place, name, path)
        if reason:
            if place == PENDING:
                return reason
            self._take_twin(place, name, found, reason)
            return None
        old = self.index.get(job.id or "")
        # Moved back by hand. A job that was given up by hand does not say so itself: its very file lay in dead/.
        lay_dead = old if old is not None and old.place == DEAD else self._left_dead.get(job.id or "")
        was_given_up = (
            lay_dead is not None and found.status is not None and is_file_of(lay_dead, found.status)
        )
        if place == PENDING and (job.state in ("completed", "dead") or was_given_up):
            job.renew(found.arrived / 1e6)
        if place == PENDING and old is lay_dead is None and _is_new_with_key(job):
            reason = self.mover.keys.judge_drop(job, found.arrived)
            if reason:
                return reason
        edited = old is not None and old.place == place == PENDING and old.name == name
        if old is not None and edited:
            if not old.held:  # who changes a job keeps its place in the line; one that was held had none
                found.arrived = old.arrived
            accept_as_indexed(job, old)
        row = self._reader.row(place, name, job, found, job.id or "")
        if place == PENDING and was_given_up:
            settings = {**orjson.loads(row.settings or "{}"), RENEWED: job.runs}
            row.settings = orjson.dumps(settings).decode()
        if old is not None and edited:
            row.settings = old.settings or row.settings
        elif old is not None:
            row.seq = self.index.next_seq()
            if old.place == DEAD != place:
                self._drop_reason(old.name)
        self.index.put(row)
        return None

    def _name_it(self, job: Job, place: str, name: str, path: str) -> str | None:
        """Give the job its id; returns a reason when the id it asks for belongs to another job."""
        stem = name[: -len(".json")]
        if job.id is None:
            known = self.index.at(place, [name]).get(name)
            if known is not None:
                job.id = known.id
            elif ids.is_id(stem) and self.mover.state_of(stem, but=path) is None:
                job.id = stem
            else:
                job.id = ids.new_id(self.mover.now())
            return None
        taken = self.mover.state_of(job.id, but=path)
        if taken == "processing":
            if claims.is_continued(self.layout, job):
                return None
            # The claim of its own earlier copy may have gone between the two looks; no other job is in its way then.
            taken = self.mover.state_of(job.id, but=path)
        return f"duplicate id: {job.id!r} is the id of another job, which is {taken}" if taken else None

    def _take_invalid(self, place: str, name: str, found: Found) -> None:
        """A file in done/ or dead/ that is no job: dead ones are listed with their reason, others are left alone."""
        if place != DEAD or found.status is None:
            return
        path = os.path.join(self.layout.dead, name)
        reason = explanation(path, found.status) or found.reason
        self._put_invalid(name, found, reason)

    def _take_twin(self, place: str, name: str, found: Found, reason: str) -> None:
        if place == DEAD:
            self._put_invalid(name, found, reason)

    def _put_invalid(self, name: str, found: Found, reason: str) -> None:
        status = cast("os.stat_result", found.status)
        known = self.index.at(DEAD, [name]).get(name)
        job_id = known.id if known else self._free_id(name, os.path.join(self.layout.dead, name))
        self.index.put(invalid_row(job_id, name, status, reason))

    def _free_id(self, name: str, path: str) -> str:
        stem = name.rpartition(".")[0]
        if ids.is_id(stem) and self.mover.state_of(stem, but=path) is None:
            return stem
        return ids.new_id(self.mover.now())

    def _bury(self, path: str, reason: str, status: os.stat_result | None) -> None:
        job_id = self._free_id(os.path.basename(path), path)
        try:
            self.mover.bury_file(path, job_id, reason, judged=status)
        except OSError:
            # It stays where it is: on a read-only disk the next best is to tell the truth about it.
            with suppress(OSError):
                row = invalid_row(job_id, os.path.basename(path), os.lstat(path), reason)
                row.place = PENDING
                with self.index.write():
                    self.index.put(row)


_UNFINISHED = object()


def _is_new_with_key(job: Job) -> bool:
    """Whether a file is a producer's that has a unique key, and not what queuectl wrote, or a person put back."""
    return job.unique is not None and job.created_at is job.updated_at is None
