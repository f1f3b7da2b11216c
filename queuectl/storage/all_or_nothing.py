"""Many jobs, of which all are queued or none."""

from __future__ import annotations

import errno
from contextlib import nullcontext, suppress

from queuectl.errors import InvalidJob, KeyTaken
from queuectl.layout import PENDING
from queuectl.storage.batch import Batch
from queuectl.storage.prepare_bulk import prepare_batch
from queuectl.system import safe_open

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from queuectl.config.settings import Settings
    from queuectl.storage.mover import Mover
    from queuectl.storage.prepare import Prepared

MOST = 50_000
"""Jobs that can be queued so: no worker may claim anything meanwhile, and memory holds them all."""


def enqueue_all(
    mover: Mover, records: Iterable[Mapping[str, Any]], common: Mapping[str, Any], settings: Settings
) -> Batch:
    """Queue all of these jobs or none, and return them as a batch; on return they survive a power cut.

    One that is skipped for its unique key, as it asked to be, counts as done.

    Each is checked before the first is queued. No worker gets at one before all are in and on the disk, as the
    transaction of the index that claims need is held meanwhile. What it cannot undo is its own end: a process that is
    killed in the middle, or a power cut, may leave the first of them queued.

    Raises:
        InvalidJob, DuplicateId, SpoolFull, SpoolError: none is queued.
        QueuedUnsafely: the disk refused, and some could not be taken back, as the index could not be held.
    """
    batch, trouble = prepare_batch(iter(records), common, settings, MOST + 1)
    if trouble:
        raise trouble
    if len(batch) > MOST:
        raise InvalidJob(f"more than {MOST} jobs cannot be queued all or nothing")
    with_keys = any(made.needs_leave for made in batch)
    # The lock of the keys comes before that of the index, as everywhere.
    with mover.keys.deciding() if with_keys else nullcontext(), mover.index.moving(PENDING):
        for made in batch:
            with suppress(KeyTaken):
                if made.needs_leave:
                    mover.keys.admit(made)
                if made.chosen:
                    mover.refuse_taken(made.id)
        queuing = Batch(mover, batch, durable=settings.durability == "full")
        try:
            queued, taken = queuing.finish()
        except KeyboardInterrupt:
            there = [made for made in batch if _is_queued(mover, made)]
            mover.take_back(there, InterruptedError(errno.EINTR, "interrupted"))
            raise
        if taken:
            why = FileExistsError(errno.EEXIST, "another job took an id meanwhile")
            mover.take_back(queuing.queued(queued), why)
            raise taken
    return queuing


def _is_queued(mover: Mover, made: Prepared) -> bool:
    """Whether this very job waits, and not one that a stranger dropped under its name."""
    try:
        return (
            safe_open.read_regular(f"{mover.layout.pending}/{made.id}.json", len(made.data))[0] == made.data
        )
    except (safe_open.NotReadable, OSError):
        return False
