"""Starting one process: its own session, an empty stdin, output into files, nothing inherited but the run lock."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Protocol

from queuectl.executor.capture import APPEND
from queuectl.executor.shell import PROGRAMS, SHELL, find_program, plain_words

if TYPE_CHECKING:
    from collections.abc import Mapping

CAN_SPAWN_FAST = sys.platform == "linux"


class Start(Protocol):
    """What is to be started; see runner.Attempt."""

    @property
    def command(self) -> str | list[str]:
        """Text for the shell, or a list."""

    @property
    def cwd(self) -> str:
        """The folder it runs in."""

    @property
    def env(self) -> Mapping[str, str]:
        """Its whole environment."""

    @property
    def stdout(self) -> str:
        """The file that takes its output."""

    @property
    def stderr(self) -> str:
        """The file that takes its other output."""

    @property
    def lock_fd(self) -> int | None:
        """A descriptor to inherit."""


class Child:
    """A started process that nobody else reaps."""

    __slots__ = ("_process", "pid")

    def __init__(self, pid: int, process: subprocess.Popen[bytes] | None = None) -> None:
        self.pid = pid
        self._process = process

    def reap(self) -> tuple[bool, int | None]:
        """Take the exit status if there is one: (whether it has ended, the code or None if it was lost).

        Popen.poll() would call a lost status 0, which is a success.
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
            self._process.returncode = -1 if code is None else code  # or Popen would warn, and wait by itself
        return True, code


def spawn(start: Start, out: int, err: int) -> Child:
    """Start it the common way.

    Raises:
        OSError, ValueError: it cannot be started.
    """
    options: dict[str, Any] = {"start_new_session": True}
    command = start.command
    if sys.platform == "win32":
        options = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP, "shell": isinstance(command, str)}
    else:
        command = [SHELL, "-c", command] if isinstance(command, str) else command
        options["pass_fds"] = () if start.lock_fd is None else (start.lock_fd,)
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=start.cwd, env=start.env, **options
    )
    return Child(process.pid, process)


def fast_spawn(start: Start) -> Child:
    """Start a command at half the cost, by posix_spawn: plain words without a shell, and without Popen.

    The child opens its output files itself. posix_spawn cannot change the folder, so this process does for the
    moment: it must be free to.

    Raises:
        OSError, ValueError: it cannot be started, or not in this way; `spawn` can say why.
    """
    os.chdir(start.cwd)
    try:
        command = start.command
        words = plain_words(command, start.env) if isinstance(command, str) else command
        built_in = PROGRAMS.get(words[0]) if words and isinstance(command, str) else None
        program = built_in or (words and find_program(words[0], start.env))
        if words and program:
            try:
                return _posix_spawn(program, words, start, _with_folder(start))
            except OSError:
                # A script without a first line is for a shell to run; a list never gets one.
                if not isinstance(command, str):
                    raise
        if not isinstance(command, str):
            raise FileNotFoundError(errno.ENOENT, "no such program", command[0])
        return _posix_spawn(SHELL, [SHELL, "-c", command], start, start.env)
    finally:
        os.chdir("/")


def _with_folder(start: Start) -> Mapping[str, str]:
    """The environment with PWD as a shell would set it: programs ask it for the folder they are in."""
    if start.env.get("PWD") == start.cwd:
        return start.env
    return {**start.env, "PWD": os.getcwd()}


def _posix_spawn(program: str, words: list[str], start: Start, environment: Mapping[str, str]) -> Child:
    if start.lock_fd is not None:
        os.set_inheritable(start.lock_fd, True)
    pid = os.posix_spawn(
        program,
        words,
        environment,
        file_actions=(
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, start.stdout, APPEND, 0o600),
            (os.POSIX_SPAWN_OPEN, 2, start.stderr, APPEND, 0o600),
        ),
        setsid=True,
        # Python ignores these, and what is ignored stays so across an exec.
        setsigdef=(signal.SIGPIPE, signal.SIGXFSZ),
    )
    return Child(pid)
