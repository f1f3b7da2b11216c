"""Starts programs in threads, so that a worker with many slots does other things meanwhile.

A start by posix_spawn costs a tenth of a millisecond of processor time. But it returns only when the child has begun
its program, a millisecond later: while hundreds of jobs are started, the worker would sleep most of the time. Python
does not let its other threads run during posix_spawn, so the C function is called through ctypes.
"""

from __future__ import annotations

import errno
import os
import queue
import signal
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from queuectl.executor.capture import APPEND
from queuectl.executor.spawn import RESETTABLE, copies, planned
from queuectl.system import libc
from queuectl.system.posix_spawn import posix_spawn

if TYPE_CHECKING:
    from queuectl.executor.base import Attempt

THREADS = 2
"""Starts at the same time. More gain nothing: the worker prepares some two thousand a second."""


class Launch:
    """A start under way.

    Attributes:
        fd: becomes readable when it is over.
        is_over: it is.
        pid: the child's; 0 if it was not started.
    """

    __slots__ = ("_plan", "fd", "is_over", "pid")

    def __init__(self, plan: tuple[Any, ...]) -> None:
        self._plan = plan
        self.pid, self.is_over = 0, False
        self.fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def run(self) -> None:
        """Start the program; called in a thread."""
        try:
            # Why it cannot be started is found out by the start without a thread, which is tried next.
            with suppress(OSError):
                self.pid = posix_spawn(*self._plan)
        finally:
            self.is_over = True
            libc.quick("eventfd_write", "c_int c_uint64", self.fd, 1)

    def __del__(self) -> None:
        # Not before: a thread that is late would write into a file that was opened under this number.
        with suppress(AttributeError):
            os.close(self.fd)


class Launcher:
    """Starts attempts in threads, which live as long as this object."""

    def __init__(self) -> None:
        self._waiting: queue.SimpleQueue[Launch | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []

    @property
    def is_busy(self) -> bool:
        """Whether the threads are behind. Jobs whose start waits here count as running: if the worker dies, as crashed."""
        return self._waiting.qsize() >= THREADS

    def start(self, attempt: Attempt) -> Launch:
        """Let an attempt be started soon.

        Raises:
            OSError, ValueError: it cannot be started in this way.
        """
        launch = Launch(_plan(attempt))
        if len(self._threads) < THREADS:
            thread = threading.Thread(target=_work, args=(self._waiting,), name="queuectl-start", daemon=True)
            try:
                thread.start()
            except (RuntimeError, MemoryError) as error:
                # Near the limit of processes there is no thread, but often a process: the worker starts the job itself.
                raise OSError(errno.EAGAIN, str(error)) from None
            self._threads.append(thread)
        self._waiting.put(launch)
        return launch

    def __del__(self) -> None:
        for _ in self._threads:
            self._waiting.put(None)


def _work(waiting: queue.SimpleQueue[Launch | None]) -> None:
    # Signals are for the main thread: they end its waits.
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    while (launch := waiting.get()) is not None:
        launch.run()
        del launch  # its descriptor is closed when nobody refers to it


def _plan(attempt: Attempt) -> tuple[Any, ...]:
    """The arguments of `posix_spawn`.

    Raises:
        OSError, ValueError: it cannot be started in this way.
    """
    program, words, environment = planned(attempt, os.path.realpath)
    if any("=" in name for name in environment):
        raise ValueError("illegal environment variable name")
    variables = [f"{name}={text}" for name, text in environment.items()]
    paths = attempt.cwd, attempt.stdout, attempt.stderr
    folder, out, err, program_, *texts = _encoded([*paths, program, *words, *variables])
    return (
        program_,
        texts[: len(words)],
        texts[len(words) :],
        folder,
        [(os.devnull.encode(), os.O_RDONLY), (out, APPEND), (err, APPEND)],
        copies(attempt.inherited),
        RESETTABLE,
    )


def _encoded(texts: list[str]) -> list[bytes]:
    """Return the texts as C wants them; encoding all at once costs a tenth of encoding each.

    Raises:
        ValueError: C would take a text for a shorter one, as it has a zero in it.
    """
    encoded = os.fsencode("\0".join(texts)).split(b"\0")
    if len(encoded) != len(texts):
        raise ValueError("embedded null character")
    return encoded
