"""Enqueue several jobs at once: written first, made durable by one wait for the disk, then given their names in pending/."""

from __future__ import annotations

import os
from contextlib import nullcontext, suppress

from queuectl.errors import DuplicateId, KeyTaken, SpoolError
from queuectl.job.times import micros
from queuectl.layout import PENDING
from queuectl.storage import unique_keys
from queuectl.storage.enqueue import publish, sync_queued, take_back, waiting_row
from queuectl.storage.scratch import ScratchFiles, delete_folder
from queuectl.system import files, fork

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from queuectl.job.record import Job
    from queuectl.storage.transitions import Prepared, Storage


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
