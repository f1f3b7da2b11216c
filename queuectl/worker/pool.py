"""Worker processes: start them with a handshake, be one, list them, stop them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, cast

from queuectl.config.settings import Settings
from queuectl.control import registry
from queuectl.errors import QueuectlError, WorkerError
from queuectl.executor.base import clean_environment
from queuectl.executor.local import LocalRunner
from queuectl.job import times
from queuectl.job.redact import one_line
from queuectl.system import files, process
from queuectl.system.locks import is_locked
from queuectl.worker import signals
from queuectl.worker.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable

    from queuectl.control.registry import WorkerInfo
    from queuectl.layout import Layout
    from queuectl.system.process import ProcessIdentity

READY_WITHIN = 30.0
"""Seconds a worker may take until it says that it is ready."""

_POLL = 0.05
_TELL_EVERY = 2.0


def list_workers(layout: Layout) -> list[WorkerInfo]:
    """The living workers of a spool."""
    return registry.living(layout)


# -- starting ----------------------------------------------------------------------------------------------------------


def command_line(layout: Layout, mode: str, *, drain: bool, wait_retries: bool) -> list[str]:
    """What to execute to get a worker process; a frozen program has no interpreter that could take a -m."""
    program = [sys.executable] if getattr(sys, "frozen", False) else [sys.executable, "-m", "queuectl"]
    flags = ["--drain"] * drain + ["--wait-retries"] * wait_retries
    return [*program, "--spool", layout.root, "worker", "run", "--mode", mode, *flags]


def start(layout: Layout, count: int, *, drain: bool = False, wait_retries: bool = False) -> list[WorkerInfo]:
    """Start background workers that outlive the terminal; returns when each is ready.

    Raises:
        WorkerError: one did not start, and why; those that did go on.
    """
    Worker(layout.root).check()
    command = command_line(layout, "background", drain=drain, wait_retries=wait_retries)
    children = [_spawn(command) for _ in range(count)]
    answers = [_await_ready(child) for child in children]
    failed = [answer for answer in answers if "error" in answer]
    if failed:
        first = failed[0]
        raise WorkerError(
            f"{len(failed)} of {count} worker(s) did not start: {first['error']}", hint=first.get("hint")
        )
    now = time.time()
    return [
        registry.WorkerInfo(
            str(a["name"]), int(a["pid"]), now, "background", None, None, stopping=False, polling=None
        )
        for a in answers
    ]


def _spawn(command: list[str]) -> subprocess.Popen[bytes]:
    detached: dict[str, Any] = {"start_new_session": True}
    if sys.platform == "win32":
        detached = {"creationflags": subprocess.DETACHED_PROCESS | subprocess.CREATE_NEW_PROCESS_GROUP}
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=_start_folder(),
        env=clean_environment(),
        **detached,
    )


def _start_folder() -> str:
    """Where `python -m queuectl` finds this very package without a word in the environment, which jobs inherit."""
    if getattr(sys, "frozen", False):
        return os.path.abspath(os.sep)
    return os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def _await_ready(child: subprocess.Popen[bytes]) -> dict[str, Any]:
    """Read what a new worker says until it says that it is ready, or why not."""
    too_late = threading.Timer(READY_WITHIN, child.kill)
    too_late.start()
    said: list[str] = []
    try:
        with cast("IO[bytes]", child.stdout) as lines:
            for line in lines:
                with suppress(ValueError):
                    answer = json.loads(line)
                    if isinstance(answer, dict) and ("name" in answer or "error" in answer):
                        if "error" in answer:
                            child.wait()  # or it would still be about to leave when the command has returned
                        return answer
                said.append(line.decode(errors="replace").strip())
    finally:
        too_late.cancel()
    code = child.wait()
    last = next((line for line in reversed(said) if line), f"it ended with exit code {code} and said nothing")
    return {"error": last}


# -- being one ---------------------------------------------------------------------------------------------------------


def be_worker(layout: Layout, *, mode: str, drain: bool, wait_retries: bool) -> int:
    """Run one worker in this process; returns the exit code.

    Args:
        mode: "background" answers its starter on stdout and then writes into its log; "foreground" prints;
            "child" prints too, and leaves when the process that started it is gone.
    """
    background = mode == "background"
    process.keep_descriptors_private()
    if mode != "foreground":
        # A worker would keep the folder it was started in from being unmounted for as long as it lives.
        os.chdir(os.sep)
    voice = _Voice()
    worker = Worker(
        layout.root,
        drain=drain,
        wait_retries=wait_retries,
        say=voice.say,
        mode=mode,
        runner=LocalRunner(may_chdir=True),
    )
    voice.limit = lambda: worker.log_limit
    # Before it can be found: a stop that comes at once must find flags to set, not the default that ends it.
    signals.listen(worker.flags, reread=worker.read_settings, in_terminal=mode == "foreground")
    if mode == "child":
        parent = os.getppid()
        worker.leave_when(lambda: os.getppid() != parent, _end_of(parent))
    try:
        worker.register()
    except QueuectlError as error:
        if not background:
            raise
        _answer({"error": error.message, "hint": error.hint})
        return error.exit_code
    voice.name = worker.name
    if background:
        _answer({"name": worker.name, "pid": os.getpid()})
        voice.to_log(layout.worker_file(worker.name, "log"))
    voice.say(f"started PID={os.getpid()}")
    worker.run()
    signals.ignore_all()
    voice.say(f"stopped after {worker.jobs_run} attempt(s)")
    return 0


def _end_of(process: int) -> int | None:
    """A descriptor that becomes readable when a process ends, where there is such a thing."""
    with suppress(AttributeError, OSError):
        return os.pidfd_open(process)
    return None


def _answer(answer: dict[str, object]) -> None:
    """Tell our starter; if it is gone, nobody is waiting, and the worker that was asked for works all the same."""
    with suppress(OSError):
        files.write_all(1, f"{json.dumps(answer)}\n".encode())


class _Voice:
    """Where a worker's lines go: the terminal, or its log."""

    def __init__(self) -> None:
        self.name = "worker"
        self.limit: Callable[[], int] = lambda: Settings().log_limit
        self._log: str | None = None
        self._size = 0

    def say(self, line: str) -> None:
        """Write a line, or several in one go."""
        stamp = f"{times.second(int(time.time()))}Z " if self._log else ""
        head = f"{stamp}[{self.name}] "
        text = f"\n{head}".join(map(one_line, line.split("\n")))
        data = f"{head}{text}\n".encode(errors="backslashreplace")
        # A closed terminal or a full disk must not end a worker that has a job in hand.
        with suppress(OSError):
            self._size += len(data)
            limit = self.limit()
            if self._log and limit and self._size > limit:
                self.to_log(self._log, len(data))
            files.write_all(1, data)

    def to_log(self, path: str, more: int = 0) -> None:
        """Let everything that this process prints go into a log; one that would grow too large makes room first.

        Args:
            more: bytes that are about to be printed.
        """
        with suppress(OSError):
            limit = self.limit()
            if limit and os.stat(path).st_size + more > limit:
                files.rename_over(path, path + ".1")
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | files.O_CLOEXEC, 0o600)
        os.dup2(fd, 1)
        os.dup2(fd, 2)
        os.close(fd)
        self._log = path
        self._size = os.stat(path).st_size + more


def foreground(layout: Layout, count: int, *, drain: bool = False, wait_retries: bool = False) -> int:
    """Work in this terminal until stopped or drained; returns the exit code.

    One worker is this process. More are children with sessions of their own: Ctrl+C reaches only us, and we tell them.
    """
    if count == 1:
        return be_worker(layout, mode="foreground", drain=drain, wait_retries=wait_retries)
    Worker(layout.root).check()
    command = command_line(layout, "child", drain=drain, wait_retries=wait_retries)
    children = [
        subprocess.Popen(command, start_new_session=True, cwd=_start_folder(), env=clean_environment())
        for _ in range(count)
    ]
    pressed: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: pressed.append(number))
    rereads: list[bool] = []
    signals.on_hangup(
        signals.Terminal(), reread=lambda: rereads.append(True), leave=lambda: pressed.append(signal.SIGTERM)
    )
    told = 0
    while any(child.poll() is None for child in children):
        if rereads:
            rereads.clear()
            listed = {
                info.pid for info in registry.living(layout)
            }  # HUP would end one that is still starting
            for child in children:
                if child.pid in listed:
                    child.send_signal(signal.SIGHUP)
        if len(pressed) > told:
            told = len(pressed)
            force = pressed.count(signal.SIGINT) > 1
            for child in children:
                _tell_child(layout, child, force=force)
        time.sleep(_POLL)
    # One that was told while it was starting or leaving dies of the signal: it is gone as it should be.
    gone = {0, -signal.SIGTERM} if pressed else {0}
    return int(max(0 if child.returncode in gone else abs(child.returncode) for child in children))


def _tell_child(layout: Layout, child: subprocess.Popen[bytes], *, force: bool) -> None:
    for info in registry.living(layout):
        if info.pid == child.pid:
            registry.ask_to_stop(layout, info.name, force=force)
            return
    if child.poll() is None:
        child.terminate()


# -- stopping ----------------------------------------------------------------------------------------------------------


def stop(
    layout: Layout, *, force: bool, timeout: float, tell: Callable[[list[WorkerInfo]], None]
) -> tuple[int, list[WorkerInfo]]:
    """Stop all workers of the spool and wait for them.

    Args:
        force: end their jobs, which go back uncharged.
        timeout: seconds to wait.
        tell: called now and then with those who are busy still.

    Returns:
        how many are gone, and who is busy still.
    """
    asked: dict[str, _Asked] = {}
    for info in registry.living(layout):
        # Read before it leaves, and its record with it.
        process = registry.identity_of(layout, info.name)
        if info.mode == "starting" or registry.ask_to_stop(layout, info.name, force=force):
            asked[info.name] = _Asked(info, process)
    began = time.monotonic()
    tell_at = began + _TELL_EVERY
    while True:
        left = [one.info for one in asked.values() if not _is_gone(layout, one, force=force)]
        if not left or time.monotonic() - began >= timeout:
            break
        if time.monotonic() >= tell_at:
            tell_at += _TELL_EVERY
            tell(_as_they_are(layout, left))
        time.sleep(_POLL)
    return len(asked) - len(left), _as_they_are(layout, left)


@dataclass(slots=True)
class _Asked:
    """A worker that was told to stop, and its process: it gives its name back some moments before it ends."""

    info: WorkerInfo
    process: ProcessIdentity | None


def _is_gone(layout: Layout, asked: _Asked, *, force: bool) -> bool:
    info = asked.info
    if is_locked(layout.worker_file(info.name, "lock")):
        present = registry.look(layout, info.name)
        if info.mode == "starting" and present.mode != "starting":
            # It had the lock but no record yet when we came: now it can be told.
            asked.process = registry.identity_of(layout, info.name)
            registry.ask_to_stop(layout, info.name, force=force)
            return False
        if info.pid in (present.pid, 0):
            return False
    # A program in which a worker lives goes on without it.
    return info.mode == "program" or asked.process is None or not asked.process.is_running()


def _as_they_are(layout: Layout, infos: list[WorkerInfo]) -> list[WorkerInfo]:
    return [registry.look(layout, info.name) for info in infos]
