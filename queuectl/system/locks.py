"""Kernel locks on files and folders, which end with the process that holds them. The only import of filelock.

A worker is alive while it holds the lock on its lock file: the kernel frees it at death, whatever the cause. A pid
proves nothing: after a reboot, or an hour of many processes, it belongs to another process.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import time
from contextlib import contextmanager, suppress
from functools import cache
from weakref import WeakSet

from queuectl.errors import SpoolError
from queuectl.system import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

_CLOSED = -1
"""The descriptor of a lock that was given back, and in a forked child, which does not have it."""

_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
_READ = os.O_RDONLY | files.O_CLOEXEC | getattr(os, "O_NONBLOCK", 0)
_FLAGS = os.O_RDWR | os.O_CREAT | files.O_CLOEXEC | _NOFOLLOW | getattr(os, "O_NONBLOCK", 0)


@contextmanager
def suspension_deferred() -> Iterator[None]:
    """Let Ctrl+Z take effect only after the block, in which others wait for what this process has locked."""
    if sys.platform == "win32":
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTSTP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Lock:
    """A kernel lock on a file that is never deleted, held by one process until release or death.

    If the lock file were deleted, a second process could lock a new file of the same name. Files of permits are deleted:
    a process that has locked one then asks `is_on` (see `control.permits`).
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd
        _held.add(self)

    @classmethod
    def inherited(cls, fd: int, path: str) -> Lock | None:
        """Return the lock that the process which started this one has taken for it; None if this is not that lock.

        Args:
            fd: the inherited descriptor.
            path: the lock file.
        """
        try:
            if os.path.samestat(os.stat(path), os.fstat(fd)) and _take(fd):
                os.set_inheritable(fd, False)
                return cls(fd)
        except OSError:
            return None
        return None

    @classmethod
    def acquire(cls, path: str, *, patience: float = 0.0) -> Lock | None:
        """Take the lock on a file, which is made if it is missing; None when another process holds it.

        Args:
            patience: seconds to keep trying. `is_locked` holds a lock for an instant, so a caller that draws a
                conclusion from None waits longer than that.

        Raises:
            OSError: the lock file cannot be opened.
        """
        fd = os.open(path, _FLAGS, 0o600)
        give_up = time.monotonic() + patience
        try:
            while not _take(fd):
                if time.monotonic() >= give_up:
                    os.close(fd)
                    return None
                time.sleep(0.01)
        except BaseException:
            os.close(fd)
            raise
        return cls(fd)

    @classmethod
    def on_folder(cls, path: str) -> Lock | None:
        """Take the lock on a folder itself; None when another process holds it.

        Raises:
            OSError: it does not exist, or folders cannot be locked here (Windows, some network shares).
        """
        return cls._on_existing(os.open(path, _READ | getattr(os, "O_DIRECTORY", 0)))

    @classmethod
    def on_existing_file(cls, path: str, mode: int) -> Lock | None:
        """Take the lock on an existing file; None when another process holds it.

        Args:
            mode: os.O_RDWR, or os.O_RDONLY if this user may only read it.

        Raises:
            OSError: it does not exist, or cannot be locked.
        """
        return cls._on_existing(os.open(path, _READ | mode | _NOFOLLOW))

    @classmethod
    def _on_existing(cls, fd: int) -> Lock | None:
        try:
            taken = _take(fd)
        except BaseException:
            os.close(fd)
            raise
        if taken:
            return cls(fd)
        os.close(fd)
        return None

    def is_on(self, path: str) -> bool:
        """Whether the file or folder that now has this path is the locked one."""
        try:
            return os.path.samestat(os.stat(path), os.fstat(self.fd))
        except OSError:
            return False

    def release(self) -> None:
        """Release the lock. It is unlocked before it is closed: a child that is just starting may have a copy of the descriptor."""
        if self.fd == _CLOSED:
            return
        from filelock import unlock_descriptor

        fd = self._forget()
        unlock_descriptor(fd)
        os.close(fd)

    def detach(self) -> None:
        """Close this process's descriptor; the lock lasts as long as any process that inherited a copy of it."""
        if self.fd != _CLOSED:
            os.close(self._forget())

    def _forget(self) -> int:
        """Return the descriptor, for the last time: its number may soon belong to another file of this process."""
        fd, self.fd = self.fd, _CLOSED
        _held.discard(self)
        return fd


_held: WeakSet[Lock] = WeakSet()
"""The locks that this process holds."""


def _close_in_child() -> None:
    """Close the copies of the locks that a forked child has got.

    A child of a program that embeds a worker would otherwise keep the worker's lock, and its job, after the worker's
    death. It must not unlock: that would take the lock from its parent, too.
    """
    for lock in _held:
        with suppress(OSError):
            os.close(lock.fd)
        lock.fd = _CLOSED
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_child)


def _take(fd: int) -> bool:
    return bool(_lock_descriptor()(fd, blocking=False))


@cache
def _lock_descriptor() -> Any:
    """Import filelock at the first lock, and look its function up only once: every job takes a lock."""
    from filelock import lock_descriptor

    return lock_descriptor


@contextmanager
def held(path: str, *, patience: float, busy: str) -> Iterator[Lock]:
    """Hold the lock on a file for a block.

    Args:
        patience: seconds to wait for others who have it.
        busy: what they do meanwhile, for the message, as in "other processes have been cancelling jobs".

    Raises:
        SpoolError: others have not given it back in that time, or the lock file cannot be opened.
    """
    try:
        lock = Lock.acquire(path, patience=patience)
    except OSError as error:
        raise SpoolError.from_os("lock", path, error) from None
    if lock is None:
        raise SpoolError(f"{busy} for {patience:g} s")
    try:
        yield lock
    finally:
        lock.release()


def is_locked(path: str) -> bool:
    """Whether any process holds the lock on a file; False when there is no such file.

    Raises:
        OSError: the lock file cannot be opened.
    """
    try:
        # Without O_CREAT: asking must not make a file, least of all in a spool of another user.
        lock = Lock.on_existing_file(path, os.O_RDWR)
    except FileNotFoundError:
        return False
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        lock = Lock.on_existing_file(path, os.O_RDONLY)
    if lock is None:
        return True
    lock.release()
    return False


def is_held(path: str) -> bool:
    """Whether any process holds the lock on a file; False when there is no such file. Several processes may ask at once.

    It asks by a shared lock. A process that tries to take the lock at this instant does not get it, as with `is_locked`.
    The file is opened for reading only: a watch reports when a writer closes a file, and must not report this.

    Raises:
        OSError: the lock file cannot be opened.
    """
    if sys.platform == "win32":
        return is_locked(path)
    import fcntl

    try:
        fd = os.open(path, _READ | _NOFOLLOW)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        fcntl.flock(fd, fcntl.LOCK_UN)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def is_folder_locked(path: str) -> bool:
    """Whether any process holds the lock on a folder; False where folders cannot be locked."""
    try:
        lock = Lock.on_folder(path)
    except OSError:
        return False
    if lock is None:
        return True
    lock.release()
    return False
