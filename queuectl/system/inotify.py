"""Linux's own account of what lands in a folder, with the names, and without a thread.

watchdog has a thread read the events and another hand them on. That costs some 250 µs an event and, worse, a worker
in the midst of its jobs waits for those threads. One read here brings many events, for 2 to 3 µs each.
"""

from __future__ import annotations

import errno
import os
import struct

from queuectl.system import libc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

MODIFY = 0x2
ATTRIB = 0x4
CLOSE_WRITE = 0x8
MOVED_FROM = 0x40
MOVED_TO = 0x80
CREATE = 0x100
DELETE = 0x200
DELETE_SELF = 0x400
MOVE_SELF = 0x800
OVERFLOW = 0x4000
IGNORED = 0x8000
UNMOUNT = 0x2000
DONT_FOLLOW = 0x2000000
MASK_ADD = 0x20000000

LANDED = CLOSE_WRITE | MOVED_TO | CREATE
"""Whatever comes to lie in a folder. Not what leaves it: each claim does."""

OVER = DELETE_SELF | MOVE_SELF | IGNORED | UNMOUNT
"""The folder is gone, or is another's; from then on nothing more is told."""

SELF = ATTRIB | DELETE_SELF | MOVE_SELF
"""What becomes of a folder itself: who owns it and may write there, and where it is."""

NAMES = SELF | MOVED_FROM | MOVED_TO | CREATE | DELETE
"""That, and which files are in it."""

CONTENT = NAMES | MODIFY
"""That, and what is written to them."""

_HOME = LANDED | DELETE_SELF | MOVE_SELF
_HEAD = struct.Struct("iIII")
_BUFFER = 1 << 16


class Ear:
    """Hears what lands in one folder, and for a while more than that.

    Args:
        folder: the folder, not its subfolders.

    Raises:
        OSError: the system has no such thing, or none left.

    Attributes:
        is_over: the folder is gone, or is another's.
        stirred: something else has happened since it was told to listen more widely.
    """

    def __init__(self, folder: str) -> None:
        self.fd = libc.call("inotify_init1", "c_int", os.O_NONBLOCK | os.O_CLOEXEC)
        self.is_over = self.stirred = False
        self._folder, self._wide = folder, set[int]()
        if self.fd < 0:
            raise OSError(code := libc.last_error(), os.strerror(code))
        try:
            self._home = self._watch(folder, _HOME)
        except OSError:
            self.close()
            raise

    def _watch(self, path: str, mask: int) -> int:
        number = libc.call("inotify_add_watch", "c_int c_char_p c_uint", self.fd, os.fsencode(path), mask)
        if number < 0:
            raise OSError(code := libc.last_error(), os.strerror(code), path)
        return number

    def widen(self, paths: Iterable[tuple[str, int]]) -> None:
        """Listen to these files and folders, too; what does not exist is left out.

        Args:
            paths: each with what is to be heard of it.

        Raises:
            OSError: not all of them can be listened to.
        """
        self.stirred = False
        for path, mask in paths:
            try:
                self._wide.add(self._watch(path, mask | MASK_ADD))
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                    raise

    def narrow(self) -> None:
        """Listen to nothing but the one folder again."""
        for number in self._wide - {self._home}:
            libc.call("inotify_rm_watch", "c_int c_int", self.fd, number)
        if self._home in self._wide:
            # If this fails the folder is gone, which has been told.
            libc.call("inotify_add_watch", "c_int c_char_p c_uint", self.fd, os.fsencode(self._folder), _HOME)
        self._wide.clear()

    def read(self) -> tuple[list[str], bool]:
        """Names of what has landed since the last time, and whether some may be missing. It never waits."""
        names: list[str] = []
        missed = False
        while True:
            try:
                told = os.read(self.fd, _BUFFER)
            except BlockingIOError:
                return names, missed
            except OSError:
                return names, True  # what would have been told is found by a look, and no worker ends of it
            at = 0
            while at < len(told):
                number, kind, _, length = _HEAD.unpack_from(told, at)
                at += _HEAD.size + length
                if number == self._home and kind & LANDED:
                    names.append(os.fsdecode(told[at - length : at].rstrip(b"\0")))
                elif kind & OVERFLOW:
                    missed = True
                elif number == self._home and kind & OVER:
                    self.is_over = True
                elif number in self._wide:
                    self.stirred = True
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
