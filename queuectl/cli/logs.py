"""`queuectl logs`: what a job wrote, all of it, or as it comes."""

from __future__ import annotations

import codecs
import os
import sys
import time
from typing import TYPE_CHECKING, TextIO

import click

from queuectl.cli import args as takes
from queuectl.cli import render
from queuectl.cli.frame import Session, Usage, command
from queuectl.errors import JobError

if TYPE_CHECKING:
    from queuectl.job import Job
    from queuectl.spool import Spool

PAUSE = 0.1
"""Seconds between two looks of `logs -f`."""

CHUNK = 1 << 18


@command(
    "logs",
    examples="""
    queuectl logs job1                        the last run: its output, and on stderr its error stream
    queuectl logs -f job1                     follow it until the job has ended, through its retries
    queuectl logs job1 --attempt 1            an earlier run
    queuectl logs job1 --stderr | less        the error stream alone
    """,
)
@takes.job_argument()
@click.option("--follow", "-f", is_flag=True, help="Go on until the job has ended.")
@click.option(
    "--attempt", metavar="N", callback=takes.between(1, 2**31), help="The N-th run. Default: the last."
)
@click.option("--stderr", "errors_only", is_flag=True, help="Only the error stream, on stdout.")
@click.option("--raw", is_flag=True, help="On a terminal too, pass control characters through as they are.")
@click.pass_obj
def logs_command(
    session: Session, job_id: str, follow: bool, attempt: int | None, errors_only: bool, raw: bool
) -> None:
    r"""Print the full output of a job.

    In a pipe the bytes come as the job wrote them. On a terminal, control characters are shown as escapes such as
    \x1b, unless --raw is given: a job's output could otherwise take the terminal over.
    """
    if session.json:
        raise Usage(
            "logs prints the bytes of a job, there is no JSON of them", hint=f"queuectl show {job_id} --json"
        )
    spool = session.spool
    job = spool.get(job_id)
    run = _last_run(job) if attempt is None else attempt
    if attempt is not None and attempt > _last_run(job):
        raise JobError(
            f"job {job.id!r} has run {render.count(_last_run(job), 'time')}, there is no run {attempt}",
            hint=f"queuectl show {job.id}",
        )
    sinks = {"err": Sink(sys.stdout, raw=raw)}
    if not errors_only:
        sinks = {"out": sinks["err"], "err": Sink(sys.stderr, raw=raw)}
    if follow:
        _follow(spool, job, run, sinks, only=attempt is not None)
    elif run == 0:
        render.note(f"job {job.id} has not run yet")
    else:
        tails = _tails(spool, job, run, sinks)
        for tail in tails:
            tail.pass_on()
        if job.output and run == _last_run(job) and not any(tail.found for tail in tails):
            render.note(f"the logs of job {job.id} are gone; the end of its output: queuectl show {job.id}")
    for sink in sinks.values():
        sink.finish()


def _last_run(job: Job) -> int:
    """The number of the latest run, the one that is under way included; 0 before the first."""
    ended = 0
    for number, entry in job.numbered_history():
        run = entry.get("run")
        ended = max(ended, run if isinstance(run, int) else number)
    return ended + (job.state == "processing")


def _follow(spool: Spool, job: Job, run: int, sinks: dict[str, Sink], *, only: bool) -> None:
    """Pass on what comes, run after run, until the job has ended; with only, until that run has."""
    run = max(1, run)
    tails = _tails(spool, job, run, sinks)
    while True:
        # The state is read before the output: what a run that has ended wrote is all there when the look at it begins.
        newest = max(1, _last_run(job))
        running = job.state == "processing"
        over = not (running and run == newest) if only else job.state in {"completed", "dead"}
        for tail in tails:
            tail.pass_on()
        while run < newest and not only:
            run += 1
            tails = _tails(spool, job, run, sinks)
            for tail in tails:
                tail.pass_on()
        if over:
            return
        for sink in sinks.values():
            sink.flush()
        time.sleep(PAUSE)
        job = spool.get(job.id or "")


def _tails(spool: Spool, job: Job, run: int, sinks: dict[str, Sink]) -> list[_Tail]:
    return [_Tail(spool, job.id or "", run, stream, sink) for stream, sink in sinks.items()]


class _Tail:
    """One stream of one run, and how much of it has been passed on."""

    def __init__(self, spool: Spool, job_id: str, run: int, stream: str, sink: Sink) -> None:
        self._spool = spool
        self._job_id = job_id
        self._run = run
        self._stream = stream
        self._sink = sink
        self._done = 0
        self.found = False

    def pass_on(self) -> None:
        """Pass on what was written since the last time."""
        while path := self._path():
            self.found = True
            start, data = self._read(path)
            if not data:
                return
            # While the job runs the file is its worker's scratch, and the next job's output soon lands in there: what
            # was read counts only if it was still this run's file afterwards.
            if self._path() == path:
                self._sink.write(data)
                self._done = start + len(data)

    def _path(self) -> str | None:
        return self._spool.output(self._job_id, run=self._run, stream=self._stream)

    def _read(self, path: str) -> tuple[int, bytes]:
        """From where, and what. A stream that got too long is cut while it is written: go on from where it ends now."""
        try:
            with open(path, "rb") as file:
                start = min(self._done, os.fstat(file.fileno()).st_size)
                file.seek(start)
                return start, file.read(CHUNK)
        except FileNotFoundError:
            return 0, b""  # moved to logs/ this very moment, or deleted by hand


class Sink:
    """A stream of ours that takes bytes: as they are in a pipe, made harmless on a terminal."""

    def __init__(self, stream: TextIO, *, raw: bool) -> None:
        self._stream = stream
        self._held = ""
        self._decoder = (
            None
            if raw or not render.is_terminal(stream)
            else codecs.getincrementaldecoder("utf-8")("replace")
        )

    def write(self, data: bytes) -> None:
        """Pass bytes on."""
        if self._stream is None:
            return
        if self._decoder is None:
            self._stream.buffer.write(data)
        else:
            self._show(self._decoder.decode(data))

    def _show(self, text: str) -> None:
        text = self._held + text
        # Half of a CR LF at the end of what came would turn into a line of its own.
        self._held = "\r" if text.endswith("\r") else ""
        self._stream.write(render.visible_lines(text.removesuffix("\r")))

    def flush(self) -> None:
        """Let the reader have what was written so far."""
        if self._stream is not None:
            self._stream.flush()

    def finish(self) -> None:
        """Write what was held back at the end of the last bytes."""
        if self._decoder is not None and self._stream is not None:
            self._show(self._decoder.decode(b"", final=True))
            if self._held:
                self._stream.write("\n")
        self.flush()
