"""After a worker's death or a power cut: the held files of settled jobs (see file_pool) are deleted, or put back.

After a power cut, the held files of an earlier boot tell which outcomes may not have reached the disk. While the machine
has not restarted they mean nothing: the kernel still writes all outcomes to the disk.
"""

from __future__ import annotations

import os
import stat
import time
import zlib
from contextlib import suppress

from queuectl.control import run_lock
from queuectl.job import copies
from queuectl.storage import quarantine
from queuectl.storage.locate import is_settled, paths_of, read_job
from queuectl.system import files, safe_open
from queuectl.system.locks import Lock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from queuectl.job.record import Job
    from queuectl.layout import Layout

_MARK_LIMIT = 1000
"""Bytes. The file has one boot id."""


def short(boot: str) -> str:
    """Return a boot id in the form that the name of a folder has."""
    return f"{zlib.crc32(boot.encode()):08x}"


def remove(folder: str) -> None:
    """Delete a folder of files, as far as the disk allows. Of a link only the link is deleted."""
    with suppress(OSError):
        if os.path.islink(folder):
            os.unlink(folder)
            return
        for name in os.listdir(folder):
            os.unlink(os.path.join(folder, name))
        os.rmdir(folder)


def _pool(name: str) -> tuple[str, str]:
    """Return whose pool a folder is, as worker-0.held.BOOT.1 or worker-0.spare.1, and the boot of its held files.

    The boot is empty for a folder of spare files. Both are empty for other files and folders.
    """
    parts = name.split(".")
    if not parts[-1].isdecimal():
        return "", ""
    if len(parts) == 4 and parts[1] == "held":
        return parts[0], parts[2]
    return (parts[0], "") if len(parts) == 3 and parts[1] == "spare" else ("", "")


def sweep(layout: Layout, worker: str, boot: str) -> None:
    """Delete the pool of a worker that died in this boot. The caller holds the lock of the worker's name.

    Raises:
        OSError: the disk refused to sync the outcomes; the held files stay.
    """
    for name in os.listdir(layout.workers):
        owner, pool_of = _pool(name)
        if owner == worker and pool_of in ("", short(boot)):
            folder = os.path.join(layout.workers, name)
            if pool_of:
                files.sync_filesystem(folder)
            remove(folder)
    with suppress(OSError):
        os.unlink(layout.worker_file(worker, "reserve"))


def restore(layout: Layout, boot: str) -> int:
    """After a power cut, put back the jobs whose outcomes did not reach the disk; return their number.

    Raises:
        OSError: the disk refused; the rest is left for the next call.
    """
    old = [
        os.path.join(layout.workers, name)
        for name in os.listdir(layout.workers)
        if _pool(name)[1] not in ("", short(boot))
    ]
    # The first call of each boot writes this file, even if nothing was lost. If it is missing, a
    # later call cannot see that a claim was made after the restart.
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
    """Return the boot in which the spool was last checked for the effects of a power cut."""
    try:
        return safe_open.read_regular(path, _MARK_LIMIT)[0].decode()
    except (OSError, UnicodeDecodeError, safe_open.NotReadable):
        return None


def _leave_mark(path: str, boot: str) -> None:
    """Record that this boot has been checked. No sync: a power cut that loses the file also ends the boot."""
    if _marked(path) != boot:
        scratch = os.path.join(os.path.dirname(path), files.temporary_name())
        files.write_new(scratch, boot.encode(), sync=False)
        files.rename_over(scratch, path)


def _clear_beside_claims(layout: Layout, boot: str, refused: list[OSError]) -> None:
    """Quarantine an outcome file whose content was never written, if its job is still claimed.

    Args:
        refused: takes the errors of the disk. One unreadable file must not prevent the repair of others.
    """
    for path in _claimed(layout):
        runs = run_lock.read_all(layout, os.path.basename(os.path.dirname(path)))
        if runs and any(one.boot == boot for one in runs.records):
            continue  # its worker has run a job in this boot, and repaired its folder before that
        try:
            job = read_job(path)
            if job is not None:
                job.id = os.path.basename(path)[: -len(".json")]
                if not is_settled(layout, job, but=path):
                    _clear_torn(layout, job, but=path)
        except OSError as error:
            refused.append(error)


def _claimed(layout: Layout) -> list[str]:
    """Return the path of every claimed job's file."""
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
            job = read_job(path)
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


def _clear_torn(layout: Layout, claimed: Job, *, but: str | None = None) -> None:
    """Quarantine what a power cut left of an outcome under the job's name; delete it if it is empty.

    The file is incomplete, or it has the earlier content of a recycled file: another job, or an earlier state of this
    one. But it may also be a file that somebody dropped under that name: this cannot be told, so its bytes are kept.

    Raises:
        OSError: a file cannot be read or moved.
    """
    why = f"this file had the name of the outcome of {claimed.id}, which was lost in a power cut"
    for path in paths_of(layout, claimed.id or ""):
        with suppress(FileNotFoundError, NotADirectoryError):
            status = os.lstat(path)
            other = None if path == but else read_job(path)
            if path == but or (
                other and other.id in (None, claimed.id) and not copies.continues(claimed, other)
            ):
                continue
            if stat.S_ISREG(status.st_mode) and not status.st_size:
                os.unlink(path)
            else:
                quarantine.put(layout, path, why, inode=status.st_ino, now=time.time())
