"""The file pool of a worker: files that are reused for outcomes, so that settling a job creates and deletes none.

Creating and deleting a file costs more than the other work of a settle together; on some filesystems fifty times more. So
the claimed file of a settled job becomes the scratch file of a later outcome. Until the outcome has been synced, though,
the claimed file is the only copy of the job that a power cut cannot take. It is kept unchanged until then. One sync
serves all outcomes settled before it. A thread waits for the sync while the worker goes on.

- data/workers/worker-0.held.BOOT.N/ID~K.json: claimed files of settled jobs whose outcomes are not synced yet
- data/workers/worker-0.spare.N/: files that may be overwritten
- data/workers/worker-0.reserve: the file for an outcome on a full disk

One rename turns a folder from held to spare. What the held files mean after a crash: see power_loss.
"""

from __future__ import annotations

import errno
import os
import queue
import stat
import sys
import threading
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

from queuectl.errors import FULL
from queuectl.storage.power_loss import remove, short
from queuectl.system import files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from queuectl.layout import Layout

FIRST_BATCH, BATCH = 16, 128
"""Settled jobs per sync while a worker is busy. The first batches are small, as each outcome needs a new file until the
first sync is done."""

BEHIND = 8
"""Batches that may wait for the disk before the worker waits as well."""

_AS_MADE = stat.S_IRUSR | stat.S_IWUSR
_ACCESS = _AS_MADE | stat.S_IRWXG | stat.S_IRWXO

RESERVE = 64 << 10
"""Bytes kept for the outcome of a job that ends while the disk is full. An outcome repeats up to 8 KiB of output."""


class FilePool:
    """The file pool of one worker, which holds the lock of its name. For one thread.

    Args:
        boot: the machine's boot id.
        report: called, by another thread, with a line when a sync fails. The files of that batch stay held.
    """

    def __init__(self, layout: Layout, worker: str, boot: str, report: Callable[[str], None]) -> None:
        self._layout = layout
        self._prefix = layout.worker_file(worker, "")
        self._boot = short(boot)
        self._report = report
        self._batch = _Batch()
        self._batches, self._limit = 0, FIRST_BATCH
        self._free: deque[tuple[str, list[str]]] = deque()
        self._empty: list[str] = []
        self._to_sync: queue.SimpleQueue[_Batch | None] = queue.SimpleQueue()
        self._synced: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._under_way = 0
        self._thread: threading.Thread | None = None
        self._reserve: str | None = None
        self.keep_reserve()

    def keep_reserve(self) -> None:
        """Make the reserve file, if it is missing and the disk allows it; call it again later."""
        if self._reserve is not None:
            return
        path = f"{self._prefix}reserve"
        with suppress(OSError):
            if not os.path.exists(path):
                # Synced, because some filesystems allocate blocks only then.
                files.write_new(path, bytes(RESERVE), sync=True)
            if os.path.getsize(path) == RESERVE:
                self._reserve = path
            else:
                os.unlink(path)  # an earlier worker of this name died while it wrote it

    def write(self, data: bytes) -> tuple[str, os.stat_result]:
        """Write bytes into a free file, or a new one; return its path and status. The caller renames it.

        Raises:
            OSError: the disk refused, and the reserve is used up or too small.
        """
        try:
            return self._fill(*self._open(), data)
        except OSError as error:
            if error.errno not in FULL or self._reserve is None or len(data) > RESERVE:
                raise
        path, self._reserve = self._reserve, None
        if (reused := _open_ours(path)) is None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        return self._fill(path, *reused, data)

    def _fill(self, path: str, fd: int, size: int, data: bytes) -> tuple[str, os.stat_result]:
        """Write bytes into an open file that holds `size` bytes; return its path and status."""
        try:
            files.write_all(fd, data)
            if size > len(data):
                # Truncated last: after a truncation to zero, ext4 would flush the file when it is closed.
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

    def _open(self) -> tuple[str, int, int]:
        """Return the path of a free file, a descriptor for writing, and the file's size."""
        self._collect()
        while self._free:
            folder, names = self._free[0]
            path = f"{folder}{os.sep}{names.pop()}"
            if not names:
                self._free.popleft()
                self._empty.append(folder)
            if reused := _open_ours(path):
                return path, *reused
        path = f"{self._layout.tmp}{os.sep}{files.temporary_name()}"
        return path, os.open(path, files.CREATE, 0o600), 0

    def keep(self, path: str, job_id: str, *, ours: bool) -> bool:
        """Keep a settled job's claimed file until its outcome is synced; return False if the disk has no space for it.

        Args:
            ours: queuectl wrote the file and it has no other name, so it may be overwritten later. A producer may still
                have a file open that it dropped.

        Raises:
            FileNotFoundError: it is gone.
            OSError: the disk refused otherwise.
        """
        batch = self._batch
        # Numbered: the second attempt of a job within a batch must not replace its only durable copy.
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
            batch.not_ours.append(name)
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
        """Start a sync of all outcomes settled so far. Wait only if too many batches are under way already."""
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
        """Start the thread; return False if the system has none to give. Then the worker itself waits for the disk."""
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
        folders = [folder for folder, _ in self._free] + self._empty
        self._free.clear()
        self._empty.clear()
        if self._reserve is not None:
            with suppress(OSError):
                os.unlink(self._reserve)
        for folder in folders:
            remove(folder)

    def _collect(self, *, wait: bool = False) -> None:
        """Take over the batches whose sync is done."""
        while self._under_way and (wait or not self._synced.empty()):
            folder = self._synced.get()
            wait = False
            self._under_way -= 1
            names: list[str] = []
            try:
                names = os.listdir(folder) if folder else []
            except OSError:
                folder = (
                    None  # what is left of it is deleted with the worker's other files, see power_loss.sweep
                )
            if folder and names:
                self._free.append((folder, names))
            elif folder:
                self._empty.append(folder)

    # -- the thread ------------------------------------------------------------------------------------------------

    def _sync_loop(self) -> None:
        while (batch := self._to_sync.get()) is not None:
            self._sync(batch)

    def _sync(self, batch: _Batch) -> None:
        try:
            self._synced.put(self._free_after_sync(batch))
        except OSError as error:
            self._report(f"cannot sync what was settled: {(error.strerror or str(error)).lower()}")
            self._synced.put(None)

    def _free_after_sync(self, batch: _Batch) -> str:
        if files.HAS_SYNCFS:
            files.sync_filesystem(batch.folder)
        else:
            _sync_each(batch.unsynced, (self._layout.done, self._layout.dead, self._layout.pending))
        for name in batch.not_ours:
            with suppress(FileNotFoundError):
                os.unlink(os.path.join(batch.folder, name))
        spare = f"{self._prefix}spare.{batch.folder.rpartition('.')[2]}"
        os.rename(batch.folder, spare)
        return spare


class _Batch:
    """The jobs settled between two syncs."""

    __slots__ = ("count", "folder", "not_ours", "unsynced")

    def __init__(self) -> None:
        self.folder = ""
        self.count = 0
        self.not_ours: list[str] = []
        self.unsynced: list[int] = []


def _open_ours(path: str) -> tuple[int, int] | None:
    """Open a file of the pool for writing; return a descriptor and the file's size.

    A job may have put a link in its place, and a copy made with `cp -al` shares the file: what is written would change
    a file outside the spool. Or it has changed the mode, which the outcome of another job would then have: a job that
    others may write does not run again. Such a path is given up.

    Returns:
        None if it is not a file with this one name that only its owner may use, or is gone.
    """
    try:
        fd = os.open(path, files.OVERWRITE)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EACCES, errno.EPERM):
            _unlink(path)
        elif error.errno not in (errno.ENOENT, errno.EISDIR, errno.ENXIO):
            raise
        return None
    status = os.fstat(fd)
    is_private = status.st_mode & _ACCESS == _AS_MADE or sys.platform == "win32"
    if stat.S_ISREG(status.st_mode) and status.st_nlink == 1 and is_private:
        return fd, status.st_size
    os.close(fd)
    _unlink(path)
    return None


def _unlink(path: str) -> None:
    with suppress(OSError):
        os.unlink(path)


def _sync_each(fds: list[int], folders: Iterable[str]) -> None:
    try:
        for fd in fds:
            files.sync_file(fd)
    finally:
        for fd in fds:
            os.close(fd)
    for folder in folders:
        files.sync_folder(folder)
