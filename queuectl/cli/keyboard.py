"""Read single keys from a terminal, and always restore the terminal: at the end, after Ctrl+C, after an error."""

from __future__ import annotations

import os
import select
import signal
import sys
from collections import deque
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from types import FrameType

QUIT, RESIZED = "quit", "resized"
"""What `read` returns after a signal to end, and after the size of the window has changed."""

_NAMES = {
    b"\x1b[A": "up",
    b"\x1b[B": "down",
    b"\x1bOA": "up",
    b"\x1bOB": "down",
    b"\x1b[5~": "page up",
    b"\x1b[6~": "page down",
    b"\x1b[H": "home",
    b"\x1b[F": "end",
    b"\x1b[1~": "home",
    b"\x1b[4~": "end",
    b"\x1bOH": "home",
    b"\x1bOF": "end",
    b"\x1b": "escape",
    b"\r": "enter",
    b"\n": "enter",
}
_ESCAPE_TIMEOUT = 0.05
"""Seconds to wait for the bytes after an escape: over a slow connection a key arrives in parts."""


_NOT_ENDING = ("CHLD", "CLD", "CONT", "URG", "WINCH", "PIPE", "XFSZ", "KILL", "STOP", "TSTP", "TTIN", "TTOU")
_CRASHES = ("SEGV", "BUS", "FPE", "ILL", "ABRT", "IOT", "TRAP", "SYS", "EMT")


def _ending_signals() -> list[int]:
    """Every signal that would end this program at once, with the terminal still in the mode of a full screen."""
    others = {getattr(signal, f"SIG{name}", None) for name in (*_NOT_ENDING, *_CRASHES)}
    always = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    return [
        number
        for number in signal.valid_signals()
        if number in always or (number not in others and signal.getsignal(number) == signal.SIG_DFL)
    ]


class Keys:
    """Reads keys one by one, and reports signals between them."""

    def __init__(self) -> None:
        self._fd = sys.stdin.fileno()
        self._pressed: deque[str] = deque()
        self._ended = False
        self._old: list[Any] = []
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> Self:
        import termios
        import tty

        self._old = termios.tcgetattr(self._fd)
        self._wake, self._waker = os.pipe()
        os.set_blocking(self._wake, False)
        os.set_blocking(self._waker, False)
        self._former = signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)
        # A signal only sets a flag that the next read checks, so it cannot interrupt drawing.
        for number in _ending_signals():
            self._handlers[number] = signal.signal(number, self._quit)
        self._handlers[signal.SIGWINCH] = signal.signal(signal.SIGWINCH, lambda *_: None)
        # Ctrl+Z would return to the shell with the terminal in this mode.
        self._handlers[signal.SIGTSTP] = signal.signal(signal.SIGTSTP, signal.SIG_IGN)
        tty.setcbreak(self._fd)
        return self

    def __exit__(self, *_: object) -> None:
        import termios

        termios.tcsetattr(self._fd, termios.TCSAFLUSH, self._old)
        signal.set_wakeup_fd(self._former)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        os.close(self._wake)
        os.close(self._waker)

    def _quit(self, _number: int, _frame: FrameType | None) -> None:
        self._ended = True

    def read(self, timeout: float) -> str | None:
        """Return the next key: a character, or a name such as up or enter; QUIT, RESIZED; None after timeout seconds."""
        if not self._pressed and not self._has_ended():
            ready, _, _ = select.select([self._fd, self._wake], [], [], max(0.0, timeout))
            if self._wake in ready:
                os.read(self._wake, 512)
                return QUIT if self._has_ended() else RESIZED
            if not ready:
                return None
            self._read_keys()
        if self._has_ended():
            return QUIT
        return self._pressed.popleft() if self._pressed else None

    def _has_ended(self) -> bool:
        return self._ended

    def _read_keys(self) -> None:
        """Read the typed bytes, and split them into keys."""
        data = self._read_bytes()
        while data:
            if data[:1] == b"\x1b":
                # Is it the escape key, or the first byte of a longer key?
                if len(data) < 3 and select.select([self._fd], [], [], _ESCAPE_TIMEOUT)[0]:
                    data += self._read_bytes()
                length = _length(data)
            else:
                length = 1
            key, data = data[:length], data[length:]
            self._pressed.append(_NAMES.get(key) or key.decode("latin-1"))

    def _read_bytes(self) -> bytes:
        try:
            data = os.read(self._fd, 256)
        except OSError:
            data = b""
        if not data:
            self._ended = True  # the terminal was closed
        return data


def _length(data: bytes) -> int:
    """The number of bytes of the key that starts with an escape."""
    if data[1:2] == b"O":
        return min(3, len(data))
    if data[1:2] != b"[":
        return 1
    for place in range(2, len(data)):
        if 0x40 <= data[place] <= 0x7E:
            return place + 1
    return len(data)
