"""From what a producer says to a job that can be queued: checked, with the settings in force, and where its caller is."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from functools import lru_cache

from queuectl._dataclasses import dataclass, field
from queuectl.errors import InvalidJob
from queuectl.job import record as jobs
from queuectl.job import times
from queuectl.job.fields import new_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from queuectl.config.settings import Settings
    from queuectl.index.row import Row
    from queuectl.job.record import Job

_OURS = jobs.KNOWN.difference(jobs.PRODUCER_FIELDS)


@dataclass(slots=True)
class Prepared:
    """A job that can be queued.

    Attributes:
        data: the bytes of its file.
        chosen: somebody chose its id; else it was drawn.
        made: the job; None if it was made after one that says the same: then it is read from `data` by who asks for it.
        values: of such a job its row, but for what its file brings.
        supersedes: the rows of waiting jobs that are to be given up for it.
    """

    id: str
    data: bytes
    chosen: bool
    made: Job | None = None
    values: list[Any] | None = None
    supersedes: list[Row] = field(default_factory=list)

    @property
    def job(self) -> Job:
        """The job itself."""
        if self.made is None:
            self.made = jobs.parse_own(self.data)
        return self.made

    @property
    def needs_leave(self) -> bool:
        """Whether other jobs with its unique key are in its way, or it in theirs; who queues up behind them needs none."""
        return self.made is not None and self.made.unique is not None and self.made.if_exists != "queue"


def prepare(record: Mapping[str, Any], settings: Settings, end: str = "") -> Prepared:
    """Make one job.

    Args:
        record: the fields of a job file, `delay` and `expires_in`; what queuectl itself writes there is passed over.
        end: the random end of its id, if it has none yet and this was drawn before.

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
    job.check_expiry()
    # Where the caller is, as a shell would have it; a folder that is gone means the worker's home.
    with suppress(FileNotFoundError):
        job.cwd = _tidy(job.cwd) if job.cwd and os.path.isabs(job.cwd) else _absolute(job.cwd or os.curdir)
    job.fill_in(settings)
    job.created_at = job.updated_at = now
    chosen = job.id is not None
    job.id = job.id or new_id(now, end)
    try:
        data = job.to_bytes()
    except TypeError as error:
        # From a program: an object, bytes, a number past 64 bits, half a character.
        raise InvalidJob(f"a job file cannot hold it: {error}") from None
    if len(data) > jobs.SIZE_LIMIT:
        raise InvalidJob(f"too large: {len(data)} bytes, and the limit is {jobs.SIZE_LIMIT}")
    return Prepared(job.id, data, chosen, job)


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
