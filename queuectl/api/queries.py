"""The part of Spool that reads: counts, lists, single jobs, workers, statistics and output."""

from __future__ import annotations

import os
import time
from contextlib import suppress

from queuectl.errors import ConfigError, InvalidJob, JobNotFound, SpoolError
from queuectl.index.index import Index
from queuectl.index.row import BY_HAND, SHOWN, accept_as_indexed
from queuectl.job import record as jobs
from queuectl.job.fields import WAITING, is_id, state_of
from queuectl.job.record import Job
from queuectl.layout import COMPRESSED, PROCESSING, Layout, default_root
from queuectl.storage.transitions import Storage
from queuectl.system import safe_open
from queuectl.system.host import boot_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    import builtins
    from collections.abc import Callable, Iterable
    from typing import TypeVar

    from queuectl.api.stats import Stats
    from queuectl.api.waiting import Ended
    from queuectl.config.settings import Settings
    from queuectl.control.pause import Pause
    from queuectl.control.registry import WorkerInfo
    from queuectl.index.filter import Filter
    from queuectl.index.row import Row
    from queuectl.intake.reconcile import Intake

    T = TypeVar("T")

_READ_ATTEMPTS = 3
"""How often an output file is read again that was moved to logs/ meanwhile."""


class Queries:
    """A spool that can be read.

    Args:
        path: the folder. Default: $QUEUECTL_SPOOL, else ~/.queuectl.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        self.layout = Layout(path if path is not None else default_root())
        self._index = Index(self.layout.index, self.layout.root, boot_id())
        self._storage = Storage(self.layout, self._index)
        self._storage.refresh = self.refresh
        self._settings: Settings | None = None
        self._stamp: object = None
        self._warnings: builtins.list[str] = []
        self._is_ready = False
        self.settings_fault: str | None = None
        self._taking_in: Intake | None = None

    @property
    def _intake(self) -> Intake:
        """Made at its first use: enqueueing does not need it."""
        if self._taking_in is None:
            from queuectl.intake.reconcile import Intake

            self._taking_in = Intake(self.layout, self._index, self._storage, self.settings)
        return self._taking_in

    def settings(self) -> Settings:
        """Return the settings, read again if their file has changed.

        Raises:
            ConfigError: the file cannot be read or holds a bad value.
        """
        from queuectl.config.settings import load

        stamp = self.layout.config_stamp()
        if self._settings is None or stamp != self._stamp:
            self._settings, self._warnings = load(self.layout)
            self._stamp = stamp
        return self._settings

    def refresh(self, progress: Callable[[int], None] | None = None) -> None:
        """Make the index agree with the folders: take in dropped files, and notice files that were moved or deleted.

        Raises:
            SpoolError: the folders cannot be read.
        """
        with suppress(SpoolError):  # a read-only spool that lacks a folder can still be looked at
            self.layout.create()
        if not os.path.isdir(self.layout.pending):
            self.layout.create()
        self._intake.report = progress
        self._intake.refresh()

    def _look(self) -> None:
        """Refresh for a command that only reads. A bad settings file must not hide the jobs that are known already.

        Files that were dropped since then are not taken in, as their defaults are not known; `settings_fault` says so.
        """
        try:
            self.refresh()
            self.settings_fault = None
        except ConfigError as error:
            if not self._index.usable:
                raise
            self.settings_fault = (
                f"{error}; until it is valid, jobs that were dropped meanwhile are not shown"
            )

    def reindex(self, progress: Callable[[int], None] | None = None) -> int:
        """Rebuild the index from the folders, and return how many jobs there are.

        Raises:
            SpoolError: the disk or the folder refuses it.
        """
        self.layout.create()
        self._intake.report = progress
        import sqlite3

        try:
            return self._intake.rebuild()
        except sqlite3.DatabaseError as error:
            self._index.broken = str(error)  # damaged where it is only seen when it is emptied
        try:
            return self._intake.rebuild()
        except sqlite3.Error as error:
            raise SpoolError(f"cannot make the index {self.layout.index} anew: {error}") from None

    def counts(self) -> dict[str, int]:
        """Return how many jobs are pending, processing, completed, failed and dead."""
        self._look()
        return self._ask(self._index.counts)

    def _ask(self, question: Callable[[], T]) -> T:
        """Run a query on the index. If the index turns out to be damaged, rebuild it and run the query again."""
        import sqlite3

        try:
            return question()
        except sqlite3.DatabaseError as error:
            self._index.broken = str(error)
            self._look()
            return question()

    def get(self, job_id: str) -> Job:
        """Return one job, read from its file; the folder decides the state.

        For a file in dead/ that is not a valid job, this is a job without a command, and last_error says what is wrong.

        Raises:
            JobNotFound: there is no job with that id.
        """
        self._look()
        return self._ask(lambda: self._fetched(job_id))

    def _fetched(self, job_id: str) -> Job:
        row = self._find(job_id)
        if self._intake.freshen([row]):
            row = self._find(job_id)
        return self._load(row)

    def file_of(self, job_id: str) -> str:
        """Return the current path of a job's file; also of a rejected file in dead/.

        Raises:
            JobNotFound: there is no job with that id.
        """
        self._look()
        row = self._find(job_id)
        return os.path.join(self.layout.root, row.place, row.name)

    def row(self, job_id: str) -> Row:
        """Return the row of one job in the index, with its place in the order and the time at which it may run.

        Raises:
            JobNotFound: there is no job with that id.
        """
        self._look()
        return self._find(job_id)

    def rows(self, ids: Iterable[str]) -> dict[str, Row]:
        """Return the rows of these jobs in the index, by id; unknown ones are left out."""
        self.refresh()
        return self._ask(lambda: self._index.rows_of(list(ids)))

    def running_with(self, key: str) -> builtins.list[str]:
        """Return the ids of the running jobs with this unique key: other jobs with the key wait for them."""
        self._look()
        return [row.id for row in self._ask(lambda: self._index.with_key(key, "processing"))]

    def _find(self, job_id: str) -> Row:
        row = self._ask(lambda: self._index.get(job_id)) if is_id(job_id) else None
        if row is None and self._intake.fault:
            where = self._intake.fault.filename or self.layout.root
            raise SpoolError.from_os("read", where, self._intake.fault)  # it may be the one that is asked for
        if row is None:
            raise JobNotFound(job_id)
        return row

    def _load(self, row: Row) -> Job:
        path = os.path.join(self.layout.root, row.place, row.name)
        try:
            job = jobs.parse(safe_open.read_regular(path, jobs.READ_LIMIT)[0])
        except FileNotFoundError:
            return self._moved(row)
        except (InvalidJob, safe_open.NotReadable, OSError) as error:
            reason = row.last_error or str(error)
            moment = (row.updated_at or row.arrived) / 1e6
            return Job(
                id=row.id, state=row.state, last_error=reason, updated_at=moment, created_at=row.arrived / 1e6
            )
        job.id = row.id
        if row.state in WAITING:
            if job.state in ("completed", "dead"):
                job.renew(row.arrived / 1e6)
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
        """Load a job whose file was moved between the query of the index and the reading."""
        self._intake.refresh()
        again = self._index.get(row.id)
        if again is None or (again.place, again.name) == (row.place, row.name):
            raise JobNotFound(row.id)
        return self._load(again)

    def list(
        self, state: str | None = None, limit: int | None = None, *, where: Filter | None = None
    ) -> builtins.list[Row]:
        """Return the jobs in the order of their arrival, of one state or all; with a filter, in the order it asks for.

        Raises:
            ValueError: there is no such state, or no such order.
        """
        state = state_of(state)
        if where is not None:
            where = where if state is None else where.of_states(state)
            where = where if limit is None else where.limited_to(limit)
        self._look()
        if where is None:
            return self._ask(lambda: self._listed(lambda: self._index.list(state, limit)))
        return self._ask(lambda: self._selected(where))

    def ids(self, beginning: str = "", *states: str, limit: int = 200) -> builtins.list[str]:
        """Return ids that begin with a text, of jobs in these states or in all; without a text, the latest jobs first."""
        self._look()
        return self._ask(lambda: self._index.ids(beginning, states, limit))

    def tags(self) -> builtins.list[str]:
        """Return the tags that jobs have, sorted."""
        self._look()
        return self._ask(self._index.tags)

    def _listed(self, look: Callable[[], builtins.list[Row]]) -> builtins.list[Row]:
        rows = look()
        return look() if self._intake.freshen(rows) else rows

    def _selected(self, where: Filter) -> builtins.list[Row]:
        if not (where.command or where.reason):
            return self._listed(lambda: self._index.select(where))
        found = self._listed(lambda: self._index.select(where.without_limit))
        return [row for row in found if self._says(row, where)][: where.limit]

    def _says(self, row: Row, where: Filter) -> bool:
        """Return True if a job's command and error contain the texts. Of long ones, the index has the beginning only."""
        return self._contains(row, where.command, row.command, "shown_command") and self._contains(
            row, where.reason, row.last_error or "", "last_error"
        )

    def _contains(self, row: Row, text: str | None, stored: str, attribute: str) -> bool:
        if not text or text.casefold() in stored.casefold():
            return True
        try:
            whole = getattr(self._load(row), attribute) if len(stored) >= SHOWN else ""
        except JobNotFound:
            return False
        return text.casefold() in (whole or "").casefold()

    def workers(self) -> builtins.list[WorkerInfo]:
        """Return the workers that are alive."""
        from queuectl.control import registry

        return registry.live_workers(self.layout)

    def wait(
        self,
        ids: str | Iterable[str],
        *,
        timeout: float | None = None,
        success: bool = False,
        tell: Callable[[Ended], None] = lambda _: None,
    ) -> builtins.list[Ended]:
        """Wait until jobs have ended: completed, dead or deleted. A failed job that will be retried has not ended.

        Args:
            ids: one id or several.
            timeout: in seconds; None means no limit.
            success: return as soon as one of the jobs has ended without success.
            tell: called with each job when it ends.

        Returns:
            the jobs in the order in which they ended.

        Raises:
            JobNotFound: one of the jobs does not exist at the beginning.
            StillUnderWay: some jobs have not ended in that time.
        """
        from queuectl.api.waiting import Waiting

        several = [ids] if isinstance(ids, str) else ids
        return Waiting(self, several, success=success, tell=tell).run(timeout)

    def notes(self) -> builtins.list[str]:
        """What a user should know besides the counts, one line each."""
        from queuectl.api import status

        return status.notes(self)

    def paused(self) -> Pause | None:
        """Return since when the spool is paused, and why; None if it is not."""
        from queuectl.control import pause

        return pause.read(self.layout)

    def next_up(self, limit: int) -> builtins.list[Row]:
        """Return the waiting jobs in the order in which they will run; those that are not due yet come last, by time."""
        self._look()
        return self._ask(lambda: self._index.next_up(limit))

    def last_ended(self, limit: int) -> builtins.list[Row]:
        """Return the jobs whose last attempt ended most recently, the latest first."""
        self._look()
        return self._ask(lambda: self._index.last_ended(limit))

    def stats(self, where: Filter | None = None, *, by: str | None = None) -> Stats:
        """Return statistics of the jobs that have ended: how many, with what result, how long they waited and ran.

        Args:
            where: only these jobs; `since` and `until` mean the time of their end, and text is searched only in the
                beginning of a command.
            by: "tag", "day", "hour", "command", "worker" or "exit-code": also count each group.

        Raises:
            ValueError: there is no such group.
        """
        from queuectl.api import stats
        from queuectl.index.filter import Filter

        self._look()
        return self._ask(lambda: stats.gather(self._index.db, where or Filter(), by, time.time()))

    def metrics(self, textfile: str | os.PathLike[str] | None = None) -> str:
        """Return the current state of the spool in the text format of Prometheus.

        Args:
            textfile: also write it to this file, atomically, for the textfile collector of node_exporter.

        Raises:
            SpoolError: the file cannot be written.
        """
        from queuectl.api import metrics

        counts, now = self.counts(), time.time()
        families = self._ask(lambda: [*metrics.of_jobs(self._index.db, counts, now)])
        families += metrics.of_workers(self.workers(), now)
        families += metrics.of_place(self.layout.root, self.layout.index, paused=self.paused() is not None)
        if textfile is not None:
            metrics.write(families, os.fspath(textfile))
        return metrics.text(families)

    def output(self, job_id: str, *, run: int | None = None, stream: str = "out") -> str | None:
        """Return the path of the output of a run, or None if there is none; an old one may be compressed (.gz).

        Args:
            run: its number in the history. Default: the current run, else the last one.
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
        return next((there for there in (path, path + COMPRESSED) if os.path.exists(there)), None)

    def last_output(self, job_id: str, lines: int, *, run: int | None = None, stream: str = "out") -> str:
        """Return the last lines of the output of a run; bytes that are not UTF-8 are replaced.

        Args:
            run, stream: as for output.

        Raises:
            JobNotFound: there is no such job.
        """
        from queuectl.storage import job_logs

        for _ in range(_READ_ATTEMPTS):
            path = self.output(job_id, run=run, stream=stream)
            if path is None:
                break
            # The file may be moved to logs/ just now, or be deleted by hand.
            with suppress(FileNotFoundError), job_logs.opened(path) as file:
                file.seek(job_logs.last_lines(file, lines))
                text = file.read().decode("utf-8", "replace")
                # While a job runs, this is a file of its worker, and the next job will write into the same file.
                if self.output(job_id, run=run, stream=stream) == path:
                    return text
        return ""
