"""What an engine is given to run, and what it says about it: the protocol between a worker and its executor."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from queuectl.config.settings import Settings
    from queuectl.job.outcome import Ending, Outcome
    from queuectl.job.record import Job
    from queuectl.layout import Layout

_OURS = ("QUEUECTL_JOB_ID", "QUEUECTL_ATTEMPT", "QUEUECTL_MAX_RETRIES", "QUEUECTL_WORKER", "QUEUECTL_RUN")


@dataclass(slots=True)
class Attempt:
    """What to run, and within which bounds.

    Attributes:
        command: text runs in the shell, a list is executed without one.
        cwd: the folder it runs in.
        env: its complete environment.
        timeout: seconds it may take; 0 = no end.
        grace: seconds between TERM and KILL when it is ended.
        stdout, stderr: files that take its output; emptied first, made 0600 if missing.
        lock_fd: a descriptor that its processes inherit (the run lock), or None.
        marks: the variables in env that tell this run's processes from all others.
        log_limit: bytes that each of the two files keeps; 0 = no limit.
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


class Running(Protocol):
    """An attempt under way. Not for use by more than one thread."""

    pid: int

    def wait_fd(self) -> int | None:
        """A descriptor that becomes readable when poll() has something to see. Ask anew before every wait.

        None: there is none, at least now; next_look() alone says when.
        """

    def next_look(self) -> float | None:
        """The monotonic moment at which poll() is due at the latest. None: only wait_fd() matters."""

    def poll(self) -> Outcome | None:
        """See how it stands, and do what is due: timeout, TERM, KILL. Never blocks. An outcome once it is over."""

    def cancel(self, ending: Ending, *, now: bool = False) -> None:
        """Begin to end it; the first reason given stays. With now the grace time is over. Does nothing after its end."""

    def close(self) -> None:
        """Give back descriptors. Ends no process."""


class Runner(Protocol):
    """What starts attempts: this machine, or another engine."""

    def start(self, attempt: Attempt) -> Running | Outcome:
        """Start it, or say in an outcome (NOT_STARTED) why the command cannot start.

        Raises:
            SpoolError: the output files cannot be made, which is not the job's fault.
        """


def clean_environment() -> dict[str, str]:
    """This process's environment without the marks of a job that it may itself be part of.

    Without PyInstaller's marks too: a job's programs must not load the executable's libraries, and a worker needs a
    folder of its own to unpack to, as that of the command that starts it is gone in a moment.
    """
    environment = {name: value for name, value in os.environ.items() if name not in _OURS}
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
) -> Attempt:
    """Put together what the runner needs.

    Args:
        mine: the run's marks.
        base: the worker's environment; the job's comes on top, queuectl's own variables last.
        lock_fd: the run lock, for the job's processes to inherit.
    """
    worker = mine["QUEUECTL_WORKER"]
    numbers = {"QUEUECTL_ATTEMPT": str(job.attempts + 1), "QUEUECTL_MAX_RETRIES": str(job.runs_allowed)}
    return Attempt(
        command=job.command,
        cwd=_folder(job.cwd),
        env={**base, **(job.env or {}), **mine, **numbers},
        timeout=job.timeout or 0,
        grace=settings.kill_grace,
        stdout=layout.worker_file(worker, "out"),
        stderr=layout.worker_file(worker, "err"),
        lock_fd=lock_fd,
        marks=mine,
        log_limit=settings.log_limit,
    )


def _folder(cwd: str | None) -> str:
    """A dropped file has no caller whose folder could be meant: there a relative path starts at home."""
    if cwd and cwd.startswith(os.sep):
        return cwd
    home = os.path.expanduser("~")
    return os.path.join(home, os.path.expanduser(cwd)) if cwd else home
