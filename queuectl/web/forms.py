"""The form of a new job, and what all forms of jobs share: fields that are checked by the rules of job files, one by one."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse, Response

from queuectl.config.settings import Settings
from queuectl.errors import (
    ConfigError,
    DuplicateId,
    InvalidJob,
    JobError,
    QueuectlError,
)
from queuectl.job import changes, schema
from queuectl.web.call import Refused, refuse_reader
from queuectl.web.query import once
from queuectl.web.site import status_of

if TYPE_CHECKING:
    from collections.abc import Mapping

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

_SETTINGS = frozenset({"priority", "timeout", "max_retries", "backoff_base", "max_backoff"})
"""Fields whose values for most jobs are settings."""

_LARGE = frozenset({"command", "env", "needs"})


_HELP = {
    "id": "Unique in the whole spool; the job's files are named after it. Empty: one is made.",
    "run_at": "The job does not start before this time: 2h, tomorrow, 18:00, or ISO 8601.",
    "expires_at": "The job is not started after this time: 2h, tomorrow, 18:00, or ISO 8601.",
}
"""Of fields that are typed in another way than they are written into a file."""


def described(name: str, settings: Settings | None = None) -> str:
    """Return what a field means, and what an empty one gets in a new job, for which the settings are given."""
    text = _HELP.get(name) or str(schema._FIELDS[name][0])
    if settings is None:
        return text
    if name == "cwd":
        return f"The working directory. Empty: {os.getcwd()}."
    return f"{text} Empty: {getattr(settings, name):g}." if name in _SETTINGS else text


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
    settings = None if template != "new.html" else Settings()
    if settings is not None:
        with call.site.spool() as spool, suppress(ConfigError):
            settings = spool.settings()
    return call.page(
        template, status, first=first, rest=[name for name in names if name not in FIRST],
        typed={name: typed.get(name, "") for name in names}, faults=dict(faults), help={name: described(name, settings) for name in names},
        large=_LARGE, **{"others": {}, **more},
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
            faults[field_of(error)] = error.reason
        except QueuectlError as error:
            faults["queue"] = str(error)
    if not faults:
        return JSONResponse({"ok": True, "field": None, "message": None})
    name = next(iter(faults))
    return JSONResponse({"ok": False, "field": name, "message": faults[name]})


def field_of(error: InvalidJob) -> str:
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
            faults[field_of(error)] = error.reason
        except (JobError, QueuectlError) as error:
            problem, status = str(error), status_of(error)
        else:
            call.note(f"new {job.id}{' (not queued)' if job.skipped else ''}")
            return call.go(f"/job/{job.id}", f"said={'skipped' if job.skipped else 'queued'}&about={job.id}")
    return form_page(call, "new.html", typed, faults, status, problem=problem)
