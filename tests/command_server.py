"""Runs commands of queuectl for tests: a process that has all of it imported forks a child for each command.

Most of the processor time of a short command is the start of Python and imports. The child is a process of its own all
the same, with the arguments, variables, folder, umask and files that the test gives it. What depends on the start of
Python, such as another locale, gets a Python of its own.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import json
import os
import pkgutil
import select
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

LARGEST = 100_000
"""Bytes of a request, which is one packet of the socket."""

READ_AT_START = ("PYTHON", "LC_", "LANG", "LD_", "COVERAGE", "MALLOC_", "GLIBC_")
"""Variables that begin so are read when Python, or a library, starts."""


class CommandServer:
    """The process, seen from the tests. It is started for the first command."""

    def __init__(self) -> None:
        self._env = _read_at_start(os.environ)
        self._channel: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def run(
        self, words: list[str], stdin: str, env: Mapping[str, str], cwd: str, timeout: float
    ) -> subprocess.CompletedProcess[str] | None:
        """Run a command; None if it needs a Python of its own.

        Args:
            timeout: seconds.

        Raises:
            subprocess.TimeoutExpired: it took longer, and was killed.
        """
        request = json.dumps({"words": words, "env": dict(env), "cwd": cwd, "umask": _umask()}).encode()
        if sys.platform != "linux" or _read_at_start(env) != self._env or len(request) > LARGEST:
            return None
        stdin_pipe, *back = [os.pipe() for _ in range(4)]
        theirs = [stdin_pipe[0], *(writing for _, writing in back)]
        try:
            socket.send_fds(self._open(), [request], theirs)
        finally:
            for fd in theirs:
                os.close(fd)
        (out, _), (err, _), (answers, _) = back
        with os.fdopen(answers, "rb") as answer:
            pid = int(answer.readline())
            try:
                told, complained = _talk(stdin_pipe[1], stdin.encode(), out, err, timeout=timeout)
            except TimeoutError:
                os.kill(pid, signal.SIGKILL)
                raise subprocess.TimeoutExpired(words, timeout) from None
            code = int(answer.readline())
        return subprocess.CompletedProcess(words, code, told.decode(), complained.decode())

    def _open(self) -> socket.socket:
        with self._lock:
            if self._channel is None:
                self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                # Nothing of the test that happens to be the first one.
                env = {name: value for name, value in os.environ.items() if "QUEUECTL" not in name}
                with theirs:
                    self._process = subprocess.Popen(
                        [sys.executable, __file__, str(theirs.fileno())],
                        pass_fds=[theirs.fileno()],
                        stdin=subprocess.DEVNULL,
                        cwd="/",
                        env={**env, "HOME": "/"},
                    )
            return self._channel

    def close(self) -> None:
        """End it."""
        if self._channel is not None and self._process is not None:
            self._channel.close()
            self._process.wait()
            self._channel = self._process = None


def _read_at_start(env: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in env.items() if name.startswith(READ_AT_START)}


def _umask() -> int:
    before = os.umask(0o077)
    os.umask(before)
    return before


def _talk(into: int, data: bytes, *out_of: int, timeout: float) -> list[bytes]:
    """Write to a process and read what it writes until it has closed its outputs; then all descriptors are closed.

    Raises:
        TimeoutError: that took too long.
    """
    end = time.monotonic() + timeout
    texts: dict[int, list[bytes]] = {fd: [] for fd in out_of}
    left = memoryview(data)
    with contextlib.ExitStack() as opened, selectors.DefaultSelector() as selector:
        stdin = opened.enter_context(os.fdopen(into, "wb", buffering=0))
        os.set_blocking(into, False)
        selector.register(stdin, selectors.EVENT_WRITE)
        for fd in out_of:
            selector.register(opened.enter_context(os.fdopen(fd, "rb", buffering=0)), selectors.EVENT_READ)
        while selector.get_map():
            ready = selector.select(max(0.0, end - time.monotonic()))
            if not ready:
                raise TimeoutError
            for key, _ in ready:
                if key.fileobj is stdin:
                    try:
                        left = left[stdin.write(left) or 0 :]
                    except BrokenPipeError:
                        left = left[:0]
                    if not left:
                        selector.unregister(stdin)
                        stdin.close()
                elif more := os.read(key.fd, 1 << 16):
                    texts[key.fd].append(more)
                else:
                    selector.unregister(key.fileobj)
    return [b"".join(texts[fd]) for fd in out_of]


# -- the process -------------------------------------------------------------------------------------------------------


def serve(channel: socket.socket) -> None:
    """Fork a child for each request, and answer its pid and then its exit code, until the other side has ended."""
    running: dict[int, tuple[int, int]] = {}
    poll = select.poll()
    poll.register(channel, select.POLLIN)
    while True:
        for fd, _ in poll.poll():
            if fd != channel.fileno():
                poll.unregister(fd)
                _answer_end(fd, *running.pop(fd))
                continue
            data, files, _, _ = socket.recv_fds(channel, LARGEST, 4)
            if not data:
                return
            pid = os.fork()
            if pid == 0:
                os._exit(_be_command(json.loads(data), files))
            *given, answer = files
            for file in given:
                os.close(file)
            os.write(answer, f"{pid}\n".encode())
            ended = os.pidfd_open(pid)
            running[ended] = pid, answer
            poll.register(ended, select.POLLIN)


def _answer_end(ended: int, pid: int, answer: int) -> None:
    _, status = os.waitpid(pid, 0)
    os.close(ended)
    with contextlib.suppress(BrokenPipeError):  # the test has given it up
        os.write(answer, f"{os.waitstatus_to_exitcode(status)}\n".encode())
    os.close(answer)


def _be_command(request: dict[str, Any], files: list[int]) -> int:
    """Be the command, and end as Python does; returns the exit code."""
    for number, file in enumerate(files[:3]):
        os.dup2(file, number)
    os.closerange(3, 1 << 16)
    os.environ.clear()
    os.environ.update(request["env"])
    time.tzset()
    os.umask(request["umask"])
    os.chdir(request["cwd"])
    sys.argv = ["queuectl", *request["words"]]
    sys.stdin = sys.__stdin__ = open(0, encoding="utf-8", closefd=False)  # type: ignore[misc]  # noqa: SIM115
    sys.stdout = sys.__stdout__ = open(1, "w", encoding="utf-8", closefd=False)  # type: ignore[misc]  # noqa: SIM115
    sys.stderr = sys.__stderr__ = open(2, "w", buffering=1, encoding="utf-8", closefd=False)  # type: ignore[misc]  # noqa: SIM115
    from queuectl import cli

    code = cli.main(request["words"])
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def _import_all() -> None:
    """Import every module of queuectl. None of them may come from the folder of this file."""
    del sys.path[0]
    import queuectl.fast_start.fast_json

    for module in pkgutil.walk_packages(queuectl.__path__, "queuectl."):
        if not module.name.endswith("__main__"):
            import_module(module.name)
    queuectl.fast_start.fast_json.import_whole()


if __name__ == "__main__":
    _import_all()
    gc.freeze()  # a collection in a child would copy the memory of all objects
    serve(socket.socket(fileno=int(sys.argv[1])))
