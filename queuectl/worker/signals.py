"""What ends or wakes a worker: signals, stop notes in the spool, and the program that runs it.

SIGTERM and Ctrl+C stop it, SIGHUP makes it read its settings, SIGUSR1 makes it look for news at once. Handlers only set
flags.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from queuectl.control import commands
from queuectl.control.commands import wake_signal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from queuectl.control.registration import Registration
    from queuectl.system.wake_up import WakeUp

_HANGUP = getattr(signal, "SIGHUP", None)


class StopFlags:
    """What a worker has been asked to do. `stop` and `request_look` are safe in a signal handler and in other threads.

    Args:
        wake_up: ends the worker's wait when a flag is set.

    Attributes:
        stopping: finish the running job, then leave.
        forced: end the running job, put it back, then leave.
        look_requested: do the periodic duties now instead of at the next second.
        registration: where the worker's stop note is looked for; None before it has a name.
        lacks_modules: it leaves because a part of queuectl cannot be loaded.
        handles_wake_signal: SIGUSR1 is handled. It would kill a process that does not handle it.
    """

    def __init__(self, wake_up: WakeUp) -> None:
        self.stopping = self.forced = self.look_requested = self.lacks_modules = False
        self.handles_wake_signal = False
        self.registration: Registration | None = None
        self.wake_up = wake_up
        self._is_over: Callable[[], bool] = lambda: False

    def stop(self, *, force: bool) -> None:
        """Ask the worker to leave."""
        self.stopping = True
        self.forced = self.forced or force
        self.wake_up.set()

    def request_look(self) -> None:
        """Ask the worker to do its periodic duties now."""
        self.look_requested = True
        self.wake_up.set()

    def leave_when(self, is_over: Callable[[], bool]) -> None:
        """Ask the worker to leave once this returns True."""
        self._is_over = is_over

    @property
    def any_set(self) -> bool:
        """Whether an idle worker has to wake up."""
        return self.stopping or self.look_requested or self._is_over()

    def look(self) -> None:
        """Read the stop note, and ask whether the worker's purpose is over."""
        wanted = commands.requested_stop(self.registration) if self.registration else None
        if wanted or self._is_over():
            self.stopping = True
        self.forced = self.forced or wanted == "force"


class Terminal:
    """The terminal that this process was started in.

    SIGHUP has two senders: the system when the terminal closes, and a person who wants the settings read.
    """

    def __init__(self) -> None:
        # Under nohup the process is meant to outlive its terminal.
        self._matters = (
            _HANGUP is not None and signal.getsignal(_HANGUP) != signal.SIG_IGN and _has_terminal()
        )

    def is_gone(self) -> bool:
        """Whether the process had a terminal and lost it."""
        return self._matters and not _has_terminal()


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | getattr(os, "O_NOCTTY", 0)))
    except OSError:
        return False
    return True


def on_hangup(terminal: Terminal, *, reread: Callable[[], None], leave: Callable[[], None]) -> None:
    """Handle SIGHUP, where it exists: leave if the terminal has closed, else read the settings."""
    if _HANGUP is not None:
        signal.signal(_HANGUP, lambda _number, _frame: leave() if terminal.is_gone() else reread())


def listen(flags: StopFlags, *, reread: Callable[[], None], in_terminal: bool) -> None:
    """Install the signal handlers of a worker process.

    Args:
        reread: reads the settings again.
        in_terminal: Ctrl+C comes from a person; the second one forces the stop.
    """
    pressed: list[int] = []

    def on_interrupt(number: int, _frame: object) -> None:
        pressed.append(number)
        flags.stop(force=in_terminal and len(pressed) > 1)

    signal.set_wakeup_fd(flags.wake_up.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGINT, on_interrupt)
    signal.signal(signal.SIGTERM, lambda _number, _frame: flags.stop(force=False))
    on_hangup(Terminal(), reread=reread, leave=lambda: flags.stop(force=False))
    number = wake_signal()
    if number is not None:
        signal.signal(number, lambda _number, _frame: flags.request_look())
        flags.handles_wake_signal = True
    unblock()


def unblock() -> None:
    """Let all signals through, after their handlers are set.

    A program hands the signals that it has blocked down to what it starts. Deaf to TERM, a worker would outlive the
    service or container that ends it, and be killed in the middle of its job.
    """
    if sys.platform != "win32":
        signal.pthread_sigmask(signal.SIG_SETMASK, ())


@contextmanager
def interrupts_as_stop(flags: StopFlags) -> Iterator[None]:
    """Take Ctrl+C as a forced stop of a worker that runs inside a program, and raise KeyboardInterrupt at the end.

    Raised in the middle of a move, it would leave a job claimed by nobody, and its command running without a worker. A
    second Ctrl+C is raised at once. A handler of the program's own is left alone.
    """
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    ):
        yield
        return
    pressed: list[int] = []

    def on_interrupt(number: int, _frame: object) -> None:
        pressed.append(number)
        if len(pressed) > 1:
            raise KeyboardInterrupt
        flags.stop(force=True)

    signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if pressed:
        raise KeyboardInterrupt


def ignore_all() -> None:
    """Ignore all signals: one that arrives while Python shuts down would turn a good exit into a failure."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
