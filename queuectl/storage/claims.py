"""What the workers have in hand: their folders under processing/, read and mirrored in the index."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from queuectl.errors import InvalidJob
from queuectl.index.row import row_of
from queuectl.job import record as jobs
from queuectl.job.times import micros
from queuectl.layout import PROCESSING
from queuectl.storage.dropped_file import is_job_name, is_text, read_foreign
from queuectl.system import files

if TYPE_CHECKING:
    from queuectl.index.index import Index
    from queuectl.index.row import Row
    from queuectl.job.record import Job
    from queuectl.layout import Layout

_ALL = 1 << 30


_SETTLED = 2.0
"""Seconds: a folder whose time is older than that has changed since if and only if its time has."""


def by_worker(layout: Layout) -> dict[str, list[str]]:
    """The job files in each worker's folder; folders without one are left out."""
    found = {}
    for worker in _workers(layout):
        names = of(layout, worker)
        if names:
            found[worker] = names
    return found


def of(layout: Layout, worker: str) -> list[str]:
    """The job files in one worker's folder."""
    with suppress(OSError):
        return [name for name in os.listdir(layout.claims(worker)) if is_job_name(name)]
    return []


def _workers(layout: Layout) -> list[str]:
    with suppress(OSError), os.scandir(layout.processing) as entries:
        return [
            entry.name for entry in entries if entry.is_dir(follow_symlinks=False) and is_text(entry.name)
        ]
    return []


class Glance:
    """Which workers have something in hand, asked every second by every worker: idle folders cost one look each."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._empty: dict[str, tuple[int, int]] = {}

    def busy(self, now: float) -> list[str]:
        """The workers whose folder holds a job, maybe; a folder found empty counts again once it has changed.

        Args:
            now: the wall clock in epoch seconds.
        """
        known, self._empty = self._empty, {}
        busy = []
        for worker in _workers(self._layout):
            with suppress(OSError):
                status = os.stat(self._layout.claims(worker))
                seen = status.st_mtime_ns, status.st_ino
                if known.get(worker) == seen:
                    self._empty[worker] = seen
                elif of(self._layout, worker):
                    busy.append(worker)
                elif now - status.st_mtime > _SETTLED:
                    self._empty[worker] = seen
        return busy


def mirror(layout: Layout, index: Index, now: float) -> None:
    """Make the index agree with the workers' folders. They hold a job each, so they are simply read."""
    here = {f"{PROCESSING}/{worker}": set(names) for worker, names in by_worker(layout).items()}
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


def is_continued(layout: Layout, job: Job) -> bool:
    """Whether a worker's folder holds an earlier copy of this job, left there by a crash in mid-settle."""
    for worker in by_worker(layout):
        path = os.path.join(layout.claims(worker), f"{job.id}.json")
        with suppress(files.Unfit, InvalidJob, OSError):
            if job.continues(jobs.parse(files.read_plain(path, jobs.READ_LIMIT)[0])):
                return True
    return False


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
