"""Very many files that land at once: two workers of all take them in, and do not get in each other's way.

One alone is slower than a program that drops files. Each has one half of the names; whoever is done with his helps with
the other's from its end. To read a file takes a tenth of the time that it takes to take it in: so all are read as they
land, and the most urgent are taken in first, however many wait.
"""

from __future__ import annotations

import os
import re
from collections import deque
from itertools import islice
from typing import TYPE_CHECKING
from zlib import crc32

from queuectl.system import safe_open
from queuectl.system.locks import Lock, is_locked

if TYPE_CHECKING:
    from collections.abc import Iterable

    from queuectl.layout import Layout

LOOKS = 2000
"""Files that are looked at between two parts that are taken in: some 10 ms. More than land in the time of both."""

_ENOUGH = 64 << 10
"""Bytes of a file in which a priority is looked for; a larger one waits for its turn."""

_PRIORITY = re.compile(rb'"priority"\s*:\s*(10|[1-9])\b')


class Storm:
    """One worker's part in a storm.

    Attributes:
        is_joined: this worker is one of the two.
    """

    def __init__(self, layout: Layout) -> None:
        self._paths = [os.path.join(layout.data, name) for name in ("intake.lock", "intake2.lock")]
        self._pending = f"{layout.pending}{os.sep}"
        self._lock: Lock | None = None
        self._half = 0
        self.is_joined = False
        self._names: tuple[dict[str, None], dict[str, None]] = ({}, {})
        self._by_priority: dict[int, deque[str]] = {}

    def __len__(self) -> int:
        """How many names are left."""
        return sum(map(len, (*self._names, *self._by_priority.values())))

    def join(self, first: Lock | None) -> bool:
        """Be one of the two; False when there are two already.

        Args:
            first: the lock of who takes in what has landed, if the caller has it.

        Raises:
            OSError: a lock cannot be asked for.
        """
        for half, path in enumerate(self._paths):
            if half == 0 and first is not None:
                lock = None
            elif (lock := Lock.acquire(path)) is None:
                continue
            self._lock, self._half, self.is_joined = lock, half, True
            break
        return self.is_joined

    def hear(self, names: Iterable[str]) -> None:
        """Keep names that have landed."""
        for name in names:
            self._names[crc32(name.encode()) & 1][name] = None

    def take(self, most: int, usual: int) -> list[str]:
        """The next names to take in, of one priority, so many at the most.

        Args:
            usual: the priority of a job that names none.

        Raises:
            OSError: a lock cannot be asked for.
        """
        self._look(self._names[self._half], usual)
        others = self._names[1 - self._half]
        if others and not is_locked(self._paths[1 - self._half]):
            self._look(others, usual)
        if self._by_priority:
            highest = max(self._by_priority)
            names = self._by_priority[highest]
            part = [names.popleft() for _ in range(min(most, len(names)))]
            if not names:
                del self._by_priority[highest]
            return part
        return [others.popitem()[0] for _ in range(min(most, len(others)))]

    def _look(self, names: dict[str, None], usual: int) -> None:
        """Look how urgent the next of these are; what a file says elsewhere than at its top does no harm."""
        for name in list(islice(names, LOOKS)):
            del names[name]
            priority = usual
            try:
                found = _PRIORITY.search(safe_open.read_regular(self._pending + name, _ENOUGH)[0])
            except (safe_open.NotReadable, OSError):
                found = None
            if found is not None:
                priority = int(found[1])
            self._by_priority.setdefault(priority, deque()).append(name)

    def leave(self) -> None:
        """It is over, or somebody else's."""
        for half in self._names:
            half.clear()
        self._by_priority.clear()
        self._half, self.is_joined = 0, False
        if self._lock is not None:
            self._lock.release()
            self._lock = None
