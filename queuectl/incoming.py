"""A drop folder for other users of the machine, off unless the setting `incoming` names one.

Whoever may write into pending/ is the worker's user, in effect. This folder is for everybody else: what lies there is
opened with care, checked, and written anew into pending/ as a job of ours with its owner's name in it. The folder is
made sticky and group-writable, so that nobody can touch what others dropped.
"""

from __future__ import annotations

import hashlib
import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

from queuectl import files
from queuectl import job as jobs
from queuectl.errors import DuplicateId, InvalidJob, SpoolError
from queuectl.foreign import is_job_name, read_foreign
from queuectl.row import micros

if TYPE_CHECKING:
    from collections.abc import Callable

    from queuectl.config import Settings
    from queuectl.job import Job
    from queuectl.moves import Mover

MODE = 0o1770


def make(path: str) -> None:
    """Make the drop folder if it is missing: sticky, for its owner and its group.

    Raises:
        SpoolError: it cannot be made, or others could replace what lies in it.
    """
    try:
        if not os.path.isdir(path):
            os.mkdir(path, 0o700)
            os.chmod(path, MODE)
        status = os.stat(path)
    except OSError as error:
        raise SpoolError.from_os("make the drop folder", path, error) from None
    if files.is_strangers(status):
        raise SpoolError(f"the drop folder {path} belongs to another user (uid {status.st_uid})")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not status.st_mode & stat.S_ISVTX:
        raise SpoolError(
            f"in the drop folder {path} users can touch each other's files", hint=f"chmod +t {path}"
        )


def take_in(mover: Mover, settings: Settings, say: Callable[[str], None]) -> int:
    """Take every complete file out of the drop folder; returns how many became jobs.

    Raises:
        SpoolError: the folder is unsafe or cannot be read, or the spool cannot be written.
    """
    folder = settings.incoming
    if folder is None:
        return 0
    make(folder)
    taken = 0
    try:
        names = sorted(name for name in os.listdir(folder) if is_job_name(name))
    except OSError as error:
        raise SpoolError.from_os("read", folder, error) from None
    for name in names:
        taken += _take(mover, settings, os.path.join(folder, name), say)
    return taken


def _take(mover: Mover, settings: Settings, path: str, say: Callable[[str], None]) -> bool:
    found = read_foreign(path, micros(mover.now()), settings.settle_time, strangers=True)
    status = found.status
    if found.gone or found.may_grow or status is None:
        return False
    owner = _name_of(status.st_uid)
    reason = found.reason
    if status.st_nlink != 1 and stat.S_ISREG(status.st_mode):
        reason = "has a second name elsewhere"  # somebody else's file, linked to here
    elif owner not in (settings.incoming_users or "").split():
        reason = f"user {owner} may not hand in jobs here, see: queuectl config set incoming_users"
    elif found.job is not None:
        return _enqueue(mover, settings, found.job, path, status, owner, say)
    _refuse(mover, path, status, owner, reason, say)
    return False


def _enqueue(
    mover: Mover,
    settings: Settings,
    job: Job,
    path: str,
    status: os.stat_result,
    owner: str,
    say: Callable[[str], None],
) -> bool:
    stem = os.path.basename(path)[: -len(".json")]
    mark = _mark(status)
    if job.id is None:
        # Drawn from the file itself: a crash between queueing and deleting must not queue it twice.
        free = jobs.is_id(stem) and (mover.state_of(stem) is None or _is_ours_already(mover, stem, mark))
        job.id = stem if free else f"in-{mark[:20]}"
    job.renew()
    job.history = []
    job.accept(settings)
    job.created_at = job.updated_at = mover.now()
    job.extra["submitted_by"] = owner
    job.extra["submission"] = mark
    try:
        mover.enqueue(job, chosen=True)
    except DuplicateId as error:
        if not _is_ours_already(mover, job.id or "", mark):
            _refuse(mover, path, status, owner, f"duplicate id: {error}", say)
            return False
    _delete(path, status)
    say(f"took in {job.id} from {owner}")
    return True


def _mark(status: os.stat_result) -> str:
    text = f"{status.st_dev}.{status.st_ino}.{status.st_uid}.{status.st_mtime_ns}.{status.st_size}"
    return hashlib.sha256(text.encode()).hexdigest()


def _is_ours_already(mover: Mover, job_id: str, mark: str) -> bool:
    row = mover.index.get(job_id) if mover.index.usable else None
    places = (
        [os.path.join(row.place, row.name)]
        if row
        else [f"{place}/{job_id}.json" for place in ("pending", "done", "dead")]
    )
    for place in places:
        with suppress(OSError, files.Unfit, InvalidJob):
            data, _ = files.read_plain(os.path.join(mover.layout.root, place), jobs.SIZE_LIMIT)
            if jobs.parse(data).extra.get("submission") == mark:
                return True
    return False


def _refuse(
    mover: Mover, path: str, status: os.stat_result, owner: str, reason: str, say: Callable[[str], None]
) -> None:
    """Leave a copy of what was refused in dead/, with the reason, and take the original away."""
    name = os.path.basename(path)
    data = b""
    with suppress(files.Unfit, OSError):
        data, _ = files.read_plain(path, jobs.SIZE_LIMIT)
    kept = os.path.join(mover.layout.tmp, f"refused-{files.token()}.json")
    try:
        files.write_new(kept, data, sync=True)
        mover.bury_file(kept, jobs.new_id(mover.now()), f"{reason} (from {owner}, dropped as {name})")
    except OSError as error:
        raise SpoolError.from_os("write", kept, error) from None
    _delete(path, status)
    say(f"refused {name} from {owner}: {reason}")


def _delete(path: str, status: os.stat_result) -> None:
    """Delete exactly the file that was read: its owner may have put another under the name meanwhile."""
    with suppress(FileNotFoundError):
        now = os.lstat(path)
        if (now.st_dev, now.st_ino) == (status.st_dev, status.st_ino):
            files.delete(path)


def _name_of(uid: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
