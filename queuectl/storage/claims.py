"""What the workers have in hand: their folders under processing/."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from queuectl.errors import InvalidJob
from queuectl.job import record as jobs
from queuectl.layout import is_job_name, is_utf8
from queuectl.system import safe_open

if TYPE_CHECKING:
    from queuectl.job.record import Job
    from queuectl.layout import Layout

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
            entry.name for entry in entries if entry.is_dir(follow_symlinks=False) and is_utf8(entry.name)
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


def is_continued(layout: Layout, job: Job) -> bool:
    """Whether a worker's folder holds an earlier copy of this job, left there by a crash in mid-settle."""
    for worker in by_worker(layout):
        path = os.path.join(layout.claims(worker), f"{job.id}.json")
        with suppress(safe_open.NotReadable, InvalidJob, OSError):
            if job.continues(jobs.parse(safe_open.read_regular(path, jobs.READ_LIMIT)[0])):
                return True
    return False
