"""What follows from an attempt: a pure function of the job, how the attempt ended, the time, and a draw of luck."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from queuectl.job import times

if TYPE_CHECKING:
    from queuectl.job.record import Job


@dataclass(frozen=True, slots=True)
class Decision:
    """Where a job goes: state is completed, failed (and retry_at says when) or dead.

    `why` says for what reason a job is given up that had attempts left.
    """

    state: str
    retry_at: float | None = None
    why: str | None = None


_SUCCEEDED = Decision("completed")


def backoff(base: float, failures: int, cap: float, jitter: float = 0.0, draw: float = 0.0) -> float:
    """Seconds to wait after the n-th failed attempt: base ** n, at most cap (SPEC 4).

    With jitter the wait is drawn from one to 1 + jitter times that. Where this would go beyond the cap, it is drawn
    from cap / (1 + jitter) to cap: what has failed often and together must not come back together either.

    Args:
        jitter: 0 to 1.
        draw: from 0 to 1, what luck gave.
    """
    try:
        wait = float(base) ** failures
    except OverflowError:
        wait = cap
    return min(min(wait, cap / (1 + jitter)) * (1 + jitter * draw), cap)


def decide(
    job: Job, *, succeeded: bool, now: float, exit_code: int | None = None, draw: float = 0.0
) -> Decision:
    """Decide after an attempt that counts; job.attempts includes it already.

    Args:
        exit_code: with which the command ended by itself. None: by a signal, by a timeout, or it never started; what
            retry_on and give_up_on say is about exit codes alone.
        draw: from 0 to 1, for the jitter.
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
    # A cap from a file may be anything; past the last moment that can be written down the job could not be settled.
    retry_at = min(now + wait, times.LATEST)
    if job.expires_at is not None and retry_at > job.expires_at:
        return Decision(
            "dead", why=f"the next attempt would come after expires_at ({times.iso(job.expires_at)})"
        )
    return Decision("failed", retry_at)
