"""The class Spool, which is the Python API: this module adds enqueueing to the other two parts."""

from __future__ import annotations

import time
from contextlib import suppress

from queuectl.api.enqueue import prepare
from queuectl.api.operations import Operations
from queuectl.errors import DuplicateId, JobNotFound, KeyTaken, SpoolError
from queuectl.storage.enqueue import enqueue

TYPE_CHECKING = False
if TYPE_CHECKING:
    import builtins
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from typing import Any

    from queuectl.api.enqueue_many import Batch
    from queuectl.job.record import Job

BATCH = 2000
"""How many jobs are made durable together, with one wait for the disk."""

_ID_ATTEMPTS = 10
_SLOW = 0.5  # seconds: if the next batch takes longer to come, the last one is queued at once


class Spool(Operations):
    """A spool of jobs in a folder, which is created when it is first written to.

    `Queries` has the methods that read, `Operations` those that change jobs. Threads must not share an object.

    Args:
        path: the folder. Default: $QUEUECTL_SPOOL, else ~/.queuectl.
    """

    def enqueue(self, command: str | builtins.list[str] | Mapping[str, Any], /, **fields: Any) -> Job:
        """Queue one job. When this returns, the job survives a power cut, unless the setting `durability` is none.

        Args:
            command: text for the shell, a list to run without a shell, or all fields of a job as a mapping.
            fields: fields of the job file, and `delay` and `expires_in`, in seconds or like "10m", from now.

        Returns:
            the job. If another job has its `unique` key and `if_exists` is skip, nothing is queued, and the other job is
            returned with `skipped` set. With replace, `replaced` has the ids of the jobs that it has replaced.

        Raises:
            InvalidJob: a field is wrong; the message names it.
            DuplicateId: the id is taken.
            SpoolFull: the disk is full.
            SpoolError: the spool cannot be written.
        """
        record = _record(command)
        if not self._is_ready:
            self._make_ready()
            self._is_ready = True
        for _ in range(_ID_ATTEMPTS):
            made = prepare({**record, **fields}, self.settings())
            self._open_index()
            try:
                enqueue(self._storage, made, durable=self.settings().durability == "full")
            except DuplicateId:
                if made.chosen:
                    raise
                continue
            except KeyTaken as taken:
                try:
                    there = self.get(taken.job_id)
                except JobNotFound:
                    continue  # it has just been deleted, so the key is free
                there.skipped = True
                return there
            return made.job
        raise SpoolError(f"cannot find a free id in {self.layout.root}")

    def check(self, command: str | builtins.list[str] | Mapping[str, Any], /, **fields: Any) -> Job:
        """Return the job that enqueue would queue, with the current settings; nothing is written, and ids are not checked.

        Raises:
            InvalidJob: a field is wrong; the message names it.
        """
        return prepare({**_record(command), **fields}, self.settings()).job

    def enqueue_many(
        self,
        records: Iterable[Mapping[str, Any]],
        *,
        progress: Callable[[int], None] | None = None,
        common: Mapping[str, Any] | None = None,
        all_or_nothing: bool = False,
        skipped: Callable[[KeyTaken], None] = lambda _: None,
        replaced: Callable[[str, builtins.list[str]], None] = lambda *_: None,
    ) -> Iterator[str]:
        """Queue many jobs, and yield their ids; each batch is durable before its ids are yielded.

        Args:
            records: the jobs, as mappings of fields; read one by one, so there may be millions.
            progress: called with the number queued so far.
            common: fields for all jobs; they replace the jobs' own.
            all_or_nothing: queue all jobs before the first id is yielded, or none; see `enqueue_all`.
            skipped: called for a job that is not queued because another one has its unique key.
            replaced: called with the id of a job that has replaced others, and with their ids, before it is yielded.

        Raises:
            InvalidJob, DuplicateId, SpoolFull, SpoolError: as for enqueue; jobs whose ids were yielded are queued.
        """
        self._make_ready()
        self._open_index()
        if all_or_nothing:
            from queuectl.api.enqueue_many import enqueue_all

            all_of_them = enqueue_all(self._storage, records, common or {}, self.settings())
            batches = iter([(all_of_them, len(all_of_them))])
        else:
            batches = self._in_batches(iter(records), common or {})
        queued = 0
        for batch, many in batches:
            queued += many
            if progress:
                progress(queued)
            for one in batch.results(many):
                if isinstance(one, KeyTaken):
                    skipped(one)
                    continue
                if one in batch.replaced:
                    replaced(one, batch.replaced[one])
                yield one

    def _in_batches(
        self, source: Iterator[Mapping[str, Any]], common: Mapping[str, Any]
    ) -> Iterator[tuple[Batch, int]]:
        """Queue batch after batch: while the files of one are written, the jobs of the next are prepared.

        Returns:
            each batch, and how many of its jobs are queued or skipped.
        """
        from queuectl.api.enqueue_many import Batch, prepare_batch

        durable = self.settings().durability == "full"
        begun: builtins.list[Batch] = []
        try:
            failure: Exception | None = None
            last = False
            while not last:
                since = time.monotonic()
                jobs, failure = prepare_batch(source, common, self.settings(), BATCH)
                last = len(jobs) < BATCH or failure is not None
                begun.append(Batch(self._storage, jobs, durable=durable))
                # Jobs of a slow producer must not wait until the next batch is complete.
                slow = time.monotonic() - since > _SLOW
                while len(begun) > (0 if last or slow else 1):
                    many, taken = (batch := begun.pop(0)).finish()
                    yield batch, many
                    if taken:
                        raise taken
            if failure:
                raise failure
        finally:
            for batch in begun:
                batch.abandon()

    def _make_ready(self) -> None:
        self.layout.create()
        self._refuse_root()
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


def _record(command: str | builtins.list[str] | Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(command, str | list) and hasattr(command, "keys"):
        return dict(command)
    return {"command": command}
