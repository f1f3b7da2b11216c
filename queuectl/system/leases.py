"""Whether somebody else has a file open for writing: Linux grants a read lease only on one that nobody writes."""

from __future__ import annotations

import errno
import os
import sys

from queuectl.system import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_HAS_LEASES = sys.platform.startswith("linux")


def open_for_writing_elsewhere(path: str) -> bool | None:
    """Whether any process has this file open for writing. None: no way to tell here."""
    try:
        fd = os.open(path, files.CAUTIOUSLY)
    except OSError:
        return None
    try:
        prepare(fd)
        return is_any_written((fd,))
    finally:
        os.close(fd)


def prepare(fd: int) -> None:
    """Make it harmless to ask is_any_written of a descriptor: do so once.

    Whoever opens the file for writing while the lease stands makes the kernel send SIGIO, which ends a process.
    """
    if _HAS_LEASES:
        import fcntl
        import signal

        fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)


def is_any_written(fds: Iterable[int]) -> bool | None:
    """Whether any process has one of these files, open here for reading, open for writing. None: no way to tell here.

    Linux grants a read lease only on a file that nobody writes. Call prepare before.
    """
    if not _HAS_LEASES:
        return None
    import fcntl

    try:
        for fd in fds:
            fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
            fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as error:
        return True if error.errno == errno.EAGAIN else None
    return False
