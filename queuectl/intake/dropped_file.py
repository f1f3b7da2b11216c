"""Reads a file that queuectl did not write: what it holds, and whether it is complete."""

from __future__ import annotations

import os
import sys

from queuectl.errors import InvalidJob
from queuectl.job import record as jobs
from queuectl.system import safe_open

TYPE_CHECKING = False
if TYPE_CHECKING:
    from queuectl.job.record import Job

_SURELY_SMALL = jobs.SIZE_LIMIT // 64
"""Bytes. A smaller file stays below the limit however much indenting it adds."""


class DroppedFile:
    """The result of reading one file.

    Attributes:
        job: the job that it holds, or None.
        status: the file's status, or None.
        reason: why it is not a job, or why it cannot be read now.
        incomplete: somebody may still be writing it.
        gone: it does not exist, or cannot be read now; then `reason` says why.
        fault: the error that kept it from being read now.
        arrived: when it came to where it is, in microseconds since the epoch.
    """

    __slots__ = ("arrived", "fault", "gone", "incomplete", "job", "reason", "status")

    def __init__(self) -> None:
        self.job: Job | None = None
        self.status: os.stat_result | None = None
        self.reason = ""
        self.arrived = 0
        self.gone = False
        self.fault: OSError | None = None
        self.incomplete = False

    @property
    def known_status(self) -> os.stat_result:
        """The status of a file that was read.

        Raises:
            ValueError: it was not read.
        """
        if self.status is None:
            raise ValueError("the file was not read")
        return self.status


def read_dropped(
    path: str, now: int, settle_time: float, *, any_owner: bool = False, owner: int | None = None
) -> DroppedFile:
    """Read and check one file. It raises nothing: errors are part of the result.

    Args:
        now: the present, in microseconds.
        settle_time: seconds. A file that is not valid counts as complete when it has not changed for so long.
        any_owner: accept files of other users, too.
        owner: the uid whose files are accepted, if it is not this user's.
    """
    found = DroppedFile()
    data = b""
    try:
        data, found.status = safe_open.read_regular(path, jobs.READ_LIMIT)
        if not any_owner:
            safe_open.refuse_untrusted(path, found.status, owner)
        found.job = job = jobs.parse(data)
        if len(data) > _SURELY_SMALL and job.state not in ("completed", "dead"):
            _refuse_large(job)
    except safe_open.NotReadable as error:
        found.job, found.reason = None, str(error)
    except InvalidJob as error:
        found.reason, found.incomplete = str(error), True
        if len(data) > jobs.SIZE_LIMIT:  # what it holds cannot be measured
            found.reason = f"too large: {len(data)} bytes, and the limit is {jobs.SIZE_LIMIT}"
    except FileNotFoundError:
        found.gone = True
    except OSError as error:
        if isinstance(error, PermissionError) and not os.access(path, os.R_OK):
            found.reason = "the worker's user may not read it"
        else:
            found.reason = f"cannot be read: {error}"
            found.gone = True  # a passing fault of the disk must not make the job a dead letter
            found.fault = error
    if found.status is None and not found.gone:
        try:
            found.status = os.lstat(path)
        except OSError:
            found.gone = True
    if found.status is not None:
        # The change time is set when a file is moved here. The producer can set the modification time to anything.
        found.arrived = min(found.status.st_ctime_ns // 1000, now)
    if found.incomplete:
        found.incomplete = _is_being_written(path, found.status, now, settle_time)
    return found


def holds_id(path: str, job_id: str) -> bool:
    """Return whether a file that is named after this id holds a job with this id, or without one."""
    try:
        return jobs.parse(safe_open.read_regular(path, jobs.READ_LIMIT)[0]).id in ("", job_id)
    except (safe_open.NotReadable, InvalidJob, OSError):
        return False


def _refuse_large(job: Job) -> None:
    """Refuse a job that is too large. Unlike a file that cannot be parsed, it is complete.

    Raises:
        NotReadable: it is.
    """
    try:
        jobs.check_size(job)
    except InvalidJob as error:
        raise safe_open.NotReadable(str(error)) from None


def _is_being_written(path: str, status: os.stat_result | None, now: int, settle_time: float) -> bool:
    """Return whether an invalid file may still become a job.

    That is so while another process has it open for writing, and for `settle_time` after its last change.
    """
    if status is None or safe_open.is_open_for_writing(path):
        return True
    # On Windows st_ctime is the time of creation.
    changed = status.st_mtime_ns if sys.platform == "win32" else status.st_ctime_ns
    # In both directions: after the clock was set back, a file that is being written has a time in the future.
    return abs(now - changed // 1000) < settle_time * 1e6


_TOLERANCE = 60_000_000_000
"""Nanoseconds by which a file may be changed after its reason was written, for example by a chmod of the whole spool."""


def reason_beside(path: str, status: os.stat_result) -> str | None:
    """Return the content of the .reason file beside a file in dead/, unless it belongs to an earlier file of that name."""
    try:
        data, reason_status = safe_open.read_regular(f"{path}.reason", jobs.SIZE_LIMIT)
    except (safe_open.NotReadable, OSError):
        return None
    if reason_status.st_ctime_ns + _TOLERANCE < status.st_ctime_ns:
        return None
    return data[:2000].decode(errors="replace").strip() or None
