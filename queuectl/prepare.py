"""From what a producer says to a job that can be queued: checked, with the settings in force, and where its caller is."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from functools import lru_cache
from itertools import islice

from queuectl import ids, times
from queuectl import job as jobs
from queuectl.errors import DuplicateId, InvalidJob, QueuectlError
from queuectl.plain import dataclass, field

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from queuectl.config import Settings
    from queuectl.job import Job
    from queuectl.row import Row

_OURS = jobs.KNOWN.difference(jobs.PRODUCER_FIELDS)


@dataclass(slots=True)
class Prepared:
    """A job that can be queued.

    Attributes:
        data: the bytes of its file.
        chosen: somebody chose its id; else it was drawn.
        supersedes: the rows of waiting jobs that are to be given up for it.
    """

    job: Job
    data: bytes
    chosen: bool
    supersedes: list[Row] = field(default_factory=list)

    @property
    def needs_leave(self) -> bool:
        """Whether other jobs with its unique key are in its way, or it in theirs; who queues up behind them needs none."""
        return self.job.unique is not None and self.job.if_exists != "queue"


def prepare(record: Mapping[str, Any], settings: Settings) -> Prepared:
    """Make one job.

    Args:
        record: the fields of a job file, `delay` and `expires_in`; what queuectl itself writes there is passed over.

    Raises:
        InvalidJob: a field is wrong, and why.
    """
    fields = {name: value for name, value in record.items() if name not in _OURS}
    delay, expires_in = fields.pop("delay", None), fields.pop("expires_in", None)
    job = jobs.from_mapping(fields)
    now = time.time()
    if delay is not None:
        job.run_at = _from_now(now, delay, job.run_at, "delay", "run_at")
    if expires_in is not None:
        job.expires_at = _from_now(now, expires_in, job.expires_at, "expires_in", "expires_at")
    if job.run_at is not None and job.expired(job.run_at):
        raise InvalidJob("lies before run_at, so it could never start", field="expires_at")
    # Where the caller is, as a shell would have it; a folder that is gone means the worker's home.
    with suppress(FileNotFoundError):
        job.cwd = _tidy(job.cwd) if job.cwd and os.path.isabs(job.cwd) else _absolute(job.cwd or os.curdir)
    job.accept(settings)
    job.created_at = job.updated_at = now
    chosen = job.id is not None
    job.id = job.id or ids.new_id(now)
    try:
        data = job.to_bytes()
    except TypeError as error:
        # From a program: an object, bytes, a number past 64 bits, half a character.
        raise InvalidJob(f"a job file cannot hold it: {error}") from None
    if len(data) > jobs.SIZE_LIMIT:
        raise InvalidJob(f"too large: {len(data)} bytes, and the limit is {jobs.SIZE_LIMIT}")
    return Prepared(job, data, chosen)


def _from_now(now: float, span: object, moment: float | None, name: str, other: str) -> float:
    if moment is not None:
        raise InvalidJob(f"a job has {other} or {name}, not both", field=name)
    try:
        return times.parse_moment(now + times.parse_duration(span))
    except ValueError as error:
        raise InvalidJob(str(error), field=name) from None


def _absolute(path: str) -> str:
    return os.path.abspath(os.path.expanduser(path))


_tidy = lru_cache(maxsize=8)(_absolute)
"""The same for an absolute path, which is the same at any time: most jobs of a list share it."""


def prepare_batch(
    source: Iterator[Mapping[str, Any]],
    common: Mapping[str, Any],
    settings: Settings,
    size: int,
) -> tuple[list[Prepared], Exception | None]:
    """Make the next jobs of a long list.

    Args:
        common: fields that all of them get, over their own.
        size: how many at the most.

    Returns:
        the jobs, and the trouble that ended the batch early: those before it are good.
    """
    batch: list[Prepared] = []
    given: set[str | None] = set()
    try:
        for record in islice(source, size):
            made = prepare({**record, **common} if common else record, settings)
            while not made.chosen and made.job.id in given:
                made = prepare({**record, **common}, settings)
            if made.job.id in given:
                raise DuplicateId(made.job.id or "", "pending")
            given.add(made.job.id)
            batch.append(made)
    except QueuectlError as error:
        return batch, error
    return batch, None
