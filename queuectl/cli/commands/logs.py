"""`queuectl logs`: print the output of jobs: all of it, its end, or new output as it comes."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from queuectl.cli import options, render, typed_ids
from queuectl.cli.base import Session, Usage, command
from queuectl.cli.log_printer import Follower, Output, RunPrinter, first_since, follow_all, last_run
from queuectl.cli.log_stream import INTERRUPTED
from queuectl.cli.selection import filter_options
from queuectl.control import own_job
from queuectl.errors import JobError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from queuectl.index.filter import Filter
    from queuectl.job.record import Job


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
    queuectl logs job1 job2 -f                both, with a heading at each change of the job
    queuectl logs --since 12h --tag nightly   what the nightly jobs wrote in the last twelve hours
    """,
    no_json=("logs prints the bytes of a job, without a JSON form", "queuectl show JOB --json"),
)
@click.argument("ids", nargs=-1, metavar="[JOB...]", shell_complete=options.complete_ids())
@filter_options()
@click.option("--follow", "-f", is_flag=True, help="Print new output as it comes, until the job has ended.")
@options.lines_option("Only the last N lines of each stream of each run.")
@click.option(
    "--attempt", metavar="N", callback=options.between(1, 2**31), help="The N-th run. Default: the last one."
)
@click.option("--all", "every", is_flag=True, help="All runs, each with a heading.")
@click.option("--stdout", "only", flag_value="out", help="Only stdout of the job.")
@click.option("--stderr", "only", flag_value="err", help="Only stderr of the job; it is printed on stdout.")
@options.raw_option
@click.pass_obj
def logs_command(
    session: Session,
    ids: tuple[str, ...],
    where: Filter,
    follow: bool,
    lines: int | None,
    attempt: int | None,
    every: bool,
    only: str | None,
    raw: bool,
) -> int:
    r"""Print the full output of jobs: those that are named, or that filters select.

    Of each job the last run is printed; --attempt, --all and --since choose others, and with --since only runs that
    began since then are printed. With several jobs or runs each has a heading.

    The job's stdout is printed on stdout and its stderr on stderr: --stdout prints only the first, `2>&1` puts both into
    one pipe. Each run keeps the two streams in two files, so the order of lines is known only within a stream; a job
    that runs `command 2>&1` keeps the order. In a pipe the bytes are unchanged. On a terminal both streams come in one,
    the one that was written to last at the end, and if there is any stderr, each line is marked with out or err. There
    control characters are shown as escapes such as \x1b, because a job's output could otherwise control your terminal;
    --raw prints them.
    """
    since = where.since
    if (attempt is not None) + every + (since is not None) > 1:
        raise Usage("give only one of --attempt, --all and --since")
    chosen = _Chosen(session, ids, where, follow=follow)
    headings = every or since is not None or not chosen.is_one
    output = Output(only, raw=raw)
    followers = []
    try:
        for job in chosen:
            with chosen.reported():
                runs = _runs(job, attempt, since, every=every, follow=follow)
                if follow and runs is not None:
                    one = attempt is not None
                    follower = Follower(
                        session.spool, job, output, lines, runs.start, only=one, headings=headings
                    )
                    followers.append(follower)
                elif runs is not None and (last_run(job) or ids):
                    printer = RunPrinter(session.spool, job, output, lines, headings=headings)
                    printer.print_runs(runs)
                    printer.close()
                elif ids:
                    render.note(f"no run of job {job.id} began since then")
        follow_all(followers, output)
    except KeyboardInterrupt:
        return INTERRUPTED  # the normal way to end --follow
    finally:
        output.finish()
    if not chosen.found:
        render.note("no jobs match")
    return chosen.exit_code


def _runs(job: Job, attempt: int | None, since: float | None, *, every: bool, follow: bool) -> range | None:
    """The runs to print; None if none began since then.

    Raises:
        JobError: there is no such run.
    """
    last = last_run(job)
    if attempt is not None and attempt > last:
        raise JobError(
            f"job {job.id!r} has run {render.count(last, 'time')}; there is no run {attempt}",
            hint=f"queuectl show {job.id}",
        )
    first = attempt or (1 if every else last)
    if since is not None:
        first = first_since(job, since)
        if first > last and not follow:
            return None
    return range(max(1, first) if follow else first, (attempt or last) + 1)


class _Chosen:
    """The jobs that are named, or that filters select, one after the other.

    Raises:
        Usage: both are given, or neither.
        QueuectlError: the job that runs this command is named, and would be followed: it would copy its own output, and
            wait for its own end. Filters leave that job out.

    Attributes:
        is_one: one job is named; then an error about it ends the command, as in any other.
        found: how many jobs there were.
        exit_code: 0, or that of the last job that was refused.
    """

    def __init__(self, session: Session, ids: tuple[str, ...], where: Filter, *, follow: bool) -> None:
        # --since chooses runs, too, so it goes with ids.
        if ids and not where.without_since.is_open:
            raise Usage("give either job ids or filters, not both")
        if not ids and where.is_open:
            raise Usage("name the jobs, or select them with --since, --tag, --state …")
        self._session, self._ids, self._where = session, list(dict.fromkeys(ids)), where
        self.is_one = len(self._ids) == 1
        self.found = self.exit_code = 0
        self._own = own_job.find(session.spool.layout) if follow else None

    def __iter__(self) -> Iterator[Job]:
        spool = self._session.spool
        for job_id in self._ids or [row.id for row in spool.list(where=self._where)]:
            with self.reported():
                job = spool.get(typed_ids.to_show(self._session, job_id) if self._ids else job_id)
                if self._own is not None and job.id == self._own.job_id:
                    if not self._ids:
                        continue
                    own_job.refuse_to_wait(
                        spool.layout, "which would follow its own output", hint="queuectl logs --help"
                    )
                self.found += 1
                yield job

    @contextmanager
    def reported(self) -> Iterator[None]:
        """Report an error about one of several jobs, and go on with the next."""
        try:
            yield
        except JobError as error:
            if self.is_one:
                raise
            if self._ids:
                self.found += 1
                self.exit_code = error.exit_code
                render.note(f"error: {render.clip(str(error))}")
