"""Says in words why a command cannot start."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from typing import TYPE_CHECKING

from queuectl.executor.spawn import SHELL

if TYPE_CHECKING:
    from queuectl.executor.base import Attempt


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
