"""Rings of dropped files that a rebuild has found: each job waits for the next one, and none could ever start.

The admission finds a ring when the file comes that closes it: the index says who waits for that job. During a rebuild the index
does not know that yet. So the jobs of dropped files are noted, and looked at when it is complete.
"""

from __future__ import annotations

import os
from contextlib import suppress

from queuectl.index import waits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from queuectl.index.index import Index
    from queuectl.index.row import Row
    from queuectl.intake.admission import Admission

_AT_ONCE, _PASSES, _SHOWN = 100, 10, 20
"""Rings that are looked for together, and how often: doctor finds the rest. How many jobs of one are named."""


def take_out(index: Index, dropped: Sequence[str]) -> list[tuple[Row, str]]:
    """Take out of the index, of each ring, the dropped job that came last; returns their rows with the reasons.

    Call it in a transaction. If the process dies before the files are moved, the next scan finds them again.

    Args:
        dropped: ids of jobs of dropped files, in the order of arrival.
    """
    order = {job_id: place for place, job_id in enumerate(dropped)}
    found: list[tuple[Row, str]] = []
    for _ in range(_PASSES if dropped and index.has_waits() else 0):
        last = [*_last_of_rings(index, order)]
        for job_id, reason in last:
            if row := index.get(job_id):
                index.drop(job_id)
                found.append((row, reason))
        if not last:
            break
    return found


def _last_of_rings(index: Index, order: dict[str, int]) -> Iterator[tuple[str, str]]:
    for ring in waits.rings(index, _AT_ONCE):
        names = [name for name, _ in ring]
        mine = [name for name in names if name in order]
        if mine:
            last = max(mine, key=lambda name: order[name])
            start = names.index(last)
            way = [*names[start:], *names[:start], last]
            if len(way) > _SHOWN:
                way[_SHOWN // 2 : -_SHOWN // 2] = [f"{len(way) - _SHOWN} more"]
            yield last, f"{last} waits for itself: {', '.join(way)}"


def bury(admission: Admission, taken_out: Sequence[tuple[Row, str]]) -> None:
    """Move the files of these jobs to dead/, with the reasons, unless they have changed since."""
    for row, reason in taken_out:
        path = os.path.join(admission.layout.root, row.place, row.name)
        with suppress(OSError):
            status = os.lstat(path)
            if (status.st_ino, status.st_size) == (row.inode, row.size):
                admission.move_to_dead(path, reason, status)
