"""What the held files of settled jobs (see spares) tell after a worker's death, and after a power cut.

After a power cut, those of the old boot say which outcomes may not have reached the disk; within their own boot they
mean nothing, as no page was lost.
"""

from __future__ import annotations

import os
import re
import stat
import time
import zlib
from contextlib import suppress
from typing import TYPE_CHECKING

from queuectl.control import run_lock
from queuectl.errors import InvalidJob
from queuectl.job import record as jobs
from queuectl.storage import quarantine
from queuectl.system import files, safe_open
from queuectl.system.locks import Lock

if TYPE_CHECKING:
    from collections.abc import Iterator

    from queuectl.job.record import Job
    from queuectl.layout import Layout

_FOLDER = re.compile(r"(worker-[0-9]+)\.(?:held\.([0-9a-f]+)|spare)\.[0-9]+", re.ASCII)


def short(boot: str) -> str:
    """A boot id as it stands in the name of a folder."""
    return f"{zlib.crc32(boot.encode()):08x}"


def remove(folder: str) -> None:
    """Delete a folder of files, as far as the disk lets us."""
    with suppress(OSError):
        for name in os.listdir(folder):
            os.unlink(os.path.join(folder, name))
        os.rmdir(folder)


def sweep(layout: Layout, worker: str, boot: str) -> None:
    """Delete what a worker that died in this boot left; the caller holds the lock of its name.

    Raises:
        OSError: the disk refused to sync the outcomes that the held files vouch for; they stay.
    """
    for name in os.listdir(layout.workers):
        found = _FOLDER.fullmatch(name)
        if found and found[1] == worker and found[2] in (None, short(boot)):
            folder = os.path.join(layout.workers, name)
            if found[2]:
                files.sync_filesystem(folder)
            remove(folder)
    with suppress(OSError):
        os.unlink(layout.worker_file(worker, "reserve"))


def restore(layout: Layout, boot: str) -> int:
    """After a power cut: put back the jobs whose outcome did not reach the disk; returns how many.

    Raises:
        OSError: the disk refused; what is left stays for the next time.
    """
    old = [
        os.path.join(layout.workers, name)
        for name in os.listdir(layout.workers)
        if (found := _FOLDER.fullmatch(name)) and found[2] not in (None, short(boot))
    ]
    # Made by the first look of each boot, whatever there is to put right: a claim of this boot is no sign of a cut.
    mark = os.path.join(layout.data, "boot")
    if not old and (_marked(mark) == boot or not _claimed(layout)):
        _leave_mark(mark, boot)
        return 0
    lock = Lock.acquire(os.path.join(layout.data, "restore.lock"), patience=60)
    if lock is None:
        return 0
    try:
        refused: list[OSError] = []
        if _marked(mark) != boot:
            _clear_beside_claims(layout, boot, refused)
        restored = _restore(layout, old, refused)
        if refused:
            raise refused[0]
        _leave_mark(mark, boot)
        return restored
    finally:
        lock.release()


def _marked(path: str) -> str | None:
    """The boot in which the spool was last looked at for what a power cut left."""
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except (OSError, UnicodeDecodeError):
        return None


def _leave_mark(path: str, boot: str) -> None:
    """Say that this boot has been dealt with. Not synced: what a power cut takes away here, it ends as well."""
    if _marked(path) != boot:
        scratch = os.path.join(os.path.dirname(path), files.temporary_name())
        files.write_new(scratch, boot.encode(), sync=False)
        files.rename_over(scratch, path)


def _clear_beside_claims(layout: Layout, boot: str, refused: list[OSError]) -> None:
    """Put aside outcomes whose names reached the disk and whose bytes did not, where the job is claimed still.

    Args:
        refused: gets what the disk refused. One file that cannot be read must not keep others from being put right.
    """
    for path in _claimed(layout):
        signed = run_lock.read(layout, os.path.basename(os.path.dirname(path)))
        if signed and signed.boot == boot:
            continue  # its worker has run something in this boot, and had put right its folder before
        try:
            job = _read(path)
            if job is not None:
                job.id = os.path.basename(path)[: -len(".json")]
                if not is_settled(layout, job, but=path):
                    _clear_torn(layout, job, but=path)
        except OSError as error:
            refused.append(error)


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


def _restore(layout: Layout, folders: list[str], refused: list[OSError]) -> int:
    latest: dict[str, tuple[Job, str]] = {}
    restored, kept = 0, set()
    for folder in folders:
        for name in os.listdir(folder) if os.path.isdir(folder) else []:
            path = os.path.join(folder, name)
            job = _read(path)
            if job is not None:
                job.id = name.rpartition("~")[0]
                known = latest.get(job.id)
                if known is None or job.runs > known[0].runs:
                    latest[job.id] = (job, path)
    for job, path in latest.values():
        try:
            if not is_settled(layout, job):
                _clear_torn(layout, job)
                files.move_to_free_name(path, layout.pending, f"{job.id}.json")
                restored += 1
        except OSError as error:
            refused.append(error)
            kept.add(os.path.dirname(path))
    files.sync_folder(layout.pending)
    for folder in folders:
        if folder not in kept:
            remove(folder)
    return restored


def is_settled(layout: Layout, claimed: Job, *, but: str | None = None) -> bool:
    """Whether a later copy of a claimed job lies somewhere: one that knows of more runs.

    A stranger's file of the same id does not, and proves nothing. `but` is a path that does not count.
    """
    for path in _places(layout, claimed.id or ""):
        other = _read(path) if path != but else None
        if other is not None and other.id in (None, claimed.id) and other.continues(claimed):
            return True
    for path in _second_names(layout, claimed.id or ""):
        other = _read(path)
        if other is not None and other.id == claimed.id and other.continues(claimed):
            return True
    return False


def _clear_torn(layout: Layout, claimed: Job, *, but: str | None = None) -> None:
    """Put aside what a power cut left of an outcome under the job's name; what is empty is deleted.

    It is not whole, or it is what the recycled file held before: another job, or this one at an earlier time. But it
    may be somebody's file as well, dropped under that name: nobody can tell.

    Raises:
        OSError: a file cannot be read or moved.
    """
    why = f"found where an outcome of {claimed.id} belongs, which a power cut had kept from the disk"
    for path in _places(layout, claimed.id or ""):
        with suppress(FileNotFoundError, NotADirectoryError):
            status = os.lstat(path)
            other = None if path == but else _read(path)
            if path == but or (other and other.id in (None, claimed.id) and not claimed.continues(other)):
                continue
            if stat.S_ISREG(status.st_mode) and not status.st_size:
                os.unlink(path)
            else:
                quarantine.put(layout, path, why, inode=status.st_ino, now=time.time())


def _second_names(layout: Layout, job_id: str) -> Iterator[str]:
    """The names that an outcome got where a stranger's file had the job's own, see files.move_to_free_name."""
    for folder in (layout.done, layout.dead, layout.pending):
        number = 2
        while os.path.lexists(path := os.path.join(folder, f"{job_id}-{number}.json")):
            yield path
            number += 1


def _places(layout: Layout, job_id: str) -> list[str]:
    """Where the file of a job can lie."""
    folders = [layout.done, layout.dead, layout.pending]
    with suppress(OSError), os.scandir(layout.processing) as workers:
        folders += [worker.path for worker in workers]
    return [os.path.join(folder, f"{job_id}.json") for folder in folders]


def _read(path: str) -> Job | None:
    """The job in a file; None if it holds none, or is gone.

    Raises:
        OSError: it cannot be read, which says nothing about what it holds.
    """
    try:
        return jobs.parse(safe_open.read_regular(path, jobs.READ_LIMIT)[0])
    except (safe_open.NotReadable, InvalidJob, FileNotFoundError, NotADirectoryError):
        return None
