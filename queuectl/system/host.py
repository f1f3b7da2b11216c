"""The machine and its filesystems: the current boot, the mount of a folder, free space, user names."""

from __future__ import annotations

import os
import sys
from contextlib import suppress

from queuectl.fast_start.dataclass import dataclass
from queuectl.system import files

_REMOTE = frozenset(
    [
        "nfs",
        "nfs4",
        "cifs",
        "smb3",
        "smbfs",
        "9p",
        "afs",
        "ceph",
        "glusterfs",
        "lustre",
        "beegfs",
        "ncpfs",
        "virtiofs",
    ]
)
"""Filesystems that another machine may serve: no inotify events, weak locks, unreliable answers to a rename."""

_MIN_FREE_INODES = 32
"""Files that must still fit on the disk: one settled job, its log and the index need a few."""


def boot_id() -> str:
    """Return a text that changes with every boot of the machine."""
    try:
        fd = os.open("/proc/sys/kernel/random/boot_id", os.O_RDONLY | files.O_CLOEXEC)
    except OSError:
        import psutil

        return f"booted-{psutil.boot_time():.0f}"
    try:
        return os.read(fd, 100).decode().strip()
    finally:
        os.close(fd)


@dataclass(frozen=True, slots=True)
class Mount:
    """A mounted filesystem: its type, such as "ext4", and the folder where it is mounted."""

    type: str
    point: str

    @property
    def is_remote(self) -> bool:
        """Whether another machine, or a program (FUSE), may serve it."""
        return self.type in _REMOTE or self.type.startswith("fuse.")


def mount_of(folder: str) -> Mount | None:
    """Return the mount that holds a folder, found by the kernel's mount id; None where the system does not tell."""
    if not sys.platform.startswith("linux"):
        return None
    with suppress(OSError, ValueError, IndexError, StopIteration):
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with open(f"/proc/self/fdinfo/{fd}", encoding="utf-8") as file:
                number = next(line.split()[1] for line in file if line.startswith("mnt_id:"))
        finally:
            os.close(fd)
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            for line in file:
                words = line.split()
                if words[0] == number:
                    return Mount(words[words.index("-") + 1], words[4])
    return None


def disk_shortage(path: str, min_free: int) -> str | None:
    """Say what the filesystem of this path runs short of, bytes or inodes; None when it has enough.

    Args:
        min_free: bytes that must be free; 0 turns the check off.

    Raises:
        OSError: the filesystem gives no answer.
    """
    if not min_free:
        return None
    if not hasattr(os, "statvfs"):
        import shutil

        return _short_of_bytes(shutil.disk_usage(path).free, min_free)
    status = os.statvfs(path)
    if found := _short_of_bytes(status.f_bavail * status.f_frsize, min_free):
        return found
    # Filesystems without a fixed number of files report a total of 0.
    if status.f_files and status.f_favail < _MIN_FREE_INODES:
        return f"the disk can take only {status.f_favail} more files"
    return None


def _short_of_bytes(free: int, min_free: int) -> str | None:
    return f"{free} bytes of disk are free, min_free_space is {min_free}" if free < min_free else None


def user_name(uid: int) -> str:
    """Return the name of a user, or the number as text if no user has it."""
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
