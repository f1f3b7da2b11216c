"""`queuectl wait`: until jobs have ended."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Self

import click

from queuectl.api import json_view
from queuectl.api.waiting import OVER, Ended, Waiting
from queuectl.cli import options as takes
from queuectl.cli import render
from queuectl.cli.base import Session, command
from queuectl.cli.selection import Bulk, filter_options
from queuectl.index.filter import Filter
from queuectl.job.fields import STATES

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_UNDER_WAY = tuple(state for state in STATES if state not in OVER)
_DRAWN_EVERY = 0.5


@command(
    "wait",
    examples="""
    queuectl wait job1                        and exit as its command did
    queuectl wait job1 job2 --timeout 10m
    queuectl wait --tag import --since 1h     those that have ended already count, too
    queuectl wait --tag import --for success  stop waiting when one is dead
    queuectl wait --all                       all that wait or run now
    """,
)
@click.argument("ids", nargs=-1, metavar="[JOB...]", shell_complete=takes.complete_ids(*_UNDER_WAY))
@filter_options()
@click.option("--all", "everything", is_flag=True, help="All jobs that wait or run now.")
@click.option(
    "--timeout",
    metavar="TIME",
    callback=takes.checked(takes.duration),
    help="Wait no longer: 90, 10m, 2h. Then the exit code is 75.",
)
@click.option(
    "--for",
    "goal",
    type=click.Choice(["end", "success"]),
    default="end",
    help="end: until each is done or dead. success: no longer than all can succeed.",
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
    """Wait until jobs are done or dead. One that fails and is tried again is waited for.

    Each job gets a line when it ends: ID - STATE - LAST ERROR. A terminal shows a bar instead, and a line only for
    those that did not end well. Which jobs are meant is settled at the beginning.

    The exit code for one job that was named is its command's own; 124 if its time limit ended it, 127 if it could not
    be started, 1 if it has none. For several, or jobs that were described: 0 all are done, 1 some are dead or were
    removed. For either: 75 the time given is over, 130 Ctrl+C, and the jobs go on.
    """
    bulk = Bulk(session, "wait for", "waited for", STATES)
    if everything and not ids and where.is_open:
        where, everything = Filter(states=_UNDER_WAY), False
    chosen = bulk.chosen(ids, where, everything=everything)
    shown = _Shown(session, len(chosen))
    waiting = Waiting(
        session.spool, chosen, success=goal == "success", tell=shown.tell, obstacle=note, beat=shown.beat
    )
    try:
        with shown:
            ended = waiting.run(timeout)
    finally:
        if session.json:
            over = {one.id for one in waiting.ended}
            left = [{"id": job_id, "state": "not ended"} for job_id in chosen if job_id not in over]
            render.json_array([*map(json_view.ended, waiting.ended), *left])
    shown.sum_up(ended)
    return ended[0].code if len(ids) == 1 else int(any(one.state != "completed" for one in ended))


def note(text: str) -> None:
    """Say on stderr what keeps the jobs waiting."""
    render.note(f"note: {text}")


def _line(one: Ended) -> str:
    error = f" - {one.last_error}" if one.state == "dead" and one.last_error else ""
    return f"{one.id} - {one.state}{error}"


class _Shown:
    """How a wait looks: lines in a pipe, a bar for a person."""

    def __init__(self, session: Session, total: int) -> None:
        self._json = session.json
        self._total = total
        self._ended = 0
        self._person = render.is_terminal() and not session.json
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._drawn = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def tell(self, one: Ended) -> None:
        """Tell of a job that has ended."""
        self._ended += 1
        if not self._json and (not self._person or one.state != "completed"):
            render.line(_line(one))
            sys.stdout.flush()

    def beat(self) -> None:
        """Draw the bar, if it is worth it: what is over in a moment needs none."""
        now = time.monotonic()
        if not self._person or now - self._drawn < _DRAWN_EVERY:
            return
        self._drawn = now
        if self._bar is None:
            self._start()
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=self._ended, refresh=True)

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
            # A thread that draws ten times a second would cost more than the wait.
            auto_refresh=False,
        )
        self._task = self._bar.add_task("", total=self._total)
        self._bar.start()

    def sum_up(self, ended: list[Ended]) -> None:
        """Tell a person what it came to."""
        if not self._person or not ended:
            return
        if len(ended) == 1:
            if ended[0].state == "completed":
                render.line(_line(ended[0]))
            return
        counted = {state: sum(one.state == state for one in ended) for state in (*OVER, "removed")}
        render.line(", ".join(f"{number} {state}" for state, number in counted.items() if number))
