"""All processes of this machine at one moment, read once for many searches.

A look at all processes takes 25 ms when there are six hundred. One look for each of five hundred runs that end together
would take half a minute.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress

from queuectl.fast_start.dataclass import dataclass
from queuectl.system.process import proc_pids, proc_stat, read_proc, session_id, start_time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    import psutil


RECENT = 0.2
"""Seconds. With this age a look still serves as the first one at a tree that is to be ended. Later looks find what was
started since."""


@dataclass(slots=True)
class _Seen:
    """One process at the moment of the look.

    Attributes:
        session: None where there are no sessions.
        started: see `process.start_time`; None: it is not known.
        environment: a zero byte before and after each variable; empty if it may not be read.
    """

    pid: int
    parent: int
    session: int | None
    is_alive: bool
    started: float | None
    environment: bytes


class ProcessTable:
    """All processes as they were at one look.

    Args:
        with_environment: read their environments, for `with_marks`.
        leaders: children of this process that lead a session each and are not reaped. Whatever is in such a session is
            known by that. It is read only when the session is asked for: with five hundred runs, nearly all of a look.

    Attributes:
        leaders: those children. No other process can have had such a number at the time of the look.
        began, ended: the monotonic moments of the look; a process that started after its begin may be missing.
    """

    def __init__(self, *, with_environment: bool = True, leaders: Iterable[int] = ()) -> None:
        self.began = time.monotonic()
        self.leaders = frozenset(leaders)
        self._living: dict[int, _Seen] = {}
        self._children: dict[int, list[int]] = {}
        self._sessions: dict[int, set[int]] = {}
        self._values: dict[str, dict[str, set[int]]] = {}
        self._unread: dict[int, list[int]] = {}
        read = _read_proc if sys.platform == "linux" else _read_with_psutil
        pids = proc_pids()
        self._add(read(self._put_off(pids) if self.leaders else pids, with_environment=with_environment))
        self.ended = time.monotonic()

    def _put_off(self, pids: list[int]) -> list[int]:
        """Note which processes are in the sessions of the leaders; return the others."""
        others = []
        for pid in pids:
            session = None
            with suppress(OSError):
                session = os.getsid(pid)
            if session is not None and session in self.leaders:
                self._unread.setdefault(session, []).append(pid)
            else:
                others.append(pid)
        return others

    def _add(self, found: Iterable[_Seen]) -> None:
        for one in found:
            self._children.setdefault(one.parent, []).append(one.pid)
            if one.is_alive:
                self._living[one.pid] = one
                if one.session is not None:
                    self._sessions.setdefault(one.session, set()).add(one.pid)

    def pids(self) -> list[int]:
        """Return the pids of the living processes."""
        for leader in list(self._unread):
            self.in_session(leader)
        return list(self._living)

    def with_marks(self, marks: Mapping[str, str]) -> set[int]:
        """Return the pids of the living processes whose environment has all of these variables, with these values."""
        having = [self._by_value(name).get(value, set()) for name, value in marks.items()]
        return set.intersection(*having) if having else set()

    def _by_value(self, name: str) -> dict[str, set[int]]:
        """The pids of the living processes by the value that a variable has in their environment."""
        if name not in self._values:
            known = self._values[name] = {}
            begin = b"\0" + os.fsencode(name) + b"="
            for pid, one in self._living.items():
                for found in one.environment.split(begin)[1:]:
                    known.setdefault(os.fsdecode(found.partition(b"\0")[0]), set()).add(pid)
        return self._values[name]

    def in_session(self, leader: int) -> set[int]:
        """Return the pids of the living processes in the session with this leader."""
        self._add(_read_proc(self._unread.pop(leader, ()), with_environment=False))
        return set(self._sessions.get(leader, ()))

    def with_descendants(self, found: set[int]) -> set[int]:
        """Return these pids and those of all their descendants, dead ones that are not reaped included."""
        unvisited = list(found)
        while unvisited:
            for pid in self._children.get(unvisited.pop(), ()):
                if pid not in found:
                    found.add(pid)
                    unvisited.append(pid)
        return found

    def living(self, pids: Iterable[int]) -> list[psutil.Process]:
        """Return those of these processes that were alive, without this process itself.

        Each knows its start time, so that a signal sent through it never reaches a later process with the same pid.
        """
        mine = os.getpid()
        seen = (self._living[pid] for pid in sorted(pids) if pid != mine and pid in self._living)
        return [process for one in seen if (process := _process(one)) is not None]


def _read_proc(pids: Iterable[int], *, with_environment: bool) -> Iterator[_Seen]:
    """Read these processes from /proc. With psutil a look takes three times as long: 81 ms for 640 processes."""
    for pid in pids:
        known = proc_stat(pid)
        if known is not None:
            environment = _environment(pid) if with_environment and known.is_alive else b""
            yield _Seen(pid, known.parent, known.session, known.is_alive, known.started, environment)


def _environment(pid: int) -> bytes:
    with suppress(OSError):
        return b"\0" + read_proc(f"/proc/{pid}/environ") + b"\0"
    return b""


def _read_with_psutil(_: Iterable[int], *, with_environment: bool) -> Iterator[_Seen]:
    """Read all processes: elsewhere than on Linux none is put off."""
    import psutil

    wanted = ["ppid", "status", "environ"] if with_environment else ["ppid", "status"]
    for one in psutil.process_iter(wanted):
        is_alive = one.info["status"] != psutil.STATUS_ZOMBIE
        variables = (one.info.get("environ") or {}).items()
        environment = b"".join(os.fsencode(f"\0{name}={value}") for name, value in variables) + b"\0"
        session = session_id(one.pid)
        yield _Seen(one.pid, one.info["ppid"], session, is_alive, start_time(one.pid), environment)


def _process(one: _Seen) -> psutil.Process | None:
    """Return a process that was seen, if it is still the same one."""
    import psutil

    try:
        process = psutil.Process(one.pid)
    except psutil.Error:
        return None
    # Its number may have gone to another process since the look; a signal would reach that one.
    return process if start_time(one.pid) == one.started else None


class SharedLook:
    """The last look at all processes, for several who search at almost the same time.

    Attributes:
        leaders: see `ProcessTable`; whoever starts and reaps them keeps this up to date.
    """

    def __init__(self) -> None:
        self.leaders: set[int] = set()
        self._table: ProcessTable | None = None

    def since(self, moment: float) -> ProcessTable:
        """Return a look that began after this monotonic moment: the last one, or a new one."""
        if self._table is None or self._table.began <= moment:
            self._table = ProcessTable(leaders=self.leaders)
        return self._table

    def recent(self, since: float) -> ProcessTable:
        """Return a look that began after this monotonic moment and ended just now: the last one, or a new one."""
        now = time.monotonic()
        if self._table is not None and now > self._table.ended + RECENT:
            return self.since(now)
        return self.since(since)
