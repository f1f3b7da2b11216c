"""The Python door: one spool, and what can be done with it. The command line is a thin skin over this."""

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
"""Jobs that are made durable together: one wait for the disk for all of them."""

_DRAWS = 10
_PATIENCE = 0.5  # seconds that a producer of jobs may take for a batch before it counts as slow


class Spool(Operations):
    """A spool of jobs in a folder, which is made when it is first written to.

    What can be asked is in `questions` and `reports`, what a person does with its jobs in `controls`; here is the way in.

    Args:
        path: the folder. Default: $QUEUECTL_SPOOL, else ~/.queuectl.

    Not for use by several threads at once; make one for each.
    """

    def enqueue(self, command: str | builtins.list[str] | Mapping[str, Any], /, **fields: Any) -> Job:
        """Queue one job; when this returns, it survives a power cut, unless the setting `durability` is none.

        Args:
            command: text for the shell, a list for no shell, or a whole job as a mapping.
            fields: fields of the job file, and `delay` and `expires_in`, in seconds or like "10m", from now.

        Returns:
            the job. If another one has its `unique` key and `if_exists` is skip, nothing is queued: it is that other
            job, as it is now, and its `skipped` is True. With replace, `replaced` has the ids of those whose place it took.

        Raises:
            InvalidJob: a field is wrong; the message names it.
            DuplicateId: the id is taken.
            SpoolFull: no room on the disk.
            SpoolError: the spool cannot be written.
        """
        record = _record(command)
        if not self._is_ready:
            self._make_ready()
            self._is_ready = True
        for _ in range(_DRAWS):
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
                    continue  # deleted just now, so the key is free
                there.skipped = True
                return there
            return made.job
        raise SpoolError(f"cannot find a free id in {self.layout.root}")

    def check(self, command: str | builtins.list[str] | Mapping[str, Any], /, **fields: Any) -> Job:
        """The job that enqueue would queue, with the settings in force; nothing is written, and no id looked for.

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
        """Queue many jobs, each batch of them durable before its ids are given out.

        Args:
            records: the jobs, as mappings of fields; read as they are needed, so there may be millions.
            progress: called with the number queued so far.
            common: fields that all of them get, over their own.
            all_or_nothing: queue all before the first id is given out, or none; see `whole`.
            skipped: called in place of an id where a job is not queued, as another one has its unique key.
            replaced: called before the id of a job that has taken the place of others, with it and with theirs.

        Raises:
            InvalidJob, DuplicateId, SpoolFull, SpoolError: as for enqueue; what was given out before is queued.
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
        """Queue a batch after the other: while the files of one are written, the jobs of the next are made.

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
                # What came from a slow producer is not kept waiting for what comes next.
                slow = time.monotonic() - since > _PATIENCE
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

        with suppress(sqlite3.Error, OSError):  # it can be done without
            if not self._index.open():
                self._index.begin_new_spool(self.layout)

    def _open_index(self) -> None:
        """Open the index for an enqueue, which can do without it: then the next look at the folders finds the job."""
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
