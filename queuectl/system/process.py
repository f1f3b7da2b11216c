"""Processes of this machine: which one a record means, whether it still runs, and what its children inherit."""

from __future__ import annotations

import errno
import os
import signal
import sys
import time
from contextlib import suppress
from functools import cache

from queuectl.fast_start.dataclass import dataclass
from queuectl.system.host import boot_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

_DEAD_STATES = (b"Z", b"X")
_TICKS = os.sysconf("SC_CLK_TCK") if sys.platform == "linux" else 1
_DEEPEST = 100
_PAGE = 1 << 16
_LARGEST_PID = 2**31 - 1
_STATE, _PARENT, _SESSION, _START = 0, 1, 3, 19
"""Places in /proc/PID/stat, counted after the name: proc(5) calls them fields 3, 4, 6 and 22."""


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """One process, which no later process can be mistaken for.

    Attributes:
        pid, started: its number, and its start (see `start_time`).
        boot: the boot id of the machine.
        namespace: the PID namespace in which it has this number, see `pid_namespace`; "" if that is not known.
    """

    pid: int
    started: float
    boot: str
    namespace: str = ""

    @classmethod
    def mine(cls) -> ProcessIdentity:
        """This process.

        Raises:
            OSError: the system does not say when it started.
        """
        # Not by number: /proc may have been mounted in another PID namespace, where the number is somebody else's.
        started = start_time("self" if sys.platform == "linux" else os.getpid())
        if started is None:
            raise OSError(errno.EACCES, "the system does not say when it started")
        return cls(os.getpid(), started, boot_id(), pid_namespace())

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> ProcessIdentity | None:
        """Read it from a worker's record, which anybody may have written; None when the record has no valid one."""
        pid, started, boot = record.get("pid"), record.get("process_started"), record.get("boot_id")
        if type(pid) is not int or not 0 < pid <= _LARGEST_PID:
            return None
        if isinstance(started, int | float) and isinstance(boot, str):
            return cls(pid, float(started), boot, str(record.get("pid_namespace") or ""))
        return None

    @property
    def is_visible(self) -> bool:
        """Whether this process can see that one if it lives: not when it is in another container.

        There the number means nothing here, or another process.
        """
        return not self.namespace or (self.namespace == pid_namespace() and _is_proc_ours())

    def is_running(self) -> bool:
        """Whether exactly this process can be seen to live. See `is_visible`."""
        if self.boot != boot_id() or not self.is_visible:
            return False
        started = start_time(self.pid)
        return started is not None and abs(started - self.started) < 0.05

    def is_gone(self) -> bool:
        """Whether this process has certainly ended. Of a process in another container nobody knows."""
        return self.boot != boot_id() or (self.is_visible and not self.is_running())

    def send(self, number: int) -> bool:
        """Send a signal to exactly this process, never to a later one with the same pid; False when it is gone."""
        if not self.is_visible:
            return False
        if not hasattr(os, "pidfd_open"):
            return self.is_running() and _kill(self.pid, number)
        try:
            handle = os.pidfd_open(self.pid)
        except OSError:
            return False
        try:
            # Opened before the check: the descriptor goes on meaning this process even if the pid is used again.
            if not self.is_running():
                return False
            signal.pidfd_send_signal(handle, number)
        except OSError:
            return False
        finally:
            os.close(handle)
        return True


def _is_proc_ours() -> bool:
    """Whether the numbers in /proc are those of our PID namespace: a container may be shown the /proc of its host."""
    try:
        return os.readlink("/proc/self") == str(os.getpid())
    except OSError:
        return True


def started_at() -> float | None:
    """Return when this process started, on the clock of `start_time`; None when the system does not say."""
    try:
        return ProcessIdentity.mine().started
    except OSError:
        return None


def clock_of_starts() -> float:
    """Return the present moment on the clock of `start_time`: a process that starts later has no smaller value."""
    if sys.platform == "linux":
        return float(int(time.clock_gettime(time.CLOCK_BOOTTIME) * _TICKS))
    return time.time()


def ancestors() -> list[int]:
    """Return the pids of the processes that led to this one, the nearest first; only the parent elsewhere than on Linux."""
    found = [os.getppid()]
    while sys.platform == "linux" and found[-1] > 1 and len(found) < _DEEPEST:
        known = proc_stat(found[-1])
        if known is None:
            break
        found.append(known.parent)
    return found


@dataclass(frozen=True, slots=True)
class ProcStat:
    """What /proc/PID/stat says of a process; `started` is in clock ticks since the boot."""

    is_alive: bool
    parent: int
    session: int
    started: float


def read_proc(path: str) -> bytes:
    """Return the content of a file in /proc. Measured: a look at 640 processes takes 1.5 times as long with `open`.

    Raises:
        OSError: the process has ended, or this user may not read it.
    """
    fd = os.open(path, os.O_RDONLY)
    try:
        found = part = os.read(fd, _PAGE)
        while len(part) == _PAGE:
            part = os.read(fd, _PAGE)
            found += part
        return found
    finally:
        os.close(fd)


def proc_stat(pid: int | str) -> ProcStat | None:
    """Read /proc/PID/stat; None when there is no such process, and elsewhere than on Linux.

    Args:
        pid: its number, or "self".
    """
    try:
        words = read_proc(f"/proc/{pid}/stat").rpartition(b") ")[2].split()
        alive = words[_STATE] not in _DEAD_STATES
        return ProcStat(alive, int(words[_PARENT]), int(words[_SESSION]), float(words[_START]))
    except (OSError, IndexError, ValueError):
        return None


def start_time(pid: int | str) -> float | None:
    """Return when a process started; None when there is none, or only a zombie.

    Args:
        pid: its number; on Linux also "self".

    On Linux in clock ticks since the boot. Seconds of the wall clock would change with every step of that clock: no
    worker could be stopped on a machine whose clock is set some moments after the boot. Elsewhere epoch seconds.
    """
    if sys.platform == "linux":
        known = proc_stat(pid)
        return known.started if known and known.is_alive else None
    import psutil

    try:
        process = psutil.Process(int(pid))
        return None if process.status() == psutil.STATUS_ZOMBIE else float(process.create_time())
    except psutil.Error:
        return None


_START_SLACK = 5.0
"""Seconds by which a process may have started before it was noted: the note comes after the start."""


@dataclass(frozen=True, slots=True)
class Session:
    """The session of a run, named by its first process. A process cannot clear it as it can clear its environment.

    Attributes:
        leader: pid of the first process; the kernel gives this number to no other process while the session exists.
        noted: seconds since the boot, some milliseconds after its start.
        namespace: the pid namespace in which the pid counts; in another container it is another process's.
    """

    leader: int
    noted: float
    namespace: str

    @classmethod
    def of_child(cls, pid: int) -> Session | None:
        """The session of a child that has just been started as its leader; None elsewhere than on Linux."""
        if sys.platform != "linux" or pid <= 0:
            return None
        return cls(pid, time.clock_gettime(time.CLOCK_BOOTTIME), pid_namespace())

    @property
    def is_of_here(self) -> bool:
        """Whether this process sees the same pids."""
        return self.namespace == pid_namespace()

    def may_have(self, pid: int) -> bool:
        """Whether a process in a session of this number can belong to this session, by its start and the leader's."""
        own, first = start_time(pid), start_time(self.leader)
        earliest = self.noted - _START_SLACK
        if own is None or own / _TICKS < earliest:
            return False
        return first is None or earliest <= first / _TICKS <= self.noted + 1 / _TICKS

    def has_living(self) -> bool:
        """Whether a process of it is alive, as far as this user can see."""
        return self.is_of_here and any(
            session_id(pid) == self.leader and self.may_have(pid) for pid in proc_pids()
        )


@cache
def pid_namespace() -> str:
    """Return the name of this process's pid namespace; "-" where the system has none."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return "-"


def is_group_of_others(leader: int) -> bool:
    """Whether the process group with this leader exists, and this user may signal none of its processes."""
    if sys.platform in ("win32", "darwin"):  # macOS answers so for zombies, too
        return False
    try:
        os.killpg(leader, 0)
    except PermissionError:
        return True
    except ProcessLookupError:
        return False
    return False


def proc_pids() -> list[int]:
    """Return the numbers of all processes that /proc shows."""
    try:
        return [int(name) for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return []


def session_id(pid: int) -> int | None:
    """Return the session of a process; None when there is no such process, or no sessions (Windows)."""
    if sys.platform == "win32":
        return None
    try:
        return os.getsid(pid)
    except OSError:
        return None


def _kill(pid: int, number: int) -> bool:
    try:
        os.kill(pid, number)
    except OSError:
        return False
    return True


def is_surely_gone(pid: int) -> bool:
    """Whether no process has this pid, or only a zombie, whose last thread may keep its locks for an instant.

    False proves nothing: the pid may belong to another process. Always False on Windows, where os.kill would kill.
    """
    if sys.platform == "win32" or pid <= 0:
        return False
    if (known := proc_stat(pid)) is not None:
        return not known.is_alive
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


def ignores_signal(pid: int, number: int) -> bool:
    """Whether a process ignores this signal; False where the system does not tell (elsewhere than on Linux)."""
    with (
        suppress(OSError, ValueError),
        open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file,
    ):
        for line in file:
            if line.startswith("SigIgn:"):
                return bool(int(line.split()[1], 16) >> (number - 1) & 1)
    return False


def keep_descriptors_private() -> None:
    """Stop children from inheriting any descriptor of this process other than stdin, stdout and stderr."""
    with suppress(OSError):
        for name in os.listdir("/proc/self/fd"):
            with suppress(OSError):
                if int(name) > 2:
                    os.set_inheritable(int(name), False)
