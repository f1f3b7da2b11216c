"""The JSON that `--json` prints: one function for each kind of object, so that all commands show it the same way."""

from __future__ import annotations

import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from queuectl.api.spool import Spool
    from queuectl.api.waiting import Ended
    from queuectl.control.pause import Pause
    from queuectl.control.registry import WorkerInfo
    from queuectl.errors import KeyTaken
    from queuectl.index.row import Row
    from queuectl.job.record import Job


def enqueued(job: Job) -> dict[str, Any]:
    """Return what is shown of a single job that was enqueued, or skipped, or has replaced others."""
    found: dict[str, Any] = {"id": job.id, "state": job.state, "command": job.command}
    if job.skipped:
        found |= {"unique": job.unique, "skipped": True}
    if job.replaced:
        found["replaced"] = job.replaced
    return found


def enqueued_record(job_id: str, record: Mapping[str, Any], replaced: list[str] | None) -> dict[str, Any]:
    """Return what is shown of one of many jobs that were enqueued.

    Args:
        record: its fields, as they were given.
        replaced: the ids of the jobs that it has replaced, if there are any.
    """
    found = {"id": job_id, "state": "pending", "command": record.get("command")}
    return {**found, "replaced": replaced} if replaced else found


def skipped(taken: KeyTaken) -> dict[str, Any]:
    """Return what is shown in place of one of many jobs that was skipped: the job that has its unique key."""
    return {"id": taken.job_id, "state": taken.state, "unique": taken.key, "skipped": True}


def listed(spool: Spool, row: Row) -> dict[str, Any]:
    """Return what is shown of a job in a list."""
    command, last_error = full_texts(spool, row)
    effective = row.effective(round(time.time() * 1e6))
    return {
        "id": row.id,
        "state": row.state,
        "command": command,
        "priority": row.priority,
        "effective_priority": None if effective is None else round(effective, 3),
        "attempts": row.attempts,
        "max_retries": row.max_retries,
        "created_at": _of_micros(row.created_at),
        "updated_at": _of_micros(row.updated_at),
        "run_at": _of_micros(row.run_at),
        "started_at": _of_micros(row.started_at),
        "finished_at": _of_micros(row.finished_at),
        "duration": None if row.duration is None else row.duration / 1e6,
        "next_retry_at": _of_micros(row.next_retry_at),
        "tags": (row.tags or "").split(),
        "held": row.held,
        "unique": row.unique_key,
        "worker": row.worker,
        "exit_code": row.exit_code,
        "last_error": last_error,
    }


def full_texts(spool: Spool, row: Row) -> tuple[str, str | None]:
    """Return a job's command and its last error in full: of long ones, the index has the beginning only."""
    from queuectl.errors import JobNotFound
    from queuectl.index.row import SHOWN

    if len(row.command) < SHOWN and len(row.last_error or "") < SHOWN:
        return row.command, row.last_error
    try:
        job = spool.get(row.id)
    except JobNotFound:  # deleted since the list was made
        return row.command + "…", row.last_error
    return job.shown_command or row.command, job.last_error or row.last_error


def ended(one: Ended) -> dict[str, Any]:
    """Return what is shown of a job that has ended, after a wait for it."""
    return {"id": one.id, "state": one.state, "exit_code": one.exit_code, "last_error": one.last_error}


def worker(info: WorkerInfo) -> dict[str, Any]:
    """Return what is shown of a worker."""
    return {
        "name": info.name,
        "pid": info.pid,
        "started_at": _iso(info.started_at),
        "job_id": info.job_id,
        "job_since": _iso(info.job_since),
        "stopping": info.stopping,
        "paused": info.paused,
    }


def pause(found: Pause | None) -> dict[str, Any] | None:
    """Return what is shown of a pause; None while the spool is not paused."""
    return None if found is None else {"since": _iso(found.since), "reason": found.reason}


def _of_micros(moment: int | None) -> str | None:
    return None if moment is None else _iso(moment / 1e6)


def _iso(moment: float | None) -> str | None:
    from queuectl.job import times

    return None if moment is None else times.iso(moment)
