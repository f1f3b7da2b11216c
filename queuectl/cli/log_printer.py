"""Print the output of runs: of one job or of several, to two pipes or to one terminal, once or as it comes."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

from queuectl.cli import render
from queuectl.cli.log_stream import LogReader, Screen, Sink
from queuectl.job import times

if TYPE_CHECKING:
    from collections.abc import Iterable

    from queuectl.api.spool import Spool
    from queuectl.job.record import Job

FOLLOW_INTERVAL = 0.1
"""Seconds between two reads of `logs -f`."""


def last_run(job: Job) -> int:
    """The number of the latest run, including one that is running; 0 before the first."""
    return max(_runs(job), default=0) + (job.state == "processing")


def _runs(job: Job) -> dict[int, dict[str, Any]]:
    """The entries of the history by run number. Anybody may have edited the file, so the number is checked."""
    found = {}
    for number, entry in job.numbered_history():
        run = entry.get("run")
        found[run if isinstance(run, int) else number] = entry
    return found


def _began(entry: dict[str, Any]) -> float | None:
    try:
        return times.parse_moment(entry.get("started_at"))
    except ValueError:
        return None


def first_since(job: Job, since: float) -> int:
    """The first run that began at this time or later; the last run plus one if there is none."""
    for run, entry in sorted(_runs(job).items()):
        began = _began(entry)
        if began is not None and began >= since:
            return run
    newest = last_run(job)
    running_since = job.started_at if job.state == "processing" else None
    return newest if running_since is not None and running_since >= since else newest + 1


def _heading(job: Job, run: int) -> str:
    """The heading of a run's output."""
    entry = _runs(job).get(run)
    if entry is None:
        under_way = job.state == "processing" and run == last_run(job)
        facts = [f"running by {job.worker}"] if under_way else []
        began = job.started_at if under_way else None
    else:
        code = entry.get("exit_code")
        facts = [str(entry.get("outcome") or "ended"), *([f"exit code {code}"] if code is not None else [])]
        began = _began(entry)
    if began is not None:
        facts.append(f"began {times.local(began)}")
    return f"==> {job.id} run {run}{': ' if facts else ''}{', '.join(facts)} <=="


class Output:
    """Where output goes: two sinks for two streams, or one screen for both.

    Args:
        only: "out" or "err": print this stream alone, on stdout. None: print both.
        raw: print control characters on a terminal as they are.
    """

    def __init__(self, only: str | None, *, raw: bool) -> None:
        self.screen: Screen | None = None
        if only is not None:
            self.sinks = {only: Sink(sys.stdout, raw=raw)}
        elif render.is_terminal(sys.stdout) and render.is_terminal(sys.stderr):
            # A pager shows what goes to stdout only; stderr would stand before it, or across it.
            self.screen = Screen(sys.stdout, raw=raw)
            self.sinks = self.screen.sinks
        else:
            self.sinks = {"out": Sink(sys.stdout, raw=raw), "err": Sink(sys.stderr, raw=raw)}
        self._holder: object = None

    def announce(self, holder: object, text: str) -> None:
        """Write a heading, unless the last one was for the same run."""
        if self._holder != holder:
            self._holder = holder
            self.flush()
            next(iter(self.sinks.values())).heading(text)
            self.flush()

    def flush(self) -> None:
        """Flush both streams."""
        for sink in self.sinks.values():
            sink.flush()

    def finish(self) -> None:
        """Write incomplete characters at the end."""
        for sink in self.sinks.values():
            sink.finish()


class RunPrinter:
    """Prints the runs of one job.

    Args:
        lines: print only the last so many lines of each stream of a run.
        headings: print a heading before each run, and again when another job has been printed in between.
    """

    def __init__(self, spool: Spool, job: Job, output: Output, lines: int | None, *, headings: bool) -> None:
        self._spool, self.job, self._output, self._lines = spool, job, output, lines
        self._headings = headings
        self._readers: list[LogReader] = []

    def begin(self, run: int, lines: int | None, *, at_rest: Job | None = None) -> None:
        """Print what a run has written so far; `copy_new` prints what comes after it. See LogReader for `at_rest`."""
        self.close()
        job, sinks = self.job, self._output.sinks
        if self._headings:
            self._output.announce((job.id, run), _heading(job, run))
        self._run = run
        self._readers = [
            LogReader(self._spool, job.id or "", run, stream, sink, lines, at_rest=at_rest)
            for stream, sink in sinks.items()
        ]
        if self._output.screen is not None:
            # The order of lines is known only within a stream: the one that was written to last comes last.
            self._readers.sort(key=LogReader.written_at)
            has_err = any(reader.stream == "err" and reader.has_output() for reader in self._readers)
            if has_err or self._headings:
                self._output.screen.mark(has_err)
        self.copy_new()

    def copy_new(self) -> None:
        """Print what the run has written since the last call."""
        for reader in self._readers:
            if self._headings and reader.has_more():
                self._output.announce((self.job.id, self._run), _heading(self.job, self._run))
            reader.copy_new()

    def close(self) -> None:
        """Close the files."""
        for reader in self._readers:
            reader.close()

    def print_runs(self, runs: Iterable[int]) -> None:
        """Print what these runs have written so far."""
        job = self.job
        if not last_run(job):
            render.note(f"job {job.id} has not run yet")
            return
        run = 0
        at_rest = None if job.state == "processing" else job
        for run in runs:
            self.begin(run, self._lines, at_rest=at_rest)
        if job.output and run == last_run(job) and not any(reader.found for reader in self._readers):
            render.note(
                f"the logs of job {job.id} were deleted; the end of its output: queuectl show {job.id}"
            )


class Follower:
    """Prints the new output of one job, run after run, until the job has ended.

    Args:
        run: the first run to print.
        only: print only this run, and stop when it has ended.
    """

    def __init__(
        self,
        spool: Spool,
        job: Job,
        output: Output,
        lines: int | None,
        run: int,
        *,
        only: bool,
        headings: bool,
    ) -> None:
        self._spool, self._lines, self._run, self._only = spool, lines, run, only
        self._printer = RunPrinter(spool, job, output, lines, headings=headings)
        self._headings = headings
        self._begun, self._first_known = False, last_run(job)
        self._is_first = True

    def step(self) -> bool:
        """Print what is new, and return whether the job has ended.

        Raises:
            JobNotFound: the job was deleted.
        """
        printer = self._printer
        if not self._is_first:
            printer.job = self._spool.get(printer.job.id or "")
        self._is_first = False
        # The state was read before the output: if it says that the run has ended, its output is complete.
        job = printer.job
        newest = last_run(job)
        running = job.state == "processing"
        over = not (running and self._run == newest) if self._only else job.state in {"completed", "dead"}
        if self._begun:
            printer.copy_new()
        elif self._run <= max(1, newest) and (newest or not self._headings):
            printer.begin(self._run, self._lines)
            self._begun = True
        while self._begun and self._run < newest and not self._only:
            self._run += 1
            printer.begin(self._run, self._lines if self._run <= self._first_known else None)
        if over:
            printer.close()
        return over


def follow_all(followers: list[Follower], output: Output) -> None:
    """Print new output of several jobs until all have ended."""
    while followers := [one for one in followers if not one.step()]:
        output.flush()
        time.sleep(FOLLOW_INTERVAL)
