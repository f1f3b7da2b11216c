"""Durable changes of files: write, replace, publish, and move without overwriting. Knows no jobs.

Every function either does all that it says, or raises OSError and leaves no half-written file behind.
"""

from __future__ import annotations

import errno
import os
import sys
from contextlib import suppress

from queuectl.fast_start.dataclass import dataclass
from queuectl.system import libc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

O_CLOEXEC = getattr(os, "O_CLOEXEC", 0)
_BINARY = getattr(os, "O_BINARY", 0)
CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | O_CLOEXEC | _BINARY
OVERWRITE = os.O_WRONLY | O_CLOEXEC | _BINARY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
_RENAME_NOREPLACE = 1
_RENAME_EXCHANGE = 2
_AT_FDCWD = -100
_WRITE_AND_WAIT = 7  # SYNC_FILE_RANGE_WAIT_BEFORE | WRITE | WAIT_AFTER
_NOT_SUPPORTED = frozenset({errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP})
_NO_LINKS = _NOT_SUPPORTED | {errno.EPERM}
_BASE32 = b"abcdefghijklmnopqrstuvwxyz234567"
_BYTE_TO_BASE32 = _BASE32 * 8
_BASE32_LETTERS = frozenset(_BASE32.decode())


def token() -> str:
    """Return 80 random bits as 16 characters of a-z and 2-7, so that no two processes choose the same name."""
    return os.urandom(16).translate(_BYTE_TO_BASE32).decode()


def temporary_name() -> str:
    """Return a new name for a file that is not complete yet: ".", a token, ".tmp"."""
    return f".{token()}.tmp"


def is_temporary_name(name: str) -> bool:
    """Whether a name is one that `temporary_name` makes."""
    return (
        len(name) == 21 and name[0] == "." and name[17:] == ".tmp" and _BASE32_LETTERS.issuperset(name[1:17])
    )


def printable_name(name: str) -> str:
    """Return a file name as text that can be printed, whatever bytes it consists of."""
    return os.fsencode(name).decode(errors="backslashreplace")


@dataclass(slots=True)
class FileStat:
    """The fields of os.stat_result that a row of the index keeps, for a file that is not looked at again."""

    st_ino: int
    st_mtime_ns: int
    st_size: int


Fingerprint = tuple[int, int, int]
"""Inode, modification time in nanoseconds, size. A different fingerprint means another file, or changed content."""


def fingerprint(status: os.stat_result) -> Fingerprint:
    """Return a file's fingerprint."""
    return status.st_ino, status.st_mtime_ns, status.st_size


def identity(status: os.stat_result) -> str:
    """Return a text that differs from that of every earlier file at the same path, and after each change of the file."""
    return f"{status.st_ino}.{status.st_ctime_ns}"


def write_new(path: str, data: bytes, *, sync: bool) -> os.stat_result:
    """Create a file, mode 0600, with these bytes; with sync they are on the disk on return.

    Raises:
        FileExistsError: the name is taken.
        OSError: it cannot be written; the file is deleted again.
    """
    fd = os.open(path, CREATE, 0o600)
    try:
        write_all(fd, data)
        if sync:
            sync_file(fd)
        return os.fstat(fd)
    except BaseException:
        # After a failed fsync nobody knows which bytes are on the disk, and a second fsync would not tell.
        with suppress(OSError):
            os.unlink(path)
        raise
    finally:
        os.close(fd)


def write_all(fd: int, data: bytes) -> None:
    """Write every byte. A disk that fills up makes os.write stop in the middle without an error."""
    written = os.write(fd, data)
    if written == len(data):
        return
    view = memoryview(data)[written:]
    while view:
        view = view[os.write(fd, view) :]


def sync_file(fd: int) -> None:
    """Put a file's bytes on the disk. On macOS fsync alone leaves them in the drive's own cache."""
    if sys.platform == "darwin":
        import fcntl

        fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
    else:
        os.fsync(fd)


def sync_data(fd: int) -> None:
    """Write a new file's bytes, so that they are on the disk no later than the name that it gets next.

    On Linux this waits for the bytes but not for the journal; the sync that follows the rename waits for that. So
    there is one wait instead of two. The first file of a process is synced fully: loading ctypes takes longer.
    """
    global _has_synced_data
    if not (HAS_SYNCFS and _has_synced_data and _sync_file_range(fd, 0, 0, _WRITE_AND_WAIT) == 0):
        sync_file(fd)
    _has_synced_data = True


_has_synced_data = False


def sync_folder(path: str) -> None:
    """Put a folder's entries on the disk. Windows has no such call; NTFS keeps its own journal of names."""
    if sys.platform == "win32":
        return
    fd = os.open(path, os.O_RDONLY | O_CLOEXEC | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_files(folder: str, paths: list[str]) -> None:
    """Put the bytes of files of a folder on the disk: several with one call on Linux, else one by one.

    A single file is synced by itself: the call for the whole filesystem also waits for what other programs have written.
    """
    if not HAS_SYNCFS or len(paths) == 1:
        for path in paths:
            fd = os.open(path, os.O_RDONLY | O_CLOEXEC | _BINARY)
            try:
                sync_file(fd)
            finally:
                os.close(fd)
        return
    sync_filesystem(folder)


def sync_filesystem(folder: str) -> None:
    """Put everything of the filesystem that holds this folder on the disk; where not on Linux, of all filesystems."""
    if not HAS_SYNCFS:
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
    """Replace a file of queuectl's own by new bytes: a reader sees the old or the new bytes, never a mixture."""
    folder = os.path.dirname(path)
    scratch = os.path.join(folder, temporary_name())
    write_new(scratch, data, sync=True)
    try:
        rename_over(scratch, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(scratch)
        raise
    sync_folder(folder)


def write_afresh(path: str, data: bytes) -> None:
    """Write a file of queuectl's own that nobody reads before this returns, and that need not outlive a power cut.

    The old file is deleted first. If a new one is renamed over it, ext4 begins to write it to the disk, which takes five
    times as long as all the rest.
    """
    with suppress(FileNotFoundError):
        os.unlink(path)
    write_new(path, data, sync=False)


def replace_existing(folder: str, contents: Mapping[str, bytes]) -> set[str]:
    """Replace files of queuectl's own in one folder as `replace` does, with two waits for the disk for all of them.

    Args:
        contents: the new bytes of each file, by name. A file that is gone is not made again.

    Returns:
        the names of those that were replaced.

    Raises:
        OSError: the disk refused. Some may have been replaced; of each the old or the new bytes are on the disk.
    """
    scratch: dict[str, str] = {}
    replaced = set()
    try:
        for name, data in contents.items():
            if os.path.lexists(os.path.join(folder, name)):
                path = os.path.join(folder, temporary_name())
                write_new(path, data, sync=False)
                scratch[name] = path
        sync_files(folder, list(scratch.values()))
        for name in list(scratch):
            target = os.path.join(folder, name)
            # Once more: the wait may have been long, and who deletes a file meanwhile wants it gone.
            if os.path.lexists(target):
                rename_over(scratch.pop(name), target)
                replaced.add(name)
    finally:
        for path in scratch.values():
            with suppress(OSError):
                os.unlink(path)
    if replaced:
        sync_folder(folder)
    return replaced


def rename_over(source: str, target: str) -> None:
    """Rename, and overwrite a target that is queuectl's own file. For everything else: `move`."""
    os.replace(source, target)


def publish(scratch: str, target: str, *, keep: bool = False) -> None:
    """Give a new file of queuectl's own its final name, but never an existing one.

    Args:
        keep: leave the temporary name; somebody deletes it later. Where there are no links it is gone all the same.

    A link refuses an existing name by itself and is as fast as a rename. renameat2 would load ctypes first, which
    takes too long for a single enqueue.

    Raises:
        FileExistsError: the target exists; nothing changed.
    """
    try:
        # Said explicitly: without it Python 3.14 follows a link, and earlier ones do not.
        os.link(scratch, target, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        move(scratch, target)
        return
    if not keep:
        with suppress(
            OSError
        ):  # the file has its name; a temporary name that remains is deleted by maintenance
            os.unlink(scratch)


def move(source: str, target: str) -> None:
    """Rename, but never onto an existing name.

    Raises:
        FileExistsError: the target exists; nothing changed.
        FileNotFoundError: the source is gone: somebody else moved it.
    """
    if sys.platform == "win32":
        os.rename(source, target)  # refuses an existing target by itself there
    elif not _rename_with_flag(source, target, _RENAME_NOREPLACE):
        _link_then_unlink(source, target)


def move_into_own(source: str, target: str) -> None:
    """Rename, but never onto an existing name, into a folder in which nobody else makes names.

    Of several who want the same file, each into a folder of its own, one gets it. With `move` two could, where it needs a
    link.

    Raises:
        FileExistsError, FileNotFoundError: as for `move`.
    """
    if sys.platform == "win32":
        os.rename(source, target)
    elif not _rename_with_flag(source, target, _RENAME_NOREPLACE):
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target)
        os.rename(source, target)


def refused_rename(one: str, other: str) -> int | None:
    """Return the error number of a rename from one folder to another, of a file that exists in neither.

    Nothing is changed. Linux refuses a rename between two mounts before it looks for the file.
    """
    name = temporary_name()
    try:
        os.rename(os.path.join(one, name), os.path.join(other, name))
    except OSError as error:
        return error.errno
    return None


def exchange(one: str, other: str) -> bool:
    """Swap the names of two files in one step; False where the kernel or the filesystem cannot.

    Raises:
        FileNotFoundError: one of them is gone; nothing changed.
    """
    return _rename_with_flag(one, other, _RENAME_EXCHANGE)


def move_to_free_name(source: str, folder: str, name: str) -> str:
    """Move a file into a folder under this name, or as NAME-2, NAME-3 and so on; return the name it got.

    Raises:
        FileNotFoundError: the source is gone.
    """
    number = 1
    while True:
        candidate = numbered(name, number)
        try:
            move(source, f"{folder}{os.sep}{candidate}")
        except FileExistsError:
            number += 1
        else:
            return candidate


def numbered(name: str, number: int) -> str:
    """Return the name itself for 1, and `a-2.json` of `a.json` for 2."""
    if number == 1:
        return name
    stem, dot, ending = name.rpartition(".")
    return f"{stem}-{number}{dot}{ending}"


def delete(path: str) -> None:
    """Delete a file, or a folder that somebody put in its place. Of a link only the link is deleted."""
    try:
        os.unlink(path)
    except (
        IsADirectoryError,
        PermissionError,
    ):  # which of them says that it is a folder differs between systems
        if not os.path.isdir(path) or os.path.islink(path):
            raise
        import shutil

        shutil.rmtree(path)


def _renameat2(*arguments: Any) -> int:
    return libc.call("renameat2", "c_int c_char_p c_int c_char_p c_uint", *arguments)


def _sync_file_range(*arguments: int) -> int:
    return libc.call("sync_file_range", "c_int c_int64 c_int64 c_uint", *arguments)


def _syncfs(fd: int) -> int:
    return libc.call("syncfs", "c_int", fd)


HAS_SYNCFS = sys.platform.startswith("linux")
"""Whether one call can sync a whole filesystem and wait for it."""


def _rename_with_flag(source: str, target: str, flag: int) -> bool:
    """Rename with a flag; False where the kernel or the filesystem does not support it."""
    if not sys.platform.startswith("linux"):
        return False
    if _renameat2(_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), flag) == 0:
        return True
    code = libc.last_error()
    if code in _NOT_SUPPORTED:
        return False
    raise OSError(code, os.strerror(code), source, None, target)


def _link_then_unlink(source: str, target: str) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        # No hard links here (FAT, some network shares): a check before the rename is all that is left.
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target) from None
        os.rename(source, target)
        return
    os.unlink(source)
