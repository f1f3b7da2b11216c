"""Files that a worker writes outcomes into, over and over, so that settling a job creates and deletes nothing.

Creating and deleting a file costs more than all other bookkeeping of a job, on some filesystems fifty times more. So
the claimed file of a settled job becomes the file for a later outcome. But it is also the only copy of the job that
is surely on the disk, until the outcome is: it is *held* first, and becomes a *spare* once a sync has come back. One
sync serves all that was settled before it, and a thread waits for it while the worker goes on.

- data/workers/worker-0.held.BOOT.N/ID~K.json: claimed files of settled jobs, not synced yet
- data/workers/worker-0.spare.N/: files free to be written
- data/workers/worker-0.reserve: the one for an outcome on a full disk

A batch changes from held to spare by one rename of its folder. After a power cut, the held files of the old boot say
which outcomes may not have reached the disk; within their own boot they mean nothing, as no page was lost.
"""

from __future__ import annotations

import os
import queue
import re
import threading
import zlib
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

from queuectl import files
from queuectl import job as jobs
from queuectl.errors import FULL, InvalidJob
from queuectl.owner import Lock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from queuectl.job import Job
    from queuectl.layout import Layout

FIRST_BATCH, BATCH = 16, 128
"""Settled jobs that one sync makes durable while a worker is busy; the first ones are small, as until a sync has come
back each outcome takes a new file."""

BEHIND = 8
"""Batches that may wait for the disk before the worker waits too."""

RESERVE = 64 << 10
"""Bytes kept for the outcome of a job that ends while the disk is full. Output is repeated in it up to 8 KiB."""

_FOLDER = re.compile(r"(worker-[0-9]+)\.(?:held\.([0-9a-f]+)|spare)\.[0-9]+", re.ASCII)


class Spares:
    """The recycled files of one worker, who holds the lock of its name. One thread uses it.

    Args:
        boot: the machine's boot id.
        trouble: told when a sync fails; what it was for stays held then. Called by another thread.
    """

    def __init__(self, layout: Layout, worker: str, boot: str, trouble: Callable[[str], None]) -> None:
        self._layout = layout
        self._prefix = layout.worker_file(worker, "")
        self._boot = _short(boot)
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
        if files.CAN_SYNC_ALL:
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
        path = f"{self._layout.tmp}{os.sep}.{files.token()}.tmp"
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
            _remove(folder)

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
        if files.CAN_SYNC_ALL:
            files.sync_all(batch.folder)
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


def _short(boot: str) -> str:
    return f"{zlib.crc32(boot.encode()):08x}"


def _remove(folder: str) -> None:
    with suppress(OSError):
        for name in os.listdir(folder):
            os.unlink(os.path.join(folder, name))
        os.rmdir(folder)


# -- after a death -----------------------------------------------------------------------------------------------------


def sweep(layout: Layout, worker: str, boot: str) -> None:
    """Delete what a worker that died in this boot left; the caller holds the lock of its name.

    Raises:
        OSError: the disk refused to sync the outcomes that the held files vouch for; they stay.
    """
    for name in os.listdir(layout.workers):
        found = _FOLDER.fullmatch(name)
        if found and found[1] == worker and found[2] in (None, _short(boot)):
            folder = os.path.join(layout.workers, name)
            if found[2]:
                files.sync_all(folder)
            _remove(folder)


def restore(layout: Layout, boot: str) -> int:
    """After a power cut: put back the jobs whose outcome did not reach the disk; returns how many.

    Raises:
        OSError: the disk refused; what is left stays for the next time.
    """
    old = [
        os.path.join(layout.workers, name)
        for name in os.listdir(layout.workers)
        if (found := _FOLDER.fullmatch(name)) and found[2] not in (None, _short(boot))
    ]
    mark = os.path.join(layout.data, "boot")
    if not old and (_marked(mark) == boot or not _claimed(layout)):
        return 0
    lock = Lock.acquire(os.path.join(layout.data, "restore.lock"), patience=60)
    if lock is None:
        return 0
    try:
        if _marked(mark) != boot:
            _clear_beside_claims(layout)
        restored = _restore(layout, old)
        files.replace(mark, boot.encode())
        return restored
    finally:
        lock.release()


def _marked(path: str) -> str | None:
    """The boot in which the spool was last put right after a power cut, if it was one."""
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except (OSError, UnicodeDecodeError):
        return None


def _clear_beside_claims(layout: Layout) -> None:
    """Delete outcomes whose names reached the disk and whose bytes did not, where the job is claimed still."""
    for path in _claimed(layout):
        job = _read(path)
        if job is not None:
            job.id = os.path.basename(path)[: -len(".json")]
            if not is_settled(layout, job, but=path):
                _clear_torn(layout, job, but=path)


def _claimed(layout: Layout) -> list[str]:
    """Every claimed job's file."""
    with suppress(FileNotFoundError), os.scandir(layout.processing) as workers:
        return [
            os.path.join(worker.path, name)
            for worker in workers
            if worker.is_dir(follow_symlinks=False)
            for name in os.listdir(worker.path)
            if name.endswith(".json") and not name.startswith(".")
        ]
    return []


def _restore(layout: Layout, folders: list[str]) -> int:
    latest: dict[str, tuple[Job, str]] = {}
    for folder in folders:
        for name in os.listdir(folder) if os.path.isdir(folder) else []:
            path = os.path.join(folder, name)
            job = _read(path)
            if job is not None:
                job.id = name.rpartition("~")[0]
                known = latest.get(job.id)
                if known is None or job.runs > known[0].runs:
                    latest[job.id] = (job, path)
    lost = [(job, path) for job, path in latest.values() if not is_settled(layout, job)]
    for job, path in lost:
        _clear_torn(layout, job)
        files.move_to_free_name(path, layout.pending, f"{job.id}.json")
    files.sync_folder(layout.pending)
    for folder in folders:
        _remove(folder)
    return len(lost)


def is_settled(layout: Layout, claimed: Job, *, but: str | None = None) -> bool:
    """Whether a later copy of a claimed job lies somewhere: one that knows of more runs.

    A stranger's file of the same id does not, and proves nothing. `but` is a path that does not count.
    """
    for path in _places(layout, claimed.id or ""):
        other = _read(path) if path != but else None
        if other is not None and other.id in (None, claimed.id) and other.continues(claimed):
            return True
    return False


def _clear_torn(layout: Layout, claimed: Job, *, but: str | None = None) -> None:
    """Delete what a power cut left of an outcome under the job's name.

    It is not whole, or it is what the recycled file held before: another job, or this one at an earlier time.
    """
    for path in _places(layout, claimed.id or ""):
        if path != but and os.path.lexists(path):
            other = _read(path)
            if other is None or other.id not in (None, claimed.id) or claimed.continues(other):
                os.unlink(path)


def _places(layout: Layout, job_id: str) -> list[str]:
    """Where the file of a job can lie."""
    folders = [layout.done, layout.dead, layout.pending]
    with suppress(OSError), os.scandir(layout.processing) as workers:
        folders += [worker.path for worker in workers]
    return [os.path.join(folder, f"{job_id}.json") for folder in folders]


def _read(path: str) -> Job | None:
    try:
        return jobs.parse(files.read_plain(path, jobs.READ_LIMIT)[0])
    except (files.Unfit, InvalidJob, OSError):
        return None
