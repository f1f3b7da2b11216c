"""Several worker processes: start them and wait until each is ready, run them in a terminal, stop them."""

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

from queuectl.control import commands, registry
from queuectl.errors import WorkerError
from queuectl.executor.base import clean_environment
from queuectl.system.locks import is_locked
from queuectl.worker import program, signals
from queuectl.worker.process import be_worker
from queuectl.worker.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable

    from queuectl.control.registry import WorkerInfo
    from queuectl.layout import Layout
    from queuectl.system.process import ProcessIdentity

READY_WITHIN = 30.0
"""Seconds that a worker may take until it is ready."""

_POLL = 0.05
_REPORT_EVERY = 2.0


# -- starting ----------------------------------------------------------------------------------------------------------


def command_line(layout: Layout, mode: str, *, drain: bool, wait_retries: bool) -> list[str]:
    """The command that starts a worker process."""
    flags = ["--drain"] * drain + ["--wait-retries"] * wait_retries
    return [*program.words(), "--spool", layout.root, "worker", "run", "--mode", mode, *flags]


def start(layout: Layout, count: int, *, drain: bool = False, wait_retries: bool = False) -> list[WorkerInfo]:
    """Start background workers, which outlive the terminal; returns when each is ready.

    Raises:
        QueuectlError: the spool cannot be used.
        WorkerError: a worker did not start, and why. Those that did keep running.
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
        cwd=os.sep,
        env=clean_environment(),
        **detached,
    )


def _await_ready(child: subprocess.Popen[bytes]) -> dict[str, Any]:
    """Read the output of a new worker up to its answer: that it is ready, or why not."""
    deadline = threading.Timer(READY_WITHIN, child.kill)
    deadline.start()
    output: list[str] = []
    try:
        with cast("IO[bytes]", child.stdout) as lines:
            for line in lines:
                with suppress(ValueError):
                    answer = json.loads(line)
                    if isinstance(answer, dict) and ("name" in answer or "error" in answer):
                        if "error" in answer:
                            child.wait()  # else the command could return before this process has ended
                        return answer
                output.append(line.decode(errors="replace").strip())
    finally:
        deadline.cancel()
    code = child.wait()
    last = next(
        (line for line in reversed(output) if line), f"it ended with exit code {code} and printed nothing"
    )
    return {"error": last}


# -- in this terminal ---------------------------------------------------------------------------------------------------


def foreground(layout: Layout, count: int, *, drain: bool = False, wait_retries: bool = False) -> int:
    """Run workers in this terminal until they are stopped or drained; returns the exit code.

    A single worker is this process. Several are child processes in sessions of their own: Ctrl+C reaches only this
    process, which passes it on.
    """
    if count == 1:
        return be_worker(layout, mode="foreground", drain=drain, wait_retries=wait_retries)
    Worker(layout.root).check()
    command = command_line(layout, "child", drain=drain, wait_retries=wait_retries)
    children = [
        subprocess.Popen(command, start_new_session=True, cwd=os.sep, env=clean_environment())
        for _ in range(count)
    ]
    pressed: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: pressed.append(number))
    rereads: list[bool] = []
    signals.on_hangup(
        signals.Terminal(), reread=lambda: rereads.append(True), leave=lambda: pressed.append(signal.SIGTERM)
    )
    passed_on = 0
    while any(child.poll() is None for child in children):
        if rereads:
            rereads.clear()
            _send_hangup(layout, children)
        if len(pressed) > passed_on:
            passed_on = len(pressed)
            force = pressed.count(signal.SIGINT) > 1
            for child in children:
                _stop_child(layout, child, force=force)
        time.sleep(_POLL)
    # A child that was just starting or leaving is killed by the signal. That is a good end, too.
    good = {0, -signal.SIGTERM} if pressed else {0}
    return int(max(0 if child.returncode in good else abs(child.returncode) for child in children))


def _send_hangup(layout: Layout, children: list[subprocess.Popen[bytes]]) -> None:
    """Make the workers read their settings. A child that is not registered yet would be killed by the signal."""
    registered = {info.pid for info in registry.live_workers(layout)}
    for child in children:
        if child.pid in registered:
            child.send_signal(signal.SIGHUP)


def _stop_child(layout: Layout, child: subprocess.Popen[bytes], *, force: bool) -> None:
    for info in registry.live_workers(layout):
        if info.pid == child.pid:
            commands.request_stop(layout, info.name, force=force)
            return
    if child.poll() is None:
        child.terminate()


# -- stopping ----------------------------------------------------------------------------------------------------------


def stop(
    layout: Layout, *, force: bool, timeout: float, report: Callable[[list[WorkerInfo]], None]
) -> tuple[int, list[WorkerInfo]]:
    """Stop all workers of the spool and wait for them.

    Args:
        force: end their jobs, which are put back uncharged.
        timeout: seconds to wait.
        report: called every two seconds with the workers that are still running a job.

    Returns:
        how many workers have ended, and those that are still running a job.
    """
    asked: dict[str, _Asked] = {}
    for info in registry.live_workers(layout):
        # Read now: the record is deleted when the worker leaves.
        process = registry.identity_of(layout, info.name)
        if info.mode == "starting" or commands.request_stop(layout, info.name, force=force):
            asked[info.name] = _Asked(info, process)
    began = time.monotonic()
    report_at = began + _REPORT_EVERY
    while True:
        left = [one.info for one in asked.values() if not _is_gone(layout, one, force=force)]
        if not left or time.monotonic() - began >= timeout:
            break
        if time.monotonic() >= report_at:
            report_at += _REPORT_EVERY
            report(_current(layout, left))
        time.sleep(_POLL)
    return len(asked) - len(left), _current(layout, left)


@dataclass(slots=True)
class _Asked:
    """A worker that was asked to stop, and its process, which ends a moment after it has given its name back."""

    info: WorkerInfo
    process: ProcessIdentity | None


def _is_gone(layout: Layout, asked: _Asked, *, force: bool) -> bool:
    info = asked.info
    if is_locked(layout.worker_file(info.name, "lock")):
        present = registry.worker_info(layout, info.name)
        if info.mode == "starting" and present.mode != "starting":
            # It had its lock but no record when we asked first: only now it can be asked.
            asked.process = registry.identity_of(layout, info.name)
            commands.request_stop(layout, info.name, force=force)
            return False
        if info.pid in (present.pid, 0):
            return False
    # A worker inside another program ends before that program does.
    return info.mode == "program" or asked.process is None or not asked.process.is_running()


def _current(layout: Layout, infos: list[WorkerInfo]) -> list[WorkerInfo]:
    return [registry.worker_info(layout, info.name) for info in infos]
