"""What is shown of jobs that are running: the true start of the run, and nothing of the end of the run before.

A worker notes the start of each run in its run file at once. The job's own file and the index still hold what the run
before has left: its start, its end, its exit code.
"""

from __future__ import annotations

from queuectl.control import dispatched, run_lock
from queuectl.job.times import micros
from queuectl.layout import PROCESSING, is_engine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from queuectl.index.row import Row
    from queuectl.job.record import Job
    from queuectl.layout import Layout


def started_at(layout: Layout, job: Job, worker: str) -> float | None:
    """Return when the run of a claimed job began, in epoch seconds; None: it has not begun yet."""
    if is_engine(worker):
        run = dispatched.read(layout, worker).get(job.id or "")
        return run.since if run else None
    runs = run_lock.read_for(layout, worker, job)
    if runs is None:
        return None
    ended = runs.ended_run(job)
    if ended is not None:
        return ended.started_at
    current = runs.current(job)
    return current.started_at if current else None


def show_run(layout: Layout, job: Job) -> None:
    """Let a claimed job show its present run instead of the one before."""
    job.begin_run(started_at(layout, job, job.worker or ""), job.worker or "")


def show_runs(layout: Layout, rows: list[Row]) -> list[Row]:
    """Let the rows of claimed jobs show their present run instead of the one before."""
    known: dict[str, run_lock.WorkerRuns | None] = {}
    there: dict[str, dict[str, dispatched.RunThere]] = {}
    for row in rows:
        if row.state != "processing":
            continue
        worker = row.worker or row.place.removeprefix(f"{PROCESSING}/")
        if is_engine(worker):
            if worker not in there:
                there[worker] = dispatched.read(layout, worker)
            run = there[worker].get(row.id)
            row.started_at = micros(run.since) if run else None
        else:
            if worker not in known:
                known[worker] = run_lock.read_all(layout, worker)
            row.started_at = _start_of(row, known[worker])
        row.finished_at = row.duration = row.exit_code = row.next_retry_at = row.last_error = None
    return rows


def _start_of(row: Row, runs: run_lock.WorkerRuns | None) -> int | None:
    """When the run of a claimed job began, in microseconds. A row does not know the number of its run."""
    if runs is None:
        return None
    starts = [one.started_at for one in runs.records if one.job_id == row.id]
    starts += [ended.started_at for (job_id, _), ended in runs.ended.items() if job_id == row.id]
    # The worker's last run may be an earlier one of the same job, if it has claimed it again.
    after = row.finished_at or 0
    return next((found for start in sorted(starts, reverse=True) if (found := micros(start)) >= after), None)
