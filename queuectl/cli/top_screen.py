"""What `queuectl top` shows: one look at a spool, drawn into so many lines of so many characters."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.text import Text

from queuectl._dataclasses import dataclass
from queuectl.cli import render
from queuectl.cli.columns import priority
from queuectl.cli.commands.stats import span

if TYPE_CHECKING:
    from collections.abc import Sequence

    from queuectl.control.pause import Pause
    from queuectl.control.registry import WorkerInfo
    from queuectl.index.row import Row

LEAST = (40, 10)
"""Columns and lines below which nothing is drawn but that there is no room."""

KEYS = "↑↓ choose  l log  c cancel  r retry  p pause  ? help  q quit"
HELP = """\
↑ ↓, k j          choose a job
Home End          the first, the last
l, Enter          its log, as it comes; e: the other stream; q: back
c                 cancel it: end it if it runs, give it up if it waits
r                 retry it, if it is dead
h                 hold it, or release it, if it waits
p                 pause the spool, or let it go on
q, Ctrl+C         leave

A priority of 5 +3.2 is 5, and 3.2 for 3 minutes and 12 seconds of waiting;
the job with the largest sum is next.

Any key goes back."""
_STYLES = {**render.STATE_STYLES, "pending": ""}
_IDS_MOST = 26
_GAP = "  "


@dataclass(slots=True)
class Look:
    """One look at a spool. `now` is in epoch seconds."""

    root: str
    now: float
    counts: dict[str, int]
    workers: list[WorkerInfo]
    running: list[Row]
    next_up: list[Row]
    last: list[Row]
    paused: Pause | None = None

    @property
    def jobs(self) -> list[Row]:
        """Every job that can be chosen, from the top of the screen to its end."""
        return [*self.running, *self.next_up, *self.last]


def shares(height: int, wanted: Sequence[int]) -> list[int]:
    """Divide lines among parts: each gets what it wants or its fair share of what is there."""
    given = [0] * len(wanted)
    left = max(0, height)
    order = sorted(range(len(wanted)), key=lambda part: wanted[part])
    for done, part in enumerate(order):
        given[part] = min(wanted[part], left // (len(wanted) - done))
        left -= given[part]
    return given


def draw(look: Look, chosen: int, width: int, height: int, footer: Text) -> list[Text]:
    """The whole screen.

    Args:
        chosen: the place among `look.jobs` of the job that keys are about.
        footer: the last line.
    """
    if width < LEAST[0] or height < LEAST[1]:
        return [Text(f"no room: top wants {LEAST[0]}x{LEAST[1]}")]
    top = [_headline(look, width), _states(look), *_notes(look)]
    room = height - len(top) - 1 - 3
    parts = shares(room, [len(look.workers) or 1, len(look.next_up) or 1, len(look.last) or 1])
    lines = [*top]
    places = {id(row): place for place, row in enumerate(look.jobs)}
    for title, body in (
        (f"Workers ({len(look.workers)})", _workers(look)),
        (_next_title(look), _next(look)),
        ("Last", _last(look)),
    ):
        room = parts.pop(0)
        heading = Text(title, style="bold")
        heading.append(" " + "─" * max(0, width - cell_len(title) - 1), style="dim")
        lines.append(heading)
        first = _first_line([row for row, _ in body], places, chosen, room)
        for row, line in body[first : first + room]:
            if row is not None and places[id(row)] == chosen:
                line.pad_right(max(0, width - line.cell_len))
                line.stylize("reverse")
            lines.append(line)
    lines += [Text()] * (height - 1 - len(lines))
    for line in lines:
        line.truncate(width, overflow="ellipsis")
    footer.truncate(width, overflow="ellipsis")
    return [*lines, footer]


def _first_line(rows: Sequence[Row | None], places: dict[int, int], chosen: int, room: int) -> int:
    """The first line of a part that is shown, so that the chosen one is."""
    for number, row in enumerate(rows):
        if row is not None and places[id(row)] == chosen:
            return max(0, number - room + 1)
    return 0


def _headline(look: Look, width: int) -> Text:
    line = Text("queuectl top", style="bold")
    line.append(f"  {_home_short(look.root)}")
    clock = time.strftime("%H:%M:%S", time.localtime(look.now))
    line.truncate(width - len(clock) - 1, overflow="ellipsis")
    line.pad_right(max(1, width - line.cell_len - len(clock)))
    line.append(clock)
    return line


def _states(look: Look) -> Text:
    line = Text()
    for state, number in look.counts.items():
        line.append(f"{state} ", style="dim")
        line.append(f"{number:,}{_GAP}", style=_STYLES.get(state, "") if number else "dim")
    return line


def _notes(look: Look) -> list[Text]:
    if look.paused is None:
        return []
    reason = f": {render.visible(look.paused.reason)}" if look.paused.reason else ""
    return [Text(f"PAUSED for {render.ago(look.now - look.paused.since)}{reason}", style="bold yellow")]


def _home_short(path: str) -> str:
    home = os.path.expanduser("~")
    return "~" + path[len(home) :] if home != "/" and path.startswith(home + os.sep) else render.visible(path)


def _ids(rows: Sequence[Row]) -> int:
    return min(_IDS_MOST, max((len(row.id) for row in rows), default=0))


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def _workers(look: Look) -> list[tuple[Row | None, Text]]:
    """Each worker and what it runs; a claimed job of no living worker stands there as well."""
    running = {row.id: row for row in look.running}
    ids = _ids(look.running)
    name = max((len(one.name) for one in look.workers), default=0)
    found: list[tuple[Row | None, Text]] = []
    for one in look.workers:
        line = Text(f" {one.name:<{name}}{_GAP}")
        row = running.pop(one.job_id or "", None)
        if one.job_id is None:
            line.append(_idle(one), style="dim")
        else:
            since = render.ago(look.now - one.job_since) if one.job_since else "?"
            line.append(f"{_cut(one.job_id, ids or _IDS_MOST):<{ids}}{_GAP}{since:>7}{_GAP}", style="cyan")
            line.append(render.visible(row.command) if row else "")
            if one.stopping:
                line.append("  (then stops)", style="yellow")
        found.append((row, line))
    for row in running.values():
        line = Text(f" {row.worker or '?':<{name}}{_GAP}")
        line.append(f"{_cut(row.id, ids):<{ids}}{_GAP}{'gone':>7}{_GAP}", style="yellow")
        line.append(render.visible(row.command))
        found.append((row, line))
    # As in Look.jobs: the order of `running`.
    return found or [(None, Text(" none: queuectl worker start", style="dim"))]


def _idle(one: WorkerInfo) -> str:
    if one.stopping:
        return "stopping"
    return f"paused: {render.visible(one.paused)}" if one.paused else "idle"


def _next_title(look: Look) -> str:
    waiting = look.counts.get("pending", 0) + look.counts.get("failed", 0)
    return f"Next ({waiting:,} waiting)"


def _next(look: Look) -> list[tuple[Row | None, Text]]:
    ids = _ids(look.next_up)
    micros = round(look.now * 1e6)
    found: list[tuple[Row | None, Text]] = []
    for row in look.next_up:
        line = Text(f" {_cut(row.id, ids):<{ids}}{_GAP}{priority(row, look.now):<9}")
        waited = row.waited(micros)
        if waited is None:
            when = "held" if row.due is None else f"in {render.ago(row.due / 1e6 - look.now)}"
            line.append(when.rjust(15), style="yellow" if row.due is None else "dim")
        else:
            line.append(f"= {row.effective(micros) or 0:<6.1f}", style="bold")
            line.append(render.ago((waited or 0) / 1e6).rjust(7), style="dim")
        line.append(f"{_GAP}{render.visible(row.command)}")
        if row.state == "failed":
            line.append(f"{_GAP}({row.attempts} failed)", style="yellow")
        found.append((row, line))
    return found or [(None, Text(" nothing waits", style="dim"))]


def _last(look: Look) -> list[tuple[Row | None, Text]]:
    ids = _ids(look.last)
    found: list[tuple[Row | None, Text]] = []
    for row in look.last:
        line = Text(f" {_cut(row.id, ids):<{ids}}{_GAP}")
        line.append(f"{row.state:<9}", style=_STYLES.get(row.state, ""))
        took = "" if row.duration is None else span(row.duration / 1e6)
        ended = (row.finished_at or row.updated_at or row.arrived) / 1e6
        line.append(f"{_GAP}{took:>7}{_GAP}{render.ago(look.now - ended) + ' ago':>11}{_GAP}", style="dim")
        if row.last_error and row.state != "completed":
            line.append(render.visible(row.last_error), style=_STYLES.get(row.state, ""))
            line.append(": " if row.command else "")
        line.append(render.visible(row.command))
        found.append((row, line))
    return found or [(None, Text(" nothing has ended", style="dim"))]


def draw_log(title: str, text: str, width: int, height: int, footer: Text) -> list[Text]:
    """A screen with the end of a log."""
    shown = [] if height < 3 else render.visible_lines(text).rstrip("\n").split("\n")[-(height - 2) :]
    heading = Text(title, style="bold")
    lines = [heading, *(Text(line) for line in shown)]
    lines += [Text()] * (height - 1 - len(lines))
    for line in (*lines, footer):
        line.truncate(width, overflow="ellipsis")
    return [*lines, footer]


def draw_help(width: int, height: int) -> list[Text]:
    """The screen with the keys."""
    lines = [Text("queuectl top", style="bold"), Text(), *(Text(line) for line in HELP.splitlines())]
    for line in lines:
        line.truncate(width, overflow="ellipsis")
    return (lines + [Text()] * height)[:height]
