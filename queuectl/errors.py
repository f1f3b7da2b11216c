"""What can go wrong, as types: each knows its exit code and at most one hint that can be typed.

QueuectlError (1)
├── JobError (1)          one job: JobNotFound, DuplicateId, KeyTaken, InvalidJob
├── MoveError (1)         a move that the table of moves forbids
├── ConfigError (1)       an unknown key or a value out of range
├── WorkerError (1)       a worker that did not start, or may not
├── StillUnderWay (75)    what was waited for has not come in the time given
└── SpoolError (3)        the folders or the disk: unreadable, read-only, not a spool
    ├── SpoolFull (4)     no room left on the device, or no quota
    └── QueuedUnsafely (3)   queued, and it runs, but it may not survive a power cut
"""

from __future__ import annotations

import errno

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path

FULL = frozenset({errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)})


class QueuectlError(Exception):
    """A refusal that is the user's or the machine's business: one line of fact, no traceback."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message


class JobError(QueuectlError):
    """Something about one job."""


class JobNotFound(JobError):
    """No job in the spool has this id."""

    def __init__(self, job_id: str) -> None:
        super().__init__(f"no job {job_id!r} in this spool", hint="queuectl list")
        self.job_id = job_id


class DuplicateId(JobError):
    """The id belongs to another job already, in whatever state."""

    def __init__(self, job_id: str, state: str) -> None:
        super().__init__(f"job id {job_id!r} is taken: that job is {state}", hint=f"queuectl show {job_id}")
        self.job_id = job_id
        self.state = state


class KeyTaken(JobError):
    """Another job that waits or runs has the unique key, and this one is to be skipped then."""

    def __init__(self, key: str, job_id: str, state: str) -> None:
        shown = key if len(key) <= 70 else key[:70] + "…"
        super().__init__(
            f"job {job_id} ({state}) has the unique key {shown!r}", hint=f"queuectl show {job_id}"
        )
        self.key = key
        self.job_id = job_id
        self.state = state


class InvalidJob(JobError):
    """The bytes or the fields can never be a job.

    Args:
        reason: in plain language, for a reader who did not write the program.
        field: the field at fault, or None when the whole file is.
        at: line and column in what was read, both from 1, where that is known.
    """

    def __init__(
        self,
        reason: str,
        *,
        field: str | None = None,
        hint: str | None = None,
        at: tuple[int, int] | None = None,
    ) -> None:
        super().__init__(f"{field}: {reason}" if field else reason, hint=hint)
        self.reason = reason
        self.field = field
        self.at = at

    def __str__(self) -> str:
        return f"invalid job: {self.message}"


class MoveError(QueuectlError):
    """A move that the table of moves does not have, such as a retry of a running job."""


class ConfigError(QueuectlError):
    """An unknown setting, a bad value, or a settings file that cannot be read."""


class WorkerError(QueuectlError):
    """A worker could not be started, or may not run on this spool."""


class StillUnderWay(QueuectlError):
    """What was waited for has not come in the time given: jobs that have not ended, workers that are still busy.

    Args:
        left: the ids of the jobs.
    """

    exit_code = 75

    def __init__(self, message: str, left: list[str], *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.left = left


class SpoolError(QueuectlError):
    """The environment: a folder or file of the spool that cannot be used."""

    exit_code = 3

    @classmethod
    def from_os(cls, doing: str, path: str | Path, error: OSError) -> SpoolError:
        """Word an OSError as one line: what was tried, on which path, why it failed."""
        reason = (error.strerror or str(error)).lower()
        kind = SpoolFull if error.errno in FULL else cls
        return kind(f"cannot {doing} {path}: {reason}")


class QueuedUnsafely(SpoolError):
    """Jobs that a worker had taken before the disk refused to confirm them, so they could not be taken back.

    Args:
        job_ids: which.
        error: what the disk said.
    """

    def __init__(self, job_ids: list[str], error: OSError) -> None:
        first, more = job_ids[0], len(job_ids) - 1
        which = f"job {first} is" if not more else f"job {first} and {more} more are"
        reason = (error.strerror or str(error)).lower()
        super().__init__(
            f"{which} queued and may run, but may not survive a power cut: {reason}",
            hint=f"queuectl show {first}  # before you enqueue it again",
        )
        self.job_ids = job_ids


class SpoolFull(SpoolError):
    """The device has no room, or the user no quota. Nothing was queued."""

    exit_code = 4
