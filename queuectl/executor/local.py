"""One attempt as a process tree on this machine → an outcome. Knows no job files, no spool.

Output goes to files and never through a pipe: nobody has to read it while the job runs, and a background
child that keeps it open holds nobody up.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import time
from typing import TYPE_CHECKING

from queuectl.executor.capture import Outputs, cut, open_for_job
from queuectl.executor.spawn import CAN_SPAWN_FAST, Child, fast_spawn, spawn
from queuectl.job import times
from queuectl.job.outcome import Ending, Outcome
from queuectl.system.process_tree import TreeEnd, find_tree, group_exists, open_pidfd

if TYPE_CHECKING:
    from queuectl.executor.base import Attempt, Running

_LONGEST_WAIT = 86400.0
_BLIND_PAUSE = 0.02  # seconds between looks where no descriptor tells of a child's end
_FIRST_OUTPUT_LOOK = 0.05
_LAST_OUTPUT_LOOK = 0.5
_CRASHES = ("SIGKILL", "SIGSEGV", "SIGABRT", "SIGBUS", "SIGILL", "SIGFPE")


class LocalRunner:
    """Runs attempts as child processes, each in a session of its own.

    Args:
        may_chdir: this process is only a worker, so that its current folder may change for the moment of a start.
    """

    def __init__(self, *, may_chdir: bool = False) -> None:
        self._fast = may_chdir and CAN_SPAWN_FAST
        self._outputs = Outputs("", "")
        # A parent may have handed down an ignored SIGCHLD: then exit codes vanish and every job seems to succeed.
        if sys.platform != "win32" and signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)

    def start(self, attempt: Attempt) -> Running | Outcome:
        """Start it, or say in an outcome (NOT_STARTED) why the command cannot start.

        Raises:
            SpoolError: the output files cannot be made, which is not the job's fault.
        """
        outputs = self._outputs_of(attempt)
        outputs.empty()
        began = time.monotonic()
        child: Child | Outcome | None = None
        if self._fast:
            try:
                child = fast_spawn(attempt)
            except (OSError, ValueError):
                child = None  # the common way says what is wrong
        child = child or _spawn_or_say_why(attempt, began)
        return child if isinstance(child, Outcome) else _LocalRun(attempt, child, began, outputs)

    def _outputs_of(self, attempt: Attempt) -> Outputs:
        if self._outputs.paths != (attempt.stdout, attempt.stderr):
            self._outputs = Outputs(attempt.stdout, attempt.stderr)
        return self._outputs


def _spawn_or_say_why(attempt: Attempt, began: float) -> Child | Outcome:
    out = open_for_job(attempt.stdout)
    try:
        err = open_for_job(attempt.stderr)
    except BaseException:
        os.close(out)
        raise
    try:
        return spawn(attempt, out, err)
    except (OSError, ValueError) as error:
        reason = f"Cannot start: {_why_not(attempt, error)}"
        return Outcome(Ending.NOT_STARTED, None, reason, time.monotonic() - began)
    finally:
        os.close(out)
        os.close(err)


class _LocalRun:
    __slots__ = (
        "_attempt",
        "_began",
        "_child",
        "_deadline",
        "_ending",
        "_outcome",
        "_output_look",
        "_output_pause",
        "_outputs",
        "_pidfd",
        "_tree",
        "pid",
    )

    def __init__(self, attempt: Attempt, child: Child, began: float, outputs: Outputs) -> None:
        self.pid = child.pid
        self._attempt = attempt
        self._child = child
        self._began = began
        self._outputs = outputs
        self._deadline = began + attempt.timeout if attempt.timeout else None
        self._output_pause = _FIRST_OUTPUT_LOOK
        self._output_look = began + self._output_pause if attempt.log_limit else None
        self._ending = Ending.TIMED_OUT
        self._tree: TreeEnd | None = None
        self._outcome: Outcome | None = None
        self._pidfd = open_pidfd(child.pid)

    def wait_fd(self) -> int | None:
        # While the tree is being ended the dead leader stays unreaped: its pidfd would be readable all the time.
        return self._pidfd if self._tree is None else None

    def next_look(self) -> float | None:
        if self._outcome is not None:
            return time.monotonic()
        if self._tree is not None:
            return self._tree.next_look
        look, deadline = self._output_look, self._deadline
        if look is None or (deadline is not None and deadline < look):
            look = deadline
        if self._pidfd is None:
            blind = time.monotonic() + _BLIND_PAUSE
            look = blind if look is None else min(look, blind)
        elif look is not None and look > self._began + _LONGEST_WAIT:
            # No system call waits for a timeout of a million years.
            look = min(look, time.monotonic() + _LONGEST_WAIT)
        return look

    def poll(self) -> Outcome | None:
        if self._outcome is not None:
            return self._outcome
        if self._tree is None and self._ended_by_itself():
            return self._outcome
        now = time.monotonic()
        if self._output_look is not None and now >= self._output_look:
            self._cut_outputs(now)
        if self._tree is None:
            if self._deadline is None or now < self._deadline:
                return None
            self._begin(Ending.TIMED_OUT)
        if self._tree is not None and self._tree.step(now):
            self._outcome = self._ended_by_us(self._tree.left)
        return self._outcome

    def cancel(self, ending: Ending, *, now: bool = False) -> None:
        if self._outcome is not None or (self._tree is None and self._ended_by_itself()):
            return
        if self._tree is None:
            self._begin(ending)
        if now and self._tree is not None:
            self._tree.hurry()

    def close(self) -> None:
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None

    def _begin(self, ending: Ending) -> None:
        self._ending = ending
        self._tree = TreeEnd(self._attempt.marks, self.pid, self._attempt.grace, ours=True)

    def _ended_by_itself(self) -> bool:
        known, code = self._child.reap()
        if not known:
            return False
        duration = time.monotonic() - self._began
        leftovers = self._count_leftovers()
        printed = self._printed()
        ending, error = _judge(code, isinstance(self._attempt.command, str))
        self._outcome = Outcome(ending, _exit_code(code), error, duration, leftovers, printed)
        if leftovers:
            self._outputs.forget()
        return True

    def _printed(self) -> tuple[int, int] | None:
        """What was printed, cut to its limit; files that hold something are somebody else's from here on."""
        sizes = self._outputs.sizes()
        limit = self._attempt.log_limit
        if sizes is None or (limit and max(sizes) > limit):
            self._cut_outputs(None)
            sizes = None
        self._outputs.forget(sizes)
        return sizes

    def _ended_by_us(self, left: int) -> Outcome:
        _, code = self._child.reap()
        self._cut_outputs(None)
        self._outputs.forget()
        duration = time.monotonic() - self._began
        error = {
            Ending.TIMED_OUT: f"Timeout exceeded ({times.seconds(self._attempt.timeout)}s)",
            Ending.STOPPED: "Stopped with its worker",
            Ending.CANCELLED: "Cancelled",
        }.get(self._ending, f"Ended: {self._ending}")
        if left:
            error += f"; {left} of its processes could not be ended"
        return Outcome(self._ending, _exit_code(code), error, duration, left)

    def _count_leftovers(self) -> int:
        """How many background children live on; two cheap questions first, as nearly always there are none."""
        if not self._seems_to_live_on():
            return 0
        count = len(find_tree(self._attempt.marks, self.pid))
        return count or int(self._seems_to_live_on())

    def _seems_to_live_on(self) -> bool:
        return group_exists(self.pid) or self._outputs.is_written()

    def _cut_outputs(self, now: float | None) -> None:
        limit = self._attempt.log_limit
        if not limit:
            return
        near = False
        for path in (self._attempt.stdout, self._attempt.stderr):
            near |= cut(path, limit) > limit // 4
        if now is not None:
            self._output_pause = (
                _FIRST_OUTPUT_LOOK if near else min(self._output_pause * 2, _LAST_OUTPUT_LOOK)
            )
            self._output_look = now + self._output_pause


def _why_not(attempt: Attempt, error: OSError | ValueError) -> str:
    if isinstance(error, ValueError):
        return f"the command or its environment cannot be passed on ({error})"
    if not os.path.isdir(attempt.cwd):
        there = os.path.lexists(attempt.cwd)
        return f"{attempt.cwd} is not a folder" if there else f"the folder {attempt.cwd} does not exist"
    if error.errno == errno.EACCES and not os.access(attempt.cwd, os.X_OK):
        return f"no permission to enter the folder {attempt.cwd}"
    program = "/bin/sh" if isinstance(attempt.command, str) else attempt.command[0]
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        if os.path.dirname(program) and os.path.exists(os.path.join(attempt.cwd, program)):
            return f"the interpreter that {program!r} names in its first line does not exist"
        return f"no program {program!r} found"
    if error.errno == errno.EACCES:
        return f"{program!r} is not executable"
    if error.errno == errno.ENOEXEC:
        return f"{program!r} is not a program this system can run"
    if error.errno == errno.E2BIG:
        return "the command and its environment are too long for this system"
    return (error.strerror or str(error)).lower()


def _exit_code(code: int | None) -> int | None:
    return 128 - code if code is not None and code < 0 and sys.platform != "win32" else code


def _judge(code: int | None, in_shell: bool) -> tuple[Ending, str | None]:
    """Name and word the end of a process that was not ended by us."""
    if code == 0:
        return Ending.SUCCEEDED, None
    if code is None:
        return Ending.FAILED, "Exit code unknown: the system did not keep it"
    if code < 0 and sys.platform != "win32":
        name = _signal_name(-code)
        return Ending.SIGNALLED, f"Killed by signal {-code}" + (f" ({name})" if name else "")
    return Ending.FAILED, f"Exit code {code}" + (_shell_hint(code) if in_shell else "")


def _shell_hint(code: int) -> str:
    """What a shell means by its special codes."""
    if code == 127:
        return " (command not found)"
    if code == 126:
        return " (not executable)"
    name = _signal_name(code - 128)
    return f" (128 + {code - 128}: {name})" if name in _CRASHES else ""


def _signal_name(number: int) -> str | None:
    try:
        return signal.Signals(number).name
    except ValueError:
        return None
