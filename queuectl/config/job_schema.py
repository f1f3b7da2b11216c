"""The JSON Schema of a job file: what the validator in `fields` takes, in words that editors understand.

A test holds the two together, both ways. What a schema cannot say (an id that is taken, the 31st of February, a file
that is too large or nested too deep, 5.0 where a whole number is wanted) only the validator knows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from queuectl.config.settings import KEYS
from queuectl.job import fields, record, times

if TYPE_CHECKING:
    from collections.abc import Mapping

_END = r"(?![\s\S])"
"""The very end of a text; $ is also before a last newline in some languages."""

_BLANK = r"[ \t\n\r\f\v]*"
_TEXT = {"type": "string", "pattern": r"^[^\u0000]*" + _END}
_DEVICE = (
    r"(?!(?:[cC][oO][nN]|[pP][rR][nN]|[aA][uU][xX]|[nN][uU][lL]|(?:[cC][oO][mM]|[lL][pP][tT])[0-9])(?:\.|"
    + _END
    + "))"
)
_ID = {
    "type": "string",
    "maxLength": 64,
    "pattern": "^" + _DEVICE + r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9_-])?" + _END,
}
_COMMAND = {
    "anyOf": [
        {"type": "string", "pattern": r"^[^\u0000]*[^\s\u0000][^\u0000]*" + _END},
        {"type": "array", "minItems": 1, "prefixItems": [{**_TEXT, "minLength": 1}], "items": _TEXT},
    ]
}
_MOMENT = {
    "anyOf": [
        {"type": "number", "minimum": 0, "maximum": times.LATEST},
        {
            "type": "string",
            "pattern": r"^\s*(?:[0-9]+(?:\.[0-9]+)?|[0-9]{4}-?(?:[0-9]{2}|W[0-9]{2})[^\u0000]*)\s*" + _END,
        },
    ]
}
_DURATION = {
    "anyOf": [
        {"type": "number", "minimum": 0, "maximum": times.LATEST},
        {
            "type": "string",
            "pattern": f"^{_BLANK}[0-9]+(?:\\.[0-9]+)?{_BLANK}(?:ms|s|m|h|d|w)?{_BLANK}{_END}",
        },
    ]
}
_ENV = {"type": "object", "propertyNames": {"pattern": r"^[^=\u0000]+" + _END}, "additionalProperties": _TEXT}
_EXIT_CODES = {
    "type": "array",
    "maxItems": fields.EXIT_CODES_MOST,
    "items": {"type": "integer", "minimum": 0, "maximum": 255},
}
_TAG = {"type": "string", "pattern": r"^[A-Za-z0-9._:/@+=-]{1,64}" + _END}
_NUMBER = {"type": "number"}


def _whole(low: int, high: int = 2**31) -> dict[str, Any]:
    return {"type": "integer", "minimum": low, "maximum": high}


_FIELDS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "id": (
        "Unique in the whole spool; it names the job's files. Default: the file's name, if that is free.",
        _ID,
    ),
    "command": ("What to run: a text in the shell, a list of texts without one.", _COMMAND),
    "priority": ("1 to 10, higher is more urgent; waiting adds 1 a minute.", _whole(1, 10)),
    "run_at": ("Not before this moment: ISO 8601 (no offset: local time) or epoch seconds.", _MOMENT),
    "timeout": (
        "Past it the command and all it started is ended: seconds, or like 10m. 0: no limit.",
        _DURATION,
    ),
    "max_retries": ("How many times the command may run in all; 0 means 1.", _whole(0)),
    "backoff_base": (
        "After the n-th failure the next attempt waits backoff_base ** n seconds.",
        {"type": "number", "minimum": 1, "maximum": 1e300},
    ),
    "cwd": ("The folder in which it runs. Default for a dropped file: the home of the worker's user.", _TEXT),
    "env": ("Variables, added to the worker's environment.", _ENV),
    "on_crash": (
        "What follows when the worker or the machine dies under it; dead: it never runs twice.",
        {"enum": ["retry", "dead"]},
    ),
    "max_backoff": ("No wait between two attempts is longer: seconds, or like 10m.", _DURATION),
    "jitter": (
        "Each wait is made longer by up to this share of it, by chance: 0 to 1.",
        {"type": "number", "minimum": 0, "maximum": 1},
    ),
    "retry_on": ("Only after these exit codes it is tried again; all others are final.", _EXIT_CODES),
    "give_up_on": ("After these exit codes it is not tried again.", _EXIT_CODES),
    "expires_at": ("Not worth starting after this moment: ISO 8601 or epoch seconds.", _MOMENT),
    "tags": ("Words by which jobs are found again.", {"type": "array", "items": _TAG}),
    "hold": ("Lies in the queue and is not started until it is released.", {"type": "boolean"}),
    "unique": (
        "Of the jobs with the same key only one waits or runs.",
        {"type": "string", "maxLength": 200, "pattern": r"^[^\u0000]*[^\s\u0000][^\u0000]*" + _END},
    ),
    "if_exists": (
        "What happens to this job when another one with its unique key waits or runs.",
        {"enum": ["skip", "replace", "queue"]},
    ),
    "state": ("Repeats the folder that the file lies in.", {"enum": [*fields.STATES, "done"]}),
    "attempts": ("How many attempts were made since it was put into the queue.", _whole(0)),
    "created_at": ("When it was handed over.", _MOMENT),
    "updated_at": ("When queuectl last wrote the file.", _MOMENT),
    "started_at": ("When the last attempt began.", _MOMENT),
    "finished_at": ("When the last attempt ended.", _MOMENT),
    "next_retry_at": ("When the next attempt is due, after one that failed.", _MOMENT),
    "duration": ("Seconds that the last attempt took.", _NUMBER),
    "exit_code": ("With which the last attempt ended.", _whole(-(2**31))),
    "last_error": ("Why the last attempt failed, or why the job is dead.", _TEXT),
    "output": ("The end of what the last attempt wrote.", _TEXT),
    "worker": ("Who ran it last.", _TEXT),
    "crashes": ("How many times in a row its worker or the machine died under it.", _whole(0)),
    "history_left_out": ("How many runs the middle of the history leaves out.", _whole(0)),
    "history": ("One entry a run.", {"type": "array", "items": {"type": "object"}}),
}


def job_schema() -> dict[str, Any]:
    """The schema of one job file, as JSON Schema draft 2020-12; null means "not given" for every field but command."""
    ours = record.KNOWN.difference(record.PRODUCER_FIELDS)
    properties = {}
    for name, (words, rule) in _FIELDS.items():
        one = {"description": words, **(rule if name == "command" else _or_null(rule))}
        key = KEYS.get(name)
        if key is not None and key.default is not None:
            one["default"] = key.default
        if name in ours:
            one |= {"readOnly": True, "description": f"Written by queuectl. {words}"}
        properties[name] = one
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A job of queuectl",
        "description": "One job: which command to run, and how. Fields that are not named here are kept.",
        "type": "object",
        "required": ["command"],
        "properties": properties,
        "examples": [{"command": "echo hello"}, {"command": ["tar", "-czf", "b.tgz", "b"], "timeout": "10m"}],
    }


def _or_null(rule: dict[str, Any]) -> dict[str, Any]:
    if "anyOf" in rule:
        return {"anyOf": [*rule["anyOf"], {"type": "null"}]}
    if "enum" in rule:
        return {"enum": [*rule["enum"], None]}
    return {**rule, "type": [rule["type"], "null"]}
