"""The exceptions of queuectl. Each has an exit code, and at most one hint: a command that the user can type.

QueuectlError (1)
├── JobError (1)          one job: JobNotFound, DuplicateId, KeyTaken, InvalidJob, UnknownField
├── MoveError (1)         a transition that the table of transitions forbids
├── ConfigError (1)       an unknown setting, a bad value, or an unreadable settings file
│   └── Shortage (1)      a job needs more of a resource than the setting `resources` says there is
├── WorkerError (1)       a worker that did not start, or is not allowed to
├── StillUnderWay (75)    a wait that has timed out
├── NotSent (100)         a notification that will never be sent as it is
│   └── NotSentNow (111)  a notification that may be sent later
└── SpoolError (3)        the folders or the disk: unreadable, read-only, not a spool
    ├── SpoolFull (4)     no space on the disk, or no quota left
    ├── IndexBehind (3)   the index cannot be brought up to date now, and whoever asks must not wait
    └── QueuedUnsafely (3)   jobs are queued and may run, but may not survive a power cut
"""

from __future__ import annotations

import errno

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from typing import Any, Self

WRONG_USAGE = 2
"""The exit code if what was typed is wrong, whether it is an option, a name or a value. A wrong file is 1, refused."""

FULL = frozenset({errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)})


class QueuectlError(Exception):
    """An error that the user or the machine causes: shown as one line, without a traceback."""

    exit_code = 1
    queued: Sequence[str] = ()
    """The ids of the jobs that `enqueue_many` had queued before the error."""
    position: int | None = None
    """Which job of the list that `enqueue_many` got caused the error, from 0; None if no single job did."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[Callable[..., QueuectlError], tuple[type[Self], str, dict[str, Any]]]:
        """Pickle the fields. An exception is made anew from its message alone otherwise, and most take more than that.

        A process of multiprocessing whose error cannot be unpickled lets its parent wait for ever.
        """
        return _unpickled, (type(self), self.args[0], self.__dict__)

    def __str__(self) -> str:
        return self.message


def _unpickled(kind: type[QueuectlError], text: str, fields: dict[str, Any]) -> QueuectlError:
    error = kind.__new__(kind, text)
    error.__dict__.update(fields)
    return error


class JobError(QueuectlError):
    """An error that is about one job."""


class JobNotFound(JobError):
    """No job in the spool has this id."""

    def __init__(self, job_id: str) -> None:
        super().__init__(f"no job {job_id!r} in this spool", hint="queuectl list")
        self.job_id = job_id


class DuplicateId(JobError):
    """Another job has this id, in any state."""

    def __init__(self, job_id: str, state: str) -> None:
        super().__init__(f"job id {job_id!r} is taken: that job is {state}", hint=f"queuectl show {job_id}")
        self.job_id = job_id
        self.state = state


class KeyTaken(JobError):
    """Another job with the same unique key waits or runs, and this one is to be skipped in that case."""

    def __init__(self, key: str, job_id: str, state: str) -> None:
        shown = key if len(key) <= 70 else key[:70] + "…"
        super().__init__(
            f"job {job_id} ({state}) has the unique key {shown!r}", hint=f"queuectl show {job_id}"
        )
        self.key = key
        self.job_id = job_id
        self.state = state


class NeverStarts(JobError):
    """A job could never start: it waits for a job that does not exist, or for itself through others."""


class InvalidJob(JobError):
    """A file, or a set of fields, that is not a valid job.

    Args:
        reason: in plain words, for readers who did not write the program.
        field: the wrong field, or None if the error is about the whole file.
        at: line and column in the text that was read, both from 1, if known.
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


class UnknownField(InvalidJob, TypeError):
    """A keyword of a Python call that is no field of a job; most often it is mistyped."""


class MoveError(QueuectlError):
    """A transition that the table of transitions does not allow, such as a retry of a running job."""


class StillNeeded(MoveError):
    """A job cannot be deleted, as another one waits for it."""


class ConfigError(QueuectlError):
    """An unknown setting, a bad value, or a settings file that cannot be read."""


class Shortage(ConfigError):
    """A job needs more of a resource than the setting `resources` says there is: it could never start."""


class WorkerError(QueuectlError):
    """A worker that could not be started, or is not allowed to run on this spool."""


class StillUnderWay(QueuectlError):
    """A wait that has timed out: jobs have not ended, or workers are still running a job.

    Args:
        left: the ids of the jobs that have not ended.
    """

    exit_code = 75

    def __init__(self, message: str, left: list[str], *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.left = left


class NotSent(QueuectlError):
    """A notification was refused, and would be refused again. The exit codes are those of qmail's programs."""

    exit_code = 100


class NotSentNow(NotSent):
    """A notification could not be sent now: the network, or the other side, may be in order later."""

    exit_code = 111


class SpoolError(QueuectlError):
    """A folder or a file of the spool that cannot be used."""

    exit_code = 3

    @classmethod
    def from_os(cls, doing: str, path: str | Path, error: OSError) -> SpoolError:
        """Make an error out of an OSError: SpoolFull if the disk is full, else this class."""
        reason = (error.strerror or str(error)).lower()
        kind = SpoolFull if error.errno in FULL else cls
        return kind(f"cannot {doing} {path}: {reason}")


class StartRefused(SpoolError):
    """This machine cannot start a process now, whichever: too many processes, no memory, no descriptors."""


class QueuedUnsafely(SpoolError):
    """Jobs could not be made durable, and could not be taken back, because a worker had already claimed them.

    Args:
        job_ids: the ids of these jobs.
        error: the error of the disk.
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


class IndexBehind(SpoolError):
    """The index cannot be brought up to date now: another process has it, or the disk refuses. See `Spool.answer_at_once`."""


class SpoolFull(SpoolError):
    """The disk has no space left, or the user no quota. Nothing was queued."""

    exit_code = 4
