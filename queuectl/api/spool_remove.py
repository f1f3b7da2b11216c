"""The part of Spool that deletes jobs: single ones, many, all, and old ones."""

from __future__ import annotations

import os

from queuectl.api.spool_base import SpoolBase, all_of, locked
from queuectl.errors import JobNotFound, MoveError, QueuectlError, SpoolError
from queuectl.job.fields import STATES, state_of
from queuectl.job.times import micros
from queuectl.layout import DEAD, DONE, PENDING
from queuectl.system import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from queuectl.index.filter import Filter
    from queuectl.storage.retention import Purged

PAGE = 20_000
"""How many jobs are deleted between two reports of progress."""


class RemovePart(SpoolBase):
    """Deletes jobs."""

    def forget(
        self, job_id: str, *, downstream: bool = False, cancel: bool = False, durable: bool = True
    ) -> None:
        """Delete a job and its output. When this returns, the job is nowhere in the spool.

        Args:
            downstream: delete the jobs that name it in `after` and the like as well, and those that name these, unless
                they are completed.
            cancel: end it first if it runs; this may take as long as the setting kill_grace.
            durable: with False, a power cut may bring the job back until `sync_deletions`: faster for many jobs.

        Raises:
            JobNotFound, MoveError: there is no such job, or it runs.
            StillUnderWay: it was cancelled, but has not ended in time; or a worker still has its file.
        """
        all_of(self.forget_many([job_id], downstream=downstream, cancel=cancel))
        if durable:
            self.sync_deletions()

    def forget_many(
        self,
        ids: Iterable[str] | Filter = (),
        *,
        where: Filter | None = None,
        downstream: bool = False,
        cancel: bool = False,
        tell: Callable[[str, QueuectlError | None], None] = lambda *_: None,
    ) -> dict[str, QueuectlError | None]:
        """Delete several jobs and their output: first all that wait, in one go, so that no worker starts them.

        A power cut may bring jobs back until `sync_deletions`.

        Args:
            ids: the jobs, by id or by a filter, which may also be given as `where`. A filter without states selects all
                but running jobs; with `cancel`, those too.
            downstream: as well the jobs that wait for these, in turn, see `forget`.
            cancel: end running jobs first.
            tell: called with the id of each job and its result, as soon as that is known.

        Returns:
            for each id None if it is deleted, else the error, as for `forget`.

        Raises:
            SpoolError: the spool cannot be read.
            ValueError: jobs in a state of the filter cannot be deleted.
            TypeError: both ids and a filter are given, or one id that is not in a list.
        """
        from queuectl.api import listing
        from queuectl.api.removal import Removal

        results: dict[str, QueuectlError | None] = {}

        def told(job_id: str, error: QueuectlError | None) -> None:
            results[job_id] = error
            tell(job_id, error)

        self._begin_change("remove …")
        states = STATES if cancel else listing.REMOVED
        which = listing.chosen(self, ids, where, "deleted", states)
        if downstream:
            from queuectl.api.downstream import to_remove

            which = to_remove(self, which)
        Removal(self, which, cancel=cancel, tell=told).run()
        return results

    def clear(
        self,
        state: str | None = None,
        progress: Callable[[int], None] | None = None,
        *,
        where: Filter | None = None,
        tell: Callable[[str, QueuectlError | None], None] = lambda *_: None,
    ) -> tuple[int, int]:
        """Delete all jobs, those of one state, or those that a filter selects; running jobs are kept.

        Unless all are deleted, a job for which another one waits is kept, too.

        Args:
            progress: called with the number of jobs deleted so far.
            tell: called with the id of each job, and None or the error that kept it: StillNeeded if another waits for it.

        Returns:
            how many were deleted, and how many were kept because they run.

        Raises:
            ValueError: there is no such state.
            StillUnderWay: a worker still has the file of a job.
            SpoolError: a file cannot be deleted.
        """
        state, where = state_of(state), where if where is None or state is None else where.of_states(state)
        self._begin_change("clear")
        deleted = kept = 0

        def told(job_id: str, error: QueuectlError | None) -> None:
            nonlocal deleted, kept
            tell(job_id, error)
            deleted += error is None
            kept += type(error) is MoveError
            if error is not None and not isinstance(error, MoveError | JobNotFound):
                raise error

        from queuectl.api.removal import Removal

        everything = state is None and where is None
        for ids in self._pages(state) if where is None else [self._selected(where)]:
            Removal(self, ids, cancel=False, tell=told, needed_too=everything).run()
            if progress:
                progress(deleted)
        self.sync_deletions()
        return deleted, kept

    def _selected(self, where: Filter) -> list[str]:
        from queuectl.api import listing

        return [row.id for row in listing.select(self, where=where)]

    def _pages(self, state: str | None) -> Iterator[list[str]]:
        """Yield the ids of the jobs in this state, or in all, some thousand at a time, from the end of the line."""
        ids = self._ask(lambda: self._index.ids_from_the_end(state))
        return (ids[start : start + PAGE] for start in range(0, len(ids), PAGE))

    @locked
    def purge(
        self,
        *,
        older_than: float | str | None = None,
        keep: int | None = None,
        where: Filter | None = None,
        logs_only: bool = False,
        dry_run: bool = False,
        progress: Callable[[int], None] | None = None,
    ) -> Purged:
        """Delete old jobs that are completed or dead, with their output; the oldest first.

        Jobs that have changed meanwhile are kept, and so are files that are not valid jobs.

        Args:
            older_than: only jobs that ended this long ago, in seconds or like "7d".
            keep: keep this many of the newest jobs in each state; with `where`, of the jobs that it selects.
            where: only jobs that this filter selects.
            logs_only: delete the output of the jobs, and keep the jobs.
            dry_run: only count.
            progress: called with the number of jobs checked so far.

        Returns:
            how many jobs and log files were deleted, or would be, and their size.

        Raises:
            ValueError: neither older_than nor keep is given, or a value is wrong.
            SpoolError: a file could not be deleted.
        """
        from queuectl.job import times
        from queuectl.storage import retention

        if older_than is None and keep is None:
            raise ValueError("say what is to go: older_than, keep, or both")
        if keep is not None and keep < 0:
            raise ValueError(f"keep must be 0 or more, not {keep}")
        if dry_run:
            self._mirror()  # where nothing can be written, too
        else:
            self._begin_change("purge …")
        before = (
            None if older_than is None else micros(self._storage.now() - times.parse_duration(older_than))
        )
        states = [
            name for name in ("completed", "dead") if not (where and where.states) or name in where.states
        ]
        only = None if where is None or where.is_open else set(self._selected(where))
        try:
            return retention.purge(
                self._storage,
                before=before,
                keep=keep or 0,
                states=states,
                only=only,
                logs_only=logs_only,
                dry_run=dry_run,
                progress=progress,
            )
        except OSError as error:
            raise SpoolError.from_os("delete", error.filename or self.layout.root, error) from None

    @locked
    def sync_deletions(self) -> None:
        """Make deletions durable: a deleted job that comes back after a power cut would run."""
        # Without a note another object may have deleted them.
        for place in sorted(self._storage.deleted_in or (PENDING, DONE, DEAD)):
            folder = os.path.join(self.layout.root, place)
            try:
                files.sync_folder(folder)
            except FileNotFoundError:
                continue  # there is no spool, or somebody has deleted the folder
            except OSError as error:
                raise SpoolError.from_os("sync", folder, error) from None
        self._storage.deleted_in.clear()
