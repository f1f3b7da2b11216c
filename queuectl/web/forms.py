"""New jobs, and changes of jobs that are there: forms that are checked by the rules of job files, field by field."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse, Response

from queuectl.errors import DuplicateId, InvalidJob, JobError, MoveError, QueuectlError
from queuectl.job import changes, schema
from queuectl.job.record import READ_LIMIT
from queuectl.job.redact import MASK, is_secret, masked_env
from queuectl.system import safe_open
from queuectl.web.call import Refused, job_id_of, refuse_reader
from queuectl.web.query import once
from queuectl.web.site import status_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from queuectl.api.spool import Spool
    from queuectl.job.record import Job
    from queuectl.web.call import Call

FIRST = ("command", "id", "priority", "tags", "queue", "run_at", "timeout", "max_retries")
"""Fields that most jobs need; the form shows all others when they are asked for."""

FIELDS = (
    *FIRST,
    *(name for name in changes.CHANGEABLE if name not in {*FIRST, "hold", "env"}),
    "env",
)
COMMANDS = frozenset({"command", "cwd", "env"})
"""Fields that decide which program runs: not with --no-enqueue."""

_LARGE = frozenset({"command", "env", "needs"})


def described(name: str) -> str:
    """Return what a field means, as the schema of job files says."""
    return str(schema._FIELDS[name][0])


def form_page(
    call: Call,
    template: str,
    typed: Mapping[str, str],
    faults: Mapping[str, str],
    status: int = 200,
    **more: Any,
) -> Response:
    """Show a form with what was typed, and with each message beside its field."""
    names = [name for name in FIELDS if name != "id" or template == "new.html"]
    if not call.site.may_enqueue:
        names = [name for name in names if name not in COMMANDS]
    first = [name for name in names if name in FIRST]
    return call.page(
        template, status, first=first, rest=[name for name in names if name not in FIRST],
        typed={name: typed.get(name, "") for name in names}, faults=dict(faults), help={name: described(name) for name in names},
        large=_LARGE, **more,
    )  # fmt: skip


def new(call: Call) -> Response:
    """The form for a new job."""
    refuse_reader(call.user)
    once(call.pairs, ())
    return form_page(call, "new.html", {}, {})


def read_form(call: Call, allowed: frozenset[str] | None = None) -> dict[str, str]:
    """Return what was typed into the fields of a job.

    Raises:
        Refused: a field is none, or must not be changed here.
    """
    typed = call.fields()
    for name in typed:
        if name not in (allowed or FIELDS):
            raise Refused(400, f"a job has no field {name[:40]!r}")
    return typed


def values(typed: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, str]]:
    """Read the fields that are not empty; return their values, and what is wrong with each of the others."""
    found: dict[str, Any] = {}
    faults: dict[str, str] = {}
    for name, text in typed.items():
        if not text.strip():
            continue
        if name == "id":
            found["id"] = text.strip()
            continue
        try:
            if name == "env":
                found["env"] = read_env(text)
            else:
                found |= changes.read_changes([f"{name}={text}"])
        except (ValueError, QueuectlError) as error:
            faults[name] = str(error).removeprefix(f"{name}: ")
    return found, faults


def read_env(text: str) -> dict[str, str]:
    """Read variables, one NAME=VALUE a line.

    Raises:
        ValueError: a line is none.
    """
    found = {}
    for line in text.splitlines():
        if not line.strip():
            continue
        name, equals, value = line.partition("=")
        if not equals or not name.strip():
            raise ValueError(f"{line[:40]!r} is not NAME=VALUE")
        found[name.strip()] = value
    return found


def check(call: Call) -> Response:
    """Say whether fields are right, as /new would: for the page's script."""
    typed = read_form(call)
    found, faults = values(typed)
    if not faults:
        try:
            with call.site.spool() as spool:
                spool.check({"command": "true", **found})
        except InvalidJob as error:
            faults[_field_of(error)] = error.reason
        except QueuectlError as error:
            faults["queue"] = str(error)
    if not faults:
        return JSONResponse({"ok": True, "field": None, "message": None})
    name = next(iter(faults))
    return JSONResponse({"ok": False, "field": name, "message": faults[name]})


def _field_of(error: InvalidJob) -> str:
    """Return the field beside which the message of an error stands."""
    return error.field if error.field in FIELDS else "command"


def create(call: Call) -> Response:
    """Queue a new job."""
    typed = read_form(call)
    found, faults = values(typed)
    if not typed.get("command", "").strip():
        faults["command"] = "a job needs a command"
    problem, status = None, 422
    if not faults:
        try:
            with call.site.spool() as spool:
                job = spool.enqueue(found)
        except DuplicateId as error:
            faults["id"] = f"{error}; without an id it gets one of its own"
            status = 409
        except InvalidJob as error:
            faults[_field_of(error)] = error.reason
        except (JobError, QueuectlError) as error:
            problem, status = str(error), status_of(error)
        else:
            call.note(f"new {job.id}{' (not queued)' if job.skipped else ''}")
            return call.go(f"/job/{job.id}", f"said={'skipped' if job.skipped else 'queued'}&about={job.id}")
    return form_page(call, "new.html", typed, faults, status, problem=problem)


def _content(spool: Spool, job_id: str) -> bytes:
    try:
        return safe_open.read_regular(spool.file_of(job_id), READ_LIMIT)[0]
    except (safe_open.NotReadable, OSError) as error:
        raise MoveError(f"the file of job {job_id!r} cannot be read: {error}") from None


def _mark(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def as_typed(job: Job) -> dict[str, str]:
    """Return the fields of a job as they are typed; secrets masked."""
    from queuectl import fast_json

    record = job.to_dict()
    found = {}
    for name in FIELDS:
        value = record.get(name)
        if value is None:
            continue
        if name == "env" and isinstance(value, dict):
            found[name] = "\n".join(f"{key}={text}" for key, text in masked_env(value).items())
        elif name == "needs" and isinstance(value, dict):
            found[name] = " ".join(f"{key}={number}" for key, number in value.items())
        elif name == "command" and isinstance(value, list):
            found[name] = fast_json.dumps(value).decode()
        elif isinstance(value, list):
            found[name] = " ".join(map(str, value))
        else:
            found[name] = str(value)
    return found


def edit(call: Call) -> Response:
    """The form with which a waiting or a dead job is changed; the text of a file that is no job."""
    refuse_reader(call.user)
    once(call.pairs, ())
    return _edit_page(call)


def _edit_page(
    call: Call,
    typed: Mapping[str, str] | None = None,
    faults: Mapping[str, str] | None = None,
    status: int = 200,
    problem: str | None = None,
) -> Response:
    job_id = job_id_of(call)
    with call.site.spool() as spool:
        job = spool.get(job_id)
        if job.state not in {"pending", "failed", "dead"}:
            raise Refused(
                409, f"job {job_id!r} is {job.state} and cannot be changed", f"queuectl show {job_id}"
            )
        data = _content(spool, job_id)
    if not job.command:
        if not call.site.may_enqueue:
            raise Refused(403, "this file could become any command, and no commands are taken here")
        return _text_page(call, job_id, data, None, problem=problem, status=status)
    now = as_typed(job)
    return form_page(
        call, "edit.html", {**now, **(typed or {})}, faults or {}, status,
        job_id=job_id, mark=_mark(data), is_dead=job.state == "dead", problem=problem,
    )  # fmt: skip


def _text_page(
    call: Call, job_id: str, data: bytes, typed: str | None, *, problem: str | None, status: int = 200
) -> Response:
    from queuectl.job.fault_location import find_fault

    text = data.decode("utf-8", "replace") if typed is None else typed
    return call.page(
        "text.html", status, job_id=job_id, mark=_mark(data), text=text, problem=problem,
        fault=find_fault(text.encode("utf-8", "replace")),
    )  # fmt: skip


def changed_fields(job: Job, typed: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the fields that were typed anew, with None for those that were emptied, and what is wrong with others.

    A field that is as it was shown is left alone: what is masked in it must not become the secret.
    """
    now = as_typed(job)
    touched = {name: text for name, text in typed.items() if text.strip() != now.get(name, "").strip()}
    found, faults = values(touched)
    found |= {name: None for name, text in touched.items() if not text.strip()}
    if found.get("env"):
        found["env"] = _unmasked(job, found["env"])
    if "command" in found and found["command"] is None:
        faults["command"] = "a job needs a command"
    return found, faults


def _unmasked(job: Job, env: Mapping[str, str]) -> dict[str, str]:
    """Return variables with the values that were shown as *** and not typed anew."""
    before = job.env or {}
    shown = masked_env(before)
    return {
        name: before[name]
        if name in before and value == shown[name] and (MASK in value or is_secret(name))
        else value
        for name, value in env.items()
    }


def save(call: Call) -> Response:
    """Change a job, and run it again if that was asked for."""
    job_id = job_id_of(call)
    typed = call.fields()
    mark, again = typed.pop("mark", ""), typed.pop("then", "") == "retry"
    refused = COMMANDS if not call.site.may_enqueue else frozenset()
    for name in typed:
        if name not in FIELDS or name == "id" or name in refused:
            raise Refused(400, f"the field {name[:40]!r} cannot be changed here")
    with call.site.spool() as spool:
        job = spool.get(job_id)
        data = _content(spool, job_id)
        found, faults = changed_fields(job, typed)
        if _mark(data) != mark:
            return _edit_page(
                call, typed, {}, 409,
                "somebody else has changed this job meanwhile: below is what you typed, over what it has now",
            )  # fmt: skip
        if faults:
            return _edit_page(call, typed, faults, 422)
        try:
            if found:
                spool.set(job_id, if_unchanged=data, **found)
            if again:
                spool.retry(job_id)
        except InvalidJob as error:
            return _edit_page(call, typed, {_field_of(error): error.reason}, 422)
        except (JobError, MoveError) as error:
            return _edit_page(call, typed, {}, status_of(error), str(error))
    call.note(f"set {job_id}: {' '.join(sorted(found)) or 'nothing'}{', retry' if again else ''}")
    return call.go(
        f"/job/{job_id}", f"said={'retried' if again else 'changed' if found else 'unchanged'}&about={job_id}"
    )


def save_text(call: Call) -> Response:
    """Replace the text of a file that is no job, and queue it if that was asked for."""
    job_id = job_id_of(call)
    typed = call.fields()
    text, mark, again = typed.get("text", ""), typed.get("mark", ""), typed.get("then", "") == "retry"
    with call.site.spool() as spool:
        data = _content(spool, job_id)
        if _mark(data) != mark:
            problem = "the file has changed meanwhile: below is what you typed; nothing was saved"
            return _text_page(call, job_id, data, text, problem=problem, status=409)
        try:
            job = spool.amend(job_id, data, text.encode())
            new_id = job.id or job_id
            if again:
                spool.retry(new_id)
        except (JobError, MoveError) as error:
            return _text_page(call, job_id, data, text, problem=str(error), status=status_of(error))
    call.note(f"edit {job_id}{', retry' if again else ''}")
    return call.go(f"/job/{new_id}", f"said={'retried' if again else 'changed'}&about={new_id}")
