"""Durable primitives: publish whole, replace whole, move without clobbering, read what a stranger wrote.

Knows no jobs. Every function either does all it says or raises OSError with nothing half done in view.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from contextlib import suppress

from queuectl._dataclasses import dataclass
from queuectl.system import libc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

O_CLOEXEC = getattr(os, "O_CLOEXEC", 0)
_BINARY = getattr(os, "O_BINARY", 0)
# A FIFO opened without O_NONBLOCK blocks for ever; a link would be followed out of the spool.
CAUTIOUSLY = os.O_RDONLY | O_CLOEXEC | _BINARY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
_NOATIME = getattr(os, "O_NOATIME", 0)
CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | O_CLOEXEC | _BINARY
OVERWRITE = os.O_WRONLY | O_CLOEXEC | _BINARY
_RENAME_NOREPLACE = 1
_AT_FDCWD = -100
_WRITE_AND_WAIT = 7  # SYNC_FILE_RANGE_WAIT_BEFORE | WRITE | WAIT_AFTER
_NOT_HERE = frozenset({errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP})
_NO_LINKS = _NOT_HERE | {errno.EPERM}


_FIVE_BITS = b"abcdefghijklmnopqrstuvwxyz234567" * 8


class Unfit(Exception):
    """What lies there is not a plain file that may be read; the text says what it is."""


def token() -> str:
    """A name part that nobody else will choose: 80 random bits as 16 characters of a-z and 2-7."""
    return os.urandom(16).translate(_FIVE_BITS).decode()


_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyz234567")


def shown_name(name: str) -> str:
    """A name as text, whatever bytes it is made of."""
    return os.fsencode(name).decode(errors="backslashreplace")


def is_scratch(name: str) -> bool:
    """Whether a name is one that queuectl gives to what it has not written to its end: ".", a token, ".tmp"."""
    return len(name) == 21 and name[0] == "." and name[17:] == ".tmp" and _LETTERS.issuperset(name[1:17])


def keep_from_children() -> None:
    """See that programs started from here inherit none of our descriptors but the first three."""
    with suppress(OSError):
        for name in os.listdir("/proc/self/fd"):
            with suppress(OSError):
                if int(name) > 2:
                    os.set_inheritable(int(name), False)


@dataclass(slots=True)
class Written:
    """What tells a file that was written from a later one in its place; the names are those of os.stat_result."""

    st_ino: int
    st_mtime_ns: int
    st_size: int


Mark = tuple[int, int, int]
"""Inode, time of change in nanoseconds, and size: what tells a file from another, and from itself before a change."""


def mark_of(status: os.stat_result) -> Mark:
    """A file's mark."""
    return status.st_ino, status.st_mtime_ns, status.st_size


def write_new(path: str, data: bytes, *, sync: bool) -> os.stat_result:
    """Create path, which must not exist, 0600, with these bytes; with sync they are on the disk on return."""
    fd = os.open(path, CREATE, 0o600)
    try:
        write_all(fd, data)
        if sync:
            sync_file(fd)
        return os.fstat(fd)
    except BaseException:
        # A failed fsync says nothing about which bytes are on disk, so the file is given up, never retried.
        with suppress(OSError):
            os.unlink(path)
        raise
    finally:
        os.close(fd)


def write_all(fd: int, data: bytes) -> None:
    """Write every byte; a disk that fills up half way cuts a single write short."""
    written = os.write(fd, data)
    if written == len(data):
        return
    view = memoryview(data)[written:]
    while view:
        view = view[os.write(fd, view) :]


def sync_file(fd: int) -> None:
    """Put a file's bytes on the disk. On macOS plain fsync stops at the drive's own cache."""
    if sys.platform == "darwin":
        import fcntl

        fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
    else:
        os.fsync(fd)


def send_ahead(fd: int) -> None:
    """See that a new file's bytes reach the disk no later than the name it gets next; neither is surely there yet.

    On Linux the bytes are written and waited for, but not the journal, for which a sync behind the name waits in any
    case: one wait instead of two. Not for a process's first file, as loading ctypes takes longer than that wait.
    """
    global _has_sent
    if not (CAN_SYNC_ALL and _has_sent and _sync_file_range(fd, 0, 0, _WRITE_AND_WAIT) == 0):
        sync_file(fd)
    _has_sent = True


_has_sent = False


def sync_folder(path: str) -> None:
    """Put a folder's names on the disk. Windows has no such call: there names are as durable as NTFS makes them."""
    if sys.platform == "win32":
        return
    fd = os.open(path, os.O_RDONLY | O_CLOEXEC | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_many(folder: str, paths: list[str]) -> None:
    """Put the bytes of many files on the disk. Linux does it with one call for the filesystem they share."""
    if not CAN_SYNC_ALL:
        for path in paths:
            fd = os.open(path, os.O_RDONLY | O_CLOEXEC | _BINARY)
            try:
                sync_file(fd)
            finally:
                os.close(fd)
        return
    sync_all(folder)


def sync_all(folder: str) -> None:
    """Put everything of the filesystem that holds this folder on the disk; elsewhere than Linux, of all of them."""
    if not CAN_SYNC_ALL:
        os.sync()
        return
    fd = os.open(folder, os.O_RDONLY | O_CLOEXEC | os.O_DIRECTORY)
    try:
        if _syncfs(fd) != 0:
            code = libc.last_error()
            raise OSError(code, os.strerror(code), folder)
    finally:
        os.close(fd)


def replace(path: str, data: bytes) -> None:
    """Swap a file that we own by name for new bytes, durably: readers see the old or the new, never half."""
    folder = os.path.dirname(path)
    scratch = os.path.join(folder, f".{token()}.tmp")
    write_new(scratch, data, sync=True)
    try:
        put_over(scratch, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(scratch)
        raise
    sync_folder(folder)


def put_over(scratch: str, path: str) -> None:
    """Give a synced file of ours the name of one that we own by name."""
    os.replace(scratch, path)


def set_aside(path: str, aside: str) -> None:
    """Rename a log of ours over the one set aside before it."""
    os.replace(path, aside)


def publish(scratch: str, target: str) -> None:
    """Give a new file of ours its name, but never an existing one's.

    A link refuses that by itself and costs as much as a rename; renameat2 would have to load ctypes first, and a lone
    enqueue has not so much time.

    Raises:
        FileExistsError: the target exists; nothing changed.
    """
    try:
        os.link(scratch, target)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        move(scratch, target)
        return
    with suppress(OSError):  # it has its name; the other one is swept like any leftover
        os.unlink(scratch)


def move(source: str, target: str) -> None:
    """Rename, but never onto an existing name.

    Raises:
        FileExistsError: the target exists; nothing changed.
        FileNotFoundError: the source is gone: somebody else moved it.
    """
    if sys.platform == "win32":
        os.rename(source, target)  # refuses an existing target by itself there
    elif not _rename_noreplace(source, target):
        _link_then_unlink(source, target)


def move_to_free_name(source: str, folder: str, name: str) -> str:
    """Move a file under this name, or under the next free one like it; says which.

    Raises:
        FileNotFoundError: the source is gone.
    """
    try:
        move(source, f"{folder}{os.sep}{name}")
    except FileExistsError:
        stem, dot, ending = name.rpartition(".")
    else:
        return name
    number = 2
    while True:
        candidate = f"{stem}-{number}{dot}{ending}"
        try:
            move(source, f"{folder}{os.sep}{candidate}")
        except FileExistsError:
            number += 1
        else:
            return candidate


def delete(path: str) -> None:
    """Delete a file, or a folder that somebody put where a file belongs; a link itself, never what it points to."""
    if os.path.isdir(path) and not os.path.islink(path):
        import shutil

        shutil.rmtree(path)
    else:
        os.unlink(path)


def _renameat2(*arguments: Any) -> int:
    return libc.call("renameat2", "c_int c_char_p c_int c_char_p c_uint", *arguments)


def _sync_file_range(*arguments: int) -> int:
    return libc.call("sync_file_range", "c_int c_int64 c_int64 c_uint", *arguments)


def _syncfs(fd: int) -> int:
    return libc.call("syncfs", "c_int", fd)


CAN_SYNC_ALL = sys.platform.startswith("linux")
"""Whether one call syncs a whole filesystem and waits for it."""


def _rename_noreplace(source: str, target: str) -> bool:
    """Try renameat2; False where the kernel or the filesystem does not know it."""
    if not sys.platform.startswith("linux"):
        return False
    status = _renameat2(_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), _RENAME_NOREPLACE)
    if status == 0:
        return True
    code = libc.last_error()
    if code in _NOT_HERE:
        return False
    raise OSError(code, os.strerror(code), source, None, target)


def _link_then_unlink(source: str, target: str) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        # No hard links here (FAT, some network shares): a look first is all that is left.
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target) from None
        os.rename(source, target)
        return
    os.unlink(source)


def _open_quietly(path: str) -> int:
    """Open for reading without leaving a time of access behind, which is a write to the disk for every file read.

    Linux allows that to the owner alone.
    """
    try:
        return os.open(path, CAUTIOUSLY | _NOATIME)
    except PermissionError:
        return os.open(path, CAUTIOUSLY)


def read_plain(path: str, limit: int) -> tuple[bytes, os.stat_result]:
    """Read a file that a stranger may have put there, without being led astray or held up.

    Args:
        limit: the most bytes it may have.

    Returns:
        the bytes, and the status of exactly the file that was read.

    Raises:
        Unfit: a link, a folder, a FIFO, a device, a socket, or too large.
        OSError: it is gone, or may not be read.
    """
    try:
        fd = _open_quietly(path)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise Unfit("a symbolic link, not a file") from None
        if error.errno in (errno.ENXIO, errno.ENODEV, errno.EOPNOTSUPP):
            raise Unfit("a socket or a device, not a file") from None
        raise
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise Unfit(f"{kind_of(status.st_mode)}, not a file")
        # The apparent size alone decides: a sparse file of a terabyte costs nothing to make.
        if status.st_size > limit:
            raise Unfit(f"too large: {status.st_size} bytes, and the limit is {limit}")
        data = os.read(fd, status.st_size + 1)
        while len(data) > status.st_size and (more := os.read(fd, limit)):
            data += more  # it has grown since
            if len(data) > limit:
                raise Unfit(f"too large: over {limit} bytes")
        return data, status
    finally:
        os.close(fd)


def has_fine_times(folder: str) -> bool:
    """Whether two changes of a folder in quick succession leave two times, as on Linux from 6.13 on.

    Elsewhere the time of files moves in ticks of some milliseconds, and a change within a tick leaves no trace.
    """
    path = os.path.join(folder, f".{token()}.tmp")
    try:
        return any(_leaves_three_times(folder, path) for _ in range(3))
    except OSError:
        return False


def _leaves_three_times(folder: str, path: str) -> bool:
    os.close(os.open(path, CREATE, 0o600))
    first = os.stat(folder).st_mtime_ns
    os.rename(path, path + "2")
    second = os.stat(folder).st_mtime_ns
    os.unlink(path + "2")
    third = os.stat(folder).st_mtime_ns
    return first < second < third < first + 1_000_000  # two ticks of the fastest clock take longer


def is_strangers(status: os.stat_result) -> bool:
    """Whether a file belongs to neither this user nor root, who may do as they please with this user anyway."""
    return sys.platform != "win32" and status.st_uid not in (0, os.geteuid())


def user_name(uid: int) -> str:
    """The user's name, or the number of one who has none."""
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def kind_of(mode: int) -> str:
    """Name what is not a plain file, for a sentence."""
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
    return "something odd"
