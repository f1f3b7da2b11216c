"""`queuectl dlq`: list, show, edit, retry and delete dead jobs."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

from queuectl.api import json_view, listing
from queuectl.cli import options, render, typed_ids
from queuectl.cli.base import Group, Session, Usage, command
from queuectl.cli.commands.clear import delete
from queuectl.cli.commands.retry import change_options, retry
from queuectl.cli.selection import BulkAction, downstream_option, dry_run_option, filter_options
from queuectl.errors import InvalidJob, MoveError
from queuectl.job.fault_location import find_fault
from queuectl.job.record import KNOWN, READ_LIMIT
from queuectl.system import safe_open

if TYPE_CHECKING:
    from collections.abc import Iterator

    from queuectl.api.spool import Spool
    from queuectl.index.filter import Filter
    from queuectl.job.fault_location import Fault
    from queuectl.job.record import Job

OUTPUT_LINES = 20
"""Lines of each stream that `dlq show` prints unless --lines is given."""

_STREAMS = {"out": "Output", "err": "Errors"}

dlq_command = Group(
    name="dlq",
    short_help="The dead letter queue: list, show, edit, retry, clear.",
    help="""The dead letter queue holds the jobs that are no longer tried, each with the reason.

    A job goes there when it has failed as often as max_retries allows, when its worker died several times in a row
    while running it, or when its file is not a valid job. It stays until you retry or delete it, or until the setting
    keep_dead deletes it.""",
    examples="""
    queuectl dlq list
    queuectl dlq show job1                    why it is dead, its output, and what to do
    queuectl dlq edit job1                    change or fix its file
    queuectl dlq retry job1 --timeout 60
    queuectl dlq retry --tag import --since 2h
    queuectl dlq clear
    """,
    other_words={
        "ls": "list",
        "requeue": "retry",
        "replay": "retry",
        "rm": "queuectl remove JOB",
        "remove": "queuectl remove JOB",
        "delete": "queuectl remove JOB",
        "del": "queuectl remove JOB",
        "discard": "queuectl remove JOB",
        "drop": "queuectl remove JOB",
        "purge": "queuectl purge",
        "count": "queuectl status",
        "status": "queuectl status",
        "stats": "queuectl stats",
        "logs": "queuectl logs JOB",
        "rerun": "retry",
        "run": "retry",
        "recover": "retry",
        "restore": "retry",
        "empty": "clear",
        "cat": "show",
        "get": "show",
        "inspect": "show",
        "peek": "list",
    },
    sections={
        "Commands": {
            "list": ("dlq", "List the dead jobs, with the reasons."),
            "show": ("dlq", "Show why a job is dead, its runs, and the end of its output."),
            "edit": ("dlq", "Change or fix the file of a dead job in your editor."),
            "retry": ("dlq", "Send dead jobs back to pending."),
            "clear": ("dlq", "Delete dead jobs."),
        }
    },
)


@command(
    "list",
    paged=True,
    examples="""
    queuectl dlq list
    queuectl dlq list --since 1d --exit-code 75 --sort -updated
    queuectl dlq list --json | jq -r '.[] | .id + ": " + .last_error'
    """,
)
@filter_options(sort=True)
@click.pass_obj
def list_command(session: Session, where: Filter) -> None:
    """List the dead jobs, one on each line: ID - COMMAND - ATTEMPTS - LAST ERROR. A terminal also shows their age."""
    spool = session.spool
    rows = listing.select(spool, where=_only_dead(where))
    if session.json:
        render.json_array(json_view.of_rows(spool, rows, ("dead",)))
    elif not rows:
        filtered = where.without_limit != type(where)(states=where.states, sort=where.sort)
        render.note("no dead jobs match" if filtered else "the dead letter queue is empty")
    elif render.is_terminal():
        now = time.time()
        heads = ("Job ID", "Command", "Attempts", "Age", "Last Error")
        cells = (
            (
                row.id,
                render.visible(row.command),
                render.tries(row),
                render.ago(now - (row.updated_at or row.arrived) / 1e6),
                render.visible(row.last_error or ""),
            )
            for row in rows
        )
        render.table("Dead Letter Queue (DLQ)", heads, cells, cut=("Command",))
    else:
        for row in rows:
            text, error = json_view.full_texts(spool, row)
            render.line(f"{row.id} - {text or '(no job)'} - {row.attempts} - {error or ''}")


def _only_dead(where: Filter) -> Filter:
    """The same filter, for dead jobs only.

    Raises:
        Usage: it asks for another state.
    """
    if set(where.states) - {"dead"}:
        raise Usage("the dead letter queue has dead jobs only", hint="queuectl list --help")
    return where.of_states("dead")


@command(
    "show",
    paged=True,
    examples="""
    queuectl dlq show job1
    queuectl dlq show job1 --lines 100
    queuectl dlq show broken                  a file that is not a valid job: show the error
    queuectl dlq show job1 --json | jq .history
    """,
)
@options.job_argument("dead")
@options.lines_option(f"How many lines of its output to show. Default: {OUTPUT_LINES}.", 10**6)
@click.pass_obj
def show_command(session: Session, job_id: str, lines: int | None) -> None:
    """Show why a job is dead: the reason, every run, the last lines of its output, and what to do next.

    If its file is not a valid job, the line with the error is shown.
    """
    from queuectl.cli.commands.show import print_fields
    from queuectl.job import redact

    spool = session.spool
    job_id = typed_ids.to_show(session, job_id)
    job = _dead_job(spool, job_id)
    path = spool.file_of(job_id)
    fault = None if job.command else _fault(path)
    ends = _output_ends(spool, job, OUTPUT_LINES if lines is None else lines)
    if session.json:
        record = redact.masked(job.to_dict(), KNOWN)
        wrong = fault and {"reason": fault.reason, "at": fault.at, "text": fault.text}
        render.json_value({**record, "file": path, "age": _age(job, path), "fault": wrong, "ends": ends})
        return
    print_fields(f"Dead: {render.visible(job.id or job_id)}", _fields(job, path, fault, ends))
    render.note(f"hint: {_advice(job, fault)}")


def _dead_job(spool: Spool, job_id: str) -> Job:
    """Return a dead job.

    Raises:
        JobNotFound: no job has this id.
        MoveError: the job is not dead.
    """
    job = spool.get(job_id)
    if job.state != "dead":
        raise MoveError(f"job {job_id!r} is {job.state}, not dead", hint=f"queuectl show {job_id}")
    return job


def _fault(path: str) -> Fault | None:
    try:
        return find_fault(safe_open.read_regular(path, READ_LIMIT)[0])
    except (safe_open.NotReadable, OSError):
        return None


def _age(job: Job, path: str) -> float | None:
    """Seconds since the job became dead."""
    died = job.finished_at or job.updated_at
    with suppress(OSError):
        died = died or os.lstat(path).st_ctime
    return None if died is None else max(0.0, round(time.time() - died, 3))


def _output_ends(spool: Spool, job: Job, lines: int) -> dict[str, str]:
    """The last lines of each stream of the last run. If the logs were deleted: of the output in the job's file."""
    found = {stream: spool.last_output(job.id or "", lines, stream=stream) for stream in _STREAMS}
    if any(found.values()) or not job.output or not lines:
        return {stream: text for stream, text in found.items() if text}
    return {"out": "\n".join(job.output.splitlines()[-lines:])}


def _fields(job: Job, path: str, fault: Fault | None, ends: dict[str, str]) -> Iterator[tuple[str, str]]:
    from queuectl.cli.commands.show import attempts, runs

    age = _age(job, path)
    yield "ID", job.id or ""
    yield "Reason", job.last_error or ""
    yield "Dead For", "" if age is None else render.ago(age)
    yield "Command", job.shown_command
    yield "Tags", " ".join(job.tags or ())
    if job.command:
        yield "Attempts", attempts(job)
    yield "Directory", job.cwd or ""
    yield "File", path
    if fault is not None:
        at = f" (line {fault.at[0]}, column {fault.at[1]})" if fault.at else ""
        yield "Wrong", "\n".join([f"{fault.reason}{at}", *fault.marked_line()])
    yield from runs(job)
    for stream, text in ends.items():
        yield _STREAMS[stream], text.rstrip("\n")


def _advice(job: Job, fault: Fault | None) -> str:
    """The command that most likely helps."""
    if fault is not None:
        return f"queuectl dlq edit {job.id}, then queuectl dlq retry {job.id}"
    if (job.last_error or "").startswith("duplicate id"):
        return f"give it another id with queuectl dlq edit {job.id}"
    if not job.command:
        return f"fix what the reason names, then: queuectl dlq retry {job.id}"
    if (job.last_error or "").startswith("Timeout"):
        return f"queuectl dlq retry {job.id} --timeout 10m"
    return f"queuectl dlq retry {job.id}; to change its command or another field first: queuectl dlq edit {job.id}"


@command(
    "edit",
    examples="""
    queuectl dlq edit job1
    queuectl dlq edit job1 --retry            also send it back to pending
    EDITOR="sed -i s/prod/test/" queuectl dlq edit job1
    """,
    changes=True,
)
@options.job_argument("dead")
@click.option("--retry", is_flag=True, help="Send it back to pending after the edit.")
@click.pass_obj
def edit_command(session: Session, job_id: str, retry: bool) -> None:
    """Open the file of a dead job in $VISUAL or $EDITOR.

    Your text is saved only if it is a valid job. If it is not, the line and the column of the error are shown, and
    you can edit again. The job stays dead, with its history, until it is retried.
    """
    from queuectl.cli.editor import edited

    spool = session.spool
    [job_id] = typed_ids.to_change(session, [job_id], "edit")
    _dead_job(spool, job_id)
    path = spool.file_of(job_id)
    try:
        before = safe_open.read_regular(path, READ_LIMIT)[0]
    except safe_open.NotReadable as error:
        raise InvalidJob(f"{error}: it cannot be edited") from None
    job = edited(before, job_id, lambda after: spool.amend(job_id, before, after))
    changed = job is not None
    new_id = job_id if job is None else job.id or job_id
    if retry:
        spool.retry(new_id)
    if session.json:
        state = "pending" if retry else "dead"
        render.json_value({"id": new_id, "changed": changed, "state": state})
        return
    render.line(f"{new_id}: {'changed' if changed else 'nothing changed'}")
    if retry:
        render.line(f"requeued job {new_id}")
    elif changed:
        render.note(f"hint: queuectl dlq retry {new_id}")


@command(
    "retry",
    examples="""
    queuectl dlq retry job1
    queuectl dlq retry job1 job2 --timeout 60
    queuectl dlq retry job1 --set max_retries=5 --set "command=./import.sh --slowly"
    queuectl dlq retry --tag import --exit-code 75 --set priority=9
    queuectl dlq retry --reason Timeout --timeout 10m
    queuectl dlq retry --all --dry-run
    queuectl dlq retry extract --downstream   and the dead jobs that wait for it
    """,
    changes=True,
)
@click.argument("ids", nargs=-1, metavar="[JOB...]", shell_complete=options.complete_ids("dead"))
@filter_options()
@click.option("--all", "everything", is_flag=True, help="All dead jobs.")
@change_options
@downstream_option("Retry as well")
@dry_run_option
@click.pass_obj
def retry_command(
    session: Session,
    ids: tuple[str, ...],
    where: Filter,
    everything: bool,
    changes: dict[str, Any],
    downstream: bool,
    dry_run: bool,
) -> int:
    """Send dead jobs back to pending. Their attempts start again at 0; their history is kept.

    The values of --timeout and --set are written into the job's file. A file that is not a valid job is refused until
    it is fixed; --set can fix a single wrong field. Filters and --all leave out jobs that a person has cancelled or
    given up, and jobs that were replaced by a newer job with the same unique key. Those are retried if you name them, or
    select them with --reason. With several jobs each result is reported; the exit code is 1 if any was refused.

    With --downstream, dead jobs that wait for these are retried too, like those that `if_blocked: dead` has given up. The
    values of --timeout and --set are not for them. A job that is not dead is then passed over, if others are retried.
    """
    action = BulkAction(session, "retry", "retried", ("dead",))
    return retry(
        action,
        session.spool,
        ids,
        where,
        everything=everything,
        changes=changes,
        downstream=downstream,
        dry_run=dry_run,
    )


@command(
    "clear",
    examples="""
    queuectl dlq clear
    queuectl dlq clear --until 30d --dry-run   jobs that have been dead for a month
    queuectl dlq clear --yes                   for scripts: do not ask
    """,
    changes=True,
)
@filter_options()
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@dry_run_option
@click.pass_obj
def clear_command(session: Session, where: Filter, yes: bool, dry_run: bool) -> int:
    """Delete dead jobs permanently, with their output: all, or those that match the filters. Asks first."""
    return delete(session, _only_dead(where), yes=yes, dry_run=dry_run, nothing="Dead letter queue is empty")
