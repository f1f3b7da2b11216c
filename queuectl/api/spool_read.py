"""The part of Spool that reads jobs: counts, lists, single jobs."""

from __future__ import annotations

import os
import time
from contextlib import suppress

from queuectl.api.spool_base import SpoolBase, locked
from queuectl.errors import ConfigError
from queuectl.job.times import micros

TYPE_CHECKING = False
if TYPE_CHECKING:
    import builtins
    from collections.abc import Container, Iterable

    from queuectl.api.dependencies import Waiting
    from queuectl.api.paging import Page
    from queuectl.api.row import Row
    from queuectl.index.filter import Filter
    from queuectl.index.row import Row as IndexRow
    from queuectl.job.record import Job


class ReadPart(SpoolBase):
    """Reads jobs."""

    @locked
    def counts(self) -> dict[str, int]:
        """Return how many jobs are pending, processing, completed, failed and dead."""
        self._look()
        return self._ask(self._index.counts)

    @locked
    def get(self, job_id: str) -> Job:
        """Return one job, read from its file; the folder decides the state.

        For a file in dead/ that is not a valid job, this is a job without a command, and last_error says what is wrong.

        Raises:
            JobNotFound: there is no job with that id.
        """
        from queuectl.api import job_files

        return job_files.current(self, job_id)

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
        """Return one job as a list has it, with its effective priority and what it waits for.

        Raises:
            JobNotFound: there is no job with that id.
        """
        from queuectl.api import listing

        [row] = self._public([listing.one(self, job_id)])
        return row

    @locked
    def rows(self, ids: Iterable[str]) -> dict[str, Row]:
        """Return these jobs as a list has them, by id; unknown ones are left out."""
        return {row.id: row for row in self._public(self._rows(ids).values())}

    @locked
    def waits_for(self, job_id: str) -> builtins.list[Waiting]:
        """Return what a waiting job still waits for: jobs and batches that it names in `after` and the like.

        Raises:
            JobNotFound: there is no job with that id.
        """
        from queuectl.api import dependencies

        return dependencies.waits_for(self, self.get(job_id))

    @locked
    def why_waiting(self, job_id: str) -> builtins.list[str]:
        """Return what keeps a waiting job from starting, one sentence each; nothing for a job that does not wait.

        Raises:
            JobNotFound: there is no job with that id.
        """
        from queuectl.api import why_waiting

        return why_waiting.sentences(self, job_id)

    @locked
    def waited_for_by(self, job_id: str) -> builtins.list[str]:
        """Return the ids of the jobs that still wait for this one, or for its batch, in the order of their arrival.

        Raises:
            JobNotFound: there is no job with that id.
        """
        from queuectl.api import dependencies, listing

        return dependencies.waited_for_by(self, listing.one(self, job_id))

    @locked
    def running_with(self, key: str) -> builtins.list[str]:
        """Return the ids of the running jobs with this unique key: other jobs with the key wait for them."""
        self._look()
        return [row.id for row in self._ask(lambda: self._index.with_key(key, "processing"))]

    @locked
    def list(
        self, state: str | None = None, limit: int | None = None, *, where: Filter | None = None
    ) -> builtins.list[Row]:
        """Return the jobs in the order of their arrival, of one state or all; with a filter, in the order it asks for.

        Args:
            state: only jobs in this state; "done" means completed.
            limit: at most so many.
            where: only jobs that this filter selects.

        Raises:
            ValueError: there is no such state, or no such order.
        """
        from queuectl.api import listing

        return self._public(listing.select(self, state, limit, where=where))

    @locked
    def page(
        self,
        where: Filter | None = None,
        *,
        after: str | None = None,
        before: str | None = None,
        limit: int = 50,
        patience: float = 1.0,
    ) -> Page:
        """Return a part of a list. A late part of a million jobs takes as long as the first, and jobs that come move none.

        Args:
            where: which jobs, and in which order: arrived, finished or next, or one of them with a leading -.
            after: `last` of a page: the jobs that follow it.
            before: `first` of a page: the jobs that come before it.
            limit: at most so many jobs.
            patience: seconds after which the search ends although the page is not full.

        Raises:
            ValueError: a list in this order has no pages, both `after` and `before` are given, or one of them is no place
                in such a list.
        """
        from queuectl.api import paging
        from queuectl.index.filter import Filter

        if after is not None and before is not None:
            raise ValueError("give after or before, not both")
        if limit < 1:
            raise ValueError(f"limit must be 1 or more, not {limit}")
        chosen = (where or Filter()).without_limit
        start, backwards = (after, False) if before is None else (before, True)
        self._look()
        found = self._ask(lambda: paging.read(self, chosen, start, limit, patience, backwards=backwards))
        return paging.page_of(found, self._public(found.rows), backwards=backwards)

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

    @locked
    def next_up(self, limit: int) -> builtins.list[Row]:
        """Return the waiting jobs in the order in which they will run; those that are not due yet come last, by time."""
        from queuectl.api import listing

        return self._public(listing.next_up(self, limit))

    @locked
    def last_ended(self, limit: int) -> builtins.list[Row]:
        """Return the jobs whose last attempt ended most recently, the latest first."""
        from queuectl.api import listing

        return self._public(listing.last_ended(self, limit))

    def _public(self, rows: Iterable[IndexRow]) -> builtins.list[Row]:
        """Return rows of the index as programs get them."""
        from queuectl.api import queues
        from queuectl.api.places import Places
        from queuectl.api.row import made_of

        now, found = micros(time.time()), [*rows]
        ready = {row.lane for row in found if row.ready_key is not None}
        closed: Container[str | None] = ()
        with suppress(ConfigError):  # `settings_fault` tells of it
            closed = queues.closed_lanes(self, ready)
        places = Places(self)
        return [made_of(row, places.of_row(row), now, closed) for row in found]
