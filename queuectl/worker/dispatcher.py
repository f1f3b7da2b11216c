"""The dispatcher of an engine: the one process of a spool that hands jobs to it, and records what becomes of them.

It does once a second what every worker does, and hands over as many jobs as the engine may have. Claims and settlements
are its own work, in the main thread. All that is done in the shared folder is done by `share`, and Slurm's commands run in
threads of `engine.slurm`: neither keeps a pause from being heeded.

It keeps nothing that is not in files. When the share refuses, all that is known of it is thrown away, and found again as
after a crash.
"""

from __future__ import annotations

import math
import os
import time
from typing import TYPE_CHECKING

from queuectl.config.reload import CurrentSettings
from queuectl.control import commands, dispatched, mounts, permissions, registry
from queuectl.control.launch import Launch
from queuectl.control.registration import Registration
from queuectl.engine.pace import Pace
from queuectl.engine.slurm import Slurm
from queuectl.index.index import Index
from queuectl.intake.reconcile import Intake
from queuectl.layout import Layout, default_root
from queuectl.storage import power_loss
from queuectl.storage.transitions import Storage
from queuectl.system.host import boot_id
from queuectl.system.wake_up import WakeUp
from queuectl.system.watcher import FolderWatch
from queuectl.worker import dispatch_check
from queuectl.worker.dispatch_open import Opening
from queuectl.worker.dispatch_report import Reporter, tell_what_stays
from queuectl.worker.dispatch_stop import Leaving, Pauses
from queuectl.worker.feed import Feed
from queuectl.worker.handover import Handover
from queuectl.worker.health import FAULT_PAUSE, FaultBarrier, never_raising
from queuectl.worker.leaving import LastLook
from queuectl.worker.maintenance import tell_what_waits
from queuectl.worker.scan_scheduler import ScanScheduler
from queuectl.worker.signals import StopFlags, interrupts_as_stop
from queuectl.worker.upkeep import Upkeep

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from queuectl.config.settings import Settings
    from queuectl.control.dispatched import RunThere
    from queuectl.engine.base import Connection
    from queuectl.storage.file_pool import FilePool
    from queuectl.worker.share import Order, Share

BEAT = 10.0
"""Seconds between two signs of life of a runner. A person who cancels a job waits so long while the controller is away."""

AT_ONCE = 200
"""The most jobs that are claimed at a time: reading them takes some hundredths of a second, in which nothing else is done."""

TAKEN_EVERY = 5.0
"""Seconds between two looks whether somebody has taken claimed files away, or whether a job has expired out there."""

HANG_UP = 3.0
"""Seconds that a dispatcher waits, when it leaves, for a call to the share that lasts, and for what is to be cancelled."""


class Dispatcher:
    """Hands the jobs of one spool to an engine, until it is told to stop.

    Args:
        path: the spool; None for the default one.
        engine: the name of the engine, which is also its own.
        drain: leave when nothing is left to do now.
        wait_retries: with drain, wait for retries and scheduled jobs too.
        say: takes one or several lines for the log, without its name.
        mode: how it was started, as `worker list` shows it.
        connect: makes the connection to the engine from the id of the spool and the options for each sbatch.
        may_be_root: root may run it. Its nodes are not root's own: whoever is root on one of them could run anything
            here. For tests of a cluster that is this machine.

    Attributes:
        flags: what it has been asked to do.
        name: its name, that of the engine.
        file_pool: none; each outcome is on the disk before its claim is deleted.
    """

    file_pool: FilePool | None = None
    handover: Handover

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        engine: str = "slurm",
        *,
        drain: bool = False,
        wait_retries: bool = False,
        say: Callable[[str], None] = lambda _: None,
        mode: str = "program",
        connect: Callable[[str, Sequence[str]], Connection] = Slurm,
        may_be_root: bool = False,
        beat: float = BEAT,
    ) -> None:
        self.layout = Layout(path if path is not None else default_root())
        self.name, self._mode = engine, mode
        self._drain, self._wait_retries, self._may_be_root = drain, wait_retries, may_be_root
        self._say = never_raising(say)
        self._wake_up = WakeUp()
        self.flags = StopFlags(self._wake_up)
        self._current = CurrentSettings(
            self.layout, self._say, lambda fault: self.upkeep.note("settings", fault)
        )
        self._index = Index(self.layout.index, self.layout.root, boot_id(), for_worker=True)
        self._storage = Storage(self.layout, self._index)
        self._intake = Intake(self.layout, self._index, self._storage, self._current.check)
        self._watch = FolderWatch(self.layout.pending, self._wake_up)
        self._barrier = FaultBarrier(self._say, self._index)
        self._scheduler = ScanScheduler(self.layout, self._intake, self._watch, self._barrier)
        parts = self._storage, self._current, self._intake, self._scheduler, self.flags
        self.upkeep = Upkeep(*parts, permissions.PermissionCheck(self.layout), self._say)
        self.pauses, self._reporter = Pauses(self), Reporter(self._say)
        self.upkeep.heeds = self.pauses.heed
        self._last_look = LastLook(self._scheduler, self.upkeep)
        self.feed = Feed(
            self._storage,
            lambda: self.settings,
            engine,
            self._scheduler,
            lambda: self.handover.in_queue,
            self._say,
        )
        self.pace = Pace()
        self._leaving = Leaving(self)
        self._registration: Registration | None = None
        self.connection: Connection | None = None
        self.share: Share | None = None
        self.running: dict[str, RunThere] = {}
        self.handover = self._new_handover(lambda _: None)
        self._cancelled = 0
        self._opening = Opening(self, connect, beat, self._wake_up.set, self._barrier)
        self._no_claim_before = self._next_taken = 0.0
        self._per_pack, self._feeds = 1, 0

    def _new_handover(self, post: Callable[[Order], None]) -> Handover:
        return Handover(
            self._storage,
            lambda: self.settings,
            post,
            self.name,
            self._say,
            shape_of=self.feed.shape_of,
            rules=self.upkeep.rules.about_jobs,
            over=lambda job_id, has_begun: self.feed.over(job_id, has_begun=has_begun),
        )

    def begin_anew(self, post: Callable[[Order], None]) -> None:
        """Forget all that is claimed: it is found again by `handover.adopt`.

        Args:
            post: gives an order to the share.
        """
        self._leaving.ended += self.handover.ended
        self.handover = self._new_handover(post)
        self.pauses.forget()
        self._cancelled = 0

    # -- for the program that runs it ------------------------------------------------------------------------------

    @property
    def jobs_run(self) -> int:
        """How many attempts it has recorded."""
        return self._leaving.ended + self.handover.ended

    @property
    def log_limit(self) -> int:
        """Bytes after which its log is begun anew, 0 for never."""
        return self.settings.log_limit

    @property
    def settings(self) -> Settings:
        """The current settings of the spool."""
        return self._current.settings

    def read_settings(self) -> None:
        """Read the settings now. Safe in a signal handler."""
        self._current.read_again()
        self.flags.request_look()

    def leave_when(self, is_over: Callable[[], bool], told_by: int | None = None) -> None:  # noqa: ARG002  # as a worker's
        """Leave once this returns True; it is called every second."""
        self.flags.leave_when(is_over)

    def check(self) -> None:
        """Make sure that jobs of this spool may be handed over.

        Raises:
            QueuectlError: they may not, and why.
        """
        mounts.make_ready(self.layout)
        registry.refuse_another_version(self.layout)
        dispatch_check.check(self.layout, self._current.read(), may_be_root=self._may_be_root)

    def register(self, launch: Launch | None = None) -> None:
        """Take the name, and appear in `worker list`.

        Raises:
            QueuectlError: the spool cannot be used, or the engine has a dispatcher already.
        """
        launch = launch or Launch.now()
        registration = Registration.of_launch(self.layout, launch, engine=self.name)
        try:
            self.check()
            registration.announce(self._mode, self.flags.handles_wake_signal, launch.parent)
        except BaseException:
            registration.release(touch_files=False)
            raise
        self._registration = self.flags.registration = registration
        self.upkeep.work_for(self.name, registration, self)
        # Only now: whoever stops all workers finds the record, or has written the note before.
        self.flags.stopping |= commands.is_stop_of_all_after(self.layout, launch.since)

    def run(self) -> int:
        """Work until stopped, or drained; returns the number of attempts that were recorded.

        Raises:
            QueuectlError: the spool cannot be used.
        """
        if self._registration is None:
            self.register()
        try:
            with interrupts_as_stop(self.flags):
                self._recover()
                self._loop()
        finally:
            self._leave()
        return self.jobs_run

    # -- what `Upkeep` asks of it ----------------------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        """Whether it has claimed jobs, or may have: until it has looked, a wish to cancel one must not be thrown away."""
        return self.share is None or self.handover.jobs > 0

    def try_again(self) -> None:
        """Nothing: what a disk has refused is told again after the share was opened anew."""

    def give_up_cancelled(self) -> None:
        """Have the jobs ended that somebody has cancelled."""
        if wanted := commands.cancel_requests(self.layout, self.name):
            self.handover.cancel(wanted)

    # -- the loop --------------------------------------------------------------------------------------------------

    def _recover(self) -> None:
        """Make sure that the index can be believed, and restore what a power cut has left."""
        self._watch.start(busy=True)
        with self._barrier:
            self._intake.refresh()
            self.upkeep.maintenance.begin(
                self._registration.predecessor_started_at if self._registration else None
            )
            self._intake.refresh()  # again, as maintenance may have found the index damaged
            self.running = dispatched.read(self.layout, self.name)
            power_loss.sweep(self.layout, self.name, self._index.boot)
            os.makedirs(self.layout.claims(self.name), mode=0o700, exist_ok=True)
            power_loss.restore(self.layout, self._index.boot)

    def _loop(self) -> None:
        while not self.upkeep.spool_lost:
            if self.upkeep.run() and not self.upkeep.spool_lost:
                self._do_each_second()
            elif self.flags.stopping and not self.flags.forced:
                self.flags.look()
            self._opening.look_after()
            self._record()
            if self.flags.stopping:
                if self._leaving.is_over():
                    return
            else:
                self._hand_over()
                if not self._is_over():
                    self._last_look.forget()
                elif self._last_look.begin():
                    continue
                elif self._last_look.is_over():
                    tell_what_waits(self._index, self._say, self._barrier)
                    tell_what_stays(self, self._say)
                    return
            self._wait()

    @property
    def has_work(self) -> bool:
        """Whether jobs are claimed whose ends it will know: not those that may be in a pack that cannot be read."""
        summary = self.share.summary if self.share is not None else None
        return self.handover.jobs > len(summary.doubtful if summary is not None else ())

    @property
    def has_moved(self) -> bool:
        """Whether slurm_dir is another folder than the one that is used."""
        return self._opening.has_moved

    @property
    def trouble_of_share(self) -> Exception | None:
        """Why the share could not be used the last time."""
        return self._opening.trouble

    def _do_each_second(self) -> None:
        self.upkeep.load_modules()
        with self._barrier:
            self.feed.look()
            self.pauses.heed_those_of_queues()
        with self._barrier:
            if time.monotonic() >= self._next_taken:
                self._next_taken = time.monotonic() + TAKEN_EVERY
                self.handover.drop_taken()
                self.handover.give_up_expired()
            if self.share is not None and self.share.summary is not None and self.share.summary.over:
                self.handover.clear()
        with self._barrier:
            self._reporter.report(self)

    def _record(self) -> None:
        """Record what the share has reported. What the disk refuses is told again, when all is found anew."""
        share = self.share
        for report in share.reports() if share is not None else ():
            is_recorded = False
            with self._barrier:
                self.handover.settle(report.events)
                if report.then is not None:
                    report.then()
                is_recorded = True
            if not is_recorded:
                self._find_anew("an outcome could not be recorded")
                return

    def _hand_over(self) -> None:
        """Claim the next jobs and hand them over, as many as the engine may have."""
        now = time.monotonic()
        if now < self._no_claim_before or self.upkeep.has_lost_spool():
            return
        with self._barrier:
            if not self._index.usable:
                self._intake.refresh()
            self._scheduler.take_in()
        room, is_handed = self.room(), False
        if room > 0:
            with self._barrier:
                self._claim_and_hand(room)
                is_handed = True
            if not is_handed:
                self._find_anew("a job could not be handed over")  # it may be claimed, and in no pack
        if self._barrier.tripped:
            self._barrier.tripped = False
            self._no_claim_before = now + FAULT_PAUSE
        else:
            self._barrier.reset()

    def _find_anew(self, reason: str) -> None:
        """A disk has refused: open the share again, which finds everything as after a crash."""
        if self.share is not None:
            self.share.fault = self.share.fault or OSError(reason)

    def room(self) -> int:
        """How many packs may be handed over now."""
        share, connection = self.share, self.connection
        if share is None or connection is None or not share.is_up_to_date or share.fault is not None:
            return 0
        summary = share.summary
        if summary is None or summary.idle is None or connection.trouble:
            return 0  # nobody would begin them
        if self.upkeep.readiness.blocked or share.danger or self.has_moved:
            return 0
        now = time.monotonic()
        if share.full:
            share.full = ""
            self.pace.full(summary.packs, now)
        for _ in range(self.handover.cancelled_there - self._cancelled):
            self.pace.cancelled_by_others(now)
        self._cancelled = self.handover.cancelled_there
        return self.pace.most(self.settings.slurm_jobs, now) - summary.packs

    def _claim_and_hand(self, room: int) -> None:
        settings, share = self.settings, self.share
        claims = self.feed.claim(min(AT_ONCE, room * self._per_pack))
        if not claims or share is None or share.summary is None:
            return
        ready = self.feed.count_ready(settings.slurm_pack * settings.slurm_jobs) + len(claims)
        slots = share.summary.runners + (share.summary.idle or 0)
        handed = self.handover.hand(
            claims, slots, pack=settings.slurm_pack, short=settings.slurm_short, most=room, ready=ready
        )
        # So many that packs become as large as they should; now and then one more, as the jobs behind may be short.
        self._feeds += 1
        ratio = len(claims) // max(1, handed)
        more = 2 if ratio > 1 or self._feeds % 16 == 1 else 1
        self._per_pack = max(1, min(settings.slurm_pack, ratio * more))

    def _is_over(self) -> bool:
        """Whether a draining dispatcher has nothing left to do."""
        if not self._drain or self.has_work or self.share is None or not self.share.is_up_to_date:
            return False
        if self.upkeep.owes_rules():
            return False
        if self.upkeep.readiness.is_paused:
            return True
        with self._barrier:
            return not (
                self._scheduler.has_work(leaving=True) or self.feed.has_work(later=self._wait_retries)
            )
        return False

    def _wait(self) -> None:
        """Sleep until the share reports something, a file arrives, a job is due, or a second has passed."""
        now = time.monotonic()
        timeout = self.upkeep.due_at - now
        with self._barrier:
            self._watch.start()
            self.upkeep.note("polling", self._watch.failure)
            self._scheduler.note_events()
            if not self.flags.stopping:
                timeout = self._scheduler.wait_limit(timeout)
                if self.room() > 0:
                    timeout = min(timeout, self._next_job_in(now))
        self._wake_up.wait(timeout)

    def _next_job_in(self, now: float) -> float:
        ready, due = self._index.ready_and_due()
        wait = math.inf if due is None else max(0.0, due / 1e6 - self._storage.now())
        if ready:
            wait = 0.0 if self.feed.has_ready() else min(wait, self.feed.opens_in())
        return max(wait, self._no_claim_before - now)

    # -- the end ---------------------------------------------------------------------------------------------------

    def _leave(self) -> None:
        """Give everything back. What runs goes on, and is collected by the next one."""
        self._scheduler.close()
        self.upkeep.rules.close()
        self._watch.stop()
        has_ended = self.share is None or self.share.end(HANG_UP)
        if self.connection is not None:
            self.connection.close(HANG_UP)
        if self._registration is not None and has_ended:
            self._registration.release(touch_files=not self.upkeep.spool_lost)
        # Else a call to the share hangs. What it still does there must not meet another dispatcher: the locks are the
        # kernel's to release, when this process is gone with all its threads.
        self._registration = None
        self._index.close()
