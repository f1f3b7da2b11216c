"""The command line of a worker process: the words that start queuectl, wherever the caller stands, and its options."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from queuectl.config.keys import KEYS
from queuectl.fast_start.dataclass import dataclass
from queuectl.job.fields import check_field

if TYPE_CHECKING:
    from collections.abc import Iterable


def words() -> list[str]:
    """Return the program and its first arguments; the words of a command line of queuectl follow.

    `python -m queuectl` would put the current directory first in the search path, and import a `queue.py` or `json.py`
    that lies there. With -P, nothing is imported from the current directory. The file __main__.py finds its package by
    itself, so that a checkout that is not installed works too.
    """
    if getattr(sys, "frozen", False):  # one file that holds Python and all modules
        return [sys.executable]
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    return [sys.executable, "-P", os.path.join(package, "__main__.py")]


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """The options of a worker.

    Attributes:
        drain: leave when nothing is left to do now.
        wait_retries: with drain, wait for retries and scheduled jobs too.
        concurrency: how many jobs may run at once; None: as the setting says.
        queues: serve only these queues; none: all.
        not_queues: do not serve these.
        engine: be the dispatcher of this engine; None: a worker.
    """

    drain: bool = False
    wait_retries: bool = False
    concurrency: int | None = None
    queues: tuple[str, ...] = ()
    not_queues: tuple[str, ...] = ()
    engine: str | None = None

    def words(self) -> list[str]:
        """Return them as words of the command line of `worker run`."""
        several = [] if self.concurrency is None else ["--concurrency", str(self.concurrency)]
        several += queue_words(self.queues, self.not_queues)
        several += [] if self.engine is None else ["--engine", self.engine]
        return ["--drain"] * self.drain + ["--wait-retries"] * self.wait_retries + several


def queue_words(queues: Iterable[str], not_queues: Iterable[str]) -> list[str]:
    """Return the words with which a command line binds workers to queues."""
    only = [word for name in queues for word in ("--queue", name)]
    return only + [word for name in not_queues for word in ("--not-queue", name)]


def checked_queues(names: Iterable[str]) -> frozenset[str]:
    """Return the names of queues that a program gives; one need not be in a list.

    Raises:
        ValueError: no queue can have such a name.
    """
    return frozenset(check_field("queue", name) for name in ([names] if isinstance(names, str) else names))


def checked_concurrency(value: int | None) -> int | None:
    """Return the concurrency that a program asks for; None means the setting.

    Raises:
        ValueError: it is not a whole number, too small or too large.
    """
    try:
        return None if value is None else KEYS["concurrency"].check(value)
    except ValueError as error:
        raise ValueError(f"concurrency {error}") from None
