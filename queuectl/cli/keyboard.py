"""Single keys from a terminal, which is left as it was found: on the way out, on Ctrl+C, and on errors."""

from __future__ import annotations

import os
import select
import signal
import sys
from collections import deque
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from types import FrameType

OVER, RESIZED = "over", "resized"
"""What `read` returns when it is time to leave, and when the window has another size."""

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
_REST_OF_A_KEY = 0.05
"""Seconds to wait for what follows an escape: over a slow line a key comes in pieces."""


class Keys:
    """Reads keys one by one, and hears of signals meanwhile."""

    def __init__(self) -> None:
        self._fd = sys.stdin.fileno()
        self._pressed: deque[str] = deque()
        self._over = False
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
        # What a signal does is done at the next read: never in the middle of drawing.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            self._handlers[number] = signal.signal(number, self._leave)
        self._handlers[signal.SIGWINCH] = signal.signal(signal.SIGWINCH, lambda *_: None)
        # Stopped in the middle it would leave the shell with a screen that is not its own.
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

    def _leave(self, _number: int, _frame: FrameType | None) -> None:
        self._over = True

    def read(self, timeout: float) -> str | None:
        """The next key: a character, or a name such as up or enter; OVER, RESIZED; None after so many seconds."""
        if not self._pressed and not self._is_over():
            ready, _, _ = select.select([self._fd, self._wake], [], [], max(0.0, timeout))
            if self._wake in ready:
                os.read(self._wake, 512)
                return OVER if self._is_over() else RESIZED
            if not ready:
                return None
            self._take()
        if self._is_over():
            return OVER
        return self._pressed.popleft() if self._pressed else None

    def _is_over(self) -> bool:
        return self._over

    def _take(self) -> None:
        """Read what was typed, and cut it into keys."""
        data = self._more()
        while data:
            if data[:1] == b"\x1b":
                # An escape by itself, or the beginning of a key that has more?
                if len(data) < 3 and select.select([self._fd], [], [], _REST_OF_A_KEY)[0]:
                    data += self._more()
                length = _length(data)
            else:
                length = 1
            key, data = data[:length], data[length:]
            self._pressed.append(_NAMES.get(key) or key.decode("latin-1"))

    def _more(self) -> bytes:
        try:
            data = os.read(self._fd, 256)
        except OSError:
            data = b""
        if not data:
            self._over = True  # the terminal is gone
        return data


def _length(data: bytes) -> int:
    """How many bytes belong to the key that begins with an escape."""
    if data[1:2] == b"O":
        return min(3, len(data))
    if data[1:2] != b"[":
        return 1
    for place in range(2, len(data)):
        if 0x40 <= data[place] <= 0x7E:
            return place + 1
    return len(data)
