"""Find where a job lies, by the folders alone: its state, the claimed files of each worker, and later copies of a job."""

from __future__ import annotations

import os
from contextlib import suppress
from itertools import filterfalse

from queuectl.errors import DuplicateId, InvalidJob
from queuectl.job import copies
from queuectl.job import record as jobs
from queuectl.layout import is_engine, is_job_name, is_utf8
from queuectl.system import safe_open

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from queuectl.job.record import Job
    from queuectl.layout import Layout
    from queuectl.storage.transitions import Storage

_TIME_SETTLED = 2.0
"""Seconds: if a folder's mtime is older than this, any new change gives it another mtime, even where file times are coarse."""


def state_of(storage: Storage, job_id: str, *, but: str | None = None) -> str | None:
    """Return the state of the job with this id by the folders themselves, or None if there is no such job.

    Args:
        but: a path that does not count.
    """
    name = f"{job_id}.json"
    layout = storage.layout
    for state, folder in (("completed", layout.done), ("dead", layout.dead), ("pending", layout.pending)):
        path = os.path.join(folder, name)
        if path != but and os.path.lexists(path):
            return state
    with suppress(FileNotFoundError), os.scandir(layout.processing) as workers:
        if any(os.path.lexists(os.path.join(worker.path, name)) for worker in workers):
            return "processing"
    row = storage.index.get(job_id) if storage.index.usable else None
    if row is None:
        return None
    path = os.path.join(layout.root, row.place, row.name)
    return row.state if path != but and os.path.lexists(path) else None


def has_ended(storage: Storage, job_id: str) -> bool:
    """Return whether a job has a record in done/ or dead/, and none in pending/ or with a worker."""
    name, layout = f"{job_id}.json", storage.layout
    going = [layout.pending, *(layout.claims(worker) for worker in _workers(layout))]
    if any(os.path.lexists(os.path.join(folder, name)) for folder in going):
        return False
    return any(os.path.lexists(os.path.join(folder, name)) for folder in (layout.done, layout.dead))


def refuse_taken(storage: Storage, job_id: str) -> None:
    """Refuse an id that a job already has, and let the index forget a job whose file somebody deleted.

    The row of such a job would keep out that of the new one, which nobody would find until the next full scan.

    Raises:
        DuplicateId: a job has it.
    """
    import sqlite3

    try:
        state = state_of(storage, job_id)
    except sqlite3.Error as error:
        storage.index.broken = str(error)  # the folders know as well, and the next scan rebuilds the index
        state = state_of(storage, job_id)
    if state:
        raise DuplicateId(job_id, state)
    storage.index.drop(job_id)


def claimed_by_worker(layout: Layout) -> dict[str, list[str]]:
    """Return the names of the job files in each worker's folder, without the folders that hold none."""
    return {worker: names for worker in _workers(layout) if (names := claimed_by(layout, worker))}


def claimed_by(layout: Layout, worker: str) -> list[str]:
    """Return the names of the job files in one worker's folder."""
    with suppress(OSError):
        return [name for name in os.listdir(layout.claims(worker)) if is_job_name(name)]
    return []


def _workers(layout: Layout) -> list[str]:
    with suppress(OSError), os.scandir(layout.processing) as entries:
        return [
            entry.name for entry in entries if entry.is_dir(follow_symlinks=False) and is_utf8(entry.name)
        ]
    return []


class BusyWorkers:
    """Finds the workers that may have claimed a job. Every worker asks every second: an empty folder costs one stat.

    Dispatchers are none of them: nobody takes their jobs back, and their folders hold up to 100,000 for days.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._empty: dict[str, tuple[int, int]] = {}

    def names(self, now: float) -> list[str]:
        """Return the workers whose folder may hold a job. A folder found empty is read again only after a change.

        Args:
            now: the wall clock in epoch seconds.
        """
        known, self._empty = self._empty, {}
        busy = []
        for worker in filterfalse(is_engine, _workers(self._layout)):
            with suppress(OSError):
                status = os.stat(self._layout.claims(worker))
                seen = status.st_mtime_ns, status.st_ino
                if known.get(worker) == seen:
                    self._empty[worker] = seen
                elif claimed_by(self._layout, worker):
                    busy.append(worker)
                elif now - status.st_mtime > _TIME_SETTLED:
                    self._empty[worker] = seen
        return busy


def is_continued(layout: Layout, job: Job) -> bool:
    """Return whether a worker's folder holds an earlier copy of this job, left by a crash in the middle of a settle."""
    for worker in claimed_by_worker(layout):
        path = os.path.join(layout.claims(worker), f"{job.id}.json")
        with suppress(safe_open.NotReadable, InvalidJob, OSError):
            if is_later(job, jobs.parse(safe_open.read_regular(path, jobs.READ_LIMIT)[0]), path):
                return True
    return False


def is_later(job: Job, earlier: Job, path: str | None) -> bool:
    """Return whether a job is a later copy of the one that was read from this path, see `copies.continues`.

    Without a look at the content, a dropped job whose worker died in the middle of a settle would be taken for two jobs
    as soon as somebody edits its command.
    """
    if copies.continues(job, earlier):
        return True
    if path is None or earlier.created_at is not None or job.command == earlier.command:
        return False
    with suppress(safe_open.NotReadable, OSError):
        import hashlib  # 3 ms, and it is needed nearly never

        data = safe_open.read_regular(path, jobs.READ_LIMIT)[0]
        return copies.continues(job, earlier, hashlib.sha256(data).hexdigest())
    return False


def is_settled(layout: Layout, claimed: Job, *, but: str | None = None) -> bool:
    """Return whether a later copy of a claimed job, one with more runs in it, lies somewhere, or its outcome itself.

    The outcome lies there if somebody has copied the file of an ended job, for example from done/. A file with the same id that somebody else wrote is no later copy, and proves nothing.

    Args:
        but: the path of the claimed file, which does not count.

    Raises:
        OSError: a file cannot be read.
    """
    for path in paths_of(layout, claimed.id or ""):
        other = read_job(path) if path != but else None
        if other is not None and other.id in (None, claimed.id):
            is_outcome = os.path.dirname(path) in (layout.done, layout.dead) and copies.have_ended_alike(
                other, claimed
            )
            if is_outcome or is_later(other, claimed, but):
                return True
    for path in _second_names(layout, claimed.id or ""):
        other = read_job(path)
        if other is not None and other.id == claimed.id and is_later(other, claimed, but):
            return True
    return False


def paths_of(layout: Layout, job_id: str) -> list[str]:
    """Return every path that the file of a job may have."""
    folders = [layout.done, layout.dead, layout.pending]
    with suppress(OSError), os.scandir(layout.processing) as workers:
        folders += [worker.path for worker in workers]
    return [os.path.join(folder, f"{job_id}.json") for folder in folders]


def _second_names(layout: Layout, job_id: str) -> Iterator[str]:
    """Yield the names that an outcome got because another file had the job's own, see files.move_to_free_name."""
    for folder in (layout.done, layout.dead, layout.pending):
        number = 2
        while os.path.lexists(path := os.path.join(folder, f"{job_id}-{number}.json")):
            yield path
            number += 1


def read_job(path: str) -> Job | None:
    """Return the job in a file; None if the file holds none or is gone.

    Raises:
        OSError: it cannot be read, which says nothing about what it holds.
    """
    try:
        return jobs.parse(safe_open.read_regular(path, jobs.READ_LIMIT)[0])
    except (safe_open.NotReadable, InvalidJob, FileNotFoundError, NotADirectoryError):
        return None
