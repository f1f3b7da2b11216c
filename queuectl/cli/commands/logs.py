"""`queuectl logs`: what a job wrote, all of it, its end, or as it comes."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

import click

from queuectl.cli import options as takes
from queuectl.cli import render
from queuectl.cli.base import Session, Usage, command
from queuectl.cli.log_stream import INTERRUPTED, Sink, Tail
from queuectl.cli.selection import moment
from queuectl.errors import JobError

if TYPE_CHECKING:
    from queuectl.api.spool import Spool
    from queuectl.job.record import Job

PAUSE = 0.1
"""Seconds between two looks of `logs -f`."""


@command(
    "logs",
    paged=True,
    examples="""
    queuectl logs job1                        the last run: its output, and on stderr its error stream
    queuectl logs -f job1                     follow it until the job has ended, through its retries
    queuectl logs -n 50 -f job1               the last 50 lines, and what comes
    queuectl logs job1 --attempt 1            an earlier run
    queuectl logs job1 --all                  every run, with a line before each
    queuectl logs job1 --since 2h --stderr    what runs of the last two hours complained about
    """,
)
@takes.job_argument()
@click.option("--follow", "-f", is_flag=True, help="Go on until the job has ended.")
@click.option(
    "--lines",
    "-n",
    metavar="N",
    callback=takes.between(0, 2**31),
    help="Only the last N lines of each stream of a run.",
)
@click.option(
    "--attempt", metavar="N", callback=takes.between(1, 2**31), help="The N-th run. Default: the last."
)
@click.option("--all", "every", is_flag=True, help="All runs, with a line before each.")
@click.option(
    "--since",
    metavar="WHEN",
    callback=takes.checked(moment),
    help="The runs that began since: 2h, 7d, or a moment; with a line before each.",
)
@click.option("--stdout", "only", flag_value="out", help="Only the output stream.")
@click.option("--stderr", "only", flag_value="err", help="Only the error stream, on stdout.")
@click.option("--raw", is_flag=True, help="On a terminal too, pass control characters through as they are.")
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

    Its two streams go to ours: `2>/dev/null` or --stdout leaves one, `2>&1` has both. Each run keeps them in two files,
    so which line came first is known within a stream only; a job that runs `command 2>&1` keeps their order.
    In a pipe the bytes come as the job wrote them. On a terminal, control characters are shown as escapes such as
    \x1b, unless --raw is given: a job's output could otherwise take the terminal over.
    """
    if session.json:
        raise Usage(
            "logs prints the bytes of a job, there is no JSON of them", hint=f"queuectl show {job_id} --json"
        )
    if (attempt is not None) + every + (since is not None) > 1:
        raise Usage("--attempt, --all and --since each say which runs: give one of them")
    reader = _Reader(session.spool, _sinks(only, raw=raw), lines, headed=every or since is not None)
    job = session.spool.get(job_id)
    last = _last_run(job)
    if attempt is not None and attempt > last:
        raise JobError(
            f"job {job.id!r} has run {render.count(last, 'time')}, there is no run {attempt}",
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
            reader.follow(job, max(1, first), only=attempt is not None)
        else:
            reader.print_runs(job, range(first, (attempt or last) + 1))
    except KeyboardInterrupt:
        return INTERRUPTED  # who follows a job leaves so, and needs no word about it
    finally:
        reader.finish()
    return 0


def _sinks(only: str | None, *, raw: bool) -> dict[str, Sink]:
    if only is not None:
        return {only: Sink(sys.stdout, raw=raw)}
    return {"out": Sink(sys.stdout, raw=raw), "err": Sink(sys.stderr, raw=raw)}


def _last_run(job: Job) -> int:
    """The number of the latest run, the one that is under way included; 0 before the first."""
    return max(_runs(job), default=0) + (job.state == "processing")


def _runs(job: Job) -> dict[int, dict[str, Any]]:
    """The entries of the history by the numbers of their runs, which anyone may have written."""
    found = {}
    for number, entry in job.numbered_history():
        run = entry.get("run")
        found[run if isinstance(run, int) else number] = entry
    return found


def _began(entry: dict[str, Any]) -> float | None:
    from queuectl.job import times

    try:
        return times.parse_moment(entry.get("started_at"))
    except ValueError:
        return None


def _first_since(job: Job, since: float) -> int:
    """The first run that began at this moment or later; one more than there are when none did."""
    for run, entry in sorted(_runs(job).items()):
        began = _began(entry)
        if began is not None and began >= since:
            return run
    newest = _last_run(job)
    running_since = job.started_at if job.state == "processing" else None
    return newest if running_since is not None and running_since >= since else newest + 1


def _headline(job: Job, run: int) -> str:
    """What stands before a run's output when there are several."""
    from queuectl.job import times

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


class _Reader:
    """Prints runs of a job.

    Args:
        lines: of each stream of a run that is printed whole, only so many at its end.
        headed: a line goes before each run.
    """

    def __init__(self, spool: Spool, sinks: dict[str, Sink], lines: int | None, *, headed: bool) -> None:
        self._spool, self._sinks, self._lines, self._headed = spool, sinks, lines, headed
        self._tails: list[Tail] = []

    def _begin(self, job: Job, run: int, lines: int | None) -> None:
        if self._headed:
            self.flush()
            next(iter(self._sinks.values())).head(_headline(job, run))
            self.flush()
        self._tails = [
            Tail(self._spool, job.id or "", run, stream, sink, lines) for stream, sink in self._sinks.items()
        ]
        self._pass_on()

    def _pass_on(self) -> None:
        for tail in self._tails:
            tail.pass_on()

    def flush(self) -> None:
        """Let the reader have what there is."""
        for sink in self._sinks.values():
            sink.flush()

    def finish(self) -> None:
        """Write what was held back."""
        for sink in self._sinks.values():
            sink.finish()

    def print_runs(self, job: Job, runs: range) -> None:
        """Print these runs as they are now."""
        if not _last_run(job):
            render.note(f"job {job.id} has not run yet")
            return
        for run in runs:
            self._begin(job, run, self._lines)
        if job.output and runs[-1] == _last_run(job) and not any(tail.found for tail in self._tails):
            render.note(f"the logs of job {job.id} are gone; the end of its output: queuectl show {job.id}")

    def follow(self, job: Job, run: int, *, only: bool) -> None:
        """Pass on what comes, run after run, until the job has ended; with only, until that run has."""
        begun, known = False, _last_run(job)
        while True:
            # The state is read before the output: what a run that has ended wrote is all there when the look at it
            # begins.
            newest = _last_run(job)
            running = job.state == "processing"
            over = not (running and run == newest) if only else job.state in {"completed", "dead"}
            if begun:
                self._pass_on()
            elif run <= max(1, newest) and (newest or not self._headed):
                self._begin(job, run, self._lines)
                begun = True
            while begun and run < newest and not only:
                run += 1
                self._begin(job, run, self._lines if run <= known else None)
            if over:
                return
            self.flush()
            time.sleep(PAUSE)
            job = self._spool.get(job.id or "")
