"""Whether the disk has room for another job: one that fills up under a running job loses work."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

FREE_INODES = 32
"""Files that must still fit: a settle, a log and the index make a handful."""


class Room:
    """Watches the free space of the spool's filesystem.

    Args:
        tell: called with the reason when room runs out, and with None when it is back.
    """

    def __init__(self, path: str, tell: Callable[[str | None], None]) -> None:
        self.lacking: str | None = None
        self._path = path
        self._tell = tell

    def look(self, floor: int) -> None:
        """Look again; floor is in bytes, 0 for none.

        Raises:
            OSError: the filesystem cannot be asked.
        """
        lacking = lack(self._path, floor)
        if bool(lacking) != bool(self.lacking):
            self._tell(lacking)
        self.lacking = lacking


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
