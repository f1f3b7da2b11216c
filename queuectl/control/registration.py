"""Owning a worker's name: take the lowest free one, hold its lock, write its record, give it back.

The registry's docstring lists the files. A name belongs to a worker from the moment at which somebody begins to start
its process: a `Reservation` takes the lock, which that process
inherits.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from queuectl.control import registry
from queuectl.control.registry import PROBE_PATIENCE
from queuectl.errors import SpoolError, WorkerError
from queuectl.fast_start import fast_json
from queuectl.job import times
from queuectl.layout import INDEX_SCHEMA
from queuectl.system import files
from queuectl.system.locks import Lock, is_folder_locked
from queuectl.system.process import ProcessIdentity

if TYPE_CHECKING:
    from queuectl.control.launch import Launch
    from queuectl.layout import Layout


class Reservation:
    """A name for a worker that is about to be started. Others see that it starts.

    Args:
        parent: the process that watches over it, and ends with its last worker.
        first: the number of the first name to try.
        engine: the engine whose dispatcher it is; it has that name. None: a worker.

    Attributes:
        name: the lowest free one.
        number: the number in it.

    Raises:
        SpoolError: the lock file or the record cannot be written.
        WorkerError: the engine has a dispatcher already.
    """

    def __init__(
        self,
        layout: Layout,
        parent: ProcessIdentity | None = None,
        *,
        first: int = 0,
        engine: str | None = None,
    ) -> None:
        self._layout = layout
        if engine is None:
            self.number, self._lock = _take_number(layout, first)
            self.name = f"worker-{self.number}"
        else:
            self.number, self._lock, self.name = 0, _take_named(layout, engine), engine
        path = layout.worker_file(self.name, "json")
        before = registry.read_record(layout, self.name)
        # The new worker has to know when the earlier owner of the name began, if that one died.
        record = {
            "name": self.name,
            "mode": registry.STARTING,
            "started_at": before.get("started_at", times.iso(time.time())),
            **_parent_fields(parent),
            "is_first": not before or before.get("is_first", False),
        }
        try:
            files.replace(path, fast_json.dumps(record, option=fast_json.OPT_INDENT_2))
        except OSError as error:
            self._lock.release()
            raise SpoolError.from_os("write", path, error) from None

    @property
    def fd(self) -> int:
        """The descriptor of the lock, which the new process inherits."""
        return self._lock.fd

    def hand_over(self) -> None:
        """Leave the lock to the new process, which has inherited it."""
        self._lock.detach()

    def give_back(self) -> None:
        """Free the name again."""
        self._lock.release()
        cancel_reservation(self._layout, self.name)


def _parent_fields(parent: ProcessIdentity | None) -> dict[str, Any]:
    if parent is None:
        return {}
    return {
        "parent": [parent.pid, parent.started],
        "boot_id": parent.boot,
        "pid_namespace": parent.namespace,
    }


def cancel_reservation(layout: Layout, name: str) -> None:
    """Forget a worker whose process ended before it had a record of its own."""
    with suppress(OSError):
        lock = Lock.acquire(layout.worker_file(name, "lock"), patience=PROBE_PATIENCE)
        if lock is not None:
            record = registry.read_record(layout, name)
            if record.get("mode") == registry.STARTING and record.get("is_first") is True:
                os.unlink(layout.worker_file(name, "json"))
            lock.release()


def _take_number(layout: Layout, first: int = 0) -> tuple[int, Lock]:
    """Take the lock of the lowest free name: worker-0, worker-1 and so on.

    Raises:
        SpoolError: the lock files cannot be made.
    """
    number = first - 1
    while True:
        number += 1
        name = f"worker-{number}"
        if registry.unusable_files(layout, name):
            continue  # `doctor` reports it
        path = layout.worker_file(name, "lock")
        try:
            lock = Lock.acquire(path)
            # Of a worker that can be seen the lock is not only probed. Waiting for each would take seconds for many.
            if lock is None and registry.may_be_probed(layout, name):
                lock = Lock.acquire(path, patience=PROBE_PATIENCE)
        except OSError as error:
            raise SpoolError.from_os("take the lock", path, error) from None
        if lock is not None and not registry.is_in_use(layout, name):
            return number, lock
        if lock is not None:
            lock.release()


def _take_named(layout: Layout, engine: str) -> Lock:
    """Take the lock of the name of an engine.

    Raises:
        WorkerError: it has a dispatcher already.
        SpoolError: the lock file cannot be made.
    """
    path = layout.worker_file(engine, "lock")
    try:
        lock = Lock.acquire(path, patience=PROBE_PATIENCE)
        # The lock of the folder tells of one whose lock file somebody has deleted.
        is_free = lock is not None and not is_folder_locked(layout.claims(engine))
    except OSError as error:
        raise SpoolError.from_os("take the lock", path, error) from None
    if lock is None or not is_free:
        if lock is not None:
            lock.release()
        pid = registry.worker_info(layout, engine).pid
        raise WorkerError(f"{engine} has a dispatcher already" + (f" (PID {pid})" if pid else ""))
    return lock


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
        self._written: files.Fingerprint | None = None

    @classmethod
    def acquire(cls, layout: Layout) -> Registration:
        """Take the lowest free name: worker-0, worker-1 and so on.

        Raises:
            SpoolError: the lock files cannot be made.
        """
        number, lock = _take_number(layout)
        return cls._of(layout, f"worker-{number}", lock)

    @classmethod
    def acquire_named(cls, layout: Layout, engine: str) -> Registration:
        """Take the name of an engine, for its one dispatcher.

        Raises:
            WorkerError: it has one already: two would hand the same jobs over.
            SpoolError: the lock file cannot be made.
        """
        return cls._of(layout, engine, _take_named(layout, engine))

    @classmethod
    def of_launch(cls, layout: Layout, launch: Launch, *, engine: str | None = None) -> Registration:
        """Take over the name that was reserved for this process; any free name, or that of its engine, if there is none.

        Raises:
            SpoolError: the lock files cannot be made.
            WorkerError: the engine has a dispatcher already.
        """
        if launch.name is not None:
            lock = Lock.inherited(launch.fd, layout.worker_file(launch.name, "lock"))
            if lock is not None:
                return cls._of(layout, launch.name, lock)
        return cls.acquire(layout) if engine is None else cls.acquire_named(layout, engine)

    @classmethod
    def _of(cls, layout: Layout, name: str, lock: Lock) -> Registration:
        try:
            return cls(layout, name, lock)
        except OSError as error:
            lock.release()
            raise SpoolError.from_os("look up this process for", name, error) from None

    def announce(
        self, mode: str, handles_wake_signal: bool = False, parent: ProcessIdentity | None = None
    ) -> None:
        """Write the record, and delete a stop note that was meant for an earlier owner of the name.

        Args:
            mode: "background", "foreground", "child" or "program".
            handles_wake_signal: this process handles commands.wake_signal(), which would end any other process.
            parent: the process that watches over this one, and ends with its last worker.

        Raises:
            SpoolError: the record or the folder cannot be written.
            WorkerError: a worker of another version is there; then the name has been given back.
        """
        is_first = registry.read_record(self.layout, self.name).get("is_first") is True
        if not is_first and os.path.exists(self.layout.worker_file(self.name, "json")):
            self.predecessor_started_at = registry.worker_info(self.layout, self.name).started_at
        self._record = {
            "name": self.name,
            "pid": self.identity.pid,
            "process_started": self.identity.started,
            "boot_id": self.identity.boot,
            "pid_namespace": self.identity.namespace,
            **_parent_fields(parent),
            "started_at": times.iso(time.time()),
            "mode": mode,
            "hurries": handles_wake_signal,
            registry.SCHEMA: INDEX_SCHEMA,
        }
        try:
            # Not the cancel note: recovery needs it for the job that the earlier owner left.
            self._delete("stop")
            self._lock_folder()
            self._write()
        except OSError as error:
            raise SpoolError.from_os("write", self.layout.worker_file(self.name, "json"), error) from None
        try:
            registry.refuse_another_version(self.layout)  # of two that start together, each sees the other
        except WorkerError:
            self.release()
            raise

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
        """Make the lock file, the record and the folder again if somebody deleted or changed them.

        Without them nobody sees or stops the worker.

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
        if self._record and self._stamp() != self._written:
            self._write()  # else nobody could find this process to stop it
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

    def report(self, key: str, value: str | int | None) -> None:
        """Put a reason into the record for `status` ("polling", "paused", "lingering", "settings", "rules"), a mark or a number.

        Args:
            key: one of those, "pause_seen", or "concurrency".
            value: None when there is none any more, or it is the usual one.
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
            self.layout.worker_file(self.name, "json"),
            fast_json.dumps(self._record, option=fast_json.OPT_INDENT_2),
        )
        self._written = self._stamp()

    def _stamp(self) -> files.Fingerprint | None:
        """What changes when somebody else writes or deletes the record."""
        with suppress(OSError):
            return files.fingerprint(os.lstat(self.layout.worker_file(self.name, "json")))
        return None

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
        # Each by itself: somebody may have put a folder there, and a lock that stays tells that this worker lives.
        for kind in ("json", "stop"):
            with suppress(OSError):
                self._delete(kind)
        if self._folder is not None:
            self._folder.release()
        with suppress(OSError):
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
