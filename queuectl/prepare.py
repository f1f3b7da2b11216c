"""From what a producer says to a job that can be queued: checked, with the settings in force, and where its caller is."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from itertools import islice

from queuectl import job as jobs
from queuectl import times
from queuectl.errors import DuplicateId, InvalidJob, QueuectlError
from queuectl.job import Job

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any

    from queuectl.config import Settings

_OURS = frozenset(
    name
    for name in Job.__match_args__
    if name not in jobs.PRODUCER_FIELDS and name not in ("extra", "max_backoff")
)


def prepare(record: Mapping[str, Any], settings: Settings) -> Job:
    """Make one job; it has an id only if the record gives one.

    Args:
        record: the fields of a job file, and `delay`; what queuectl itself writes there is passed over.

    Raises:
        InvalidJob: a field is wrong, and why.
    """
    fields = {name: value for name, value in record.items() if name not in _OURS}
    delay = fields.pop("delay", None)
    job = jobs.from_mapping(fields)
    now = time.time()
    if delay is not None:
        if job.run_at is not None:
            raise InvalidJob("a job has run_at or delay, not both", field="delay")
        try:
            job.run_at = times.parse_moment(now + times.parse_duration(delay))
        except ValueError as error:
            raise InvalidJob(str(error), field="delay") from None
    # Where the caller is, as a shell would have it; a folder that is gone means the worker's home.
    with suppress(FileNotFoundError):
        job.cwd = os.path.abspath(os.path.expanduser(job.cwd or os.curdir))
    job.accept(settings)
    job.created_at = job.updated_at = now
    try:
        data = job.to_bytes()
    except TypeError as error:
        # From a program: an object, bytes, a number past 64 bits, half a character.
        raise InvalidJob(f"a job file cannot hold it: {error}") from None
    if len(data) > jobs.SIZE_LIMIT:
        raise InvalidJob(f"too large: {len(data)} bytes, and the limit is {jobs.SIZE_LIMIT}")
    return job


def prepare_batch(
    source: Iterator[Mapping[str, Any]],
    common: Mapping[str, Any],
    settings: Callable[[], Settings],
    size: int,
) -> tuple[list[Job], set[str], Exception | None]:
    """Make the next jobs of a long list, all with ids.

    Args:
        common: fields that all of them get, over their own.
        size: how many at the most.

    Returns:
        the jobs, which of their ids were chosen by somebody, and the trouble that ended the batch early: those before
        it are good.
    """
    batch: list[Job] = []
    drawn: set[str] = set()
    chosen: set[str] = set()
    try:
        for record in islice(source, size):
            job = prepare({**record, **common}, settings())
            if job.id is None:
                job.id = jobs.new_id(time.time())
                while job.id in drawn:
                    job.id = jobs.new_id(time.time())
            elif job.id in drawn:
                raise DuplicateId(job.id, "pending")
            else:
                chosen.add(job.id)
            drawn.add(job.id)
            batch.append(job)
    except QueuectlError as error:
        return batch, chosen, error
    return batch, chosen, None
