"""Changes of jobs that are there. What was typed meets what the job has by then, and neither is lost."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from queuectl.errors import InvalidJob, JobError, JobNotFound, MoveError
from queuectl.fast_start.dataclass import dataclass
from queuectl.job.record import READ_LIMIT
from queuectl.job.redact import MASK, is_secret, masked_env
from queuectl.system import safe_open
from queuectl.web import forms
from queuectl.web.call import Refused, job_id_of, refuse_reader
from queuectl.web.query import once
from queuectl.web.site import status_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.responses import Response

    from queuectl.api.spool import Spool
    from queuectl.job.record import Job
    from queuectl.web.call import Call

EDITABLE = frozenset({"pending", "failed", "dead"})
"""States in which a job can be changed."""

CHANGED = "somebody else has changed this job meanwhile; nothing was saved. Look at both, and save again"


def _content(spool: Spool, job_id: str) -> bytes:
    try:
        return safe_open.read_regular(spool.file_of(job_id), READ_LIMIT)[0]
    except (safe_open.NotReadable, OSError) as error:
        raise MoveError(f"the file of job {job_id!r} cannot be read: {error}") from None


def _mark(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def as_typed(job: Job) -> dict[str, str]:
    """Return the fields of a job as they are typed; secrets masked."""
    from queuectl.fast_start import fast_json

    record = job.to_dict()
    found = {}
    for name in forms.FIELDS:
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


def _prints(fields: Mapping[str, str]) -> dict[str, str]:
    """Return a short digest of each field that is not empty, without blanks around it."""
    return {
        name: hashlib.sha256(text.strip().encode("utf-8", "replace")).hexdigest()[:16]
        for name, text in fields.items()
        if text.strip()
    }


@dataclass(frozen=True, slots=True)
class Both:
    """A form whose job somebody else has changed since it was opened.

    Attributes:
        typed: what the form goes on with: what was typed where something was, else what the job has now.
        others: what the job has now in the fields that both have changed, each otherwise.
        taken: the fields that only the other one has changed.
    """

    typed: dict[str, str]
    others: dict[str, str]
    taken: list[str]


def compared(typed: Mapping[str, str], now: Mapping[str, str], before: str) -> Both:
    """Compare what was typed with a job that has changed since.

    Args:
        before: the digests of its fields as the form has shown them, `name=digest` each. A field that was only shown,
            and not typed into, must not put back what somebody else has changed.
    """
    shown = dict(word.partition("=")[::2] for word in before.split())
    mine, theirs = _prints(typed), _prints(now)
    found = Both(dict(now), {}, [])
    for name, text in typed.items():
        is_other = theirs.get(name) != shown.get(name)
        if mine.get(name) != shown.get(name):
            found.typed[name] = text
            if is_other and mine.get(name) != theirs.get(name):
                found.others[name] = now.get(name, "")
        elif is_other:
            found.taken.append(name)
    return found


def edit(call: Call) -> Response:
    """The form with which a waiting or a dead job is changed; the text of a file that is no job."""
    refuse_reader(call.user)
    once(call.pairs, ())
    job_id = job_id_of(call)
    with call.site.spool() as spool:
        job = spool.get(job_id)
        if job.state not in EDITABLE:
            raise Refused(409, _not_now(job), f"queuectl show {job_id}")
        data = _content(spool, job_id)
    if job.command:
        return _edit_page(call, job, data)
    if not call.site.may_enqueue:
        raise Refused(403, "this file could become any command, and no commands are taken here")
    return _text_page(call, job_id, data)


def _not_now(job: Job) -> str:
    return f"job {job.id!r} is {job.state} and cannot be changed"


def _edit_page(
    call: Call,
    job: Job,
    data: bytes,
    both: Both | None = None,
    faults: Mapping[str, str] | None = None,
    status: int = 200,
    problem: str | None = None,
) -> Response:
    now = as_typed(job)
    before = " ".join(f"{name}={digest}" for name, digest in _prints(now).items())
    return forms.form_page(
        call, "edit.html", now if both is None else {**now, **both.typed}, faults or {}, status,
        job_id=job.id or "", mark=_mark(data), before=before, is_dead=job.state == "dead", problem=problem,
        others={} if both is None else both.others, taken=[] if both is None else both.taken, may_save=True,
    )  # fmt: skip


def _kept_page(call: Call, typed: Mapping[str, str], status: int, problem: str) -> Response:
    """Show what was typed for a job that cannot be changed any more, so that it can be copied."""
    job_id = job_id_of(call)
    if "text" in typed:
        return call.page(
            "text.html", status, job_id=job_id, mark="", text=typed["text"], present=None, problem=problem,
            fault=None, may_save=False,
        )  # fmt: skip
    return forms.form_page(
        call, "edit.html", typed, {}, status, job_id=job_id, mark="", before="", is_dead=False, problem=problem,
        taken=[], may_save=False,
    )  # fmt: skip


def _text_page(
    call: Call,
    job_id: str,
    data: bytes,
    typed: str | None = None,
    *,
    problem: str | None = None,
    status: int = 200,
    is_other: bool = False,
) -> Response:
    from queuectl.job.fault_location import find_fault

    now = data.decode("utf-8", "replace")
    text = now if typed is None else typed
    return call.page(
        "text.html", status, job_id=job_id, mark=_mark(data), text=text, present=now if is_other else None,
        problem=problem, fault=find_fault(text.encode("utf-8", "replace")), may_save=True,
    )  # fmt: skip


def changed_fields(job: Job, typed: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the fields that were typed anew, with None for those that were emptied, and what is wrong with others.

    A field that is as it was shown is left alone: what is masked in it must not become the secret.
    """
    now = as_typed(job)
    touched = {name: text for name, text in typed.items() if text.strip() != now.get(name, "").strip()}
    found, faults = forms.values(touched)
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
    mark, before, again = typed.pop("mark", ""), typed.pop("before", ""), typed.pop("then", "") == "retry"
    refused = forms.COMMANDS if not call.site.may_enqueue else frozenset()
    for name in typed:
        if name not in forms.FIELDS or name == "id" or name in refused:
            raise Refused(400, f"the field {name[:40]!r} cannot be changed here")
    with call.site.spool() as spool:
        try:
            job = spool.get(job_id)
            data = _content(spool, job_id)
        except (JobNotFound, MoveError) as error:
            return _kept_page(call, typed, status_of(error), f"{error}: below is what you typed")
        if job.state not in EDITABLE or not job.command:
            problem = (
                _not_now(job) if job.command else f"the file of job {job_id!r} is not a valid job any more"
            )
            return _kept_page(call, typed, 409, f"{problem}: below is what you typed")
        if _mark(data) != mark:
            return _edit_page(call, job, data, compared(typed, as_typed(job), before), {}, 409, CHANGED)
        found, faults = changed_fields(job, typed)
        answer = _edit_page(call, job, data, Both(typed, {}, []), faults, 422) if faults else None
        answer = answer or _set(call, spool, job, data, typed, found, again=again)
    if answer is not None:
        return answer
    call.note(f"set {job_id}: {' '.join(sorted(found)) or 'nothing'}{', retry' if again else ''}")
    return call.go(
        f"/job/{job_id}", f"said={'retried' if again else 'changed' if found else 'unchanged'}&about={job_id}"
    )


def _set(
    call: Call,
    spool: Spool,
    job: Job,
    data: bytes,
    typed: dict[str, str],
    found: dict[str, Any],
    *,
    again: bool,
) -> Response | None:
    """Change the job; return the form with what the door says if it refuses, and None if all is done."""
    job_id, mine = job.id or "", Both(typed, {}, [])
    try:
        if found:
            spool.set(job_id, if_unchanged=data, **found)
        if again:
            spool.retry(job_id)
    except InvalidJob as error:
        return _edit_page(call, job, data, mine, {forms.field_of(error): error.reason}, 422)
    except (JobError, MoveError) as error:
        return _edit_page(call, job, data, mine, {}, status_of(error), str(error))
    return None


def save_text(call: Call) -> Response:
    """Replace the text of a file that is no job, and queue it if that was asked for."""
    job_id = job_id_of(call)
    typed = call.fields()
    text, mark, again = typed.get("text", ""), typed.get("mark", ""), typed.get("then", "") == "retry"
    with call.site.spool() as spool:
        try:
            data = _content(spool, job_id)
        except (JobNotFound, MoveError) as error:
            return _kept_page(call, {"text": text}, status_of(error), f"{error}: below is what you typed")
        if _mark(data) != mark:
            return _text_page(call, job_id, data, text, problem=CHANGED, status=409, is_other=True)
        try:
            job = spool.amend(job_id, data, text.encode())
            new_id = job.id or job_id
            if again:
                spool.retry(new_id)
        except (JobError, MoveError) as error:
            return _text_page(call, job_id, data, text, problem=str(error), status=status_of(error))
    call.note(f"edit {job_id}{', retry' if again else ''}")
    return call.go(f"/job/{new_id}", f"said={'retried' if again else 'changed'}&about={new_id}")
