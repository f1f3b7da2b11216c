"""Record the outcomes of finished attempts, those of short jobs several at a time.

Settling several jobs together costs one transaction and one pass through the code, which a command has just pushed out
of the processor's caches. Until then the run file lists the finished attempts (see `run_lock`), so a worker that is
killed loses none of them.

An outcome that the disk refuses is kept, and tried again once a second. It keeps its slot: other jobs start in the free
ones, and on a disk that takes no outcome no more jobs are run than the worker has slots.
"""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from queuectl.control import commands, mounts, run_lock
from queuectl.errors import QueuectlError
from queuectl.job import outcome as outcomes
from queuectl.job.outcome import Ending
from queuectl.storage import dead_letters
from queuectl.storage.settle import settle, settle_all
from queuectl.worker import source_files
from queuectl.worker.health import FAULT_PAUSE
from queuectl.worker.job_run import record_outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from queuectl.index.row import Row
    from queuectl.storage.file_pool import FilePool
    from queuectl.storage.transitions import Claim
    from queuectl.worker.job_run import WorkerContext
    from queuectl.worker.prefetch import Prefetch
    from queuectl.worker.scan_scheduler import ScanScheduler


TRIED_IN_A_ROW = 3
"""Outcomes that are tried one after the other although each of them is refused. A disk may take a second for each."""


class SettleBatch:
    """The finished attempts of one worker that are not recorded yet.

    Args:
        prefetch: the jobs it has claimed and not started.
        scheduler: knows whether new files must be taken in before the next claim.

    Attributes:
        finished: the claims of those attempts, oldest first.
        refused: how many of these the disk has refused: the first ones.
        run_file_lines: a line for each of them, to be written into the run file at the next start.
        file_pool: the recycled files of the worker; None until it runs.
    """

    def __init__(self, context: WorkerContext, prefetch: Prefetch, scheduler: ScanScheduler) -> None:
        self.finished: list[Claim] = []
        self.refused = 0
        self.run_file_lines: list[str] = []
        self.file_pool: FilePool | None = None
        self._context, self._prefetch, self._scheduler = context, prefetch, scheduler
        self._storage, self._index, self._flags = context.storage, context.storage.index, context.flags
        self._refused_with: int | None = None

    @property
    def is_open(self) -> bool:
        """Whether the worker holds a job that has not started, or one that is finished and not recorded."""
        return bool(self.finished or self._prefetch)

    def add(self, claims: Sequence[Claim]) -> None:
        """Record attempts that have finished: those of prefetched jobs later if all can wait for them, else now."""
        if not self._flags.stopping and all(map(self._can_wait, claims)):
            for claim in claims:
                self.defer(claim)
            if self._scheduler.has_names:
                self._scheduler.take_in_named()  # an urgent job may be the next
        else:
            self.settle(*claims)

    def _can_wait(self, claim: Claim) -> bool:
        """Whether this is an ordinary success, and other jobs of its batch follow soon."""
        outcome = claim.outcome
        return (
            bool(self._prefetch.ready)
            and outcome is not None
            and outcome.ending == Ending.SUCCEEDED
            and not outcome.leftovers
            and claim.row.unique_key is None
            and claim.job.on_crash != "dead"
            and self._prefetch.is_batch_fresh
        )

    def defer(self, claim: Claim) -> None:
        """Keep a finished attempt until others are settled."""
        self.finished.append(claim)
        duration = claim.outcome.duration if claim.outcome else 0.0
        self.run_file_lines.append(run_lock.line(claim.job, claim.run, claim.ended_at, duration))

    def settle(self, *claims: Claim) -> bool:
        """Record outcomes and all deferred ones, and claim the next jobs.

        Returns:
            False if one is not recorded: the job was taken away meanwhile, or the disk refused.
        """
        self._prefetch.note_runs_ended()
        self._scheduler.take_in_named()  # an urgent job may be the next
        self.finished.extend(claims)
        self.settle_all(self._claim_next)
        with self._context.barrier:
            self._prefetch.read()
        return all(claim.settled for claim in claims)

    def _claim_next(self) -> None:
        """Claim the next jobs in the transaction that settles these, unless new files have to be taken in first."""
        if (
            not (self._flags.stopping or self._prefetch.ready)
            and self._prefetch.has_room
            and self._index.usable
            and self._scheduler.is_up_to_date()
        ):
            self._scheduler.has_news = False
            self._prefetch.take()

    def end(self, *, keep: int = 0) -> None:
        """Record all finished attempts, and put the jobs back that have not started.

        Args:
            keep: so many of the jobs stay claimed, the first ones: there is a slot for each, and they start next.
        """
        self.settle_all()
        with self._context.barrier:
            self._prefetch.release(keep=keep)

    def put_back(self, claim: Claim) -> None:
        """Put back a job that could not be run, with those that have not started; record what has ended before.

        Nothing waits here for a disk that refuses: the jobs stay claimed until the next start, or the next try.
        """
        self._prefetch.ready.appendleft(claim)
        self.end()

    # -- record ----------------------------------------------------------------------------------------------------

    def settle_all(self, then: Callable[[], None] | None = None) -> None:
        """Record all finished attempts, except for those that the disk has refused before. It may refuse these, too.

        Args:
            then: called in the transaction in which they are recorded.
        """
        known = self.refused
        if len(self.finished) == known:
            return
        self._record(known, len(self.finished), then)
        if self.refused > known:
            # They would count as running, and no idle worker could take them.
            with self._context.barrier:
                self._prefetch.release()

    def try_again(self) -> None:
        """Try again to record what the disk has refused. A worker does so once a second."""
        if self.refused:
            self._record(0, self.refused)

    def may_leave(self) -> bool:
        """Whether a worker that was told to stop can leave: each outcome is recorded, or given up.

        A graceful stop waits for a disk that is full, but not for a folder that can never take the outcome. A forced one
        tries once more. That the attempts have ended is written down, so that they are not made again.
        """
        if self._flags.forced:
            self.try_again()
        return not self.refused or self._flags.forced or self._refused_with in mounts.FOR_GOOD

    def leave(self) -> None:
        """As `end`, for a worker that leaves because of an exception: wait for the disk as a graceful stop does."""
        self.end()
        while not self.may_leave():
            time.sleep(FAULT_PAUSE)
            self._flags.look()
            self.try_again()

    def _record(self, first: int, end: int, then: Callable[[], None] | None = None) -> None:
        """Record the outcomes of `finished[first:end]`, all together, or each alone if that is refused."""
        behind, before = len(self.finished) - end, self.refused
        error = self._try(first, end, then)
        if error is not None and end - first > 1:
            error = self._try_each(first, behind) or error
        self.refused = len(self.finished) - behind
        if not self.refused:
            if before:
                run_lock.forget_ended(self._storage.layout, self._context.name)
        elif error is not None:
            self._refused_with = getattr(error, "errno", None)
            if not before:
                reason = (getattr(error, "strerror", None) or str(error) or "no memory").lower()
                self._context.say(f"cannot record the outcome of {self.finished[0].job.id} yet: {reason}")
            self._note_refused()
        if not behind:
            self.run_file_lines.clear()

    def _try_each(self, first: int, behind: int) -> Exception | None:
        """Record outcomes one by one, as one of them may be the reason; return the last refusal.

        Args:
            first: the place of the first one in `finished`.
            behind: how many are behind the last one.
        """
        at, in_a_row, last = first, 0, None
        while at < len(self.finished) - behind and in_a_row < TRIED_IN_A_ROW:
            error = self._try(at, at + 1)
            in_a_row = 0 if error is None else in_a_row + 1
            at += error is not None
            last = error or last
        # Those that were not tried are the first ones of the next time.
        end = len(self.finished) - behind
        self.finished[first:end] = self.finished[at:end] + self.finished[first:at]
        return last

    def _try(self, first: int, end: int, then: Callable[[], None] | None = None) -> Exception | None:
        """Record the outcomes of `finished[first:end]` together, and take them out; return why some are not recorded."""
        part = self.finished[first:end]
        at_once = any(claim.job.on_crash == "dead" or source_files.is_taken(claim.job) for claim in part)
        for claim in part:
            if not claim.state:
                record_outcome(claim)
        try:
            self._settle(part, at_once=at_once, then=then)
        except OSError as error:
            return error
        except (sqlite3.Error, MemoryError) as error:
            # The next scan of the folders corrects the index.
            self._index.broken = str(error) or "no memory"
            left = [claim for claim in part if not claim.settled]
            self.finished[first:end] = left
            self._report([claim for claim in part if claim.settled])
            return error if left else None
        del self.finished[first:end]
        self._report(part)
        return None

    def _settle(self, part: Sequence[Claim], *, at_once: bool, then: Callable[[], None] | None) -> None:
        """Settle these jobs, in folders that are made again if somebody has deleted one.

        Raises:
            OSError, sqlite3.Error, MemoryError: the disk or the index refused.
        """
        while True:
            try:
                settle_all(
                    self._storage,
                    part,
                    self.file_pool,
                    at_once=at_once,
                    then=then,
                    put_back=self._obey_late_cancels,
                )
            except FileNotFoundError:
                if not self._make_folders():
                    raise
            else:
                return

    def _note_refused(self) -> None:
        """Write down which of the refused attempts have succeeded: if the worker is killed, they are not made again."""
        lines = [
            run_lock.line(claim.job, claim.run, claim.ended_at, claim.outcome.duration)
            for claim in self.finished[: self.refused]
            if claim.outcome is not None and claim.outcome.ending == Ending.SUCCEEDED
        ]
        with suppress(QueuectlError):
            run_lock.note_ended(self._storage.layout, self._context.name, self._index.boot, lines)

    def _make_folders(self) -> bool:
        """Make the spool's folders again if somebody deleted one; False: none was missing, or none can be made."""
        layout = self._storage.layout
        if all(os.path.isdir(path) for path in (layout.pending, layout.done, layout.dead, layout.tmp)):
            return False
        with suppress(QueuectlError):
            layout.create()
            return True
        return False

    def _obey_late_cancels(self, rows: Sequence[Row]) -> None:
        """Move failed jobs to dead/ that were cancelled while their failure was being recorded, so that none is retried.

        This must come after the outcome is in its folder, and in the same transaction. Whoever cancels either leaves the
        note before that, or finds the job there; and no other worker can claim the job in between.
        """
        layout, worker = self._storage.layout, self._context.name
        runs = {claim.job.id: claim.job.runs for claim in self.finished}
        for row in rows:
            if commands.is_cancel_requested(layout, worker, row.id, runs.get(row.id, 0)):
                with suppress(QueuectlError):  # the person has moved it already
                    dead_letters.bury(self._storage, row, outcomes.CANCELLED)

    def give_up_cancelled(self) -> None:
        """Give up jobs that somebody has cancelled after they were claimed and before they were started.

        Raises:
            OSError, sqlite3.Error: the disk or the index refused.
        """
        layout, worker = self._storage.layout, self._context.name

        def is_cancelled(claim: Claim) -> bool:
            return commands.is_cancel_requested(layout, worker, claim.job.id or "", claim.job.next_run)

        for claim in self._prefetch.take_out(is_cancelled):
            outcomes.record_cancel(claim.job, worker, now=self._storage.now(), ran=False)
            if settle(self._storage, claim, "dead"):
                self._context.say(f"dead {claim.job.id}: {claim.job.last_error}")

    def _report(self, claims: Sequence[Claim]) -> None:
        """Log what became of these jobs in one call: one for each line would cost a short job more than its claim."""
        lines = []
        for claim in claims:
            if not claim.settled:
                claim.lines[-1:] = [
                    f"{claim.job.id} was taken away while it ran; its outcome is not recorded"
                ]
            lines += claim.lines
        if lines:
            self._context.say("\n".join(lines))
        for claim in claims:
            if claim.settled:
                if claim.job.source is not None:
                    source_files.follow(claim.job, claim.state, self._context.say)
                self._context.events.ended(claim.job, claim.state, self._context.name)
