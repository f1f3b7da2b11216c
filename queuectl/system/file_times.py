"""What a modification time proves: nothing, while a later change could leave the same time."""

from __future__ import annotations

import os

from queuectl.system import files

YOUNG = 25_000_000
"""Nanoseconds. Older kernels stamp files by a clock that ticks every 4 to 10 ms: a second change within the tick of the
first leaves the same time. git calls such a time "racily clean"."""

COARSE = 2_000_000_000
"""Nanoseconds. Some file systems store whole seconds only, FAT every second one; so do some shares and ext4 images."""


def is_coarse(mtime: int) -> bool:
    """Whether a time in ns seems to come from a file system that stores no parts of a second."""
    return mtime % 1_000_000_000 == 0


def may_hide_changes(mtime: int, seen_at: int) -> bool:
    """Whether a change after this moment may leave the same modification time. Both in nanoseconds."""
    return seen_at - mtime < (COARSE if is_coarse(mtime) else YOUNG)


def has_fine_times(folder: str) -> bool:
    """Whether two quick changes of a folder leave two different modification times, as on Linux 6.13 and later.

    Elsewhere file times advance in ticks of some milliseconds: a second change within one tick leaves no trace.
    """
    path = os.path.join(folder, files.temporary_name())
    try:
        return any(_leaves_three_times(folder, path) for _ in range(3))
    except OSError:
        return False


def _leaves_three_times(folder: str, path: str) -> bool:
    os.close(os.open(path, files.CREATE, 0o600))
    first = os.stat(folder).st_mtime_ns
    files.rename_over(path, path + "2")
    second = os.stat(folder).st_mtime_ns
    os.unlink(path + "2")
    third = os.stat(folder).st_mtime_ns
    return first < second < third < first + 1_000_000  # two ticks of the coarse clock take longer than 1 ms
