"""`queuectl edit`: edit a waiting job in the user's editor."""

from __future__ import annotations

import click

from queuectl.cli import options, render, typed_ids
from queuectl.cli.base import Session, command
from queuectl.cli.commands.check import remarks
from queuectl.cli.editor import edited
from queuectl.errors import InvalidJob, MoveError
from queuectl.fast_start import fast_json
from queuectl.job import record as jobs
from queuectl.job import strict_json
from queuectl.job.fields import WAITING
from queuectl.storage.rewriting import just_changed
from queuectl.system import safe_open


@command(
    "edit",
    examples="""
    queuectl edit job1
    EDITOR="sed -i s/prod/test/" queuectl edit job1
    """,
    changes=True,
)
@options.job_argument(*WAITING)
@click.pass_obj
def edit_command(session: Session, job_id: str) -> None:
    """Open a waiting job in $VISUAL or $EDITOR.

    The editor shows the fields that you may set; for a field that you delete, the setting of the spool applies. Your
    text is saved only if it is a valid job. If it is not, the line and column of the error are shown, and you can edit
    again. If a worker has taken the job meanwhile, or somebody has changed it, nothing is changed, and the hint says
    where your text is.
    """
    spool = session.spool
    [job_id] = typed_ids.to_change(session, [job_id], "edit")
    job = spool.get(job_id)
    if job.state not in WAITING:
        hints = {"dead": f"queuectl dlq edit {job_id}", "processing": f"queuectl cancel {job_id}"}
        hint = hints.get(job.state, f"queuectl show {job_id}")
        raise MoveError(f"job {job_id!r} is {job.state} and cannot be edited", hint=hint)
    try:
        before = safe_open.read_regular(spool.file_of(job_id), jobs.READ_LIMIT)[0]
    except (safe_open.NotReadable, FileNotFoundError):
        raise just_changed(job_id) from None
    record = job.to_dict()
    editable = {name: value for name, value in record.items() if _is_editable(name)}
    internal = {name: value for name, value in record.items() if not _is_editable(name)}

    def save(text: bytes) -> jobs.Job:
        wanted = strict_json.load_object(text)
        for name in wanted:
            if not _is_editable(name):
                raise InvalidJob("is written by queuectl and cannot be changed", field=name)
        return spool.amend(job_id, before, fast_json.dumps({**internal, **wanted}))

    saved = edited(
        fast_json.dumps(editable, option=fast_json.OPT_INDENT_2 | fast_json.OPT_APPEND_NEWLINE), job_id, save
    )
    if session.json:
        render.json_value({"id": job_id, "changed": saved is not None})
    else:
        render.line(f"{job_id}: {'changed' if saved is not None else 'nothing changed'}")
        for _, text in remarks(saved.extra if saved is not None else {}):
            render.note(f"note: {text}")


def _is_editable(name: str) -> bool:
    """Whether a field may be set by people and programs: all except those that queuectl writes."""
    return name in jobs.PRODUCER_FIELDS or name not in jobs.KNOWN
