"""Whether a file of settings has changed since it was read."""

from __future__ import annotations

import os
import stat
import time

from queuectl.system import file_times

TYPE_CHECKING = False
if TYPE_CHECKING:
    from queuectl.layout import Layout

Stamp = tuple[int, int, int, int]
"""Inode, mtime in ns, size, and the present in ns while a later change could leave the same mtime, else 0."""

_WRITTEN_WITHIN = 1e9  # nanoseconds

_AHEAD = 60e9
"""Nanoseconds. A time that lies further ahead is no present of this clock, or of a server's that is somewhat fast: no
change leaves it once more. It lasts for hours after a clock was set back; all files would be read again each second."""


def stamps(layout: Layout) -> tuple[Stamp | None, Stamp | None]:
    """Return a value that changes whenever a settings file does; None for a file that is not there."""
    return _stamp(layout.config_yaml), _stamp(layout.config_json)


def _stamp(path: str) -> Stamp | None:
    try:
        return _made(os.stat(path))
    except OSError:
        return None


def of(path: str) -> Stamp | None:
    """Return a value that changes whenever this file or folder does; None only if there is nothing of this name.

    A link that leads nowhere, and what cannot be looked at, has another value each time: reading it tells why.
    """
    status = None
    try:
        status = os.lstat(path)
        return _made(os.stat(path) if stat.S_ISLNK(status.st_mode) else status)
    except FileNotFoundError:
        return None if status is None else _unknown()
    except OSError:
        return _unknown()


def _unknown() -> Stamp:
    return 0, 0, 0, time.time_ns()


def _made(status: os.stat_result) -> Stamp:
    now = time.time_ns()
    may_hide = file_times.may_hide_changes(status.st_mtime_ns, now) and status.st_mtime_ns - now < _AHEAD
    young = now if may_hide else 0
    return status.st_ino, status.st_mtime_ns, status.st_size, young


def is_being_written(*stamps: Stamp | None) -> bool:
    """Return True if one of these files became empty just now: an editor that writes in place is about to fill it."""
    now = time.time_ns()
    return any(one[2] == 0 and abs(now - one[1]) < _WRITTEN_WITHIN for one in stamps if one)
