"""How an attempt ended, and what follows for the job: pure functions of job, outcome, time and a random number."""

from __future__ import annotations

import enum
import os
from typing import TYPE_CHECKING, Any

from queuectl.fast_start.dataclass import dataclass
from queuectl.job import times
from queuectl.job.redact import one_line

if TYPE_CHECKING:
    from collections.abc import Callable

    from queuectl.job.record import Job

INTERRUPTED = "interrupted"
"""The outcome, in a job's history, of a run whose worker died."""

SUSPECT_AFTER = 2
"""Deaths of its worker after which a job starts apart from others: it may be the cause (see `worker/suspects.py`)."""

CANCELLED = "Cancelled"
"""The last error of a cancelled job."""

_ERROR_KEPT = 1000
"""Characters of the error kept for each run in the history. The name of a missing program may have a million."""


_DEFAULT_LIMIT = (
    "this is the default limit, so it is not tried again; give it more: queuectl dlq retry {id} --timeout 10m"
)
"""After a run that was ended by a limit that nobody chose. The same limit would end each further attempt, too."""


class Ending(enum.StrEnum):
    """The ways in which an attempt can end."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    SIGNALLED = "signalled"
    TIMED_OUT = "timed_out"
    NOT_STARTED = "not_started"
    STOPPED = "stopped"
    CANCELLED = "cancelled"
    PREEMPTED = "preempted"


_UNCHARGED = (Ending.STOPPED, Ending.PREEMPTED)
"""Ended for somebody else's sake: by a stop of the worker, by a cluster for a job that goes before."""


@dataclass(slots=True)
class Outcome:
    """The result of an attempt.

    Attributes:
        exit_code: of the first process, 128 + n after signal n; None if it never ran, or if the code is unknown.
        error: one line for people; None after a success.
        duration: seconds by the monotonic clock.
        leftovers: how many processes of the run are still alive: background children after a normal end, which are
            left alone, or processes that even KILL could not end. They may go on writing into the output files, so
            these files must not be used for another run.
        printed: bytes in the two output files; None if unknown.
    """

    ending: Ending
    exit_code: int | None
    error: str | None
    duration: float
    leftovers: int = 0
    printed: tuple[int, int] | None = None


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


def random_share() -> float:
    """Return a random number from 0 to 1. Processes that were forked from the same one get different numbers."""
    return int.from_bytes(os.urandom(6), "big") / (1 << 48)


def record(
    job: Job,
    outcome: Outcome,
    *,
    now: float,
    digest: str | None = None,
    draw: Callable[[], float] = random_share,
) -> str:
    """Write the outcome of an attempt into the job, and return the job's new state.

    Args:
        now: when the attempt ended, in epoch seconds.
        digest: SHA-256 of the job file as it was read for this run, if somebody else wrote it: the file may have
            changed since, and the history says which content ran.
        draw: returns a random number from 0 to 1, for the jitter of the next wait.
    """
    uncharged = outcome.ending in _UNCHARGED
    if not uncharged:
        job.attempts += 1
        job.crashes = 0
    error = outcome.error and one_line(outcome.error)
    ended_by_default = outcome.ending == Ending.TIMED_OUT and job.has_default_timeout
    if ended_by_default:
        error = f"{error}; {_DEFAULT_LIMIT.format(id=job.id)}"
    job.finished_at = now
    job.duration = round(outcome.duration, 6)
    job.exit_code = outcome.exit_code
    job.last_error = error
    job.next_retry_at = None
    entry = _entry(job, outcome, error, charged=not uncharged)
    if digest:
        entry["file_sha256"] = digest
    job.add_run(entry)
    if uncharged:
        return "pending"
    if outcome.ending == Ending.CANCELLED or ended_by_default:
        return "dead"
    decision = decide(
        job,
        succeeded=outcome.ending == Ending.SUCCEEDED,
        now=now,
        exit_code=outcome.exit_code if outcome.ending == Ending.FAILED else None,
        draw=draw() if job.jitter else 0.0,
    )
    if decision.why:
        job.last_error = f"{job.last_error}; {decision.why}"
    job.next_retry_at = decision.retry_at
    return decision.state


def _entry(job: Job, outcome: Outcome, error: str | None, *, charged: bool) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "run": job.next_run,
        "attempt": job.attempts if charged else job.attempts + 1,
        "worker": job.worker,
        "outcome": str(outcome.ending),
        "started_at": times.iso(job.started_at or 0),
        "finished_at": times.iso(job.finished_at or 0),
        "duration": job.duration,
        "exit_code": outcome.exit_code,
    }
    if outcome.printed is not None:
        entry["stdout_bytes"], entry["stderr_bytes"] = outcome.printed
    if error:
        entry["error"] = error if len(error) <= _ERROR_KEPT else error[:_ERROR_KEPT] + "…"
    return entry


def record_cancel(job: Job, worker: str, *, now: float, ran: bool) -> None:
    """Record that a job was cancelled, but its worker died before it could end the job.

    Args:
        ran: the worker had started the job.
    """
    if ran:
        _add_interrupted(job, worker, now, CANCELLED)
    job.worker, job.last_error, job.finished_at, job.next_retry_at = worker, CANCELLED, now, None


def _add_interrupted(job: Job, worker: str, now: float, error: str, *, restarted: bool = False) -> None:
    entry = {
        "run": job.next_run,
        "attempt": job.attempts + 1,
        "worker": worker,
        "outcome": INTERRUPTED,
        "finished_at": times.iso(now),
        "error": error,
    }
    job.add_run(entry | {"restarted": True} if restarted else entry)


def is_suspect(job: Job) -> bool:
    """Whether several workers in a row died while this job ran, and not because the machine did."""
    if job.crashes < SUSPECT_AFTER:
        return False
    runs = [entry for entry in job.history if entry.get("outcome") == INTERRUPTED][-job.crashes :]
    return job.crashes - sum(bool(entry.get("restarted")) for entry in runs) >= SUSPECT_AFTER


def record_crash(
    job: Job, worker: str, error: str, *, now: float, limit: int, restarted: bool = False
) -> str:
    """Record that a worker died while it ran the job, and return the job's new state.

    This does not count as an attempt. But a job that kills its workers must not go on for ever: after `limit` deaths in
    a row it is dead.

    Args:
        error: says in words what has died.
        restarted: the machine has been restarted since the run began, so the job need not be the cause.
    """
    job.crashes += 1
    _add_interrupted(job, worker, now, error, restarted=restarted)
    job.worker = worker
    if job.on_crash == "dead":
        job.last_error = f"{error}; on_crash is dead, so it is not run again"
    elif job.crashes >= limit:
        job.last_error = f"Its worker died {job.crashes} times in a row while running it"
    # The retry was due when the job was claimed. With next_retry_at, the file would be read as a failed job again.
    job.next_retry_at = None
    if job.on_crash == "dead" or job.crashes >= limit:
        job.finished_at = now
        return "dead"
    job.last_error = error
    return "pending"
