"""Worker processes: start them, and wait until each is ready."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from contextlib import suppress
from functools import partial
from typing import IO, TYPE_CHECKING, Any, cast

from queuectl.control import commands, registration, registry
from queuectl.control.launch import Launch
from queuectl.control.registration import Reservation
from queuectl.errors import SpoolError, WorkerError
from queuectl.executor.base import clean_environment
from queuectl.fast_start.dataclass import dataclass
from queuectl.worker import program
from queuectl.worker.process import be_worker
from queuectl.worker.worker import Worker

if TYPE_CHECKING:
    from queuectl.control.registry import WorkerInfo
    from queuectl.layout import Layout
    from queuectl.system.process import ProcessIdentity
    from queuectl.worker.program import WorkerOptions

READY_WITHIN = 30.0
"""Seconds that a worker may take until it is ready."""

_CAN_HAND_OVER = sys.platform != "win32"
"""Whether a child process can inherit a lock. Elsewhere a new worker is not seen until it has taken a name itself."""


@dataclass(frozen=True, slots=True)
class Starter:
    """Starts worker processes of one spool, all in the same way.

    Args:
        mode: "background" or "child".
        options: how they work.
        since: when the start was asked for, see Launch.
        parent: the process without which they must not run.
    """

    layout: Layout
    mode: str
    options: WorkerOptions
    since: float
    parent: ProcessIdentity | None = None

    def reserve_all(self, count: int) -> list[Reservation] | list[None]:
        """Take names for so many workers. Each search goes on where the one before has ended.

        Raises:
            SpoolError: no name can be taken.
        """
        if not _CAN_HAND_OVER:
            return [None] * count
        places: list[Reservation] = []
        for _ in range(count):
            first = places[-1].number + 1 if places else 0
            places.append(Reservation(self.layout, self.parent, first=first, engine=self.options.engine))
        return places

    def reserve(self) -> Reservation | None:
        """Take a name for a worker that is to be started; None where a child cannot inherit its lock.

        From here on the worker can be seen, and stopped.

        Raises:
            SpoolError: no name can be taken.
        """
        return Reservation(self.layout, self.parent, engine=self.options.engine) if _CAN_HAND_OVER else None

    def spawn(self, place: Reservation | None, **settings: Any) -> subprocess.Popen[bytes]:
        """Start a process in a session of its own.

        Args:
            place: its name, which is given back if the process cannot be started.
            settings: for Popen.

        Raises:
            OSError: no process can be started.
        """
        if place is None:
            flags = subprocess.DETACHED_PROCESS | subprocess.CREATE_NEW_PROCESS_GROUP  # type: ignore[attr-defined, unused-ignore]
            return self._popen(Launch(self.since, parent=self.parent), creationflags=flags, **settings)
        launch = Launch(self.since, place.name, place.fd, self.parent)
        try:
            child = self._popen(launch, start_new_session=True, pass_fds=(place.fd,), **settings)
        except BaseException:
            place.give_back()
            raise
        place.hand_over()
        return child

    def _popen(self, launch: Launch, **settings: Any) -> subprocess.Popen[bytes]:
        return subprocess.Popen(self._command(launch), cwd=os.sep, env=clean_environment(), **settings)

    def _command(self, launch: Launch) -> list[str]:
        """The command of a worker process."""
        words = ["--spool", self.layout.root, "worker", "run", "--mode", self.mode]
        return [*program.words(), *words, "--launch", launch.to_text(), *self.options.words()]


def start(layout: Layout, count: int, options: WorkerOptions) -> list[WorkerInfo]:
    """Start background workers, which outlive the terminal; returns when each is ready.

    Raises:
        QueuectlError: the spool cannot be used.
        WorkerError: a worker did not start, and why. Those that did keep running.
    """
    check(layout, options)
    starter = Starter(layout, "background", options, commands.start_asked_at(layout))
    refuse_after_stop(starter)
    # All names first: a stop that comes in between finds all workers.
    try:
        places = starter.reserve_all(count)
    except SpoolError as error:
        raise WorkerError(f"no worker was started: {error.message}", hint=error.hint) from None
    children = [(place.name if place else None, _spawn(starter, place)) for place in places]
    answers = [_await_ready(layout, *child) for child in children]
    failed = [answer for answer in answers if "error" in answer]
    if failed:
        first = failed[0]
        raise WorkerError(
            f"{len(failed)} of {count} worker(s) did not start: {first['error']}", hint=first.get("hint")
        )
    now = time.time()
    return [
        registry.WorkerInfo(
            str(a["name"]),
            int(a["pid"]),
            now,
            "background",
            (),
            stopping=False,
            polling=None,
            queues=options.queues,
            not_queues=options.not_queues,
        )
        for a in answers
    ]


def be_one(layout: Layout, mode: str, options: WorkerOptions, launch: Launch | None = None) -> int:
    """Be a worker in this process, or the dispatcher of an engine, as `process.be_worker`.

    Raises:
        QueuectlError: the spool cannot be used.
    """
    if options.engine is None:
        return be_worker(layout, mode, options, launch)
    from queuectl.worker.dispatcher import Dispatcher

    make = partial(
        Dispatcher,
        layout.root,
        options.engine,
        drain=options.drain,
        wait_retries=options.wait_retries,
        mode=mode,
    )
    return be_worker(layout, mode, options, launch, lambda say: make(say=say))


def check(layout: Layout, options: WorkerOptions) -> None:
    """Make sure that such workers can be started.

    Raises:
        QueuectlError: they cannot, and why.
    """
    if options.engine is not None:
        from queuectl.worker.dispatcher import Dispatcher

        Dispatcher(layout.root, options.engine).check()
    else:
        Worker(layout.root, concurrency=options.concurrency).check()


def refuse_after_stop(starter: Starter) -> None:
    """Start nothing if somebody has stopped all workers since the start was asked for.

    Raises:
        WorkerError: somebody has.
    """
    if commands.is_stop_of_all_after(starter.layout, starter.since):
        raise WorkerError("all workers were stopped in this moment, so none was started")


def _spawn(starter: Starter, place: Reservation | None) -> subprocess.Popen[bytes]:
    try:
        return starter.spawn(
            place, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
    except OSError as error:
        raise WorkerError(f"cannot start a process: {(error.strerror or str(error)).lower()}") from None


def _await_ready(layout: Layout, name: str | None, child: subprocess.Popen[bytes]) -> dict[str, Any]:
    """Read the output of a new worker up to its answer: that it is ready, or why not."""
    deadline = threading.Timer(READY_WITHIN, child.kill)
    try:
        deadline.start()
    except (RuntimeError, MemoryError) as error:
        # Near the limit of processes there is no thread. Without a limit of time this command could hang.
        with child:
            child.kill()
        return _not_started(layout, name, {"error": f"cannot limit its start: {error}"})
    output: list[str] = []
    try:
        with cast("IO[bytes]", child.stdout) as lines:
            for line in lines:
                with suppress(ValueError):
                    answer = json.loads(line)
                    if isinstance(answer, dict) and "name" in answer:
                        child.returncode = 0  # it goes on by itself; else Popen would warn of that
                        return answer
                    if isinstance(answer, dict) and "error" in answer:
                        child.wait()  # else the command could return before this process has ended
                        return _not_started(layout, name, answer)
                output.append(line.decode(errors="replace").strip())
    finally:
        deadline.cancel()
    code = child.wait()
    last = next(
        (line for line in reversed(output) if line), f"it ended with exit code {code} and printed nothing"
    )
    return _not_started(layout, name, {"error": last})


def _not_started(layout: Layout, name: str | None, answer: dict[str, Any]) -> dict[str, Any]:
    if name is not None:
        registration.cancel_reservation(layout, name)
    return answer
