"""Files that a rule has taken for a job: the worker moves them as the job ends, and fetches them back when it runs again.

What cannot be moved here is moved by the worker that follows the rules, at its next look.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from queuectl.job.record import Job


def is_taken(job: Job) -> bool:
    """Whether a rule has taken a file for a job. Its end must be on the disk before the file goes.

    A power cut could else take the end alone, and the job would run again without its file.
    """
    if job.source is None or job.rule is None:
        return False
    from queuectl.rules import claimed_files

    return claimed_files.of(job) is not None


def follow(job: Job, state: str, say: Callable[[str], None]) -> None:
    """Move the file of a job that has ended, or delete it, as its rule wants."""
    from queuectl.rules import claimed_files

    try:
        if (one := claimed_files.of(job)) is not None:
            claimed_files.finish(one, state)
    except OSError as error:
        say(f"the file of {job.id} cannot be moved: {(error.strerror or str(error)).lower()}")


def fetch(job: Job, say: Callable[[str], None]) -> None:
    """Fetch the file of a job back that lies in `failed/`; without its file the command tells what it lacks."""
    from queuectl.rules import claimed_files

    try:
        if (one := claimed_files.of(job)) is not None:
            claimed_files.restore(one)
    except OSError as error:
        say(f"the file of {job.id} cannot be fetched: {(error.strerror or str(error)).lower()}")
