"""The protocol between a worker and what runs its attempts: the attempt, the run under way, the runner."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Protocol

from queuectl.fast_start.dataclass import dataclass
from queuectl.layout import slot_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from queuectl.config.settings import Settings
    from queuectl.control.permits import Permit
    from queuectl.job.outcome import Ending, Outcome
    from queuectl.job.record import Job
    from queuectl.layout import Layout
    from queuectl.system.process import Session

_JOB_VARIABLES = (
    "QUEUECTL_JOB_ID",
    "QUEUECTL_ATTEMPT",
    "QUEUECTL_MAX_RETRIES",
    "QUEUECTL_WORKER",
    "QUEUECTL_RUN",
    "QUEUECTL_SLOT",
    "QUEUECTL_QUEUE",
    "QUEUECTL_PLACE",
    "QUEUECTL_BATCH",
    "QUEUECTL_RULE",
    "QUEUECTL_SCHEDULED_FOR",
    "QUEUECTL_SOURCE",
    "QUEUECTL_AFTER",
    "QUEUECTL_AFTER_OUT",
    "QUEUECTL_EVENT",
    "QUEUECTL_ABOUT",
    "QUEUECTL_ABOUT_STATE",
    "QUEUECTL_ABOUT_ERROR",
    "QUEUECTL_ABOUT_EXIT_CODE",
    "QUEUECTL_ABOUT_FILE",
    "QUEUECTL_ABOUT_OUT",
    "QUEUECTL_SINCE",
    "QUEUECTL_UNTIL",
    "QUEUECTL_COUNT",
)
_NEEDS = "QUEUECTL_NEEDS_"
"""The beginning of the variables with the numbers of a job's units."""


@dataclass(slots=True)
class Attempt:
    """What to run, and its limits.

    Attributes:
        command: text runs in the shell, a list is executed without one.
        cwd: the folder it runs in.
        env: its complete environment.
        timeout: seconds it may take; 0 = no limit.
        grace: seconds between TERM and KILL when it is ended.
        stdout, stderr: paths of its output files; emptied first, made 0600 if missing.
        lock_fd: a descriptor that its processes inherit (the run lock), or None.
        permit_fds: further ones (the locks of its permit).
        marks: the variables in env by which this run's processes are recognized.
        log_limit: bytes that are kept of each output file; 0 = no limit.
        slot: the number of the worker's slot in which it runs; unless it is 0, others run beside it.
    """

    command: str | list[str]
    cwd: str
    env: Mapping[str, str]
    timeout: float
    grace: float
    stdout: str
    stderr: str
    lock_fd: int | None
    marks: Mapping[str, str]
    log_limit: int
    permit_fds: tuple[int, ...] = ()
    slot: int = 0

    @property
    def inherited(self) -> tuple[int, ...]:
        """All descriptors that its processes inherit."""
        return self.permit_fds if self.lock_fd is None else (self.lock_fd, *self.permit_fds)


class Running(Protocol):
    """An attempt under way. Not for use by more than one thread."""

    def has_begun(self) -> bool:
        """Whether its start is over. Until then it has no session, and nobody but the caller holds its run lock."""

    def session(self) -> Session | None:
        """Return the session of its processes, by which another worker finds them; None where there is none."""

    def wait_fd(self) -> int | None:
        """Return a descriptor that becomes readable when poll() has something to do; ask again before every wait.

        None: there is none, at least now; wait until next_poll().
        """

    def next_poll(self) -> float | None:
        """Return the monotonic time at which poll() must be called at the latest. None: only wait_fd() matters."""

    def poll(self) -> Outcome | None:
        """Do what is due (timeout, TERM, KILL), without blocking. Returns the outcome once the attempt is over.

        Raises:
            StartRefused: it turns out that this machine cannot start a process now, whichever.
            SpoolError: the attempt cannot be followed any more, and none of its processes is alive. The job is put back.
        """

    def cannot_end(self) -> str | None:
        """Say which processes go on although they were killed, or None.

        Until they have ended poll() returns no outcome: the next attempt must not run beside them.
        """

    def cancel(self, ending: Ending, *, now: bool = False) -> None:
        """Begin to end it: TERM, a grace time, KILL. Does nothing after its end.

        Args:
            ending: the reason; a second call does not change it.
            now: end the grace time now.
        """

    def close(self) -> None:
        """Close descriptors. Ends no process."""


class Runner(Protocol):
    """Starts attempts: on this machine, or on another engine."""

    def start(self, attempt: Attempt) -> Running | Outcome:
        """Start an attempt, or return an outcome (NOT_STARTED) that says why the command cannot start.

        Raises:
            StartRefused: this machine cannot start a process now, whichever.
            SpoolError: the output files cannot be made, which is not the job's fault.
        """

    def forget_output(self, stdout: str) -> None:
        """Keep nothing for the next run that writes into this file: there will be none soon."""


def clean_environment() -> dict[str, str]:
    """Return this process's environment without the variables of a job that this process may be part of.

    PyInstaller's variables are removed as well: a job's programs must not load the executable's libraries, and a worker
    must unpack to its own folder, because that of the command that starts it is deleted when the command ends.
    """
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in _JOB_VARIABLES and not name.startswith(_NEEDS)
    }
    if getattr(sys, "frozen", False):
        original = environment.pop("LD_LIBRARY_PATH_ORIG", None)
        environment.pop("LD_LIBRARY_PATH", None)
        if original is not None:
            environment["LD_LIBRARY_PATH"] = original
        environment = {name: value for name, value in environment.items() if not name.startswith("_PYI_")}
    return environment


def prepare(
    layout: Layout,
    job: Job,
    mine: Mapping[str, str],
    settings: Settings,
    base: Mapping[str, str],
    lock_fd: int | None,
    slot: int = 0,
    permit: Permit | None = None,
    parents: Mapping[str, str] | None = None,
) -> Attempt:
    """Build the attempt of a claimed job.

    Args:
        slot: the number of the worker's slot in which it runs.
        mine: the run's marks, see run_lock.marks.
        base: the worker's environment; the job's own variables override it, queuectl's override both.
        lock_fd: the descriptor of the run lock, which the job's processes inherit.
        permit: what it holds of limits, which they inherit as well.
        parents: the variables by which it finds the jobs for which it has waited, or of which it tells.
    """
    files = slot_name(mine["QUEUECTL_WORKER"], slot)
    numbers = {
        "QUEUECTL_ATTEMPT": str(job.attempts + 1),
        "QUEUECTL_MAX_RETRIES": str(job.runs_allowed),
        "QUEUECTL_SLOT": str(slot),
    }
    return Attempt(
        command=_native(job.command) if isinstance(job.command, str) else [*map(_native, job.command)],
        cwd=_native(_folder(job.cwd)),
        env={
            **base,
            **{_native(name): _native(text) for name, text in (job.env or {}).items()},
            **mine,
            **numbers,
            **_queue_variables(job, permit),
            **{name: _native(text) for name, text in (parents or {}).items()},
        },
        timeout=job.timeout or 0,
        grace=settings.kill_grace,
        stdout=layout.worker_file(files, "out"),
        stderr=layout.worker_file(files, "err"),
        lock_fd=lock_fd,
        marks=mine,
        log_limit=settings.log_limit,
        permit_fds=permit.descriptors if permit else (),
        slot=slot,
    )


def _queue_variables(job: Job, permit: Permit | None) -> dict[str, str]:
    """Return what a job learns of its queue, its number in it, which units are its own, its batch, and its rule."""
    found = {} if job.queue is None else {"QUEUECTL_QUEUE": job.queue}
    if job.batch is not None:
        found["QUEUECTL_BATCH"] = job.batch
    if job.rule is not None:
        found["QUEUECTL_RULE"] = job.rule
    if job.scheduled_for is not None:
        found["QUEUECTL_SCHEDULED_FOR"] = job.scheduled_for
    if job.source is not None:
        found["QUEUECTL_SOURCE"] = _native(job.source)
    if permit is not None:
        if permit.place is not None:
            found["QUEUECTL_PLACE"] = str(permit.place)
        for name, numbers in permit.units.items():
            found[_NEEDS + name.upper()] = ",".join(map(str, numbers))
    return found


_IS_UTF8 = sys.getfilesystemencoding() == "utf-8"


def _native(text: str) -> str:
    """Return the text so that a program gets it in UTF-8, as it is in the job's file.

    Python encodes what it hands to a program in the encoding of the locale. In an 8-bit one, `ä` would arrive as one
    byte, and name another file.
    """
    return text if _IS_UTF8 else os.fsdecode(text.encode())


def _folder(cwd: str | None) -> str:
    """An absolute folder. A relative one starts at the home: a dropped file has no caller with a current folder."""
    if cwd and cwd.startswith(os.sep):
        return cwd
    home = os.path.expanduser("~")
    if not os.path.isabs(home):
        home = os.sep  # a user without HOME and without an entry in passwd: as systemd does it
    return os.path.join(home, os.path.expanduser(cwd)) if cwd else home
