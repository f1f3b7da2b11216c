"""What signals mean to a worker: TERM and Ctrl+C end it, HUP has it read its settings, USR1 has it look whether there
is something new. Handlers only set flags.
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

from queuectl.system.process import hurry_signal

if TYPE_CHECKING:
    from collections.abc import Callable

    from queuectl.worker.worker import Worker

_HANGUP = getattr(signal, "SIGHUP", None)


class Terminal:
    """The terminal that this process was started in.

    HUP comes from the system when the terminal goes away, and from a person who wants the settings read.
    """

    def __init__(self) -> None:
        # Started by nohup, it is to go on without the terminal.
        self._matters = _HANGUP is not None and signal.getsignal(_HANGUP) != signal.SIG_IGN and _is_there()

    def is_gone(self) -> bool:
        """Whether it was there and is no longer."""
        return self._matters and not _is_there()


def _is_there() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | getattr(os, "O_NOCTTY", 0)))
    except OSError:
        return False
    return True


def on_hangup(terminal: Terminal, *, reread: Callable[[], None], leave: Callable[[], None]) -> None:
    """Let HUP mean "read the settings", or "leave" when the terminal has gone; nothing where there is no HUP."""
    if _HANGUP is not None:
        signal.signal(_HANGUP, lambda _number, _frame: leave() if terminal.is_gone() else reread())


def listen(worker: Worker, *, in_terminal: bool) -> None:
    """Let signals set the worker's flags.

    Args:
        in_terminal: Ctrl+C comes from a person, whose second one means force.
    """
    pressed: list[int] = []

    def on_interrupt(number: int, _frame: object) -> None:
        pressed.append(number)
        worker.stop(force=in_terminal and len(pressed) > 1)

    signal.set_wakeup_fd(worker.bell.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGINT, on_interrupt)
    signal.signal(signal.SIGTERM, lambda _number, _frame: worker.stop())
    on_hangup(Terminal(), reread=worker.read_settings, leave=worker.stop)
    number = hurry_signal()
    if number is not None:
        signal.signal(number, lambda _number, _frame: worker.look_now())
        worker.hurries = True


def go_deaf() -> None:
    """Nothing is left to stop: a signal during the last steps of Python must not make a failure of a good end."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
