"""The next job of a worker: whether there is one that may start now, and its claim."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from queuectl.intake.reconcile import Intake
    from queuectl.storage.transitions import Claim
    from queuectl.worker.job_run import WorkerContext
    from queuectl.worker.prefetch import Prefetch
    from queuectl.worker.scan_scheduler import ScanScheduler
    from queuectl.worker.settle_batch import SettleBatch
    from queuectl.worker.slots import Slots
    from queuectl.worker.upkeep import Upkeep


class Claiming:
    """Claims the jobs of one worker.

    Args:
        context: the worker's.
        prefetch, batch: the jobs that it has claimed, and those that have ended and are not recorded.
        slots: what it runs.
        scheduler, intake: take in new files before a claim.
        upkeep: says whether a job may start at all.
    """

    def __init__(
        self,
        context: WorkerContext,
        prefetch: Prefetch,
        batch: SettleBatch,
        slots: Slots,
        scheduler: ScanScheduler,
        intake: Intake,
        upkeep: Upkeep,
    ) -> None:
        self._context, self._prefetch, self._batch, self._slots = context, prefetch, batch, slots
        self._scheduler, self._intake, self._upkeep = scheduler, intake, upkeep
        self._storage, self._index, self._limits = context.storage, context.storage.index, context.limits

    def next(self) -> Claim | None:
        """Return the next job, claimed; None: there is none to be had now."""
        with self._context.barrier:
            if not self._prefetch.ready:
                self._claim()
            elif self._scheduler.has_news:
                self._scheduler.has_news = False
                self._prefetch.claim_more_urgent()
        # A claimed job that could not be put back must wait too, while no job may start.
        if not self._prefetch.ready or self._upkeep.readiness.blocked:
            return None
        if not self._may_start(self._prefetch.ready[0]):
            # Kept, this job and those behind it would count as running, and no idle worker could take them.
            self._batch.end()
            return None
        return self._prefetch.next()

    def ready_and_due(self) -> tuple[bool, int | None]:
        """Return whether a job can be claimed now, and when the next one is due (microseconds or None)."""
        ready, due = self._index.ready_and_due()
        if ready:
            suspects = self._slots.suspects
            ready = (
                any(self._limits.is_open(row.lane) for row in suspects.next_rows(1))
                if suspects
                else self._limits.has_ready()
            )
        return ready, due

    def give_back_permits(self) -> None:
        """Give back the permits that no claimed job waits for."""
        if not self._limits.has_spare:
            return
        with self._context.barrier:
            self._limits.give_back_unused(self._prefetch.rows())

    def _may_start(self, claim: Claim) -> bool:
        if self._slots.suspects.must_wait(claim.job):
            self._context.barrier.say_once(
                f"cannot start {claim.job.id} beside other jobs, as workers died while it ran: it waits to run alone"
            )
            return False
        with self._context.barrier:
            return self._limits.can_start(claim.row)
        return False

    def _claim(self) -> None:
        if self._upkeep.has_lost_spool():
            return
        # The last of the prefetched jobs may have expired or been taken away: nothing else settles those before it.
        self._batch.settle_all()
        if not self._index.usable:
            self._intake.refresh()
        self._prefetch.read()
        if self._prefetch.ready:
            return
        self._scheduler.take_in()
        ready, due = self.ready_and_due()
        # Check first without the write lock: ten idle workers would otherwise take it every second for nothing.
        if ready or (due is not None and due <= self._storage.now() * 1e6):
            self._scheduler.has_news = False
            self._prefetch.fill()
