"""One job from its claim to its settlement. All state of a running job is in one `JobRun`, and none of it in the worker."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, cast

from queuectl.config.settings import JobDefaults
from queuectl.control import commands, run_lock
from queuectl.errors import SpoolError, StartRefused
from queuectl.executor.base import prepare
from queuectl.fast_start.dataclass import dataclass
from queuectl.job import times
from queuectl.job.outcome import Ending, Outcome, record
from queuectl.job.redact import one_line
from queuectl.layout import slot_name
from queuectl.storage import dependencies, job_logs, orphaned_runs
from queuectl.storage.claim import sync_claim
from queuectl.system.locks import is_held
from queuectl.worker import maintenance, prefetch, source_files, told_of_others

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from queuectl.config.reload import CurrentSettings
    from queuectl.control.permits import Permit
    from queuectl.control.registration import Registration
    from queuectl.executor.base import Runner, Running
    from queuectl.job.record import Job
    from queuectl.rules.job_rules import JobRules
    from queuectl.storage.transitions import Claim, Storage
    from queuectl.system.locks import Lock
    from queuectl.worker.events import JobEvents
    from queuectl.worker.health import FaultBarrier, StartFault
    from queuectl.worker.limits import Limits, Start
    from queuectl.worker.settle_batch import SettleBatch
    from queuectl.worker.signals import StopFlags

_BREAK_OFF_PAUSE = 0.1
"""Seconds between two looks at a command that is being ended."""

SESSION_AFTER = 0.02
"""Seconds after which the session of a run is noted. A shorter run is spared the call: it has no time to hide."""

_NOTE_AFTER = 0.25
"""Seconds after which it is worth writing into a claimed file that its job is running."""


@dataclass(frozen=True, slots=True)
class WorkerContext:
    """What runs and settlements need from their worker.

    Attributes:
        name: the worker's.
        environment: the variables that each job gets, before its own.
        current: knows the current settings.
        barrier: reports faults.
        start_fault: is told when the machine starts no process.
        say: takes lines for the log.
        events: takes the start and the end of each run.
        limits: has the permits of jobs.
        rules: knows the rules about jobs.
    """

    name: str
    registration: Registration | None
    storage: Storage
    runner: Runner
    environment: Mapping[str, str]
    current: CurrentSettings
    flags: StopFlags
    barrier: FaultBarrier
    start_fault: StartFault
    say: Callable[[str], None]
    events: JobEvents
    limits: Limits
    rules: JobRules

    def output_of(self, slot: int) -> str:
        """Return the path of the file for the stdout of the runs in a slot."""
        return self.storage.layout.worker_file(slot_name(self.name, slot), "out")


class JobRun:
    """One run of a claimed job, in a slot of its worker.

    Args:
        slot: the number of the slot.

    Attributes:
        running: the attempt under way, once it has started.
        began: the monotonic moment at which it was started; -inf before that.
        refused: why the command cannot be started, or not be followed any more; the job has to be put back then.
        goes_on: the line that says which processes of it cannot be ended; None while there are none.
        due_at, followed_fd: for `Slots`: when `poll` is due, and the descriptor that it waits for.
    """

    __slots__ = (
        "_batch",
        "_claim",
        "_context",
        "_has_said_what_goes_on",
        "_lock",
        "_long_at",
        "_note_at",
        "_permit",
        "_session_at",
        "_start",
        "began",
        "due_at",
        "followed_fd",
        "goes_on",
        "refused",
        "running",
        "slot",
    )

    def __init__(self, context: WorkerContext, batch: SettleBatch, claim: Claim, slot: int = 0) -> None:
        self.slot = slot
        self.began = -math.inf
        self.due_at = math.inf
        self.followed_fd: int | None = None
        self.running: Running | None = None
        self.refused: SpoolError | None = None
        self.goes_on: str | None = None
        self._context, self._batch, self._claim = context, batch, claim
        self._lock: Lock | None = None
        self._permit: Permit | None = None
        self._start: Start | None = None
        self._has_said_what_goes_on = False
        self._note_at = self._long_at = self._session_at = math.inf

    @property
    def job_id(self) -> str:
        """The job's."""
        return self._claim.job.id or ""

    @property
    def claim(self) -> Claim:
        """The claim of the job."""
        return self._claim

    def start(self) -> bool:
        """Start the command; False: the job has expired, or it could not be run now, as `refused` says."""
        context, claim, job = self._context, self._claim, self._claim.job
        storage = context.storage
        self._permit = context.limits.start(claim.row)
        if job.needs_settings:
            JobDefaults(storage.layout, context.current.settings).fill_in(job)
        if claim.decides is not None:
            with context.barrier:
                maintenance.settle_decided(storage, claim, claim.decides, self._batch.file_pool, context.say)
            return False
        if job.about is not None and (why := self._why_not_needed()):
            with context.barrier:
                maintenance.settle_without_run(storage, claim, why, self._batch.file_pool, context.say)
            return False
        if job.expired(storage.now()):
            with context.barrier:
                maintenance.give_up_expired(storage, claim, context.say)
            return False
        if not self._batch.is_open:
            self._say_started()
        job.started_at, job.worker = storage.now(), context.name
        try:
            if job.on_crash == "dead":
                sync_claim(storage, claim)
            if job.source is not None:
                source_files.fetch(job, context.say)
            started = self._start_command()
        except SpoolError as error:
            self._refuse(error)
            return False
        self._start = context.limits.started(claim.row)
        if isinstance(started, Outcome):
            claim.outcome = started
            context.events.started(job, context.name)
            return True
        self.running = started
        self.began = now = time.monotonic()
        self._session_at = now + SESSION_AFTER
        self._note_at = now + _NOTE_AFTER
        if self._batch.is_open:
            self._long_at = now + prefetch.LONG_JOB
        context.events.started(job, context.name)  # last: it may be interrupted
        return True

    def _refuse(self, error: SpoolError) -> None:
        """Have the job put back. If this machine starts no process, no other job is tried before the worker has paused."""
        self.refused = error
        if isinstance(error, StartRefused):
            self._context.start_fault.note(str(error))
            self._context.flags.request_look()

    def _start_command(self) -> Running | Outcome:
        """Start the command, whose processes inherit the run lock.

        Raises:
            SpoolError: the output files or the lock cannot be made, which is not the job's fault.
        """
        context, claim, job = self._context, self._claim, self._claim.job
        layout, boot = context.storage.layout, context.storage.index.boot
        marks = run_lock.marks(layout, job, context.name)
        claim.run = marks["QUEUECTL_RUN"]
        lock = run_lock.acquire(
            layout,
            self._slot_name,
            job.id or "",
            claim.run,
            boot,
            self._batch.run_file_lines,
            started_at=job.started_at,
        )
        self._lock = lock
        settings, environment, permit = context.current.settings, context.environment, self._permit
        parents: dict[str, str] = {}
        list_file = layout.worker_file(self._slot_name, "after")
        if claim.row.conditions is not None:
            parents |= dependencies.describe(context.storage, job, list_file)
        if job.about is not None:
            parents |= told_of_others.variables_here(context, job, list_file)
        attempt = prepare(layout, job, marks, settings, environment, lock.fd, self.slot, permit, parents)
        return context.runner.start(attempt)

    def _why_not_needed(self) -> str | None:
        """Why a hook has nothing to tell any more; None: it has, or that is not known."""
        with self._context.barrier:
            return told_of_others.why_not_needed(self._context.storage, self._context.rules, self._claim.job)
        return None

    @property
    def _slot_name(self) -> str:
        return slot_name(self._context.name, self.slot)

    def wait_fd(self) -> int | None:
        """A descriptor that becomes readable when `poll` is due; None: there is none at the moment."""
        return self.running.wait_fd() if self.running else None

    def next_poll(self) -> float:
        """The monotonic moment at which `poll` is due at the latest."""
        due = self.running.next_poll() if self.running else None
        ours = min(self._long_at, self._session_at)
        return ours if due is None else min(ours, due)

    def poll(self, free: int = 0) -> bool:
        """Do what is due for this run; True: it is over.

        Args:
            free: how many slots are free. The jobs for them start next, however long this run takes.
        """
        running = self.running
        if running is not None:
            try:
                self._claim.outcome = running.poll()
            except SpoolError as error:
                self._refuse(error)
                with self._context.barrier:
                    self._context.limits.take_back(self._start)
        if self.is_over:
            # Now, and not when its turn comes to be recorded: of many that end together the order would be lost.
            self._claim.ended_at = self._context.storage.now()
            return True
        now = time.monotonic()
        if now >= self._session_at:
            has_begun = running is None or running.has_begun()
            self._session_at = math.inf if has_begun else now + SESSION_AFTER
            if has_begun:
                self._note_session()
        if now >= self._long_at:
            self._long_at = math.inf
            self._batch.end(keep=free)
            self._say_started()
        return False

    def _note_session(self) -> None:
        """Write into the run file which session the run has, and leave the run lock to its processes."""
        if self.running is not None and self._lock is not None:
            run_lock.note_session(self._lock, self._claim.run, self.running.session())
        self._leave_lock()

    def _leave_lock(self) -> None:
        if self._lock is not None:
            self._lock.detach()
            self._lock = None

    @property
    def is_over(self) -> bool:
        """Whether the run has ended, and only has to be recorded, or the job put back."""
        return self._claim.outcome is not None or self.refused is not None

    def stop(self, *, now: bool = False) -> None:
        """Begin to end the command; the job is put back uncharged. With `now` it gets no grace time."""
        if self.running is not None:
            self.running.cancel(Ending.STOPPED, now=now)

    def look_at_end(self) -> bool:
        """Do what is due to end a stopped command; True: nothing of it is alive."""
        return self.running is None or self.running.poll() is not None

    def take_note(self) -> Claim | None:
        """Return the claim if its file is to say from now on that the job runs; None before that, and afterwards."""
        if time.monotonic() < self._note_at:
            return None
        self._note_at = math.inf
        return self._claim

    def periodic_duties(self, cancels: Mapping[str, int]) -> None:
        """Do what is due once a second: obey a cancel.

        Args:
            cancels: the runs of this worker that somebody wants ended, by job id.
        """
        job = self._claim.job
        if self.running is not None and job.id in cancels and cancels[job.id] == job.next_run:
            self.running.cancel(Ending.CANCELLED)
        self._say_what_goes_on()

    @property
    def cannot_be_ended(self) -> bool:
        """Whether processes of the command go on although they were killed."""
        return self.running is not None and self.running.cannot_end() is not None

    def _say_what_goes_on(self) -> None:
        """Note which processes of the run cannot be ended, and say so once in the log."""
        left = self.running.cannot_end() if self.running is not None else None
        self.goes_on = (
            None
            if left is None
            else f"cannot end {self.job_id}: {left} goes on after KILL, and is waited for"
        )
        if self.goes_on is not None and not self._has_said_what_goes_on:
            self._has_said_what_goes_on = True
            self._context.say(self.goes_on)

    def _is_cancelled(self) -> bool:
        job, registration = self._claim.job, self._context.registration
        return registration is not None and commands.is_cancel_requested(
            registration.layout, registration.name, job.id or "", job.next_run
        )

    def finish(self) -> None:
        """Keep the output of the finished attempt; what is left to do is to record its outcome."""
        context, claim, job = self._context, self._claim, self._claim.job
        claim.ended_at = claim.ended_at or context.storage.now()
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
            job_logs.keep_output(context.storage.layout, job, self._slot_name, outcome, limit=limit)

    def close(self) -> None:
        """Give back the descriptors of the attempt, and the permit if it is over; ends no process."""
        self._leave_lock()
        permit, self._permit = self._permit, None
        if permit is not None:
            if self.running is not None and not self.is_over:
                permit.leave()
            else:
                self._context.limits.end(self._claim.row.lane, permit, reuse=not self._has_left_processes())
        if self.running is not None:
            self.running.close()
            self.running = None

    def _has_left_processes(self) -> bool:
        """Whether processes of the run may go on although it is over. A daemon in a session of its own still has the run lock."""
        outcome = self._claim.outcome
        if outcome is not None and outcome.leftovers:
            return True
        try:
            return is_held(self._context.storage.layout.worker_file(self._slot_name, "run"))
        except OSError:
            return True

    def break_off(self) -> None:
        """End the command at once because an exception ends the worker, and put the job back uncharged.

        If the command has ended by itself, this is recorded. An exception may also have come between the start of the
        command and its return: then its processes are found as those of a dead worker.
        """
        context, claim = self._context, self._claim
        context.flags.stop(force=True)
        if self.running is not None:
            self.running.cancel(Ending.STOPPED, now=True)
            while (outcome := self.running.poll()) is None:
                time.sleep(max(0.0, min(self.next_poll() - time.monotonic(), _BREAK_OFF_PAUSE)))
            claim.outcome = outcome
        self._leave_lock()
        if claim.outcome is not None:
            self.finish()
            self._batch.add([claim])
        elif claim.run:
            known = run_lock.read_all(context.storage.layout, context.name)
            orphaned_runs.end_run(context.storage.layout, claim.job, context.name, known)
            self.put_back(SpoolError("the worker was interrupted"))

    def _say_started(self) -> None:
        self._context.say(_started_line(self._claim.job))
        self._claim.is_told = True

    def put_back(self, error: SpoolError) -> None:
        """Put the job back. While the disk refuses that, it stays claimed, to be put back or started later."""
        self._batch.put_back(self._claim)
        self._context.say(f"cannot run {self._claim.job.id} now: {error}")


def record_outcome(claim: Claim) -> None:
    """Record the outcome of a run in its job, and add the lines for the log to the claim."""
    job, outcome = claim.job, cast("Outcome", claim.outcome)
    if not claim.is_told:
        claim.lines.append(_started_line(job))
    claim.state = record(job, outcome, now=claim.ended_at, digest=claim.digest)
    claim.lines.append(_ended_line(job, outcome, claim.state))


def _started_line(job: Job) -> str:
    """The two lines that a worker logs when it starts a job."""
    limit = f"{times.seconds(job.timeout)}s" if job.timeout else "none"
    details = f"priority {job.priority}, attempt {job.attempts + 1}/{job.runs_allowed}, timeout {limit}"
    return f"executing job {job.id}: {one_line(job.shown_command)}\n  {details}"


def _ended_line(job: Job, outcome: Outcome, state: str) -> str:
    """The two lines that a worker logs when an attempt has been recorded."""
    verb = "put back" if state == "pending" else state
    line = f"{verb} {job.id}" if state == "completed" else f"{verb} {job.id}: {job.last_error}"
    if state == "failed":
        wait = max(0.0, (job.next_retry_at or 0) - (job.finished_at or 0))
        line += f"; next attempt in {times.seconds(wait)}s"
    code = "" if outcome.exit_code is None else f", exit code {outcome.exit_code}"
    return f"{line}\n  execution time {outcome.duration:.3f}s{code}"
