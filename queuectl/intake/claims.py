"""Makes the index agree with the workers' folders, which hold the jobs that are claimed."""

from __future__ import annotations

import os

from queuectl.index.row import row_of
from queuectl.intake.dropped_file import read_dropped
from queuectl.job.times import micros
from queuectl.layout import PENDING, PROCESSING
from queuectl.storage import locate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from queuectl.index.index import Index
    from queuectl.index.row import Row
    from queuectl.job.record import Job
    from queuectl.layout import Layout

_ALL = 1 << 30


def mirror_claims(layout: Layout, index: Index, now: float, owner: int | None = None) -> None:
    """Make the index agree with the workers' folders. They hold few jobs, so all are read.

    Args:
        now: the wall clock, in epoch seconds.
        owner: see Storage.
    """
    present = {
        f"{PROCESSING}/{worker}": set(names) for worker, names in locate.claimed_by_worker(layout).items()
    }
    known: dict[str, set[str]] = {place: set() for place in present} | {
        place: {name for _, name in index.all_at(place, "", _ALL)} for place in index.claim_places()
    }
    for place, names in known.items():
        for name in present.get(place, set()) - names:
            _add_claim(layout, index, place, name, now, owner)
        for name in names - present.get(place, set()):
            if os.path.lexists(os.path.join(layout.root, place, name)):
                continue  # claimed since the folder was listed
            with index.write():
                index.drop_if_at(name.removesuffix(".json"), place, name)


def _add_claim(layout: Layout, index: Index, place: str, name: str, now: float, owner: int | None) -> None:
    path = os.path.join(layout.root, place, name)
    found = read_dropped(path, micros(now), 0, owner=owner)
    if found.job is None or found.status is None:
        return
    found.job.id = name.removesuffix(".json")
    if found.job.state in ("completed", "dead"):
        found.job.renew(found.arrived / 1e6)  # it was put back by hand and claimed before it was renewed
    found.job.worker = place.rpartition("/")[2]
    row = row_of(
        found.job, place, name, found.status, state="processing", arrived=found.arrived, now=micros(now)
    )
    with index.write():
        old = index.get(row.id)
        if old is not None and _is_later(layout, old, found.job, path, owner):
            return
        if old is not None and old.place == PENDING:
            index.mark_stale(PENDING)  # its file is looked at anew: it has the id of a job that runs
        index.put(row)


def _is_later(layout: Layout, old: Row, claimed: Job, claimed_path: str, owner: int | None) -> bool:
    """Whether the job of a row is a later copy of a claimed one: a crash while settling leaves the claimed file.

    A file in pending/ may also be another job, which somebody has given the same id. It must not hide the one that runs: a
    worker would take it, and write it over the file of that one.
    """
    path = os.path.join(layout.root, old.place, old.name)
    if old.place != PENDING:
        return os.path.lexists(path)
    waiting = read_dropped(path, 0, 0, owner=owner).job
    return waiting is not None and locate.is_later(waiting, claimed, claimed_path)
