"""What the exit code of a process means, in words."""

from __future__ import annotations

import signal
import sys

from queuectl.job.outcome import Ending

_CRASHES = ("SIGKILL", "SIGSEGV", "SIGABRT", "SIGBUS", "SIGILL", "SIGFPE")


def exit_code(code: int | None) -> int | None:
    """The exit code of a process as a shell tells it: 128 + n after signal n."""
    return 128 - code if code is not None and code < 0 and sys.platform != "win32" else code


def judge(code: int | None, in_shell: bool) -> tuple[Ending, str | None]:
    """How a process ended that nobody ended, and the error in words."""
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
