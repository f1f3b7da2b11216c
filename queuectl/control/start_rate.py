"""The starts of a queue with a rate: its last moments of start, in a file under a lock.

A start is allowed when the N-th last one is a span old. So no span has more than N starts, wherever it begins; a counter that
is reset each hour would allow twice as many around the reset.
"""

from __future__ import annotations

import os
from array import array
from bisect import bisect_right
from contextlib import contextmanager

from queuectl.errors import SpoolError
from queuectl.system import files
from queuectl.system.locks import held

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from queuectl.system.locks import Lock

_PATIENCE = 5.0
"""Seconds to wait for other workers. Each holds the lock for less than a millisecond, or for one wait for the disk."""

_SYNC_FROM = 10.0
"""Seconds. The starts of longer spans are synced: a power cut takes longer than a shorter span."""

_KEPT = 1000
"""So many starts are kept however old they are, for a rate that is changed and changed back: 100/1h, 5/1m, 100/1h."""

_MOMENT = 8
"""Bytes of a moment."""


class StartRate:
    """The starts of one queue.

    Args:
        path: of its file, which is made if it is missing.
        starts: so many starts at most …
        span: … in each span of so many seconds.
    """

    def __init__(self, path: str, starts: int, span: float) -> None:
        self._path, self._starts, self._span = path, starts, round(span * 1e6)

    def take(self, now: int) -> int:
        """Note a start now if it is allowed.

        Args:
            now: microseconds since the epoch.

        Returns:
            0 if the start is noted; else when the next one is allowed, in microseconds.

        Raises:
            SpoolError: the file cannot be used.
        """
        with self._open() as lock:
            known = _moments(_content(lock))  # in order
            # A moment ahead of the clock counts as now: the clock was set back. Left as it is, it would keep the queue closed
            # until the clock has caught up. Left out, twice as many could start.
            ahead = len(known) - bisect_right(known, now)
            known[len(known) - ahead :] = array("q", [now]) * ahead
            is_full = len(known) >= self._starts and known[-self._starts] + self._span > now
            if not is_full:
                known.append(now)
            if ahead or not is_full:
                self._write(lock, known)
            return known[-self._starts] + self._span if is_full else 0

    def give_back(self, moment: int) -> None:
        """Remove a start that was noted for a job which did not start after all.

        Raises:
            SpoolError: the file cannot be used.
        """
        with self._open() as lock:
            known = _moments(_content(lock))
            if moment in known:
                known.remove(moment)
                self._write(lock, known)

    def count(self, now: int) -> int:
        """Return how many starts the span up to now has.

        Raises:
            SpoolError: the file cannot be read.
        """
        try:
            with open(self._path, "rb") as file:
                known = _moments(file.read())
        except FileNotFoundError:
            return 0
        except OSError as error:
            raise SpoolError.from_os("read", self._path, error) from None
        return sum(now - self._span < moment for moment in known)

    @contextmanager
    def _open(self) -> Iterator[Lock]:
        busy = f"other processes have been writing {self._path}"
        try:
            os.makedirs(os.path.dirname(self._path), mode=0o700, exist_ok=True)
            with held(self._path, patience=_PATIENCE, busy=busy) as lock:
                yield lock
        except OSError as error:
            raise SpoolError.from_os("write", self._path, error) from None

    def _write(self, lock: Lock, known: array[int]) -> None:
        """Write the last starts, and all of the last span: they count again if the rate is raised or its span lengthened."""
        since = bisect_right(known, known[-1] - self._span) if known else 0
        data = known[max(0, min(since, len(known) - max(self._starts, _KEPT))) :].tobytes()
        os.lseek(lock.fd, 0, os.SEEK_SET)
        files.write_all(lock.fd, data)
        os.ftruncate(lock.fd, len(data))
        if self._span >= _SYNC_FROM * 1e6:
            files.sync_file(lock.fd)


def _content(lock: Lock) -> bytes:
    os.lseek(lock.fd, 0, os.SEEK_SET)
    return os.read(lock.fd, os.fstat(lock.fd).st_size)


def _moments(data: bytes) -> array[int]:
    found = array("q")
    found.frombytes(data[: len(data) // _MOMENT * _MOMENT])
    return found
