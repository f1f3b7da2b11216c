"""Capturing what an attempt prints: its two output files are opened, measured, and cut while it writes.

Output goes to files and never through a pipe: nobody has to read it while the job runs, and a background child that
keeps it open delays nobody.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress

from queuectl.errors import SpoolError
from queuectl.system import files, safe_open

_BINARY = getattr(os, "O_BINARY", 0)
APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND
"""How a job opens its output. It must append, so that the file can be cut while the job writes."""

_WRITE = APPEND | files.O_CLOEXEC | _BINARY
_READ = os.O_RDONLY | files.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0) | _BINARY


class OutputFiles:
    """The two output files of a worker's runs. A file that stays empty serves one run after another.

    They are kept open for reading: asking a descriptor costs a third of asking a path.
    """

    __slots__ = ("_changed", "_fds", "paths")

    def __init__(self, stdout: str, stderr: str) -> None:
        self.paths = (stdout, stderr)
        self._fds: list[int | None] = [None, None]
        self._changed = [0, 0]

    def prepare(self) -> None:
        """Make sure that both files exist and are empty. A file left empty by the previous run costs nothing.

        Raises:
            SpoolError: a file cannot be made.
        """
        try:
            for place, path in enumerate(self.paths):
                if self._fds[place] is None:
                    self._fds[place], self._changed[place] = _open_empty(path)
        except SpoolError:
            self.forget()
            raise

    def sizes(self) -> tuple[int, int] | None:
        """The bytes in both files; None when somebody deleted, moved or replaced a file, so that its path must be asked.

        A rename changes the change time of a file. A file that is still empty has no other reason to change.
        """
        first, second = self._fds
        if first is None or second is None:
            return None
        found = (os.fstat(first), os.fstat(second))
        for status, changed in zip(found, self._changed, strict=True):
            if not status.st_nlink or (not status.st_size and status.st_ctime_ns != changed):
                return None
        return found[0].st_size, found[1].st_size

    def is_open_for_writing(self) -> bool:
        """Whether a process can still write to one of them."""
        return bool(safe_open.any_open_for_writing([fd for fd in self._fds if fd is not None]))

    def __del__(self) -> None:
        self.forget()

    def forget(self, sizes: tuple[int, int] | None = None) -> None:
        """Close the files that the next run must not write into.

        Args:
            sizes: the bytes in each: only files that hold something are closed. None: both.
        """
        for place, fd in enumerate(self._fds):
            if fd is not None and (sizes is None or sizes[place]):
                os.close(fd)
                self._fds[place] = None


def _open_empty(path: str) -> tuple[int, int]:
    """Make an empty file, 0600 if it is new; return a descriptor for reading, and its change time in nanoseconds.

    Raises:
        SpoolError: the file cannot be made.
    """
    try:
        _delete_if_shared(path)
        fd = os.open(path, _READ | os.O_CREAT, 0o600)
        try:
            status = os.fstat(fd)
            if status.st_size:
                os.close(open_for_job(path))
                status = os.fstat(fd)
            safe_open.make_lease_signal_harmless(fd)
        except BaseException:
            os.close(fd)
            raise
    except OSError as error:
        raise SpoolError.from_os("write a job's output into", path, error) from None
    return fd, status.st_ctime_ns


def _delete_if_shared(path: str) -> None:
    """Delete a link that a job has put there, and a file with a second name, as `cp -al` makes: not ours to write into."""
    with suppress(FileNotFoundError):
        status = os.lstat(path)
        if not stat.S_ISDIR(status.st_mode) and (status.st_nlink > 1 or not stat.S_ISREG(status.st_mode)):
            os.unlink(path)


def open_for_job(path: str) -> int:
    """Make an empty file, 0600 if it is new, and return a descriptor that a job may append to.

    Raises:
        SpoolError: the file cannot be made.
    """
    try:
        fd = os.open(path, _WRITE, 0o600)
        if os.fstat(fd).st_size:
            try:
                os.ftruncate(fd, 0)
            finally:
                os.close(fd)
            # ext4 writes a truncated file to the disk at its next close. The close above is that one; without it the
            # job's own end would wait for the disk, 0.2 ms for every job.
            fd = os.open(path, _WRITE, 0o600)
    except OSError as error:
        raise SpoolError.from_os("write a job's output into", path, error) from None
    return fd


def cut(path: str, limit: int) -> int:
    """Keep a file's first bytes and a note, even while it is being written. Returns the size it had.

    The writers append, so they go on behind the cut without leaving a hole, and are cut again at the next check.

    Args:
        limit: bytes to keep.
    """
    note = f"\n[queuectl: output cut at {limit} bytes]\n".encode()
    try:
        size = os.lstat(path).st_size
        if size <= limit + len(note):
            return size
        fd = os.open(path, files.OVERWRITE)
    except OSError:
        return 0  # somebody deleted the file, or put a link there; the job must end all the same
    try:
        with suppress(OSError):
            # The note overwrites output before the cut, so that nothing appended now can come between them.
            os.lseek(fd, limit, os.SEEK_SET)
            files.write_all(fd, note)
            os.ftruncate(fd, limit + len(note))
    finally:
        os.close(fd)
    return size
