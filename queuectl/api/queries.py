"""What a spool is asked: counts, lists, single jobs, workers, output. Part of the Python door."""

from __future__ import annotations

import os
from contextlib import suppress
from itertools import islice

from queuectl.errors import ConfigError, InvalidJob, JobNotFound, SpoolError
from queuectl.index.index import Index
from queuectl.index.row import BY_HAND, SHOWN, accept_as_indexed
from queuectl.job import record as jobs
from queuectl.job.fields import WAITING, is_id, state_of
from queuectl.job.record import Job
from queuectl.layout import PROCESSING, Layout, default_root
from queuectl.storage.transitions import Storage
from queuectl.system import files, safe_open
from queuectl.system.host import boot_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    import builtins
    from collections.abc import Callable, Iterable
    from typing import TypeVar

    from queuectl.api.waiting import Ended
    from queuectl.config.settings import Settings
    from queuectl.control.pause import Pause
    from queuectl.control.registry import WorkerInfo
    from queuectl.index.filter import Filter
    from queuectl.index.row import Row
    from queuectl.intake.reconcile import Intake

    T = TypeVar("T")

_LOOKED_AT = 2000
"""Files among which `status` looks for names that can be no job's: two milliseconds. The doctor looks at all."""


class Questions:
    """A spool that can be looked at.

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
        self._taking_in: Intake | None = None

    @property
    def _intake(self) -> Intake:
        """Made when somebody asks: who only enqueues has no use for it."""
        if self._taking_in is None:
            from queuectl.intake.reconcile import Intake

            self._taking_in = Intake(self.layout, self._index, self._storage, self.settings)
        return self._taking_in

    def settings(self) -> Settings:
        """The settings in force, read anew when their file has changed.

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
        """Make the index anew out of the folders; returns how many jobs there are.

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
        return self._ask(lambda: self._fetched(job_id))

    def _fetched(self, job_id: str) -> Job:
        row = self._find(job_id)
        if self._intake.freshen([row]):
            row = self._find(job_id)
        return self._load(row)

    def file_of(self, job_id: str) -> str:
        """The path of a job's file, where it lies now; of a rejected file's, too.

        Raises:
            JobNotFound: there is none of that id.
        """
        self.refresh()
        row = self._find(job_id)
        return os.path.join(self.layout.root, row.place, row.name)

    def row(self, job_id: str) -> Row:
        """What a list says about one job: its place in the order, and when it could run.

        Raises:
            JobNotFound: there is none of that id.
        """
        self.refresh()
        return self._find(job_id)

    def running_with(self, key: str) -> builtins.list[str]:
        """The ids of the jobs under way that have this unique key: the others wait for them."""
        self.refresh()
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
        """The file went elsewhere between the index's answer and our reading: look once more."""
        self._intake.refresh()
        again = self._index.get(row.id)
        if again is None or (again.place, again.name) == (row.place, row.name):
            raise JobNotFound(row.id)
        return self._load(again)

    def list(
        self, state: str | None = None, limit: int | None = None, *, where: Filter | None = None
    ) -> builtins.list[Row]:
        """The jobs in the order of their arrival, of one state or all; or those that a filter describes, in its order.

        Raises:
            ValueError: there is no such state, or the filter sorts by something that does not exist.
        """
        state = state_of(state)
        if where is not None:
            where = where if state is None else where.of_states(state)
            where = where if limit is None else where.limited_to(limit)
        self.refresh()
        if where is None:
            return self._ask(lambda: self._listed(lambda: self._index.list(state, limit)))
        return self._ask(lambda: self._selected(where))

    def ids(self, beginning: str = "", *states: str, limit: int = 200) -> builtins.list[str]:
        """Ids that begin so, in these states or in all; without a beginning the latest jobs come first."""
        self.refresh()
        return self._ask(lambda: self._index.ids(beginning, states, limit))

    def tags(self) -> builtins.list[str]:
        """The tags that jobs have, in order."""
        self.refresh()
        return self._ask(self._index.tags)

    def _listed(self, look: Callable[[], builtins.list[Row]]) -> builtins.list[Row]:
        rows = look()
        return look() if self._intake.freshen(rows) else rows

    def _selected(self, where: Filter) -> builtins.list[Row]:
        text = where.command
        if not text:
            return self._listed(lambda: self._index.select(where))
        found = self._listed(lambda: self._index.select(where.without_limit))
        return [row for row in found if self._says(row, text)][: where.limit]

    def _says(self, row: Row, text: str) -> bool:
        """Whether a command holds this text; the index has the beginning of a long one, its file all of it."""
        if text.lower() in row.command.lower():
            return True
        try:
            return len(row.command) >= SHOWN and text.lower() in self._load(row).shown_command.lower()
        except JobNotFound:
            return False

    def workers(self) -> builtins.list[WorkerInfo]:
        """The living workers."""
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
        """Wait until jobs are done or dead; one that fails and is tried again is waited for.

        Args:
            ids: one job or several.
            timeout: seconds; None waits as long as it takes.
            success: return as soon as one of them cannot succeed any more.
            tell: called with each as it ends.

        Returns:
            how they ended, in that order.

        Raises:
            JobNotFound: there is no such job to begin with.
            StillUnderWay: some have not ended in that time.
        """
        from queuectl.api.waiting import Waiting

        several = [ids] if isinstance(ids, str) else ids
        return Waiting(self, several, success=success, tell=tell).run(timeout)

    def paused(self) -> Pause | None:
        """Since when the spool is paused, and why; None when it is not."""
        from queuectl.control import pause

        return pause.read(self.layout)

    def notes(self) -> builtins.list[str]:
        """What a person should know beside the numbers."""
        from queuectl.config.settings import Settings
        from queuectl.control import permissions, registry
        from queuectl.job.redact import one_line
        from queuectl.storage import retention
        from queuectl.system import host

        workers = self.workers()
        try:
            settings, found = self.settings(), [*self._warnings]
        except ConfigError as error:
            goes_on = "; workers go on with the settings from before" if workers else ""
            settings, found = Settings(), [f"{error}{goes_on}"]
        else:
            found += [f"{w.name} goes on with older settings: {w.settings}" for w in workers if w.settings]
        if paused := self.paused():
            found.append(f"{paused.sentence}; workers start nothing until: queuectl resume")
        if self._intake.unfinished:
            number = self._intake.unfinished
            found.append(
                f"{number} file{'s' if number > 1 else ''} in pending/ not complete yet, left alone until complete"
            )
        if overlooked := self._overlooked():
            those = f"and {len(overlooked) - 1} more are" if len(overlooked) > 1 else "is"
            found.append(
                f"pending/{one_line(files.printable_name(overlooked[0]))} {those} ignored: a job's file is called NAME.json, in UTF-8"
            )
        found += self._ask(lambda: retention.growth(self.layout, self._index, settings))
        if self._index.path == ":memory:":
            found.append("the index cannot be written here, so every look reads all folders")
        if folder := settings.incoming:
            from queuectl.intake import drop_folder

            found += drop_folder.problems(folder, self.layout)
        found += [
            f"job {job_id} of {name}, which is gone, waits until the last process of its run ends"
            for name, job_id in registry.orphaned_runs(self.layout)
        ]
        # Root, who looks at another user's spool, is no danger to it.
        open_to = (
            None
            if permissions.owner_other_than_root(self.layout)
            else permissions.PermissionCheck(self.layout).look()
        )
        lack = open_to or host.disk_shortage(self.layout.root, settings.min_free_space)
        if lack:
            found.append(f"workers start nothing: {lack}")
        found += [f"{w.name} polls, as no events come: {w.polling}" for w in workers if w.polling]
        return found

    def _overlooked(self) -> builtins.list[str]:
        """What lies in pending/ under names that no job can have; looked for among the first few files."""
        from queuectl.layout import is_misnamed

        try:
            with os.scandir(self.layout.pending) as entries:
                names = [entry.name for entry in islice(entries, _LOOKED_AT) if is_misnamed(entry.name)]
        except OSError:
            return []
        return sorted(names)
