"""Runs one attempt as a process tree on this machine, and returns its outcome."""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from queuectl.errors import StartRefused
from queuectl.executor.capture import OutputFiles, cut, open_for_job
from queuectl.executor.explain import could_not_enter, why_not
from queuectl.executor.launcher import Launch, Launcher
from queuectl.executor.spawn import (
    CAN_SPAWN_FAST,
    CANNOT_ENTER,
    Child,
    entering,
    fast_spawn,
    hands_signals_down,
    spawn,
    spawn_entering,
    touched,
)
from queuectl.job import times
from queuectl.job.exit_codes import exit_code, judge
from queuectl.job.outcome import Ending, Outcome
from queuectl.system.mounts import HangingMounts
from queuectl.system.process import Session, ignores_signal
from queuectl.system.process_table import SharedLook
from queuectl.system.process_tree import TreeTermination, find_tree, group_exists, is_alive, open_pidfd

if TYPE_CHECKING:
    from collections.abc import Callable

    from queuectl.executor.base import Attempt, Running

_LONGEST_WAIT = 86400.0
_POLL_WITHOUT_PIDFD = 0.02  # seconds, where no descriptor becomes readable at a child's end
_SHORTEST_OUTPUT_CHECK = 0.05  # seconds between two checks of the size of the output
_LONGEST_OUTPUT_CHECK = 0.5
_REFUSALS = (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE)
"""Why the system starts no process at all. Every other reason is about the one command."""


class LocalRunner:
    """Runs attempts as child processes, each in a session of its own.

    Args:
        may_chdir: this process may change its current folder for the moment of a start, as it is nothing but a worker.
    """

    def __init__(self, *, may_chdir: bool = False) -> None:
        self._fast = may_chdir and CAN_SPAWN_FAST
        self._outputs: dict[str, OutputFiles] = {}
        self._mounts = HangingMounts()
        self._look = SharedLook()
        self._launcher: Launcher | None = None
        keep_exit_codes()

    def start(self, attempt: Attempt) -> Running | Outcome:
        """Start an attempt, or return an outcome (NOT_STARTED) that says why the command cannot start.

        Raises:
            StartRefused: this machine cannot start a process now, whichever.
            SpoolError: the output files cannot be made, which is not the job's fault.
        """
        outputs = self._outputs_of(attempt)
        outputs.prepare()
        began = time.monotonic()
        child: Child | Launch | Outcome | None
        may_hang = sys.platform == "linux" and any(map(self._mounts.hold, touched(attempt)))
        resets = CAN_SPAWN_FAST and not self._fast and hands_signals_down()
        enters = may_hang or resets
        start = partial(self._start, entering(attempt) if enters else attempt, began, resets=resets)
        child = self._launch(attempt) if self._fast and attempt.slot and not enters else None
        child = child or start()
        if isinstance(child, Outcome):
            return child
        return _LocalRun(attempt, child, began, outputs, self._look, start, enters_itself=enters)

    def _launch(self, attempt: Attempt) -> Launch | None:
        """Let a thread start an attempt; None: that is not possible, or the threads are behind."""
        self._launcher = self._launcher or Launcher()
        if self._launcher.is_busy:
            return None
        try:
            return self._launcher.start(attempt)
        except (OSError, ValueError):
            return None

    def _start(self, attempt: Attempt, began: float, *, resets: bool) -> Child | Outcome:
        """Start an attempt here.

        Raises:
            StartRefused: this machine cannot start a process now, whichever.
        """
        if self._fast or resets:
            # What this refuses spawn() starts, or it knows the reason.
            with suppress(OSError, ValueError):
                return fast_spawn(attempt) if self._fast else spawn_entering(attempt)
        return _spawn_or_explain(attempt, began)

    def forget_output(self, stdout: str) -> None:
        """Close the output files of runs that write into this file. A run under way keeps its own until its end."""
        self._outputs.pop(stdout, None)

    def _outputs_of(self, attempt: Attempt) -> OutputFiles:
        known = self._outputs.get(attempt.stdout)
        if known is None or known.paths != (attempt.stdout, attempt.stderr):
            known = self._outputs[attempt.stdout] = OutputFiles(attempt.stdout, attempt.stderr)
        return known


def keep_exit_codes() -> None:
    """Let the system keep exit codes: with SIGCHLD ignored, which a parent process may pass on, it loses them.

    Only the main thread can change that. In another one it stays as the program wants it, and each run then ends with
    "Exit code unknown".
    """
    if sys.platform == "win32" or threading.current_thread() is not threading.main_thread():
        return
    if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def _spawn_or_explain(attempt: Attempt, began: float) -> Child | Outcome:
    out = open_for_job(attempt.stdout)
    try:
        err = open_for_job(attempt.stderr)
    except BaseException:
        os.close(out)
        raise
    try:
        return spawn(attempt, out, err)
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in _REFUSALS:
            # Charged to the jobs, a crowded machine would use up the attempts of all of them.
            raise StartRefused(f"cannot start a process: {(error.strerror or str(error)).lower()}") from None
        reason = f"Cannot start: {why_not(attempt, error)}"
        return Outcome(Ending.NOT_STARTED, None, reason, time.monotonic() - began)
    finally:
        os.close(out)
        os.close(err)


class _LocalRun:
    __slots__ = (
        "_attempt",
        "_began",
        "_child",
        "_code",
        "_deadline",
        "_ending",
        "_enters_itself",
        "_ignores_term",
        "_is_reaped",
        "_launch",
        "_look",
        "_outcome",
        "_output_check_at",
        "_output_interval",
        "_outputs",
        "_pidfd",
        "_start",
        "_tree",
        "_wanted",
        "pid",
    )

    def __init__(
        self,
        attempt: Attempt,
        child: Child | Launch,
        began: float,
        outputs: OutputFiles,
        look: SharedLook,
        start: Callable[[], Child | Outcome],
        *,
        enters_itself: bool = False,
    ) -> None:
        self._look = look
        self._start = start
        self._enters_itself = enters_itself
        self._attempt = attempt
        self._began = began
        self._outputs = outputs
        self._deadline = began + attempt.timeout if attempt.timeout else None
        self._output_interval = _SHORTEST_OUTPUT_CHECK
        self._output_check_at = began + self._output_interval if attempt.log_limit else None
        self._ending = Ending.TIMED_OUT
        self._ignores_term = self._is_reaped = False
        self._code: int | None = None
        self._tree: TreeTermination | None = None
        self._outcome: Outcome | None = None
        self._wanted: tuple[Ending, bool] | None = None
        self._launch: Launch | None = None
        self._pidfd: int | None = None
        self.pid = 0
        if isinstance(child, Child):
            self._take_over(child)
        else:
            self._launch = child

    def _take_over(self, child: Child) -> None:
        self._child, self.pid = child, child.pid
        self._pidfd = open_pidfd(child.pid)
        self._look.leaders.add(child.pid)

    def has_begun(self) -> bool:
        return self._launch is None

    def _begins(self) -> bool:
        """Take over the child if a thread was to start it; False: it has not done so yet, or there is none."""
        launch = self._launch
        if launch is None or not launch.is_over:
            return launch is None
        self._launch = None
        child = Child(launch.pid) if launch.pid else self._start()
        if isinstance(child, Outcome):
            self._outcome = child
            return False
        self._take_over(child)
        if self._wanted is not None:
            self.cancel(self._wanted[0], now=self._wanted[1])
        return True

    def session(self) -> Session | None:
        return Session.of_child(self.pid)

    def wait_fd(self) -> int | None:
        if self._launch is not None:
            return self._launch.fd
        # While the tree is being ended the dead leader stays a zombie, and its pidfd would be readable all the time.
        return self._pidfd if self._tree is None else None

    def next_poll(self) -> float | None:
        if self._outcome is not None:
            return time.monotonic()
        if self._launch is not None:
            return None
        if self._tree is not None:
            return self._tree.next_step
        check, deadline = self._output_check_at, self._deadline
        if check is None or (deadline is not None and deadline < check):
            check = deadline
        if self._pidfd is None:
            poll = time.monotonic() + _POLL_WITHOUT_PIDFD
            check = poll if check is None else min(check, poll)
        elif check is not None and check > self._began + _LONGEST_WAIT:
            # A timeout of a million years is more than a system call can wait.
            check = min(check, time.monotonic() + _LONGEST_WAIT)
        return check

    def poll(self) -> Outcome | None:
        if self._outcome is not None or not self._begins():
            return self._outcome
        if self._tree is None and self._has_ended_itself():
            return self._outcome
        now = time.monotonic()
        if self._output_check_at is not None and now >= self._output_check_at:
            self._cut_outputs(now)
        if self._tree is None:
            if self._deadline is None or now < self._deadline:
                return None
            self._terminate(Ending.TIMED_OUT)
        if self._tree is not None and self._tree.step(now):
            self._outcome = self._outcome_of_termination()
        return self._outcome

    def cancel(self, ending: Ending, *, now: bool = False) -> None:
        if self._launch is not None:
            first, at_once = self._wanted or (ending, False)
            self._wanted = first, now or at_once
            return
        if self._outcome is not None or (self._tree is None and self._has_ended_itself()):
            return
        if self._tree is None:
            self._terminate(ending)
        if now and self._tree is not None:
            self._tree.kill_now()

    def cannot_end(self) -> str | None:
        return self._tree.describe() if self._tree is not None and self._tree.survivors else None

    def close(self) -> None:
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None

    def _terminate(self, ending: Ending) -> None:
        """Begin to end the tree, unless the command has ended by itself until now.

        The search for the tree takes a while, and many commands end well during it. Such a run must not be recorded as
        ended by somebody, and run again. So the command is asked last, just before the first signal.
        """
        tree = TreeTermination(
            self._attempt.marks,
            self.pid,
            self._attempt.grace,
            is_child=True,
            reap=self._reap,
            look=self._look,
            since=self._began,
        )
        self._ignores_term = ignores_signal(self.pid, signal.SIGTERM)
        if self._has_ended_itself():
            return
        tree.request_end()
        self._ending, self._tree = ending, tree

    def _reap(self) -> bool:
        """Collect the leader's exit code if it has ended; returns whether it has."""
        if not self._is_reaped:
            self._is_reaped, self._code = self._child.reap()
            if self._is_reaped:
                self._look.leaders.discard(self.pid)
        return self._is_reaped

    def _has_ended_itself(self) -> bool:
        if not self._reap():
            return False
        code = self._code
        duration = time.monotonic() - self._began
        leftovers = self._count_leftovers()
        printed = self._printed()
        ending, error = judge(code, isinstance(self._attempt.command, str))
        if code == CANNOT_ENTER and self._enters_itself and could_not_enter(self._attempt):
            ending, code = Ending.NOT_STARTED, None
            error = f"Cannot start: the folder {self._attempt.cwd} cannot be entered"
        self._outcome = Outcome(ending, exit_code(code), error, duration, leftovers, printed)
        if leftovers:
            self._outputs.forget()
        return True

    def _printed(self) -> tuple[int, int] | None:
        """Cut the output to its limit and return the sizes; files that hold something are not used for the next run."""
        sizes = self._outputs.sizes()
        limit = self._attempt.log_limit
        if sizes is None or (limit and max(sizes) > limit):
            self._cut_outputs(None)
            sizes = None
        self._outputs.forget(sizes)
        return sizes

    def _outcome_of_termination(self) -> Outcome:
        self._reap()
        code = self._code
        self._cut_outputs(None)
        self._outputs.forget()
        duration = time.monotonic() - self._began
        if code == 0 and self._ignores_term and self._ending != Ending.TIMED_OUT:
            # TERM did nothing to it: it came to its own end within the grace time.
            return Outcome(Ending.SUCCEEDED, 0, None, duration)
        error = {
            Ending.TIMED_OUT: f"Timeout exceeded ({times.seconds(self._attempt.timeout)}s)",
            Ending.STOPPED: "Stopped with its worker",
            Ending.CANCELLED: "Cancelled",
        }.get(self._ending, f"Ended: {self._ending}")
        return Outcome(self._ending, exit_code(code), error, duration)

    def _count_leftovers(self) -> int:
        """Count the background children that still run. Two cheap checks come first, as nearly always there are none."""
        if not self._may_have_leftovers():
            return 0
        found = find_tree(self._attempt.marks, self.pid, table=self._look.recent(self._began))
        count = sum(one.pid != self.pid and is_alive(one) for one in found)
        return count or int(self._may_have_leftovers())

    def _may_have_leftovers(self) -> bool:
        return group_exists(self.pid) or self._outputs.is_open_for_writing()

    def _cut_outputs(self, now: float | None) -> None:
        limit = self._attempt.log_limit
        if not limit:
            return
        is_near_limit = False
        for path in (self._attempt.stdout, self._attempt.stderr):
            is_near_limit |= cut(path, limit) > limit // 4
        if now is not None:
            self._output_interval = (
                _SHORTEST_OUTPUT_CHECK
                if is_near_limit
                else min(self._output_interval * 2, _LONGEST_OUTPUT_CHECK)
            )
            # Not after an interval, but at the next multiple of it: five hundred silent jobs would wake the worker each
            # at its own moment.
            self._output_check_at = (now // self._output_interval + 1) * self._output_interval
