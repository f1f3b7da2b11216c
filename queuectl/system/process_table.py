"""All processes of this machine at one moment, read once for many searches.

A look at all processes takes a tenth of a second when there are five hundred. One look for each of five hundred runs that
end together would take a minute.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from queuectl.system.process import session_id

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import psutil


RECENT = 0.2
"""Seconds. With this age a look still serves as the first one at a tree that is to be ended. Later looks find what was
started since."""


class ProcessTable:
    """All processes as they were at one look. psutil is loaded for it.

    Args:
        with_environment: read their environments, for `with_marks`.

    Attributes:
        began, ended: the monotonic moments of the look; a process that started after its begin may be missing.
    """

    def __init__(self, *, with_environment: bool = True) -> None:
        import psutil

        self.began = time.monotonic()
        self._living: dict[int, psutil.Process] = {}
        self._environments: dict[int, Mapping[str, str]] = {}
        self._children: dict[int, list[int]] = {}
        self._sessions: dict[int, set[int]] = {}
        self._values: dict[str, dict[str, set[int]]] = {}
        wanted = ["ppid", "status", "environ"] if with_environment else ["ppid", "status"]
        for one in psutil.process_iter(wanted):
            # Copied: the next look writes its own into the same object.
            pid, known = one.pid, one.info
            self._children.setdefault(known["ppid"], []).append(pid)
            if known["status"] != psutil.STATUS_ZOMBIE:
                self._living[pid] = one
                self._environments[pid] = known.get("environ") or {}
                session = session_id(pid)
                if session is not None:
                    self._sessions.setdefault(session, set()).add(pid)
        self.ended = time.monotonic()

    def pids(self) -> list[int]:
        """Return the pids of the living processes."""
        return list(self._living)

    def with_marks(self, marks: Mapping[str, str]) -> set[int]:
        """Return the pids of the living processes whose environment has all of these variables, with these values."""
        having = [self._by_value(name).get(value, set()) for name, value in marks.items()]
        return set.intersection(*having) if having else set()

    def _by_value(self, name: str) -> dict[str, set[int]]:
        """The pids of the living processes by the value that a variable has in their environment."""
        if name not in self._values:
            known = self._values[name] = {}
            for pid, environment in self._environments.items():
                if name in environment:
                    known.setdefault(environment[name], set()).add(pid)
        return self._values[name]

    def in_session(self, leader: int) -> set[int]:
        """Return the pids of the living processes in the session with this leader."""
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
        return [self._living[pid] for pid in sorted(pids) if pid != mine and pid in self._living]


class SharedLook:
    """The last look at all processes, for several who search at almost the same time."""

    def __init__(self) -> None:
        self._table: ProcessTable | None = None

    def since(self, moment: float) -> ProcessTable:
        """Return a look that began after this monotonic moment: the last one, or a new one."""
        if self._table is None or self._table.began <= moment:
            self._table = ProcessTable()
        return self._table

    def recent(self, since: float) -> ProcessTable:
        """Return a look that began after this monotonic moment and ended just now: the last one, or a new one."""
        now = time.monotonic()
        if self._table is not None and now > self._table.ended + RECENT:
            return self.since(now)
        return self.since(since)
