"""What people ask about queues: whether they are used at all, which jobs wait for them, and whether a name is mistyped."""

from __future__ import annotations

import os

from queuectl.index import lanes
from queuectl.job.fields import DEFAULT_QUEUE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from queuectl.api.spool_base import SpoolBase
    from queuectl.storage.queue_state import QueueView


def view_of(spool: SpoolBase) -> QueueView:
    """Return a look at the queues of a spool, whose index agrees with the folders.

    Raises:
        ConfigError: the settings are not valid.
    """
    from queuectl.storage.queue_state import QueueView

    return QueueView(spool.layout, spool._index, spool.settings())


def have_files(spool: SpoolBase) -> bool:
    """Return whether there may be a file or a pause of a queue."""
    try:
        return bool(os.listdir(spool.layout.queues))
    except OSError:
        return False  # a spool of an earlier version has no such folder, and no queues either


def are_used(spool: SpoolBase) -> bool:
    """Return whether queues or resources are used: else nothing needs to be counted."""
    return have_files(spool) or any(lane is not None for lane in spool._ask(spool._index.ready_lanes))


def closed_lanes(spool: SpoolBase, asked: Collection[str | None]) -> dict[str | None, str]:
    """Return which of these lanes have no job that may start now, and why.

    Raises:
        ConfigError: the settings are not valid.
    """
    if not asked or not are_used(spool):
        return {}
    view = view_of(spool)
    found = {lane: spool._ask(lambda lane=lane: view.why_closed(lane)) for lane in asked}  # type: ignore[misc]  # bound at once
    return {lane: why for lane, why in found.items() if why}


def obstacle(spool: SpoolBase, found: Collection[str | None]) -> str | None:
    """Return what keeps the jobs of all these lanes from running until somebody acts, with a hint; None: nothing."""
    names = sorted({lanes.queue_of(lane) for lane in found})
    if not names or not are_used(spool):
        return None
    view = view_of(spool)
    one = view.one(names[0])
    if all(view.queues.is_paused(name) for name in names) and one.paused is not None:
        return f"{one.paused.sentence}: queuectl resume --queue {one.name}"
    if not any(view.is_served(name) for name in names):
        return f"no worker serves queue {one.name}: queuectl worker start --queue {one.name}"
    facts = [view.lacks(lane) for lane in found]
    return f"{facts[0]}: queuectl config get resources" if facts and all(facts) else None


def unknown(spool: SpoolBase, names: Iterable[str]) -> list[str]:
    """Return a sentence for each of these queues that no job and no file has: it may be mistyped."""
    from difflib import get_close_matches

    from queuectl.index import queue_counts

    told = []
    view: QueueView | None = None
    for name in names:
        spool._look()
        view = view or view_of(spool)
        known = view.names()
        if name in known or name == DEFAULT_QUEUE:
            continue
        if spool._ask(lambda name=name: queue_counts.has_jobs_of(spool._index, name)):  # type: ignore[misc]  # bound at once
            continue
        near = get_close_matches(name, known, n=1)
        meant = f"; is {near[0]} meant?" if near else ""
        told.append(f"no job and no file of queues/ has the queue {name}{meant}")
    return told
