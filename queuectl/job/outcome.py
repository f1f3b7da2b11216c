"""How an attempt ended, and what follows for the job: pure functions of the job, the outcome, the time and a random number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from queuectl.job import times

if TYPE_CHECKING:
    from queuectl.job.record import Job


@dataclass(frozen=True, slots=True)
class Decision:
    """The next state of a job after an attempt.

    Attributes:
        state: completed, failed or dead.
        retry_at: of a failed job: the moment of its next attempt, in epoch seconds.
        why: why a job that had attempts left is dead.
    """

    state: str
    retry_at: float | None = None
    why: str | None = None


_SUCCEEDED = Decision("completed")


def backoff(base: float, failures: int, cap: float, jitter: float = 0.0, draw: float = 0.0) -> float:
    """Return the seconds to wait after the n-th failed attempt: base ** n, at most cap (SPEC 4).

    With jitter, the wait is spread evenly from 1 to 1 + jitter times that value. Where this would exceed the cap, it is
    spread from cap / (1 + jitter) to cap: jobs that have often failed together must not all come back together.

    Args:
        jitter: 0 to 1.
        draw: a random number from 0 to 1.
    """
    try:
        wait = float(base) ** failures
    except OverflowError:
        wait = cap
    return min(min(wait, cap / (1 + jitter)) * (1 + jitter * draw), cap)


def decide(
    job: Job, *, succeeded: bool, now: float, exit_code: int | None = None, draw: float = 0.0
) -> Decision:
    """Decide what follows an attempt that counts; job.attempts includes it already.

    Args:
        exit_code: the command's own exit code. None if a signal or a timeout ended it, or if it never started:
            retry_on and give_up_on apply to exit codes only.
        draw: a random number from 0 to 1, for the jitter.
    """
    if succeeded:
        return _SUCCEEDED
    if exit_code is not None:
        if exit_code in (job.give_up_on or ()):
            return Decision("dead", why="give_up_on has it")
        if job.retry_on is not None and exit_code not in job.retry_on:
            return Decision("dead", why="retry_on does not have it")
    if job.attempts >= job.runs_allowed:
        return Decision("dead")
    cap = 86400.0 if job.max_backoff is None else job.max_backoff
    wait = backoff(job.backoff_base or 2, job.attempts, cap, job.jitter or 0.0, draw)
    # A file may hold any max_backoff. A moment later than LATEST cannot be written, so the job could not be settled.
    retry_at = min(now + wait, times.LATEST)
    if job.expires_at is not None and retry_at > job.expires_at:
        return Decision(
            "dead", why=f"the next attempt would come after expires_at ({times.iso(job.expires_at)})"
        )
    return Decision("failed", retry_at)
