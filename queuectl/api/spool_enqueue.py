"""The part of Spool that enqueues jobs. `queuectl enqueue TEXT` loads this part only."""

from __future__ import annotations

import time
from contextlib import suppress

from queuectl.api import access
from queuectl.api.enqueue import FEW, prepare
from queuectl.api.spool_base import SpoolBase, locked
from queuectl.errors import DuplicateId, JobNotFound, KeyTaken, QueuectlError, SpoolError
from queuectl.storage.enqueue import enqueue

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from typing import Any, Unpack

    from queuectl.api.job_fields import Command, JobFields
    from queuectl.config.settings import Settings
    from queuectl.job.record import Job
    from queuectl.storage.enqueue_batch import Batch
    from queuectl.storage.transitions import Prepared

BATCH = 2000
"""How many jobs are made durable together, with one wait for the disk."""

_ID_ATTEMPTS = 10
_SLOW = 0.5  # seconds: if the next batch takes longer to come, the last one is queued at once


class EnqueuePart(SpoolBase):
    """Enqueues jobs."""

    @locked
    def enqueue(self, command: Command | Mapping[str, Any], /, **fields: Unpack[JobFields]) -> Job:
        """Queue one job. When this returns, the job survives a power cut, unless the setting `durability` is none.

        Args:
            command: text for the shell, a list to run without a shell, the path of a program, or all fields of a job as
                a mapping. Only a mapping may have fields of your own; they are kept.
            fields: fields of the job file, and `delay` and `expires_in`, from now.

        Returns:
            the job. If another job has its `unique` key and `if_exists` is skip, nothing is queued, and the other job is
            returned with `skipped` set. With replace, `replaced` has the ids of the jobs that it has replaced.

        Raises:
            InvalidJob: a field is wrong; the message names it.
            UnknownField: no field has this name; it is a TypeError, too.
            ConfigError: the settings or the file of its queue are not valid.
            Shortage: it needs more of a resource than there is.
            DuplicateId: the id is taken.
            SpoolFull: the disk is full.
            SpoolError: the spool cannot be written.
        """
        record = _with_fields("enqueue", command, fields)
        if not self._is_ready:
            self._make_ready()
            self._is_ready = True
        for _ in range(_ID_ATTEMPTS):
            settings = self.settings()
            made = self._prepare(record, settings)
            self._open_index()
            if made.made is not None and made.made.has_conditions:
                from queuectl.api import enqueue_dependent

                enqueue_dependent.admit(self, made.made)
            try:
                enqueue(self._storage, made, durable=settings.durability == "full")
            except DuplicateId:
                if made.chosen:
                    raise
                continue
            except KeyTaken as taken:
                from queuectl.api import job_files

                try:
                    there = job_files.current(self, taken.job_id)
                except JobNotFound:
                    continue  # it has just been deleted, so the key is free
                there.skipped = True
                return there
            return made.job
        raise SpoolError(f"cannot find a free id in {self.layout.root}")

    def _prepare(self, record: Mapping[str, Any], settings: Settings) -> Prepared:
        if self._defaults is None or self._defaults.settings is not settings:
            self._defaults = self._job_defaults()
        defaults = self._defaults
        queue = record.get("queue")
        defaults.look(queue if isinstance(queue, str) else None)
        self._prepared += 1
        if self._prepared <= FEW:
            return prepare(record, defaults)
        if self._templates is None or self._templates.defaults is not defaults:
            from queuectl.api.enqueue_templates import Templates

            self._templates = Templates(defaults)
        return self._templates.prepare(record)

    def check(self, command: Command | Mapping[str, Any], /, **fields: Unpack[JobFields]) -> Job:
        """Return the job that enqueue would queue, with the current settings; nothing is written, and ids are not checked.

        Raises:
            InvalidJob: a field is wrong; the message names it.
            UnknownField: no field has this name; it is a TypeError, too.
        """
        return prepare(_with_fields("check", command, fields), self._job_defaults()).job

    def enqueue_many(
        self,
        jobs: Iterable[Command | Mapping[str, Any]],
        *,
        progress: Callable[[int], None] | None = None,
        common: Mapping[str, Any] | None = None,
        all_or_nothing: bool = False,
        skipped: Callable[[KeyTaken], None] = lambda _: None,
        replaced: Callable[[str, list[str]], None] = lambda *_: None,
    ) -> list[str]:
        """Queue many jobs. When this returns, all of them survive a power cut, as with `enqueue`.

        Args:
            jobs: the commands, or mappings of fields; each as the first argument of `enqueue`.
            progress: called with the number queued so far.
            common: fields for all jobs; they replace the jobs' own.
            all_or_nothing: queue all jobs or none, at most 50,000; see `enqueue_all`. Otherwise the jobs before a wrong
                one are queued, unless one of them waits for another: then all are checked before the first is queued.
            skipped: called for a job that is not queued because another one has its unique key.
            replaced: called with the id of a job that has replaced others, and with their ids.

        Returns:
            the ids of the queued jobs, in order.

        Raises:
            InvalidJob, DuplicateId, NeverStarts, SpoolFull, SpoolError: as for enqueue. The attribute `queued` of the
                error has the ids of the jobs that are queued, and `position` says which job is wrong, counted from 0.
            TypeError: `jobs` is one job and not several.
        """
        stream = self.enqueue_stream(
            jobs,
            progress=progress,
            common=common,
            all_or_nothing=all_or_nothing,
            skipped=skipped,
            replaced=replaced,
        )
        ids: list[str] = []
        try:
            ids.extend(stream)
        except QueuectlError as error:
            error.queued = ids
            raise
        return ids

    def enqueue_stream(
        self,
        jobs: Iterable[Command | Mapping[str, Any]],
        *,
        progress: Callable[[int], None] | None = None,
        common: Mapping[str, Any] | None = None,
        all_or_nothing: bool = False,
        skipped: Callable[[KeyTaken], None] = lambda _: None,
        replaced: Callable[[str, list[str]], None] = lambda *_: None,
        enqueued: Callable[[Job], None] | None = None,
    ) -> Iterator[str]:
        """Queue millions of jobs in little memory, and yield their ids: **only while somebody takes the ids**.

        The jobs are read one by one and queued in batches. Each batch is durable before its first id is yielded. What
        was not read when the iteration ends is not queued.

        Args:
            jobs, progress, common, skipped, replaced: as for `enqueue_many`.
            all_or_nothing: queue all jobs before the first id is yielded, or none.
            enqueued: called with each job that is queued, just before its id is yielded.

        Raises:
            InvalidJob, DuplicateId, SpoolFull, SpoolError: as for enqueue; jobs whose ids were yielded are queued.
            TypeError: `jobs` is one job and not several.
        """
        records = _records(jobs)
        from queuectl.api import enqueue_dependent

        shared = _plain(common or {})
        size = None if enqueue_dependent.is_pipeline(jobs, shared) else BATCH
        checked = enqueue_dependent.checked(self, records, shared, size)
        return self._stream(checked, shared, progress, skipped, replaced, enqueued, whole=all_or_nothing)

    def _stream(
        self,
        records: Iterator[Mapping[str, Any]],
        common: Mapping[str, Any],
        progress: Callable[[int], None] | None,
        skipped: Callable[[KeyTaken], None],
        replaced: Callable[[str, list[str]], None],
        enqueued: Callable[[Job], None] | None,
        *,
        whole: bool,
    ) -> Iterator[str]:
        with self._lock:
            self._make_ready()
        queued = 0
        for batch, many in (self._as_one if whole else self._in_batches)(records, common):
            queued += many
            if progress:
                progress(queued)
            for place, one in enumerate(batch.results(many)):
                if isinstance(one, KeyTaken):
                    skipped(one)
                    continue
                if one in batch.replaced:
                    replaced(one, batch.replaced[one])
                if enqueued:
                    enqueued(batch.job(place))
                yield one

    def _as_one(
        self, source: Iterator[Mapping[str, Any]], common: Mapping[str, Any]
    ) -> Iterator[tuple[Batch, int]]:
        """Queue all jobs or none, as one batch."""
        from queuectl.api.enqueue_many import enqueue_all, prepare_all

        prepared = prepare_all(source, common, self._job_defaults())
        with self._lock:
            self._open_index()
            batch = enqueue_all(self._storage, prepared, self.settings())
        yield batch, len(batch)

    def _in_batches(
        self, source: Iterator[Mapping[str, Any]], common: Mapping[str, Any]
    ) -> Iterator[tuple[Batch, int]]:
        """Queue batch after batch: while the files of one are written, the jobs of the next are prepared.

        The lock is not held while the source is read and while a batch is yielded: both are the caller's time.

        Returns:
            each batch, and how many of its jobs are queued or skipped.
        """
        from queuectl.api.enqueue_many import prepare_batch
        from queuectl.storage.enqueue_batch import Batch
        from queuectl.storage.scratch import delete_folder

        durable = self.settings().durability == "full"
        begun: list[Batch] = []
        litter: list[str] = []
        try:
            failure: QueuectlError | None = None
            last = False
            prepared = finished = 0
            while not last:
                since = time.monotonic()
                jobs, failure = prepare_batch(source, common, self._job_defaults(), BATCH)
                if failure and failure.position is None:
                    failure.position = prepared + len(jobs)
                prepared += len(jobs)
                last = len(jobs) < BATCH or failure is not None
                begun.append(Batch(self._storage, jobs, durable=durable, litter=litter))
                # Jobs of a slow producer must not wait until the next batch is complete.
                slow = time.monotonic() - since > _SLOW
                while len(begun) > (0 if last or slow else 1):
                    batch = begun.pop(0)
                    with self._lock:
                        self._open_index()
                        many, taken = batch.finish()
                    finished += many
                    yield batch, many
                    if taken:
                        taken.position = finished
                        raise taken
            if failure:
                raise failure
        finally:
            for batch in begun:
                batch.abandon()
            for folder in litter:
                with suppress(OSError):
                    delete_folder(folder)

    def _make_ready(self) -> None:
        access.refuse_others(self.layout)
        self.layout.create()
        self._begin_index()

    def _begin_index(self) -> None:
        import sqlite3

        with suppress(sqlite3.Error, OSError):  # enqueueing works without it
            if not self._index.open():
                self._index.begin_new_spool(self.layout)

    def _open_index(self) -> None:
        """Open the index for enqueueing. If that fails, the next scan of the folders finds the job."""
        import sqlite3

        try:
            if not self._index.open():
                self._index.broken = "not built yet"
        except sqlite3.Error as error:
            self._index.broken = str(error)


_PLAIN = frozenset({str, int, float, bool, type(None)})
"""The types that a job file has, besides lists and objects."""


def _with_fields(
    call: str, command: Command | Mapping[str, Any], fields: Mapping[str, Any]
) -> Mapping[str, Any]:
    if not fields:
        return _record(command)
    from queuectl.api import job_fields

    job_fields.refuse_unknown(call, fields, job_fields.NAMES)
    return {**_record(command), **job_fields.as_in_a_file(fields)}


def _record(command: Command | Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the fields of a job, as in a file."""
    if not isinstance(command, str | list) and hasattr(command, "keys"):
        return _plain(command)  # type: ignore[arg-type]  # it has keys
    return _plain({"command": command})


def _plain(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return fields as in a file. Most have such types already, and the module that converts others is not loaded."""
    if _PLAIN.issuperset(map(type, fields.values())):
        return fields
    from queuectl.api import job_fields

    return job_fields.as_in_a_file(fields)


def _records(
    jobs: Iterable[Command | Mapping[str, Any]],
) -> Iterator[Mapping[str, Any]]:
    """Return the fields of each job.

    Raises:
        TypeError: it is one job. The letters of a text, or the names of its fields, would be queued as commands.
    """
    if isinstance(jobs, str | bytes) or hasattr(jobs, "keys"):
        raise TypeError(f"takes several jobs, and not one {type(jobs).__name__}; for one job: enqueue")
    return map(_record, jobs)
