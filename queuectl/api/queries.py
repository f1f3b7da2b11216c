"""The part of Spool that reads: counts, lists, single jobs, workers, statistics and output."""

from __future__ import annotations

import os
import time
from _thread import RLock
from _weakref import ref
from functools import wraps

from queuectl.api import access
from queuectl.errors import ConfigError, JobNotFound, SpoolError
from queuectl.index.index import Index
from queuectl.job.fields import is_id, state_of
from queuectl.layout import Layout, default_root
from queuectl.storage.transitions import Storage
from queuectl.system.host import boot_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    import builtins
    from collections.abc import Callable, Iterable
    from typing import Any, Self, TypeVar

    from queuectl.api.stats import Stats
    from queuectl.api.waiting import Ended
    from queuectl.config.settings import Settings
    from queuectl.control.pause import Pause
    from queuectl.control.registry import WorkerInfo
    from queuectl.index.filter import Filter
    from queuectl.index.row import Row
    from queuectl.intake.reconcile import Intake
    from queuectl.job.record import Job

    T = TypeVar("T")
    Method = TypeVar("Method", bound=Callable[..., Any])


def locked(method: Method) -> Method:
    """Let one thread at a time run the methods with this mark: two inside one SQLite connection kill the process.

    Methods that wait do not have it, or all other threads would wait with them: they take the lock for each step.
    """

    @wraps(method)
    def alone(self: Queries, /, *args: Any, **kwargs: Any) -> Any:
        with self._lock:
            return method(self, *args, **kwargs)

    return alone  # type: ignore[return-value]  # the same signature, by `wraps`


class Queries:
    """A spool that can be read.

    Args:
        path: the folder. Default: $QUEUECTL_SPOOL, else ~/.queuectl.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        self.layout = Layout(path if path is not None else default_root())
        self._settings: Settings | None = None
        self._stamp: object = None
        self._warnings: builtins.list[str] = []
        self._is_ready = False
        self.settings_fault: str | None = None
        self._connect(boot_id())
        key = id(self)
        _spools[key] = ref(self, lambda _: _spools.pop(key, None))

    def _connect(self, boot: str) -> None:
        """Make what is used by one process only, and by one thread at a time."""
        self._lock = RLock()
        self._index = Index(self.layout.index, self.layout.root, boot)
        self._storage = Storage(self.layout, self._index)
        self._storage.refresh = _weakly(self, Queries._mirror)
        self._taking_in: Intake | None = None

    def close(self) -> None:
        """Close all files that this object has open, as `with` and its deletion do. A later call opens them again."""
        with self._lock:
            self._taking_in = None
            self._index.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[type[Self], tuple[str]]:
        """Pickle the path alone: the other process opens the spool for itself."""
        return type(self), (self.layout.root,)

    @property
    def _intake(self) -> Intake:
        """Made at its first use: enqueueing does not need it."""
        if self._taking_in is None:
            from queuectl.intake.reconcile import Intake

            settings = _weakly(self, Queries.settings)
            self._taking_in = Intake(self.layout, self._index, self._storage, settings)
        return self._taking_in

    @locked
    def settings(self) -> Settings:
        """Return the settings, read again if their file has changed.

        Raises:
            ConfigError: the file cannot be read or holds a bad value.
        """
        from queuectl.config import settings, stamp

        seen = stamp.stamps(self.layout)
        if self._settings is None or seen != self._stamp:
            self._settings, self._warnings = settings.load(self.layout)
            self._stamp = seen
        return self._settings

    @locked
    def refresh(self, progress: Callable[[int], None] | None = None) -> None:
        """Make the index agree with the folders. This creates the spool if there is none; the methods that read do not."""
        access.make(self.layout)
        self._mirror(progress)

    @locked
    def _mirror(self, progress: Callable[[int], None] | None = None) -> None:
        """Do the same as `refresh` before something is read; see `access` for what that must not change."""
        access.prepare(self._storage)
        self._intake.report = progress
        try:
            self._intake.refresh()
        finally:
            self._intake.report = None

    def _look(self) -> None:
        """Refresh for a command that only reads. A bad settings file must not hide the jobs that are known already.

        Files that were dropped since then are not taken in, as their defaults are not known; `settings_fault` says so.
        """
        try:
            self._mirror()
            self.settings_fault = None
        except ConfigError as error:
            if not self._index.usable:
                raise
            self.settings_fault = (
                f"{error}; until it is valid, jobs that were dropped meanwhile are not shown"
            )

    @locked
    def reindex(self, progress: Callable[[int], None] | None = None) -> int:
        """Rebuild the index from the folders, and return how many jobs there are.

        Raises:
            SpoolError: the disk or the folder refuses it.
        """
        access.make(self.layout, "reindex")
        self._intake.report = progress
        try:
            return self._intake.rebuild_in_any_case()
        finally:
            self._intake.report = None

    @locked
    def counts(self) -> dict[str, int]:
        """Return how many jobs are pending, processing, completed, failed and dead."""
        self._look()
        return self._ask(self._index.counts)

    @locked
    def _ask(self, question: Callable[[], T]) -> T:
        """Run a query on the index. If the index turns out to be damaged, rebuild it and run the query again."""
        import sqlite3

        try:
            return question()
        except sqlite3.DatabaseError as error:
            self._index.broken = str(error)
            self._look()
            return question()

    @locked
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

    @locked
    def file_of(self, job_id: str) -> str:
        """Return the current path of a job's file; also of a rejected file in dead/.

        Raises:
            JobNotFound: there is no job with that id.
        """
        self._look()
        row = self._find(job_id)
        return os.path.join(self.layout.root, row.place, row.name)

    @locked
    def row(self, job_id: str) -> Row:
        """Return the row of one job in the index, with its place in the order and the time at which it may run.

        Raises:
            JobNotFound: there is no job with that id.
        """
        self._look()
        return self._find(job_id)

    @locked
    def rows(self, ids: Iterable[str]) -> dict[str, Row]:
        """Return the rows of these jobs in the index, by id; unknown ones are left out."""
        self._mirror()
        return self._ask(lambda: self._index.rows_of(list(ids)))

    @locked
    def running_with(self, key: str) -> builtins.list[str]:
        """Return the ids of the running jobs with this unique key: other jobs with the key wait for them."""
        self._look()
        return [row.id for row in self._ask(lambda: self._index.with_key(key, "processing"))]

    @locked
    def _find(self, job_id: str) -> Row:
        row = self._ask(lambda: self._index.get(job_id)) if is_id(job_id) else None
        if row is None and self._intake.fault:
            where = self._intake.fault.filename or self.layout.root
            raise SpoolError.from_os("read", where, self._intake.fault)  # it may be the one that is asked for
        if row is None:
            raise JobNotFound(job_id)
        return row

    def _load(self, row: Row) -> Job:
        from queuectl.api import job_files

        return job_files.load(self, row)

    @locked
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

    @locked
    def ids(self, beginning: str = "", *states: str, limit: int = 200) -> builtins.list[str]:
        """Return ids that begin with a text, of jobs in these states or in all; without a text, the latest jobs first."""
        self._look()
        return self._ask(lambda: self._index.ids(beginning, states, limit))

    @locked
    def tags(self) -> builtins.list[str]:
        """Return the tags that jobs have, sorted."""
        self._look()
        return self._ask(self._index.tags)

    def _listed(self, look: Callable[[], builtins.list[Row]]) -> builtins.list[Row]:
        from queuectl.api import running

        return running.show_runs(self.layout, look() if self._intake.freshen(rows := look()) else rows)

    def _selected(self, where: Filter) -> builtins.list[Row]:
        if not (where.command or where.reason):
            return self._listed(lambda: self._index.select(where))
        found = self._listed(lambda: self._index.select(where.without_limit))
        from queuectl.api import job_files

        return [row for row in found if job_files.says(self, row, where)][: where.limit]

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

    @locked
    def notes(self) -> builtins.list[str]:
        """What a user should know besides the counts, one line each."""
        from queuectl.api import status

        return status.notes(self)

    def paused(self) -> Pause | None:
        """Return since when the spool is paused, and why; None if it is not."""
        from queuectl.control import pause

        return pause.read(self.layout)

    @locked
    def next_up(self, limit: int) -> builtins.list[Row]:
        """Return the waiting jobs in the order in which they will run; those that are not due yet come last, by time."""
        self._look()
        return self._ask(lambda: self._index.next_up(limit))

    @locked
    def last_ended(self, limit: int) -> builtins.list[Row]:
        """Return the jobs whose last attempt ended most recently, the latest first."""
        self._look()
        return self._ask(lambda: self._index.last_ended(limit))

    @locked
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

    @locked
    def metrics(self, textfile: str | os.PathLike[str] | None = None) -> str:
        """Return the current state of the spool in the text format of Prometheus.

        Args:
            textfile: also write it to this file, atomically, for the textfile collector of node_exporter.

        Raises:
            SpoolError: the file cannot be written.
        """
        from queuectl.api import metrics

        return metrics.report(self, textfile)

    def output(self, job_id: str, *, run: int | None = None, stream: str = "out") -> str | None:
        """Return the path of the output of a run, or None if there is none; an old one may be compressed (.gz).

        Args:
            run: its number in the history. Default: the current run, else the last one.
            stream: "out" or "err".

        Raises:
            JobNotFound: there is no such job.
        """
        from queuectl.api import job_files

        return job_files.output(self.layout, self.get(job_id), run, stream)

    def read_output(self, job_id: str, *, run: int | None = None, stream: str = "out") -> str:
        """Return the output of a run as text: all of it that is kept; "" if there is none.

        Bytes that are not UTF-8 are replaced. See `output` for the arguments; that one gives the path of a large file.

        Raises:
            JobNotFound: there is no such job.
        """
        from queuectl.api import job_files

        return job_files.read_output(self, job_id, run, stream)

    def last_output(self, job_id: str, lines: int, *, run: int | None = None, stream: str = "out") -> str:
        """Return the last lines of the output of a run; bytes that are not UTF-8 are replaced.

        Args:
            run, stream: as for output.

        Raises:
            JobNotFound: there is no such job.
        """
        from queuectl.api import job_files

        return job_files.last_output(self, job_id, lines, run, stream)


_spools: dict[int, ref[Queries]] = {}
"""All objects of this process, for a process that is forked from it."""


def _weakly(spool: Queries, method: Callable[[Queries], T]) -> Callable[[], T]:
    """Return a bound method that does not keep the spool alive: else only the garbage collector would close its files."""
    found = ref(spool)

    def call() -> T:
        alive = found()
        if alive is None:
            raise ReferenceError("the Spool of this index was deleted")
        return method(alive)

    return call


def _after_fork() -> None:
    """Let each Spool of a forked process open the index anew: a thread of the parent may be in the middle of it."""
    for found in list(_spools.values()):
        if spool := found():
            spool._index.leave_to_parent()
            spool._connect(spool._index.boot)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
