"""`queuectl wait`: wait until jobs have ended."""

from __future__ import annotations

import sys
import time
from functools import partial
from typing import TYPE_CHECKING, Self

import click

from queuectl.api import json_view
from queuectl.api.waiting import OVER, Ended, Waiting, now_in_batch, of_batch
from queuectl.cli import options, render
from queuectl.cli.base import Session, command
from queuectl.cli.selection import BulkAction, filter_options
from queuectl.control import own_job
from queuectl.index.filter import Filter
from queuectl.job.fields import STATES

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_NOT_ENDED = tuple(state for state in STATES if state not in OVER)
_REDRAW_INTERVAL = 0.5
"""Seconds between two updates of the progress bar."""


@command(
    "wait",
    examples="""
    queuectl wait job1                        and exit with the exit code of its command
    queuectl wait job1 job2 --timeout 10m
    queuectl wait --tag import --since 1h     jobs that have already ended count too
    queuectl wait --tag import --for success  stop waiting when one is dead
    queuectl wait --batch nightly             all jobs of a batch
    queuectl wait --all                       all jobs that wait or run now
    """,
)
@click.argument("ids", nargs=-1, metavar="[JOB...]", shell_complete=options.complete_ids(*_NOT_ENDED))
@filter_options()
@click.option("--all", "everything", is_flag=True, help="All jobs that wait or run now.")
@click.option(
    "--timeout",
    metavar="TIME",
    callback=options.checked(options.limit),
    help="The longest time to wait: 90, 10m, 2h, none. After it the exit code is 75.",
)
@click.option(
    "--for",
    "goal",
    type=click.Choice(["end", "success"]),
    default="end",
    help="end: wait until each job is completed or dead. success: stop waiting as soon as one is dead, or waits for a dead "
    "one.",
)
@click.pass_obj
def wait_command(
    session: Session,
    ids: tuple[str, ...],
    where: Filter,
    everything: bool,
    timeout: float | None,
    goal: str,
) -> int:
    """Wait until jobs are completed or dead. A failed job that will be tried again has not ended yet.

    When a job ends, a line is printed: ID - STATE - LAST ERROR. A terminal shows a progress bar instead, and lines
    only for jobs that are not completed. Filters select jobs once, at the start; only with --batch alone the jobs that
    come into the batch meanwhile are waited for, too.

    A note says what keeps the jobs from running until somebody acts, such as a dead job for which one waits. With --for
    success the wait ends then. A job that is missing may still come.

    If you name one job, the exit code is that of its command; 124 if its time limit ended it, 127 if it could not be
    started, 1 if it has no exit code. For several jobs, or filters: 0 if all are completed, 1 if some are dead or were
    removed or blocked. In all cases: 75 if the time is over, 130 after Ctrl+C; the jobs continue.
    """
    action = BulkAction(session, "wait for", "waited for", STATES)
    if everything and not ids and where.is_open:
        where, everything = Filter(states=_NOT_ENDED), False
    batch = None if ids or where != Filter(batch=where.batch) else where.batch
    if batch is not None:
        selected = of_batch(session.spool, batch)
    else:
        selected = action.select(ids, where, everything=everything)
    if not ids and (own := own_job.find(session.spool.layout)):
        # A job that waits for "all" means all others.
        selected = [job_id for job_id in selected if job_id != own.job_id]
    progress = _Progress(session, len(selected))
    waiting = Waiting(
        session.spool,
        selected,
        success=goal == "success",
        more=list if batch is None else partial(_more, session, batch),
        tell=progress.report,
        obstacle=print_note,
        beat=progress.redraw,
    )
    try:
        with progress:
            ended = waiting.run(timeout)
    finally:
        if session.json:
            left = [{"id": job_id, "state": "not ended"} for job_id in waiting.left]
            render.json_array([*map(json_view.ended, waiting.ended), *left])
    progress.summarize(ended)
    return ended[0].code if len(ids) == 1 else int(any(one.state != "completed" for one in ended))


def _more(session: Session, batch: str) -> list[str]:
    """Return the jobs that a batch has now; a job of the batch that waits here is not one of them."""
    own = own_job.find(session.spool.layout)
    return [job_id for job_id in now_in_batch(session.spool, batch) if own is None or job_id != own.job_id]


def print_note(text: str) -> None:
    """Print a note on stderr, such as why the jobs cannot run now."""
    render.note(f"note: {text}")


def _line(one: Ended) -> str:
    error = f" - {one.last_error}" if one.state in ("dead", "blocked") and one.last_error else ""
    return f"{one.id} - {one.state}{error}"


class _Progress:
    """What is printed during the wait: lines in a pipe, a progress bar on a terminal."""

    def __init__(self, session: Session, total: int) -> None:
        self._json = session.json
        self._total = total
        self._ended = 0
        self._on_terminal = render.is_terminal() and not session.json
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._drawn = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def report(self, one: Ended) -> None:
        """Print the line of a job that has ended."""
        self._ended += 1
        if not self._json and (not self._on_terminal or one.state != "completed"):
            render.line(_line(one))
            sys.stdout.flush()

    def redraw(self) -> None:
        """Update the bar. It first appears after half a second: a shorter wait needs none."""
        now = time.monotonic()
        if not self._on_terminal or now - self._drawn < _REDRAW_INTERVAL:
            return
        self._drawn = now
        if self._bar is None:
            self._start()
        if self._bar is not None and self._task is not None:
            total = max(self._total, self._ended)  # of a batch more may have come
            self._bar.update(self._task, completed=self._ended, total=total, refresh=True)

    def _start(self) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        self._bar = Progress(
            TextColumn("waiting"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("ended,"),
            TimeElapsedColumn(),
            console=render.console(),
            transient=True,
            # The refresh thread of rich, ten times a second, would use more CPU than the wait itself.
            auto_refresh=False,
        )
        self._task = self._bar.add_task("", total=self._total)
        self._bar.start()

    def summarize(self, ended: list[Ended]) -> None:
        """On a terminal, print how many jobs ended in which state."""
        if not self._on_terminal or not ended:
            return
        if len(ended) == 1:
            if ended[0].state == "completed":
                render.line(_line(ended[0]))
            return
        counted = {state: sum(one.state == state for one in ended) for state in (*OVER, "blocked", "removed")}
        render.line(", ".join(f"{number} {state}" for state, number in counted.items() if number))
