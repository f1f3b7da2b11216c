"""Whether a settings file has changed since it was read."""

from __future__ import annotations

import os
import time

from queuectl.system import file_times

TYPE_CHECKING = False
if TYPE_CHECKING:
    from queuectl.layout import Layout

Stamp = tuple[int, int, int, int]
"""Inode, mtime in ns, size, and the present in ns while a later change could leave the same mtime, else 0."""


def stamps(layout: Layout) -> tuple[Stamp | None, Stamp | None]:
    """Return a value that changes whenever a settings file does; None for a file that is not there."""
    return _stamp(layout.config_yaml), _stamp(layout.config_json)


def _stamp(path: str) -> Stamp | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    now = time.time_ns()
    young = now if file_times.may_hide_changes(status.st_mtime_ns, now) else 0
    return status.st_ino, status.st_mtime_ns, status.st_size, young
