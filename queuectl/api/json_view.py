"""The JSON that `--json` prints: one function for each kind of object, so that all commands show it the same way."""

from __future__ import annotations

import time
from contextlib import suppress

from queuectl.errors import JobNotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator
    from typing import Any

    from queuectl.api.places import Place
    from queuectl.api.rules import Rule
    from queuectl.api.spool import Spool
    from queuectl.api.spool_batch import Batch
    from queuectl.api.waiting import Ended
    from queuectl.control.pause import Pause
    from queuectl.control.registry import WorkerInfo
    from queuectl.errors import KeyTaken
    from queuectl.index.row import Row
    from queuectl.job.record import Job
    from queuectl.rules.folder_survey import Survey
    from queuectl.storage.queue_state import Queue


def enqueued(spool: Spool, job: Job) -> dict[str, Any]:
    """Return what is shown of a job that was enqueued: its record, and the ids of the jobs that it has replaced.

    Of a job that was skipped it is the record of the job that has the unique key, with `skipped`.
    """
    if not (job.skipped or job.replaced):
        return record(job, float(job.priority or 5))  # it has not waited yet, so the index need not be asked
    found = record(job, effective(spool, job))
    if job.skipped:
        found["skipped"] = True
    if job.replaced:
        found["replaced"] = job.replaced
    return found


def skipped(spool: Spool, taken: KeyTaken) -> dict[str, Any]:
    """Return what is shown in place of one of many jobs that was skipped: the job that has its unique key."""
    try:
        job = spool.get(taken.job_id)
    except JobNotFound:  # it has just ended and was deleted
        return {"id": taken.job_id, "state": taken.state, "unique": taken.key, "skipped": True}
    job.skipped = True
    return enqueued(spool, job)


def effective(spool: Spool, job: Job) -> float | None:
    """Return the effective priority of a job; None if it does not wait, or was deleted meanwhile."""
    from queuectl.api import listing

    with suppress(JobNotFound):
        return listing.one(spool, job.id or "").effective(round(time.time() * 1e6))
    return None


LONG = ("output", "history", "history_left_out")
"""Fields that a list leaves out: of a thousand jobs they would be megabytes."""


def record(job: Job, effective: float | None) -> dict[str, Any]:
    """Return everything about a job under the names of its file; null is what a file leaves out. Secrets are masked.

    Args:
        effective: its effective priority: with a point for each minute of waiting; None if it does not wait.
    """
    from queuectl.job.record import FIELDS, KNOWN
    from queuectl.job.redact import masked

    rounded = None if effective is None else round(effective, 3)
    fields: dict[str, Any] = dict.fromkeys(map(str, FIELDS))
    blank = fields | {"hold": job.hold, "crashes": job.crashes, "tags": []}
    long = {"history_left_out": job.history_left_out, "history": job.history}
    return {**blank, **long, **masked(job.to_dict(), KNOWN), "effective_priority": rounded}


def of_rows(spool: Spool, rows: Iterable[Row], states: Collection[str]) -> Iterator[dict[str, Any]]:
    """Return what is shown of the jobs in a list. A job that has left these states since then is left out.

    Its file is read while it is printed. With the new state, a list of the pending jobs would contain running ones.

    Args:
        rows: the list, as the index had it.
        states: those that were asked for; empty means all.
    """
    from queuectl.api.dependencies import OfRows
    from queuectl.api.places import Places

    waiting, places = OfRows(spool), Places(spool)
    for row in rows:
        found = listed(spool, row)
        found |= waiting.as_json(row) | place(places.of_row(row))
        if not states or found["state"] in states:
            yield found


def listed(spool: Spool, row: Row) -> dict[str, Any]:
    """Return what is shown of a job in a list: its record without the long fields."""
    from queuectl.api import job_files

    try:
        job = job_files.load(spool, row)
    except JobNotFound:  # deleted since the list was made
        job = _as_indexed(row)
    found = record(job, row.effective(round(time.time() * 1e6)))
    return {name: value for name, value in found.items() if name not in LONG}


def _as_indexed(row: Row) -> Job:
    """Return what the index knows of a job whose file is gone."""
    from queuectl.job.record import Job

    moments = ("created_at", "updated_at", "run_at", "next_retry_at", "started_at", "finished_at", "duration")
    same = (
        "id",
        "state",
        "command",
        "priority",
        "attempts",
        "max_retries",
        "worker",
        "exit_code",
        "last_error",
    )
    found: dict[str, Any] = {name: getattr(row, name) for name in same}
    for name in moments:
        value = getattr(row, name)
        found[name] = None if value is None else value / 1e6
    tags = (row.tags or "").split() or None
    return Job(**found, tags=tags, unique=row.unique_key, hold=row.held)


def place(where: Place) -> dict[str, Any]:
    """Return what `show` and `list` add for a job of where it runs, has run last, or will run."""
    return {
        "engine": where.engine,
        "engine_id": where.engine_id,
        "node": where.node,
        "engine_reason": where.engine_reason,
    }


def full_texts(spool: Spool, row: Row) -> tuple[str, str | None]:
    """Return a job's command and its last error in full: of long ones, the index has the beginning only."""
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
        "pid": info.pid or None,  # none yet while it is starting; 0 would mean a process group to kill(1)
        "started_at": _iso(info.started_at),
        "job_id": info.job_id,
        "job_since": _iso(info.job_since),
        "concurrency": info.concurrency,
        "jobs": [{"id": one.id, "since": _iso(one.since)} for one in info.jobs],
        "queues": list(info.queues),
        "not_queues": list(info.not_queues),
        "stopping": info.stopping,
        "paused": info.paused,
        "elsewhere": info.elsewhere,
        **({"handed": info.handed, "engine": info.engine} if info.kind == "dispatcher" else {}),
    }


def pause(found: Pause | None) -> dict[str, Any] | None:
    """Return what is shown of a pause; None while the spool, the queue or the rule is not paused."""
    return None if found is None else {"since": _iso(found.since), "reason": found.reason}


def queue(one: Queue) -> dict[str, Any]:
    """Return what is shown of a queue. Times are in seconds."""
    return {
        "name": one.name,
        "waiting": one.waiting,
        "running": one.running,
        "dead": one.dead,
        "limit": one.limit,
        "rate": one.rate,
        "starts": one.starts,
        "paused": pause(one.paused),
        "oldest": None if one.oldest is None else round(one.oldest, 3),
        "defaults": dict(one.defaults),
        "fault": one.fault,
        "served": one.served,
        "engine": one.engine,
        "partition": one.placement.get("partition"),
        "options": one.placement.get("options"),
    }


def rule(one: Rule) -> dict[str, Any]:
    """Return what is shown of a rule. Moments are in UTC."""
    return {
        "name": one.name,
        "kind": one.kind,
        "when": one.when,
        "file": one.file,
        "paused": pause(one.paused),
        "problem": one.problem,
        "next": [_iso(moment) for moment in one.next(5)],
        "last": None if one.last is None else {"id": one.last.id, "state": one.last.state},
        "queued": [_iso(moment) for moment in one.queued],
        "skipped": one.skipped,
        "skips": [{"moment": _iso(moment), "reason": reason} for moment, reason in one.skips],
    }


def survey(found: Survey) -> dict[str, Any]:
    """Return what is shown of the folder that a rule watches."""
    return {
        "takes": found.takes,
        "waits": [{"file": name, "reason": reason} for name, reason in found.waits],
        "taken": found.taken,
        "not_utf8": found.not_utf8,
        "unfinished": found.unfinished,
        "problem": found.problem,
        "notes": found.notes,
    }


def batch(one: Batch) -> dict[str, Any]:
    """Return what is shown of a batch."""
    return {
        "name": one.name,
        "jobs": one.jobs,
        "pending": one.pending,
        "processing": one.processing,
        "completed": one.completed,
        "failed": one.failed,
        "dead": one.dead,
        "blocked": one.blocked,
        "over": one.is_over,
    }


def _iso(moment: float | None) -> str | None:
    from queuectl.job import times

    return None if moment is None else times.iso(moment)
