"""The index of a spool that has just been made: there is nothing to build it from, so it is complete at once.

Without it the first jobs would be strangers' to the worker that finds their files: each read with suspicion, and its
file not used again.
"""

from __future__ import annotations

import os

from queuectl.layout import DEAD, DONE, PENDING
from queuectl.system import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from queuectl.index.index import Index
    from queuectl.layout import Layout


def begin(layout: Layout, index: Index) -> None:
    """Declare a new index complete if the spool holds no job, and no worker has ever been here; else leave it as it is.

    A worker that a power cut ended may have left outcomes that did not reach the disk; a rebuild puts those jobs back.

    Args:
        index: an open one.

    Raises:
        sqlite3.Error: the index cannot be written.
        OSError: a folder cannot be read.
    """
    if index.meta("schema") is not None or not _is_empty(layout):
        return
    with index.write():
        if index.open():
            return  # another process has just done it
        scan = files.token()
        for place in (DONE, DEAD, PENDING):
            index.begin_scan(place, scan)
        if not _is_empty(layout):  # after the stamps: what lands from here on leaves another time
            return
        for place in (DONE, DEAD, PENDING):
            index.end_scan(place, scan)
        index.finish_rebuild()


def _is_empty(layout: Layout) -> bool:
    for folder in (layout.workers, layout.processing, layout.done, layout.dead, layout.pending):
        with os.scandir(folder) as entries:
            if next(entries, None) is not None:
                return False
    return True
