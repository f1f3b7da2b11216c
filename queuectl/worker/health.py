"""What keeps a worker from starting jobs, and how it survives faults of the disk and of the index."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

from queuectl.errors import QueuectlError
from queuectl.system.host import disk_shortage

if TYPE_CHECKING:
    from collections.abc import Callable

    from queuectl.index.index import Index

FAULT_PAUSE = 1.0
"""Seconds until something is tried again that the disk refused."""


def never_raising(say: Callable[[str], None]) -> Callable[[str], None]:
    """Return a `say` that does the same and raises nothing: a fault of what takes the lines must not touch a job.

    The first exception is logged.
    """
    failed = False

    def guarded(line: str) -> None:
        nonlocal failed
        try:
            say(line)
        except Exception:
            if not failed:
                failed = True
                import logging

                logging.getLogger("queuectl").exception("what takes the lines of a worker has raised")

    return guarded


_MAX_REMEMBERED = 1000
_UNPAUSED = "the spool is no longer paused"
_SPACE_FREED = "the disk has enough free space again"


class StartFault:
    """Whether the machine has refused to start processes, until a try shows that it starts them again.

    Args:
        can_start: tries to start a process.
    """

    def __init__(self, can_start: Callable[[], bool]) -> None:
        self._can_start = can_start
        self._reason: str | None = None

    def note(self, reason: str) -> None:
        """Note that a start was refused, and why."""
        self._reason = reason

    def look(self) -> str | None:
        """Return why no process can be started, or None; tries it only after a refusal."""
        if self._reason is not None and self._can_start():
            self._reason = None
        return self._reason


class Readiness:
    """Whether a worker may start another job.

    It may not while a person has paused the spool, while others can write to it (it would run whatever they put
    there), while the machine starts no processes, or while the disk is nearly full (a disk that fills up under a running
    job loses work).

    Args:
        path: the spool.
        tell: called when this changes, with the reason (None when jobs may start again) and a line for the log.
        find_danger: returns who else can write to the spool, or None.
        find_pause: returns why somebody has paused the spool, or None.
        find_fault: returns why no process can be started, or None.

    Attributes:
        blocked: why no job may be started now, or None.
    """

    def __init__(
        self,
        path: str,
        tell: Callable[[str | None, str], None],
        find_danger: Callable[[], str | None] = lambda: None,
        find_pause: Callable[[], str | None] = lambda: None,
        find_fault: Callable[[], str | None] = lambda: None,
    ) -> None:
        self.blocked: str | None = None
        self._path = path
        self._tell = tell
        self._find_danger = find_danger
        self._find_pause = find_pause
        self._find_fault = find_fault
        self._end_line = _SPACE_FREED
        self._min_free = 0

    @property
    def is_paused(self) -> bool:
        """Whether a person has paused the spool."""
        return self.blocked is not None and self._end_line == _UNPAUSED

    @property
    def nothing_due(self) -> bool:
        """Whether a new look would find nothing, as long as no pause begins and no permissions change."""
        return not (self.blocked or disk_shortage(self._path, self._min_free))

    def look(self, min_free: int) -> None:
        """Find out again whether jobs may start.

        Args:
            min_free: bytes of the disk that must be free; 0 for no limit.

        Raises:
            OSError: the filesystem cannot be asked.
        """
        self._min_free = min_free
        before, end_line = self.blocked, self._end_line
        self.blocked, self._end_line = self._find()
        # The number of free bytes changes all the time. That is not reported again.
        changed = self._end_line != end_line or (self._end_line != _SPACE_FREED and self.blocked != before)
        if self.blocked and (not before or changed):
            self._tell(self.blocked, f"pausing: {self.blocked}")
        elif before and not self.blocked:
            self._tell(None, f"resuming: {end_line}")

    def _find(self) -> tuple[str | None, str]:
        """Return the reason to start nothing, and the line for the moment when it has gone."""
        if paused := self._find_pause():
            return paused, _UNPAUSED
        if danger := self._find_danger():
            return danger, "nobody else can write to the spool now"
        if fault := self._find_fault():
            return fault, "processes can be started again"
        return disk_shortage(self._path, self._min_free), _SPACE_FREED


class FaultBarrier:
    """Reports a fault of the disk or the index instead of letting the worker die: `with barrier:`.

    Each fault is logged once; the worker tries again later.

    Attributes:
        tripped: a fault was reported since this was last set to False.
    """

    def __init__(self, say: Callable[[str], None], index: Index) -> None:
        self.tripped = False
        self._say = say
        self._index = index
        self._last: str | None = None
        self._said: set[str] = set()

    def __enter__(self) -> None:
        """Begin a guarded block."""

    def __exit__(self, _kind: object, error: BaseException | None, _where: object) -> bool:
        """Report a fault that the worker can survive; let every other exception pass."""
        if error is None:
            return False
        if isinstance(error, (sqlite3.Error, MemoryError)):
            self._index.broken = str(error) or "no memory"
            self._report(f"the index cannot be used and will be rebuilt: {self._index.broken}")
        elif isinstance(error, QueuectlError):
            self._report(str(error))
        elif isinstance(error, OSError):
            where = f" at {error.filename}" if error.filename else ""
            self._report(f"disk error{where}: {(error.strerror or str(error)).lower()}")
        else:
            return False
        return True

    def _report(self, fault: str) -> None:
        self.tripped = True
        if fault != self._last:
            self._last = fault
            self._say(fault)

    def reset(self) -> None:
        """Note that a round went well: if the same fault comes back, it is reported again."""
        self._last = None

    def say_once(self, line: str) -> None:
        """Log a line; one that begins with "cannot" only the first time, as each retry would repeat it."""
        if line not in self._said:
            if line.startswith("cannot ") and len(self._said) < _MAX_REMEMBERED:
                self._said.add(line)
            self._say(line)
