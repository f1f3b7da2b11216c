"""`queuectl dlq show` and `edit`: one dead job, why it is dead, and its file to be mended."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

from queuectl.cli import options as takes
from queuectl.cli import render
from queuectl.cli.base import Session, command
from queuectl.cli.commands.show import print_fields, runs
from queuectl.errors import InvalidJob, MoveError
from queuectl.job import record as jobs
from queuectl.job import redact
from queuectl.job.fault import find_fault
from queuectl.system import safe_open

if TYPE_CHECKING:
    from collections.abc import Iterator

    from queuectl.api.spool import Spool
    from queuectl.job.fault import Fault
    from queuectl.job.record import Job

LINES = 20
"""Lines of each stream that are shown unless --lines says otherwise."""

_STREAMS = {"out": "Output", "err": "Errors"}


@command(
    "show",
    paged=True,
    examples="""
    queuectl dlq show job1
    queuectl dlq show job1 --lines 100
    queuectl dlq show broken                  a file that is no job: the line and column that is wrong
    queuectl dlq show job1 --json | jq .history
    """,
)
@takes.job_argument("dead")
@click.option(
    "--lines",
    "-n",
    metavar="N",
    callback=takes.between(0, 10**6),
    help=f"How many lines of its output. Default: {LINES}.",
)
@click.pass_obj
def show_command(session: Session, job_id: str, lines: int | None) -> None:
    """Show why a job is dead: the reason, every run, the last lines that it wrote, and what to do about it.

    Of a file that is no job it shows the line that is wrong.
    """
    spool = session.spool
    job = dead(spool, job_id)
    path = spool.file_of(job_id)
    wrong = None if job.command else _fault(path)
    ends = _ends(spool, job, LINES if lines is None else lines)
    if session.json:
        record = redact.masked(job.to_dict(), jobs.KNOWN)
        fault = wrong and {"reason": wrong.reason, "at": wrong.at, "text": wrong.text}
        render.json_value({**record, "file": path, "age": _age(job, path), "fault": fault, "ends": ends})
        return
    print_fields(f"Dead: {render.visible(job.id or job_id)}", _rows(job, path, wrong, ends))
    for advice in _advice(job, wrong):
        render.note(f"hint: {advice}")


def dead(spool: Spool, job_id: str) -> Job:
    """A dead job.

    Raises:
        JobNotFound, MoveError: there is none, or it is not dead.
    """
    job = spool.get(job_id)
    if job.state != "dead":
        raise MoveError(f"job {job_id!r} is {job.state}, and not a dead one", hint=f"queuectl show {job_id}")
    return job


def _fault(path: str) -> Fault | None:
    try:
        return find_fault(safe_open.read_regular(path, jobs.READ_LIMIT)[0])
    except (safe_open.NotReadable, OSError):
        return None


def _age(job: Job, path: str) -> float | None:
    died = job.finished_at or job.updated_at
    with suppress(OSError):
        died = died or os.lstat(path).st_ctime
    return None if died is None else max(0.0, round(time.time() - died, 3))


def _ends(spool: Spool, job: Job, lines: int) -> dict[str, str]:
    """The last lines of what the last run wrote, by stream; where the logs are gone, what the job's file keeps."""
    found = {stream: spool.last_output(job.id or "", lines, stream=stream) for stream in _STREAMS}
    if any(found.values()) or not job.output or not lines:
        return {stream: text for stream, text in found.items() if text}
    return {"out": "\n".join(job.output.splitlines()[-lines:])}


def _rows(job: Job, path: str, wrong: Fault | None, ends: dict[str, str]) -> Iterator[tuple[str, str]]:
    age = _age(job, path)
    yield "ID", job.id or ""
    yield "Reason", job.last_error or ""
    yield "Dead For", "" if age is None else render.ago(age)
    yield "Command", job.shown_command
    yield "Tags", " ".join(job.tags or ())
    if job.command:
        yield (
            "Attempts",
            f"{job.attempts}/{job.runs_allowed}" if job.max_retries is not None else str(job.attempts),
        )
    yield "Directory", job.cwd or ""
    yield "File", path
    if wrong is not None:
        at = f" (line {wrong.at[0]}, column {wrong.at[1]})" if wrong.at else ""
        yield "Wrong", "\n".join([f"{wrong.reason}{at}", *wrong.marked_line()])
    yield from runs(job)
    for stream, text in ends.items():
        yield _STREAMS[stream], text.rstrip("\n")


def _advice(job: Job, wrong: Fault | None) -> Iterator[str]:
    """What may be typed next."""
    if wrong is not None:
        yield f"queuectl dlq edit {job.id}, then queuectl dlq retry {job.id}"
    elif (job.last_error or "").startswith("duplicate id"):
        yield f"give it another id with queuectl dlq edit {job.id}"
    elif not job.command:
        yield f"queuectl dlq retry {job.id}, once what it says is put right"
    elif (job.last_error or "").startswith("Timeout"):
        yield f"queuectl dlq retry {job.id} --timeout 10m"
    else:
        yield f"queuectl dlq retry {job.id}; with another command or field: queuectl dlq edit {job.id}"


@command(
    "edit",
    examples="""
    queuectl dlq edit job1
    queuectl dlq edit job1 --retry            and send it back at once
    EDITOR="sed -i s/prod/test/" queuectl dlq edit job1
    """,
)
@takes.job_argument("dead")
@click.option("--retry", is_flag=True, help="Send it back to pending as well.")
@click.pass_obj
def edit_command(session: Session, job_id: str, retry: bool) -> None:
    """Open the file of a dead job in $VISUAL or $EDITOR.

    What you save lands only if it is a job; if not, you are told the line and the column, and asked whether to go
    on. The job stays dead, with its history, until it is retried.
    """
    from queuectl.cli.editor import edited

    spool = session.spool
    dead(spool, job_id)
    path = spool.file_of(job_id)
    try:
        before = safe_open.read_regular(path, jobs.READ_LIMIT)[0]
    except safe_open.NotReadable as error:
        raise InvalidJob(f"{error}: it cannot be edited") from None
    job = edited(before, job_id, lambda after: spool.amend(job_id, before, after))
    changed_id = job_id if job is None else job.id or job_id
    if retry:
        spool.retry(changed_id)
    told: dict[str, Any] = {
        "id": changed_id,
        "changed": job is not None,
        "state": "pending" if retry else "dead",
    }
    if session.json:
        render.json_value(told)
        return
    render.line(f"{changed_id}: {'changed' if job is not None else 'nothing changed'}")
    if retry:
        render.line(f"requeued job {changed_id}")
    elif job is not None:
        render.note(f"hint: queuectl dlq retry {changed_id}")
