"""All processes of one run, wherever they have moved: find them, end them. psutil is loaded only when needed."""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from queuectl.system.process import is_group_of_others, session_id

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    import psutil

    from queuectl.system.process import Session

UNKILLABLE = 5.0
"""Seconds after KILL at which a process is given up: it belongs to another user, or waits in the kernel.

A process that waits in the kernel runs no instruction of its own any more: KILL ends it before.
"""

ORPHAN_PATIENCE = 0.5
"""The same for the run of a dead worker. Who ends it does nothing else meanwhile, and tries again later."""

_MOST_NAMED = 3
_FIRST_PAUSE = 0.005
_LAST_PAUSE = 0.25
_PAUSE_OF_SURVIVORS = 2.0
"""Seconds. Each look at a process that cannot be ended reads the environments of all processes."""

_KILL = getattr(signal, "SIGKILL", signal.SIGTERM)


def find_tree(
    marks: Mapping[str, str],
    leader: int | None = None,
    *,
    is_child: bool = False,
    noted: Session | None = None,
) -> list[psutil.Process]:
    """Return every live process of a run: those with its marks, those of its session, and their descendants.

    Args:
        marks: variables in the run's environment; a process must have them all.
        leader: pid of the run's first process. Unless is_child it is only a hint, as the pid may now belong to
            another process: its session counts if a process with the marks is in it.
        is_child: the leader is an unreaped child of this process, so that its pid cannot belong to another.
        noted: the run's session as its worker has written it down. Its processes count without any mark.

    Returns:
        the processes, without zombies and without this process. Each knows its start time, so that a signal
        sent through it never reaches a later process with the same pid.
    """
    import psutil

    everyone = list(psutil.process_iter(["ppid", "status", "environ"]))
    alive = [one for one in everyone if one.info["status"] != psutil.STATUS_ZOMBIE]
    found = {one.pid for one in alive if marks and _has_marks(one.info["environ"], marks)}
    if leader is not None:
        session = {one.pid for one in alive if session_id(one.pid) == leader}
        if is_child or session & found:
            found |= session
        if is_child:
            found.add(leader)
    if noted is not None and noted.is_of_here:
        found |= {one.pid for one in alive if session_id(one.pid) == noted.leader and noted.may_have(one.pid)}
    _add_descendants(found, everyone)
    found.discard(os.getpid())
    return [one for one in alive if one.pid in found]


def _has_marks(environ: Mapping[str, str] | None, marks: Mapping[str, str]) -> bool:
    return environ is not None and all(environ.get(name) == value for name, value in marks.items())


def _add_descendants(found: set[int], everyone: Iterable[psutil.Process]) -> None:
    children: dict[int, list[int]] = {}
    for one in everyone:
        children.setdefault(one.info["ppid"], []).append(one.pid)
    unvisited = list(found)
    while unvisited:
        for pid in children.get(unvisited.pop(), ()):
            if pid not in found:
                found.add(pid)
                unvisited.append(pid)


def open_pidfd(pid: int) -> int | None:
    """Return a descriptor that becomes readable at the child's end; None where the system has none."""
    if sys.platform != "linux":
        return None
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None


def group_exists(leader: int) -> bool:
    """Whether a process is left in the process group with this leader, zombies included."""
    if sys.platform == "win32":
        return False
    try:
        os.killpg(leader, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return sys.platform != "darwin"  # macOS answers so for zombies, too
    return True


def is_alive(one: psutil.Process) -> bool:
    """Whether exactly this process runs, and is no zombie."""
    import psutil

    try:
        return one.is_running() and one.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class TreeTermination:
    """Ends a process tree step by step, without blocking: TERM and CONT, a grace time, KILL.

    Making one only searches for the tree. `request_end` sends the first signals.

    Args:
        marks, leader, is_child, noted: as for find_tree.
        grace: seconds between TERM and KILL.
        reap: collects the leader if it has ended, and returns whether it has.
        patience: seconds after KILL at which survivors count as such; None: UNKILLABLE.

    Attributes:
        next_step: monotonic time at which step() is due.
        survivors: how many processes are still alive long after KILL: they belong to another user, or wait in the
            kernel. 0 before that, and once all have ended.
        gives_up: step() returns True while there are survivors; else it goes on until they have ended by themselves.
    """

    def __init__(
        self,
        marks: Mapping[str, str],
        leader: int | None,
        grace: float,
        *,
        is_child: bool,
        noted: Session | None = None,
        reap: Callable[[], bool] = lambda: False,
        patience: float | None = None,
    ) -> None:
        self._reap = reap
        self._patience = UNKILLABLE if patience is None else patience
        self._marks = marks
        self._noted = noted
        self._leader = leader
        self._is_child = is_child
        self._pause = _FIRST_PAUSE
        self._killed_at: float | None = None
        now = time.monotonic()
        self._kill_at = now + grace
        self.next_step = now
        self.survivors = 0
        self.gives_up = not is_child or sys.platform == "win32"
        self._tree = self._find()
        self._outside = [one for one in self._tree if not self._in_group(one.pid)]

    def kill_now(self) -> None:
        """End the grace time now."""
        self._kill_at = min(self._kill_at, time.monotonic())
        self.next_step = self._kill_at

    def step(self, now: float) -> bool:
        """Do what is due at this monotonic time. Returns True once no process is left; see gives_up."""
        self._tree = [one for one in self._tree if is_alive(one)]
        if not self._tree:
            # A process may have been started between the last search and its parent's death.
            self._tree = self._find()
            if not self._tree and not self._has_hidden():
                self._signal_group(_KILL)
                self.survivors = 0
                return True
            self._send(self._tree, signal.SIGTERM if self._killed_at is None else _KILL)
        if self._killed_at is not None:
            if now >= self._killed_at + self._patience:
                self.survivors = max(1, len(self._tree))
                if self.gives_up:
                    return True
            self._kill()
        elif now >= self._kill_at:
            self._killed_at = now
            self._pause = _FIRST_PAUSE
            self._kill()
        self.next_step = now + self._pause
        if self._killed_at is None:
            self.next_step = min(self.next_step, self._kill_at)
        self._pause = min(self._pause * 2, _PAUSE_OF_SURVIVORS if self.survivors else _LAST_PAUSE)
        return False

    def _has_hidden(self) -> bool:
        """Whether a process of another user is left that /proc does not show (hidepid)."""
        if self._leader is None or self.gives_up or not is_group_of_others(self._leader):
            return False
        # Until it is reaped, the leader itself keeps the group. Then its pid is nobody's child any more.
        self._is_child = self._is_child and not self._reap()
        return is_group_of_others(self._leader)

    def describe(self) -> str:
        """Say which processes are left, in words for a log."""
        names = [f"{one.pid} ({_name_of(one)})" for one in self._tree[:_MOST_NAMED]]
        if not names:
            return "a process of another user that is hidden here"
        more = len(self._tree) - len(names)
        return "process " + ", ".join(names) + (f" and {more} more" if more else "")

    def _find(self) -> list[psutil.Process]:
        return find_tree(self._marks, self._leader, is_child=self._is_child, noted=self._noted)

    def request_end(self) -> None:
        """Ask all processes to end. To be called once, before the first step."""
        if sys.platform == "win32":
            if self._is_child and self._leader is not None:
                with suppress(OSError):  # without a common console the process cannot be asked
                    os.kill(self._leader, signal.CTRL_BREAK_EVENT)
            return
        # Each process gets TERM once: many programs take a second TERM as "stop at once".
        self._signal_group(signal.SIGTERM)
        self._send(self._outside, signal.SIGTERM)
        # A stopped process handles TERM only after CONT.
        self._signal_group(signal.SIGCONT)
        self._send(self._outside, signal.SIGCONT)

    def _kill(self) -> None:
        self._signal_group(_KILL)
        self._tree = self._find()
        self._send(self._tree, _KILL)

    def _in_group(self, pid: int) -> bool:
        if sys.platform == "win32" or not self._is_child:
            return False
        try:
            return os.getpgid(pid) == self._leader
        except OSError:
            return False

    def _signal_group(self, number: int) -> None:
        """Signal the whole process group at once, only while its number cannot belong to another group."""
        if sys.platform != "win32" and self._is_child and self._leader is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._leader, number)

    @staticmethod
    def _send(processes: Iterable[psutil.Process], number: int) -> None:
        import psutil

        for one in processes:
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                if sys.platform == "win32":
                    one.kill()
                else:
                    one.send_signal(number)


def _name_of(one: psutil.Process) -> str:
    import psutil

    try:
        return f"{one.name()}, of {one.username()}"
    except psutil.Error:
        return "gone or hidden"


def terminate_tree(
    marks: Mapping[str, str], leader: int | None, grace: float, *, noted: Session | None = None
) -> bool:
    """End the processes that the run of a dead worker left behind, and wait a moment for them.

    Args:
        marks, leader, noted: as for find_tree; only processes found by them are signalled.
        grace: seconds between TERM and KILL.

    Returns:
        True when no process of the run is left.
    """
    termination = TreeTermination(marks, leader, grace, is_child=False, noted=noted, patience=ORPHAN_PATIENCE)
    termination.request_end()
    while not termination.step(time.monotonic()):
        time.sleep(max(0.0, termination.next_step - time.monotonic()))
    return termination.survivors == 0


def terminate_lock_holders(path: str, grace: float) -> bool:
    """End the processes that hold the lock on a file: a run of a dead worker that has cleared its environment.

    Args:
        path: the lock file.
        grace: seconds between TERM and KILL.

    Returns:
        True when none is left that this user can see.
    """
    kill_at = time.monotonic() + grace
    sent: set[tuple[int, int]] = set()
    while holders := lock_holders(path):
        now = time.monotonic()
        if now > kill_at + ORPHAN_PATIENCE:
            return False
        numbers = (signal.SIGTERM, signal.SIGCONT) if now < kill_at else (_KILL,)
        for number in numbers:
            TreeTermination._send([one for one in holders if (one.pid, number) not in sent], number)
        sent.update((one.pid, number) for one in holders for number in numbers)
        time.sleep(_FIRST_PAUSE * 4)
    return True


def lock_holders(path: str) -> list[psutil.Process]:
    """Return the processes that hold the lock on a file, and their descendants; [] elsewhere than on Linux."""
    path = os.path.realpath(path)
    if not sys.platform.startswith("linux"):
        return []
    import psutil

    everyone = list(psutil.process_iter(["ppid"]))
    found = {one.pid for one in everyone if one.pid != os.getpid() and _holds_lock(one.pid, path)}
    _add_descendants(found, everyone)
    return [one for one in everyone if one.pid in found and is_alive(one)]


def _holds_lock(pid: int, path: str) -> bool:
    with suppress(OSError):
        for number in os.listdir(f"/proc/{pid}/fd"):
            # Read the link, and never stat its target: that can hang on a dead network share.
            with suppress(OSError):
                if os.readlink(f"/proc/{pid}/fd/{number}") == path:
                    with open(f"/proc/{pid}/fdinfo/{number}", encoding="ascii") as info:
                        if "\nlock:" in info.read():
                            return True
    return False
