"""What the held files of settled jobs (see spares) tell after a worker's death, and after a power cut.

After a power cut, those of the old boot say which outcomes may not have reached the disk; within their own boot they
mean nothing, as no page was lost.
"""

from __future__ import annotations

import os
import re
import zlib
from contextlib import suppress
from typing import TYPE_CHECKING

from queuectl import files
from queuectl import job as jobs
from queuectl.errors import InvalidJob
from queuectl.owner import Lock

if TYPE_CHECKING:
    from queuectl.job import Job
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
                files.sync_all(folder)
            remove(folder)


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
        remove(folder)
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
