"""Says in words how a command ended, or why it cannot start."""

from __future__ import annotations

import errno
import os
import signal
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from queuectl.executor.spawn import SHELL
from queuectl.job.outcome import Ending

if TYPE_CHECKING:
    from queuectl.executor.base import Attempt

_CRASHES = ("SIGKILL", "SIGSEGV", "SIGABRT", "SIGBUS", "SIGILL", "SIGFPE")


def why_not(attempt: Attempt, error: OSError | ValueError) -> str:
    """Why a command cannot start, in words for its author."""
    if isinstance(error, ValueError):
        return f"the command or its environment cannot be passed on ({error})"
    if not os.path.isdir(attempt.cwd):
        exists = os.path.lexists(attempt.cwd)
        return f"{attempt.cwd} is not a folder" if exists else f"the folder {attempt.cwd} does not exist"
    if error.errno == errno.EACCES and not os.access(attempt.cwd, os.X_OK):
        return f"no permission to enter the folder {attempt.cwd}"
    program = SHELL if isinstance(attempt.command, str) else attempt.command[0]
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


def could_not_enter(attempt: Attempt) -> bool:
    """Whether the shell of `entering` has said so, and not the command that has the same exit code."""
    with suppress(OSError), open(attempt.stderr, "rb") as file:
        return file.read().endswith(
            f"queuectl: cannot enter {attempt.cwd}\n".encode(errors="surrogateescape")
        )
    return False


def exit_code(code: int | None) -> int | None:
    """The exit code of a process as a shell tells it: 128 + n after signal n."""
    return 128 - code if code is not None and code < 0 and sys.platform != "win32" else code


def judge(code: int | None, in_shell: bool) -> tuple[Ending, str | None]:
    """How a process ended that this module did not end, and the error in words."""
    if code == 0:
        return Ending.SUCCEEDED, None
    if code is None:
        return Ending.FAILED, "Exit code unknown: the system did not keep it"
    if code < 0 and sys.platform != "win32":
        name = _signal_name(-code)
        return Ending.SIGNALLED, f"Killed by signal {-code}" + (f" ({name})" if name else "")
    return Ending.FAILED, f"Exit code {code}" + (_shell_hint(code) if in_shell else "")


def _shell_hint(code: int) -> str:
    """The meaning of the exit codes that a shell sets itself."""
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
