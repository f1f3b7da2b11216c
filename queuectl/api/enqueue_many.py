"""Enqueue many jobs at once, in batches, or all or none of them."""

from __future__ import annotations

import errno
from contextlib import nullcontext, suppress
from itertools import islice

from queuectl.api.enqueue import FEW, prepare
from queuectl.api.enqueue_templates import Templates
from queuectl.errors import DuplicateId, InvalidJob, KeyTaken, QueuectlError, SpoolError
from queuectl.layout import PENDING
from queuectl.storage import locate, unique_keys
from queuectl.storage.enqueue import take_back
from queuectl.storage.enqueue_batch import Batch
from queuectl.system import safe_open
from queuectl.system.locks import suspension_deferred

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any

    from queuectl.config.settings import JobDefaults, Settings
    from queuectl.storage.transitions import Prepared, Storage

MOST_AT_ONCE = 50_000
"""Jobs that can be enqueued all or nothing: workers cannot claim meanwhile, and all jobs are in memory."""


def prepare_batch(
    source: Iterator[Mapping[str, Any]],
    common: Mapping[str, Any],
    defaults: JobDefaults,
    size: int,
) -> tuple[list[Prepared], QueuectlError | None]:
    """Prepare the next jobs of a long list.

    Args:
        common: fields that every job gets; they override its own.
        defaults: what jobs get for the fields that they leave out. The file of each queue is read once.
        size: the most jobs to prepare.

    Returns:
        the jobs, and the error that ended the batch early; the jobs before it are good.
    """
    batch: list[Prepared] = []
    given: set[str] = set()
    templates = Templates(defaults)
    try:
        for record in islice(source, size):
            full = {**record, **common} if common else record
            made = templates.prepare(full) if len(batch) >= FEW else prepare(full, defaults)
            while not made.chosen and made.id in given:
                made = prepare(full, defaults)
            if made.id in given:
                raise DuplicateId(made.id, "pending")
            given.add(made.id)
            batch.append(made)
    except QueuectlError as error:
        return batch, error
    return batch, None


def prepare_all(
    records: Iterator[Mapping[str, Any]], common: Mapping[str, Any], defaults: JobDefaults
) -> list[Prepared]:
    """Check and prepare the jobs for `enqueue_all`.

    Raises:
        InvalidJob: one of them is wrong, or there are too many.
        DuplicateId: two of them have the same id.
    """
    batch, error = prepare_batch(records, common, defaults, MOST_AT_ONCE + 1)
    if isinstance(error, DuplicateId):
        error = DuplicateId(error.job_id, "earlier in the same list")
        error.hint = None  # none of them is queued
    if error:
        if error.position is None:
            error.position = len(batch)
        raise error
    if len(batch) > MOST_AT_ONCE:
        raise InvalidJob(f"more than {MOST_AT_ONCE} jobs cannot be queued all or nothing")
    return batch


def enqueue_all(storage: Storage, batch: list[Prepared], settings: Settings) -> Batch:
    """Enqueue all of these jobs or none, and return them as a batch. When this returns, they survive a power cut.

    A job that asks to be skipped if its unique key is taken counts as done.

    The files are written and synced first. Then every job is checked before the first is enqueued. A claim needs the
    write lock of the index, which is held meanwhile: no worker can claim one of the jobs before all are on the disk. As
    others wait for that lock, Ctrl+Z takes effect after it is released. If this process is killed in the middle, or at a
    power cut, the first jobs may stay enqueued.

    Raises:
        InvalidJob, DuplicateId, SpoolFull, SpoolError: none is enqueued.
        QueuedUnsafely: the disk refused, and some could not be taken back, as the index could not be locked.
    """
    queuing = Batch(storage, batch, durable=settings.durability == "full")
    try:
        queuing.written()  # before the locks: others wait for them
    except BaseException as trouble:
        queuing.abandon()
        if isinstance(trouble, OSError):
            raise SpoolError.from_os("queue jobs in", storage.layout.pending, trouble) from None
        raise
    with_keys = any(made.needs_key for made in batch)
    # The lock of the keys comes before that of the index, as everywhere, or two processes could wait for each other.
    with (
        suspension_deferred(),
        unique_keys.locked(storage) if with_keys else nullcontext(),
        storage.index.moving(PENDING),
    ):
        _publish_all(storage, batch, queuing)
    return queuing


def _publish_all(storage: Storage, batch: Sequence[Prepared], queuing: Batch) -> None:
    """Enqueue all jobs of a batch or none. Call it in a transaction of the index.

    Raises:
        DuplicateId, SpoolFull, SpoolError, QueuedUnsafely: see `enqueue_all`.
    """
    try:
        for made in batch:
            with suppress(KeyTaken):
                if made.needs_key:
                    unique_keys.admit(storage, made)
                if made.chosen:
                    locate.refuse_taken(storage, made.id)
    except BaseException:
        queuing.abandon()
        raise
    try:
        queued, taken = queuing.finish()
    except KeyboardInterrupt:
        there = [made for made in batch if _is_queued(storage, made)]
        take_back(storage, there, InterruptedError(errno.EINTR, "interrupted"))
        raise
    if taken:
        why = FileExistsError(errno.EEXIST, "another job took an id meanwhile")
        take_back(storage, queuing.queued(queued), why)
        raise taken


def _is_queued(storage: Storage, made: Prepared) -> bool:
    """Return whether this very job waits, and not a file that somebody dropped under its name."""
    try:
        return (
            safe_open.read_regular(f"{storage.layout.pending}/{made.id}.json", len(made.data))[0] == made.data
        )
    except (safe_open.NotReadable, OSError):
        return False
