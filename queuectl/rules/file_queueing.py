"""Queues the jobs of files, several with one wait for the disk."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from queuectl.errors import DuplicateId
from queuectl.rules import file_jobs, job_template, queueing
from queuectl.rules.rule import Rule
from queuectl.system import files

if TYPE_CHECKING:
    from queuectl.config.settings import JobDefaults
    from queuectl.storage.transitions import Storage


class Batch:
    """The jobs of some files of one rule. They are surely on the disk only after `sync`."""

    def __init__(self, storage: Storage, defaults: JobDefaults, rule: Rule) -> None:
        self._storage, self._defaults, self._rule = storage, defaults, rule
        self._templates = file_jobs.Templates(rule.jobs)
        self._queued: list[str] = []

    def add(self, path: str, below: str, occurrence: str) -> None:
        """Queue the jobs for a file. Those that are queued already are left alone.

        Args:
            path: where it lies now.
            below: its path below the folder of the rule.
            occurrence: as it stands in the ids.

        Raises:
            KeyTaken: an earlier job has the unique key, and the rule asks to be skipped then.
            QueuectlError: the disk refused, or the settings or the file of a queue are not valid.
        """
        rule, now = self._rule, self._storage.now()
        jobs = self._templates.filled(path, below)
        filled = Rule(rule.name, rule.kind, rule.trigger, rule.mark, jobs, rule.is_list)
        for record in job_template.made(filled, occurrence, None, now):
            record["source"] = path
            record.setdefault("cwd", getattr(rule.trigger, "folder", None))
            with suppress(DuplicateId):  # before a crash
                queueing.enqueue_one(self._storage, self._defaults, record, now, durable=False)
            self._queued.append(str(record["id"]))

    def sync(self) -> None:
        """Have the disk keep the jobs, as `enqueue` does.

        Raises:
            OSError: the disk refused.
        """
        queued, self._queued = self._queued, []
        if not queued or self._defaults.settings.durability != "full":
            return
        folder = self._storage.layout.pending
        paths = [os.path.join(folder, f"{name}.json") for name in queued]
        try:
            files.sync_files(folder, [path for path in paths if os.path.lexists(path)])
        except FileNotFoundError:
            files.sync_filesystem(folder)  # a worker has claimed one meanwhile
        files.sync_folder(folder)
