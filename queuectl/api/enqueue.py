"""Prepare one job for `enqueue`: check its fields, copy the current settings onto it, and make its folder absolute."""

from __future__ import annotations

import os
import time
from functools import lru_cache

from queuectl.errors import InvalidJob
from queuectl.job import record as jobs
from queuectl.job import times
from queuectl.job.fields import new_id
from queuectl.layout import with_home
from queuectl.storage.transitions import Prepared

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from queuectl.config.settings import JobDefaults
    from queuectl.job.record import Job

FEW = 20
"""Jobs at the beginning of a list, or of a program, that are prepared one by one: so few gain nothing from templates."""

_NOT_FOR_PRODUCERS = jobs.KNOWN.difference(jobs.PRODUCER_FIELDS)


def prepare(record: Mapping[str, Any], defaults: JobDefaults, end: str = "") -> Prepared:
    """Prepare one job.

    Args:
        record: the fields of a job file, `delay` and `expires_in`. Times without a zone are local. Fields that only queuectl writes are ignored.
        defaults: what it gets for the fields that it leaves out.
        end: the random end of its id, if the record has no id and the caller has drawn one already.

    Raises:
        InvalidJob: a field is wrong; the message says why.
        ConfigError: the file of its queue is not valid, or its queue is on a cluster that has not been set up.
        Shortage: there is not so much of a resource as it needs.
    """
    now = time.time()
    job = read(record, now)
    job.cwd = _absolute_cached(job.cwd) if job.cwd and os.path.isabs(job.cwd) else _absolute(job.cwd or "")
    settings = defaults.of(job.queue)
    job.fill_in(settings)
    if settings.engine != "local":
        from queuectl.config import cluster

        cluster.refuse_job(job, defaults)
    elif job.needs is not None:
        from queuectl.config import queues

        queues.refuse_shortage(job.needs, settings.resources)
    job.created_at = job.updated_at = now
    chosen = bool(job.id)
    job.id = job.id or new_id(now, end)
    try:
        data = job.to_bytes()
    except TypeError as error:
        # A program may pass an object, bytes, a number of more than 64 bits, or half a character.
        raise InvalidJob(f"a job file cannot hold it: {error}") from None
    jobs.check_size(job, len(data))
    return Prepared(job.id, data, chosen, job)


def read(record: Mapping[str, Any], now: float) -> Job:
    """Read the fields of a job, and check them as far as they say it themselves: without settings, and without the spool.

    Args:
        record: as for `prepare`.
        now: from when `delay` and `expires_in` count.

    Raises:
        InvalidJob: a field is wrong; the message says why.
    """
    fields = {name: value for name, value in record.items() if name not in _NOT_FOR_PRODUCERS}
    delay, expires_in = fields.pop("delay", None), fields.pop("expires_in", None)
    for name in ("run_at", "expires_at"):
        if isinstance(fields.get(name), str):
            fields[name] = _local_moment(name, fields[name])
    job = jobs.from_mapping(fields)
    if delay is not None:
        job.run_at = _from_now(now, delay, job.run_at, "delay", "run_at")
    if expires_in is not None:
        job.expires_at = _from_now(now, expires_in, job.expires_at, "expires_in", "expires_at")
    job.check_expiry()
    if job.has_conditions:
        from queuectl.job import conditions

        conditions.check(job)  # a job without an id cannot be its own parent
    return job


def _from_now(now: float, span: object, moment: float | None, name: str, other: str) -> float:
    if moment is not None:
        raise InvalidJob(f"a job has {other} or {name}, not both", field=name)
    try:
        return times.within_years(now + times.parse_duration(span), span)
    except ValueError as error:
        raise InvalidJob(str(error), field=name) from None


def _local_moment(name: str, text: str) -> float:
    """Read a time that the caller has written. Without a zone it is the caller's local time, once and for all."""
    try:
        return times.parse_moment(text)
    except ValueError as error:
        raise InvalidJob(str(error), field=name) from None


def _absolute(path: str) -> str:
    """Make a path absolute, from the caller's current folder, as in a shell.

    Raises:
        InvalidJob: that folder was deleted. The worker's home instead would be another place than the caller means.
    """
    try:
        return os.path.abspath(with_home(path))
    except FileNotFoundError:
        raise InvalidJob("the current folder was deleted; give an absolute path", field="cwd") from None


_absolute_cached = lru_cache(maxsize=8)(_absolute)
"""The same for an absolute path, where the result never changes: most jobs of a list share it."""
