"""The loop of one worker: recover, take in, claim, run, settle, wait. One loop serves one run or hundreds."""

from __future__ import annotations

import math
import os
import time
from typing import TYPE_CHECKING

from queuectl.config.queues import QueueChoice
from queuectl.config.reload import CurrentSettings
from queuectl.control import commands, mounts, permissions, registry, run_lock
from queuectl.control.launch import Launch
from queuectl.control.registration import Registration
from queuectl.errors import SpoolError
from queuectl.executor.base import clean_environment
from queuectl.executor.local import LocalRunner
from queuectl.index.index import Index
from queuectl.intake.reconcile import Intake
from queuectl.layout import Layout, default_root
from queuectl.storage import locate, power_loss, recovery
from queuectl.storage.file_pool import FilePool
from queuectl.storage.transitions import Storage
from queuectl.system import open_files
from queuectl.system.host import boot_id
from queuectl.system.wake_up import WakeUp
from queuectl.system.watcher import FolderWatch
from queuectl.worker import idle
from queuectl.worker.claiming import Claiming
from queuectl.worker.events import JobEvents
from queuectl.worker.health import FAULT_PAUSE, FaultBarrier, never_raising
from queuectl.worker.job_run import WorkerContext
from queuectl.worker.leaving import LastLook
from queuectl.worker.limits import Limits
from queuectl.worker.maintenance import tell_what_waits
from queuectl.worker.permit_watch import PermitWatch
from queuectl.worker.prefetch import Prefetch
from queuectl.worker.program import checked_concurrency, checked_queues
from queuectl.worker.scan_scheduler import ScanScheduler
from queuectl.worker.settle_batch import SettleBatch
from queuectl.worker.signals import StopFlags, interrupts_as_stop
from queuectl.worker.slots import Slots
from queuectl.worker.upkeep import Upkeep

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from queuectl.config.settings import Settings
    from queuectl.executor.base import Runner
    from queuectl.worker.events import JobEvent


class Worker:
    """Runs jobs of one spool, one or several at a time, until it is told to stop.

    Args:
        path: the spool; None for the default one.
        drain: leave when nothing is left to do now.
        wait_retries: with drain, wait for retries and scheduled jobs too.
        say: takes one or several lines for the log, without the worker's name.
        on_event: called with a `JobEvent` at the start and at the end of each run. Meanwhile the worker does nothing else.
        mode: how it was started, as `worker list` shows it.
        runner: what runs the attempts.
        concurrency: how many jobs may run at once; None: as many as the setting says, also when it changes.
        queues: serve only these queues; none: all of them.
        not_queues: do not serve these.
        now: the wall clock in epoch seconds.

    Attributes:
        flags: what the worker has been asked to do.
    """

    _no_claim_before = 0.0

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        drain: bool = False,
        wait_retries: bool = False,
        say: Callable[[str], None] | None = None,
        on_event: Callable[[JobEvent], None] | None = None,
        mode: str = "program",
        runner: Runner | None = None,
        concurrency: int | None = None,
        queues: Collection[str] = (),
        not_queues: Collection[str] = (),
        now: Callable[[], float] = time.time,
    ) -> None:
        self.layout = Layout(path if path is not None else default_root())
        self._drain, self._wait_retries, self._mode, self._now = drain, wait_retries, mode, now
        self._say = never_raising(say) if say else (lambda _: None)
        self._events = JobEvents(on_event)
        self._runner = runner or LocalRunner()
        self._environment = clean_environment()
        self._wake_up = WakeUp()
        self.flags = StopFlags(self._wake_up)
        self._current = CurrentSettings(
            self.layout, self._say, lambda fault: self._upkeep.note("settings", fault)
        )
        self._index = Index(self.layout.index, self.layout.root, boot_id(), for_worker=True)
        self._storage = Storage(self.layout, self._index, now)
        self._intake = Intake(self.layout, self._index, self._storage, self._current.check)
        self._watch = FolderWatch(self.layout.pending, self._wake_up)
        safe = permissions.PermissionCheck(self.layout)
        self._barrier = FaultBarrier(self._say, self._index)
        self._scheduler = ScanScheduler(self.layout, self._intake, self._watch, self._barrier)
        self._upkeep = Upkeep(
            self._storage,
            self._current,
            self._intake,
            self._scheduler,
            self.flags,
            safe,
            self._say,
        )
        upkeep = self._upkeep
        self._last_look = LastLook(self._scheduler, upkeep)
        self._readiness, self._maintenance = upkeep.readiness, upkeep.maintenance
        looks = self._scheduler, self._maintenance, self._readiness, upkeep.rules
        self._idle = idle.IdleWait(self.layout, safe, self._wake_up, self._watch, *looks, upkeep.snapshot)
        self._concurrency = checked_concurrency(concurrency)
        choice = QueueChoice(checked_queues(queues), checked_queues(not_queues))
        self._limits = Limits(self._storage, lambda: self._settings, choice, self._say)
        self._permit_watch = PermitWatch(self.layout.permits, self._watch, self._limits)
        self._slots = Slots(self._wake_up, self._index, self._limits.ready, self._limits.is_open)
        self._set_registration(None)

    def _set_registration(self, registration: Registration | None) -> None:
        """Use a worker name, or none; what belongs to the name is made anew."""
        self._registration = self.flags.registration = registration
        self._context = WorkerContext(
            name=self.name,
            registration=registration,
            storage=self._storage,
            runner=self._runner,
            environment=self._environment,
            current=self._current,
            flags=self.flags,
            barrier=self._barrier,
            start_fault=self._upkeep.start_fault,
            say=self._say,
            events=self._events,
            limits=self._limits,
            rules=self._upkeep.rules.about_jobs,
        )
        self._prefetch = Prefetch(
            self._storage,
            self.name,
            self._scheduler,
            self._readiness,
            room=lambda: self._slots.free,
            running=lambda: len(self._slots),
            choose=self._slots.suspects.next_rows,
            admit=self._limits.admit,
        )
        self._batch = SettleBatch(self._context, self._prefetch, self._scheduler)
        self._claiming = Claiming(
            self._context,
            self._prefetch,
            self._batch,
            self._slots,
            self._scheduler,
            self._intake,
            self._upkeep,
        )
        self._upkeep.work_for(self.name, registration, self._batch)
        self._slots.work_for(self._context, self._batch)

    # -- for the program that runs it ------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """Its name, once it has one."""
        return self._registration.name if self._registration else "worker"

    @property
    def jobs_run(self) -> int:
        """How many attempts it has made."""
        return self._slots.attempts

    @property
    def log_limit(self) -> int:
        """Bytes after which its log is begun anew, 0 for never."""
        return self._settings.log_limit

    @property
    def _settings(self) -> Settings:
        return self._current.settings

    def stop(self, *, force: bool = False) -> None:
        """Finish the running job and leave; with force, end that job and put it back. Safe in a signal handler.

        It holds for good: a `run` that comes later returns at once. To work again, make a new worker.
        """
        self.flags.stop(force=force)

    def read_settings(self) -> None:
        """Read the settings now; a worker also does so within a second of each change. Safe in a signal handler."""
        self._current.read_again()
        self.flags.request_look()

    def look_now(self) -> None:
        """Do now what is done once a second: look for a cancel, a pause, a stop note. Safe in a signal handler."""
        self.flags.request_look()

    def leave_when(self, is_over: Callable[[], bool], told_by: int | None = None) -> None:
        """Finish the running job and leave once this returns True; it is called every second.

        Args:
            told_by: a descriptor that becomes readable then, so that an idle worker need not wake up to ask.
        """
        self.flags.leave_when(is_over)
        self._idle.must_ask, self._idle.leave_fd = told_by is None, told_by

    def check(self) -> None:
        """Make sure that jobs of this spool may be run.

        Raises:
            QueuectlError: they may not, and why.
        """
        mounts.make_ready(self.layout)
        registry.refuse_another_version(self.layout)
        setting = self._current.read().concurrency
        wanted = self._concurrency or setting
        # Once, and before the first run: later it would count the files of the runs as well.
        self._slots.opened = opened = open_files.number_open()
        if wanted > 1 and (possible := open_files.possible_runs(wanted, opened)) < wanted:
            raise SpoolError(
                f"{wanted} jobs at once need more files than this process may open",
                hint=f"queuectl worker start --concurrency {possible}",
            )

    def register(self, launch: Launch | None = None) -> None:
        """Take a free worker name, or that of `launch`, and appear in `worker list`.

        Raises:
            QueuectlError: the spool cannot be used, or this process may open too few files.
        """
        launch = launch or Launch.now()
        self.check()
        open_files.require_free(open_files.FOR_A_WORKER)
        registration = Registration.of_launch(self.layout, launch)
        registration.announce(self._mode, self.flags.handles_wake_signal, launch.parent)
        self._set_registration(registration)
        # Only now: whoever stops all workers finds the record, or has written the note before.
        self.flags.stopping |= commands.is_stop_of_all_after(self.layout, launch.since)

    def run(self) -> int:
        """Work until stopped, or drained; returns the number of attempts made. After `stop` it returns at once.

        Raises:
            QueuectlError: the spool cannot be used.
        """
        if self._registration is None:
            self.register()
        try:
            with interrupts_as_stop(self.flags):
                self._recover()
                self._batch.file_pool = FilePool(self.layout, self.name, self._index.boot, self._say)
                self._loop()
        except BaseException:
            # Whatever it is: what has ended is recorded, and what has not begun goes back.
            self.flags.stop(force=False)
            self._slots.break_off_all()
            if not self._upkeep.spool_lost:
                self._batch.leave()
            raise
        finally:
            self._leave()
        return self.jobs_run

    def _leave(self) -> None:
        """Give back everything; files are left alone if the spool's folder is another one now."""
        self._scheduler.close()
        self._upkeep.rules.close()
        if self._batch.file_pool is not None and not self._upkeep.spool_lost:
            with self._barrier:
                self._batch.file_pool.close()
        self._watch.stop()
        with self._barrier:
            self._limits.give_back_unused(())
        if self._registration is not None:
            if not (self._upkeep.spool_lost or locate.claimed_by(self.layout, self.name)):
                run_lock.forget_slots(self.layout, self.name)
            self._registration.release(touch_files=not self._upkeep.spool_lost)
            self._set_registration(None)  # another run would take a name of its own
        self._index.close()

    # -- the loop --------------------------------------------------------------------------------------------------

    def _loop(self) -> None:
        while not self._upkeep.spool_lost or self._slots:
            self._claiming.give_back_permits()
            if self._upkeep.run(busy=bool(self._slots)) and not self._upkeep.spool_lost:
                with self._barrier:
                    self._limits.look()
                    self._limits.report(self._upkeep.note)
                self._slots.attend(self._concurrency or self._settings.concurrency)
            elif self.flags.stopping and not self.flags.forced:
                self.flags.look()
            if self._batch.is_open and (self.flags.stopping or self._readiness.blocked):
                self._batch.end()
            if self.flags.forced:
                self._slots.end_all()
            if self.flags.stopping and not self._slots and self._batch.may_leave():
                return
            if self._start_jobs():
                continue
            if not self._is_over():
                self._last_look.forget()
            elif self._last_look.begin():
                continue
            elif self._last_look.is_over():
                tell_what_waits(self._index, self._say, self._barrier)
                return
            if self._slots or self._batch.refused:
                self._wait_for_runs()
            else:
                self._wait()

    def _start_jobs(self) -> bool:
        """Start the next job if there is one and a slot for it; returns whether the loop goes on at once."""
        if self.flags.stopping or not self._slots.free or self._slots.is_late:
            return False
        pause = self._no_start_before - time.monotonic()
        if pause > 0:
            if not self._slots:
                self._wake_up.wait(pause)
            return not self._slots
        claim = self._claiming.next()
        if self._barrier.tripped:
            self._barrier.tripped = False
            if claim is None:
                # Without this pause, a lasting fault would keep the processor busy and fill the log.
                self._no_claim_before = time.monotonic() + FAULT_PAUSE
                return not self._slots
        else:
            self._barrier.reset()
        if claim is None:
            return False
        self._slots.start(claim)
        return True

    @property
    def _no_start_before(self) -> float:
        """The monotonic moment until which nothing is claimed, as the disk or the machine refused a claim or a start."""
        return max(self._no_claim_before, self._slots.no_start_before)

    def _is_over(self) -> bool:
        """Whether a draining worker has nothing left to do."""
        if not self._drain or self._slots or self.flags.stopping or self._batch.is_open:
            return False
        if self._upkeep.owes_rules():
            return False  # also while the spool is paused: that pauses no rule
        return self._readiness.is_paused or self._is_drained()

    # -- recover ---------------------------------------------------------------------------------------------------

    def _recover(self) -> None:
        """Take back the jobs of an earlier worker of our name, whose lock we now hold, and what a power cut left."""
        self._watch.start(busy=True)
        with self._barrier:
            self._intake.refresh()
            self._maintenance.begin(self._registration.predecessor_started_at if self._registration else None)
            self._intake.refresh()  # again, as maintenance may have found the index damaged
            recovery.recover_worker(self._storage, self._settings, self.name, self._upkeep.barrier.say_once)
            power_loss.sweep(self.layout, self.name, self._index.boot)
            os.makedirs(self.layout.claims(self.name), mode=0o700, exist_ok=True)
            # Once more, if the disk refused a part of it before.
            power_loss.restore(self.layout, self._index.boot)

    # -- wait ------------------------------------------------------------------------------------------------------

    def _wait(self) -> None:
        """Sleep until a file arrives, a job is due, or a second has passed."""
        if self._batch.file_pool is not None:
            self._batch.file_pool.flush()
        self._upkeep.load_modules()
        self._watch.start()
        self._upkeep.note("polling", self._watch.failure)
        self._scheduler.note_events()
        timeout = self._upkeep.due_at - time.monotonic()
        with self._barrier:
            # The watch was started before this look: a file that arrives after it wakes the worker.
            timeout = self._scheduler.wait_limit(timeout)
            # Asked before the lanes: one that opens between the two questions is found open, and not forgotten.
            opens_in = self._limits.opens_at() - time.monotonic()
            ready, due = self._claiming.ready_and_due()
            if self._permit_watch.begin():
                return
            timeout = min(timeout, max(0.0, opens_in))
            if due is not None:
                timeout = min(timeout, max(0.0, due / 1e6 - self._now()))
            if ready and not self._readiness.blocked:
                timeout = 0.0
            if not self._wake_up.wait(timeout) and not (ready or self._limits.is_full):
                opens_in = min(opens_in, self._upkeep.rules.due_in())
                self._sleep_on(min(math.inf if due is None else due / 1e6, self._now() + opens_in))
            self._permit_watch.note_events()

    def _wait_for_runs(self) -> None:
        """Wait until a run has ended, or is due, or another job can be started beside it; record what has ended."""
        until = min(self._upkeep.due_at, self._slots.due_at())
        if self._slots.suspects:
            with self._barrier:
                self._slots.suspects.forget_gone()
        if self._slots.free and self._slots.is_late:
            until = 0.0  # the next start waits for this look
        elif self._slots.free and not (self._readiness.blocked or self.flags.stopping):
            with self._barrier:
                until = min(until, self._next_start_at(until))
        self._wake_up.wait(until - time.monotonic())
        self._permit_watch.note_events()
        if self._slots.finish_ended(record=not self._upkeep.spool_lost):
            return
        self._upkeep.load_modules(busy=True)
        self._scheduler.take_in_named(busy=not self._slots.free)

    def _next_start_at(self, latest: float) -> float:
        """The monotonic moment at which a free slot may get a job although no event comes."""
        self._watch.start(busy=True)
        self._scheduler.note_events()
        now = time.monotonic()
        at = now + self._scheduler.wait_limit(max(0.0, latest - now))
        opens_at = self._limits.opens_at()
        ready, due = self._claiming.ready_and_due()
        at = now if self._permit_watch.begin() else min(at, opens_at)
        if due is not None:
            at = min(at, now + max(0.0, due / 1e6 - self._now()))
        return max(now if ready else at, self._no_start_before)

    def _sleep_on(self, due: float) -> None:
        """Sleep as long as nothing has changed that the periodic duties would find."""
        rang = self._idle.wait(lambda: due - self._now(), lambda: self.flags.any_set)
        if rang:
            self._upkeep.put_off()
        elif rang is not None:
            self._upkeep.due_at = 0.0

    def _is_drained(self) -> bool:
        """Whether no job is waiting; with wait_retries, also none that will be due later or may come back."""
        with self._barrier:
            later = self._wait_retries
            return not (self._scheduler.has_work(leaving=True) or self._limits.has_work(later=later))
        return False
