"""Linux's own account of what lands in a folder, with the names, and without a thread.

watchdog has a thread read the events and another hand them on. That costs some 250 µs an event and, worse, a worker
in the midst of its jobs waits for those threads. One read here brings many events, for 2 to 3 µs each.
"""

from __future__ import annotations

import os
import struct

from queuectl import libc

CLOSE_WRITE = 0x8
MOVED_TO = 0x80
CREATE = 0x100
DELETE_SELF = 0x400
MOVE_SELF = 0x800
OVERFLOW = 0x4000
IGNORED = 0x8000
UNMOUNT = 0x2000

LANDED = CLOSE_WRITE | MOVED_TO | CREATE
"""Whatever comes to lie in a folder. Not what leaves it: each claim does."""

OVER = DELETE_SELF | MOVE_SELF | IGNORED | UNMOUNT
"""The folder is gone, or is another's; from then on nothing more is told."""

_HEAD = struct.Struct("iIII")
_BUFFER = 1 << 16


class Ear:
    """Hears what lands in one folder.

    Args:
        folder: the folder, not its subfolders.

    Raises:
        OSError: the system has no such thing, or none left.

    Attributes:
        is_over: the folder is gone, or is another's.
    """

    def __init__(self, folder: str) -> None:
        self.fd = libc.call("inotify_init1", "c_int", os.O_NONBLOCK | os.O_CLOEXEC)
        self.is_over = False
        if self.fd < 0:
            raise OSError(code := libc.last_error(), os.strerror(code))
        mask = LANDED | DELETE_SELF | MOVE_SELF
        if libc.call("inotify_add_watch", "c_int c_char_p c_uint", self.fd, os.fsencode(folder), mask) < 0:
            code = libc.last_error()
            self.close()
            raise OSError(code, os.strerror(code), folder)

    def read(self) -> tuple[list[str], bool]:
        """Names of what has landed since the last time, and whether some may be missing. It never waits."""
        names: list[str] = []
        missed = False
        while True:
            try:
                told = os.read(self.fd, _BUFFER)
            except BlockingIOError:
                return names, missed
            at = 0
            while at < len(told):
                _, kind, _, length = _HEAD.unpack_from(told, at)
                at += _HEAD.size + length
                if kind & LANDED:
                    names.append(os.fsdecode(told[at - length : at].rstrip(b"\0")))
                elif kind & OVERFLOW:
                    missed = True
                elif kind & OVER:
                    self.is_over = True
            if len(told) < _BUFFER // 2:
                return names, missed

    def close(self) -> None:
        """Stop listening."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __del__(self) -> None:
        # A user has 128 of them; a worker that was made and never run to its end must not keep one.
        self.close()
