"""What every part of the class Spool stands on: the lock, the settings, and an index that agrees with the folders."""

from __future__ import annotations

import os
import time
from _thread import RLock
from _weakref import ref
from functools import wraps

from queuectl.api import access
from queuectl.errors import ConfigError, IndexBehind, JobNotFound, QueuectlError, SpoolError
from queuectl.index.index import Index
from queuectl.job import times
from queuectl.job.fields import is_id
from queuectl.layout import Layout, default_root
from queuectl.storage.transitions import Storage
from queuectl.system.host import boot_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Any, Self, TypeVar

    from queuectl.api.enqueue_templates import Templates
    from queuectl.config.settings import JobDefaults, Settings
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
    def alone(self: SpoolBase, /, *args: Any, **kwargs: Any) -> Any:
        with self._lock:
            return method(self, *args, **kwargs)

    return alone  # type: ignore[return-value]  # the same signature, by `wraps`


BELIEVED = 1.0
"""Seconds for which an object that answers at once does not try again to bring the index up to date."""


class SpoolBase:
    """A spool in a folder, for the parts of Spool.

    Args:
        path: the folder. Default: $QUEUECTL_SPOOL, else ~/.queuectl.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        self.layout = Layout(path if path is not None else default_root())
        self._settings: Settings | None = None
        self._defaults: JobDefaults | None = None
        self._stamp: object = None
        self._warnings: list[str] = []
        # What `status` has found out about growing folders: with which settings, and when.
        self._growth: tuple[Settings, float, list[str]] | None = None
        self._is_ready = False
        self.settings_fault: str | None = None
        self.behind: str | None = None
        self._is_at_once = False
        self._refresh_elsewhere: Callable[[bool], None] | None = None
        self._looked_at = self._tried_at = 0.0
        self._connect(boot_id())
        key = id(self)
        _spools[key] = ref(self, lambda _: _spools.pop(key, None))

    def _connect(self, boot: str) -> None:
        """Make what is used by one process only, and by one thread at a time."""
        self._lock = RLock()
        self._index = Index(self.layout.index, self.layout.root, boot)
        self._storage = Storage(self.layout, self._index)
        self._storage.refresh = _weakly(self, SpoolBase._mirror)
        self._storage.before_end = _before_end(self)
        self._taking_in: Intake | None = None
        # Random ends of ids that were drawn already must not be used in two processes.
        self._templates: Templates | None = None
        self._prepared = 0

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

            settings = _weakly(self, SpoolBase.settings)
            self._taking_in = Intake(self.layout, self._index, self._storage, settings)
            self._taking_in.keeps_file = self._is_at_once
            self._taking_in.refresh_elsewhere = self._refresh_elsewhere
        return self._taking_in

    def answer_at_once(self, elsewhere: Callable[[bool], None] | None = None) -> Self:
        """Let this object tell what is known when the index cannot be brought up to date, as while another process has it.

        A command waits for a second, and then reads all folders into an index of its own. Somebody who looks at a page, and
        asks again in two seconds, does not want that: `behind` says then why he sees an older state.

        Args:
            elsewhere: brings the index up to date in another thread, for all objects of the program; raises IndexBehind if
                that takes long. It is called with True if there is no index: else it may have been done a moment ago, and
                need not be done again. None: it is done here.

        Returns:
            this object. Its methods raise IndexBehind where nothing is known yet, or where jobs are to be changed.
        """
        self._is_at_once, self._refresh_elsewhere = True, elsewhere
        self._taking_in = None
        return self

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

    def _job_defaults(self) -> JobDefaults:
        """Return what jobs get for the fields that they leave out; the file of a queue is read at its first job."""
        from queuectl.config.settings import JobDefaults

        return JobDefaults(self.layout, self.settings())

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
        except Exception as error:
            if self._is_at_once:
                _raise_behind(error)
            raise
        finally:
            self._intake.report = None

    def _look(self) -> None:
        """Refresh for a command that only reads. A bad settings file must not hide the jobs that are known already.

        Files that were dropped since then are not taken in, as their defaults are not known; `settings_fault` says so.
        """
        if self.behind is not None and time.monotonic() - self._tried_at < BELIEVED and self._index.usable:
            return
        try:
            self._mirror()
            self.settings_fault = self.behind = None
            self._looked_at = time.time()
        except IndexBehind as error:
            if not self._index.believe():
                raise
            self._tried_at = time.monotonic()
            since = f", as it was at {times.local(self._looked_at)}" if self._looked_at else ""
            self.behind = f"{error}; this is what was known before{since}"
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
    def _ask(self, question: Callable[[], T]) -> T:
        """Run a query on the index. If the index turns out to be damaged, rebuild it and run the query again."""
        import sqlite3

        try:
            return question()
        except sqlite3.DatabaseError as error:
            self._index.broken = str(error)
            self._look()
        try:
            return question()
        except sqlite3.Error as error:
            if self._is_at_once:
                _raise_behind(error)
            raise

    def _begin_change(self, words: str) -> None:
        """Make the index agree with the folders before jobs are changed; `words` are the command for the hint."""
        access.refuse_others(self.layout, words)
        self._mirror()
        access.refuse_unwritable(self._storage)

    @locked
    def _find(self, job_id: str) -> Row:
        row = self._ask(lambda: self._index.get(job_id)) if is_id(job_id) else None
        if row is None:
            raise self._unknown(job_id)
        return row

    def _unknown(self, job_id: str) -> QueuectlError:
        """Return the error for a job of which the index has no row."""
        if fault := self._intake.fault:  # the file that cannot be read may be the one that is asked for
            return SpoolError.from_os("read", fault.filename or self.layout.root, fault)
        return JobNotFound(job_id)

    @locked
    def _now(self, job_id: str) -> Row:
        """Return the row of a job, updated from its file."""
        self._begin_change("set …")
        row = self._find(job_id)
        return self._find(job_id) if self._ask(lambda: self._intake.freshen([row])) else row

    @locked
    def _rows(self, ids: Iterable[str]) -> dict[str, Row]:
        """Return the rows of these jobs in the index, by id; unknown ones are left out."""
        self._mirror()
        return self._ask(lambda: self._index.rows_of(list(ids)))

    @locked
    def _fresh_rows(self, ids: Iterable[str]) -> dict[str, Row]:
        """Return the rows of these jobs, updated from their files, by id; unknown ones are left out."""
        known = list(filter(is_id, ids))
        rows = self._rows(known)
        if self._ask(lambda: self._intake.freshen(list(rows.values()))):
            rows = self._rows(known)
        return rows


def _raise_behind(error: Exception) -> None:
    """Raise IndexBehind instead of an error of SQLite.

    Raises:
        IndexBehind: the index cannot be used just now.
    """
    import sqlite3

    if isinstance(error, sqlite3.Error):
        words = str(error)
        why = "another process has the index" if "locked" in words or "another process" in words else words
        raise IndexBehind(f"the index cannot be brought up to date: {why}") from None


def only(results: Mapping[str, T | QueuectlError]) -> T:
    """Return the result of the only job, or raise its error."""
    [result] = results.values()
    if isinstance(result, QueuectlError):
        raise result
    return result


def all_of(results: Mapping[str, T | QueuectlError]) -> dict[str, T]:
    """Return the results of all jobs, or raise the error of the first one that has one."""
    found: dict[str, T] = {}
    for job_id, result in results.items():
        if isinstance(result, QueuectlError):
            raise result
        found[job_id] = result
    return found


_spools: dict[int, ref[SpoolBase]] = {}
"""All objects of this process, for a process that is forked from it."""


def _weakly(spool: SpoolBase, method: Callable[[SpoolBase], T]) -> Callable[[], T]:
    """Return a bound method that does not keep the spool alive: else only the garbage collector would close its files."""
    found = ref(spool)

    def call() -> T:
        alive = found()
        if alive is None:
            raise ReferenceError("the Spool of this index was deleted")
        return method(alive)

    return call


def _before_end(spool: SpoolBase) -> Callable[[Sequence[tuple[Job, str]]], None]:
    """Return what queues the jobs of rules that tell of an end; nothing is loaded before one comes."""
    settings, found = _weakly(spool, SpoolBase.settings), ref(spool)

    def tell(ended: Sequence[tuple[Job, str]]) -> None:
        from queuectl.rules.job_rules import JobRules

        if (alive := found()) is not None:
            JobRules(alive._storage, settings).before_end(ended)

    return tell


def _after_fork() -> None:
    """Let each Spool of a forked process open the index anew: a thread of the parent may be in the middle of it."""
    for found in list(_spools.values()):
        if spool := found():
            spool._index.leave_to_parent()
            spool._connect(spool._index.boot)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
