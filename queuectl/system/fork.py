"""Two cores for one long list: a part of the work is done by a copy of this process."""

from __future__ import annotations

import marshal
import os
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

T = TypeVar("T")

WORTH = 2000
"""Items from which on it pays: a copy is made within 2 to 10 ms."""

SHARE = 4
"""This process does one part in so many: it has the rows of the part before to insert meanwhile, and these."""


def in_two(work: Callable[[Sequence[str]], list[Any]], items: Sequence[str]) -> Callable[[], list[Any]]:
    """Begin what `work` makes of the items; returns what does the rest of it, and waits for all.

    Args:
        work: as for `beside`.
    """
    if len(items) < WORTH or not _can_copy():
        return lambda: work(items)
    mine, others = items[: len(items) // SHARE], items[len(items) // SHARE :]
    collect = beside(work, others)

    def finish() -> list[Any]:
        try:
            made = work(mine)
        finally:
            more = collect()
        return made + more

    return finish


def beside(work: Callable[[Sequence[T]], list[Any]], items: Sequence[T]) -> Callable[[], list[Any]]:
    """Begin what `work` makes of the items in a copy of this process, if one can be made; returns what waits for it.

    Args:
        work: reads or writes files and the like; it runs in the copy, so it must not touch what both have open, such
            as the index. Its answer is a list of plain tuples. Where the copy died of something it is called again,
            here: what half of it has done must not be in its way.
    """
    if not _can_copy():
        return lambda: work(items)
    reading, writing = os.pipe()
    try:
        pid = os.fork()
    except OSError:  # no memory, or as many processes as there may be
        os.close(reading)
        os.close(writing)
        return lambda: work(items)
    if pid == 0:
        _answer(writing, work, items)
    os.close(writing)

    def collect() -> list[Any]:
        try:
            with open(reading, "rb") as pipe:
                answer = pipe.read()
        finally:
            with suppress(ChildProcessError):  # of a program that has its children collected elsewhere
                os.waitpid(pid, 0)
        try:
            made: list[Any] = marshal.loads(answer)  # noqa: S302 (from ourselves)
        except (EOFError, ValueError, TypeError):
            made = work(items)  # it was killed, or met an error that is told here
        return made

    return collect


def _answer(fd: int, work: Callable[[Sequence[T]], list[Any]], items: Sequence[T]) -> None:
    """What the copy does. It leaves by the shortest way: whatever else this process holds is not the copy's to end."""
    try:
        with open(fd, "wb") as pipe:
            pipe.write(marshal.dumps(work(items)))
    finally:
        os._exit(0)


def _can_copy() -> bool:
    """A process with threads is not copied: a lock that one of them holds would stay locked in the copy."""
    if not hasattr(os, "fork") or threading.active_count() > 1:
        return False
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return cores > 1
