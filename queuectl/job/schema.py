"""The JSON Schema of a job file: the rules of `fields` in a form that editors understand.

A test compares the two, in both directions. Some rules cannot be written in a schema, and only `fields` checks them:
an id that is already taken, 31 February, a file that is too large or too deeply nested, 5.0 in place of an integer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from queuectl.job import fields, record, times

if TYPE_CHECKING:
    from collections.abc import Mapping

_END = r"(?![\s\S])"
"""The very end of a text: in some languages, $ also matches before a final newline."""

_BLANK = r"[ \t\n\r\f\v]*"
_TEXT = {"type": "string", "pattern": r"^[^\u0000]*" + _END}
_DEVICE = (
    r"(?!(?:[cC][oO][nN]|[pP][rR][nN]|[aA][uU][xX]|[nN][uU][lL]|(?:[cC][oO][mM]|[lL][pP][tT])[0-9])(?:\.|"
    + _END
    + "))"
)
_ID = {
    "anyOf": [
        {
            "type": "string",
            "maxLength": 64,
            "pattern": "^" + _DEVICE + r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9_-])?" + _END,
        },
        {"type": "integer", "minimum": 0},
    ]
}
_COMMAND = {
    "anyOf": [
        {"type": "string", "pattern": r"^[^\u0000]*[^\s\u0000][^\u0000]*" + _END},
        {"type": "array", "minItems": 1, "prefixItems": [{**_TEXT, "minLength": 1}], "items": _TEXT},
    ]
}
_SINCE_2001 = (
    r"0*(?:[1-9][0-9]{9,}|9(?:[89][0-9]{7}|79[0-9]{6}|78(?:[4-9][0-9]{5}|3(?:[1-9][0-9]{4}|0(?:[89][0-9]{3}"
    r"|7[2-9][0-9]{2})))))(?:\.[0-9]+)?|0+(?:\.0+)?"
)
"""Digits of times.EARLIEST_NUMBER and more, or 0."""

_MONTH_AND_DAY = "(?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01])"
_MOMENT_TEXT = {
    "type": "string",
    "pattern": rf"^\s*(?:{_SINCE_2001}|[0-9]{{4}}(?:-[0-9]{{2}}|-?W[0-9]{{2}}|{_MONTH_AND_DAY}(?![0-9.]))[^\u0000]*)\s*{_END}",
}
_MOMENT = {
    "anyOf": [
        {"type": "number", "minimum": times.EARLIEST_NUMBER, "maximum": times.LATEST},
        {"const": 0},
        _MOMENT_TEXT,
    ]
}
_PAST = {"anyOf": [{"type": "number", "minimum": 0, "maximum": times.LATEST}, _MOMENT_TEXT]}


def _any_case(word: str) -> str:
    return "".join(f"[{letter.upper()}{letter}]" for letter in word)


def _part(unit: str) -> str:
    """The part of a duration with this unit, like 30m or `30 minutes`."""
    names = "|".join([unit, *map(_any_case, times.LONG_UNITS[unit])])
    return rf"(?:{_DIGITS}{_BLANK}(?:{names})(?![A-Za-z]){_BLANK})?"


_DIGITS = r"[0-9]+(?:\.[0-9]+)?"
_PARTS = "".join(_part(unit) for unit in ("w", "d", "h", "m", "s", "ms"))
_DURATION = {
    "anyOf": [
        {"type": "number", "minimum": 0, "maximum": times.LATEST},
        {
            "type": "string",
            "pattern": rf"^{_BLANK}\+?{_BLANK}(?:{_DIGITS}{_BLANK}|(?=[0-9]){_PARTS}){_END}",
        },
    ]
}
_LIMIT = {
    "anyOf": [
        *cast("list[dict[str, Any]]", _DURATION["anyOf"]),
        {"type": "string", "pattern": rf"^\s*{_any_case('none')}\s*{_END}"},
    ]
}
_ENV = {"type": "object", "propertyNames": {"pattern": r"^[^=\u0000]+" + _END}, "additionalProperties": _TEXT}
_EXIT_CODES = {
    "type": "array",
    "maxItems": fields.MAX_EXIT_CODES,
    "items": {"type": "integer", "minimum": 0, "maximum": 255},
}
_QUEUE = {
    "type": "string",
    "maxLength": 30,
    "pattern": "^" + _DEVICE + r"[A-Za-z0-9][A-Za-z0-9_-]*" + _END,
}
_NEEDS = {
    "type": "object",
    "minProperties": 1,
    "maxProperties": fields.MAX_NEEDS,
    "propertyNames": {"pattern": r"^[a-z][a-z0-9_]{0,29}" + _END},
    "additionalProperties": {"type": "integer", "minimum": 1, "maximum": fields.MOST_NEEDED},
}
_BATCH_NAME = r"[A-Za-z0-9._:/@+-]{1,64}"
_BATCH = {"type": "string", "pattern": f"^{_BATCH_NAME}{_END}"}
_PARENT = {
    "anyOf": [
        {"type": "string", "pattern": f"^batch:{_BATCH_NAME}(?:=[0-9]{{1,9}})?{_END}"},
        cast("list[dict[str, Any]]", _ID["anyOf"])[0],
    ]
}
_PARENTS = {"anyOf": [_PARENT, {"type": "array", "minItems": 1, "items": _PARENT}]}
_TAG = {"type": "string", "pattern": r"^[A-Za-z0-9._:/@+=-]{1,64}" + _END}
_NUMBER = {"type": "number"}


def _integer(low: int, high: int = 2**31) -> dict[str, Any]:
    return {"type": "integer", "minimum": low, "maximum": high}


_FIELDS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "id": (
        "Unique in the whole spool; the job's files are named after it. Default: the file's name, if no job has that id.",
        _ID,
    ),
    "command": ("What to run: text is run by the shell, a list of texts without a shell.", _COMMAND),
    "priority": ("1 to 10, higher is more urgent; each minute of waiting adds 1.", _integer(1, 10)),
    "run_at": (
        "The job does not start before this time: ISO 8601 (without an offset: time of the machine's zone) or epoch seconds since 2001.",
        _MOMENT,
    ),
    "timeout": (
        "After this time the command and all its processes are ended: seconds, or text like 10m. 0: no limit.",
        _LIMIT,
    ),
    "max_retries": ("How many times the command may run in total; 0 means 1.", _integer(0)),
    "backoff_base": (
        "After the n-th failure, the next attempt waits backoff_base ** n seconds.",
        {"type": "number", "minimum": 1, "maximum": 1e300},
    ),
    "cwd": (
        "The working directory. Default for a dropped file: the home directory of the worker's user.",
        _TEXT,
    ),
    "env": ("Variables that are added to the worker's environment.", _ENV),
    "on_crash": (
        "What happens if the worker or the machine dies while the job runs. With dead, it never runs twice.",
        {"enum": ["retry", "dead"]},
    ),
    "max_backoff": ("The longest wait between two attempts: seconds, or text like 10m.", _DURATION),
    "jitter": (
        "Each wait is made longer by a random share, up to this one: 0 to 1.",
        {"type": "number", "minimum": 0, "maximum": 1},
    ),
    "retry_on": ("The exit codes after which the job is tried again; all others are final.", _EXIT_CODES),
    "give_up_on": ("The exit codes after which the job is not tried again.", _EXIT_CODES),
    "expires_at": ("The job is not started after this time: ISO 8601 or epoch seconds.", _MOMENT),
    "tags": ("Words by which jobs can be selected.", {"type": "array", "items": _TAG}),
    "hold": ("The job waits in the queue until it is released.", {"type": "boolean"}),
    "unique": (
        "Only one of the jobs with the same key waits or runs.",
        {"type": "string", "maxLength": 200, "pattern": r"^[^\u0000]*[^\s\u0000][^\u0000]*" + _END},
    ),
    "if_exists": (
        "What happens if another job with the same unique key waits or runs.",
        {"enum": ["skip", "replace", "queue"]},
    ),
    "queue": ("The queue whose limits the job keeps.", _QUEUE),
    "needs": ("What the job takes of the spool's resources while it runs: names and whole numbers.", _NEEDS),
    "after": (
        "The job starts only once all of these are completed: ids, and batches like batch:NAME.",
        _PARENTS,
    ),
    "after_any": ("The job starts only once all of these are completed or dead.", _PARENTS),
    "after_failure": ("The job starts only once all of these are dead.", _PARENTS),
    "if_blocked": ("What happens to the job when a job of `after` is dead.", {"enum": ["wait", "dead"]}),
    "batch": ("The batch to which the job belongs.", _BATCH),
    "state": ("The state; it follows from the folder of the file.", {"enum": [*fields.STATES, "done"]}),
    "attempts": ("How many attempts have been made since the job was put into the queue.", _integer(0)),
    "default_timeout": ("The timeout, if the job was given none and got that of the settings.", _NUMBER),
    "created_at": ("When the job was created.", _PAST),
    "updated_at": ("When queuectl last wrote the file.", _PAST),
    "started_at": ("When the last attempt began.", _PAST),
    "finished_at": ("When the last attempt ended.", _PAST),
    "next_retry_at": ("When the next attempt is due, after one that failed.", _PAST),
    "duration": ("Seconds that the last attempt took.", _NUMBER),
    "exit_code": ("The exit code of the last attempt.", _integer(-(2**31))),
    "last_error": ("Why the last attempt failed, or why the job is dead.", _TEXT),
    "output": ("The end of the output of the last attempt.", _TEXT),
    "worker": ("The worker that ran the job last.", _TEXT),
    "crashes": ("How many times in a row the worker or the machine died while the job ran.", _integer(0)),
    "not_run": ("Why the job is completed without a run.", _TEXT),
    "rule": ("The rule that has made the job.", _QUEUE),
    "scheduled_for": (
        "The moment for which a rule has made the job, with the offset of the rule's zone.",
        _MOMENT_TEXT,
    ),
    "source": ("The file for which a rule has made the job.", _TEXT),
    "event": ("What has happened, of which this job tells.", {"enum": [*fields.EVENTS]}),
    "about": ("The job of which it tells, or the period, or the queue or batch.", _TEXT),
    "history_left_out": ("How many runs are left out in the middle of the history.", _integer(0)),
    "history": ("One entry for each run.", {"type": "array", "items": {"type": "object"}}),
}


def job_schema(defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema of one job file, as JSON Schema draft 2020-12; null means "not given", except for command.

    Args:
        defaults: the value of each field that is used where a file does not give one.
    """
    written_by_queuectl = record.KNOWN.difference(record.PRODUCER_FIELDS)
    properties = {}
    for name, (words, rule) in _FIELDS.items():
        one = {"description": words, **(rule if name == "command" else _or_null(rule))}
        if name in defaults:
            one["default"] = defaults[name]
        if name in written_by_queuectl:
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


_SHOWN: Mapping[str, Any] = {  # by `show` and `list`, and not by `enqueue`
    "waits_for": {
        "description": "What the job still waits for; of very many the first ones.",
        "type": "array",
        "items": {
            "type": "object",
            "required": ["id", "want", "state"],
            "properties": {
                "id": {"type": "string"},
                "want": {"enum": ["after", "after_any", "after_failure"]},
                "state": {"type": ["string", "null"]},
            },
        },
    },
    "waits_for_count": {
        "description": "How many jobs and batches it still waits for.",
        "type": "integer",
    },
    "blocked": {
        "description": "Whether it starts only once somebody has mended one of them.",
        "type": "boolean",
    },
    "engine": {
        "description": "Where it runs, has run last, or will run: local, or the name of an engine.",
        "type": "string",
    },
    "engine_id": {
        "description": "The engine's own number for it, while it is out there.",
        "type": ["string", "null"],
    },
    "node": {
        "description": "The node of the engine on which it runs, or has run last.",
        "type": ["string", "null"],
    },
    "engine_reason": {
        "description": "Why it waits there, in the engine's words.",
        "type": ["string", "null"],
    },
}


def record_schema() -> dict[str, Any]:
    """Return the schema of what `show --json` prints of a job, and `list --json` without the long fields.

    The names are those of the job's file. Values are as queuectl writes them; null is what a file leaves out.
    """
    moments = {"type": "string", "format": "date-time"}
    written: dict[int, dict[str, Any]] = {id(_MOMENT): moments, id(_DURATION): _NUMBER}
    properties = {
        name: {"description": words, **_or_null(written.get(id(rule), rule))}
        for name, (words, rule) in _FIELDS.items()
    }
    # A file in dead/ that is no job has no command.
    properties["command"] = {"description": _FIELDS["command"][0], "type": ["string", "array"]}
    properties["effective_priority"] = {
        "description": "The priority with what waiting has added; null if the job does not wait.",
        **_or_null(_NUMBER),
    }
    required = [name for name in properties if name not in ("output", "history", "history_left_out")]
    properties |= _SHOWN
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "The record of a job of queuectl",
        "description": "What `queuectl show --json` and `queuectl enqueue --json` print. `queuectl list --json` leaves output and history out.",
        "type": "object",
        "required": required,
        "properties": properties,
    }


def _or_null(rule: dict[str, Any]) -> dict[str, Any]:
    if "anyOf" in rule:
        return {"anyOf": [*rule["anyOf"], {"type": "null"}]}
    if "enum" in rule:
        return {"enum": [*rule["enum"], None]}
    return {**rule, "type": [rule["type"], "null"]}
