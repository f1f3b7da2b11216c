"""Queues jobs that rules have made: one, or several with one wait for the disk; those of files, too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from queuectl.job import record as jobs
from queuectl.rules import file_jobs, job_template
from queuectl.rules.rule import Rule
from queuectl.storage import enqueue, locate
from queuectl.storage.enqueue_batch import Batch
from queuectl.storage.transitions import Prepared

if TYPE_CHECKING:
    from queuectl.config.settings import JobDefaults
    from queuectl.errors import KeyTaken
    from queuectl.storage.transitions import Storage

_AT_ONCE = 500
"""Jobs that are queued in one transaction of the index, in which no worker claims a job: 80 ms on a disk."""


def prepared(defaults: JobDefaults, record: dict[str, Any], now: float) -> Prepared:
    """Return a job as it is queued.

    Args:
        record: its fields, as a rule has made them.
        now: epoch seconds.

    Raises:
        QueuectlError: a field, the settings or the file of a queue are not valid.
    """
    job = jobs.from_mapping(record)
    job.check_expiry()
    job.fill_in(defaults.of(job.queue))
    job.created_at = job.updated_at = now
    data = job.to_bytes()
    jobs.check_size(job, len(data))
    return Prepared(job.id, data, chosen=True, made=job)


def enqueue_one(storage: Storage, defaults: JobDefaults, record: dict[str, Any], now: float) -> None:
    """Queue one job, as durably as the settings want it.

    Args:
        record, now: as for `prepared`.

    Raises:
        DuplicateId, KeyTaken: nothing was queued, as a job has its id, or its unique key.
        QueuectlError: the disk refused, or a field, the settings or the file of a queue are not valid.
    """
    enqueue.enqueue(storage, prepared(defaults, record, now), durable=defaults.settings.durability == "full")


def enqueue_several(storage: Storage, wanted: list[Prepared], *, durable: bool) -> dict[str, KeyTaken]:
    """Queue jobs with one wait for the disk. Those that are queued already are left alone.

    Args:
        durable: False: do not wait for the disk.

    Returns:
        by their ids, those that were not queued, as another job has their unique key.

    Raises:
        QueuectlError: the disk refused. Some may be queued.
    """
    # One that only the folders know is found by them when it is to get its name.
    known = storage.index.states([made.id for made in wanted]) if storage.index.usable else None
    left = [
        made
        for made in wanted
        if (known is not None and made.id not in known) or locate.state_of(storage, made.id) is None
    ]
    skipped: dict[str, KeyTaken] = {}
    while left:
        batch = Batch(storage, left[:_AT_ONCE], durable=durable)
        queued, taken = batch.finish()
        skipped |= {left[place].id: error for place, error in batch.skipped.items()}
        # Somebody has just taken the id of the next one.
        left = left[queued + (taken is not None) :]
    return skipped


class FileBatch:
    """The jobs of some files of one rule. They are queued by `finish`."""

    def __init__(self, storage: Storage, defaults: JobDefaults, rule: Rule) -> None:
        self._storage, self._defaults, self._rule = storage, defaults, rule
        self._templates = file_jobs.Templates(rule.jobs)
        self._jobs: list[Prepared] = []

    def add(self, path: str, below: str, occurrence: str) -> list[str]:
        """Add the jobs for a file, and return their ids.

        Args:
            path: where it lies now.
            below: its path below the folder of the rule.
            occurrence: as it stands in the ids.

        Raises:
            QueuectlError: a field, the settings or the file of a queue are not valid.
        """
        rule, now = self._rule, self._storage.now()
        filled = Rule(
            rule.name, rule.kind, rule.trigger, rule.mark, self._templates.filled(path, below), rule.is_list
        )
        made = []
        for record in job_template.made(filled, occurrence, None, now):
            record["source"] = path
            record.setdefault("cwd", getattr(rule.trigger, "folder", None))
            made.append(prepared(self._defaults, record, now))
        self._jobs += made
        return [one.id for one in made]

    def finish(self) -> dict[str, KeyTaken]:
        """Queue them, as durably as `enqueue` does. Those that are queued already are left alone.

        A file of a job gets its name in pending/ only once the disk has its content. After a power cut an empty file
        would lie there else, and its name would say that the job is queued.

        Returns:
            by their ids, the jobs that were not queued: an earlier job has the unique key, and they ask to be skipped then.

        Raises:
            QueuectlError: the disk refused.
        """
        wanted, self._jobs = self._jobs, []
        durable = self._defaults.settings.durability == "full"
        return enqueue_several(self._storage, wanted, durable=durable)
