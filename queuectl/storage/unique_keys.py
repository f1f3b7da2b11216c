"""Unique keys: of the jobs that share a key, which may be enqueued, and which may start.

Producers decide under a kernel lock, with an index that agrees with the folders: of two that decide at once, one comes
second. Whether a job may start is checked in the workers' folders, after its claim: of two jobs with one key claimed at
the same time, each would see the other. The index only avoids needless reading of folders.

A job that has begun keeps its key until it is completed or dead: while it runs, and while it waits for its next attempt.
Jobs that have not begun wait in the usual order.
"""

from __future__ import annotations

import os
import time
from contextlib import contextmanager, suppress

from queuectl.errors import InvalidJob, KeyTaken, QueuectlError
from queuectl.index.row import is_file_of
from queuectl.job import record as jobs
from queuectl.job.fields import WAITING
from queuectl.job.times import micros
from queuectl.storage import dead_letters, locate
from queuectl.system import safe_open

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from queuectl.index.row import Row
    from queuectl.job.record import Job
    from queuectl.storage.transitions import Prepared, Storage

_PATIENCE = 60.0
"""Seconds to wait for other producers with keys. Each holds the lock for some milliseconds."""

_FEW = 20

REPLACED = "Replaced by job "
"""The beginning of the last error of a job that a newer one with its key has replaced."""


# -- for producers -----------------------------------------------------------------------------------------------------


@contextmanager
def locked(storage: Storage) -> Iterator[None]:
    """Hold the lock of the unique keys, with an index that agrees with the folders. It may be nested.

    Raises:
        SpoolError: the lock cannot be acquired, or the folders cannot be read.
    """
    if storage.holds_key_lock:
        yield
        return
    from queuectl.system.locks import held

    storage.refresh()  # also before the lock: this may take long, and others wait for the lock
    path = _lock_file(storage)
    with held(path, patience=_PATIENCE, busy="other processes have been deciding about unique keys"):
        storage.holds_key_lock = True
        try:
            storage.refresh()
            yield
        finally:
            storage.holds_key_lock = False
            _touch_pending(storage)


def is_locked(storage: Storage) -> bool:
    """Return whether other producers are deciding about unique keys now.

    Raises:
        OSError: the lock cannot be asked.
    """
    from queuectl.system.locks import is_held

    return not storage.holds_key_lock and is_held(_lock_file(storage))


def _lock_file(storage: Storage) -> str:
    return os.path.join(storage.layout.data, "unique.lock")


def _touch_pending(storage: Storage) -> None:
    """Change the time of pending/ if the shared index does not know of our job, so that the next producer scans it.

    Where file times move in ticks, the folder's own time would not show a second change within one tick.
    """
    if not storage.index.usable or storage.index.path == ":memory:":
        now = time.time_ns()
        with suppress(OSError):
            os.utime(storage.layout.pending, ns=(now, now))


def admit(storage: Storage, made: Prepared) -> None:
    """Check that a job may be enqueued, and note in it which jobs it replaces. Call it within `locked`.

    Raises:
        KeyTaken: another job has its key, and it asks to be skipped then.
    """
    job = made.job
    if job.if_exists == "replace":
        made.supersedes = list(jobs_with(storage, job.unique or "", *WAITING))
    else:
        for row in jobs_with(storage, job.unique or ""):
            raise KeyTaken(job.unique or "", row.id, row.state)


def supersede(storage: Storage, batch: Iterable[Prepared]) -> None:
    """Remove the waiting jobs that these replace. Call it after these are enqueued: a crash in between loses no job."""
    for made in batch:
        for row in made.supersedes:
            if _remove_replaced(storage, row, made.job):
                made.job.replaced.append(row.id)


def place_of(replaced: Iterable[Row], now: int) -> int:
    """Return since when a job waits that replaces others: since the first of them could run. In microseconds.

    A job that is replaced again and again would otherwise begin at the end of the line each time, and never run.
    """
    moments = (row.ready_since(now) for row in replaced)
    return min([now, *(moment for moment in moments if moment is not None)])


def judge_drop(storage: Storage, job: Job, arrived: int) -> tuple[str | None, int]:
    """Decide about a dropped file.

    Args:
        arrived: when it arrived, in microseconds. Jobs that came later do not count against it: when the index is
            rebuilt, all waiting files are read as if they were new.

    Returns:
        the reason if it must be skipped, and since when it waits, in microseconds: since it arrived, or since a job
        that it replaces could run.
    """

    def came_first(row: Row) -> bool:
        return (row.created_at or row.arrived) <= arrived

    if job.if_exists == "replace":
        replaced = list(filter(came_first, jobs_with(storage, job.unique or "", *WAITING)))
        for row in replaced:
            _remove_replaced(storage, row, job)
        return None, place_of(replaced, arrived)
    if job.if_exists != "queue":
        for row in filter(came_first, jobs_with(storage, job.unique or "")):
            return f"{KeyTaken(job.unique or '', row.id, row.state)}, and if_exists is skip", arrived
    return None, arrived


def _remove_replaced(storage: Storage, row: Row, job: Job) -> bool:
    """Remove a waiting job that `job` replaces; return False if a worker has just claimed it, so that it runs.

    A job from `enqueue` that never ran is deleted: it has nothing to report, and in dead/ it would look like a failure.
    A file that somebody else wrote is never deleted, but moved to dead/.
    """
    with suppress(QueuectlError, OSError, safe_open.NotReadable):
        path = os.path.join(storage.layout.root, row.place, row.name)
        old = jobs.parse(safe_open.read_regular(path, jobs.READ_LIMIT)[0])
        if old.created_at is not None and not (old.runs or old.attempts):
            return dead_letters.forget(storage, row, unchanged=True)
        dead_letters.bury(storage, row, f"{REPLACED}{job.id}")
        return True
    return False


def jobs_with(storage: Storage, key: str, *states: str) -> Iterator[Row]:
    """Yield the jobs with this key in these states, by their files. Call it within `locked`.

    Args:
        states: default: the states in which a job waits or runs.
    """
    index = storage.index
    if not index.usable:
        storage.refresh()  # it was deleted or damaged just now
    if not index.usable:
        return
    for state in states or ("processing", "failed", "pending"):
        # The first row mostly decides, and thousands may wait.
        few = index.with_key(key, state, limit=_FEW)
        yield from (row for row in few if _still_has_key(storage, row))
        if len(few) == _FEW:
            seen = {row.id for row in few}
            more = (row for row in index.with_key(key, state) if row.id not in seen)
            yield from (row for row in more if _still_has_key(storage, row))


def _still_has_key(storage: Storage, row: Row) -> bool:
    path = os.path.join(storage.layout.root, row.place, row.name)
    now = storage.now()
    try:
        status = os.lstat(path)
        if not is_file_of(row, status):
            found = jobs.parse(safe_open.read_regular(path, jobs.READ_LIMIT)[0])
            waits = row.state != "processing"
            return found.unique == row.unique_key and not (waits and found.expired(now))
    except FileNotFoundError:
        return locate.state_of(storage, row.id) in ("pending", "processing")  # claimed just now
    except (OSError, safe_open.NotReadable, InvalidJob):
        return False
    # Without a worker to bury it, a job that has expired would keep its key and block all others.
    return row.state == "processing" or row.expires is None or row.expires >= micros(now)


# -- for workers -------------------------------------------------------------------------------------------------------


def is_blocked(storage: Storage, row: Row) -> bool:
    """Return whether another job with the key has begun. Then this one leaves the order, so that no worker tries it."""
    index = storage.index
    key = row.unique_key or ""
    for other in index.with_key(key, "processing"):
        if os.path.lexists(os.path.join(storage.layout.root, other.place, other.name)):
            index.put_behind(key)
            return True
        index.drop_if_at(other.id, other.place, other.name)
    if row.state == "pending" and index.has_begun(key, row.seq or 0):
        index.put_behind(key, pending_only=True)
        return True
    return False


def another_is_claimed(storage: Storage, key: str, mine: str) -> bool:
    """Return whether a worker has claimed another job with this key, by the folders alone.

    Args:
        mine: the path of the job that was just claimed.
    """
    layout = storage.layout
    for worker, names in locate.claimed_by_worker(layout).items():
        for name in names:
            path = f"{layout.claims(worker)}{os.sep}{name}"
            if path == mine:
                continue
            with suppress(OSError, safe_open.NotReadable, InvalidJob):
                data = safe_open.read_regular(path, jobs.READ_LIMIT)[0]
                if b"\\" not in data and key.encode() not in data:
                    continue  # nothing is escaped, so it cannot have the key
                job = jobs.parse(data)
                job.id = name.removesuffix(".json")
                # The claimed file of a job that has just ended may still lie there.
                if job.unique == key and not locate.is_settled(layout, job, but=path):
                    storage.index.put_behind(key)
                    return True
    return False


def unblock(storage: Storage) -> None:
    """Let jobs start again that wait for a running job whose file somebody deleted.

    Raises:
        sqlite3.Error: the index refused.
    """
    index = storage.index
    for key in index.keys_with_waiting():
        with index.write():
            for row in index.with_key(key, "processing"):
                if not os.path.lexists(os.path.join(storage.layout.root, row.place, row.name)):
                    index.drop_if_at(row.id, row.place, row.name)
            index.release_next(key)
