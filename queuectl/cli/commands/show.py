"""`queuectl show`: show everything about a job."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

from queuectl.api import dependencies, json_view, listing, places
from queuectl.cli import options, render, typed_ids
from queuectl.cli.base import Session, command
from queuectl.errors import ConfigError, JobNotFound
from queuectl.job import redact, times
from queuectl.job.fields import WAITING
from queuectl.job.outcome import is_suspect

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from queuectl.api.spool import Spool
    from queuectl.job.record import Job


@command(
    "show",
    paged=True,
    examples="""
    queuectl show job1
    queuectl show job1 --json | jq .history
    queuectl show load --tree                 for which jobs it waits, and which wait for it
    """,
)
@options.job_argument()
@click.option("--tree", is_flag=True, help="Show the jobs for which it waits, and those that wait for it.")
@click.pass_obj
def show_command(session: Session, job_id: str, tree: bool) -> None:
    """Show every field of a job, its times, its attempts, and the end of its output.

    Times are in your time zone; --json prints the fields under the names of the job's file, in UTC: `queuectl schema
    --record` describes them. The value of a variable whose
    name looks secret, such as API_TOKEN, is shown as ***; the job's file has the real value.

    --tree shows two trees: the jobs that this one names in `after` and the like, with those that these name, and so on; and
    the jobs that name this one, except for completed ones. Of very many the first are shown, and the others counted.
    """
    job_id = typed_ids.to_show(session, job_id)
    if tree:
        from queuectl.cli.job_tree import show_tree

        show_tree(session, job_id)
        return
    job = session.spool.get(job_id)
    if session.json:
        more = dependencies.as_json(dependencies.waits_for(session.spool, job))
        more |= json_view.place(places.Places(session.spool).of_job(job))
        render.json_value(json_view.record(job, json_view.effective(session.spool, job)) | more)
        return
    title = f"Job Details: {render.visible(job.id or job_id)}"
    repeated = _repeated(job) if render.is_terminal() else set()
    effective, waits_for = _effective(session.spool, job), _waits_for(session.spool, job)
    queue = _queue(session.spool, job)
    engine = places.place(session.spool, job)
    fields = (*_fields(job, effective, waits_for, queue, engine), *_parents(session.spool, job))
    print_fields(title, (field for field in fields if field[0] not in repeated))


def _repeated(job: Job) -> set[str]:
    """The fields that say no more than others do. Without them a job that ended well fits on a terminal of 24 lines."""
    from queuectl.config.settings import Settings

    found = set()
    if job.max_backoff == Settings().max_backoff:
        found.add("Max Backoff")
    if job.state == "completed" and times.local(job.updated_at or 0) == times.local(job.finished_at or 0):
        found.add("Updated")
    if job.state == "completed" and job.runs == 1 and job.exit_code == 0:
        found.add("Run 1")
    return found.difference(job.extra)


def _waits_for(spool: Spool, job: Job) -> str:
    """The running job whose unique key keeps this job from starting."""
    others = spool.running_with(job.unique) if job.unique and job.state in WAITING else []
    return f", waits for {others[0]}" if others else ""


def _queue(spool: Spool, job: Job) -> str:
    """Why the limits of its queue, or a pause, keep a job from starting."""
    if job.state not in WAITING:
        return ""
    from queuectl.api import queues

    with suppress(JobNotFound, ConfigError):
        row = listing.one(spool, job.id or "")
        if row.ready_key is not None:
            return "".join(f", {why}" for why in queues.closed_lanes(spool, {row.lane}).values())
    return ""


def _kept_back(spool: Spool, job: Job) -> str:
    """What keeps this job and others from starting, such as a pause, or that no worker runs."""
    if job.state not in WAITING:
        return ""
    from queuectl.api import why_waiting

    with suppress(JobNotFound):
        return "; ".join(why_waiting.of_spool(spool, listing.one(spool, job.id or "")))
    return ""


def _parents(spool: Spool, job: Job) -> Iterator[tuple[str, str]]:
    """What a job has to wait for, and what it still waits for."""
    for name, parents in (
        ("After", job.after),
        ("After Any", job.after_any),
        ("After Failure", job.after_failure),
    ):
        shown = (parents or [])[: dependencies.SHOWN]
        more = len(parents or ()) - len(shown)
        yield name, ", ".join(shown) + (f" and {more} more" if more else "")
    yield "Batch", job.batch or ""
    yield "Rule", job.rule or ""
    yield "Scheduled For", job.scheduled_for or ""
    yield "Event", job.event or ""
    yield "About", job.about or ""
    yield "Source", job.source or ""
    waiting = dependencies.waits_for(spool, job)
    more = len(waiting) - dependencies.SHOWN
    shown_waiting = ", ".join(map(str, waiting[: dependencies.SHOWN]))
    yield "Waits For", shown_waiting + (f" and {more} more" if more > 0 else "")
    yield "Kept Back", _kept_back(spool, job)
    yield "Not Run", job.not_run or ""


def _effective(spool: Spool, job: Job) -> str:
    """The effective priority of a job that has waited."""
    if job.state not in WAITING:
        return ""
    now = round(time.time() * 1e6)
    with suppress(JobNotFound):
        row = listing.one(spool, job.id or "")
        waited = row.waited(now)
        if waited:
            return f", {row.effective(now):.1f} by waiting for {render.ago(waited / 1e6)}"
    return ""


def print_fields(title: str, fields: Iterable[tuple[str, str]]) -> None:
    """Print names and values, as a table on a terminal. Empty values are left out."""
    rows = [(name, value) for name, value in fields if value != ""]
    if render.is_terminal():
        render.table(title, ("Field", "Value"), [(name, value.rstrip("\n")) for name, value in rows])
        return
    width = max(len(name) for name, _ in rows) + 2
    render.line(f"{'Field':<{width}}Value")
    for name, value in rows:
        first, *more = render.visible_lines(value).rstrip("\n").split("\n")
        render.line(f"{name:<{width}}{first}")
        for text in more:
            render.line(" " * width + text)


def _fields(job: Job, effective: str, waits_for: str, queue: str, engine: str) -> Iterator[tuple[str, str]]:
    """The fields for people: what was asked for, what happened, the runs, the output."""
    yield "ID", job.id or ""
    yield "Command", job.shown_command
    yield "State", job.state
    yield "Priority", _text(job.priority) + effective
    yield "Timeout", _span(job.timeout, none="none")
    yield "Max Retries", _text(job.max_retries)
    yield "Backoff Base", _text(job.backoff_base)
    yield "Max Backoff", _span(job.max_backoff, none="0s")
    yield "Jitter", _text(job.jitter)
    yield "Retry On", _codes(job.retry_on)
    yield "Give Up On", _codes(job.give_up_on)
    yield "Attempts", attempts(job)
    yield "Directory", job.cwd or ""
    yield (
        "Environment",
        "\n".join(f"{name}={value}" for name, value in redact.masked_env(job.env or {}).items()),
    )
    yield "Tags", " ".join(job.tags or ())
    yield "Queue", f"{job.queue or ''}{queue}".removeprefix(", ")
    yield "Needs", " ".join(f"{name}={number}" for name, number in sorted((job.needs or {}).items()))
    yield "Unique", f"{job.unique} ({job.if_exists or 'skip'}){waits_for}" if job.unique else ""
    yield "Held", "until it is released" if job.hold else ""
    yield "Run At", _ahead(job.run_at)
    yield "Expires At", _ahead(job.expires_at)
    yield "Next Retry", _ahead(job.next_retry_at)
    yield "Exec Time", "" if job.duration is None else f"{job.duration:.3f}s"
    yield "Created", _moment(job.created_at)
    yield "Updated", _moment(job.updated_at)
    yield "Started", _moment(job.started_at)
    yield "Finished", _moment(job.finished_at)
    yield "Worker", job.worker or ""
    yield "Engine", engine
    yield "Exit Code", _text(job.exit_code)
    yield "Last Error", job.last_error or ""
    yield "Interrupted", _interrupted(job)
    for name, value in redact.masked(job.extra).items():
        yield name, value if isinstance(value, str) else render.json_text(value, indent=None)
    yield from runs(job)
    yield "Output", job.output or ""


def _interrupted(job: Job) -> str:
    """How often its worker died, and what follows for its next start: slots stay free although it waits."""
    if not job.crashes:
        return ""
    apart = ", so it starts apart from other jobs" if is_suspect(job) and job.state in WAITING else ""
    return f"{job.crashes} in a row{apart}"


def attempts(job: Job) -> str:
    """The attempts made, with the one under way, and how many are allowed: 1/3."""
    made = render.attempts(job)
    return f"{made}/{job.runs_allowed}" if job.max_retries is not None else str(made)


def runs(job: Job) -> Iterator[tuple[str, str]]:
    """One line for each run in the history."""
    before = 0
    for number, entry in job.numbered_history():
        if number > before + 1:
            yield f"Runs {before + 1} to {number - 1}", "not shown; their logs are kept"
        before = number
        yield f"Run {_text(entry.get('run', number))}", _run_text(entry)


def _run_text(entry: dict[str, Any]) -> str:
    """One entry of the history as a line. Anybody may have edited the file, so any field may be missing or odd."""
    parts = [_text(entry.get("outcome")) or "ended"]
    if entry.get("attempt") is not None:
        parts.append(f"attempt {_text(entry['attempt'])}")
    if entry.get("exit_code") is not None:
        parts.append(f"exit code {_text(entry['exit_code'])}")
    if isinstance(entry.get("duration"), int | float):
        parts.append(f"{entry['duration']:.3f}s")
    if entry.get("worker"):
        parts.append(f"by {_text(entry['worker'])}")
    if entry.get("started_at"):
        parts.append(f"at {_local_time(entry['started_at'])}")
    error = entry.get("error")
    return ", ".join(parts) + (f": {_text(error)}" if error else "")


def _text(value: object) -> str:
    return "" if value is None else str(value)


def _codes(codes: list[int] | None) -> str:
    return "" if codes is None else " ".join(map(str, codes)) or "none"


def _span(seconds: float | None, *, none: str) -> str:
    if seconds is None:
        return ""
    return f"{times.seconds(seconds)}s" if seconds else none


def _moment(moment: float | None) -> str:
    return "" if moment is None else times.local(moment)


def _ahead(moment: float | None) -> str:
    """A moment that somebody may have meant in another zone, so with its zone; and how far away it is."""
    if moment is None:
        return ""
    ahead = moment - time.time()
    return times.with_zone(moment) + (f" (in {render.ago(ahead)})" if ahead > 1 else "")


def _local_time(value: object) -> str:
    try:
        return times.local(times.parse_moment(value))
    except ValueError:
        return _text(value)
