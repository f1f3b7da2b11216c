"""Many jobs queued together: written first, made durable with one wait for the disk, then given their names."""

from __future__ import annotations

import os
from contextlib import nullcontext, suppress

from queuectl.errors import DuplicateId, KeyTaken, SpoolError
from queuectl.job.times import micros
from queuectl.layout import PENDING
from queuectl.storage.scratch import Lot
from queuectl.system import files, fork

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from queuectl.storage.mover import Mover
    from queuectl.storage.prepare import Prepared


class Batch:
    """Jobs of which the files are being written, by a copy of this process where a second core is free.

    Either `finish` or `abandon` has to follow.

    Args:
        durable: False: do not wait for the disk; the jobs survive only what leaves the machine running.

    Attributes:
        skipped: by their place among the jobs, those that were not queued as another job has their unique key.
        replaced: by the id of a job, those whose place it has taken.
    """

    def __init__(self, mover: Mover, jobs: Sequence[Prepared], *, durable: bool) -> None:
        self._mover = mover
        self._jobs = jobs
        self._durable = durable
        self.skipped: dict[int, KeyTaken] = {}
        self.replaced: dict[str, list[str]] = {}
        two = len(jobs) >= fork.MIN_ITEMS
        self._lot = Lot(mover.layout.tmp, len(jobs), apart=two)
        named = list(zip(self._lot.paths, [made.data for made in jobs], strict=True))
        self._collect: Callable[[], list[files.Fingerprint]] = (
            fork.run_in_copy(self._write, named) if two else lambda: self._write(named)
        )

    def __len__(self) -> int:
        """How many jobs there are."""
        return len(self._jobs)

    def _write(self, named: Sequence[tuple[str, bytes]]) -> list[files.Fingerprint]:
        written = []
        for scratch, data in named:
            try:
                status = files.write_new(scratch, data, sync=False)
            except FileExistsError:  # by a copy of us that was killed
                os.unlink(scratch)
                status = files.write_new(scratch, data, sync=False)
            written.append(files.fingerprint(status))
        if self._durable:
            files.sync_files(self._lot.folder, [scratch for scratch, _ in named])
        return written

    def queued(self, many: int) -> list[Prepared]:
        """The jobs among the first so many that were not skipped."""
        return [made for place, made in enumerate(self._jobs[:many]) if place not in self.skipped]

    def told(self, many: int) -> list[str | KeyTaken]:
        """The ids of the first so many jobs, in order, and of those that were skipped the reasons."""
        return [self.skipped.get(place, made.id) for place, made in enumerate(self._jobs[:many])]

    def finish(self) -> tuple[int, DuplicateId | None]:
        """Queue them.

        Returns:
            how many of them are queued and durable, or skipped, from the first on, and what stopped it before the end.

        Raises:
            SpoolFull, SpoolError: the disk refused; nothing is queued.
            QueuedUnsafely: the disk refused; what no worker has claimed by then was taken back, and it names the rest.
        """
        queued = 0
        keys = self._mover.keys if any(made.needs_leave for made in self._jobs) else None
        try:
            written = self._collect()
            with keys.deciding() if keys else nullcontext():
                queued, taken = self._publish(written)
                if self._durable:
                    self._mover.sync_queued(self.queued(queued))
                if keys:
                    superseding = [made for made in self.queued(queued) if made.supersedes]
                    keys.supersede(superseding)
                    self.replaced = {made.id: made.job.replaced for made in superseding if made.job.replaced}
        except OSError as error:
            raise SpoolError.from_os("queue jobs in", self._mover.layout.pending, error) from None
        finally:
            self._lot.end([*(self._lot.paths[place] for place in self.skipped), *self._lot.paths[queued:]])
        return queued, taken

    def _publish(self, written: Sequence[files.Fingerprint]) -> tuple[int, DuplicateId | None]:
        queued = 0
        taken: DuplicateId | None = None
        mover, now = self._mover, micros(self._mover.now())
        with mover.index.moving(PENDING):
            rows: list[Sequence[Any]] = []
            told = mover.index.usable
            for scratch, made, mark in zip(self._lot.paths, self._jobs, written, strict=True):
                try:
                    if made.needs_leave and rows:
                        mover.index.insert_new(rows)  # one of these may have its key
                        rows.clear()
                    mover.publish(scratch, made)
                    if told:
                        rows.append(mover.waiting_row(made, mark, now))
                except KeyTaken as error:
                    self.skipped[queued] = error
                except FileExistsError:
                    taken = DuplicateId(made.id, "pending")
                except DuplicateId as error:
                    taken = error
                except OSError as error:
                    mover.take_back(self.queued(queued), error)
                    raise
                if taken:
                    break
                queued += 1
            mover.index.insert_new(rows)
        return queued, taken

    def abandon(self) -> None:
        """Queue none of them."""
        with suppress(OSError):
            self._collect()
        self._lot.end(self._lot.paths)
