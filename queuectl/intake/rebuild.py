"""Making the index anew from the folders, while others wait as little as possible.

The files are read first, without the index's lock, and their rows kept aside. Then it is one transaction, so other
processes see the old index until the new one is complete. A folder whose time is still the same is believed. In others
what has changed meanwhile is found by its fingerprint, and read again.

Jobs of dropped files may wait for each other in a ring, so that none could ever start. The admission finds a ring when the
file comes that closes it: the index says who waits for that job. During a rebuild the index does not know that yet. So the
jobs of dropped files are noted, and looked at when it is complete.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections import deque
from contextlib import suppress
from functools import partial
from operator import itemgetter

from queuectl.fast_start.dataclass import dataclass
from queuectl.index import waits
from queuectl.intake.claims import mirror_claims
from queuectl.job.times import micros
from queuectl.layout import DEAD, DONE, PENDING
from queuectl.storage import power_loss
from queuectl.system.fork import split_work
from queuectl.system.locks import Lock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

    from queuectl.index.index import Index
    from queuectl.index.row import Row
    from queuectl.intake.admission import Admission
    from queuectl.intake.reconcile import Intake

LARGE_CHUNK = 20_000
"""Names per step where no worker waits. It halves the time, as neighbouring rows are written together."""

_AT_ONCE, _PASSES, _SHOWN = 100, 10, 20
"""Rings that are looked for together, and how often: doctor finds the rest. How many jobs of one are named."""

PLACES = (DONE, DEAD, PENDING)
"""The order of scans. pending/ comes last: whether an id is taken is known when the other folders have been read."""


def rebuild(intake: Intake) -> int:
    """Rebuild the index from the folders; returns the number of jobs.

    The files are read first, without the index's lock: nobody waits for the reading. After a boot no index can be used;
    then one process rebuilds it, and those that need it wait.

    Raises:
        sqlite3.OperationalError: another process is rebuilding it, and takes longer than this one may wait.
    """
    trusted = intake.index.open()
    turn = None if trusted or intake.index.path == ":memory:" else _take_turn(intake)
    try:
        if turn is not None and intake.index.open():
            return sum(intake.index.counts().values())  # another process has just done it
        if not intake.storage.read_only:
            with suppress(OSError):  # on a read-only disk what a power cut left cannot be restored
                power_loss.restore(intake.layout, intake.index.boot)
        return _rebuild(intake, trusted=trusted)
    finally:
        if turn is not None:
            turn.release()


def _take_turn(intake: Intake) -> Lock | None:
    """Wait until no other process rebuilds the index; returns None where there can be no lock file."""
    try:
        turn = Lock.acquire(
            os.path.join(intake.layout.data, "rebuild.lock"), patience=intake.index.patience()
        )
    except OSError:
        return None
    if turn is None:
        intake.index.note_wait_in_vain()
        raise sqlite3.OperationalError("another process is rebuilding the index")
    return turn


def _rebuild(intake: Intake, *, trusted: bool) -> int:
    ahead = _read_ahead(intake)
    report = intake.report
    try:
        with intake.index.write():
            if not trusted and intake.index.open():
                return sum(intake.index.counts().values())  # another process has just done it
            intake.index.begin_rebuild(ahead=ahead is not None)
            if ahead is not None:
                intake.report = None  # it was told of these files
            mirror_claims(intake.layout, intake.index, intake.storage.now(), intake.storage.owner)
            dropped = intake.admission.unchecked = []
            for place in PLACES:
                if ahead is None or not _is_as_read(intake, place, ahead.get(place)):
                    intake.scan_all(place, closely=ahead is not None)
            intake.index.finish_rebuild()
            intake.admission.unchecked = None
            in_rings = _take_out_of_rings(intake.index, dropped)
            number = sum(intake.index.counts().values())
        _bury(intake.admission, in_rings)
        return number + len(in_rings)
    finally:
        intake.admission.unchecked = None
        intake.report = report
        if ahead is not None:
            intake.index.end_ahead()


@dataclass(frozen=True, slots=True)
class _Read:
    """A folder of which each file was read ahead: its time before that, see `folder_time`, the moment (ns), and the rows."""

    time: tuple[int, int]
    since: int
    rows: int


def _is_as_read(intake: Intake, place: str, read: _Read | None) -> bool:
    """Return whether a second look into this folder would find nothing, and note that it agrees with the index.

    A file that was edited in place meanwhile does not show in the time of its folder. It is found like one that is edited
    later: `Intake.edits`.
    """
    if read is None or intake.index.count_at(place) != read.rows:
        return False
    if not intake.index.believe_folder(place, read.time, read.since):
        return False
    if place == PENDING:
        intake.unfinished = 0
    return True


def _read_ahead(intake: Intake) -> dict[str, _Read] | None:
    """Read the files of all folders without any lock, a batch at a time, and keep the rows of the plain ones.

    Returns:
        the folders in which there were only plain ones; None if it was not possible: the files are read within the
        transaction then.
    """
    if intake.index.path == ":memory:":
        return None  # nobody else waits for it
    intake.loader.owner = intake.storage.owner
    intake.loader.start(micros(intake.storage.now()), intake.settings())
    read = {}
    try:
        intake.index.begin_ahead()
        for place in PLACES:
            since, before = time.time_ns(), intake.index.folder_time(place)
            plain, number = True, 0
            for loaded in _loaded(intake, place):
                rows = [values for *_, values in loaded if values]
                intake.index.put_ahead(rows)
                plain &= len(rows) == len(loaded)
                number += len(rows)
                intake.compared += len(loaded)
                if intake.report:
                    intake.report(intake.compared)
            if before is not None and plain:
                read[place] = _Read(before, since, number)
    except BaseException as error:
        intake.index.end_ahead()  # else its transaction would stay open
        if not isinstance(error, sqlite3.Error | OSError):
            raise
        return None
    return read


def _loaded(intake: Intake, place: str) -> Iterator[list[Any]]:
    """Yield what `Loader.load` returns for the files of a folder. One part is read while the caller handles another."""
    load = partial(intake.loader.load, place, left_dead=intake.admission.left_dead)
    begun: deque[Callable[[], list[Any]]] = deque()
    try:
        for names in intake.chunks(os.path.join(intake.layout.root, place), LARGE_CHUNK):
            begun.append(split_work(load, list(names)))
            if len(begun) > 1:
                yield _in_order(begun.popleft()())
        while begun:
            yield _in_order(begun.popleft()())
    finally:
        for finish in begun:
            finish()  # else the forked copy that reads it would be left behind


def _in_order(loaded: list[Any]) -> list[Any]:
    loaded.sort(key=itemgetter(slice(4)))
    return loaded


def _take_out_of_rings(index: Index, dropped: Sequence[str]) -> list[tuple[Row, str]]:
    """Take out of the index, of each ring, the dropped job that came last; returns their rows with the reasons.

    Call it in a transaction. If the process dies before the files are moved, the next scan finds them again.

    Args:
        dropped: ids of jobs of dropped files, in the order of arrival.
    """
    order = {job_id: place for place, job_id in enumerate(dropped)}
    found: list[tuple[Row, str]] = []
    for _ in range(_PASSES if dropped and index.has_waits() else 0):
        last = [*_last_of_rings(index, order)]
        for job_id, reason in last:
            if row := index.get(job_id):
                index.drop(job_id)
                found.append((row, reason))
        if not last:
            break
    return found


def _last_of_rings(index: Index, order: dict[str, int]) -> Iterator[tuple[str, str]]:
    for ring in waits.rings(index, _AT_ONCE):
        names = [name for name, _ in ring]
        mine = [name for name in names if name in order]
        if mine:
            last = max(mine, key=lambda name: order[name])
            start = names.index(last)
            way = [*names[start:], *names[:start], last]
            if len(way) > _SHOWN:
                way[_SHOWN // 2 : -_SHOWN // 2] = [f"{len(way) - _SHOWN} more"]
            yield last, f"{last} waits for itself: {', '.join(way)}"


def _bury(admission: Admission, taken_out: Sequence[tuple[Row, str]]) -> None:
    """Move the files of these jobs to dead/, with the reasons, unless they have changed since."""
    for row, reason in taken_out:
        path = os.path.join(admission.layout.root, row.place, row.name)
        with suppress(OSError):
            status = os.lstat(path)
            if (status.st_ino, status.st_size) == (row.inode, row.size):
                admission.move_to_dead(path, reason, status)
