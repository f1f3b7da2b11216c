"""A file that queuectl did not write: what it holds, and whether it is complete."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from queuectl.errors import InvalidJob
from queuectl.job import record as jobs
from queuectl.system import safe_open

if TYPE_CHECKING:
    from queuectl.job.record import Job

_SURELY_FAIR = jobs.SIZE_LIMIT // 64
"""Bytes of a file that stays below the limit however it is indented."""


class Found:
    """What reading one file brought to light.

    Attributes:
        job: what it says, if it is a job.
        reason: why it is none, in plain words.
        may_grow: it is not complete yet, as far as anyone can tell.
        fault: why it cannot be read just now, although it may be there.
        gone: it is not there, or cannot be read just now; then the reason says why.
        arrived: microseconds since the epoch at which it landed where it lies.
    """

    __slots__ = ("arrived", "fault", "gone", "job", "may_grow", "reason", "status")

    def __init__(self) -> None:
        self.job: Job | None = None
        self.status: os.stat_result | None = None
        self.reason = ""
        self.arrived = 0
        self.gone = False
        self.fault: OSError | None = None
        self.may_grow = False


def read_foreign(path: str, now: int, settle_time: float, *, strangers: bool = False) -> Found:
    """Read one file as far as it goes; what is wrong with it is part of the answer.

    Args:
        now: the present in microseconds.
        strangers: files of other users are taken, too.
        settle_time: seconds that a file which does not parse must stand still before it counts as complete.
    """
    found = Found()
    data = b""
    try:
        data, found.status = safe_open.read_regular(path, jobs.READ_LIMIT)
        if not strangers and safe_open.has_other_owner(found.status):
            raise safe_open.NotReadable(f"belongs to another user (uid {found.status.st_uid})")
        found.job = _of_fair_size(jobs.parse(data), len(data))
    except safe_open.NotReadable as error:
        found.reason = str(error)
    except InvalidJob as error:
        found.reason = str(error)
        found.may_grow = len(data) <= jobs.SIZE_LIMIT
        if not found.may_grow:
            found.reason = f"too large: {len(data)} bytes, and the limit is {jobs.SIZE_LIMIT}"
    except FileNotFoundError:
        found.gone = True
    except OSError as error:
        if isinstance(error, PermissionError) and not os.access(path, os.R_OK):
            found.reason = "the worker's user may not read it"
        else:
            found.reason = f"cannot be read: {error}"
            found.gone = True  # a passing fault of the disk is no reason to bury a job
            found.fault = error
    if found.status is None and not found.gone:
        try:
            found.status = os.lstat(path)
        except OSError:
            found.gone = True
    if found.status is not None:
        # The change time is when it landed here; the modification time is the producer's and may be anything.
        found.arrived = min(found.status.st_ctime_ns // 1000, now)
    if found.may_grow:
        found.may_grow = _is_being_written(path, found.status, now, settle_time)
    return found


def bears(path: str, job_id: str) -> bool:
    """Whether a file that is called like this id is there, and does not say that it is another job."""
    try:
        return jobs.parse(safe_open.read_regular(path, jobs.READ_LIMIT)[0]).id in (None, job_id)
    except (safe_open.NotReadable, InvalidJob, OSError):
        return False


def _of_fair_size(job: Job, size: int) -> Job:
    """See that a new job leaves room for its outcome; written anew, indented, it may be many times as large.

    Raises:
        Unfit: it does not.
    """
    if size > _SURELY_FAIR and job.state == "pending" and not job.runs:
        size = max(size, len(job.to_bytes()))
        if size > jobs.SIZE_LIMIT:
            raise safe_open.NotReadable(f"too large: {size} bytes, and the limit is {jobs.SIZE_LIMIT}")
    return job


def _is_being_written(path: str, status: os.stat_result | None, now: int, settle_time: float) -> bool:
    """Whether a file that does not parse may still become a job.

    It may while a process has it open for writing, however slow that one is, and for a moment after any change.
    """
    if status is None or safe_open.is_open_for_writing(path):
        return True
    # Windows keeps the time of creation there.
    changed = status.st_mtime_ns if sys.platform == "win32" else status.st_ctime_ns
    # Either side of now: a clock set back must not make a file seem complete.
    return abs(now - changed // 1000) < settle_time * 1e6


_SLACK = 60_000_000_000
"""Nanoseconds by which a file may have been touched after its reason was written: a chmod over the whole spool does."""


def explanation(path: str, status: os.stat_result) -> str | None:
    """The reason that lies beside a file in dead/, if it was written for this file and not for one before it."""
    try:
        data, told = safe_open.read_regular(f"{path}.reason", jobs.SIZE_LIMIT)
    except (safe_open.NotReadable, OSError):
        return None
    if told.st_ctime_ns + _SLACK < status.st_ctime_ns:
        return None
    return data[:2000].decode(errors="replace").strip() or None
