"""Output files of attempts: opened for a job, cut while it writes, read at their end."""

from __future__ import annotations

import os
from contextlib import suppress

from queuectl.errors import SpoolError
from queuectl.system import files, safe_open

_BINARY = getattr(os, "O_BINARY", 0)
APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND
"""How a job opens its output: appended to, so that it can be cut while it is written."""

_FLAGS = APPEND | files.O_CLOEXEC | _BINARY
_READ = os.O_RDONLY | files.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0) | _BINARY


class Outputs:
    """The two files that a worker's runs print into, one run after another as long as they stay empty.

    They are kept open for reading: what is asked of a descriptor costs a third of what is asked of a path.
    """

    __slots__ = ("_fds", "paths")

    def __init__(self, stdout: str, stderr: str) -> None:
        self.paths = (stdout, stderr)
        self._fds: list[int | None] = [None, None]

    def empty(self) -> None:
        """Have both there and empty; nothing to do for one that the run before this one left so.

        Raises:
            SpoolError: a file cannot be made.
        """
        try:
            for place, path in enumerate(self.paths):
                if self._fds[place] is None:
                    self._fds[place] = _empty(path)
        except SpoolError:
            self.forget()
            raise

    def sizes(self) -> tuple[int, int] | None:
        """What was printed, in bytes; None when somebody took a file away, so that only its path can be asked."""
        first, second = self._fds
        if first is None or second is None:
            return None
        one, other = os.fstat(first), os.fstat(second)
        return (one.st_size, other.st_size) if one.st_nlink and other.st_nlink else None

    def is_written(self) -> bool:
        """Whether a process has one of them open for writing still."""
        return bool(safe_open.any_open_for_writing([fd for fd in self._fds if fd is not None]))

    def __del__(self) -> None:
        self.forget()

    def forget(self, sizes: tuple[int, int] | None = None) -> None:
        """Let go of both, or of what holds something: they are not what the next run writes into.

        Args:
            sizes: what was printed.
        """
        for place, fd in enumerate(self._fds):
            if fd is not None and (sizes is None or sizes[place]):
                os.close(fd)
                self._fds[place] = None


def _empty(path: str) -> int:
    """Make an empty file, 0600 if it is new, that a job can print into; returns a descriptor for reading.

    Raises:
        SpoolError: the file cannot be made.
    """
    try:
        fd = os.open(path, _READ | os.O_CREAT, 0o600)
        try:
            if os.fstat(fd).st_size:
                os.close(open_for_job(path))
            safe_open.make_lease_signal_harmless(fd)
        except BaseException:
            os.close(fd)
            raise
    except OSError as error:
        raise SpoolError.from_os("write a job's output into", path, error) from None
    return fd


def open_for_job(path: str) -> int:
    """Make an empty file, 0600 if it is new, that a job may append to; returns the descriptor.

    Raises:
        SpoolError: the file cannot be made.
    """
    try:
        fd = os.open(path, _FLAGS, 0o600)
        if os.fstat(fd).st_size:
            try:
                os.ftruncate(fd, 0)
            finally:
                os.close(fd)
            # ext4 sends a file that was truncated to the disk at its next close. That close has just been;
            # without it the job's own end would wait for the disk, 0.2 ms a job.
            fd = os.open(path, _FLAGS, 0o600)
    except OSError as error:
        raise SpoolError.from_os("write a job's output into", path, error) from None
    return fd


def cut(path: str, limit: int) -> int:
    """Keep a file's first limit bytes and a note, even while it is being written. Returns the size it had.

    The writers append, so they go on behind the cut without a hole, and are cut again at the next look.
    """
    note = f"\n[queuectl: output cut at {limit} bytes]\n".encode()
    try:
        size = os.stat(path).st_size
        if size <= limit + len(note):
            return size
        fd = os.open(path, os.O_WRONLY | files.O_CLOEXEC | _BINARY)
    except OSError:
        return 0  # somebody took the file away; the job's end must not hang on that
    try:
        with suppress(OSError):
            # Written over what stands there, before the cut: nothing that is appended now can come in between.
            os.lseek(fd, limit, os.SEEK_SET)
            files.write_all(fd, note)
            os.ftruncate(fd, limit + len(note))
    finally:
        os.close(fd)
    return size
