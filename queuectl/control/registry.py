"""A worker's place in the spool: its name, its lock, its record, and the notes that others leave for it.

Its files in data/workers/:

- worker-0.lock: held as long as the worker lives, and never deleted
- worker-0.json: who holds it, for people and for signals
- worker-0.stop: "graceful" or "force", meant for exactly that process
- worker-0.cancel: the job that a person wants ended, and which run of it
- worker-0.run: the run lock, which the job's own processes hold too
- worker-0.out, worker-0.err: what the job under way prints
- worker-0.log: what a background worker says
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
from queuectl.system.process import ProcessIdentity, hurry_signal, is_surely_gone, nudge_signal

if TYPE_CHECKING:
    from queuectl.layout import Layout

_NAME = re.compile(r"(?:worker-)([0-9]{1,6})", re.ASCII)
_SECOND_LOOK = 0.15
"""Seconds: who only asks whether a lock is held holds it for some microseconds."""


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """A living worker. Moments are epoch seconds; `polling`, `paused` and `settings` say what is amiss, and why.

    `pause_seen` is the mark of the pause that it obeys.
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


class Seat:
    """A name that this process holds until leave() or death."""

    def __init__(self, layout: Layout, name: str, lock: Lock) -> None:
        self.layout = layout
        self.name = name
        self._lock = lock
        self._folder: Lock | None = None
        self._me = ProcessIdentity.mine()
        self._record: dict[str, Any] = {}
        self._unwritten = False
        self.after: float | None = None
        """When the last holder of the name started, if it died without giving it back, in epoch seconds."""

    @classmethod
    def take(cls, layout: Layout) -> Seat:
        """Take the lowest free name: worker-0, worker-1 and so on.

        Raises:
            SpoolError: the lock files cannot be made.
        """
        number = 0
        while True:
            name = f"worker-{number}"
            try:
                lock = Lock.acquire(layout.worker_file(name, "lock"), patience=_SECOND_LOOK)
            except OSError as error:
                raise SpoolError.from_os("take the lock", layout.worker_file(name, "lock"), error) from None
            if lock is not None and _is_haunted(layout, name):
                lock.release()
            elif lock is not None:
                try:
                    return cls(layout, name, lock)
                except OSError as error:
                    lock.release()
                    raise SpoolError.from_os("look up this process for", name, error) from None
            number += 1

    def introduce(self, mode: str, *, hurries: bool = False) -> None:
        """Write the record, and forget notes that were meant for an earlier holder of the name.

        Args:
            hurries: it takes the signal of `hurry`, which would end any other process.

        Raises:
            SpoolError: the record or the folder cannot be written.
        """
        if os.path.exists(self.layout.worker_file(self.name, "json")):
            self.after = look(self.layout, self.name).started_at
        self._record = {
            "name": self.name,
            "pid": self._me.pid,
            "process_started": self._me.started,
            "boot_id": self._me.boot,
            "started_at": times.iso(time.time()),
            "mode": mode,
            "hurries": hurries,
        }
        try:
            self._clear("stop")  # a cancel is for whoever takes back what the earlier one left
            self._hold_folder()
            self._write()
        except OSError as error:
            raise SpoolError.from_os("write", self.layout.worker_file(self.name, "json"), error) from None

    def _hold_folder(self) -> None:
        """Lock the folder of our claims too: whoever deletes data/ does not make our job look abandoned."""
        path = self.layout.claims(self.name)
        os.makedirs(path, mode=0o700, exist_ok=True)
        if self._folder is not None:
            self._folder.release()
            self._folder = None
        with suppress(OSError):
            self._folder = Lock.on_folder(path)

    def hold_on(self, *, idle: bool = False) -> None:
        """Take our place anew if somebody deleted it: a worker without its lock file is seen and stopped by nobody.

        Args:
            idle: nothing runs. A cancel that lies there came too late, and could hit a new job of that id.

        Raises:
            OSError: the disk refused.
        """
        if idle:
            self._clear("cancel")
        # It is missing where somebody was just asking for it when we took our place.
        if self._folder is None or not self._folder.is_on(self.layout.claims(self.name)):
            self._hold_folder()
        path = self.layout.worker_file(self.name, "lock")
        if not self._lock.is_on(path):
            os.makedirs(self.layout.workers, mode=0o700, exist_ok=True)
            lock = Lock.acquire(path)
            if lock is not None:
                self._lock.release()
                self._lock = lock
                self._write()

    def note(self, what: str, reason: str | None) -> None:
        """Tell `status` that we poll (no events come) or are paused (no room), and why; None when no longer."""
        if self._record.get(what) != reason:
            self._record[what] = reason
            self._unwritten = True
        # On a full disk this fails now, and comes off when it has room again or another note is due.
        if self._unwritten:
            with suppress(OSError):
                self._write()
                self._unwritten = False

    def _write(self) -> None:
        files.replace(
            self.layout.worker_file(self.name, "json"), orjson.dumps(self._record, option=orjson.OPT_INDENT_2)
        )

    def stop_wanted(self) -> str | None:
        """What the stop note says, "graceful" or "force", if it is meant for this very process."""
        note = _read(self.layout.worker_file(self.name, "stop"))
        if note.get("pid") == self._me.pid and note.get("process_started") == self._me.started:
            return "force" if note.get("how") == "force" else "graceful"
        return None

    def cancel_wanted(self, job_id: str, run: int) -> bool:
        """Whether somebody wants the run of this number of a job ended."""
        return is_cancelled(self.layout, self.name, job_id, run)

    def _clear(self, kind: str) -> None:
        with suppress(FileNotFoundError):
            os.unlink(self.layout.worker_file(self.name, kind))

    def leave(self) -> None:
        """Give the name back. The lock file stays: see system.locks.Lock."""
        with suppress(OSError):
            for kind in ("json", "stop"):
                self._clear(kind)
            if self._folder is not None:
                self._folder.release()
            os.rmdir(self.layout.claims(self.name))
            # Last: it may be about a job that could not be recorded, and so lies in our folder still.
            self._clear("cancel")
        self._lock.release()


def _is_haunted(layout: Layout, name: str) -> bool:
    """Whether the name's last holder, or a run of his, is alive still: another worker frees that job when it is over."""
    if is_folder_locked(layout.claims(name)):
        return True
    return _job_of(layout, name)[0] is not None and is_locked(layout.worker_file(name, "run"))


def haunted(layout: Layout) -> list[tuple[str, str]]:
    """Workers that are gone while their run is not, each with the job that waits for its end."""
    return [
        (name, _job_of(layout, name)[0] or "")
        for name in names(layout)
        if _is_haunted(layout, name) and not _is_at_work(layout, name)
    ]


def _is_at_work(layout: Layout, name: str) -> bool:
    """Whether the worker itself lives: its lock may be held by a colleague who is trying to free its job."""
    identity = ProcessIdentity.of(_read(layout.worker_file(name, "json")))
    return identity is not None and identity.is_running()


def identity_of(layout: Layout, name: str) -> ProcessIdentity | None:
    """The process that holds a name, as its record says it; None when there is no record."""
    return ProcessIdentity.of(_read(layout.worker_file(name, "json")))


def _read(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            found = orjson.loads(file.read())
    except (OSError, orjson.JSONDecodeError):
        return {}
    return found if isinstance(found, dict) else {}


def living(layout: Layout) -> list[WorkerInfo]:
    """The workers that hold their lock, in the order of their numbers."""
    return [look(layout, name) for name in names(layout) if _is_living(layout, name)]


def _is_living(layout: Layout, name: str) -> bool:
    """Whether a worker holds the lock, and not somebody who only asks or clears up after a dead one for an instant."""
    path = layout.worker_file(name, "lock")
    if not is_locked(path):
        return False
    pid = _read(layout.worker_file(name, "json")).get("pid")
    if not isinstance(pid, int) or is_surely_gone(pid):
        time.sleep(_SECOND_LOOK)
        return is_locked(path)
    return True


def names(layout: Layout) -> list[str]:
    """Every name that ever had a lock, in the order of the numbers."""
    try:
        entries = os.listdir(layout.workers)
    except OSError:
        return []
    numbers = (_NAME.fullmatch(entry.removesuffix(".lock")) for entry in entries if entry.endswith(".lock"))
    return [f"worker-{number}" for number in sorted(int(found[1]) for found in numbers if found)]


def look(layout: Layout, name: str) -> WorkerInfo:
    """What is known of the worker of this name."""
    record = _read(layout.worker_file(name, "json"))
    job_id, since = _job_of(layout, name)
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


def _job_of(layout: Layout, name: str) -> tuple[str | None, float | None]:
    """The job that a worker runs, and since when."""
    folder = layout.claims(name)
    with suppress(OSError):
        found = [
            entry[: -len(".json")]
            for entry in os.listdir(folder)
            if entry.endswith(".json") and not entry.startswith(".")
        ]
        signed = run_lock.read(layout, name) if len(found) > 1 else None
        if signed and signed.job_id in found:
            return signed.job_id, os.stat(layout.worker_file(name, "run")).st_mtime
        if found:
            # The claim is a rename, and a rename sets the folder's modification time.
            return found[0], os.stat(folder).st_mtime
    return None, None


def ask_to_stop(layout: Layout, name: str, *, force: bool) -> bool:
    """Leave the stop note for the present holder of a name and nudge it; False when there is none."""
    record = _read(layout.worker_file(name, "json"))
    identity = ProcessIdentity.of(record)
    if identity is None or not is_locked(layout.worker_file(name, "lock")):
        return False
    note = {"pid": identity.pid, "process_started": identity.started, "how": "force" if force else "graceful"}
    by_note = record.get("mode") == "program"
    try:
        _leave_note(layout, name, "stop", note)
    except SpoolError:
        # On a full disk the signal alone has to do, which says no more than "finish, and leave".
        if force or by_note:
            raise
    if by_note:
        return True  # somebody's own program, to which TERM may mean something else; it reads the note within a second
    return _nudge(identity)


def ask_to_cancel(layout: Layout, name: str, job_id: str, run: int) -> None:
    """Leave the note that a worker's job is to be ended, and have it read.

    Args:
        run: the number of the run, over the job's whole life. A note that comes too late must not end another run,
            which nobody wants ended.
    """
    _leave_note(layout, name, "cancel", {"job": job_id, "run": run})
    hurry(layout, name)


def is_cancelled(layout: Layout, name: str, job_id: str, run: int) -> bool:
    """Whether somebody wants this run of a job ended, which the worker of this name has, or had when it died."""
    path = layout.worker_file(name, "cancel")
    if not os.path.exists(path):
        return False
    note = _read(path)
    return note.get("job") == job_id and note.get("run") == run


def forget_cancel(layout: Layout, name: str) -> None:
    """Nothing is left of what the note is about. The caller holds the lock of the name."""
    with suppress(OSError):
        os.unlink(layout.worker_file(name, "cancel"))


def hurry(layout: Layout, *some: str) -> None:
    """Have workers look now for what they look for once a second, those that can be told; without names all."""
    number = hurry_signal()
    for name in some or names(layout):
        record = _read(layout.worker_file(name, "json"))
        identity = ProcessIdentity.of(record)
        if identity is not None and number is not None and record.get("hurries") is True:
            identity.send(number)


def _leave_note(layout: Layout, name: str, kind: str, note: dict[str, Any]) -> None:
    path = layout.worker_file(name, kind)
    try:
        files.replace(path, orjson.dumps(note))
    except OSError as error:
        raise SpoolError.from_os("write", path, error) from None


def _nudge(identity: ProcessIdentity) -> bool:
    number = nudge_signal()
    return identity.is_running() if number is None else identity.send(number)
