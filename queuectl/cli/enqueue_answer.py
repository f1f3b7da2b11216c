"""What `enqueue` answers: the id, and on a terminal the limits that apply to the job."""

from __future__ import annotations

import time
from itertools import islice
from typing import TYPE_CHECKING, Any

from queuectl.cli import render
from queuectl.errors import QueuectlError
from queuectl.job import times, zone
from queuectl.job.fields import DEFAULT_QUEUE, is_queue
from queuectl.job.record import KNOWN

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from queuectl.api.spool import Spool
    from queuectl.job.record import Job

_LONG_AGO = 3600.0
"""Seconds after its end for which a job may belong to the run of which more jobs are queued."""

_OLD_SHOWN, _BATCHES_NOTED = 3, 10
"""How many of these jobs are named, and for how many batches."""


def of_job(job: Job, record: Mapping[str, Any]) -> list[str]:
    """Return the lines that answer one `enqueue`.

    Args:
        record: the fields that were given. What is not in it is a default.
    """
    found = of_waiting(job)
    if render.is_terminal():
        found.append(limits(job.timeout, job.runs_allowed, is_default=record.get("timeout") is None))
    return found


def of_waiting(job: Job) -> list[str]:
    """Return the lines with which `enqueue --wait` begins: the id, and the ids of the jobs that it has replaced."""
    return [f"enqueued job {job.id}", *(f"replaced job {job_id}" for job_id in job.replaced)]


def has_limit(spool: Spool, record: Mapping[str, Any]) -> bool:
    """Return whether the settings of the spool, or those of the job's queue, have a timeout.

    Raises:
        ConfigError: they are not valid.
    """
    from queuectl.config import settings

    queue = record.get("queue") or DEFAULT_QUEUE
    if settings.is_given(spool.layout, "timeout"):
        return True
    return (
        isinstance(queue, str)
        and is_queue(queue)
        and settings.is_given_by_queue(spool.layout, queue, "timeout")
    )


def note_start(run_at: float | None) -> None:
    """Say on stderr when a job will start: a time without a zone, or `friday`, may be meant in another way."""
    if run_at is not None:
        past = run_at <= time.time()
        render.note(
            f"note: it starts {'at once: the time is past,' if past else 'at'} {times.with_zone(run_at)}"
        )
        if (wrong := zone.fault_of_variable()) is not None:
            render.note(f"note: TZ is {wrong!r}, which is no time zone of this machine, so UTC was meant")


def note_old_members(spool: Spool, batches: Iterable[str], now: float) -> None:
    """Say on stderr which jobs of these batches ended long ago: the name was used for an earlier run, whose jobs count, too.

    Whoever waits for the batch would start too soon, or be blocked by a job that died yesterday.
    """
    for name in islice(dict.fromkeys(batches), _BATCHES_NOTED):
        old = spool._ended_before(name, now - _LONG_AGO)
        if old:
            shown = ", ".join(old[:_OLD_SHOWN]) + (" and more" if len(old) > _OLD_SHOWN else "")
            render.note(
                f"note: batch {name} has jobs that ended over an hour ago, and they count, too: {shown}; "
                "give each run a name of its own"
            )


def note_unknown_batches(spool: Spool, job: Job) -> None:
    """Say on stderr that a job waits for a batch that no job has, where another name is alike. Its jobs may still come."""
    from difflib import get_close_matches

    from queuectl.job import conditions

    for name in dict.fromkeys(one.batch for one in conditions.of_job(job) if one.batch and one.least):
        near = (
            []
            if name in spool._batch_names(name, 1)
            else get_close_matches(name, spool._batch_names("", 200), 1)
        )
        if near:
            render.note(f"note: no job has the batch {name} yet; is {near[0]} meant?")


def note_skipped_parents(ids: Sequence[str]) -> None:
    """Say on stderr that jobs were queued which wait for jobs that were skipped: they would be blocked, and nobody knew."""
    if ids:
        shown = ", ".join(ids[:_OLD_SHOWN]) + (" and more" if len(ids) > _OLD_SHOWN else "")
        render.note(f"note: others of these jobs wait for skipped ones: {shown}; queuectl list --blocked")


def note_obstacle(spool: Spool, job_id: str) -> None:
    """Say on a terminal what keeps the job from running until somebody acts: no worker lives, or the spool is paused."""
    if not render.is_terminal():
        return
    from queuectl.api.waiting import find_obstacle

    if found := find_obstacle(spool, [job_id]):
        render.note(f"note: {found}")


def limits(timeout: float | None, runs: int, *, is_default: bool) -> str:
    """Return the time limit of a job, and how many times it may run, in one line.

    Without this line the default limit of 20 seconds is noticed only when it has ended a long job.

    Args:
        timeout: in seconds; 0 or None is no limit.
        is_default: nobody gave the job a time limit.
    """
    attempts = render.count(runs, "attempt")
    if not timeout:
        return f"limits: no time limit, {attempts}"
    hint = "; this is the default: for longer jobs give --timeout 2h, or --timeout 0" if is_default else ""
    return f"limits: {render.duration(timeout)} for each attempt, {attempts}{hint}"


def defaults_of(spool: Spool) -> str:
    """Return the limits of jobs that have none of their own, for the help page; empty if the settings cannot be read."""
    try:
        settings = spool.settings()
    except (QueuectlError, OSError):
        return ""
    limit = f"--timeout {render.duration(settings.timeout)}" if settings.timeout else "no time limit"
    return (
        f"Without these options: {limit}, --max-retries {settings.max_retries} (the settings of this spool)."
    )


def note_near_misses(record: Mapping[str, Any]) -> None:
    """Say which unknown fields are most likely mistyped. They are kept, as others may be meant for other programs."""
    if not record.keys() <= KNOWN:
        from queuectl.job.near_names import near_misses

        for miss in near_misses(record):
            render.note(miss)
