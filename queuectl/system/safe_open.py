"""Reading files and entering folders that somebody else may have put there.

No link is followed, no FIFO is waited for, no size is trusted.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from contextlib import contextmanager, suppress

from queuectl.system import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# Opened without O_NONBLOCK a FIFO blocks until somebody writes; without O_NOFOLLOW a link leads out of the spool.
SAFE_READ = (
    os.O_RDONLY
    | files.O_CLOEXEC
    | getattr(os, "O_BINARY", 0)
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_NONBLOCK", 0)
)
OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_OTHERS_ENTER = stat.S_IXGRP | stat.S_IXOTH
_LARGEST_NOTE = 1 << 16
_FOLDER = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0)
_NOATIME = getattr(os, "O_NOATIME", 0)
_HAS_LEASES = sys.platform.startswith("linux")


class NotReadable(Exception):
    """The path is not a regular file, or the file is too large; the text says which."""


def read_regular(path: str, limit: int) -> tuple[bytes, os.stat_result]:
    """Read a regular file that anybody may have put there.

    Args:
        limit: the most bytes it may have.

    Returns:
        the bytes, and the status of exactly the file that was read.

    Raises:
        NotReadable: a link, a folder, a FIFO, a device, a socket, or too large.
        OSError: it is gone, or may not be read.
    """
    try:
        fd = _open_noatime(path)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise NotReadable("a symbolic link, not a file") from None
        if error.errno in (errno.ENXIO, errno.ENODEV, errno.EOPNOTSUPP):
            raise NotReadable("a socket or a device, not a file") from None
        raise
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise NotReadable(f"{file_type(status.st_mode)}, not a file")
        # The apparent size alone decides: a sparse file of a terabyte takes no space on the disk.
        if status.st_size > limit:
            raise NotReadable(f"too large: {status.st_size} bytes, and the limit is {limit}")
        data = os.read(fd, status.st_size + 1)
        while len(data) > status.st_size and (more := os.read(fd, limit)):
            data += more  # it has grown since
            if len(data) > limit:
                raise NotReadable(f"too large: over {limit} bytes")
        return data, status
    finally:
        os.close(fd)


def read_text(path: str) -> str:
    """Return the text of a small file that anybody may have put there; "" if it cannot be read, or is too large."""
    try:
        return read_regular(path, _LARGEST_NOTE)[0].decode(errors="replace")
    except (NotReadable, OSError):
        return ""


def refuse_special(path: str) -> None:
    """Refuse a path that is not a regular file, before it is opened by a function that follows links.

    Raises:
        OSError: it is a link, a folder, a FIFO, a device or a socket, or it is gone.
    """
    mode = os.lstat(path).st_mode
    if not stat.S_ISREG(mode):
        raise OSError(errno.ELOOP, f"{file_type(mode)}, not a file", path)


def _open_noatime(path: str) -> int:
    """Open for reading without a new access time, which would be a write to the disk for every file that is read.

    Linux allows that to the owner alone.
    """
    try:
        return os.open(path, SAFE_READ | _NOATIME)
    except PermissionError:
        return os.open(path, SAFE_READ)


def file_type(mode: int) -> str:
    """Name the type of what is not a regular file, for a sentence."""
    for check, name in (
        (stat.S_ISDIR, "a folder"),
        (stat.S_ISLNK, "a symbolic link"),
        (stat.S_ISFIFO, "a FIFO"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISCHR, "a character device"),
        (stat.S_ISBLK, "a block device"),
    ):
        if check(mode):
            return name
    return "an object of unknown type"


def has_other_owner(status: os.stat_result, user: int | None = None) -> bool:
    """Whether a file belongs to neither this user nor root. Root can act as this user in any case.

    Args:
        user: the uid to compare with instead of this user's.
    """
    return sys.platform != "win32" and status.st_uid not in (0, os.geteuid() if user is None else user)


def other_owner(path: str) -> int | None:
    """The uid of the owner of a folder if that is neither this user nor root; else None, also if it is not there."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_uid if has_other_owner(status) else None


def refuse_untrusted(path: str, status: os.stat_result, user: int | None = None) -> None:
    """Refuse a file that another user owns or may write: what it says may be that user's word.

    Args:
        path: where the file is, or was until now.
        user: see has_other_owner.

    Raises:
        NotReadable: another user owns it or may write it.
    """
    if has_other_owner(status, user):
        raise NotReadable(f"belongs to another user (uid {status.st_uid})")
    if status.st_mode & OTHERS_WRITE and sys.platform != "win32" and _is_in_reach(path, status):
        mode = stat.S_IMODE(status.st_mode)
        raise NotReadable(f"can be written by others (mode {mode:04o}): check what it says, then chmod go-w")


def _is_in_reach(path: str, status: os.stat_result) -> bool:
    """Whether other users can get at a file: through its folder and the one above it, or by a second name.

    In folders of mode 0700 they cannot, and with a umask of 002 each dropped file has the mode 0664.
    """
    if status.st_nlink > 1:
        return True
    folder = os.path.dirname(path)
    try:
        return all(os.stat(one).st_mode & _OTHERS_ENTER for one in (folder, os.path.dirname(folder)))
    except OSError:
        return True


def is_open_for_writing(path: str) -> bool | None:
    """Whether any process has this file open for writing; None when the system cannot tell."""
    try:
        fd = os.open(path, SAFE_READ)
    except OSError:
        return None
    try:
        make_lease_signal_harmless(fd)
        return any_open_for_writing((fd,))
    finally:
        os.close(fd)


def make_lease_signal_harmless(fd: int) -> None:
    """Prepare a descriptor for any_open_for_writing; once is enough.

    If somebody opens the file for writing while this process has a lease on it, the kernel sends SIGIO, which would
    end this process. SIGURG is sent instead, which is ignored.
    """
    if _HAS_LEASES:
        import fcntl
        import signal

        fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)


def any_open_for_writing(fds: Iterable[int]) -> bool | None:
    """Whether any process has one of these files open for writing; None when the system cannot tell.

    Linux grants a read lease only on a file that nobody writes.

    Args:
        fds: descriptors opened for reading, each prepared with make_lease_signal_harmless.
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


@contextmanager
def held_folder(root: str, *names: str, make: bool = False) -> Iterator[str]:
    """Yield a path that leads into a folder below another one.

    On Linux it leads into the same folder, whatever is put in the place of a name on the way meanwhile. Elsewhere there
    was no link when it was looked at.

    Args:
        root: the folder in which to begin. The path to it may have links.
        names: of the folders on the way, one for each level.
        make: make those that are missing.

    Raises:
        FileNotFoundError: a folder is not there.
        OSError: one of the names is a link or no folder, or it cannot be opened.
    """
    if os.open not in os.supports_dir_fd:
        yield _checked(root, names, make=make)
        return
    fd = os.open(root, _FOLDER & ~getattr(os, "O_NOFOLLOW", 0))
    try:
        for name in names:
            if make:
                with suppress(FileExistsError):
                    os.mkdir(name, dir_fd=fd)
            inner = os.open(name, _FOLDER, dir_fd=fd)
            os.close(fd)
            fd = inner
        path = f"/proc/self/fd/{fd}"
        yield path if sys.platform == "linux" and os.path.isdir(path) else os.path.join(root, *names)
    finally:
        os.close(fd)


def _checked(root: str, names: tuple[str, ...], *, make: bool) -> str:
    path = root
    for name in names:
        path = os.path.join(path, name)
        if make:
            with suppress(FileExistsError):
                os.mkdir(path)
        if not stat.S_ISDIR(os.lstat(path).st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
    return path
