"""`queuectl top`: the spool on a full screen, live, with keys to act on its jobs."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from queuectl.cli import options as takes
from queuectl.cli import render
from queuectl.cli.base import Session, Usage, command
from queuectl.errors import QueuectlError
from queuectl.index.filter import Filter

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    from queuectl.api.spool import Spool
    from queuectl.cli.keyboard import Keys
    from queuectl.cli.top_screen import Look
    from queuectl.index.row import Row

_SHOWN = 100
"""Jobs of each kind that are asked for: more than any screen has lines."""

_REST = 50
"""Times as long as the last look at what has ended took, until the next: in a large spool it is a fiftieth of the time."""

_TOLD_FOR = 6.0
"""Seconds for which a message stays."""


@command(
    "top",
    examples="""
    queuectl top
    queuectl top --interval 5                 over a slow line
    queuectl top | head -30                   one look, as text
    """,
)
@click.option(
    "--interval",
    metavar="TIME",
    callback=takes.checked(takes.duration),
    help="How long between two looks. Default: 1s.",
)
@click.pass_obj
def top_command(session: Session, interval: float | None) -> int:
    """Watch the spool: its workers and what they run, which jobs are next, and how the last ones ended.

    Keys: arrows choose a job, l shows its log as it comes, c cancels it, r retries it, h holds or releases it, p pauses
    the spool or lets it go on, ? has the rest, q leaves. A priority of 5 +3.2 is 5, and 3.2 for 3.2 minutes of waiting.
    Where no person looks on it prints one look and leaves; --json prints that as JSON.
    """
    pause = 1.0 if interval is None else max(0.1, interval)
    if session.json:
        render.json_value(_told(_Eyes(session.spool).look()))
        return 0
    if not render.is_terminal() or not render.is_terminal(sys.stdin) or render.console().is_dumb_terminal:
        _print_once(session.spool)
        return 0
    if sys.platform == "win32":
        raise Usage("top needs a terminal of Unix", hint="queuectl status")
    return _Top(session.spool, pause).run()


class _Eyes:
    """Looks at a spool again and again, and seldom at what costs much."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._last: list[Row] = []
        self._held: list[Row] = []
        self._counts: dict[str, int] = {}
        self._again_at = 0.0

    def look(self) -> Look:
        """How the spool stands now."""
        from queuectl.cli.top_screen import Look

        spool = self._spool
        counts = spool.counts()
        workers = spool.workers()
        claimed = {row.id: row for row in spool.list("processing")}
        held_by_workers = [row for one in workers if (row := claimed.pop(one.job_id or "", None))]
        self._see_seldom(counts)
        return Look(
            root=spool.layout.root,
            now=time.time(),
            counts=counts,
            workers=workers,
            running=[*held_by_workers, *claimed.values()],
            next_up=spool.next_up(_SHOWN) + self._held,
            last=self._last,
            paused=spool.paused(),
        )

    def look_closely(self) -> None:
        """Spare no cost at the next look: something was done."""
        self._again_at, self._counts = 0.0, {}

    def _see_seldom(self, counts: dict[str, int]) -> None:
        """What has ended and what is held: no order of the index has them."""
        began = time.monotonic()
        if began < self._again_at:
            return
        if counts != self._counts:
            self._last, self._counts = self._spool.last_ended(_SHOWN), counts
        self._held = self._spool.list(where=Filter(held=True, limit=_SHOWN))
        ended = time.monotonic()
        self._again_at = ended + _REST * (ended - began)


def _told(look: Look) -> dict[str, Any]:
    from queuectl.job import times

    def job(row: Row) -> dict[str, Any]:
        now = round(look.now * 1e6)
        return {
            "id": row.id,
            "state": row.state,
            "command": row.command,
            "priority": row.priority,
            "effective_priority": row.effective(now),
            "waited": None if (waited := row.waited(now)) is None else waited / 1e6,
            "worker": row.worker,
            "duration": None if row.duration is None else row.duration / 1e6,
            "last_error": row.last_error,
        }

    return {
        "at": times.iso(look.now),
        "spool": look.root,
        "jobs": look.counts,
        "paused": None if look.paused is None else look.paused.reason,
        "workers": [{"name": one.name, "pid": one.pid, "job_id": one.job_id} for one in look.workers],
        "running": [job(row) for row in look.running],
        "next": [job(row) for row in look.next_up],
        "last": [job(row) for row in look.last],
    }


def _print_once(spool: Spool) -> None:
    from rich.text import Text

    from queuectl.cli.top_screen import LEAST, draw

    look = _Eyes(spool).look()
    width = max(LEAST[0], render.console().width)
    height = LEAST[1] + len(look.workers) + len(look.running) + len(look.next_up) + len(look.last)
    text = "\n".join(line.plain.rstrip() for line in draw(look, -1, width, height, Text()))
    render.lines(text.rstrip("\n").split("\n"))


def _fit(console: Console) -> tuple[int, int]:
    """Have the console be as large as the window is now; COLUMNS and LINES may tell of what it once was."""
    from rich.console import ConsoleDimensions

    size = os.get_terminal_size(sys.stdout.fileno())
    if size.columns and size.lines:
        console.size = ConsoleDimensions(size.columns, size.lines)
    return console.size


class _Top:
    """The live screen: what is chosen, what was asked, and what was told last."""

    def __init__(self, spool: Spool, pause: float) -> None:
        self._spool, self._pause = spool, pause
        self._eyes = _Eyes(spool)
        self._look = self._eyes.look()
        self._look_at = time.monotonic() + pause
        self._chosen = 0
        self._chosen_id: str | None = None
        self._told, self._told_at, self._is_error = "", 0.0, False
        self._question: tuple[str, Callable[[], str]] | None = None
        self._screen: str = "main"
        self._log_of, self._stream = "", "out"
        self._height = 24

    def run(self) -> int:
        """Show it until somebody leaves."""
        from rich.live import Live

        from queuectl.cli.keyboard import OVER, Keys

        console = render.console()
        with Keys() as keys, Live(console=console, screen=True, auto_refresh=False) as live:
            while True:
                self._draw(live)
                key = self._wait(keys)
                if key == OVER or (key is not None and self._press(key)):
                    return 0

    def _wait(self, keys: Keys) -> str | None:
        """The next key; without one, look at the spool again."""
        key = keys.read(self._look_at - time.monotonic())
        if key is None or time.monotonic() >= self._look_at:
            try:
                self._look = self._eyes.look()
            except QueuectlError as error:
                self._tell(str(error), error=True)
            self._look_at = time.monotonic() + self._pause
            self._follow_choice()
        return key

    def _draw(self, live: Live) -> None:
        from rich.console import Group

        from queuectl.cli import top_screen

        width, self._height = _fit(live.console)
        if self._screen == "help":
            lines = top_screen.draw_help(width, self._height)
        elif self._screen == "log":
            lines = self._draw_log(width)
        else:
            lines = top_screen.draw(self._look, self._chosen, width, self._height, self._footer())
        live.update(Group(*lines), refresh=True)

    def _draw_log(self, width: int) -> list[Text]:
        from queuectl.cli import top_screen

        name = "error stream" if self._stream == "err" else "output"
        try:
            job = self._spool.get(self._log_of)
            text = self._spool.last_output(self._log_of, self._height, stream=self._stream)
            state = job.state
        except QueuectlError as error:
            text, state = str(error), "gone"
        footer = self._line(f"e {'output' if self._stream == 'err' else 'error stream'}  q back", "dim")
        title = f"{self._log_of} - {state} - {name}{'' if text else ': nothing yet'}"
        return top_screen.draw_log(title, text, width, self._height, footer)

    def _line(self, text: str, style: str = "") -> Text:
        from rich.text import Text as Line

        return Line(render.visible(text), style=style)

    def _footer(self) -> Text:
        from queuectl.cli.top_screen import KEYS

        if self._question is not None:
            return self._line(f"{self._question[0]}? y/n", "bold yellow")
        if self._told and time.monotonic() - self._told_at < _TOLD_FOR:
            return self._line(self._told, "red" if self._is_error else "green")
        return self._line(KEYS, "dim")

    def _tell(self, text: str, *, error: bool = False) -> None:
        self._told, self._told_at, self._is_error = text, time.monotonic(), error

    # -- keys ------------------------------------------------------------------------------------------------------

    def _press(self, key: str) -> bool:
        """Do what a key stands for; True: leave."""
        if self._question is not None:
            _, do = self._question
            self._question = None
            if key in {"y", "Y"}:
                self._do(do)
            return False
        if self._screen == "help":
            self._screen = "main"
        elif self._screen == "log":
            self._press_in_log(key)
        else:
            return self._press_in_main(key)
        return False

    def _press_in_log(self, key: str) -> None:
        if key in {"q", "escape", "l", "enter"}:
            self._screen = "main"
        elif key == "e":
            self._stream = "out" if self._stream == "err" else "err"

    def _press_in_main(self, key: str) -> bool:
        jobs = self._look.jobs
        steps = {"up": -1, "k": -1, "down": 1, "j": 1, "page up": -10, "page down": 10}
        if key in steps:
            self._choose(self._chosen + steps[key], jobs)
        elif key in {"home", "g"}:
            self._choose(0, jobs)
        elif key in {"end", "G"}:
            self._choose(len(jobs) - 1, jobs)
        elif key == "?":
            self._screen = "help"
        elif key == "p":
            self._do(self._pause_or_resume)
        elif key in {"q", "Q"}:
            return True
        elif key in {"l", "enter", "c", "r", "h"}:
            if not jobs:
                self._tell("there is no job to choose", error=True)
            else:
                self._act(key, jobs[min(self._chosen, len(jobs) - 1)])
        return False

    def _choose(self, place: int, jobs: Sequence[Row]) -> None:
        self._chosen = max(0, min(place, len(jobs) - 1))
        self._chosen_id = jobs[self._chosen].id if jobs else None

    def _follow_choice(self) -> None:
        """Stay with the chosen job when it goes from one list to another; where it is gone, stay at its place."""
        jobs = self._look.jobs
        places = [place for place, row in enumerate(jobs) if row.id == self._chosen_id]
        self._choose(places[0] if places else self._chosen, jobs)

    def _act(self, key: str, row: Row) -> None:
        job_id, spool = row.id, self._spool
        self._chosen_id = job_id
        if key in {"l", "enter"}:
            self._screen, self._log_of, self._stream = "log", job_id, "out"
        elif key == "c":
            verb = "End" if row.state == "processing" else "Cancel"
            self._question = f"{verb} {job_id}", lambda: f"{job_id}: {spool.cancel(job_id)}"
        elif key == "r":
            self._do(lambda: f"requeued job {spool.retry(job_id).id}")
        elif key == "h":
            self._do(lambda: self._hold_or_release(row))

    def _hold_or_release(self, row: Row) -> str:
        if row.held:
            self._spool.release(row.id)
            return f"{row.id}: released"
        self._spool.hold(row.id)
        return f"{row.id}: held"

    def _pause_or_resume(self) -> str:
        if self._look.paused is not None:
            self._spool.resume()
            return "the workers go on"
        self._spool.pause(f"by {os.environ.get('USER') or 'somebody'} in top", patience=0)
        return "paused: no worker starts another job"

    def _do(self, what: Callable[[], str]) -> None:
        """Do it, say how it went, and look at once what has become of it."""
        try:
            self._tell(what())
        except QueuectlError as error:
            self._tell(str(error), error=True)
        self._eyes.look_closely()
        self._look_at = 0.0
