"""Making the index anew from the folders, while others wait as little as possible.

The files are read first, without the index's lock, and their rows kept aside. Then it is one transaction, so other
processes see the old index until the new one is complete. What has changed meanwhile is found by its fingerprint, and
read again.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import suppress
from functools import partial
from operator import itemgetter

from queuectl.intake import rings
from queuectl.intake.claims import mirror_claims
from queuectl.job.times import micros
from queuectl.layout import DEAD, DONE, PENDING
from queuectl.storage import power_loss
from queuectl.system.fork import split_work
from queuectl.system.locks import Lock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from queuectl.intake.reconcile import Intake

LARGE_CHUNK = 20_000
"""Names per step where no worker waits. It halves the time, as neighbouring rows are written together."""

PLACES = (DONE, DEAD, PENDING)
"""The order of scans. pending/ comes last: whether an id is taken is known when the other folders have been read."""


def rebuild(intake: Intake) -> int:
    """Rebuild the index from the folders; returns the number of jobs.

    The files are read first, without the index's lock: nobody waits for the reading. Then it is one transaction, so
    other processes see the old index until the new one is complete. What has changed meanwhile is found by its
    fingerprint, and read again. After a boot no index can be used; then one process rebuilds it, and those that
    need it wait.

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
            intake.index.begin_rebuild(ahead=ahead)
            if ahead:
                intake.report = None  # it was told of these files
            mirror_claims(intake.layout, intake.index, intake.storage.now(), intake.storage.owner)
            dropped = intake.admission.unchecked = []
            for place in PLACES:
                intake.scan_all(place, closely=ahead)
            intake.index.finish_rebuild()
            intake.admission.unchecked = None
            in_rings = rings.take_out(intake.index, dropped)
            number = sum(intake.index.counts().values())
        rings.bury(intake.admission, in_rings)
        return number + len(in_rings)
    finally:
        intake.admission.unchecked = None
        intake.report = report
        if ahead:
            intake.index.end_ahead()


def _read_ahead(intake: Intake) -> bool:
    """Read the files of all folders without any lock, a batch at a time, and keep the rows of the plain ones.

    Returns:
        whether that was possible; if not, the files are read within the transaction.
    """
    if intake.index.path == ":memory:":
        return False  # nobody else waits for it
    intake.loader.owner = intake.storage.owner
    intake.loader.start(micros(intake.storage.now()), intake.settings())
    try:
        intake.index.begin_ahead()
        for place in PLACES:
            folder = os.path.join(intake.layout.root, place)
            for names in intake.chunks(folder, LARGE_CHUNK):
                load = partial(intake.loader.load, place, left_dead=intake.admission.left_dead)
                loaded = split_work(load, list(names))()
                loaded.sort(key=itemgetter(slice(4)))
                intake.index.put_ahead([values for *_, values in loaded if values])
                intake.compared += len(names)
                if intake.report:
                    intake.report(intake.compared)
    except BaseException as error:
        intake.index.end_ahead()  # else its transaction would stay open
        if not isinstance(error, sqlite3.Error | OSError):
            raise
        return False
    return True
