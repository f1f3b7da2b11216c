"""Whether a worker may begin another job: the disk has room for it, and the spool is nobody else's."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

FREE_INODES = 32
"""Files that must still fit: a settle, a log and the index make a handful."""


class Room:
    """Watches the free space of the spool's filesystem, and who can write there.

    A disk that fills up under a running job loses work; a spool that others can write to runs what they like.

    Args:
        tell: called with the reason when work has to pause (None when it goes on), and with a line about it.
        danger: says what else stands in the way.
    """

    def __init__(
        self,
        path: str,
        tell: Callable[[str | None, str], None],
        danger: Callable[[], str | None] = lambda: None,
    ) -> None:
        self.lacking: str | None = None
        self._path = path
        self._tell = tell
        self._danger = danger
        self._in_danger = False

    def look(self, floor: int) -> None:
        """Look again; floor is in bytes, 0 for none.

        Raises:
            OSError: the filesystem cannot be asked.
        """
        danger = self._danger()
        lacking = danger or lack(self._path, floor)
        # How many bytes are free is news only when it begins or ends to matter.
        if lacking and (not self.lacking or danger != (self.lacking if self._in_danger else None)):
            self._tell(lacking, f"pausing: {lacking}")
        elif self.lacking and not lacking:
            over = "nobody else can write to the spool now" if self._in_danger else "there is room again"
            self._tell(None, f"going on: {over}")
        self.lacking, self._in_danger = lacking, bool(danger)


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
