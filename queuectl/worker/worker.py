"""The loop of one worker: recover, take in, claim, run, settle, wait."""

from __future__ import annotations

import math
import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from queuectl.config.reload import InForce
from queuectl.control import pause_file, permissions
from queuectl.control.registry import Seat
from queuectl.errors import QueuectlError, SpoolError
from queuectl.executor.base import clean_environment
from queuectl.executor.local import LocalRunner
from queuectl.index.index import Index
from queuectl.intake.drop_folder import DropFolder
from queuectl.intake.reconcile import Intake
from queuectl.job.outcome import Ending, Outcome
from queuectl.layout import Layout, default_root
from queuectl.storage import expiry, job_logs, power_loss, recovery
from queuectl.storage.file_pool import Spares
from queuectl.storage.mover import Mover
from queuectl.system.host import boot_id
from queuectl.system.watcher import Bell, FolderWatch
from queuectl.worker import attempt, prefetch
from queuectl.worker.fault_barrier import Troubles
from queuectl.worker.idle import TICK, Rest
from queuectl.worker.maintenance import Chores
from queuectl.worker.readiness import Room
from queuectl.worker.scan_scheduler import Lookout
from queuectl.worker.stop_flags import Orders, heed_late_cancel

if TYPE_CHECKING:
    from collections.abc import Callable

    from queuectl.config.settings import Settings
    from queuectl.executor.base import Runner, Running
    from queuectl.storage.mover import Claim

TROUBLE_PAUSE = 1.0
"""Seconds until what the disk refused is tried again."""


class Worker:
    """Runs jobs of one spool, one at a time, until it is told to stop.

    Args:
        path: the spool; None for the default one.
        drain: leave when nothing is left to do now.
        wait_retries: with drain, wait for retries and scheduled jobs too.
        say: takes what happens, a line or two, without the worker's name.
        mode: what `worker list` shows.
        runner: what runs the attempts.
        now: the wall clock in epoch seconds.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        drain: bool = False,
        wait_retries: bool = False,
        say: Callable[[str], None] | None = None,
        mode: str = "program",
        runner: Runner | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.layout = Layout(path if path is not None else default_root())
        self._drain, self._wait_retries, self._mode, self._now = drain, wait_retries, mode, now
        self._say = say or (lambda _: None)
        self._runner = runner or LocalRunner()
        self.bell = self._bell = Bell()
        self._orders = Orders(self._bell)
        self._in_force = InForce(self.layout, self._say, lambda fault: self._note("settings", fault))
        self._seat: Seat | None = None
        self._spares: Spares | None = None
        self._index = Index(self.layout.index, self.layout.root, boot_id())
        self._mover = Mover(self.layout, self._index, now)
        self._intake = Intake(self.layout, self._index, self._mover, self._in_force.look)
        self._watch = FolderWatch(self.layout.pending, self._bell)
        safe = permissions.Watch(self.layout)
        self._pause = pause_file.Watch(self.layout)
        self._room = Room(self.layout.root, self._say_pause, safe.look, self._pause.look)
        self._troubles = Troubles(self._say, self._index)
        self._lookout = Lookout(self.layout, self._intake, self._watch, self._troubles)
        self._drops = DropFolder(self._mover, self._troubles.say_once)
        self._chores = Chores(self._mover, self._say, self._troubles.say_once)
        looks = self._lookout, self._chores, self._room
        self._rest = Rest(self.layout, safe, self._bell, self._watch, *looks)
        self._hand = self._new_hand()
        self._environment = clean_environment()
        self._next_tick = 0.0
        self.jobs_run = 0
        self.hurries = False

    # -- for whoever holds it --------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """Its name, once it has one."""
        return self._seat.name if self._seat else "worker"

    @property
    def log_limit(self) -> int:
        """Bytes after which its log is begun anew, 0 for never."""
        return self._settings.log_limit

    def stop(self, *, force: bool = False) -> None:
        """Finish the job in hand and leave; with force, end that job and put it back. Safe in a signal handler."""
        self._orders.stop(force=force)

    def read_settings(self) -> None:
        """Read the settings now; a worker also does so within a second of each change. Safe in a signal handler."""
        self._in_force.read_again()
        self._orders.hurry()

    def look_now(self) -> None:
        """Look now for what is looked for once a second: a cancel, a pause, its end. Safe in a signal handler."""
        self._orders.hurry()

    def leave_when(self, over: Callable[[], bool], told_by: int | None = None) -> None:
        """Leave, finishing the job in hand, once this says so; it is asked every second.

        Args:
            told_by: a descriptor that becomes readable then, so that a worker at rest need not wake to ask.
        """
        self._orders.leave_when(over)
        self._rest.is_asked, self._rest.told_by = told_by is None, told_by

    def check(self) -> None:
        """See that this spool may be worked on.

        Raises:
            QueuectlError: why not.
        """
        self.layout.create()
        permissions.refuse_unsafe(self.layout)
        self._in_force.read()

    def take_seat(self) -> None:
        """Get a name and be listed.

        Raises:
            QueuectlError: the spool does not let us.
        """
        self.check()
        self._seat = Seat.take(self.layout)
        self._hand = self._new_hand()
        self._seat.introduce(self._mode, hurries=self.hurries)

    def _new_hand(self) -> prefetch.Hand:
        return prefetch.Hand(self._mover, self.name, self._lookout, self._room, self._in_force, self._say)

    def run(self) -> int:
        """Work until stopped, or drained; returns the number of attempts made.

        Raises:
            QueuectlError: the spool cannot be worked on.
        """
        if self._seat is None:
            self.take_seat()
        try:
            self._take_back_own()
            self._spares = Spares(self.layout, self.name, self._index.boot, self._say)
            self._loop()
        finally:
            self._lookout.close()
            if self._spares is not None:
                with self._troubles.outlive():
                    self._spares.close()
            self._watch.drop()
            if self._seat is not None:
                self._seat.leave()
                self._seat = None  # another run would take a place of its own
            self._index.close()
        return self.jobs_run

    # -- the loop --------------------------------------------------------------------------------------------------

    def _loop(self) -> None:
        while True:
            self._tick()
            if self._hand and (self._orders.stopping or self._room.lacking):
                self._empty_hand()
            if self._orders.stopping:
                return
            claim = self._next()
            if self._troubles.fresh:
                # Without a pause, trouble that lasts would spin and fill the log.
                self._troubles.fresh = False
                if claim is None:
                    self._bell.wait(TROUBLE_PAUSE)
                    continue
            else:
                self._troubles.over()
            if claim is not None:
                self._work(claim)
            elif self._drain and (self._room.by_hand or self._is_drained()):
                return
            elif not self._orders.stopping:
                self._wait()

    def _tick(self, *, busy: bool = False) -> None:
        """What is looked at once a second, busy with a job or not."""
        now = time.monotonic()
        if now < self._next_tick and not self._orders.hurried:
            return
        self._next_tick = now + TICK
        self._orders.hurried = False
        if not busy:
            self._rest.still.remember()
        self._orders.look(self._seat)
        with self._troubles.outlive():
            if self._spares is not None:
                self._spares.flush()  # or a long job would leave the outcomes before it unsynced
                self._spares.keep_reserve()
            self._in_force.look()
            if not self._index.usable:
                self._intake.refresh()
            if self._seat:
                self._seat.hold_on(idle=not busy)
            self._lookout.glance()
            if busy:
                self._lookout.go_on()
            self._chores.take_back(self._settings, self.name, empty_handed=not (busy or self._hand))
        # Each on its own: trouble with one must not keep the others from being looked at.
        with self._troubles.outlive():
            self._chores.look(mine=self.name, settings=self._settings)
        with self._troubles.outlive():
            self._room.look(self._settings.min_free_space)
            self._note("pause_seen", self._pause.seen)
        with self._troubles.outlive():
            if not self._room.lacking:
                self._lookout.take_from_others(self._drops, self._settings, busy=busy)

    @property
    def _settings(self) -> Settings:
        return self._in_force.settings

    def _note(self, what: str, reason: str | None) -> None:
        if self._seat:
            self._seat.note(what, reason)

    def _say_pause(self, reason: str | None, line: str) -> None:
        self._note("paused", reason)
        self._say(line)

    def _take_back_own(self) -> None:
        """What an earlier holder of our name left behind is ours to free: we hold its lock."""
        self._watch.arm(busy=True)
        with self._troubles.outlive():
            self._intake.refresh()
            self._chores.begin(self._seat.after if self._seat else None)
            self._intake.refresh()  # again: the chores may have found reason to doubt the index
            recovery.leftovers(self.layout, self._mover, self._settings, self.name, self._troubles.say_once)
            power_loss.sweep(self.layout, self.name, self._index.boot)
            os.makedirs(self.layout.claims(self.name), mode=0o700, exist_ok=True)
            power_loss.restore(
                self.layout, self._index.boot
            )  # once more, if the disk refused a part of it before

    def _next(self) -> Claim | None:
        """The next job, claimed; None when there is none to be had now."""
        with self._troubles.outlive():
            if not self._hand.ready:
                self._fill_hand()
            elif self._lookout.news:
                self._lookout.news = False
                self._hand.let_pass()
        # What could not be given back waits, too, while nothing may be started.
        return self._hand.next() if self._hand.ready and not self._room.lacking else None

    def _fill_hand(self) -> None:
        # Of jobs that were claimed with those that are over the last may have expired, or been taken away.
        self._hand.put_all_away(self._spares, self._wait_out_trouble)
        if not self._index.usable:
            self._intake.refresh()
        self._hand.read()
        if self._hand.ready:
            return
        self._lookout.take_in()
        ready, due = self._index.ready_and_due()
        # Nobody takes the index's write lock to find nothing: ten idle workers would do so every second.
        if ready or (due is not None and due <= self._now() * 1e6):
            self._lookout.news = False
            self._hand.claim()

    # -- waiting ---------------------------------------------------------------------------------------------------

    def _wait(self) -> None:
        """Sleep until something lands, a moment comes, or a second is over."""
        if self._spares is not None:
            self._spares.flush()
        self._watch.arm()
        self._note("polling", self._watch.failure)
        self._lookout.hear()
        timeout = self._next_tick - time.monotonic()
        with self._troubles.outlive():
            # Armed first, then looked: what lands from here on rings the bell.
            timeout = self._lookout.patience(timeout)
            ready, due = self._index.ready_and_due()
            if due is not None:
                timeout = min(timeout, max(0.0, due / 1e6 - self._now()))
            if ready and not self._room.lacking:
                timeout = 0.0
            if not self._bell.wait(timeout) and not ready:
                self._doze(math.inf if due is None else due / 1e6)

    def _doze(self, moment: float) -> None:
        """Sleep on while nothing has changed that a whole look would find."""
        rang = self._rest.doze(lambda: moment - self._now(), lambda: self._orders.pressing)
        if rang is not None:
            self._next_tick = time.monotonic() + TICK if rang else 0.0

    def _is_drained(self) -> bool:
        """Whether nothing is left: no waiting job, and with wait_retries none that will wait or may come back."""
        with self._troubles.outlive():
            later = self._wait_retries
            return not (self._lookout.has_work(leaving=True) or self._index.has_work(later=later))
        return False

    # -- one job ---------------------------------------------------------------------------------------------------

    def _work(self, claim: Claim) -> None:
        job = claim.job
        if job.leaves_open:
            job.accept(self._settings)
        if job.expired(self._now()):
            with self._troubles.outlive():
                expiry.give_up(self._mover, claim, self._say)
            return
        if not self._hand:
            self._say_started(claim)
        job.started_at, job.worker = self._now(), self.name
        try:
            claim.outcome = self._run(claim)
        except SpoolError as error:
            self._give_back(claim, error)
            return
        self.jobs_run += 1
        claim.ended_at = self._now()
        heed_late_cancel(self._seat, claim)
        with self._troubles.outlive():
            limit = self._settings.output_limit
            job_logs.keep_output(self.layout, job, self.name, claim.outcome, limit=limit)
        if self._hand.may_wait(claim) and not self._orders.stopping:
            self._hand.lay_aside(claim)
            if self._watch.heard:
                self._lookout.take_named()  # an urgent one may be the next
        else:
            self._settle(claim)

    def _run(self, claim: Claim) -> Outcome:
        if claim.job.on_crash == "dead":
            self._mover.make_durable(claim)
        given = claim, self.name, self._settings, self._environment, self._index.boot
        running = attempt.start(self._runner, self.layout, *given, over=self._hand.told)
        if isinstance(running, Outcome):
            return running
        try:
            return self._attend(claim, running)
        finally:
            running.close()

    def _attend(self, claim: Claim, running: Running) -> Outcome:
        """Wait for the end of a run, and meanwhile do what cannot wait for it."""
        noted = False
        worth_noting = time.monotonic() + TICK / 4
        long_at = time.monotonic() + prefetch.LONG if self._hand else math.inf
        while True:
            if self._orders.forced:
                running.cancel(Ending.STOPPED)
            look = running.next_look()
            until = min(self._next_tick, long_at, math.inf if look is None else look)
            self._bell.wait(until - time.monotonic(), running.wait_fd())
            outcome = running.poll()
            if outcome is not None:
                return outcome
            if time.monotonic() >= long_at:
                long_at = math.inf
                self._empty_hand(busy=True)
                self._say_started(claim)
            self._lookout.take_named(meanwhile=True)  # the job's end is looked at next
            if self._orders.hurried or time.monotonic() >= self._next_tick:
                self._tick(busy=True)
                if not noted and time.monotonic() >= worth_noting:
                    noted = True
                    with self._troubles.outlive():
                        self._mover.note_running(claim)
                if self._seat and self._seat.cancel_wanted(claim.job.id or "", claim.job.runs + 1):
                    running.cancel(Ending.CANCELLED)
            elif self._orders.stopping and not self._orders.forced:
                self._orders.look(self._seat)

    def _settle(self, claim: Claim) -> bool:
        """Record an outcome, and those that have waited for it; claim the next jobs. False: it was taken away."""
        self._lookout.take_named()  # an urgent one may be the next
        self._hand.over.append(claim)
        self._hand.put_all_away(self._spares, self._wait_out_trouble, self._take_beside)
        with self._troubles.outlive():
            self._hand.read()
        return claim.settled

    def _take_beside(self) -> None:
        """Take the next jobs in the transaction that ends these, unless something has dropped in meanwhile."""
        if not (self._orders.stopping or self._hand.ready) and self._index.usable and self._lookout.calm():
            self._lookout.news = False
            self._hand.take()

    def _empty_hand(self, *, busy: bool = False) -> None:
        """Record what is over, and put back what has not begun.

        Args:
            busy: a job runs, which must not wait for a disk that refuses.
        """
        if busy:
            with self._troubles.outlive():
                self._hand.put_away(self._spares)
        else:
            self._hand.put_all_away(self._spares, self._wait_out_trouble)
        with self._troubles.outlive():
            self._hand.give_back()

    def _say_started(self, claim: Claim) -> None:
        self._say(attempt.started_line(claim.job))
        claim.is_told = True

    def _wait_out_trouble(self) -> bool:
        """Let a disk that refuses have time; False: an outcome that cannot be recorded is given up."""
        if not self._orders.forced:
            self._bell.wait(TROUBLE_PAUSE)
            self._orders.look(self._seat)
        return not self._orders.forced

    def _give_back(self, claim: Claim, error: QueuectlError) -> None:
        self._empty_hand()
        self._say(f"cannot run {claim.job.id} now: {error}")
        while os.path.lexists(claim.path):
            with suppress(OSError):
                self._mover.release(claim)
            self._bell.wait(TROUBLE_PAUSE)
            self._orders.look(self._seat)
            if self._orders.stopping:
                return
