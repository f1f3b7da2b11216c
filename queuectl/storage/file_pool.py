"""Files that a worker writes outcomes into, over and over, so that settling a job creates and deletes nothing.

Creating and deleting a file costs more than all other bookkeeping of a job, on some filesystems fifty times more. So
the claimed file of a settled job becomes the file for a later outcome. But it is also the only copy of the job that
is surely on the disk, until the outcome is: it is *held* first, and becomes a *spare* once a sync has come back. One
sync serves all that was settled before it, and a thread waits for it while the worker goes on.

- data/workers/worker-0.held.BOOT.N/ID~K.json: claimed files of settled jobs, not synced yet
- data/workers/worker-0.spare.N/: files free to be written
- data/workers/worker-0.reserve: the one for an outcome on a full disk

A batch changes from held to spare by one rename of its folder. What held files tell after a death: see held.
"""

from __future__ import annotations

import os
import queue
import threading
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

from queuectl.errors import FULL
from queuectl.storage import power_loss
from queuectl.system import files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from queuectl.layout import Layout

FIRST_BATCH, BATCH = 16, 128
"""Settled jobs that one sync makes durable while a worker is busy; the first ones are small, as until a sync has come
back each outcome takes a new file."""

BEHIND = 8
"""Batches that may wait for the disk before the worker waits too."""

RESERVE = 64 << 10
"""Bytes kept for the outcome of a job that ends while the disk is full. Output is repeated in it up to 8 KiB."""


class Spares:
    """The recycled files of one worker, who holds the lock of its name. One thread uses it.

    Args:
        boot: the machine's boot id.
        trouble: told when a sync fails; what it was for stays held then. Called by another thread.
    """

    def __init__(self, layout: Layout, worker: str, boot: str, trouble: Callable[[str], None]) -> None:
        self._layout = layout
        self._prefix = layout.worker_file(worker, "")
        self._boot = power_loss.short(boot)
        self._trouble = trouble
        self._batch = _Batch()
        self._batches, self._limit = 0, FIRST_BATCH
        self._spares: deque[tuple[str, list[str]]] = deque()
        self._empty: list[str] = []
        self._to_sync: queue.SimpleQueue[_Batch | None] = queue.SimpleQueue()
        self._synced: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._under_way = 0
        self._thread: threading.Thread | None = None
        self._reserve: str | None = None
        self.keep_reserve()

    def keep_reserve(self) -> None:
        """Have a file whose blocks are ours already; where the disk is full now, ask again later."""
        if self._reserve is not None:
            return
        path = f"{self._prefix}reserve"
        with suppress(OSError):
            if not os.path.exists(path):
                # Synced: a block is ours only once it has been given out, which some filesystems put off.
                files.write_new(path, bytes(RESERVE), sync=True)
            if os.path.getsize(path) == RESERVE:
                self._reserve = path
            else:
                os.unlink(path)  # of a holder of our name that died over it

    def write(self, data: bytes) -> tuple[str, os.stat_result]:
        """Put bytes into a spare file, or a new one; returns its path, which is the caller's to rename, and status.

        Raises:
            OSError: the disk refused, and the reserve is used up or too small.
        """
        try:
            return self._fill(*self._open(), data)
        except OSError as error:
            if error.errno not in FULL or self._reserve is None or len(data) > RESERVE:
                raise
        path, self._reserve = self._reserve, None
        return self._fill(path, os.open(path, files.OVERWRITE), data)

    def _fill(self, path: str, fd: int, data: bytes) -> tuple[str, os.stat_result]:
        try:
            files.write_all(fd, data)
            status = os.fstat(fd)
            if status.st_size != len(data):
                # Cut to length at last: a truncation to nothing would make ext4 flush the file at its close.
                os.ftruncate(fd, len(data))
                status = os.fstat(fd)
        except BaseException:
            os.close(fd)
            with suppress(OSError):
                os.unlink(path)
            raise
        if files.HAS_SYNCFS:
            os.close(fd)
        else:
            self._batch.unsynced.append(fd)
        return path, status

    def _open(self) -> tuple[str, int]:
        self._collect()
        while self._spares:
            folder, names = self._spares[0]
            path = f"{folder}{os.sep}{names.pop()}"
            if not names:
                self._spares.popleft()
                self._empty.append(folder)
            try:
                return path, os.open(path, files.OVERWRITE)
            except FileNotFoundError:
                continue  # somebody deleted it
        path = f"{self._layout.tmp}{os.sep}{files.temporary_name()}"
        return path, os.open(path, files.CREATE, 0o600)

    def hold(self, path: str, job_id: str, *, ours: bool) -> bool:
        """Keep a settled job's claimed file until its outcome is on the disk; False: the disk has no room for that.

        Args:
            ours: queuectl wrote the file and it has no other name, so it may be written again later. Whoever dropped
                a file may still hold it open.

        Raises:
            FileNotFoundError: it is gone.
            OSError: the disk refused otherwise.
        """
        batch = self._batch
        # Numbered: a job that is tried twice within a batch must not push out its own surely durable copy.
        name = f"{job_id}~{batch.count}.json"
        try:
            if not batch.folder:
                batch.folder = self._new_folder()
            os.rename(path, f"{batch.folder}{os.sep}{name}")
        except OSError as error:
            if error.errno in FULL:
                return False
            raise
        batch.count += 1
        if not ours:
            batch.foreign.append(name)
        if batch.count >= self._limit:
            self._limit = min(2 * self._limit, BATCH)
            self.flush()
        return True

    def _new_folder(self) -> str:
        self._batches += 1
        folder = f"{self._prefix}held.{self._boot}.{self._batches}"
        if self._empty:
            with suppress(OSError):
                os.rename(self._empty.pop(), folder)
                return folder
        os.mkdir(folder, 0o700)
        return folder

    def flush(self) -> None:
        """Have all that was settled so far synced, without waiting for it, unless too much is under way already."""
        if not self._batch.folder:
            return
        started = self._thread is not None or self._start()
        batch, self._batch = self._batch, _Batch()
        self._under_way += 1
        if started:
            self._to_sync.put(batch)
        else:
            self._sync(batch)
        self._collect(wait=self._under_way > BEHIND)

    def _start(self) -> bool:
        """Start the thread; False where the system has none to give: then the worker waits for the disk itself."""
        thread = threading.Thread(target=self._sync_loop, name="queuectl-sync", daemon=True)
        try:
            thread.start()
        except (RuntimeError, MemoryError):
            return False
        self._thread = thread
        return True

    def close(self) -> None:
        """Wait for the last sync, and delete the files."""
        self.flush()
        if self._thread is not None:
            self._to_sync.put(None)
            self._thread.join()
        self._collect()
        folders = [folder for folder, _ in self._spares] + self._empty
        self._spares.clear()
        self._empty.clear()
        if self._reserve is not None:
            with suppress(OSError):
                os.unlink(self._reserve)
        for folder in folders:
            power_loss.remove(folder)

    def _collect(self, *, wait: bool = False) -> None:
        """Take over the batches whose sync has come back."""
        while self._under_way and (wait or not self._synced.empty()):
            folder = self._synced.get()
            wait = False
            self._under_way -= 1
            names: list[str] = []
            try:
                names = os.listdir(folder) if folder else []
            except OSError:
                folder = (
                    None  # it is not ours to lose: what is left of it is swept with the worker's other files
                )
            if folder and names:
                self._spares.append((folder, names))
            elif folder:
                self._empty.append(folder)

    # -- the thread ------------------------------------------------------------------------------------------------

    def _sync_loop(self) -> None:
        while (batch := self._to_sync.get()) is not None:
            self._sync(batch)

    def _sync(self, batch: _Batch) -> None:
        try:
            self._synced.put(self._make_spare(batch))
        except OSError as error:
            self._trouble(f"cannot sync what was settled: {(error.strerror or str(error)).lower()}")
            self._synced.put(None)

    def _make_spare(self, batch: _Batch) -> str:
        if files.HAS_SYNCFS:
            files.sync_filesystem(batch.folder)
        else:
            _sync_each(batch.unsynced, (self._layout.done, self._layout.dead, self._layout.pending))
        for name in batch.foreign:
            with suppress(FileNotFoundError):
                os.unlink(os.path.join(batch.folder, name))
        spare = f"{self._prefix}spare.{batch.folder.rpartition('.')[2]}"
        os.rename(batch.folder, spare)
        return spare


class _Batch:
    """What was settled between two syncs."""

    __slots__ = ("count", "folder", "foreign", "unsynced")

    def __init__(self) -> None:
        self.folder = ""
        self.count = 0
        self.foreign: list[str] = []
        self.unsynced: list[int] = []


def _sync_each(fds: list[int], folders: Iterable[str]) -> None:
    try:
        for fd in fds:
            files.sync_file(fd)
    finally:
        for fd in fds:
            os.close(fd)
    for folder in folders:
        files.sync_folder(folder)
