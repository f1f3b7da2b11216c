"""A burst: very many files that arrive at once. Two workers take them in, and do not get in each other's way.

One worker alone would be slower than a program that drops files. Each has one half of the names; the one that has
finished its half helps with the other, from the end. Reading a file takes a tenth of the time of taking it in, so all
files are read as they arrive, and the most urgent jobs are taken in first, however many wait.
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

READ_AHEAD = 2000
"""Files that are read between two parts that are taken in, some 10 ms: more than arrive in the time of both."""

_PREFIX = 64 << 10
"""Bytes of a file in which a priority is looked for; a larger file counts as having none."""

_PRIORITY = re.compile(rb'"priority"\s*:\s*(10|[1-9])\b')


class Burst:
    """One worker's part in a burst.

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
        """Become one of the two workers; False: there are two already.

        Args:
            first: the lock of intake.lock, if the caller holds it.

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

    def add(self, names: Iterable[str]) -> None:
        """Keep the names of files that have arrived."""
        for name in names:
            self._names[crc32(name.encode()) & 1][name] = None

    def read_ahead(self, default_priority: int) -> None:
        """Sort the names that have arrived, or the next of them, by priority.

        Args:
            default_priority: of a job that names none.

        Raises:
            OSError: a lock cannot be asked for.
        """
        self._read_ahead(self._names[self._half], default_priority)
        others = self._names[1 - self._half]
        if others and not is_locked(self._paths[1 - self._half]):
            self._read_ahead(others, default_priority)

    @property
    def is_read(self) -> bool:
        """Whether all names of this worker's half are sorted, so that none of them can be an urgent job."""
        return not self._names[self._half]

    def has_above(self, priority: int) -> bool:
        """Whether a sorted name has a higher priority than this."""
        return max(self._by_priority, default=0) > priority

    def take(self, most: int) -> list[str]:
        """Remove and return the next names to take in, all of one priority.

        Args:
            most: the greatest number of names.
        """
        if self._by_priority:
            highest = max(self._by_priority)
            names = self._by_priority[highest]
            part = [names.popleft() for _ in range(min(most, len(names)))]
            if not names:
                del self._by_priority[highest]
            return part
        others = self._names[1 - self._half]
        return [others.popitem()[0] for _ in range(min(most, len(others)))]

    def _read_ahead(self, names: dict[str, None], default_priority: int) -> None:
        """Sort the next of these names by priority. A wrong guess, from text elsewhere in the file, does no harm."""
        for name in list(islice(names, READ_AHEAD)):
            del names[name]
            priority = default_priority
            try:
                found = _PRIORITY.search(safe_open.read_regular(self._pending + name, _PREFIX)[0])
            except (safe_open.NotReadable, OSError):
                found = None
            if found is not None:
                priority = int(found[1])
            self._by_priority.setdefault(priority, deque()).append(name)

    def leave(self) -> None:
        """Stop taking part: all names have been taken in, or another worker has them too."""
        for half in self._names:
            half.clear()
        self._by_priority.clear()
        self._half, self.is_joined = 0, False
        if self._lock is not None:
            self._lock.release()
            self._lock = None
