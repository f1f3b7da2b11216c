"""The Python door: one spool, and what can be done with it. The command line is a thin skin over this."""

from __future__ import annotations

import os
from contextlib import suppress
from itertools import islice

from queuectl import files, ids
from queuectl import job as jobs
from queuectl.boot import boot_id
from queuectl.errors import DuplicateId, InvalidJob, JobNotFound, MoveError, QueuectlError, SpoolError
from queuectl.index import Index
from queuectl.job import Job
from queuectl.layout import PROCESSING, Layout, default_root
from queuectl.move_table import check
from queuectl.moves import Mover
from queuectl.prepare import prepare, prepare_batch
from queuectl.row import BY_HAND, accept_as_indexed

TYPE_CHECKING = False
if TYPE_CHECKING:
    import builtins
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from typing import Any, TypeVar

    from queuectl.config import Settings
    from queuectl.intake import Intake
    from queuectl.row import Row
    from queuectl.seat import WorkerInfo

    T = TypeVar("T")

BATCH = 2000
"""Jobs that are made durable together: one wait for the disk for all of them."""

_DRAWS = 10
_LOOKED_AT = 2000
"""Files among which `status` looks for names that can be no job's: two milliseconds. The doctor looks at all."""


class Spool:
    """A spool of jobs in a folder, which is made when it is first written to.

    Args:
        path: the folder. Default: $QUEUECTL_SPOOL, else ~/.queuectl.

    Not for use by several threads at once; make one for each.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        self.layout = Layout(path if path is not None else default_root())
        self._index = Index(self.layout.index, self.layout.root, boot_id())
        self._mover = Mover(self.layout, self._index)
        self._settings: Settings | None = None
        self._stamp: object = None
        self._warnings: builtins.list[str] = []
        self._is_ready = False
        self._taking_in: Intake | None = None

    @property
    def _intake(self) -> Intake:
        """Made when somebody asks: who only enqueues has no use for it."""
        if self._taking_in is None:
            from queuectl.intake import Intake

            self._taking_in = Intake(self.layout, self._index, self._mover, self.settings)
        return self._taking_in

    def settings(self) -> Settings:
        """The settings in force, read anew when their file has changed.

        Raises:
            ConfigError: the file cannot be read or holds a bad value.
        """
        from queuectl.config import load

        stamp = self.layout.config_stamp()
        if self._settings is None or stamp != self._stamp:
            self._settings, self._warnings = load(self.layout)
            self._stamp = stamp
        return self._settings

    # -- in --------------------------------------------------------------------------------------------------------

    def enqueue(self, command: str | builtins.list[str] | Mapping[str, Any], /, **fields: Any) -> Job:
        """Queue one job; when this returns, it survives a power cut, unless the setting `durability` is none.

        Args:
            command: text for the shell, a list for no shell, or a whole job as a mapping.
            fields: fields of the job file, and `delay`, in seconds or like "10m".

        Raises:
            InvalidJob: a field is wrong; the message names it.
            DuplicateId: the id is taken.
            SpoolFull: no room on the disk.
            SpoolError: the spool cannot be written.
        """
        record: dict[str, Any] = {"command": command}
        if not isinstance(command, str | list) and hasattr(command, "keys"):
            record = dict(command)
        if not self._is_ready:
            self._make_ready()
            self._is_ready = True
        for _ in range(_DRAWS):
            made = prepare({**record, **fields}, self.settings())
            self._open_index()
            try:
                self._mover.enqueue(made, durable=self.settings().durability == "full")
            except DuplicateId:
                if made.chosen:
                    raise
                continue
            return made.job
        raise SpoolError(f"cannot find a free id in {self.layout.root}")

    def enqueue_many(
        self,
        records: Iterable[Mapping[str, Any]],
        *,
        progress: Callable[[int], None] | None = None,
        common: Mapping[str, Any] | None = None,
    ) -> Iterator[str]:
        """Queue many jobs, each batch of them durable before its ids are given out.

        Args:
            records: the jobs, as mappings of fields; read as they are needed, so there may be millions.
            progress: called with the number queued so far.
            common: fields that all of them get, over their own.

        Raises:
            InvalidJob, DuplicateId, SpoolFull, SpoolError: as for enqueue; what was given out before is queued.
        """
        self._make_ready()
        self._open_index()
        source = iter(records)
        queued = 0
        while True:
            batch, failure = prepare_batch(source, common or {}, self.settings(), BATCH)
            if batch:
                many, taken = self._mover.enqueue_batch(batch, durable=self.settings().durability == "full")
                failure = taken or failure
                queued += many
                if progress:
                    progress(queued)
                yield from [made.job.id or "" for made in batch[:many]]
            if failure:
                raise failure
            if len(batch) < BATCH:
                return

    def _make_ready(self) -> None:
        self.layout.create()
        self._refuse_root()

    def _refuse_root(self) -> None:
        if hasattr(os, "geteuid") and os.geteuid() == 0 and os.stat(self.layout.root).st_uid != 0:
            from queuectl import guard

            guard.refuse_root(self.layout)

    def _open_index(self) -> None:
        """Open the index for an enqueue, which can do without it: then the next look at the folders finds the job."""
        import sqlite3

        try:
            if not self._index.open():
                self._index.broken = "not built yet"
        except sqlite3.Error as error:
            self._index.broken = str(error)

    # -- asking ----------------------------------------------------------------------------------------------------

    def refresh(self, progress: Callable[[int], None] | None = None) -> None:
        """Make the index agree with the folders: take in what was dropped, see what was moved or deleted by hand.

        Raises:
            SpoolError: the folders cannot be read.
        """
        with suppress(SpoolError):  # a read-only spool that lacks a folder can still be looked at
            self.layout.create()
        if not os.path.isdir(self.layout.pending):
            self.layout.create()
        self._intake.report = progress
        self._intake.refresh()

    def reindex(self, progress: Callable[[int], None] | None = None) -> int:
        """Make the index anew out of the folders; returns how many jobs there are."""
        self.layout.create()
        self._intake.report = progress
        return self._intake.rebuild()

    def counts(self) -> dict[str, int]:
        """How many jobs are pending, processing, completed, failed and dead."""
        self.refresh()
        return self._ask(self._index.counts)

    def _ask(self, question: Callable[[], T]) -> T:
        """Ask the index; damage that shows only now has it made anew, and asked again."""
        import sqlite3

        try:
            return question()
        except sqlite3.DatabaseError as error:
            self._index.broken = str(error)
            self.refresh()
            return question()

    def get(self, job_id: str) -> Job:
        """One job, as its file says it; the folder decides the state.

        A file in dead/ that is no job comes as a job without a command; its last_error says what is wrong.

        Raises:
            JobNotFound: there is none of that id.
        """
        self.refresh()
        row = self._find(job_id)
        if self._ask(lambda: self._intake.freshen([row])):
            row = self._find(job_id)
        return self._load(row)

    def _find(self, job_id: str) -> Row:
        row = self._ask(lambda: self._index.get(job_id)) if ids.is_id(job_id) else None
        if row is None and self._intake.fault:
            where = self._intake.fault.filename or self.layout.root
            raise SpoolError.from_os("read", where, self._intake.fault)  # it may be the one that is asked for
        if row is None:
            raise JobNotFound(job_id)
        return row

    def _load(self, row: Row) -> Job:
        path = os.path.join(self.layout.root, row.place, row.name)
        try:
            job = jobs.parse(files.read_plain(path, jobs.READ_LIMIT)[0])
        except FileNotFoundError:
            return self._moved(row)
        except (InvalidJob, files.Unfit, OSError) as error:
            reason = row.last_error or str(error)
            moment = (row.updated_at or row.arrived) / 1e6
            return Job(
                id=row.id, state=row.state, last_error=reason, updated_at=moment, created_at=row.arrived / 1e6
            )
        job.id = row.id
        if row.state in ("pending", "failed"):
            if job.state in ("completed", "dead"):
                job.renew()
            accept_as_indexed(job, row)
        job.state = row.state
        if row.state == "processing":
            job.worker = row.worker or row.place.removeprefix(PROCESSING + "/")
        if row.state == "dead" and not job.last_error:
            job.last_error = BY_HAND
        # Buried for another reason than its content: the row of a file that is no job has no command.
        if row.state == "dead" and row.last_error and not row.command:
            job.last_error = row.last_error
        return job

    def _moved(self, row: Row) -> Job:
        """The file went elsewhere between the index's answer and our reading: look once more."""
        self._intake.refresh()
        again = self._index.get(row.id)
        if again is None or (again.place, again.name) == (row.place, row.name):
            raise JobNotFound(row.id)
        return self._load(again)

    def list(self, state: str | None = None, limit: int | None = None) -> builtins.list[Row]:
        """The jobs in the order of their arrival, of one state or all."""
        self.refresh()
        return self._ask(lambda: self._listed(state, limit))

    def _listed(self, state: str | None, limit: int | None) -> builtins.list[Row]:
        rows = self._index.list(state, limit)
        return self._index.list(state, limit) if self._intake.freshen(rows) else rows

    def workers(self) -> builtins.list[WorkerInfo]:
        """The living workers."""
        from queuectl import seat

        return seat.living(self.layout)

    def notes(self) -> builtins.list[str]:
        """What a person should know beside the numbers."""
        from queuectl import guard, room, seat
        from queuectl.shown import one_line

        self.settings()
        found = [*self._warnings]
        if self._intake.unfinished:
            number = self._intake.unfinished
            found.append(
                f"{number} file{'s' if number > 1 else ''} in pending/ not complete yet, left alone until complete"
            )
        if overlooked := self._overlooked():
            those = f"and {len(overlooked) - 1} more are" if len(overlooked) > 1 else "is"
            found.append(
                f"pending/{one_line(files.shown_name(overlooked[0]))} {those} ignored: a job's file is called NAME.json, in UTF-8"
            )
        if self._index.path == ":memory:":
            found.append("the index cannot be written here, so every look reads all folders")
        if folder := self.settings().incoming:
            from queuectl import incoming

            found += incoming.trouble(folder, self.layout)
        found += [
            f"job {job_id} of {name}, which is gone, waits until the last process of its run ends"
            for name, job_id in seat.haunted(self.layout)
        ]
        # Root, who looks at another user's spool, is no danger to it.
        open_to = None if guard.owner_other_than_root(self.layout) else guard.Watch(self.layout).look()
        lack = open_to or room.lack(self.layout.root, self.settings().min_free_space)
        if lack:
            found.append(f"workers start nothing: {lack}")
        found += [f"{w.name} polls, as no events come: {w.polling}" for w in self.workers() if w.polling]
        return found

    def _overlooked(self) -> builtins.list[str]:
        """What lies in pending/ under names that no job can have; looked for among the first few files."""
        from queuectl.foreign import looks_meant

        try:
            with os.scandir(self.layout.pending) as entries:
                names = [entry.name for entry in islice(entries, _LOOKED_AT) if looks_meant(entry.name)]
        except OSError:
            return []
        return sorted(names)

    def output(self, job_id: str, *, run: int | None = None, stream: str = "out") -> str | None:
        """The path of what a run printed, or None when there is nothing.

        Args:
            run: its number in the history; default the one under way, else the last.
            stream: "out" or "err".

        Raises:
            JobNotFound: there is no such job.
        """
        job = self.get(job_id)
        under_way = job.runs + 1 if job.state == "processing" else None
        run = run or under_way or job.runs
        path = self.layout.log_file(job_id, run, stream)
        if run == under_way and job.worker:
            live = self.layout.worker_file(job.worker, stream)
            return live if os.path.exists(live) else None
        return path if os.path.exists(path) else None

    # -- by a person -----------------------------------------------------------------------------------------------

    def retry(self, job_id: str, *, timeout: float | None = None) -> Job:
        """Send a dead job back to pending/ with fresh attempts; its history stays.

        Args:
            timeout: seconds; stays on the job.

        Raises:
            JobNotFound, MoveError: there is none, or it is not dead.
            InvalidJob: the file is still no job.
        """
        self.refresh()
        self._refuse_root()
        return self._mover.requeue(self._find(job_id), timeout=timeout)

    def cancel(self, job_id: str) -> str:
        """Give a job up: a waiting one goes to dead/, a running one is ended and goes there too.

        Returns:
            what was done: "cancelled" or "ending".

        Raises:
            JobNotFound, MoveError: there is none, or it is over already.
        """
        from queuectl import seat

        self.refresh()
        row = self._find(job_id)
        if row.state == "processing":
            seat.ask_to_cancel(self.layout, row.worker or row.place.removeprefix(PROCESSING + "/"), job_id)
            return "ending"
        check("bury", row.id, row.state, "dead")
        self._mover.bury(row, "Cancelled")
        return "cancelled"

    def forget(self, job_id: str) -> None:
        """Delete a job and what it printed.

        Raises:
            JobNotFound, MoveError: there is none, or it runs.
        """
        self.refresh()
        self._forget(self._find(job_id))
        self._sync_deletions()

    def _forget(self, row: Row) -> bool:
        runs = 0
        with suppress(QueuectlError, files.Unfit, OSError):
            path = os.path.join(self.layout.root, row.place, row.name)
            runs = jobs.parse(files.read_plain(path, jobs.READ_LIMIT)[0]).runs
        if not self._mover.forget(row):
            return False
        for path in self.layout.log_files(row.id, runs):
            with suppress(FileNotFoundError):
                os.unlink(path)
        return True

    def clear(
        self, state: str | None = None, progress: Callable[[int], None] | None = None
    ) -> tuple[int, int]:
        """Delete all jobs, or those of a state, but never one that runs.

        Returns:
            how many were deleted, and how many were left because they run.
        """
        self.refresh()
        deleted = kept = 0
        after = -1
        while rows := self._ask(lambda: self._index.list(state, BATCH, after)):  # noqa: B023 (asked at once)
            for row in rows:
                try:
                    deleted += self._forget(row)
                except MoveError:
                    kept += 1
                except OSError as error:
                    raise SpoolError.from_os("delete", os.path.join(row.place, row.name), error) from None
            after = rows[-1].seq or 0
            if progress:
                progress(deleted)
        self._sync_deletions()
        return deleted, kept

    def _sync_deletions(self) -> None:
        """See that a power cut brings none of the deleted jobs back: a waiting one would run."""
        for folder in (self.layout.pending, self.layout.done, self.layout.dead):
            try:
                files.sync_folder(folder)
            except OSError as error:
                raise SpoolError.from_os("sync", folder, error) from None
