"""The moves by which a job comes in: written whole, published, synced, or taken back. Part of the mover."""

from __future__ import annotations

import os
from contextlib import suppress

from queuectl.errors import DuplicateId, QueuedUnsafely, SpoolError
from queuectl.index.row import row_of, set_file, values_of
from queuectl.job.times import micros
from queuectl.layout import PENDING
from queuectl.storage.operator_moves import HandMoves
from queuectl.system import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from queuectl.storage.prepare import Prepared
    from queuectl.storage.unique_keys import UniqueKeys


class EntryMoves(HandMoves):
    """Takes jobs in, and keeps their unique keys."""

    _keys: UniqueKeys | None = None

    @property
    def keys(self) -> UniqueKeys:
        """The unique keys; made when somebody asks: most jobs have none."""
        if self._keys is None:
            from queuectl.storage.unique_keys import UniqueKeys

            self._keys = UniqueKeys(self)
        return self._keys

    def enqueue(self, made: Prepared, *, durable: bool = True) -> None:
        """Queue a job; on return it survives a power cut.

        Args:
            durable: False: do not wait for the disk; the job survives only what leaves the machine running.

        Raises:
            DuplicateId: the id is taken.
            KeyTaken: another job has its unique key, and it is to be skipped then.
            SpoolFull, SpoolError: nothing was queued.
            QueuedUnsafely: it is queued, and a worker has it, but the disk would not confirm it.
        """
        if not made.needs_leave:
            self._enqueue_one(made, durable=durable)
            return
        with self.keys.deciding():
            self._enqueue_one(made, durable=durable)
            self.keys.supersede([made])

    def _enqueue_one(self, made: Prepared, *, durable: bool) -> None:
        try:
            try:
                self._enqueue(made, durable=durable)
            except FileNotFoundError:  # somebody deleted a folder
                self.layout.create()
                self._enqueue(made, durable=durable)
        except FileExistsError:
            raise DuplicateId(made.id, "pending") from None
        except OSError as error:
            raise SpoolError.from_os("queue a job in", self.layout.pending, error) from None

    def _enqueue(self, made: Prepared, *, durable: bool) -> None:
        scratch = f"{self.layout.tmp}{os.sep}{files.temporary_name()}"
        fd = os.open(scratch, files.CREATE, 0o600)
        try:
            files.write_all(fd, made.data)
            if durable:
                files.sync_data(fd)
            with self.index.moving(PENDING):
                self.publish(scratch, made)
                status = os.fstat(fd)
                mark = files.fingerprint(status)
                self.index.insert_new([self.waiting_row(made, mark, micros(self.now()))])
            if durable:
                self.sync_queued([made], fd)
        except BaseException:
            with suppress(OSError):
                os.unlink(scratch)
            raise
        finally:
            os.close(fd)

    def publish(self, scratch: str, made: Prepared) -> None:
        """Make a written file a waiting job.

        Within a transaction, so that no claim hides an id while it is looked for.
        """
        if made.needs_leave:
            self.keys.admit(made)
        if made.chosen:
            self.refuse_taken(made.id)
        files.publish(scratch, f"{self.layout.pending}{os.sep}{made.id}.json")

    def waiting_row(self, made: Prepared, mark: files.Fingerprint, now: int) -> Sequence[Any]:
        """The row of a job that waits from now on, as `insert_new` wants it.

        Args:
            mark: its file's inode, time of change in nanoseconds, and size.
            now: in microseconds.
        """
        if made.values is not None:
            set_file(made.values, now, mark)
            return made.values
        status, name = files.FileStat(*mark), f"{made.id}.json"
        row = row_of(made.job, PENDING, name, status, state="pending", arrived=now, now=now)
        row.ours = 1
        return values_of(row)

    def sync_queued(self, batch: Sequence[Prepared], fd: int | None = None) -> None:
        """Make published jobs durable, or take them back: a job that was refused must not run all the same.

        Raises:
            OSError: the disk refused; they are taken back.
            QueuedUnsafely: the disk refused, and some could not be taken back.
        """
        try:
            if fd is not None:
                files.sync_file(fd)
            files.sync_folder(self.layout.pending)
        except OSError as error:
            self.take_back(batch, error)
            raise

    def take_back(self, batch: Sequence[Prepared], why: OSError) -> None:
        """Delete published jobs; QueuedUnsafely names those that are gone from pending/ already."""
        left = []
        with self.index.moving(PENDING):
            for made in batch:
                job_id = made.id
                try:
                    os.unlink(os.path.join(self.layout.pending, f"{job_id}.json"))
                    self.index.drop(job_id)
                except OSError:
                    # Told that it was refused, its producer would hand it in again beside the one that runs.
                    left.append(job_id)
        if left:
            raise QueuedUnsafely(left, why) from None
