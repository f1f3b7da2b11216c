"""Enqueue many jobs at once: written first, made durable by one wait for the disk, then given their names in pending/."""

from __future__ import annotations

import errno
import os
from contextlib import nullcontext, suppress
from itertools import islice

from queuectl.api.enqueue import FEW, prepare
from queuectl.api.enqueue_templates import Templates
from queuectl.errors import DuplicateId, InvalidJob, KeyTaken, QueuectlError, SpoolError
from queuectl.job.times import micros
from queuectl.layout import PENDING
from queuectl.storage import locate, unique_keys
from queuectl.storage.enqueue import publish, sync_queued, take_back, waiting_row
from queuectl.storage.scratch import ScratchFiles, delete_folder
from queuectl.system import files, fork, safe_open
from queuectl.system.locks import suspension_deferred

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Any

    from queuectl.config.settings import JobDefaults, Settings
    from queuectl.job.record import Job
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


class Batch:
    """Jobs whose files are being written, by a forked copy of this process if there is a second core.

    Call either `finish` or `abandon` afterwards.

    Args:
        durable: False: do not wait for the disk; a crash of the machine may then lose the jobs.
        litter: folders of batches that are over, which this one deletes. A large batch adds its own when it is over. If
            this is None, each temporary name is deleted at once.

    Attributes:
        skipped: by position, the jobs that were not enqueued because another job has their unique key.
        replaced: by the id of a job, the ids of the jobs that it replaced.
    """

    def __init__(
        self,
        storage: Storage,
        jobs: Sequence[Prepared],
        *,
        durable: bool,
        litter: list[str] | None = None,
    ) -> None:
        self._storage = storage
        self._jobs = jobs
        self._durable = durable
        self.skipped: dict[int, KeyTaken] = {}
        self.replaced: dict[str, list[str]] = {}
        two = len(jobs) >= fork.MIN_ITEMS
        self._scratch = ScratchFiles(storage.layout.tmp, len(jobs), apart=two)
        self._litter = litter if self._scratch.is_own else None
        self._to_delete = [*(litter or ())]
        if litter:
            litter.clear()
        named = list(zip(self._scratch.paths, [made.data for made in jobs], strict=True))
        self._written: list[files.Fingerprint] | None = None
        self._collect: Callable[[], list[files.Fingerprint]] = (
            fork.run_in_copy(self._write, named) if two else lambda: self._write(named)
        )

    def __len__(self) -> int:
        """Return the number of jobs."""
        return len(self._jobs)

    def _write(self, named: Sequence[tuple[str, bytes]]) -> list[files.Fingerprint]:
        for folder in self._to_delete:
            with suppress(OSError):
                delete_folder(folder)
        written = []
        for scratch, data in named:
            try:
                status = files.write_new(scratch, data, sync=False)
            except FileExistsError:  # by a forked copy that was killed
                os.unlink(scratch)
                status = files.write_new(scratch, data, sync=False)
            written.append(files.fingerprint(status))
        if self._durable:
            files.sync_files(self._scratch.folder, [scratch for scratch, _ in named])
        return written

    def written(self) -> list[files.Fingerprint]:
        """Wait until the files are written and on the disk, and return their fingerprints.

        Raises:
            OSError: the disk refused.
        """
        if self._written is None:
            collect, self._collect = self._collect, list  # after an error there is nothing more to collect
            self._written = collect()
        return self._written

    def queued(self, many: int) -> list[Prepared]:
        """Return the jobs among the first `many` that were not skipped."""
        return [made for place, made in enumerate(self._jobs[:many]) if place not in self.skipped]

    def results(self, many: int) -> list[str | KeyTaken]:
        """Return the ids of the first `many` jobs, in order; for a skipped job the reason instead."""
        return [self.skipped.get(place, made.id) for place, made in enumerate(self._jobs[:many])]

    def job(self, place: int) -> Job:
        """Return the job at this position, counted from 0."""
        return self._jobs[place].job

    def finish(self) -> tuple[int, DuplicateId | None]:
        """Enqueue the jobs.

        Returns:
            the number of jobs, from the first on, that are enqueued and durable, or skipped; and the error that stopped
            it before the end.

        Raises:
            SpoolFull, SpoolError: the disk refused; nothing is enqueued.
            QueuedUnsafely: the disk refused, and workers had claimed some jobs already; it names them. The others were
                taken back.
        """
        queued = 0
        with_keys = any(made.needs_key for made in self._jobs)
        try:
            written = self.written()
            with unique_keys.locked(self._storage) if with_keys else nullcontext():
                queued, taken = self._publish(written)
                if self._durable:
                    sync_queued(self._storage, self.queued(queued))
                if with_keys:
                    superseding = [made for made in self.queued(queued) if made.supersedes]
                    unique_keys.supersede(self._storage, superseding)
                    self.replaced = {made.id: made.job.replaced for made in superseding if made.job.replaced}
        except OSError as error:
            raise SpoolError.from_os("queue jobs in", self._storage.layout.pending, error) from None
        finally:
            self._end(
                [*(self._scratch.paths[place] for place in self.skipped), *self._scratch.paths[queued:]]
            )
        return queued, taken

    def _publish(self, written: Sequence[files.Fingerprint]) -> tuple[int, DuplicateId | None]:
        queued = 0
        taken: DuplicateId | None = None
        storage, now = self._storage, micros(self._storage.now())
        with storage.index.moving(PENDING):
            rows: list[Sequence[Any]] = []
            indexed = storage.index.usable
            for scratch, made, mark in zip(self._scratch.paths, self._jobs, written, strict=True):
                try:
                    if made.needs_key and rows:
                        storage.index.insert_new(rows)  # one of these may have the same key
                        rows.clear()
                    publish(storage, scratch, made, keep=self._litter is not None)
                    if indexed:
                        rows.append(waiting_row(made, mark, now))
                except KeyTaken as error:
                    self.skipped[queued] = error
                except FileExistsError:
                    taken = DuplicateId(made.id, "pending")
                except DuplicateId as error:
                    taken = error
                except OSError as error:
                    take_back(storage, self.queued(queued), error)
                    raise
                if taken:
                    break
                queued += 1
            storage.index.insert_new(rows)
        return queued, taken

    def abandon(self) -> None:
        """Enqueue none of the jobs."""
        with suppress(OSError):
            self.written()
        self._end(self._scratch.paths)

    def _end(self, left: Sequence[str]) -> None:
        """Delete the scratch files that got no name, or leave the folder to the next batch."""
        if self._litter is None:
            self._scratch.end(left)
        else:
            self._litter.append(self._scratch.folder)


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
