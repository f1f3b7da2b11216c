"""Starting one process: its own session, an empty stdin, output into files, nothing inherited but locks.

A shell command of simple words whose first is a program is started without the shell, as `make` does: that halves its
cost. Whatever a shell could read in another way is left to the shell, and so is a program that cannot be found or
started: the shell then says so in its own words.
"""

from __future__ import annotations

import copy
import errno
import os
import re
import signal
import stat
import subprocess
import sys
from functools import lru_cache
from itertools import count
from typing import TYPE_CHECKING, Any

from queuectl.executor.capture import APPEND

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from queuectl.executor.base import Attempt

CAN_SPAWN_FAST = sys.platform == "linux"

SHELL = "/bin/sh"

RESETTABLE = tuple(
    signal.valid_signals()
    - {getattr(signal, name, None) for name in ("SIGKILL", "SIGSTOP")}  # these cannot be set
)
"""The signals that a child gets back with what they do by default."""

_SIMPLE_WORDS = re.compile(
    r"[ \t]*[A-Za-z0-9_./+-]+(?:[ \t]+[A-Za-z0-9_./+:@%,-][A-Za-z0-9_./+:@%,=-]*)*[ \t]*", re.ASCII
)

_KNOWN_SHELLS = ("dash", "bash")
"""Shells that were tested to split simple words in the same way. Others may have more built-in commands."""

_BUILT_IN = frozenset(
    [
        ".",
        ":",
        "alias",
        "bg",
        "bind",
        "break",
        "builtin",
        "caller",
        "case",
        "cd",
        "chdir",
        "command",
        "compgen",
        "complete",
        "compopt",
        "continue",
        "coproc",
        "declare",
        "dirs",
        "disown",
        "do",
        "done",
        "echo",
        "elif",
        "else",
        "enable",
        "esac",
        "eval",
        "exec",
        "exit",
        "export",
        "false",
        "fc",
        "fg",
        "fi",
        "for",
        "function",
        "getopts",
        "hash",
        "help",
        "history",
        "if",
        "in",
        "jobs",
        "kill",
        "let",
        "local",
        "logout",
        "mapfile",
        "popd",
        "printf",
        "pushd",
        "pwd",
        "read",
        "readarray",
        "readonly",
        "return",
        "select",
        "set",
        "shift",
        "shopt",
        "source",
        "suspend",
        "test",
        "then",
        "time",
        "times",
        "trap",
        "true",
        "type",
        "typeset",
        "ulimit",
        "umask",
        "unalias",
        "unset",
        "until",
        "wait",
        "while",
    ]
)
"""Commands and keywords of dash and bash. They differ from the programs of the same names."""

PROGRAMS = {"true": "/bin/true", "false": "/bin/false"}
"""Built-in commands that, without arguments, do the same as these programs. No other file on PATH would be run."""

_SMALL = 10
"""Numbers of descriptors below this one are those that scripts use."""

_CHANGES_BASH = ("BASH_FUNC_", "BASHOPTS", "SHELLOPTS")
"""Prefixes of variables that change how bash reads a command."""


class Child:
    """A started process that nobody else reaps."""

    __slots__ = ("_process", "pid")

    def __init__(self, pid: int, process: subprocess.Popen[bytes] | None = None) -> None:
        self.pid = pid
        self._process = process

    def reap(self) -> tuple[bool, int | None]:
        """Collect the exit status if there is one: (whether the process has ended, its code or None if it was lost).

        Popen.poll() would return 0, a success, for a lost status.
        """
        if sys.platform == "win32":
            code = self._process.poll() if self._process else None
            return code is not None, code
        try:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
        except ChildProcessError:
            return self._ended(None)
        return (False, None) if pid == 0 else self._ended(os.waitstatus_to_exitcode(status))

    def _ended(self, code: int | None) -> tuple[bool, int | None]:
        if self._process is not None:
            # Otherwise Popen would print a warning, and wait for the process itself.
            self._process.returncode = -1 if code is None else code
        return True, code


def spawn(attempt: Attempt, out: int, err: int) -> Child:
    """Start an attempt with subprocess.

    Args:
        out, err: descriptors of its output files.

    Raises:
        OSError, ValueError: it cannot be started.
    """
    options: dict[str, Any] = {"start_new_session": True}
    command = attempt.command
    if sys.platform == "win32":
        options = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP, "shell": isinstance(command, str)}
    else:
        command = [SHELL, "-c", command] if isinstance(command, str) else command
        options["pass_fds"] = attempt.inherited
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=attempt.cwd, env=attempt.env, **options
    )
    return Child(process.pid, process)


def fast_spawn(attempt: Attempt) -> Child:
    """Start an attempt with posix_spawn, at half the cost of Popen; simple words without a shell.

    The child opens its output files itself. posix_spawn cannot change the folder, so this process changes its own
    folder for the moment of the start.

    Raises:
        OSError, ValueError: it cannot be started in this way; `spawn` may start it, or knows the reason.
    """
    os.chdir(attempt.cwd)
    try:
        program, words, environment = planned(attempt, lambda _: os.getcwd())
        try:
            return _posix_spawn(program, words, attempt, environment)
        except OSError:
            # A script without a "#!" line is run by the shell. A list of words never gets a shell.
            if program == SHELL or not isinstance(attempt.command, str):
                raise
            return _posix_spawn(SHELL, [SHELL, "-c", attempt.command], attempt, attempt.env)
    finally:
        os.chdir("/")


def planned(attempt: Attempt, real_path: Callable[[str], str]) -> tuple[str, list[str], Mapping[str, str]]:
    """Return the program that is started for an attempt, its words, and its environment.

    Args:
        real_path: returns the path of the attempt's folder without links.

    Raises:
        FileNotFoundError: there is no such program.
    """
    command = attempt.command
    words = simple_words(command, attempt.env) if isinstance(command, str) else command
    built_in = PROGRAMS.get(words[0]) if words and isinstance(command, str) else None
    program = built_in or (words and find_program(words[0], attempt.env))
    if words and program:
        if attempt.env.get("PWD") == attempt.cwd:
            return program, words, attempt.env
        # As a shell sets it: some programs take their folder from it.
        return program, words, {**attempt.env, "PWD": real_path(attempt.cwd)}
    if not isinstance(command, str):
        raise FileNotFoundError(errno.ENOENT, "no such program", command[0])
    return SHELL, [SHELL, "-c", command], attempt.env


def copies(descriptors: tuple[int, ...]) -> list[tuple[int, int]]:
    """Return the numbers of locks, and those under which a child gets them.

    They are others than in the worker, where nothing that is started at the same time may inherit the locks. And they
    are no small ones, as scripts use those for their own files.
    """
    free = (number for number in count(_SMALL) if number not in descriptors)
    return list(zip(descriptors, free, strict=False))


def _posix_spawn(program: str, words: list[str], attempt: Attempt, environment: Mapping[str, str]) -> Child:
    pid = os.posix_spawn(
        program,
        words,
        environment,
        file_actions=(
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, attempt.stdout, APPEND, 0o600),
            (os.POSIX_SPAWN_OPEN, 2, attempt.stderr, APPEND, 0o600),
            *((os.POSIX_SPAWN_DUP2, *one) for one in copies(attempt.inherited)),
        ),
        setsid=True,
        # A child inherits which signals are blocked and ignored: Python ignores two, and a script's `&`, nohup, or a
        # program that starts a worker others. A command with TERM blocked cannot clean up when its time is over.
        setsigmask=(),
        setsigdef=RESETTABLE,
    )
    return Child(pid)


CANNOT_ENTER = 125
"""Exit code of `entering` when the folder cannot be entered."""

_ENTER = f"""cd -- "$1" || {{ echo "queuectl: cannot enter $1" >&2; exit {CANNOT_ENTER}; }}
unset OLDPWD; shift; exec "$@\""""


def entering(attempt: Attempt) -> Attempt:
    """Return the same attempt with a shell before it that enters its folder and finds its program.

    A folder on a server that does not answer then holds up the job and not the worker. The worker could be ended by
    nobody, as even a start by fork waits until the child has begun its program.
    """
    command = [SHELL, "-c", attempt.command] if isinstance(attempt.command, str) else attempt.command
    entered = copy.copy(attempt)
    entered.command, entered.cwd = [SHELL, "-c", _ENTER, SHELL, attempt.cwd, *command], os.sep
    return entered


def hands_signals_down() -> bool:
    """Whether a child of this thread would start with a signal blocked, or ignored other than by Python itself."""
    if sys.platform == "win32":
        return False
    by_python = {signal.SIGPIPE, signal.SIGXFSZ}
    return bool(signal.pthread_sigmask(signal.SIG_BLOCK, ())) or any(
        signal.getsignal(number) is signal.SIG_IGN for number in RESETTABLE if number not in by_python
    )


def spawn_entering(attempt: Attempt) -> Child:
    """Start an attempt that `entering` has made, with no signal blocked or ignored; this process keeps its folder.

    subprocess could do that only by running Python in a fork of a program that may have threads.

    Raises:
        OSError, ValueError: it cannot be started.
    """
    return _posix_spawn(SHELL, list(attempt.command), attempt, attempt.env)


def touched(attempt: Attempt) -> list[str]:
    """The absolute paths that must be looked at to start an attempt: its folder, its program, the folders on its PATH."""
    command = attempt.command
    first = (command.split(None, 1) if isinstance(command, str) else command)[0]
    if "/" in first and first.isprintable():
        return [attempt.cwd, os.path.join(attempt.cwd, first)]
    return [attempt.cwd, *(one for one in attempt.env.get("PATH", "").split(":") if one.startswith("/"))]


def can_start() -> bool:
    """Whether this machine starts a process at all, tried with a shell that does nothing."""
    silent = subprocess.DEVNULL
    command = ["cmd", "/c", "rem"] if sys.platform == "win32" else [SHELL, "-c", ":"]
    try:
        subprocess.run(command, stdin=silent, stdout=silent, stderr=silent, check=False)
    except OSError:
        return False
    return True


def simple_words(command: str, environment: Mapping[str, str]) -> list[str] | None:
    """Split a command as the shell would, if there is no doubt how; None when only the shell can run it."""
    if not _SIMPLE_WORDS.fullmatch(command):
        return None
    words = command.split()
    if _shell_name() not in _KNOWN_SHELLS or (
        words[0] in _BUILT_IN and (words[0] not in PROGRAMS or len(words) > 1)
    ):
        return None
    if _shell_name() == "bash" and any(name.startswith(_CHANGES_BASH) for name in environment):
        return None
    return words


def find_program(name: str, environment: Mapping[str, str]) -> str | None:
    """Return the file that a shell would run under this name; None when there is any doubt.

    A name with a slash is returned as it is: it is relative to the current folder.
    """
    if "/" in name:
        return name
    for folder in environment.get("PATH", "").split(":"):
        if not folder.startswith("/"):
            return None
        path = f"{folder}/{name}"
        if os.access(path, os.F_OK):
            try:
                fits = stat.S_ISREG(os.stat(path).st_mode) and os.access(path, os.X_OK)
            except OSError:
                return None
            return path if fits else None
    return None


@lru_cache(maxsize=1)
def _shell_name() -> str:
    """The name of the program behind /bin/sh."""
    return os.path.basename(os.path.realpath(SHELL))
