"""The file of a worker's run lock: which run has been started last, and which have ended and are not put away yet.

It is written before anything of a run is started, so after a worker's death it tells what became of each job in the
worker's folder: it runs, it is over and how, or it never began. The run's processes inherit the lock on the file.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from queuectl.errors import SpoolError
from queuectl.system import files
from queuectl.system.locks import Lock

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from queuectl.job.record import Job
    from queuectl.layout import Layout


@dataclass(frozen=True, slots=True)
class Over:
    """A run that has ended in a plain success. Moments are epoch seconds."""

    started_at: float
    finished_at: float
    duration: float


@dataclass(frozen=True, slots=True)
class Signature:
    """What a run file says.

    Attributes:
        job_id, run: the run that was started last; `run` is its mark QUEUECTL_RUN.
        boot: the machine's boot id of that time, or "" from an older queuectl.
        over: by job and mark, the runs that ended before it.
    """

    job_id: str
    run: str
    boot: str = ""
    over: Mapping[tuple[str, str], Over] = field(default_factory=dict)

    @property
    def number(self) -> int:
        """The number of that run, over the job's whole life; 0 if the file is damaged."""
        number = self.run.partition(".")[0]
        return int(number) if number.isdigit() else 0

    def never_began(self, job_id: str, boot: str) -> bool:
        """Whether a job in the worker's folder was not started. After a power cut the file may be older than a start."""
        return self.boot == boot and job_id not in {self.job_id, *(known for known, _ in self.over)}


def sign(layout: Layout, worker: str, job_id: str, run: str, boot: str, over: Sequence[str] = ()) -> Lock:
    """Take the run lock, and write down which run is started next and which are over.

    If a background child of an earlier run still holds it, on a new file: the old file's holder is not in the way
    then, and the lock says nothing about it any more.

    Args:
        run: the mark of the run.
        boot: the machine's boot id.
        over: a line for each run that is over, see `line`.

    Raises:
        SpoolError: the file cannot be opened or written.
    """
    path = layout.worker_file(worker, "run")
    # What is behind these lines is left of a longer text.
    text = f"{job_id} {run} {boot} {len(over)}\n{''.join(over)}"
    try:
        lock = Lock.acquire(path)
        if lock is None:
            os.unlink(path)
            lock = Lock.acquire(path, patience=1.0)
        if lock is None:
            raise SpoolError(f"cannot take the lock {path}: another process holds it")
        try:
            files.write_all(lock.fd, text.encode())
        except BaseException:
            lock.release()
            raise
    except OSError as error:
        raise SpoolError.from_os("take the lock", path, error) from None
    return lock


def line(job: Job, run: str, finished_at: float, duration: float) -> str:
    """What is written down about a run that is over: its job, its mark, its start and end, and how long it took."""
    return f"{job.id} {run} {job.started_at!r} {finished_at!r} {duration!r}\n"


def marks(layout: Layout, job: Job, worker: str) -> dict[str, str]:
    """The variables that tell this run's processes from all others on the machine."""
    return {
        "QUEUECTL_SPOOL": layout.root,
        "QUEUECTL_JOB_ID": job.id or "",
        "QUEUECTL_WORKER": worker,
        "QUEUECTL_RUN": job.run_mark(job.next_run),
    }


def read(layout: Layout, worker: str) -> Signature | None:
    """What a worker's run file says; None when it never ran anything, or somebody deleted it."""
    try:
        with open(layout.worker_file(worker, "run"), encoding="utf-8") as file:
            job_id, run, *more = file.readline().split()
            try:
                boot, number = more
                lines = [file.readline() for _ in range(int(number))]
                over = dict(map(_parsed, lines))
            except ValueError:
                # An older one, or damaged: it tells of no job that it never began.
                return Signature(job_id, run)
    except (OSError, ValueError):
        return None
    return Signature(job_id, run, boot, over)


def _parsed(text: str) -> tuple[tuple[str, str], Over]:
    job_id, run, started_at, finished_at, duration = text.split()
    return (job_id, run), Over(float(started_at), float(finished_at), float(duration))
