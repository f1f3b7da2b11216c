"""From a claimed job to what the runner needs, and from the outcome back into the job's record."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

from queuectl.control import run_lock
from queuectl.executor.local import Attempt, Ending, Outcome, tail
from queuectl.job import times
from queuectl.job.outcome import decide
from queuectl.job.redact import one_line
from queuectl.system import files

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from queuectl.config.settings import Settings
    from queuectl.executor.local import Runner, Running
    from queuectl.job.record import Job
    from queuectl.layout import Layout
    from queuectl.storage.mover import Claim

_OURS = ("QUEUECTL_JOB_ID", "QUEUECTL_ATTEMPT", "QUEUECTL_MAX_RETRIES", "QUEUECTL_WORKER", "QUEUECTL_RUN")
INTERRUPTED = "interrupted"
_ERROR_KEPT = 1000
"""Characters of an error that each run repeats: the name of a program that is not there may have a million."""


def clean_environment() -> dict[str, str]:
    """This process's environment without the marks of a job that it may itself be part of.

    Without PyInstaller's marks too: a job's programs must not load the executable's libraries, and a worker needs a
    folder of its own to unpack to, as that of the command that starts it is gone in a moment.
    """
    environment = {name: value for name, value in os.environ.items() if name not in _OURS}
    if getattr(sys, "frozen", False):
        original = environment.pop("LD_LIBRARY_PATH_ORIG", None)
        environment.pop("LD_LIBRARY_PATH", None)
        if original is not None:
            environment["LD_LIBRARY_PATH"] = original
        environment = {name: value for name, value in environment.items() if not name.startswith("_PYI_")}
    return environment


def marks(layout: Layout, job: Job, worker: str) -> dict[str, str]:
    """The variables that tell this run's processes from all others on the machine."""
    return {
        "QUEUECTL_SPOOL": layout.root,
        "QUEUECTL_JOB_ID": job.id or "",
        "QUEUECTL_WORKER": worker,
        "QUEUECTL_RUN": run_lock.mark(job, run_number(job)),
    }


def run_number(job: Job) -> int:
    """The number of the run that is under way or comes next, counted over the job's whole life."""
    return job.runs + 1


def start(
    runner: Runner,
    layout: Layout,
    claim: Claim,
    worker: str,
    settings: Settings,
    base: Mapping[str, str],
    boot: str,
    *,
    over: Sequence[str] = (),
) -> Running | Outcome:
    """Have a claimed job run, with the run lock in the hands of its processes.

    Args:
        claim: gets the mark of the run.
        base: the worker's environment.
        boot: the machine's boot id.
        over: for the run file: a line for each run that is over, and not put away yet.

    Raises:
        SpoolError: the output files or the lock cannot be made, which is not the job's fault.
    """
    job = claim.job
    mine = marks(layout, job, worker)
    claim.run = mine["QUEUECTL_RUN"]
    lock = run_lock.sign(layout, worker, job.id or "", claim.run, boot, over)
    try:
        return runner.start(prepare(layout, job, mine, settings, base, lock.fd))
    finally:
        lock.abandon()


def prepare(
    layout: Layout,
    job: Job,
    mine: Mapping[str, str],
    settings: Settings,
    base: Mapping[str, str],
    lock_fd: int | None,
) -> Attempt:
    """Put together what the runner needs.

    Args:
        mine: the run's marks.
        base: the worker's environment; the job's comes on top, queuectl's own variables last.
        lock_fd: the run lock, for the job's processes to inherit.
    """
    worker = mine["QUEUECTL_WORKER"]
    numbers = {"QUEUECTL_ATTEMPT": str(job.attempts + 1), "QUEUECTL_MAX_RETRIES": str(job.runs_allowed)}
    return Attempt(
        command=job.command,
        cwd=_folder(job.cwd),
        env={**base, **(job.env or {}), **mine, **numbers},
        timeout=job.timeout or 0,
        grace=settings.kill_grace,
        stdout=layout.worker_file(worker, "out"),
        stderr=layout.worker_file(worker, "err"),
        lock_fd=lock_fd,
        marks=mine,
        log_limit=settings.log_limit,
    )


def _folder(cwd: str | None) -> str:
    """A dropped file has no caller whose folder could be meant: there a relative path starts at home."""
    if cwd and cwd.startswith(os.sep):
        return cwd
    home = os.path.expanduser("~")
    return os.path.join(home, os.path.expanduser(cwd)) if cwd else home


def keep_output(layout: Layout, job: Job, worker: str, outcome: Outcome | None, *, limit: int) -> None:
    """Move what a run printed into logs/, and repeat its end in the record.

    Args:
        outcome: how the run ended; None: its worker died.
        limit: bytes of each stream that the record repeats.

    Raises:
        OSError: a file cannot be moved; the record has the end of it all the same.
    """
    # What a process of the run may still write to must not serve the next run.
    retire = outcome is None or outcome.leftovers > 0
    if outcome is not None and outcome.printed == (0, 0) and not retire:
        job.output = ""
        return
    run = run_number(job)
    parts = []
    refused: OSError | None = None
    for stream in ("out", "err"):
        source, target = layout.worker_file(worker, stream), layout.log_file(job.id or "", run, stream)
        try:
            if os.stat(source).st_size:
                parts.append(tail(source, limit, whole=f"queuectl logs {job.id}"))
                _shelve(source, target)
            elif retire:
                _shelve(source, target)
        except FileNotFoundError:
            continue
        except OSError as error:
            refused = OSError(error.errno, error.strerror, target)
    job.output = _joined(parts)
    if refused is not None:
        raise refused


def recall_output(layout: Layout, job: Job, *, limit: int) -> None:
    """Repeat in the record what the next run printed, which is in logs/ already; as `keep_output`."""
    logs = [layout.log_file(job.id or "", run_number(job), stream) for stream in ("out", "err")]
    job.output = _joined([tail(path, limit, whole=f"queuectl logs {job.id}") for path in logs])


def _joined(parts: Sequence[str]) -> str:
    """What was printed on both streams, one below the other."""
    told = [part for part in parts if part]
    if len(told) == 2 and not told[0].endswith("\n"):
        told[0] += "\n"
    return "".join(told)


def _shelve(source: str, target: str) -> None:
    try:
        _move(source, target)
    except FileExistsError:
        # The log of a job of that name that somebody deleted by hand, or of this run before a crash.
        os.unlink(target)
        files.move(source, target)


def _move(source: str, target: str) -> None:
    try:
        files.move(source, target)
    except FileNotFoundError:
        if not os.path.lexists(source):
            raise
        with suppress(FileExistsError):  # another worker was quicker
            os.mkdir(os.path.dirname(target), 0o700)  # somebody deleted it
        files.move(source, target)


def chance() -> float:
    """A number from 0 to 1 that nobody can tell beforehand, and no two processes share."""
    return int.from_bytes(os.urandom(6), "big") / (1 << 48)


def record(
    job: Job,
    outcome: Outcome,
    *,
    now: float,
    settings: Settings,
    digest: str | None = None,
    draw: Callable[[], float] = chance,
) -> str:
    """Write an attempt's outcome into the job, which knows its worker and its start; returns the new state.

    Args:
        draw: gives a number from 0 to 1, for the jitter of the next wait.
        digest: SHA-256 of the file that was read for this run, if somebody else than queuectl wrote it: whatever
            became of the file since, the record says which one it was that ran.
    """
    uncharged = outcome.ending == Ending.STOPPED
    if not uncharged:
        job.attempts += 1
        job.crashes = 0
    error = outcome.error and one_line(outcome.error)
    if outcome.ending == Ending.TIMED_OUT and job.timeout == settings.timeout:
        error = f"{error}; this is the default limit, see: queuectl config set timeout"
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
    if outcome.ending == Ending.CANCELLED:
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


def write_up(claim: Claim, settings: Settings) -> None:
    """Put the outcome of a claim's run into its record, and into words."""
    job, outcome = claim.job, cast("Outcome", claim.outcome)
    if not claim.is_told:
        claim.lines.append(started_line(job))
    claim.state = record(job, outcome, now=claim.ended_at, settings=settings, digest=claim.digest)
    claim.lines.append(ended_line(job, outcome, claim.state))


def _entry(job: Job, outcome: Outcome, error: str | None, *, charged: bool) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "run": run_number(job),
        "attempt": job.attempts if charged else job.attempts + 1,
        "worker": job.worker,
        "outcome": str(outcome.ending),
        "started_at": times.iso(job.started_at or 0),
        "finished_at": times.iso(job.finished_at or 0),
        "duration": job.duration,
        "exit_code": outcome.exit_code,
    }
    if error:
        entry["error"] = error if len(error) <= _ERROR_KEPT else error[:_ERROR_KEPT] + "…"
    return entry


def started_line(job: Job) -> str:
    """What a worker says when it starts a job: two lines."""
    limit = f"{times.seconds(job.timeout)}s" if job.timeout else "none"
    details = f"priority {job.priority}, attempt {job.attempts + 1}/{job.runs_allowed}, timeout {limit}"
    return f"executing job {job.id}: {one_line(job.shown_command)}\n  {details}"


def ended_line(job: Job, outcome: Outcome, state: str) -> str:
    """What a worker says when an attempt is over and recorded: two lines."""
    verb = "put back" if state == "pending" else state
    line = f"{verb} {job.id}" if state == "completed" else f"{verb} {job.id}: {job.last_error}"
    if state == "failed":
        wait = max(0.0, (job.next_retry_at or 0) - (job.finished_at or 0))
        line += f"; next attempt in {times.seconds(wait)}s"
    code = "" if outcome.exit_code is None else f", exit code {outcome.exit_code}"
    return f"{line}\n  execution time {outcome.duration:.3f}s{code}"


def record_cancel(job: Job, worker: str, *, now: float, ran: bool) -> None:
    """Write down that a job was cancelled whose worker died before it could end it.

    Args:
        ran: the worker had begun it.
    """
    if ran:
        _add_interrupted(job, worker, now, "Cancelled")
    job.worker, job.last_error, job.finished_at, job.next_retry_at = worker, "Cancelled", now, None


def _add_interrupted(job: Job, worker: str, now: float, error: str) -> None:
    job.add_run(
        {
            "run": run_number(job),
            "attempt": job.attempts + 1,
            "worker": worker,
            "outcome": INTERRUPTED,
            "finished_at": times.iso(now),
            "error": error,
        }
    )


def record_crash(job: Job, worker: str, *, now: float, limit: int) -> str:
    """Write down that a worker died with the job in hand; returns the new state.

    It is no attempt, as the command is not to blame. A job that takes its workers down with it is stopped after
    `limit` deaths in a row.
    """
    job.crashes += 1
    error = f"{worker} died while running it"
    _add_interrupted(job, worker, now, error)
    job.worker = worker
    if job.on_crash == "dead":
        job.last_error = f"{error}; on_crash is dead, so it is not run again"
    elif job.crashes >= limit:
        job.last_error = f"Its worker died {job.crashes} times in a row while running it"
    # It was due when it was taken. Kept, the moment would make it a failed job again wherever its file is read.
    job.next_retry_at = None
    if job.on_crash == "dead" or job.crashes >= limit:
        job.finished_at = now
        return "dead"
    job.last_error = error
    return "pending"
