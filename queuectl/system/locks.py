"""Who a worker is, and whether it is provably gone. The only import of filelock, with config's lock.

A worker is alive while it holds the kernel lock on its lock file: the kernel frees it at death, however that
comes about. A pid says nothing by itself: after a reboot or a busy hour it names somebody else.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from queuectl.system import files
from queuectl.system.boot import boot_id

if TYPE_CHECKING:
    from collections.abc import Mapping

_FLAGS = os.O_RDWR | os.O_CREAT | files.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0)


class Lock:
    """A kernel lock on a file that is never deleted, held by one process until release or death.

    Deleting a lock file would let a second process lock a new file of the same name beside the first.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd

    @classmethod
    def acquire(cls, path: str, *, patience: float = 0.0) -> Lock | None:
        """Take the lock, or None when another holds it.

        Args:
            patience: seconds to go on trying. Someone who only asks whether the lock is held holds it
                for an instant, so a "held" that decides something deserves a second look.

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
        """Take the lock on a folder itself, or None when another holds it.

        Raises:
            OSError: it is not there, or folders cannot be locked here (Windows, some network shares).
        """
        return cls.on(path, getattr(os, "O_DIRECTORY", 0))

    @classmethod
    def on(cls, path: str, flags: int) -> Lock | None:
        """Take the lock on what is there, opened for reading only, or None when another holds it.

        Raises:
            OSError: it is not there, or cannot be locked.
        """
        fd = os.open(path, os.O_RDONLY | files.O_CLOEXEC | flags)
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
        """Whether the file or folder of this name still is the one that is locked."""
        try:
            return os.path.samestat(os.stat(path), os.fstat(self.fd))
        except OSError:
            return False

    def release(self) -> None:
        """Give it back. Unlocked before closing: a copy of the descriptor may be in a child being spawned."""
        from filelock import unlock_descriptor

        unlock_descriptor(self.fd)
        os.close(self.fd)

    def abandon(self) -> None:
        """Close our descriptor and leave the lock to whoever inherited a copy of it."""
        os.close(self.fd)


def _take(fd: int) -> bool:
    return bool(_lock_descriptor()(fd, blocking=False))


@cache
def _lock_descriptor() -> Any:
    """The call of filelock, imported where a lock is taken, and looked up once: each job takes a lock."""
    from filelock import lock_descriptor

    return lock_descriptor


def is_held(path: str) -> bool:
    """Whether any process holds the lock. A missing lock file is held by nobody."""
    if not os.path.exists(path):
        return False
    try:
        lock = Lock.acquire(path)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        lock = Lock.on(path, getattr(os, "O_NOFOLLOW", 0))  # who may only read may look, too
    if lock is None:
        return True
    lock.release()
    return False


def is_folder_held(path: str) -> bool:
    """Whether any process holds the lock on a folder. Where folders cannot be locked nobody does."""
    try:
        lock = Lock.on_folder(path)
    except OSError:
        return False
    if lock is None:
        return True
    lock.release()
    return False


@dataclass(frozen=True, slots=True)
class Identity:
    """A process beyond doubt: its number, when it started (see `start_of`), and in which boot."""

    pid: int
    started: float
    boot: str

    @classmethod
    def mine(cls) -> Identity:
        """This process.

        Raises:
            OSError: the system would not say when it started.
        """
        started = start_of(os.getpid())
        if started is None:
            raise OSError(errno.EACCES, "no look at this process")
        return cls(os.getpid(), started, boot_id())

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Identity | None:
        """Read it out of a worker's record; None when the record is not one."""
        pid, started, boot = record.get("pid"), record.get("process_started"), record.get("boot_id")
        if isinstance(pid, int) and isinstance(started, int | float) and isinstance(boot, str):
            return cls(pid, float(started), boot)
        return None

    def is_running(self) -> bool:
        """Whether exactly this process lives."""
        if self.boot != boot_id():
            return False
        started = start_of(self.pid)
        return started is not None and abs(started - self.started) < 0.05

    def send(self, number: int) -> bool:
        """Signal exactly this process; False when it is gone. Never signals a stranger who got its number."""
        if not hasattr(os, "pidfd_open"):
            return self.is_running() and _kill(self.pid, number)
        try:
            handle = os.pidfd_open(self.pid)
        except OSError:
            return False
        try:
            # The handle is taken before the look: it goes on naming this process even if the number is reused.
            if not self.is_running():
                return False
            signal.pidfd_send_signal(handle, number)
        except OSError:
            return False
        finally:
            os.close(handle)
        return True


def start_of(pid: int) -> float | None:
    """When a process started; None for one that is not there, or is dead and only not collected yet.

    On Linux in ticks since the boot. Seconds by the clock would be others after each step of that: no worker could be
    stopped on a machine whose clock is set some moments after the boot.
    """
    if sys.platform == "linux":
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                words = file.read().rpartition(b") ")[2].split()
            return None if words[0] in _DEAD else float(words[_START])
        except (OSError, IndexError, ValueError):
            return None
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else float(process.create_time())
    except psutil.Error:
        return None


_DEAD = (b"Z", b"X")
_START = 19
"""Word of /proc/PID/stat behind the name: proc(5) numbers the start 22, counting from the pid."""


def _kill(pid: int, number: int) -> bool:
    try:
        os.kill(pid, number)
    except OSError:
        return False
    return True


def surely_gone(pid: int) -> bool:
    """Whether no process has this number, or only the rest of a dead one, whose last thread may hold its locks for an
    instant yet. That one has it says nothing; and Windows is not asked, where it would kill.
    """
    if sys.platform == "win32" or pid <= 0:
        return False
    with suppress(OSError), open(f"/proc/{pid}/stat", "rb") as file:
        return file.read().rpartition(b") ")[2][:1] in _DEAD
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


def nudge_signal() -> int | None:
    """The signal that makes a worker look at its stop file at once; None where there is none to send."""
    return None if sys.platform == "win32" else signal.SIGTERM


def hurry_signal() -> int | None:
    """The signal that makes a worker look at once for a cancel or a pause; None where there is none to send."""
    return None if sys.platform == "win32" else signal.SIGUSR1
