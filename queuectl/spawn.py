"""Starting one process: its own session, an empty stdin, output into files, nothing inherited but the run lock."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Protocol

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
        command = ["/bin/sh", "-c", command] if isinstance(command, str) else command
        options["pass_fds"] = () if start.lock_fd is None else (start.lock_fd,)
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=start.cwd, env=start.env, **options
    )
    return Child(process.pid, process)


def fast_spawn(start: Start, out: int, err: int) -> Child:
    """Start a shell command at half the cost, by posix_spawn; a list goes the common way.

    posix_spawn cannot change the folder, so this process does for the moment: it must be free to.

    Raises:
        OSError, ValueError: it cannot be started.
    """
    if not isinstance(start.command, str):
        return spawn(start, out, err)
    if start.lock_fd is not None:
        os.set_inheritable(start.lock_fd, True)
    os.chdir(start.cwd)
    try:
        pid = os.posix_spawn(
            "/bin/sh",
            ("/bin/sh", "-c", start.command),
            start.env,
            file_actions=(
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, out, 1),
                (os.POSIX_SPAWN_DUP2, err, 2),
            ),
            setsid=True,
            # Python ignores these, and what is ignored stays so across an exec.
            setsigdef=(signal.SIGPIPE, signal.SIGXFSZ),
        )
    finally:
        os.chdir("/")
    return Child(pid)
