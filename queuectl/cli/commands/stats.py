"""`queuectl stats`: throughput, success rate, and how long jobs waited and ran."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from queuectl.api.stats import BOUNDS, GROUPS
from queuectl.cli import options, render
from queuectl.cli.base import Session, command
from queuectl.cli.selection import filter_options

if TYPE_CHECKING:
    from collections.abc import Iterator

    from queuectl.api.stats import Stats, Tally, Times
    from queuectl.index.filter import Filter

_MAX_BARS = 24
"""Maximum number of bars in the plot over time."""

_BAR_WIDTH = 40
_STEPS = (900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 7 * 86400, 30 * 86400)
_EIGHTHS = "▏▎▍▌▋▊▉█"


def _group(text: str) -> str:
    name = text.lower().replace("_", "-")
    if name not in GROUPS:
        raise ValueError(f"{render.clip(repr(text), 60)} is not one of {', '.join(GROUPS)}")
    return name


def _complete(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    return [name for name in GROUPS if name.startswith(incomplete)]


@command(
    "stats",
    paged=True,
    examples="""
    queuectl stats
    queuectl stats --since 1d --by tag
    queuectl stats --by day --tag nightly
    queuectl stats --by command --since 7d
    queuectl stats --by reason --state dead    what went wrong, and how often
    queuectl stats --json | jq .running.p99
    """,
)
@filter_options()
@click.option(
    "--by",
    metavar="WHAT",
    callback=options.checked(_group),
    shell_complete=_complete,
    help=f"Also print a line for each group: {', '.join(GROUPS)}. Commands are grouped by their first word.",
)
@click.pass_obj
def stats_command(session: Session, where: Filter, by: str | None) -> None:
    """Show how many jobs ended, how many were successful, and how long they waited and ran.

    Only jobs that have run and ended, and are still in the spool, are counted. A job that was run again counts once,
    with its waiting time counted from its first arrival. --since and --until refer to the time when a job ended.
    Waiting time is from the time when a job could first run to its start, for jobs that ended at the first attempt.
    Running time is that of the last attempt. Throughput is measured from the first start to the last end of these jobs. With more than 50,000 jobs, percentiles come from a sample.
    """
    found = session.spool.stats(where, by=by)
    if session.json:
        render.json_value(_as_json(found, by))
        return
    if not found.all.ended:
        render.note("no jobs have ended" if where.is_open else "no matching jobs have ended")
        return
    if render.is_terminal():
        _draw(found)
    else:
        rows = list(_facts(found))
        width = max(len(name) for name, _ in rows) + 2
        render.lines(f"{name:<{width}}{text}" for name, text in rows)
    if by is not None:
        _groups(found, by)


def _as_json(found: Stats, by: str | None) -> dict[str, Any]:
    from queuectl.job import times

    def ended(since: int, completed: int, dead: int) -> dict[str, Any]:
        return {"since": times.iso(since), "completed": completed, "dead": dead}

    groups = [{by: key, **tally.to_dict()} for key, tally in _sorted(found, by)] if by else None
    return {
        "since": times.iso(found.since),
        "until": times.iso(found.until),
        **found.all.to_dict(),
        "per_hour": round(found.per_hour, 3),
        "first_start": None if found.first_start is None else times.iso(found.first_start),
        "last_end": None if found.last_end is None else times.iso(found.last_end),
        "sampled": found.sampled,
        "over_time": [ended(*step) for step in found.steps],
        **({"by": by, "groups": groups} if by else {}),
    }


def _sorted(found: Stats, by: str | None) -> list[tuple[str | None, Tally]]:
    """The groups: days and hours in order of time, others by their number of jobs."""
    groups = list(found.groups.items())
    if by in {"day", "hour"}:
        return sorted(groups, key=lambda pair: pair[0] or "")
    return sorted(groups, key=lambda pair: (-pair[1].ended, pair[0] is None, pair[0] or ""))


def _share(tally: Tally) -> str:
    return "-" if tally.success is None else f"{_percent(tally.completed, tally.ended)}%"


def _percent(part: int, whole: int) -> str:
    """In percent, rounded. Only a whole share is 100.0 and only an empty one 0.0: a single job that failed shows."""
    tenths = round(1000 * part / whole)
    if 0 < part < whole:
        tenths = min(max(tenths, 1), 999)
    return f"{tenths / 10:.1f}"


def _rate(per_hour: float) -> str:
    if per_hour >= 3600:
        return f"{per_hour / 3600:,.1f} a second"
    return f"{per_hour / 60:,.1f} a minute" if per_hour >= 60 else f"{per_hour:.1f} an hour"


def _span(found: Stats) -> str:
    """The time over which the rate was measured."""
    from queuectl.job import times

    if found.first_start is None or found.last_end is None:
        return ""
    return f", from {times.local(found.first_start)} to {times.local(found.last_end)}"


def _facts(found: Stats) -> Iterator[tuple[str, str]]:
    from queuectl.job import times

    tally = found.all
    yield "Since", times.local(found.since)
    yield "Ended", f"{tally.ended:,}"
    yield "Completed", f"{tally.completed:,} ({_share(tally)})"
    yield "Dead", f"{tally.dead:,}"
    yield "Throughput", f"{_rate(found.per_hour)}{_span(found)}"
    yield "Attempts", f"{tally.attempts:,}, {render.count(tally.retried, 'job')} needed more than one"
    for name, one in (("Waiting", tally.waiting), ("Running", tally.running)):
        parts = (f"p{n} {render.span(getattr(one, f'p{n}'))}" for n in (50, 90, 99))
        yield name, f"{', '.join(parts)}, max {render.span(one.longest)}"


def _draw(found: Stats) -> None:
    """Print the numbers and three plots on a terminal."""
    title = f"Jobs that ended since {time.strftime('%Y-%m-%d %H:%M', time.localtime(found.since))}"
    facts = [pair for pair in _facts(found) if pair[0] not in {"Since", "Waiting", "Running"}]
    render.table(title, ("", "Jobs"), facts)
    tally = found.all
    rows = [
        (
            name,
            *(render.span(getattr(one, what)) for what in ("p50", "p90", "p99", "longest")),
            render.span(one.mean),
        )
        for name, one in (("Waiting", tally.waiting), ("Running", tally.running))
    ]
    render.table("How long", ("", "p50", "p90", "p99", "Max", "Mean"), rows)
    _plot("Ended", list(_over_time(found)))
    _plot("Waiting", list(_histogram(tally.waiting)))
    _plot("Running", list(_histogram(tally.running)))


def _over_time(found: Stats) -> Iterator[tuple[str, int, str]]:
    """The jobs in each of a few equal intervals, which start at a full hour or day of the local time."""
    first, last = found.steps[0][0], found.steps[-1][0]
    size = next((step for step in _STEPS if (last - first) / step < _MAX_BARS), _STEPS[-1])
    zone = time.localtime(first).tm_gmtoff
    begin = first - (first + zone) % size
    bins: dict[int, list[int]] = {at: [0, 0] for at in range(begin, last + 1, size)}
    for at, completed, dead in found.steps:
        one = bins[at - (at - begin) % size]
        one[0] += completed
        one[1] += dead
    shape = "%m-%d %H:%M" if size < 86400 else "%Y-%m-%d"
    for at, (completed, dead) in bins.items():
        label = time.strftime(shape, time.localtime(at))
        ended = completed + dead
        text = f"{ended:,}" if ended else ""
        yield label, ended, text + (f", {dead:,} dead" if dead else "")


def _histogram(one: Times) -> Iterator[tuple[str, int, str]]:
    """The intervals from the first to the last that contains jobs."""
    filled = [number for number, jobs in enumerate(one.steps) if jobs]
    for number in range(filled[0], filled[-1] + 1) if filled else ():
        jobs = one.steps[number]
        label = f"< {render.span(BOUNDS[number])}" if number < len(BOUNDS) else f"> {render.span(BOUNDS[-1])}"
        yield label.replace(".0s", "s"), jobs, f"{_percent(jobs, one.count)}%" if jobs else ""


def _plot(title: str, bars: list[tuple[str, int, str]]) -> None:
    if not bars:
        return
    from rich.text import Text

    console = render.console()
    label = max(len(name) for name, _, _ in bars)
    most = max(number for _, number, _ in bars)
    room = max(8, min(_BAR_WIDTH, console.width - label - max(len(text) for _, _, text in bars) - 6))
    console.print(Text(title, style="bold"))
    for name, number, text in bars:
        drawn = _bar(number * room * 8 // most if number else 0, least=number > 0)
        line = Text(f"  {name:>{label}} ")
        line.append(drawn, style="cyan")
        line.append(f" {text}")
        console.print(line)
    console.print()


def _bar(eighths: int, *, least: bool) -> str:
    eighths = max(eighths, int(least))
    return "█" * (eighths // 8) + (_EIGHTHS[eighths % 8 - 1] if eighths % 8 else "")


def _groups(found: Stats, by: str) -> None:
    heads = (by.capitalize(), "Ended", "Success", "Dead", "Waited p50", "Ran p50", "p99")
    rows = [
        (
            "-" if key is None else render.visible(key),
            f"{tally.ended:,}",
            _share(tally),
            f"{tally.dead:,}",
            render.span(tally.waiting.p50),
            render.span(tally.running.p50),
            render.span(tally.running.p99),
        )
        for key, tally in _sorted(found, by)
    ]
    if render.is_terminal():
        render.table(f"By {by}", heads, rows, cut=heads[:1])
        return
    render.line()
    for key, ended, share, dead, wait, run, _ in rows:
        render.line(f"{key} - {ended} ended - {share} - {dead} dead - waited {wait} - ran {run}")
