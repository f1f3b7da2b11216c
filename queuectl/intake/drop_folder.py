"""A drop folder for other users of the machine; used only if the setting `incoming` names one.

Whoever can write into pending/ can run commands as the worker's user. Other users use this folder instead: files there
are opened with care and checked, and a job is written to pending/ by us, with the name of the file's owner in it. The
folder is sticky and group-writable, so that nobody can change or delete the files of others.
"""

from __future__ import annotations

import json
import os
import re
import stat
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from queuectl.config.settings import JobDefaults
from queuectl.control import permissions
from queuectl.errors import ConfigError, DuplicateId, InvalidJob, KeyTaken, SpoolError
from queuectl.intake.dropped_file import DroppedFile, read_dropped
from queuectl.job import record as jobs
from queuectl.job.fields import is_id
from queuectl.job.redact import one_line
from queuectl.job.times import micros
from queuectl.layout import is_job_name
from queuectl.storage import dead_letters, locate
from queuectl.storage.enqueue import enqueue
from queuectl.storage.transitions import Prepared
from queuectl.system import files, host, safe_open

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from queuectl.config.settings import Settings
    from queuectl.job.record import Job
    from queuectl.layout import Layout
    from queuectl.storage.transitions import Storage

MODE = 0o1770


def make(path: str, layout: Layout) -> None:
    """Create the drop folder if it is missing, and check it.

    Raises:
        SpoolError: it cannot be created, or is not a safe drop folder: other users could replace the files in it,
            nobody else can write into it, or it lies in the spool.
    """
    if layout.contains(path):  # every file in a drop folder is removed from it
        raise SpoolError(f"{path} lies in the spool itself and is no drop folder for others")
    try:
        if not os.path.isdir(path):
            os.mkdir(path, 0o700)
            os.chmod(path, MODE)
        status = os.stat(path)
    except OSError as error:
        raise SpoolError.from_os("make the drop folder", path, error) from None
    if safe_open.has_other_owner(status):
        raise SpoolError(f"the drop folder {path} belongs to another user (uid {status.st_uid})")
    if not (status.st_mode & stat.S_ISVTX and status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)):
        raise SpoolError(
            f"{path} is not a drop folder: it must be writable for others, and sticky",
            hint=f"chmod 1770 {path}",
        )
    for folder, problem, _ in permissions.unsafe_parents(path):
        raise SpoolError(f"the drop folder {path} could be swapped for another one: {folder} {problem}")


def problems(path: str, layout: Layout) -> list[str]:
    """Return why the drop folder cannot be used, as a list of one line, or of none."""
    try:
        make(path, layout)
    except SpoolError as error:
        return [f"{error}; {error.hint}" if error.hint else str(error)]
    return []


_OF_A_RULE = re.compile(r"[^.]+\.(?:[0-9]{8}T[0-9]{6}Z|[a-z]+-[a-z2-7]{13})(?:\..*)?")
"""Ids that rules give: backup.20310101T010000Z, scans.file-mzxw6ytboi4do."""


class DropFolder:
    """Takes jobs out of the drop folder of one spool. Only one process may use it at a time.

    Args:
        say: called with a line for each event. A line that begins with "cannot " may be repeated.
    """

    def __init__(self, storage: Storage, say: Callable[[str], None]) -> None:
        self._storage = storage
        self._say = say
        self._after = ""

    def take_in(self, settings: Settings, time_limit: float) -> None:
        """Take complete files out of the drop folder, starting where the last call stopped.

        Args:
            time_limit: seconds after which to stop: a job may be running meanwhile.

        Raises:
            SpoolError: the folder is unsafe or cannot be read, or the spool cannot be written.
        """
        folder = settings.incoming
        if folder is None:
            return
        make(folder, self._storage.layout)
        stop_at = time.monotonic() + time_limit
        for name in self._names(folder):
            self._take(settings, os.path.join(folder, name))
            self._after = name
            if time.monotonic() >= stop_at:
                return
        self._after = ""

    def _names(self, folder: str) -> Iterator[str]:
        """Return the names after the last one: a user who fills the folder with invalid files must not block others."""
        try:
            names = sorted(name for name in os.listdir(folder) if is_job_name(name))
        except OSError as error:
            raise SpoolError.from_os("read", folder, error) from None
        return (name for name in names if name > self._after)

    def _take(self, settings: Settings, path: str) -> None:
        found = read_dropped(path, micros(self._storage.now()), settings.settle_time, any_owner=True)
        status = found.status
        if found.gone or found.incomplete or status is None:
            return
        owner = host.user_name(status.st_uid)
        reason = found.reason
        if stat.S_ISREG(status.st_mode) and status.st_nlink != 1:
            reason = "has a second name elsewhere"  # a hard link to a file of somebody else
        elif owner not in (settings.incoming_users or "").split():
            reason = f"user {owner} may not hand in jobs here, see: queuectl config set incoming_users"
        elif found.job is not None:
            self._enqueue(settings, found.job, path, status, owner)
            return
        self._refuse(path, found, owner, reason)

    def _enqueue(self, settings: Settings, job: Job, path: str, status: os.stat_result, owner: str) -> None:
        storage = self._storage
        try:
            defaults = JobDefaults(storage.layout, settings).of(job.queue)
        except ConfigError as error:
            self._say(f"{error}; files from {owner} for the queue {job.queue} wait until it is valid")
            return
        fingerprint = _fingerprint(status)
        if not job.id:
            stem = os.path.basename(path)[: -len(".json")]
            free = is_id(stem) and (
                locate.state_of(storage, stem) is None or self._is_queued(stem, fingerprint)
            )
            # The id is derived from the file: after a crash between queueing and deleting, it is not queued twice.
            job.id = stem if free else f"in-{fingerprint[:20]}"
        if _OF_A_RULE.fullmatch(job.id):
            # Under this id a rule is about to queue a job. It would take this one for its own.
            job.id = f"in-{fingerprint[:20]}"
        job.renew(0)
        job.history, job.history_left_out = [], 0
        job.rule = job.scheduled_for = job.source = job.event = job.about = None
        job.fill_in(defaults)
        job.created_at = job.updated_at = storage.now()
        job.extra["submitted_by"] = owner
        job.extra["submission"] = fingerprint
        data = job.to_bytes()
        try:
            jobs.check_size(job, len(data))
            enqueue(storage, Prepared(job.id, data, chosen=True, made=job))
        except (DuplicateId, KeyTaken, InvalidJob) as error:
            if isinstance(error, InvalidJob) or not self._is_queued(job.id, fingerprint):
                found = DroppedFile()
                found.status, found.job = status, job
                self._refuse(path, found, owner, str(error))
                return
        _delete(path, status)
        self._say(f"took in {job.id} from {owner}")

    def _is_queued(self, job_id: str, fingerprint: str) -> bool:
        """Return whether the job with this id was made from this file before a crash, in whatever state it is now."""
        layout = self._storage.layout
        name = f"{job_id}.json"
        row = self._storage.index.get(job_id) if self._storage.index.usable else None
        paths = [os.path.join(layout.root, row.place, row.name)] if row else []
        paths += [os.path.join(folder, name) for folder in (layout.pending, layout.done, layout.dead)]
        with suppress(OSError), os.scandir(layout.processing) as workers:
            paths += [os.path.join(worker.path, name) for worker in workers]
        for path in paths:
            with suppress(OSError, safe_open.NotReadable, InvalidJob):
                if (
                    jobs.parse(safe_open.read_regular(path, jobs.READ_LIMIT)[0]).extra.get("submission")
                    == fingerprint
                ):
                    return True
        return False

    def _refuse(self, path: str, found: DroppedFile, owner: str, reason: str) -> None:
        """Write a note with the file's content to dead/ and delete the file. What cannot be copied stays there.

        It is a note, not a copy: `dlq retry` would run a copy as a job of ours.
        """
        name = os.path.basename(path)
        status = found.status
        if status is None:
            return
        content = None
        if stat.S_ISDIR(status.st_mode):
            self._say(f"cannot take in {one_line(name)} from {owner}: a folder, not a file")
            return
        if stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
            try:
                content = safe_open.read_regular(path, jobs.SIZE_LIMIT)[0].decode("utf-8", "backslashreplace")
            except (safe_open.NotReadable, OSError):
                self._say(f"cannot take in {one_line(name)} from {owner}: {found.reason or reason}")
                return
        explained = f"{reason} (from {owner}, dropped as {one_line(name)})"
        note = {"refused": {"name": name, "owner": owner, "reason": reason, "content": content}}
        job_id = f"refused-{files.token()}"
        kept = os.path.join(self._storage.layout.tmp, f"{job_id}.json")
        try:
            files.write_new(kept, f"{json.dumps(note, indent=2)}\n".encode(), sync=True)
            dead_letters.bury_file(self._storage, kept, job_id, explained)
        except OSError as error:
            raise SpoolError.from_os("write", kept, error) from None
        _delete(path, status)
        self._say(f"refused {one_line(name)} from {owner}: {reason}")


def _fingerprint(status: os.stat_result) -> str:
    """Return what identifies this file. The change time is part of it: a copy can have the other times of its original."""
    import hashlib  # 3 ms, and most workers need it never

    owner_and_file = status.st_dev, status.st_ino, status.st_uid
    times_and_size = status.st_ctime_ns, status.st_mtime_ns, status.st_size
    return hashlib.sha256(".".join(map(str, owner_and_file + times_and_size)).encode()).hexdigest()


def _delete(path: str, status: os.stat_result) -> None:
    """Delete the file that was read, and no other: its owner may have replaced it meanwhile."""
    renamed = os.path.join(os.path.dirname(path), f".{files.token()}.taken")
    try:
        files.move(path, renamed)
        now = os.lstat(renamed)
        if (now.st_dev, now.st_ino) == (status.st_dev, status.st_ino):
            os.unlink(renamed)
        else:
            files.move_to_free_name(renamed, os.path.dirname(path), os.path.basename(path))
    except FileNotFoundError:
        return
    except OSError as error:
        raise SpoolError.from_os("take away", path, error) from None
