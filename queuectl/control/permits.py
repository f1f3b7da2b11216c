"""Permits: the limits of queues and resources, kept by kernel locks.

A limit of n jobs at a time is n lock files. A job runs only while one of them is locked for it, and its processes inherit
that lock. So a limit holds whatever happens to a worker or to the index: the kernel frees a lock when its last holder has
ended, and never before. A resource of n units is n lock files as well, and the numbers of its locks tell a job which units
are its own.
"""

from __future__ import annotations

import os
from contextlib import suppress

from queuectl._dataclasses import dataclass, field
from queuectl.system.locks import Lock, is_locked

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


@dataclass(slots=True)
class Permit:
    """What one running job holds.

    Attributes:
        place: its number among the jobs of a limited queue, from 0; None if the queue has no limit.
        units: the numbers of its units, by resource.
    """

    place: int | None = None
    units: dict[str, tuple[int, ...]] = field(default_factory=dict)
    _locks: dict[str, Lock] = field(default_factory=dict)

    @property
    def descriptors(self) -> tuple[int, ...]:
        """The descriptors that the processes of the job inherit."""
        return tuple(lock.fd for lock in self._locks.values())

    def release(self) -> None:
        """Give everything back, also if a process that was left in the background still has the files open.

        Then the time of each file is set: workers that wait for it watch the folder, and unlocking causes no event.
        """
        locks, self._locks = self._locks, {}
        for path, lock in locks.items():
            lock.release()
            with suppress(OSError):
                os.utime(path)

    def leave(self) -> None:
        """Leave everything to the processes of the job, which go on without this worker."""
        locks, self._locks = self._locks, {}
        for lock in locks.values():
            lock.detach()


class Permits:
    """The lock files of one spool.

    Args:
        folder: where they are; it is made if it is missing.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def take(
        self, queue: str, limit: int | None, needs: Mapping[str, int], resources: Mapping[str, int]
    ) -> Permit | str:
        """Take all that a job needs, or nothing. Never waits.

        Every worker takes in the same order (the queue, then the resources by name) and gives back what it has if a part
        is missing. So no two workers can wait for each other.

        Args:
            limit: of the queue; None: it has none.
            needs: of each resource, how many units.
            resources: how many units there are.

        Returns:
            the permit; or what is missing: "" for the queue, else the name of the resource.

        Raises:
            OSError: a lock file cannot be made or opened.
        """
        permit = Permit()
        wanted = [("", queue, 1, limit)] if limit is not None else []
        wanted += [(name, f"+{name}", needs[name], resources.get(name, 0)) for name in sorted(needs)]
        try:
            for name, files, amount, most in wanted:
                numbers = self._take(permit._locks, files, amount, most)
                if len(numbers) < amount or self._exceeds(files, most):
                    permit.release()
                    return name
                if name:
                    permit.units[name] = numbers
                else:
                    [permit.place] = numbers
        except BaseException:
            permit.release()
            raise
        return permit

    def may_keep(self, permit: Permit, queue: str, limit: int | None, resources: Mapping[str, int]) -> bool:
        """Return whether another job of the same lane may have this permit: no limit was lowered below what is taken.

        Args:
            queue, limit, resources: as for `take`.
        """
        held: list[tuple[str, tuple[int, ...], int]] = []
        if permit.place is not None:
            held.append((queue, (permit.place,), limit or 0))
        held += [(f"+{name}", units, resources.get(name, 0)) for name, units in permit.units.items()]
        return (permit.place is not None) == (limit is not None) and not any(
            max(numbers) >= most or self._exceeds(files, most) for files, numbers, most in held
        )

    def _take(self, taken: dict[str, Lock], files: str, amount: int, most: int) -> tuple[int, ...]:
        """Take so many locks of those below `most`, the lowest that are free; return the numbers of those it got."""
        numbers: list[int] = []
        for number in range(most if amount <= most else 0):
            if len(numbers) == amount:
                break
            path = self._path(files, number)
            if (lock := self._acquire(path)) is not None:
                taken[path] = lock
                numbers.append(number)
        return tuple(numbers)

    def _exceeds(self, files: str, most: int) -> bool:
        """Whether more than `most` are taken, because the limit was lowered.

        Call it after taking. Of two workers that take and then look, at least one sees the other. If they looked first,
        both would find the last place free.
        """
        above = sum(is_locked(self._path(files, number)) for number in self._numbers_from(files, most))
        if not above:
            return False
        return above + sum(is_locked(self._path(files, number)) for number in range(most)) > most

    def _numbers_from(self, files: str, first: int) -> Iterator[int]:
        """Yield the numbers, from this one on, that have a file. They have no gap: the lowest free one is taken first."""
        while os.path.lexists(self._path(files, first)):
            yield first
            first += 1

    def _path(self, files: str, number: int) -> str:
        return f"{self._folder}{os.sep}{files}.{number}"

    def _acquire(self, path: str) -> Lock | None:
        try:
            return Lock.acquire(path)
        except FileNotFoundError:
            os.makedirs(self._folder, mode=0o700, exist_ok=True)
            return Lock.acquire(path)
