"""One attempt of a claimed job: started, recorded in the job, and reported in the worker's log."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from queuectl.control import run_lock
from queuectl.executor.base import prepare
from queuectl.job import times
from queuectl.job.outcome import record
from queuectl.job.redact import one_line

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from queuectl.config.settings import Settings
    from queuectl.executor.base import Runner, Running
    from queuectl.job.outcome import Outcome
    from queuectl.job.record import Job
    from queuectl.layout import Layout
    from queuectl.storage.mover import Claim


def start(
    runner: Runner,
    layout: Layout,
    claim: Claim,
    worker: str,
    settings: Settings,
    base: Mapping[str, str],
    boot: str,
    *,
    finished: Sequence[str] = (),
) -> Running | Outcome:
    """Start the command of a claimed job. Its processes inherit the run lock.

    Args:
        claim: gets the mark of the run.
        base: the worker's environment.
        boot: the machine's boot id.
        finished: lines for the run file, one for each attempt that is finished and not settled yet.

    Raises:
        SpoolError: the output files or the lock cannot be made, which is not the job's fault.
    """
    job = claim.job
    mine = run_lock.marks(layout, job, worker)
    claim.run = mine["QUEUECTL_RUN"]
    lock = run_lock.acquire(layout, worker, job.id or "", claim.run, boot, finished)
    try:
        return runner.start(prepare(layout, job, mine, settings, base, lock.fd))
    finally:
        lock.detach()


def write_up(claim: Claim, settings: Settings) -> None:
    """Record the outcome of a run in its job, and add the lines for the log to the claim."""
    job, outcome = claim.job, cast("Outcome", claim.outcome)
    if not claim.is_told:
        claim.lines.append(started_line(job))
    claim.state = record(
        job, outcome, now=claim.ended_at, default_timeout=settings.timeout, digest=claim.digest
    )
    claim.lines.append(ended_line(job, outcome, claim.state))


def started_line(job: Job) -> str:
    """The two lines that a worker logs when it starts a job."""
    limit = f"{times.seconds(job.timeout)}s" if job.timeout else "none"
    details = f"priority {job.priority}, attempt {job.attempts + 1}/{job.runs_allowed}, timeout {limit}"
    return f"executing job {job.id}: {one_line(job.shown_command)}\n  {details}"


def ended_line(job: Job, outcome: Outcome, state: str) -> str:
    """The two lines that a worker logs when an attempt has been recorded."""
    verb = "put back" if state == "pending" else state
    line = f"{verb} {job.id}" if state == "completed" else f"{verb} {job.id}: {job.last_error}"
    if state == "failed":
        wait = max(0.0, (job.next_retry_at or 0) - (job.finished_at or 0))
        line += f"; next attempt in {times.seconds(wait)}s"
    code = "" if outcome.exit_code is None else f", exit code {outcome.exit_code}"
    return f"{line}\n  execution time {outcome.duration:.3f}s{code}"
