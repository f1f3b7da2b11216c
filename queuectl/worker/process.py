"""One worker process: it answers the program that started it, handles signals, and writes its log."""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from queuectl.config.settings import Settings
from queuectl.control import commands
from queuectl.control.launch import Launch
from queuectl.errors import QueuectlError, SpoolError
from queuectl.executor.local import LocalRunner
from queuectl.job import times
from queuectl.job.redact import one_line
from queuectl.system import files, process
from queuectl.system.line_output import LineOutput
from queuectl.worker import signals
from queuectl.worker.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable

    from queuectl.layout import Layout
    from queuectl.system.process import ProcessIdentity
    from queuectl.worker.dispatcher import Dispatcher
    from queuectl.worker.program import WorkerOptions


def be_worker(
    layout: Layout,
    mode: str,
    options: WorkerOptions,
    launch: Launch | None = None,
    make: Callable[[Callable[[str], None]], Worker | Dispatcher] | None = None,
) -> int:
    """Run one worker in this process; returns the exit code.

    Args:
        mode: "background" answers its starter on stdout and then writes to its log; "foreground" prints; "child"
            prints too, and leaves when the process that started it has ended.
        launch: how it was started; None for a process that nobody reserved a name for.
        make: makes it from what takes its lines; None: a worker.

    Raises:
        QueuectlError: the spool cannot be used; in the background this is answered to the starter instead.
    """
    background = mode == "background"
    launch = launch or Launch(commands.start_asked_at(layout))
    process.keep_descriptors_private()
    if mode != "foreground":
        # A process keeps its current folder's filesystem from being unmounted.
        os.chdir(os.sep)
    log = _Log(None if background else LineOutput(1))
    worker = _make(layout, mode, options, log.say) if make is None else make(log.say)
    log.limit = lambda: worker.log_limit
    # Before the worker can be found: a stop signal that comes at once would otherwise kill this process.
    signals.listen(worker.flags, reread=worker.read_settings, in_terminal=mode == "foreground")
    if launch.parent is not None and not _leave_with(worker, launch.parent):
        return 0
    try:
        worker.register(launch)
    except QueuectlError as error:
        if not background:
            raise
        _answer({"error": error.message, "hint": error.hint})
        return error.exit_code
    log.name = worker.name
    if background:
        _answer({"name": worker.name, "pid": os.getpid()})
        log.to_file(layout.worker_file(worker.name, "log"))
    log.say(f"started PID={os.getpid()}")
    return _run(worker, log)


def _make(layout: Layout, mode: str, options: WorkerOptions, say: Callable[[str], None]) -> Worker:
    return Worker(
        layout.root,
        drain=options.drain,
        wait_retries=options.wait_retries,
        concurrency=options.concurrency,
        queues=options.queues,
        not_queues=options.not_queues,
        say=say,
        mode=mode,
        runner=LocalRunner(may_chdir=True),
    )


def _leave_with(worker: Worker | Dispatcher, parent: ProcessIdentity) -> bool:
    """Let a worker leave when its parent ends; False: that has ended already, and nobody is in charge of the worker."""
    told_by = _end_of(parent.pid)
    if not parent.is_running():
        return False
    worker.leave_when(lambda: not parent.is_running(), told_by)
    return True


def _run(worker: Worker | Dispatcher, log: _Log) -> int:
    try:
        worker.run()
    except ImportError as error:
        log.say(
            f"stopped, as a part of queuectl cannot be loaded: {error}. Was it upgraded? Start the worker again"
        )
        log.close()
        return SpoolError.exit_code
    signals.ignore_all()
    log.say(f"stopped after {worker.jobs_run} attempt(s)")
    log.close()
    # A supervisor, or the service manager, replaces what has failed: the next one finds the new installation.
    return SpoolError.exit_code if worker.flags.lacks_modules else 0


def _end_of(process: int) -> int | None:
    """A descriptor that becomes readable when a process ends; None where the system has none."""
    with suppress(AttributeError, OSError):
        return os.pidfd_open(process)
    return None


def _answer(answer: dict[str, object]) -> None:
    """Answer the starter. If it has gone, the worker runs all the same."""
    with suppress(OSError):
        files.write_all(1, f"{json.dumps(answer)}\n".encode())


class _Log:
    """Where a worker's lines go: to the terminal, or into a file that is begun anew when it is full.

    Args:
        output: the terminal; None for a file, see `to_file`.

    Attributes:
        name: the worker's, put before each line.
        limit: returns the bytes that the file may have, 0 for no limit.
    """

    def __init__(self, output: LineOutput | None) -> None:
        self._output = output
        self.name = "worker"
        self.limit: Callable[[], int] = lambda: Settings().log_limit
        self._path: str | None = None
        self._size = 0

    def say(self, line: str) -> None:
        """Write one or several lines."""
        stamp = f"{times.second(int(time.time()))}Z " if self._path else ""
        head = f"{stamp}[{self.name}] "
        text = f"\n{head}".join(map(one_line, line.split("\n")))
        data = f"{head}{text}\n".encode(errors="backslashreplace")
        # A closed terminal or a full disk must not end a worker that runs a job.
        with suppress(OSError):
            if self._output is not None:
                self._output.write(data)
                return
            self._size += len(data)
            limit = self.limit()
            if self._path and limit and self._size > limit:
                self.to_file(self._path, len(data))
            files.write_all(1, data)

    def close(self) -> None:
        """Wait until what was said is written, as long as somebody reads it."""
        if self._output is not None:
            self._output.close()

    def to_file(self, path: str, more: int = 0) -> None:
        """Write everything that this process prints into a file. A file that would become too large is renamed first.

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
        self._path = path
        self._size = os.stat(path).st_size + more
