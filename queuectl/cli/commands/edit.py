"""`queuectl edit`: a waiting job in the person's own editor."""

from __future__ import annotations

import click
import orjson

from queuectl.cli import options as takes
from queuectl.cli import render
from queuectl.cli.base import Session, command
from queuectl.cli.commands.check import remarks
from queuectl.cli.editor import edited
from queuectl.errors import InvalidJob, MoveError
from queuectl.job import record as jobs
from queuectl.job import strict_json
from queuectl.job.fields import WAITING
from queuectl.storage import edit_pending
from queuectl.system import safe_open


@command(
    "edit",
    examples="""
    queuectl edit job1
    EDITOR="sed -i s/prod/test/" queuectl edit job1
    """,
)
@takes.job_argument(*WAITING)
@click.pass_obj
def edit_command(session: Session, job_id: str) -> None:
    """Open a waiting job in $VISUAL or $EDITOR.

    You see the fields that a producer may write; a line that you delete is decided by the settings. What you save lands
    only if it is a job, and all at once; if not, you are told the line and the column, and asked whether to go on. If
    a worker has taken the job meanwhile, or somebody else has changed it, nothing is changed, and your text is kept.
    """
    spool = session.spool
    job = spool.get(job_id)
    if job.state not in WAITING:
        hints = {"dead": f"queuectl dlq edit {job_id}", "processing": f"queuectl cancel {job_id}"}
        hint = hints.get(job.state, f"queuectl show {job_id}")
        raise MoveError(f"job {job_id!r} is {job.state} and cannot be edited", hint=hint)
    try:
        before = safe_open.read_regular(spool.file_of(job_id), jobs.READ_LIMIT)[0]
    except (safe_open.NotReadable, FileNotFoundError):
        raise edit_pending.just_changed(job_id) from None
    record = job.to_dict()
    theirs = {name: value for name, value in record.items() if _is_theirs(name)}
    ours = {name: value for name, value in record.items() if not _is_theirs(name)}

    def land(text: bytes) -> jobs.Job:
        wanted = strict_json.load_object(text)
        for name in wanted:
            if not _is_theirs(name):
                raise InvalidJob("is written by queuectl, and cannot be changed", field=name)
        return spool.amend(job_id, before, orjson.dumps({**ours, **wanted}))

    landed = edited(orjson.dumps(theirs, option=strict_json.FORMAT), job_id, land)
    if session.json:
        render.json_value({"id": job_id, "changed": landed is not None})
    else:
        render.line(f"{job_id}: {'changed' if landed is not None else 'nothing changed'}")
        for _, text in remarks(landed.extra if landed is not None else {}):
            render.note(f"note: {text}")


def _is_theirs(name: str) -> bool:
    """Whether a field is a producer's, or a tool's own."""
    return name in jobs.PRODUCER_FIELDS or name not in jobs.KNOWN
