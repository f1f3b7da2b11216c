"""Draw the screens of `queuectl top`: a snapshot of a spool as lines of text that fit the window."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.text import Text

from queuectl.cli import render
from queuectl.fast_start.dataclass import dataclass, field

if TYPE_CHECKING:
    from collections.abc import Sequence

    from queuectl.api.places import Place
    from queuectl.api.rules import Rule
    from queuectl.control.pause import Pause
    from queuectl.control.registry import WorkerInfo
    from queuectl.index.row import Row

MIN_SIZE = (40, 10)
"""Columns and lines. In a smaller window only a message is shown."""

KEYS = "↑↓ select  l log  c cancel  r retry  p pause  ? help  q quit"
HELP = """\
↑ ↓, k j          select a job
Home End          select the first job, the last job
l, Enter          show its log live; e: switch stdout and stderr; q: back
c                 cancel it: end it if it is running, and move it to the dead jobs
r                 retry it, if it is dead
h                 hold it, or release it, if it is waiting
p                 pause the spool, or resume it
q, Ctrl+C         quit

A priority of 5 +3.2 means priority 5, plus 3.2 for 3.2 minutes of waiting.
The job with the largest sum is next.

Press any key to go back."""
_STYLES = {**render.STATE_STYLES, "pending": ""}
_MAX_ID_WIDTH = 26
_MOST_RULES = 100
"""More than a screen has lines. What a rule says is put into words for each."""

_GAP = "  "


@dataclass(slots=True)
class Snapshot:
    """The state of a spool at one time.

    Attributes:
        now: in epoch seconds.
        closed: why no job of a lane starts.
        waits: of jobs that wait for others, for which.
        blocked: the ids of the jobs that start only once somebody has mended or brought another one.
        rules: in the order of the screen.
        places: where the jobs are that run on an engine, by their ids.
    """

    root: str
    now: float
    counts: dict[str, int]
    workers: list[WorkerInfo]
    running: list[Row]
    next_up: list[Row]
    last: list[Row]
    paused: Pause | None = None
    closed: dict[str | None, str] = field(default_factory=dict)
    waits: dict[str, str] = field(default_factory=dict)
    blocked: set[str] = field(default_factory=set)
    rules: list[Rule] = field(default_factory=list)
    places: dict[str, Place] = field(default_factory=dict)

    @property
    def jobs(self) -> list[Row]:
        """All jobs that can be selected, in the order of the screen."""
        return [*self.running, *self.next_up, *self.last]


def shares(height: int, wanted: Sequence[int]) -> list[int]:
    """Divide the lines of a screen among its parts: each gets the lines it wants or an equal share."""
    given = [0] * len(wanted)
    left = max(0, height)
    order = sorted(range(len(wanted)), key=lambda part: wanted[part])
    for done, part in enumerate(order):
        given[part] = min(wanted[part], left // (len(wanted) - done))
        left -= given[part]
    return given


def draw(snapshot: Snapshot, selected: int, width: int, height: int, footer: Text) -> list[Text]:
    """The whole screen.

    Args:
        selected: the position of the selected job in `snapshot.jobs`.
        footer: the last line.
    """
    if width < MIN_SIZE[0] or height < MIN_SIZE[1]:
        return [Text(f"top needs {MIN_SIZE[0]}x{MIN_SIZE[1]} or more")]
    lines = [_headline(snapshot, width), _states(snapshot), *_notes(snapshot)]
    parts = {
        f"Workers ({len(snapshot.workers)})": _workers(snapshot),
        _next_title(snapshot): _next(snapshot),
        "Last": _last(snapshot),
    }
    if snapshot.rules:
        parts[f"Rules ({len(snapshot.rules):,})"] = _rules(snapshot)
    sizes = shares(height - len(lines) - 1 - len(parts), [len(body) for body in parts.values()])
    places = {id(row): place for place, row in enumerate(snapshot.jobs)}
    for (title, body), size in zip(parts.items(), sizes, strict=True):
        heading = Text(title, style="bold")
        heading.append(" " + "─" * max(0, width - cell_len(title) - 1), style="dim")
        lines.append(heading)
        first = _first_line([row for row, _ in body], places, selected, size)
        for row, line in body[first : first + size]:
            if row is not None and places[id(row)] == selected:
                line.pad_right(max(0, width - line.cell_len))
                line.stylize("reverse")
            lines.append(line)
    lines += [Text()] * (height - 1 - len(lines))
    for line in (*lines, footer):
        line.truncate(width, overflow="ellipsis")
    return [*lines, footer]


def _first_line(rows: Sequence[Row | None], places: dict[int, int], selected: int, size: int) -> int:
    """The first line of a part to show, so that the selected job is visible."""
    for number, row in enumerate(rows):
        if row is not None and places[id(row)] == selected:
            return max(0, number - size + 1)
    return 0


def _headline(snapshot: Snapshot, width: int) -> Text:
    line = Text("queuectl top", style="bold")
    line.append(f"  {render.short_path(snapshot.root)}")
    clock = time.strftime("%H:%M:%S", time.localtime(snapshot.now))
    line.truncate(width - len(clock) - 1, overflow="ellipsis")
    line.pad_right(max(1, width - line.cell_len - len(clock)))
    line.append(clock)
    return line


def _states(snapshot: Snapshot) -> Text:
    line = Text()
    for state, number in snapshot.counts.items():
        line.append(f"{state} ", style="dim")
        line.append(f"{number:,}{_GAP}", style=_STYLES.get(state, "") if number else "dim")
    return line


def _notes(snapshot: Snapshot) -> list[Text]:
    found = []
    if snapshot.paused is not None:
        reason = f": {render.visible(snapshot.paused.reason)}" if snapshot.paused.reason else ""
        since = render.ago(snapshot.now - snapshot.paused.since)
        found.append(Text(f"PAUSED for {since}{reason}", style="bold yellow"))
    if number := len(snapshot.blocked):
        are = "1 job is" if number == 1 else f"{number:,} jobs are"
        told = f"{are} blocked by dead or missing jobs: queuectl list --blocked"
        found.append(Text(told, style="yellow"))
    return found


def _id_width(rows: Sequence[Row]) -> int:
    return min(_MAX_ID_WIDTH, max((len(row.id) for row in rows), default=0))


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def _workers(snapshot: Snapshot) -> list[tuple[Row | None, Text]]:
    """Each worker and the job that it runs, the jobs on a cluster, and claimed jobs whose worker has died."""
    running = {row.id: row for row in snapshot.running}
    ids = _id_width(snapshot.running)
    name = max((len(one.name) for one in snapshot.workers), default=0)
    found: list[tuple[Row | None, Text]] = []
    for one in snapshot.workers:
        if not one.jobs:
            line = Text(f" {one.name:<{name}}{_GAP}")
            line.append(_idle(one), style="dim")
            found.append((None, line))
        for place, job in enumerate(one.jobs):
            line = Text(f" {'' if place else one.name:<{name}}{_GAP}")
            row = running.pop(job.id, None)
            since = render.ago(snapshot.now - job.since) if job.since else "?"
            line.append(f"{_cut(job.id, ids or _MAX_ID_WIDTH):<{ids}}{_GAP}{since:>7}{_GAP}", style="cyan")
            line.append(render.visible(row.command) if row else "")
            if one.stopping:
                line.append("  (then stops)", style="yellow")
            found.append((row, line))
    there = {one.name for one in snapshot.workers if one.kind == "dispatcher"}
    for row in running.values():
        is_there = row.worker in there
        since = _since(row, snapshot.now) if is_there else "gone"
        line = Text(f" {row.worker or '?':<{name}}{_GAP}")
        style = "cyan" if is_there else "yellow"
        line.append(f"{_cut(row.id, ids):<{ids}}{_GAP}{since:>7}{_GAP}", style=style)
        line.append(render.visible(row.command))
        if (there_is := snapshot.places.get(row.id)) and (where := there_is.node or there_is.engine_reason):
            line.append(f"{_GAP}{render.visible(where)}", style="dim" if there_is.node else "yellow")
        found.append((row, line))
    # In the order of `running`, as in Snapshot.jobs.
    return found or [(None, Text(" none: queuectl worker start", style="dim"))]


def _since(row: Row, now: float) -> str:
    """For how long a job runs on a cluster."""
    return "waits" if row.started_at is None else render.ago(now - row.started_at / 1e6)


def _idle(one: WorkerInfo) -> str:
    if one.stopping:
        return "stopping"
    if one.engine is not None:
        return f"{one.handed:,} jobs there: {one.engine}"
    return f"paused: {render.visible(one.paused)}" if one.paused else "idle"


def _next_title(snapshot: Snapshot) -> str:
    waiting = snapshot.counts.get("pending", 0) + snapshot.counts.get("failed", 0)
    return f"Next ({waiting:,} waiting)"


def _next(snapshot: Snapshot) -> list[tuple[Row | None, Text]]:
    ids = _id_width(snapshot.next_up)
    micros = round(snapshot.now * 1e6)
    found: list[tuple[Row | None, Text]] = []
    for row in snapshot.next_up:
        line = Text(f" {_cut(row.id, ids):<{ids}}{_GAP}{render.priority(row, snapshot.now):<9}")
        waited = row.waited(micros)
        if waited is None:
            when = _when(row, snapshot)
            line.append(when.rjust(15), style="yellow" if when in ("held", "blocked") else "dim")
        else:
            line.append(f"= {row.effective(micros) or 0:<6.1f}", style="bold")
            line.append(render.ago((waited or 0) / 1e6).rjust(7), style="dim")
        line.append(f"{_GAP}{render.visible(row.command)}")
        if row.ready_key is not None and (why := snapshot.closed.get(row.lane)):
            line.append(f"{_GAP}{render.visible(why)}", style="yellow")
        if parents := snapshot.waits.get(row.id):
            line.append(f"{_GAP}after {render.visible(parents)}", style="dim")
        if row.state == "failed":
            line.append(f"{_GAP}({row.attempts} failed)", style="yellow")
        found.append((row, line))
    return found or [(None, Text(" nothing waits", style="dim"))]


def _when(row: Row, snapshot: Snapshot) -> str:
    """When a job that cannot run yet can run, or what keeps it from it."""
    if row.due is not None:
        return f"in {render.ago(row.due / 1e6 - snapshot.now)}"
    if row.held:
        return "held"
    if row.id in snapshot.waits:
        return "blocked" if row.id in snapshot.blocked else "other jobs"
    return "unique key"


def _last(snapshot: Snapshot) -> list[tuple[Row | None, Text]]:
    ids = _id_width(snapshot.last)
    found: list[tuple[Row | None, Text]] = []
    for row in snapshot.last:
        line = Text(f" {_cut(row.id, ids):<{ids}}{_GAP}")
        line.append(f"{row.state:<9}", style=_STYLES.get(row.state, ""))
        took = "" if row.duration is None else render.span(row.duration / 1e6)
        ended = (row.finished_at or row.updated_at or row.arrived) / 1e6
        line.append(
            f"{_GAP}{took:>7}{_GAP}{render.ago(snapshot.now - ended) + ' ago':>11}{_GAP}", style="dim"
        )
        if row.last_error and row.state != "completed":
            line.append(render.visible(row.last_error), style=_STYLES.get(row.state, ""))
            line.append(": " if row.command else "")
        line.append(render.visible(row.command))
        found.append((row, line))
    return found or [(None, Text(" nothing has ended", style="dim"))]


def _rules(snapshot: Snapshot) -> list[tuple[Row | None, Text]]:
    """Each rule, when it is due next, and what keeps it from queueing anything. Those that a screen has no line for are left out."""
    shown = snapshot.rules[:_MOST_RULES]
    width = min(_MAX_ID_WIDTH, max(len(one.name) for one in shown))
    found: list[tuple[Row | None, Text]] = []
    for one in shown:
        line = Text(f" {_cut(render.visible(one.name), width):<{width}}{_GAP}")
        moments = one.next()
        when = f"in {render.ago(moments[0] - snapshot.now)}" if moments else ""
        if one.problem is not None:
            line.append(render.visible(one.problem), style="yellow")
        elif one.paused is not None:
            reason = f": {render.visible(one.paused.reason)}" if one.paused.reason else ""
            line.append(f"{'paused' + reason:>12}", style="yellow")
        else:
            line.append(when.rjust(12))
            line.append(f"{_GAP}{render.visible(one.when)}", style="dim")
        found.append((None, line))
    return found


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
