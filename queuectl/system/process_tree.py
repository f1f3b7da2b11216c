"""All processes of one run, wherever they have moved: find them, end them. psutil is loaded only when needed."""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from queuectl.system.process import is_group_of_others
from queuectl.system.process_table import ProcessTable, SharedLook

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

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
    table: ProcessTable | None = None,
) -> list[psutil.Process]:
    """Return every live process of a run: those with its marks, those of its session, and their descendants.

    Args:
        marks: variables in the run's environment; a process must have them all.
        leader: pid of the run's first process. Unless is_child it is only a hint, as the pid may now belong to
            another process: its session counts if a process with the marks is in it.
        is_child: the leader is an unreaped child of this process, so that its pid cannot belong to another.
        noted: the run's session as its worker has written it down. Its processes count without any mark.
        table: the look at all processes in which they are searched; None: a new one.

    Returns:
        the processes, without zombies and without this process.
    """
    table = table or ProcessTable()
    found = table.with_marks(marks) if marks else set()
    if leader is not None:
        session = table.in_session(leader)
        if is_child or leader in table.leaders or session & found:
            found |= session
        if is_child:
            found.add(leader)
    if noted is not None and noted.is_of_here:
        found |= {pid for pid in table.in_session(noted.leader) if noted.may_have(pid)}
    return table.living(table.with_descendants(found))


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


def environment_of(one: psutil.Process) -> dict[str, str]:
    """Return the variables of a process; none if it has just ended, or belongs to another user."""
    import psutil

    try:
        return one.environ()
    except psutil.Error:
        return {}


class TreeTermination:
    """Ends a process tree step by step, without blocking: TERM and CONT, a grace time, KILL.

    Making one only searches for the tree. `request_end` sends the first signals.

    Args:
        marks, leader, is_child, noted: as for find_tree.
        grace: seconds between TERM and KILL.
        reap: collects the leader if it has ended, and returns whether it has.
        patience: seconds after KILL at which survivors count as such; None: UNKILLABLE.
        look: the look at all processes that it shares with other trees; None: it shares none.
        since: monotonic moment at which the run had begun: an earlier look does not show it.

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
        look: SharedLook | None = None,
        since: float = 0.0,
    ) -> None:
        self._reap = reap
        self._look = look or SharedLook()
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
        self._tree = self._find(self._look.recent(since))
        self._outside = [one for one in self._tree if not self._in_group(one.pid)]
        self._acted_at = time.monotonic()

    def kill_now(self) -> None:
        """End the grace time now."""
        self._kill_at = min(self._kill_at, time.monotonic())
        self.next_step = self._kill_at

    def step(self, now: float) -> bool:
        """Do what is due at this monotonic time. Returns True once no process is left; see gives_up."""
        try:
            return self._step(now)
        finally:
            self._acted_at = time.monotonic()

    def _step(self, now: float) -> bool:
        if self._tree:
            self._tree = [one for one in self._tree if is_alive(one)]
            if not self._tree:
                # One look, after the ends of all trees that end in this moment, serves all of them.
                self.next_step = now
                return False
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

    def _find(self, table: ProcessTable | None = None) -> list[psutil.Process]:
        """Search for the tree, if no table is given in a look at all processes that began after the last step."""
        table = table or self._look.since(self._acted_at)
        return find_tree(self._marks, self._leader, is_child=self._is_child, noted=self._noted, table=table)

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
    [is_over] = terminate_together([orphaned_tree(marks, leader, grace, noted, SharedLook())])
    return is_over


def orphaned_tree(
    marks: Mapping[str, str], leader: int | None, grace: float, noted: Session | None, look: SharedLook
) -> TreeTermination:
    """Return the termination of what the run of a dead worker left behind; arguments as for `TreeTermination`."""
    return TreeTermination(
        marks, leader, grace, is_child=False, noted=noted, patience=ORPHAN_PATIENCE, look=look
    )


def terminate_together(trees: Sequence[TreeTermination]) -> list[bool]:
    """End several trees at the same time, and wait a moment for them.

    Returns:
        for each of them, whether no process of it is left.
    """
    for one in trees:
        one.request_end()
    left = list(trees)
    while left:
        now = time.monotonic()
        left = [one for one in left if one.next_step > now or not one.step(now)]
        if left:
            time.sleep(max(0.0, min(one.next_step for one in left) - time.monotonic()))
    return [one.survivors == 0 for one in trees]


def terminate_lock_holders(paths: Collection[str], grace: float) -> set[str]:
    """End the processes that hold the lock on these files: runs of a dead worker that have cleared their environment.

    Args:
        paths: the lock files.
        grace: seconds between TERM and KILL.

    Returns:
        the files of which a holder is left that this user can see.
    """
    kill_at = time.monotonic() + grace
    sent: set[tuple[int, int]] = set()
    while holders := lock_holders(paths):
        now = time.monotonic()
        if now > kill_at + ORPHAN_PATIENCE:
            return set(holders)
        numbers = (signal.SIGTERM, signal.SIGCONT) if now < kill_at else (_KILL,)
        found = {one.pid: one for several in holders.values() for one in several}
        for number in numbers:
            TreeTermination._send([one for pid, one in found.items() if (pid, number) not in sent], number)
        sent.update((pid, number) for pid in found for number in numbers)
        time.sleep(_FIRST_PAUSE * 4)
    return set()


def lock_holders(paths: Collection[str]) -> dict[str, list[psutil.Process]]:
    """Return for each of these files the processes that hold a lock on it, and their descendants, if there are any.

    Nothing is found elsewhere than on Linux.
    """
    if not sys.platform.startswith("linux") or not paths:
        return {}
    table = ProcessTable(with_environment=False)
    real = {os.path.realpath(path): path for path in paths}
    holders: dict[str, set[int]] = {}
    for pid in table.pids():
        for path in () if pid == os.getpid() else _locks_held(pid, real):
            holders.setdefault(real[path], set()).add(pid)
    found = {path: table.living(table.with_descendants(pids)) for path, pids in holders.items()}
    return {path: processes for path, processes in found.items() if processes}


def _locks_held(pid: int, paths: Collection[str]) -> Iterator[str]:
    """Which of these files a process holds a lock on."""
    with suppress(OSError):
        for number in os.listdir(f"/proc/{pid}/fd"):
            # Read the link, and never stat its target: that can hang on a dead network share.
            with suppress(OSError):
                if (path := os.readlink(f"/proc/{pid}/fd/{number}")) in paths:
                    with open(f"/proc/{pid}/fdinfo/{number}", encoding="ascii") as info:
                        if "\nlock:" in info.read():
                            yield path
