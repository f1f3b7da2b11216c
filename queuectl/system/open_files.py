"""How many files this process may open. With too few, half of an action succeeds, and the errors name the wrong thing."""

from __future__ import annotations

import errno
import os
from contextlib import suppress

from queuectl.errors import SpoolError

FOR_A_WORKER = 16
"""Files that a worker has open at a time at most, besides those of the program: the index, locks, its run's output,
the watch, and pipes to its child. With fewer it could claim a job that it can neither run nor give back."""

FOR_A_RUN = 4
"""Files that a worker has open for each further job that runs: two for its output, its lock, its pidfd."""

_HINT = "ulimit -n 1024"


def limit() -> int:
    """Return the number of files that this process may have open at a time; a large one where there is no limit."""
    found = os.sysconf("SC_OPEN_MAX") if hasattr(os, "sysconf") else -1
    return found if found >= 0 else 1 << 30


def require(number: int) -> None:
    """Make sure that this process may have so many files open. Its soft limit is raised as far as it is allowed.

    Raises:
        SpoolError: it may not.
    """
    if limit() >= number:
        return
    with suppress(ImportError, OSError, ValueError):
        import resource

        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(number, most), most))
    if limit() < number:
        raise SpoolError(f"this process may open {limit()} files, and {number} are needed", hint=_HINT)


def possible_runs(wanted: int, opened: int) -> int:
    """Return how many jobs this process can run at once, at most `wanted`. Its soft limit is raised as far as needed.

    Args:
        opened: how many files it has open without those of the worker and its runs.
    """
    with suppress(SpoolError):
        require(opened + FOR_A_WORKER + FOR_A_RUN * wanted)
    return min(wanted, max(1, (limit() - opened - FOR_A_WORKER) // FOR_A_RUN))


def number_open() -> int:
    """Return how many files this process has open now."""
    for folder in ("/proc/self/fd", "/dev/fd"):
        with suppress(OSError):
            return len(os.listdir(folder)) - 1  # one is the descriptor of this listing
    return 64  # a guess, where the system does not tell


def require_free(number: int) -> None:
    """Make sure that this process can open so many files in addition to those that it has open.

    Raises:
        SpoolError: it cannot.
    """
    opened: list[int] = []
    try:
        for _ in range(number):
            try:
                opened.append(os.open(os.sep, os.O_RDONLY))
            except OSError as error:
                if error.errno != errno.EMFILE:
                    return  # the system as a whole has no more, which may end at any moment
                require(limit() + number - len(opened))
    finally:
        for fd in opened:
            os.close(fd)
