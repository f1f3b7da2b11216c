"""Which filesystem a folder lies on: events, locks and renames are worth what it makes of them."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import NamedTuple

REMOTE = frozenset(
    {
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
    }
)
"""Filesystems whose other end is another machine: no events, weak locks, and a rename may lie about its success."""


class Mount(NamedTuple):
    """The filesystem that holds a folder: its type, and where it is mounted."""

    type: str
    point: str

    @property
    def is_remote(self) -> bool:
        """Whether its other end may be another machine, or a program."""
        return self.type in REMOTE or self.type.startswith("fuse.")


def mount_of(folder: str) -> Mount | None:
    """The mount that a folder lies on, by the kernel's own number for it; None where that cannot be told."""
    if not sys.platform.startswith("linux"):
        return None
    with suppress(OSError, ValueError, IndexError):
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


FREE_INODES = 32
"""Files that must still fit: a settle, a log and the index make a handful."""


def lack(path: str, floor: int) -> str | None:
    """What the filesystem of this path lacks; None when there is room, or floor is 0.

    Raises:
        OSError: the filesystem cannot be asked.
    """
    if not floor:
        return None
    if not hasattr(os, "statvfs"):
        import shutil

        free = shutil.disk_usage(path).free
        return f"{free} bytes of disk are free, min_free_space is {floor}" if free < floor else None
    status = os.statvfs(path)
    free = status.f_bavail * status.f_frsize
    if free < floor:
        return f"{free} bytes of disk are free, min_free_space is {floor}"
    # Filesystems without a fixed number of files report none at all.
    if status.f_files and status.f_favail < FREE_INODES:
        return f"the disk can take only {status.f_favail} more files"
    return None
