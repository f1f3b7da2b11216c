"""Queues the jobs of files, several with one wait for the disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

from queuectl.rules import file_jobs, job_queueing, job_template
from queuectl.rules.rule import Rule

if TYPE_CHECKING:
    from queuectl.config.settings import JobDefaults
    from queuectl.errors import KeyTaken
    from queuectl.storage.transitions import Prepared, Storage


class Batch:
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
            made.append(job_queueing.prepared(self._defaults, record, now))
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
        return job_queueing.enqueue_several(self._storage, wanted, durable=durable)
