"""One job from its claim to its settlement. All state of a running job is in one `JobRun`, and none of it in the worker."""

from __future__ import annotations

import math
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from queuectl.control import commands
from queuectl.errors import SpoolError
from queuectl.job.outcome import Ending, Outcome
from queuectl.storage import job_logs
from queuectl.worker import attempt, maintenance, prefetch
from queuectl.worker.health import FAULT_PAUSE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from queuectl.config.reload import CurrentSettings
    from queuectl.control.registry import Registration
    from queuectl.executor.base import Runner, Running
    from queuectl.storage.mover import Claim, Mover
    from queuectl.worker.health import FaultBarrier
    from queuectl.worker.settle_batch import SettleBatch
    from queuectl.worker.signals import StopFlags

_NOTE_AFTER = 0.25
"""Seconds after which it is worth writing into a claimed file that its job is running."""


@dataclass(frozen=True, slots=True)
class RunContext:
    """What every run needs from its worker.

    Attributes:
        name: the worker's.
        environment: the variables that each job gets, before its own.
        current: knows the current settings.
        barrier: reports faults.
        say: takes lines for the log.
    """

    name: str
    registration: Registration | None
    mover: Mover
    runner: Runner
    environment: Mapping[str, str]
    current: CurrentSettings
    batch: SettleBatch
    flags: StopFlags
    barrier: FaultBarrier
    say: Callable[[str], None]


class JobRun:
    """One run of a claimed job.

    Attributes:
        running: the attempt under way, once it has started.
    """

    __slots__ = ("_claim", "_context", "_long_at", "_note_at", "running")

    def __init__(self, context: RunContext, claim: Claim) -> None:
        self.running: Running | None = None
        self._context = context
        self._claim = claim
        self._note_at = self._long_at = math.inf

    def start(self) -> bool:
        """Start the command; False: nothing is left to do, as the job has expired or could not be run now."""
        context, claim, job = self._context, self._claim, self._claim.job
        mover, batch = context.mover, context.batch
        if job.needs_settings:
            job.fill_in(context.current.settings)
        if job.expired(mover.now()):
            with context.barrier:
                maintenance.give_up_expired(mover, claim, context.say)
            return False
        if not batch.is_open:
            self._say_started()
        job.started_at, job.worker = mover.now(), context.name
        try:
            if job.on_crash == "dead":
                mover.make_durable(claim)
            given = claim, context.name, context.current.settings, context.environment, mover.index.boot
            started = attempt.start(context.runner, mover.layout, *given, finished=batch.run_file_lines)
        except SpoolError as error:
            self._put_back(error)
            return False
        if isinstance(started, Outcome):
            claim.outcome = started
            return True
        self.running = started
        now = time.monotonic()
        self._note_at = now + _NOTE_AFTER
        if batch.is_open:
            self._long_at = now + prefetch.LONG_JOB
        return True

    @property
    def is_over(self) -> bool:
        """Whether the attempt has its outcome."""
        return self._claim.outcome is not None

    def wait_fd(self) -> int | None:
        """A descriptor that becomes readable when `poll` is due; None: there is none at the moment."""
        return self.running.wait_fd() if self.running else None

    def next_poll(self) -> float:
        """The monotonic moment at which `poll` is due at the latest."""
        look = self.running.next_poll() if self.running else None
        return self._long_at if look is None else min(self._long_at, look)

    def poll(self) -> bool:
        """Do what is due for this run; True: it is over."""
        running = self.running
        if running is not None:
            self._claim.outcome = running.poll()
        if self._claim.outcome is not None:
            return True
        if time.monotonic() >= self._long_at:
            self._long_at = math.inf
            self._context.batch.end(busy=True)
            self._say_started()
        return False

    def stop(self) -> None:
        """Begin to end the command; the job is put back uncharged."""
        if self.running is not None:
            self.running.cancel(Ending.STOPPED)

    def periodic_duties(self) -> None:
        """Do what is due once a second: note in the job's file that it runs, and obey a cancel."""
        context, claim = self._context, self._claim
        if time.monotonic() >= self._note_at:
            self._note_at = math.inf
            with context.barrier:
                context.mover.note_running(claim)
        if self.running is not None and self._is_cancelled():
            self.running.cancel(Ending.CANCELLED)

    def _is_cancelled(self) -> bool:
        job, registration = self._claim.job, self._context.registration
        return registration is not None and commands.is_cancel_requested(
            registration.layout, registration.name, job.id or "", job.next_run
        )

    def settle(self) -> None:
        """Keep the output of the finished attempt and record its outcome."""
        context, claim, job = self._context, self._claim, self._claim.job
        claim.ended_at = context.mover.now()
        outcome = claim.outcome
        if (
            outcome is not None
            and outcome.ending not in (Ending.SUCCEEDED, Ending.CANCELLED)
            and self._is_cancelled()
        ):
            # It failed by itself just as somebody cancelled it, and must not be retried.
            outcome.ending, outcome.error = Ending.CANCELLED, "Cancelled"
        with context.barrier:
            limit = context.current.settings.output_limit
            job_logs.keep_output(context.mover.layout, job, context.name, outcome, limit=limit)
        context.batch.add(claim)

    def close(self) -> None:
        """Give back the descriptors of the attempt; ends no process."""
        if self.running is not None:
            self.running.close()
            self.running = None

    def _say_started(self) -> None:
        self._context.say(attempt.started_line(self._claim.job))
        self._claim.is_told = True

    def _put_back(self, error: SpoolError) -> None:
        """Put the job back, however long the disk refuses: left in the worker's folder it would count as running."""
        context, claim = self._context, self._claim
        context.batch.end()
        context.say(f"cannot run {claim.job.id} now: {error}")
        while os.path.lexists(claim.path):
            with suppress(OSError):
                context.mover.release(claim)
            context.flags.wake_up.wait(FAULT_PAUSE)
            context.flags.look()
            if context.flags.stopping:
                return
