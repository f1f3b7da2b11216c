"""The registry of workers: each one's name, lock and record, in data/workers/.

- worker-0.lock: locked as long as the worker lives; never deleted
- worker-0.json: its record: which process it is, for people and for signals
- worker-0.stop: "graceful" or "force", meant for exactly that process (see commands)
- worker-0.cancel: the jobs that somebody wants ended, and which run of each (see commands)
- worker-0.run: the run lock, which the job's own processes hold too (see run_lock)
- worker-0.out, worker-0.err: what the running job prints
- worker-0.log: the log of a background worker
"""

from __future__ import annotations

import os
import re
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from queuectl.control import run_lock
from queuectl.errors import SpoolError
from queuectl.job import times
from queuectl.system import files
from queuectl.system.locks import Lock, is_folder_locked, is_locked
from queuectl.system.process import ProcessIdentity, is_surely_gone

if TYPE_CHECKING:
    from queuectl.layout import Layout

_NAME = re.compile(r"worker-([0-9]{1,6})", re.ASCII)
_PROBE_PATIENCE = 0.15
"""Seconds. `is_locked` itself holds a lock for some microseconds: a lock that is free after this time was only probed."""


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """What is known of a worker. Moments are epoch seconds.

    Attributes:
        job_id, job_since: the job that it runs, and since when.
        stopping: somebody has asked it to stop.
        polling, paused, settings: why it gets no events, starts no job, or keeps old settings; None when all is well.
        pause_seen: the mark of the pause that it has noticed.
    """

    name: str
    pid: int
    started_at: float
    mode: str
    job_id: str | None
    job_since: float | None
    stopping: bool
    polling: str | None
    paused: str | None = None
    settings: str | None = None
    pause_seen: str | None = None


class Registration:
    """A worker name that this process holds until release() or death.

    Attributes:
        identity: this process.
        predecessor_started_at: when the previous owner of the name started, in epoch seconds, if it died without
            release(); else None.
    """

    def __init__(self, layout: Layout, name: str, lock: Lock) -> None:
        self.layout = layout
        self.name = name
        self.identity = ProcessIdentity.mine()
        self.predecessor_started_at: float | None = None
        self._lock = lock
        self._folder: Lock | None = None
        self._root = _open_folder(layout.root)
        self._record: dict[str, Any] = {}
        self._unwritten = False

    @classmethod
    def acquire(cls, layout: Layout) -> Registration:
        """Take the lowest free name: worker-0, worker-1 and so on.

        Raises:
            SpoolError: the lock files cannot be made.
        """
        number = 0
        while True:
            name = f"worker-{number}"
            try:
                lock = Lock.acquire(layout.worker_file(name, "lock"), patience=_PROBE_PATIENCE)
            except OSError as error:
                raise SpoolError.from_os("take the lock", layout.worker_file(name, "lock"), error) from None
            if lock is not None and _is_in_use(layout, name):
                lock.release()
            elif lock is not None:
                try:
                    return cls(layout, name, lock)
                except OSError as error:
                    lock.release()
                    raise SpoolError.from_os("look up this process for", name, error) from None
            number += 1

    def announce(self, mode: str, *, handles_wake_signal: bool = False) -> None:
        """Write the record, and delete a stop note that was meant for an earlier owner of the name.

        Args:
            mode: "background", "foreground", "child" or "program".
            handles_wake_signal: this process handles commands.wake_signal(), which would end any other process.

        Raises:
            SpoolError: the record or the folder cannot be written.
        """
        if os.path.exists(self.layout.worker_file(self.name, "json")):
            self.predecessor_started_at = worker_info(self.layout, self.name).started_at
        self._record = {
            "name": self.name,
            "pid": self.identity.pid,
            "process_started": self.identity.started,
            "boot_id": self.identity.boot,
            "started_at": times.iso(time.time()),
            "mode": mode,
            "hurries": handles_wake_signal,
        }
        try:
            # Not the cancel note: recovery needs it for the job that the earlier owner left.
            self._delete("stop")
            self._lock_folder()
            self._write()
        except OSError as error:
            raise SpoolError.from_os("write", self.layout.worker_file(self.name, "json"), error) from None

    def _lock_folder(self) -> None:
        """Lock the folder of the claims as well: deleting data/ must not make a running job look abandoned."""
        path = self.layout.claims(self.name)
        os.makedirs(path, mode=0o700, exist_ok=True)
        if self._folder is not None:
            self._folder.release()
            self._folder = None
        with suppress(OSError):
            self._folder = Lock.on_folder(path)

    def restore(self, *, idle: bool = False) -> None:
        """Make the lock file and the folder again if somebody deleted them: without them nobody sees or stops the worker.

        Args:
            idle: nothing runs. A cancel note that exists now came too late, and could end a new job with the same id:
                it is deleted.

        Raises:
            OSError: the disk refused.
        """
        if idle:
            self._delete("cancel")
        # The folder's lock is also missing if somebody was just probing it when this worker started.
        if self._folder is None or not self._folder.is_on(self.layout.claims(self.name)):
            self._lock_folder()
        path = self.layout.worker_file(self.name, "lock")
        if not self._lock.is_on(path):
            os.makedirs(self.layout.workers, mode=0o700, exist_ok=True)
            lock = Lock.acquire(path)
            if lock is not None:
                self._lock.release()
                self._lock = lock
                self._write()

    def is_in_place(self) -> bool:
        """Whether the spool that was opened still has its path; True where a folder cannot be kept open (Windows)."""
        if self._root is None:
            return True
        try:
            return os.path.samestat(os.stat(self.layout.root), os.fstat(self._root))
        except FileNotFoundError:
            return False
        except OSError:
            return True  # a share that does not answer now

    def report(self, key: str, value: str | None) -> None:
        """Put a reason into the record for `status` ("polling", "paused", "settings") or a mark ("pause_seen").

        Args:
            value: None when there is none any more.
        """
        if self._record.get(key) != value:
            self._record[key] = value
            self._unwritten = True
        # A full disk refuses this now. It is tried again at the next report.
        if self._unwritten:
            with suppress(OSError):
                self._write()
                self._unwritten = False

    def _write(self) -> None:
        files.replace(
            self.layout.worker_file(self.name, "json"), orjson.dumps(self._record, option=orjson.OPT_INDENT_2)
        )

    def _delete(self, kind: str) -> None:
        with suppress(FileNotFoundError):
            os.unlink(self.layout.worker_file(self.name, kind))

    def release(self, *, touch_files: bool = True) -> None:
        """Give the name back. The lock file stays, see locks.Lock.

        Args:
            touch_files: False if the files of this name belong to another spool now.
        """
        if self._root is not None:
            os.close(self._root)
            self._root = None
        if not touch_files:
            if self._folder is not None:
                self._folder.release()
            self._lock.release()
            return
        with suppress(OSError):
            for kind in ("json", "stop"):
                self._delete(kind)
            if self._folder is not None:
                self._folder.release()
            os.rmdir(self.layout.claims(self.name))
            # Last: if the folder is not empty, the note may be about a job in it whose end could not be recorded.
            self._delete("cancel")
        self._lock.release()


def _open_folder(path: str) -> int | None:
    """Keep a folder open, so that no later folder gets its inode number; None where that cannot be done."""
    try:
        return os.open(path, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | files.O_CLOEXEC)
    except OSError:
        return None


def _is_in_use(layout: Layout, name: str) -> bool:
    """Whether the previous owner of a name, or a process that it started, is still alive.

    Another worker takes its job back when that process has ended.
    """
    if is_folder_locked(layout.claims(name)):
        return True
    return _current_job(layout, name)[0] is not None and run_lock.is_under_way(layout, name)


def orphaned_runs(layout: Layout) -> list[tuple[str, str]]:
    """Return the workers that died while their run goes on, each with the id of its job, which waits for the end."""
    return [
        (name, _current_job(layout, name)[0] or "")
        for name in worker_names(layout)
        if _is_in_use(layout, name) and not _is_process_running(layout, name)
    ]


def _is_process_running(layout: Layout, name: str) -> bool:
    """Whether the worker's process lives. Its lock does not tell: another worker may hold it to take the job back."""
    identity = identity_of(layout, name)
    return identity is not None and identity.is_running()


def identity_of(layout: Layout, name: str) -> ProcessIdentity | None:
    """Return the process that owns a name according to the record; None when there is no record."""
    return ProcessIdentity.of(read_record(layout, name))


def read_record(layout: Layout, name: str) -> dict[str, Any]:
    """Return the record of a worker; {} when there is none, or it is damaged."""
    return read_json(layout.worker_file(name, "json"))


def read_json(path: str) -> dict[str, Any]:
    """Return the JSON object in a file; {} when there is none."""
    try:
        with open(path, "rb") as file:
            found = orjson.loads(file.read())
    except (OSError, orjson.JSONDecodeError):
        return {}
    return found if isinstance(found, dict) else {}


def live_workers(layout: Layout) -> list[WorkerInfo]:
    """Return the workers that hold their lock, ordered by number."""
    return [worker_info(layout, name) for name in worker_names(layout) if _is_live(layout, name)]


def _is_live(layout: Layout, name: str) -> bool:
    """Whether a worker holds its lock, rather than somebody who only probes it or recovers the jobs of a dead worker."""
    path = layout.worker_file(name, "lock")
    if not is_locked(path):
        return False
    pid = read_record(layout, name).get("pid")
    if not isinstance(pid, int) or is_surely_gone(pid):
        time.sleep(_PROBE_PATIENCE)
        return is_locked(path)
    return True


def worker_names(layout: Layout) -> list[str]:
    """Return every name that ever had a lock file, ordered by number."""
    try:
        entries = os.listdir(layout.workers)
    except OSError:
        return []
    numbers = (_NAME.fullmatch(entry.removesuffix(".lock")) for entry in entries if entry.endswith(".lock"))
    return [f"worker-{number}" for number in sorted(int(found[1]) for found in numbers if found)]


def worker_info(layout: Layout, name: str) -> WorkerInfo:
    """Return what the files of a worker say, whether it lives or not."""
    record = read_record(layout, name)
    job_id, since = _current_job(layout, name)
    started = record.get("started_at")
    return WorkerInfo(
        name=name,
        pid=int(record.get("pid") or 0),
        started_at=times.parse_moment(started) if started else 0.0,
        mode=str(record.get("mode", "starting")),
        job_id=job_id,
        job_since=since,
        stopping=os.path.exists(layout.worker_file(name, "stop")),
        polling=record.get("polling"),
        settings=record.get("settings"),
        paused=record.get("paused"),
        pause_seen=record.get("pause_seen"),
    )


def _current_job(layout: Layout, name: str) -> tuple[str | None, float | None]:
    """The id of the job that a worker runs, and since when, in epoch seconds."""
    folder = layout.claims(name)
    with suppress(OSError):
        found = [
            entry[: -len(".json")]
            for entry in os.listdir(folder)
            if entry.endswith(".json") and not entry.startswith(".")
        ]
        run = run_lock.read(layout, name) if len(found) > 1 else None
        if run and run.job_id in found:
            return run.job_id, os.stat(layout.worker_file(name, "run")).st_mtime
        if found:
            # The claim is a rename, and a rename sets the folder's modification time.
            return found[0], os.stat(folder).st_mtime
    return None, None
