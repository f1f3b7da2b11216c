"""`queuectl logs`: print the output of a job: all of it, its end, or new output as it comes."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

import click

from queuectl.cli import options, render
from queuectl.cli.base import Session, Usage, command
from queuectl.cli.log_stream import INTERRUPTED, LogReader, Sink
from queuectl.cli.selection import read_moment
from queuectl.errors import JobError
from queuectl.job import times

if TYPE_CHECKING:
    from queuectl.api.spool import Spool
    from queuectl.job.record import Job

FOLLOW_INTERVAL = 0.1
"""Seconds between two reads of `logs -f`."""


@command(
    "logs",
    paged=True,
    examples="""
    queuectl logs job1                        the last run: its stdout on stdout, its stderr on stderr
    queuectl logs -f job1                     follow the output until the job ends, with its retries
    queuectl logs -n 50 -f job1               the last 50 lines, then new ones
    queuectl logs job1 --attempt 1            an earlier run
    queuectl logs job1 --all                  every run, each with a heading
    queuectl logs job1 --since 2h --stderr    the stderr of the runs of the last two hours
    """,
    no_json=("logs prints the bytes of a job, without a JSON form", "queuectl show JOB --json"),
)
@options.job_argument()
@click.option("--follow", "-f", is_flag=True, help="Print new output as it comes, until the job has ended.")
@click.option(
    "--lines",
    "--tail",
    "-n",
    metavar="N",
    callback=options.between(0, 2**31),
    help="Only the last N lines of each stream of each run.",
)
@click.option(
    "--attempt", metavar="N", callback=options.between(1, 2**31), help="The N-th run. Default: the last one."
)
@click.option("--all", "every", is_flag=True, help="All runs, each with a heading.")
@click.option(
    "--since",
    metavar="WHEN",
    callback=options.checked(read_moment),
    help="The runs that began since then: 2h, 7d, or a time; each with a heading.",
)
@click.option("--stdout", "only", flag_value="out", help="Only stdout of the job.")
@click.option("--stderr", "only", flag_value="err", help="Only stderr of the job; it is printed on stdout.")
@click.option(
    "--raw", is_flag=True, help="On a terminal, print control characters as they are instead of as escapes."
)
@click.pass_obj
def logs_command(
    session: Session,
    job_id: str,
    follow: bool,
    lines: int | None,
    attempt: int | None,
    every: bool,
    since: float | None,
    only: str | None,
    raw: bool,
) -> int:
    r"""Print the full output of a job.

    Its stdout is printed on stdout and its stderr on stderr: --stdout prints only the first, `2>&1` puts both into one
    pipe. Each run keeps the two streams in two files, so the order of lines is known only within a stream; a job that
    runs `command 2>&1` keeps the order. In a pipe the bytes are unchanged. On a terminal, control characters are
    shown as escapes such as \x1b, because a job's output could otherwise control your terminal; --raw prints them.
    """
    if (attempt is not None) + every + (since is not None) > 1:
        raise Usage("give only one of --attempt, --all and --since")
    printer = _Printer(session.spool, _sinks(only, raw=raw), lines, headings=every or since is not None)
    job = session.spool.get(job_id)
    last = _last_run(job)
    if attempt is not None and attempt > last:
        raise JobError(
            f"job {job.id!r} has run {render.count(last, 'time')}; there is no run {attempt}",
            hint=f"queuectl show {job.id}",
        )
    first = attempt or (1 if every else last)
    if since is not None:
        first = _first_since(job, since)
        if first > last and not follow:
            render.note(f"no run of job {job.id} began since then")
            return 0
    try:
        if follow:
            printer.follow(job, max(1, first), only=attempt is not None)
        else:
            printer.print_runs(job, range(first, (attempt or last) + 1))
    except KeyboardInterrupt:
        return INTERRUPTED  # the normal way to end --follow
    finally:
        printer.finish()
    return 0


def _sinks(only: str | None, *, raw: bool) -> dict[str, Sink]:
    if only is not None:
        return {only: Sink(sys.stdout, raw=raw)}
    return {"out": Sink(sys.stdout, raw=raw), "err": Sink(sys.stderr, raw=raw)}


def _last_run(job: Job) -> int:
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


def _first_since(job: Job, since: float) -> int:
    """The first run that began at this time or later; the last run plus one if there is none."""
    for run, entry in sorted(_runs(job).items()):
        began = _began(entry)
        if began is not None and began >= since:
            return run
    newest = _last_run(job)
    running_since = job.started_at if job.state == "processing" else None
    return newest if running_since is not None and running_since >= since else newest + 1


def _heading(job: Job, run: int) -> str:
    """The heading of a run's output."""
    entry = _runs(job).get(run)
    if entry is None:
        under_way = job.state == "processing" and run == _last_run(job)
        facts = [f"running by {job.worker}"] if under_way else []
        began = job.started_at if under_way else None
    else:
        code = entry.get("exit_code")
        facts = [str(entry.get("outcome") or "ended"), *([f"exit code {code}"] if code is not None else [])]
        began = _began(entry)
    if began is not None:
        facts.append(f"began {times.local(began)}")
    return f"==> {job.id} run {run}{': ' if facts else ''}{', '.join(facts)} <=="


class _Printer:
    """Prints runs of a job.

    Args:
        lines: print only the last so many lines of each stream of a run.
        headings: print a heading before each run.
    """

    def __init__(self, spool: Spool, sinks: dict[str, Sink], lines: int | None, *, headings: bool) -> None:
        self._spool, self._sinks, self._lines, self._headings = spool, sinks, lines, headings
        self._readers: list[LogReader] = []

    def _begin(self, job: Job, run: int, lines: int | None) -> None:
        if self._headings:
            self.flush()
            next(iter(self._sinks.values())).heading(_heading(job, run))
            self.flush()
        self._close_readers()
        self._readers = [
            LogReader(self._spool, job.id or "", run, stream, sink, lines)
            for stream, sink in self._sinks.items()
        ]
        self._copy_new()

    def _close_readers(self) -> None:
        for reader in self._readers:
            reader.close()

    def _copy_new(self) -> None:
        for reader in self._readers:
            reader.copy_new()

    def flush(self) -> None:
        """Flush both streams."""
        for sink in self._sinks.values():
            sink.flush()

    def finish(self) -> None:
        """Write incomplete characters at the end, and close the files."""
        self._close_readers()
        for sink in self._sinks.values():
            sink.finish()

    def print_runs(self, job: Job, runs: range) -> None:
        """Print what these runs have written so far."""
        if not _last_run(job):
            render.note(f"job {job.id} has not run yet")
            return
        for run in runs:
            self._begin(job, run, self._lines)
        if job.output and runs[-1] == _last_run(job) and not any(reader.found for reader in self._readers):
            render.note(
                f"the logs of job {job.id} were deleted; the end of its output: queuectl show {job.id}"
            )

    def follow(self, job: Job, run: int, *, only: bool) -> None:
        """Print new output, run after run, until the job has ended.

        Args:
            only: print only this run, and stop when it has ended.
        """
        begun, first_known = False, _last_run(job)
        while True:
            # Read the state before the output: if the state says that the run has ended, its output is complete.
            newest = _last_run(job)
            running = job.state == "processing"
            over = not (running and run == newest) if only else job.state in {"completed", "dead"}
            if begun:
                self._copy_new()
            elif run <= max(1, newest) and (newest or not self._headings):
                self._begin(job, run, self._lines)
                begun = True
            while begun and run < newest and not only:
                run += 1
                self._begin(job, run, self._lines if run <= first_known else None)
            if over:
                return
            self.flush()
            time.sleep(FOLLOW_INTERVAL)
            job = self._spool.get(job.id or "")
