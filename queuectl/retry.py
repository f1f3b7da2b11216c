"""What follows from an attempt: a pure function of the job, how the attempt ended, and the time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from queuectl import times

if TYPE_CHECKING:
    from queuectl.job import Job


@dataclass(frozen=True, slots=True)
class Decision:
    """Where a job goes: state is completed, failed (and retry_at says when) or dead."""

    state: str
    retry_at: float | None = None


def backoff(base: float, failures: int, cap: float) -> float:
    """Seconds to wait after the n-th failed attempt: base ** n, at most cap (SPEC 4)."""
    try:
        wait = float(base) ** failures
    except OverflowError:
        return cap
    return min(wait, cap)


def decide(job: Job, *, succeeded: bool, now: float) -> Decision:
    """Decide after an attempt that counts; job.attempts includes it already."""
    if succeeded:
        return Decision("completed")
    if job.attempts >= job.runs_allowed:
        return Decision("dead")
    wait = backoff(
        job.backoff_base or 2, job.attempts, 86400.0 if job.max_backoff is None else job.max_backoff
    )
    # A cap from a file may be anything; past the last moment that can be written down the job could not be settled.
    return Decision("failed", min(now + wait, times.LATEST))
