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
