"""What a modification time proves: nothing, while a later change could leave the same time."""

from __future__ import annotations

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
