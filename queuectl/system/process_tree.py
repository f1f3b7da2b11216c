"""All processes of one run, wherever they went: find them, end them. psutil is loaded only when one must be found."""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import psutil

UNKILLABLE = 5.0
"""Seconds after KILL at which a process counts as beyond our reach: another user's, or stuck in the kernel.

The stuck one never runs an instruction of its own again, since KILL waits for it.
"""

_FIRST_PAUSE = 0.005
_LAST_PAUSE = 0.25
_KILL = getattr(signal, "SIGKILL", signal.SIGTERM)


def tree_of(
    marks: Mapping[str, str], leader: int | None = None, *, ours: bool = False
) -> list[psutil.Process]:
    """Every live process of a run: those that carry its marks, those of its session, and their descendants.

    Args:
        marks: variables that were put into the run's environment; a process must carry them all.
        leader: pid of the run's first process. Without ours it is only a hint, as the number may belong to
            somebody else by now: its session counts when a marked process is in it.
        ours: the leader is a child that we have not reaped, so its number is still its own.

    Returns:
        the processes, without zombies and without this process; each knows its start time, so that a
        signal sent through it never reaches a later owner of the number.
    """
    import psutil

    everyone = list(psutil.process_iter(["ppid", "status", "environ"]))
    alive = [one for one in everyone if one.info["status"] != psutil.STATUS_ZOMBIE]
    found = {one.pid for one in alive if marks and _carries(one.info["environ"], marks)}
    if leader is not None:
        session = {one.pid for one in alive if _session(one.pid) == leader}
        if ours or session & found:
            found |= session
        if ours:
            found.add(leader)
    _add_descendants(found, everyone)
    found.discard(os.getpid())
    return [one for one in alive if one.pid in found]


def _carries(environ: Mapping[str, str] | None, marks: Mapping[str, str]) -> bool:
    return environ is not None and all(environ.get(name) == value for name, value in marks.items())


def _session(pid: int) -> int | None:
    if sys.platform == "win32":
        return None
    try:
        return os.getsid(pid)
    except OSError:
        return None


def _add_descendants(found: set[int], everyone: Iterable[psutil.Process]) -> None:
    children: dict[int, list[int]] = {}
    for one in everyone:
        children.setdefault(one.info["ppid"], []).append(one.pid)
    open_ends = list(found)
    while open_ends:
        for pid in children.get(open_ends.pop(), ()):
            if pid not in found:
                found.add(pid)
                open_ends.append(pid)


def open_pidfd(pid: int) -> int | None:
    """A descriptor that becomes readable at the child's end; None where there is no such thing."""
    if sys.platform != "linux":
        return None
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None


def group_exists(leader: int) -> bool:
    """Whether a process is left in the group of this number, zombies included."""
    if sys.platform == "win32":
        return False
    try:
        os.killpg(leader, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return sys.platform != "darwin"  # there it is the answer about zombies, too
    return True


def is_alive(one: psutil.Process) -> bool:
    """Whether exactly this process still runs; a zombie does not."""
    import psutil

    try:
        return one.is_running() and one.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class TreeEnd:
    """The ending of a tree, step by step and without blocking: TERM and CONT, a grace time, KILL.

    Args:
        marks, leader, ours: as for tree_of.
        grace: seconds between TERM and KILL.

    Attributes:
        next_look: monotonic moment at which step() is due.
        left: how many processes were beyond reach when it was over.
    """

    def __init__(self, marks: Mapping[str, str], leader: int | None, grace: float, *, ours: bool) -> None:
        self._marks = marks
        self._leader = leader
        self._ours = ours
        self._pause = _FIRST_PAUSE
        self._killed_at: float | None = None
        now = time.monotonic()
        self._kill_at = now + grace
        self.next_look = now
        self.left = 0
        self._tree = self._find()
        self._ask_to_end()

    def hurry(self) -> None:
        """Let the grace time end now."""
        self._kill_at = min(self._kill_at, time.monotonic())
        self.next_look = self._kill_at

    def step(self, now: float) -> bool:
        """Look, and do what is due at this monotonic moment. True once it is all over."""
        self._tree = [one for one in self._tree if is_alive(one)]
        if not self._tree:
            # A process may have been born between the last look and its parent's death.
            self._tree = self._find()
            if not self._tree:
                self._signal_group(_KILL)
                return True
            self._send(self._tree, signal.SIGTERM if self._killed_at is None else _KILL)
        if self._killed_at is not None:
            if now >= self._killed_at + UNKILLABLE:
                self.left = len(self._tree)
                return True
            self._kill()
        elif now >= self._kill_at:
            self._killed_at = now
            self._pause = _FIRST_PAUSE
            self._kill()
        self.next_look = now + self._pause
        if self._killed_at is None:
            self.next_look = min(self.next_look, self._kill_at)
        self._pause = min(self._pause * 2, _LAST_PAUSE)
        return False

    def _find(self) -> list[psutil.Process]:
        return tree_of(self._marks, self._leader, ours=self._ours)

    def _ask_to_end(self) -> None:
        if sys.platform == "win32":
            if self._ours and self._leader is not None:
                with suppress(OSError):  # without a common console there is no way to ask
                    os.kill(self._leader, signal.CTRL_BREAK_EVENT)
            return
        # A member of the group that got TERM twice may take the second one for "at once".
        outside = [one for one in self._tree if not self._in_group(one.pid)]
        self._signal_group(signal.SIGTERM)
        self._send(outside, signal.SIGTERM)
        # A stopped process acts on TERM only after CONT.
        self._signal_group(signal.SIGCONT)
        self._send(outside, signal.SIGCONT)

    def _kill(self) -> None:
        self._signal_group(_KILL)
        self._tree = self._find()
        self._send(self._tree, _KILL)

    def _in_group(self, pid: int) -> bool:
        if sys.platform == "win32" or not self._ours:
            return False
        try:
            return os.getpgid(pid) == self._leader
        except OSError:
            return False

    def _signal_group(self, number: int) -> None:
        """Reach the whole group at once; only while its number is surely its own."""
        if sys.platform != "win32" and self._ours and self._leader is not None:
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


def end_tree(marks: Mapping[str, str], leader: int | None, grace: float) -> bool:
    """End what a dead worker's run left behind, and wait for it.

    Args:
        marks, leader: as for tree_of; nothing is signalled that is not known by its marks.
        grace: seconds between TERM and KILL.

    Returns:
        True when no process of the run is left.
    """
    ending = TreeEnd(marks, leader, grace, ours=False)
    while not ending.step(time.monotonic()):
        time.sleep(max(0.0, ending.next_look - time.monotonic()))
    return ending.left == 0


def end_holders(path: str, grace: float) -> bool:
    """End the processes that hold the lock on a file, as a dead worker's run does that has cleared its environment.

    Args:
        path: the lock file.
        grace: seconds between TERM and KILL.

    Returns:
        True when none is left that can be seen.
    """
    kill_at = time.monotonic() + grace
    asked: set[tuple[int, int]] = set()
    while holders := _holders(os.path.realpath(path)):
        now = time.monotonic()
        if now > kill_at + UNKILLABLE:
            return False
        numbers = (signal.SIGTERM, signal.SIGCONT) if now < kill_at else (_KILL,)
        for number in numbers:
            TreeEnd._send([one for one in holders if (one.pid, number) not in asked], number)
        asked.update((one.pid, number) for one in holders for number in numbers)
        time.sleep(_FIRST_PAUSE * 4)
    return True


def _holders(path: str) -> list[psutil.Process]:
    """The processes that have a locked descriptor of this file, and their descendants. Linux alone can tell."""
    if not sys.platform.startswith("linux"):
        return []
    import psutil

    everyone = list(psutil.process_iter(["ppid"]))
    found = {one.pid for one in everyone if one.pid != os.getpid() and _holds(one.pid, path)}
    _add_descendants(found, everyone)
    return [one for one in everyone if one.pid in found and is_alive(one)]


def _holds(pid: int, path: str) -> bool:
    with suppress(OSError):
        for number in os.listdir(f"/proc/{pid}/fd"):
            # The link's text, never a stat through it: that can hang on a dead network share.
            with suppress(OSError):
                if os.readlink(f"/proc/{pid}/fd/{number}") == path:
                    with open(f"/proc/{pid}/fdinfo/{number}", encoding="ascii") as info:
                        if "\nlock:" in info.read():
                            return True
    return False
