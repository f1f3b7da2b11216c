"""The runs that a worker has under way: their start, which of them is due next, and their end.

Each run is in a slot: it has a number, and files of its own.

The cost of a wait does not grow with the number of runs: the kernel names the runs that have ended, and the other
deadlines (timeouts, output limits, looks at a tree that is being ended) are in a heap.
"""

from __future__ import annotations

import heapq
import math
import time
from typing import TYPE_CHECKING

from queuectl.control import commands
from queuectl.errors import StartRefused
from queuectl.storage.claim import note_running
from queuectl.system import open_files
from queuectl.worker.health import FAULT_PAUSE
from queuectl.worker.job_run import JobRun
from queuectl.worker.suspects import Suspects

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from queuectl.errors import SpoolError
    from queuectl.index.index import Index
    from queuectl.index.row import Row
    from queuectl.storage.transitions import Claim
    from queuectl.system.wake_up import WakeUp
    from queuectl.worker.job_run import WorkerContext
    from queuectl.worker.settle_batch import SettleBatch


TOGETHER = 32
"""Runs whose outcomes are recorded together at most. Recording those of five hundred takes a fifth of a second, in which
nothing is done for the others: a timeout would come late, and an end be noted late."""

LATE = 0.02
"""Seconds. While jobs are started one after the other (five hundred take half a second), timeouts and ends are this late at
most."""

LEFT_OUT = 10.0
"""Seconds for which a slot whose files refused a start is the last choice: the job runs in another one meanwhile."""

_STALE_KEPT = 64
"""Entries of ended runs among the deadlines that cost less than their removal."""

_BREAK_OFF_PAUSE = 0.05
"""Seconds between two looks at commands that are being ended because of an exception."""


class Slots:
    """The runs of one worker.

    Args:
        wake_up: ends the worker's wait when a run has ended.
        index: knows the waiting jobs.
        ready: returns the first of them that may start as far as their limits go, at most so many.
        is_open: whether jobs of a lane may start as far as their limits go.

    Attributes:
        attempts: how many attempts have been made.
        opened: how many files this process has open without those of the worker and its runs.
        suspects: says when jobs start that may have killed their workers.
        no_start_before: the monotonic moment until which no job is started, as starts were refused.
    """

    _context: WorkerContext
    _batch: SettleBatch

    def __init__(
        self,
        wake_up: WakeUp,
        index: Index,
        ready: Callable[[int], list[Row]],
        is_open: Callable[[str | None], bool],
    ) -> None:
        self.attempts = self.opened = 0
        self.no_start_before = self._looked_at = 0.0
        self._wake_up = wake_up
        self._size, self._wanted = 1, 0
        self._ended: list[JobRun] = []
        self._runs: dict[int, JobRun] = {}
        self.suspects = Suspects(self._runs, index, ready, is_open)
        self._by_fd: dict[int, JobRun] = {}
        self._deadlines: list[tuple[float, int, JobRun]] = []
        self._deadlines_noted = self._slots_used = 0
        self._freed: list[int] = []
        self._left_out: dict[int, float] = {}
        self._refusals = 0

    def __len__(self) -> int:
        return len(self._runs)

    def __iter__(self) -> Iterator[JobRun]:
        return iter(tuple(self._runs.values()))

    @property
    def free(self) -> int:
        """How many jobs can be started now. None beside a young job that may have killed its worker.

        An outcome that the disk refuses keeps its slot: else a disk that takes none would let all jobs run for nothing.
        """
        return 0 if self.suspects.hold else max(0, self._size - len(self._runs) - self._batch.refused)

    def work_for(self, context: WorkerContext, batch: SettleBatch) -> None:
        """Run jobs for the worker of this context from now on, and let `batch` record what becomes of them."""
        self._context, self._batch = context, batch

    # -- once a second ---------------------------------------------------------------------------------------------

    def attend(self, wanted: int) -> None:
        """Do what is due for the runs once a second.

        Args:
            wanted: how many jobs may run at once now. A smaller number than before ends none.
        """
        if wanted != self._wanted:
            self._resize(wanted)
        self._attend()

    def _attend(self) -> None:
        context = self._context
        cancels = commands.cancel_requests(context.storage.layout, context.name) if self._runs else {}
        for run in self:
            run.periodic_duties(cancels)
            self._follow(run)
        # Together: with two waits for the disk for each, three hundred jobs would hold up their worker for a second.
        notes = [claim for run in self if (claim := run.take_note()) is not None]
        with context.barrier:
            note_running(context.storage, notes)
        self._report_what_goes_on()

    def _resize(self, wanted: int) -> None:
        self._wanted = wanted
        self._size = open_files.possible_runs(wanted, self.opened) if wanted > 1 else 1
        for slot in range(self._size, self._slots_used):
            self._context.runner.forget_output(self._context.output_of(slot))
        if self._size < wanted:
            self._context.say(
                f"{self._size} jobs at once and not {wanted}: this process may open no more files"
            )
        if self._context.registration:
            self._context.registration.report("concurrency", self._size if self._size > 1 else None)

    def _report_what_goes_on(self) -> None:
        """Put into the worker's record which runs cannot be ended. A key of its own: the worker may be paused as well."""
        if self._context.registration:
            lines = [run.goes_on for run in self._runs.values() if run.goes_on is not None]
            self._context.registration.report("lingering", "; ".join(lines) or None)

    # -- start and end ---------------------------------------------------------------------------------------------

    def start(self, claim: Claim) -> None:
        """Start a claimed job in the lowest free slot: what a slot keeps (its files) serves the next run in it."""
        run = JobRun(self._context, self._batch, claim, self._take_number())
        self._runs[run.slot] = run
        self.suspects.note_start(run)
        if len(self._runs) == 1:
            self._looked_at = time.monotonic()
        try:
            started = run.start()
        except BaseException:
            run.break_off()
            self._close(run)
            raise
        if not started:
            self._close(run)
            if run.refused is not None:
                self._put_back(run, run.refused)
            return
        self._refusals = 0
        self._left_out.pop(run.slot, None)
        if run.running is None:
            self._finish([run], record=True)
        else:
            self._follow(run)

    def finish_ended(self, *, record: bool) -> bool:
        """Do what is due for the runs after a wait, and record the outcomes of those that are over.

        Args:
            record: False: the spool is lost, and nothing is written.

        Returns:
            whether one was over.
        """
        self._ended += self._poll()
        over, self._ended = self._ended[:TOGETHER], self._ended[TOGETHER:]
        if over:
            self._finish(over, record=record)
        return bool(over)

    def end_all(self) -> None:
        """Begin to end all runs, and put their jobs back; leave those that cannot be ended to other workers."""
        for run in self:
            run.stop()
            if run.cannot_be_ended:
                self._context.say(f"leaving {run.job_id} to the worker that finds its processes ended")
                self._close(run)
            else:
                self._follow(run)

    def break_off_all(self) -> None:
        """End all runs because an exception ends the worker: all at once, and not one after the other."""
        for run in self:
            run.stop(now=True)
        left = list(self)
        while left := [run for run in left if not run.look_at_end()]:
            time.sleep(_BREAK_OFF_PAUSE)
        for run in self:
            run.break_off()
            self._close(run)

    def _finish(self, over: list[JobRun], *, record: bool) -> None:
        """Record the outcomes of runs that are over, in the order of their ends."""
        ended = []
        for run in over:
            self._close(run)
            if run.refused is not None:
                run.put_back(run.refused)
                self.no_start_before = time.monotonic() + FAULT_PAUSE
            elif record:
                self.attempts += 1
                run.finish()
                ended.append(run.claim)
        if ended:
            self._batch.add(ended)

    def _put_back(self, run: JobRun, error: SpoolError) -> None:
        """Put back a job that could not be started, and try the next start in another slot, or after a pause.

        A file in the way of a slot concerns no other slot. If the next one refuses too, it may be the disk, or the
        number of open files: without a pause that would keep the processor busy, and fill the log.
        """
        run.put_back(error)
        now = time.monotonic()
        self._refusals += 1
        if not isinstance(error, StartRefused):
            self._left_out[run.slot] = now + LEFT_OUT
        has_another = self._size - len(self._runs) > len(self._left_out)
        if isinstance(error, StartRefused) or self._refusals > 1 or not has_another:
            self.no_start_before = now + FAULT_PAUSE

    def _take_number(self) -> int:
        if self._left_out:
            return self._take_sound_number()
        if self._freed:
            return heapq.heappop(self._freed)
        self._slots_used += 1
        return self._slots_used - 1

    def _take_sound_number(self) -> int:
        """Take the lowest free number that is not left out; else the one that was left out first."""
        now = time.monotonic()
        self._left_out = {number: until for number, until in self._left_out.items() if until > now}
        while self._slots_used < self._size:
            heapq.heappush(self._freed, self._slots_used)
            self._slots_used += 1
        # After a change of the setting there may be higher ones, which no job expects.
        free = [number for number in self._freed if number < self._size] or self._freed
        chosen = min(free, key=lambda number: (self._left_out.get(number, 0.0), number))
        self._freed.remove(chosen)
        heapq.heapify(self._freed)
        return chosen

    def _close(self, run: JobRun) -> None:
        if self._runs.pop(run.slot, None) is not None:
            heapq.heappush(self._freed, run.slot)
        self._unfollow(run)
        run.close()

    # -- which is due ----------------------------------------------------------------------------------------------

    def due_at(self) -> float:
        """The monotonic moment at which something is due for a run at the latest."""
        return -math.inf if self._ended else self._next_deadline()

    @property
    def is_late(self) -> bool:
        """Whether the runs come before the start of the next job: something was due, or none was looked at, for a while.

        Jobs that end in their start, as their program does not exist, take no slot: thousands may follow one another.
        """
        latest = time.monotonic() - LATE
        return self.due_at() < latest or (bool(self._runs) and self._looked_at < latest)

    def _next_deadline(self) -> float:
        while self._deadlines and self._deadlines[0][0] != self._deadlines[0][2].due_at:
            heapq.heappop(self._deadlines)
        return self._deadlines[0][0] if self._deadlines else math.inf

    def _poll(self) -> list[JobRun]:
        """Do what is due for the runs after a wait; return those that are over, which stay in their slots."""
        due = [run for fd in self._wake_up.readable if (run := self._by_fd.get(fd)) is not None]
        self._looked_at = now = time.monotonic()
        while self._next_deadline() <= now:
            run = heapq.heappop(self._deadlines)[2]
            run.due_at = math.inf
            due.append(run)
        over = []
        for run in dict.fromkeys(due):
            if run.poll(self.free):
                self._unfollow(run)
                over.append(run)
            else:
                self._follow(run)
        return over

    def _follow(self, run: JobRun) -> None:
        """From now on wait for the descriptor of a run, and note when it is due: both may have changed.

        One that is over waits for its turn to be recorded. Its descriptor stays readable: it would be recorded twice.
        """
        if run.is_over:
            return
        fd = run.wait_fd()
        if fd != run.followed_fd:
            self._unfollow(run)
            if fd is not None:
                self._wake_up.watch(fd)
                self._by_fd[fd], run.followed_fd = run, fd
        if (due_at := run.next_poll()) != run.due_at:
            run.due_at = due_at
            if due_at < math.inf:
                self._deadlines_noted += 1
                heapq.heappush(self._deadlines, (due_at, self._deadlines_noted, run))
                if len(self._deadlines) > 2 * len(self._runs) + _STALE_KEPT:
                    self._drop_stale()

    def _drop_stale(self) -> None:
        """Keep the last entry of each run. Those of ended runs would stay until they are due, for an hour or longer."""
        current = {entry[2]: entry for entry in sorted(self._deadlines) if entry[0] == entry[2].due_at}
        self._deadlines = sorted(current.values())

    def _unfollow(self, run: JobRun) -> None:
        if run.followed_fd is not None:
            self._wake_up.unwatch(run.followed_fd)
            del self._by_fd[run.followed_fd]
            run.followed_fd = None
        run.due_at = math.inf
