"""What a worker outlives: a disk that refuses, an index that is damaged. One line each, then it tries again."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

from queuectl.errors import QueuectlError

if TYPE_CHECKING:
    from collections.abc import Callable

    from queuectl.index.index import Index

_MOST_COMPLAINTS = 1000


class Troubles:
    """Turns passing trouble into lines, without repeating itself.

    Attributes:
        fresh: something went wrong since this was last set to False.
    """

    def __init__(self, say: Callable[[str], None], index: Index) -> None:
        self.fresh = False
        self._say = say
        self._index = index
        self._told: str | None = None
        self._complaints: set[str] = set()

    def outlive(self) -> Troubles:
        """Report trouble of the disk or the index instead of dying of it: `with troubles.outlive():`."""
        return self

    def __enter__(self) -> None:
        """See outlive. A method of its own, as a generator costs a job more than what it wraps."""

    def __exit__(self, _kind: object, error: BaseException | None, _where: object) -> bool:
        """Report what can be outlived; let all else pass."""
        if error is None:
            return False
        if isinstance(error, (sqlite3.Error, MemoryError)):
            self._index.broken = str(error) or "no memory"
            self.report(f"the index is set aside and will be rebuilt: {self._index.broken}")
        elif isinstance(error, QueuectlError):
            self.report(str(error))
        elif isinstance(error, OSError):
            where = f" {error.filename}" if error.filename else ""
            self.report(f"trouble with the disk{where}: {(error.strerror or str(error)).lower()}")
        else:
            return False
        return True

    def report(self, trouble: str) -> None:
        """Say it, unless it was the last thing said."""
        self.fresh = True
        if trouble != self._told:
            self._told = trouble
            self._say(trouble)

    def say_once(self, line: str) -> None:
        """Say what a claim's recovery came to; that it is not possible yet is found again every second."""
        if line not in self._complaints:
            if line.startswith("cannot ") and len(self._complaints) < _MOST_COMPLAINTS:
                self._complaints.add(line)
            self._say(line)

    def over(self) -> None:
        """All is well again: the same trouble would be news."""
        self._told = None
