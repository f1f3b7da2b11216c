"""`queuectl top`: a live full-screen view of the spool, with keys to act on its jobs."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from queuectl.api import dependencies, json_view, listing, places, queues, spool_rule
from queuectl.cli import options, render
from queuectl.cli.base import Session, Usage, command
from queuectl.errors import ConfigError, QueuectlError
from queuectl.index import lanes
from queuectl.index.filter import Filter

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    from queuectl.api.rules import Rule
    from queuectl.api.spool import Spool
    from queuectl.cli.keyboard import Keys
    from queuectl.cli.top_screen import Snapshot
    from queuectl.index.row import Row
    from queuectl.rules.rule_book import RuleBook

_MAX_ROWS = 100
"""Jobs that are read for each list: more than a screen has lines."""

_SLOW_INTERVAL = 50
"""The slow queries run again after this many times their own duration, so they use at most 2 % of the time."""

_NEVER = 1 << 62
"""Later than any moment."""

_MESSAGE_SECONDS = 6.0
"""How long a message is shown."""


@command(
    "top",
    examples="""
    queuectl top
    queuectl top --interval 5                 over a slow connection
    queuectl top | head -30                   print the screen once, as text
    """,
)
@click.option(
    "--interval",
    metavar="TIME",
    callback=options.checked(options.duration),
    help="Time between two updates. Default: 1s.",
)
@click.pass_obj
def top_command(session: Session, interval: float | None) -> int:
    """Watch the spool live: the workers and their jobs, the next jobs, the jobs that ended last, and the rules, if there are any.

    Keys: arrows select a job, l shows its log live, c cancels it, r retries it, h holds or releases it, p pauses or
    resumes the spool, ? shows all keys, q quits. A priority of 5 +3.2 means priority 5, plus 3.2 for 3.2 minutes of
    waiting. In a pipe it prints the screen once and exits; --json prints the same as JSON.
    """
    pause = 1.0 if interval is None else max(0.1, interval)
    if session.json:
        render.json_value(_as_json(session.spool, _SnapshotReader(session.spool).read()))
        return 0
    if not render.is_terminal() or not render.is_terminal(sys.stdin) or render.console().is_dumb_terminal:
        if render.is_terminal():
            render.note("this is one look: top needs a terminal that it can read keys from and draw on")
        _print_once(session.spool)
        return 0
    if sys.platform == "win32":
        raise Usage("top needs a Unix terminal", hint="queuectl status")
    return _Top(session.spool, pause).run()


class _SnapshotReader:
    """Reads snapshots of a spool. It runs the slow queries less often than the fast ones."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._last: list[Row] = []
        self._held: list[Row] = []
        self._children: list[Row] = []
        self._waits: dict[str, str] = {}
        self._blocked: set[str] = set()
        self._rules: list[Rule] = []
        self._rule_book: RuleBook | None = None
        self._counts: dict[str, int] = {}
        self._slow_queries_at = 0.0

    def read(self) -> Snapshot:
        """Read the current state of the spool."""
        from queuectl.cli.top_screen import Snapshot

        spool = self._spool
        counts = spool.counts()
        workers = spool.workers()
        claimed = {row.id: row for row in listing.select(spool, "processing")}
        with_worker = [row for one in workers for job in one.jobs if (row := claimed.pop(job.id, None))]
        self._run_slow_queries(counts)
        next_up = listing.next_up(spool, _MAX_ROWS)
        running = [*with_worker, *claimed.values()]
        return Snapshot(
            root=spool.layout.root,
            now=time.time(),
            counts=counts,
            workers=workers,
            running=running,
            next_up=next_up + self._children + self._held,
            last=self._last,
            paused=spool.paused(),
            closed=self._closed(next_up),
            waits=self._waits,
            blocked=self._blocked,
            rules=self._rules,
            places=places.Places(spool).by_id(running),
        )

    def _closed(self, rows: Sequence[Row]) -> dict[str | None, str]:
        """Why the limits of their queues, or a pause, keep jobs from starting, by lane."""
        try:
            return queues.closed_lanes(self._spool, {row.lane for row in rows if row.ready_key is not None})
        except ConfigError:
            return {}  # `status` says what is wrong

    def expect_change(self) -> None:
        """Run the slow queries in the next read: the user has just changed something."""
        self._slow_queries_at, self._counts = 0.0, {}

    def _run_slow_queries(self, counts: dict[str, int]) -> None:
        """Read the ended and the held jobs, those that wait for others, and the rules. No SQL index covers these queries."""
        began = time.monotonic()
        if began < self._slow_queries_at:
            return
        if counts != self._counts:
            self._last, self._counts = listing.last_ended(self._spool, _MAX_ROWS), counts
        self._held = listing.select(self._spool, where=Filter(held=True, limit=_MAX_ROWS))
        self._children, self._waits, self._blocked = dependencies.waiting(self._spool, _MAX_ROWS)
        self._rules = self._read_rules()
        ended = time.monotonic()
        self._slow_queries_at = ended + _SLOW_INTERVAL * (ended - began)

    def _read_rules(self) -> list[Rule]:
        """Read the rules: files that cannot be used first, then by the next moment. Where there are none, nothing is loaded."""
        if not spool_rule.are_there(self._spool.layout):
            return []
        from queuectl.api import rules
        from queuectl.rules.rule_book import RuleBook

        self._rule_book = self._rule_book or RuleBook(self._spool.layout)
        found = rules.all_of(self._spool.layout, book=self._rule_book)
        return sorted(
            found, key=lambda rule: (rule.problem is None, rule.paused is not None, rule.next() or [_NEVER])
        )


def _as_json(spool: Spool, snapshot: Snapshot) -> dict[str, Any]:
    from queuectl.job import times

    elsewhere = places.Places(spool)

    def job(row: Row) -> dict[str, Any]:
        now = round(snapshot.now * 1e6)
        return {
            "id": row.id,
            "state": row.state,
            "command": row.command,
            "priority": row.priority,
            "effective_priority": row.effective(now),
            "waited": None if (waited := row.waited(now)) is None else waited / 1e6,
            "queue": lanes.queue_of(row.lane),
            "closed": snapshot.closed.get(row.lane) if row.ready_key is not None else None,
            "waits_for": snapshot.waits.get(row.id),
            "blocked": row.id in snapshot.blocked,
            "worker": row.worker,
            **json_view.place(snapshot.places.get(row.id) or elsewhere.of_row(row)),
            "duration": None if row.duration is None else row.duration / 1e6,
            "last_error": row.last_error,
        }

    return {
        "at": times.iso(snapshot.now),
        "spool": snapshot.root,
        "jobs": snapshot.counts,
        "paused": None if snapshot.paused is None else snapshot.paused.reason,
        "blocked": len(snapshot.blocked),
        "workers": [
            {"name": one.name, "pid": one.pid, "job_id": one.job_id, "jobs": [job.id for job in one.jobs]}
            for one in snapshot.workers
        ],
        "running": [job(row) for row in snapshot.running],
        "next": [job(row) for row in snapshot.next_up],
        "last": [job(row) for row in snapshot.last],
        "rules": [
            {
                "name": rule.name,
                "next": times.iso(moments[0]) if (moments := rule.next()) else None,
                "paused": rule.paused is not None,
                "problem": rule.problem,
            }
            for rule in snapshot.rules
        ],
    }


def _print_once(spool: Spool) -> None:
    from rich.text import Text

    from queuectl.cli.top_screen import MIN_SIZE, draw

    snapshot = _SnapshotReader(spool).read()
    width = max(MIN_SIZE[0], render.console().width)
    height = (
        MIN_SIZE[1]
        + len(snapshot.workers)
        + len(snapshot.running)
        + len(snapshot.next_up)
        + len(snapshot.last)
        + (len(snapshot.rules) + 1 if snapshot.rules else 0)
    )
    text = "\n".join(line.plain.rstrip() for line in draw(snapshot, -1, width, height, Text()))
    render.lines(text.rstrip("\n").split("\n"))


def _fit(console: Console) -> tuple[int, int]:
    """Set the console to the current size of the window; COLUMNS and LINES may have an old size."""
    from rich.console import ConsoleDimensions

    size = os.get_terminal_size(sys.stdout.fileno())
    if size.columns and size.lines:
        console.size = ConsoleDimensions(size.columns, size.lines)
    return console.size


class _Top:
    """The live screen: the selected job, the open question, and the last message."""

    def __init__(self, spool: Spool, pause: float) -> None:
        self._spool, self._pause = spool, pause
        self._reader = _SnapshotReader(spool)
        self._snapshot = self._reader.read()
        self._next_read = time.monotonic() + pause
        self._selected = 0
        self._selected_id: str | None = None
        self._message, self._message_at, self._is_error = "", 0.0, False
        self._question: tuple[str, Callable[[], str]] | None = None
        self._screen: str = "main"
        self._log_of, self._stream = "", "out"
        self._height = 24

    def run(self) -> int:
        """Show the screen until the user quits."""
        from rich.live import Live

        from queuectl.cli.keyboard import QUIT, Keys

        console = render.console()
        with Keys() as keys, Live(console=console, screen=True, auto_refresh=False) as live:
            while True:
                self._draw(live)
                key = self._wait(keys)
                if key == QUIT or (key is not None and self._press(key)):
                    return 0

    def _wait(self, keys: Keys) -> str | None:
        """Wait for the next key; update the snapshot when it is time."""
        key = keys.read(self._next_read - time.monotonic())
        if key is None or time.monotonic() >= self._next_read:
            try:
                self._snapshot = self._reader.read()
            except QueuectlError as error:
                self._show_message(str(error), error=True)
            self._next_read = time.monotonic() + self._pause
            self._follow_selected()
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
            lines = top_screen.draw(self._snapshot, self._selected, width, self._height, self._footer())
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
        if self._message and time.monotonic() - self._message_at < _MESSAGE_SECONDS:
            return self._line(self._message, "red" if self._is_error else "green")
        return self._line(KEYS, "dim")

    def _show_message(self, text: str, *, error: bool = False) -> None:
        self._message, self._message_at, self._is_error = text, time.monotonic(), error

    # -- keys ------------------------------------------------------------------------------------------------------

    def _press(self, key: str) -> bool:
        """Handle a key; return True to quit."""
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
        jobs = self._snapshot.jobs
        steps = {"up": -1, "k": -1, "down": 1, "j": 1, "page up": -10, "page down": 10}
        if key in steps:
            self._select(self._selected + steps[key], jobs)
        elif key in {"home", "g"}:
            self._select(0, jobs)
        elif key in {"end", "G"}:
            self._select(len(jobs) - 1, jobs)
        elif key == "?":
            self._screen = "help"
        elif key == "p":
            self._do(self._pause_or_resume)
        elif key in {"q", "Q"}:
            return True
        elif key in {"l", "enter", "c", "r", "h"}:
            if not jobs:
                self._show_message("there is no job to select", error=True)
            else:
                self._act(key, jobs[min(self._selected, len(jobs) - 1)])
        return False

    def _select(self, place: int, jobs: Sequence[Row]) -> None:
        self._selected = max(0, min(place, len(jobs) - 1))
        self._selected_id = jobs[self._selected].id if jobs else None

    def _follow_selected(self) -> None:
        """Keep the same job selected when it moves to another list. If it is gone, keep the position."""
        jobs = self._snapshot.jobs
        places = [place for place, row in enumerate(jobs) if row.id == self._selected_id]
        self._select(places[0] if places else self._selected, jobs)

    def _act(self, key: str, row: Row) -> None:
        job_id, spool = row.id, self._spool
        self._selected_id = job_id
        if key in {"l", "enter"}:
            self._screen, self._log_of, self._stream = "log", job_id, "out"
        elif key == "c":
            verb = "End" if row.state == "processing" else "Cancel"
            self._question = f"{verb} {job_id}", lambda: f"{job_id}: {spool.cancel(job_id, timeout=0.1)}"
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
        if self._snapshot.paused is not None:
            self._spool.resume()
            return "resumed: workers start jobs again"
        self._spool.pause(f"by {os.environ.get('USER') or 'somebody'} in top", patience=0)
        return "paused: no worker starts another job"

    def _do(self, what: Callable[[], str]) -> None:
        """Call `what`, show its message or its error, and update the screen at once."""
        try:
            self._show_message(what())
        except QueuectlError as error:
            self._show_message(str(error), error=True)
        self._reader.expect_change()
        self._next_read = 0.0
