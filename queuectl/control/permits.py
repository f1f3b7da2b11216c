"""Permits: the limits of queues and resources, kept by kernel locks.

A limit of n jobs at a time is n lock files. A job runs only while one of them is locked for it, and its processes inherit
that lock. So a limit holds whatever happens to a worker or to the index: the kernel frees a lock when its last holder has
ended, and never before. A resource of n units is n lock files as well, and the numbers of its locks tell a job which units
are its own.
"""

from __future__ import annotations

import os
from contextlib import suppress

from queuectl.fast_start.dataclass import dataclass, field
from queuectl.system.locks import Lock, is_held

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_TRIES = 10
"""How often to look for what is free, when others take it in the instant between the look and the lock."""


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

        It looks before it takes. A try in vain would open files for writing and close them, or give a part back. Both wake
        all workers that wait for a permit, this one as well: each would try again at once, and wake the others, for ever.

        Args:
            limit: of the queue; None: it has none.
            needs: of each resource, how many units.
            resources: how many units there are.

        Returns:
            the permit; or what is missing: "" for the queue, else the name of the resource.

        Raises:
            OSError: a lock file cannot be made or opened.
        """
        wanted = [("", queue, 1, limit)] if limit is not None else []
        wanted += [(name, f"+{name}", needs[name], resources.get(name, 0)) for name in sorted(needs)]
        for _ in range(_TRIES):
            found: list[tuple[str, str, Sequence[int], int]] = []
            for name, files, amount, most in wanted:
                free = self._free(files, amount, most)
                if len(free) < amount:
                    return name
                found.append((name, files, free, most))
            if (permit := self._lock(found)) is not None:
                return permit
        return wanted[0][0]

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
            max(numbers) >= most or self._exceeds(files, most, most) for files, numbers, most in held
        )

    def _free(self, files: str, amount: int, most: int) -> list[int]:
        """Return the lowest numbers below `most` that are free, `amount` of them; fewer if not so many may be taken."""
        free: list[int] = []
        for number in range(most if amount <= most else 0):
            if len(free) == amount:
                break
            if not is_held(self._path(files, number)):
                free.append(number)
        return [] if self._exceeds(files, most - amount, most) else free

    def _lock(self, found: Sequence[tuple[str, str, Sequence[int], int]]) -> Permit | None:
        """Lock what was found to be free; None if somebody was faster, or took another one while the limit is exceeded."""
        permit = Permit()
        try:
            for name, files, numbers, most in found:
                for number in numbers:
                    path = self._path(files, number)
                    if (lock := self._acquire(path)) is None:
                        permit.release()
                        return None
                    permit._locks[path] = lock
                    if not self._is_counted(lock, files, number):
                        permit.release()
                        return None
                if self._exceeds(files, most, most):
                    permit.release()
                    return None
                if name:
                    permit.units[name] = tuple(numbers)
                else:
                    [permit.place] = numbers
        except BaseException:
            permit.release()
            raise
        return permit

    def _exceeds(self, files: str, allowed: int, most: int) -> bool:
        """Whether more than `allowed` are taken, and some of them at or above `most`, because the limit was lowered.

        Call it after taking. Of two workers that take and then look, at least one sees the other. If they looked first,
        both would find the last place free.
        """
        numbers = [*self._numbers_from(files, most)]
        above = sum(is_held(self._path(files, number)) for number in numbers)
        self._delete_unused(files, numbers)
        if not above:
            return False
        return above + sum(is_held(self._path(files, number)) for number in range(most)) > allowed

    def _delete_unused(self, files: str, numbers: Sequence[int]) -> None:
        """Delete the files of a limit that was lowered, from the highest down to one that is taken.

        Kept, each claim would ask for all of them: after a limit of 1,000 that took 32 ms. They are opened for reading only,
        so that nobody who waits for a permit is woken.
        """
        with suppress(OSError):  # where they cannot be deleted, they cost time and do no harm
            for number in reversed(numbers):
                path, next_path = self._path(files, number), self._path(files, number + 1)
                lock = Lock.on_existing_file(path, os.O_RDONLY)
                if lock is None:
                    return
                try:
                    os.unlink(path)
                    if os.path.lexists(next_path):  # made in between, see `_is_counted`
                        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
                finally:
                    lock.release()

    def _is_counted(self, lock: Lock, files: str, number: int) -> bool:
        """Whether others see this lock. Not if its file, or the one before it, was deleted between the look and the lock.

        A worker that has not read the lower limit yet may take a high number while another one deletes these files. Each of
        them changes its file before it looks for that of the other, so one of them sees what has happened.
        """
        return lock.is_on(self._path(files, number)) and (
            number == 0 or os.path.lexists(self._path(files, number - 1))
        )

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
