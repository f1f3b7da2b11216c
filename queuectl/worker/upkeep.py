"""What a worker does once a second, whether a job runs or not.

It reads changed settings, takes in dropped files, looks for leftovers of dead workers, for a pause, for room on the
disk and for unsafe permissions. A fault in one of these does not keep the others from being done.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

from queuectl.control import mounts, pause, permissions
from queuectl.executor.spawn import can_start
from queuectl.intake.drop_folder import DropFolder
from queuectl.rules.scheduler import RuleScheduler
from queuectl.worker import idle, preload
from queuectl.worker.health import FaultBarrier, Readiness, StartFault
from queuectl.worker.maintenance import Maintenance
from queuectl.worker.parent_scan import ParentScan

if TYPE_CHECKING:
    from collections.abc import Callable

    from queuectl.config.reload import CurrentSettings
    from queuectl.control.registration import Registration
    from queuectl.intake.reconcile import Intake
    from queuectl.storage.file_pool import FilePool
    from queuectl.storage.transitions import Storage
    from queuectl.worker.scan_scheduler import ScanScheduler
    from queuectl.worker.signals import StopFlags

LOAD_AFTER = 1.0
"""Seconds. A younger worker with running jobs loads only what they need: loading the rest takes 50 ms, in which no job starts."""


class Held(Protocol):
    """The jobs that a worker, or a dispatcher, has in hand.

    Attributes:
        file_pool: its recycled files; None: it has none.
    """

    file_pool: FilePool | None

    @property
    def is_open(self) -> bool:
        """Whether there is one that does not run, or has ended and is not recorded."""

    def try_again(self) -> None:
        """Try again to record what the disk has refused."""

    def give_up_cancelled(self) -> None:
        """Give up those that somebody has cancelled.

        Raises:
            OSError, sqlite3.Error: the disk or the index refused.
        """


class Upkeep:
    """The periodic work of one worker.

    Args:
        safe: checks the permissions of the spool and of the folders above it.
        say: takes a line for the log.

    Attributes:
        due_at: when the next round is due, by the monotonic clock.
        barrier: reports the faults of rounds. It is not the one for claims: a lasting fault here must delay no job.
        spool_lost: whether another folder lies at the path of the spool now.
        snapshot: of the time of the last round.
        maintenance, readiness, start_fault, rules: what a round looks at.
        heeds: is told the mark of the pause, and returns that of the one which is heeded. Others are told of that one.
    """

    _name: str
    _registration: Registration | None = None
    _batch: Held

    def __init__(
        self,
        storage: Storage,
        current: CurrentSettings,
        intake: Intake,
        scheduler: ScanScheduler,
        flags: StopFlags,
        safe: permissions.PermissionCheck,
        say: Callable[[str], None],
    ) -> None:
        self._current, self._intake, self._scheduler = current, intake, scheduler
        self._flags, self._say = flags, say
        self.barrier = FaultBarrier(say, storage.index)
        self._layout, self._index = storage.layout, storage.index
        self._pause = pause.PauseCheck(storage.layout)
        self._drops = DropFolder(storage, self.barrier.say_once)
        self.start_fault = StartFault(can_start)
        danger = mounts.danger(storage.layout, safe)
        looks = danger, self._pause.look, self.start_fault.look
        self.readiness = Readiness(storage.layout.root, self._tell_readiness, *looks)
        self._parents = ParentScan(storage.index, intake)
        storage.refresh = intake.refresh  # the keys of jobs that rules queue are decided by it
        self.rules = RuleScheduler(storage, lambda: current.settings, danger, say)
        storage.before_end = self.rules.about_jobs.before_end
        self.maintenance = Maintenance(storage, say, self.barrier.say_once)
        self.snapshot = idle.Snapshot(storage.layout, safe.above, safe.within)
        self.heeds: Callable[[str | None], str | None] = lambda mark: mark
        self.due_at = 0.0
        self.spool_lost = self._is_loaded = False
        self._load_at = time.monotonic() + LOAD_AFTER

    def work_for(self, name: str, registration: Registration | None, batch: Held) -> None:
        """Work under another name from now on. A worker calls this before the first round; `batch` holds the attempts that have ended under it."""
        self._name, self._registration, self._batch = name, registration, batch

    def run(self, *, busy: bool = False) -> bool:
        """Do a round if it is due or asked for; returns whether it was.

        Args:
            busy: a job is running.
        """
        now = time.monotonic()
        if now < self.due_at and not self._flags.look_requested:
            return False
        self.due_at = now + idle.TICK
        self._flags.look_requested = False
        if not self.barrier.tripped:
            self.barrier.reset()
        self.barrier.tripped = False
        if self.has_lost_spool():
            return True
        if not busy:
            self.snapshot.take()
        self._flags.look()
        current, name = self._current, self._name
        has_no_job = not (busy or self._batch.is_open)
        self._batch.try_again()
        # Each has a barrier of its own: a fault of one must not keep the others from being done.
        with self.barrier:
            self._look_at_spool()
        with self.barrier:
            if self._registration:
                self._registration.restore(idle=has_no_job)
        with self.barrier:
            self._look_for_work(self._batch, busy=busy)
        with self.barrier:
            self._parents.look()
        with self.barrier:
            self.maintenance.take_back(current.settings, name, has_no_job=has_no_job)
        with self.barrier:
            self.maintenance.look(current.settings, name)
        with self.barrier:
            self.readiness.look(current.settings.min_free_space)
            self.note("pause_seen", self.heeds(self._pause.seen))
        with self.barrier:
            if not self.readiness.blocked:
                self._scheduler.take_from_drop_folder(self._drops, current.settings, busy=busy)
        with self.barrier:
            self.rules.look()
        with self.barrier:
            self.rules.about_jobs.look(is_keeper=self.rules.has_lock)
            self.note("rules", self.rules.about_jobs.trouble)
        self.due_at = min(self.due_at, time.monotonic() + self.rules.due_in())
        return True

    def put_off(self) -> None:
        """Do the next round in a second, or when a rule is due."""
        self.due_at = time.monotonic() + min(idle.TICK, self.rules.due_in())

    def owes_rules(self) -> bool:
        """Whether rules want something queued before this worker may leave. What has just happened they are told at once."""
        if self.rules.about_jobs.has_news:
            self.due_at = 0.0
        with self.barrier:
            return self.rules.has_work
        return True

    def _look_at_spool(self) -> None:
        pool = self._batch.file_pool
        if pool is not None:
            pool.flush()  # else a long job would leave the outcomes before it unsynced
            pool.keep_reserve()
        self._current.check()
        if not self._index.usable:
            self._intake.refresh()

    def _look_for_work(self, batch: Held, *, busy: bool) -> None:
        if self._registration:
            batch.give_up_cancelled()
        self._scheduler.check_watch()
        if busy:
            self._scheduler.continue_scan()

    def has_lost_spool(self) -> bool:
        """Whether the spool that this worker opened is gone from its path; then it ends its run and touches nothing.

        What lies at the path now is another spool, with workers of its own, whose jobs it must not take for its own.
        Nobody could see or stop this worker any more.
        """
        if not self.spool_lost and self._registration and not self._registration.is_in_place():
            self.spool_lost = True
            self._say(f"{self._layout.root} was removed or replaced; this worker leaves")
            self._flags.stop(force=True)
        return self.spool_lost

    def note(self, what: str, reason: str | int | None) -> None:
        """Show a trouble of this worker in `worker list` and `status`; None: it is over."""
        if self._registration:
            self._registration.report(what, reason)

    def _tell_readiness(self, reason: str | None, line: str) -> None:
        self.note("paused", reason)
        self._say(line)

    def load_modules(self, *, busy: bool = False) -> None:
        """Load all modules before they can be replaced: before an idle wait, or when jobs have run for LOAD_AFTER.

        Args:
            busy: a job is running.
        """
        if self._is_loaded or (busy and time.monotonic() < self._load_at):
            return
        try:
            preload.load_all(with_rules=self.rules.are_there)
        except ImportError as missing:
            self._say(f"a part of queuectl cannot be loaded ({missing}); this worker leaves: start it again")
            self._flags.lacks_modules = True
            self._flags.stop(force=False)
        except OSError:
            return  # no descriptors left: tried again at the next wait, as they come back
        self._is_loaded = True
