"""`queuectl enqueue --wait`: queue a job, print its output as it comes, and exit as its command does."""

from __future__ import annotations

import signal
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

from queuectl.api import json_view
from queuectl.api.waiting import OVER, Waiting, find_obstacle
from queuectl.cli import render
from queuectl.cli.commands.wait import print_note
from queuectl.cli.log_stream import LogReader, Sink
from queuectl.errors import JobNotFound, MoveError, QueuectlError
from queuectl.job.outcome import INTERRUPTED as INTERRUPTED_RUN
from queuectl.job.outcome import Ending

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from queuectl.api.spool import Spool
    from queuectl.cli.base import Session
    from queuectl.job.record import Job

_SHORTEST, _LONGEST, _GROWTH = 0.01, 0.1, 1.2
"""Seconds between two reads of the job's output: at first, at most, and the factor by which the pause grows."""


def wait_for(session: Session, job_id: str, lines: Iterable[str]) -> int:
    """Print the output of a job until it has ended, and return the exit code of its command.

    The first Ctrl+C, TERM or HUP cancels the job; a second Ctrl+C ends this command at once.

    Args:
        lines: notes to print first.
    """
    spool = session.spool
    view = None if session.json else _Output(spool, job_id)
    with _Interrupt(spool, job_id) as interrupt:
        for line in lines:
            render.note(line)
        spool.refresh()
        if found := find_obstacle(spool, [job_id]):
            print_note(found)
        attempts = _Attempts()
        if view is not None:
            view.follow(interrupt.handle, attempts)

        def beat() -> None:
            interrupt.handle()
            with suppress(QueuectlError):  # Waiting says what is wrong with the job
                attempts.report(spool.get(job_id))

        [one] = Waiting(spool, [job_id], beat=beat).run()
    if view is not None:
        view.finish()
    if session.json:
        render.json_array([json_view.ended(one)])
    elif one.code:
        render.note(f"{one.id}: {one.last_error or one.state}")
    return 128 + interrupt.number if interrupt.number else one.code


class _Interrupt:
    """Ctrl+C, TERM or HUP as a flag that is checked between two steps.

    An exception in the middle of a step could print a line twice.

    Attributes:
        number: the signal that came; 0: none.
    """

    def __init__(self, spool: Spool, job_id: str) -> None:
        self._spool = spool
        self._job_id = job_id
        self._handled = False
        self._before: dict[int, Any] = {}
        self.number = 0

    def __enter__(self) -> Self:
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            # `nohup` has HUP ignored: then the command is to go on.
            if number is not None and signal.getsignal(number) != signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._press)
        return self

    def __exit__(self, *_: object) -> None:
        # After HUP the terminal is gone. The next line of output fails, and nobody would have cancelled the job.
        try:
            self.handle()
        finally:
            for number, handler in self._before.items():
                signal.signal(number, handler)

    def _press(self, number: int, _frame: object) -> None:
        if self.number and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.number = self.number or number

    def handle(self) -> None:
        """Cancel the job if a signal has come."""
        if not self.number or self._handled:
            return
        self._handled = True
        with suppress(OSError):
            print_note(f"cancelling {self._job_id}; press Ctrl+C again to leave without waiting")
        with suppress(MoveError, JobNotFound):  # it has just ended
            self._spool.cancel(self._job_id, timeout=0.1)


class _Attempts:
    """The failed attempts of a job, told on stderr: without that, its output seems to begin again for no reason."""

    def __init__(self) -> None:
        self._told = 0

    def report(self, job: Job) -> None:
        """Tell each run that has ended since the last call, if another one follows or has followed."""
        for run, entry in job.numbered_history():
            is_last = run == job.runs and job.state in OVER
            if run <= self._told or is_last:
                continue
            self._told = run
            print_note(f"{job.id}: {_ended_text(job, entry)}; {_next_text(job, run)}")


def _ended_text(job: Job, entry: dict[str, Any]) -> str:
    if entry.get("outcome") in (Ending.STOPPED, Ending.PREEMPTED, INTERRUPTED_RUN):
        return f"attempt {entry.get('attempt')} was interrupted and does not count"
    error = entry.get("error") or "failed"
    return f"attempt {entry.get('attempt')} of {job.runs_allowed} failed: {error}"


def _next_text(job: Job, run: int) -> str:
    wait = (job.next_retry_at or 0) - time.time()
    if run == job.runs and wait > 0:
        return f"the next one starts in {render.span(wait)}"
    return "the next one follows"


class _Output:
    """The output of all runs of a job, copied to stdout and stderr."""

    def __init__(self, spool: Spool, job_id: str) -> None:
        self._spool = spool
        self._job_id = job_id
        self._run = 0
        self._sinks = {"out": Sink(sys.stdout, raw=False), "err": Sink(sys.stderr, raw=False)}
        self._readers: list[LogReader] = []

    def follow(self, beat: Callable[[], None], attempts: _Attempts) -> None:
        """Copy what the job writes until it has ended.

        Args:
            beat: called after each round.
            attempts: tells of each run after its output.

        Raises:
            JobNotFound: the job was deleted.
        """
        pause = _SHORTEST
        while True:
            # Read the state before the output: if the state says that the run has ended, its output is complete.
            job = self._spool.get(self._job_id)
            newest = job.runs + (job.state == "processing")
            self._copy_new()
            while self._run < newest:
                self._run += 1
                self._close_readers()
                self._readers = [
                    LogReader(self._spool, self._job_id, self._run, stream, sink)
                    for stream, sink in self._sinks.items()
                ]
                self._copy_new()
            for sink in self._sinks.values():
                sink.flush()
            attempts.report(job)
            if job.state in OVER:
                return
            beat()
            time.sleep(pause)
            pause = min(_LONGEST, pause * _GROWTH)

    def _close_readers(self) -> None:
        for reader in self._readers:
            reader.close()

    def _copy_new(self) -> None:
        for reader in self._readers:
            reader.copy_new()

    def finish(self) -> None:
        """Write incomplete characters at the end, and close the files."""
        self._close_readers()
        for sink in self._sinks.values():
            sink.finish()
