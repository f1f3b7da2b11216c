"""Very many files that land at once: two workers of all take them in, and do not get in each other's way.

One alone is slower than a program that drops files, and an urgent one among them would start late. Each has one half of
the names, oldest first. Whoever is done with his helps with the other's from its end.
"""

from __future__ import annotations

import os
from itertools import islice
from typing import TYPE_CHECKING
from zlib import crc32

from queuectl.owner import Lock

if TYPE_CHECKING:
    from collections.abc import Iterable

    from queuectl.layout import Layout


class Storm:
    """One worker's part in a storm.

    Attributes:
        is_joined: this worker is one of the two.
    """

    def __init__(self, layout: Layout) -> None:
        self._paths = [os.path.join(layout.data, name) for name in ("intake.lock", "intake2.lock")]
        self._lock: Lock | None = None
        self._half = 0
        self.is_joined = False
        self._names: tuple[dict[str, None], dict[str, None]] = ({}, {})

    def __len__(self) -> int:
        """How many names are left."""
        return len(self._names[0]) + len(self._names[1])

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

    def take(self, most: int) -> list[str]:
        """The next names to look at, so many at the most."""
        mine, others = self._names[self._half], self._names[1 - self._half]
        if mine:
            part = list(islice(mine, most))
            for name in part:
                del mine[name]
            return part
        return [others.popitem()[0] for _ in range(min(most, len(others)))]

    def leave(self) -> None:
        """It is over, or somebody else's."""
        for half in self._names:
            half.clear()
        self._half, self.is_joined = 0, False
        if self._lock is not None:
            self._lock.release()
            self._lock = None
