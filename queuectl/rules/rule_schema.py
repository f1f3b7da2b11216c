"""The JSON Schema of a rule file: the same checks as `rule_file`, in a form that editors understand.

What only the program can check: whether a cron expression names a day, a zone that exists, rings of `after`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from queuectl.job import conditions
from queuectl.job.schema import job_schema
from queuectl.rules import file_trigger, job_template, job_trigger, time_trigger

if TYPE_CHECKING:
    from collections.abc import Mapping

_TEXT = {"type": "string"}
_TEXTS = {"anyOf": [_TEXT, {"type": "array", "items": _TEXT, "minItems": 1}]}


def rule_schema(defaults: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of one rule file, as JSON Schema draft 2020-12.

    Args:
        defaults: the value of each field of a job that is used where a file does not give one.
    """
    job = _job(defaults)
    item = {**job, "required": ["command", "id"], "properties": {**job["properties"], "id": _ID}}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A rule of queuectl",
        "description": "When jobs are queued, and which.",
        "type": "object",
        "required": ["when"],
        "oneOf": [{"required": ["job"]}, {"required": ["jobs"]}],
        "additionalProperties": False,
        "properties": {
            "when": _when(defaults),
            "job": job,
            "jobs": {
                "description": "Several jobs. They may wait for each other, by their ids.",
                "type": "array",
                "minItems": 1,
                "maxItems": job_template.MOST_JOBS,
                "items": item,
            },
        },
        "allOf": [_ABOUT_JOBS],
        "examples": [
            {"when": {"cron": "0 2 * * *"}, "job": {"command": "./backup.sh"}},
            {"when": {"job": "dead"}, "job": {"command": "queuectl notify mail --to ops@example.org"}},
        ],
    }


_ID = {
    "description": "By which the other jobs of the list name it.",
    "type": "string",
    "maxLength": job_template.LONGEST_ID,
    "pattern": "^[A-Za-z0-9]",
}


_ABOUT_JOBS = {
    "if": {"properties": {"when": {"required": [job_trigger.KIND]}}},
    "then": {"properties": {"job": {"properties": dict.fromkeys(conditions.FIELDS, False)}}},
}
"""For what a rule about jobs waits, it says itself."""


def _job(defaults: dict[str, Any]) -> dict[str, Any]:
    found = job_schema(defaults)
    refused = {"id", "run_at", "expires_at", "delay"}
    properties: dict[str, Any] = {
        name: rule
        for name, rule in found["properties"].items()
        if name not in refused and not rule.get("readOnly")
    }
    for name in refused | {name for name, rule in found["properties"].items() if rule.get("readOnly")}:
        properties[name] = False  # else it would count as a field of the user's own
    words = "How long after the moment of the rule the job may still start."
    properties["expires_in"] = {**_span(found), "description": words}
    properties["batch"] = {**_TEXT, "description": "Its batch; {slot} stands for the moment."}
    for kind in conditions.FIELDS:
        properties[kind] = {**_TEXTS, "description": found["properties"][kind]["description"]}
    return {"type": "object", "required": ["command"], "properties": properties}


def _span(job: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in job["properties"]["max_backoff"].items() if key == "anyOf"}


def _when(defaults: dict[str, Any]) -> dict[str, Any]:
    job = job_schema(defaults)
    moment = {key: value for key, value in job["properties"]["run_at"].items() if key == "anyOf"}
    span = _span(job)
    own: dict[str, Any] = {
        "cron": {
            **_TEXTS,
            "description": "Minute hour day month weekday, or @daily; or a list of such texts.",
        },
        "every": {**span, "description": "At equal distances of whole seconds, like 10m."},
        "at": {
            "anyOf": [*moment["anyOf"], {"type": "array", "items": moment, "minItems": 1}],
            "description": "A moment, or a list of them.",
        },
        "timezone": {**_TEXT, "description": "A zone like Europe/Berlin. Default: the machine's."},
        "missed": {
            "enum": [*time_trigger.MISSED],
            "default": "once",
            "description": "What is done with moments at which no worker lived.",
        },
        "grace": {**span, "description": "With missed: skip, how late is not missed yet.", "default": "1m"},
        "overlap": {
            "enum": [*time_trigger.OVERLAP],
            "default": "skip",
            "description": "What is done while an earlier job of the rule is not over.",
        },
        "jitter": {**span, "description": "Start up to so much later, always the same for the same moment."},
        "from": {**moment, "description": "Not before this moment."},
        "until": {**moment, "description": "Not after this moment."},
    }
    beside: dict[str, tuple[str, ...]] = {
        **dict.fromkeys(time_trigger.KINDS, time_trigger.KEYS),
        file_trigger.KIND: file_trigger.KEYS,
        job_trigger.KIND: job_trigger.KEYS,
    }
    own |= _of_files(span) | _about_jobs(job, span)
    return {
        "description": "When jobs are queued: exactly one of cron, every, at, file and job, and what goes with it.",
        "type": "object",
        "oneOf": [
            {"required": [kind], "propertyNames": {"enum": [kind, *keys]}} for kind, keys in beside.items()
        ],
        "additionalProperties": False,
        "properties": own,
        "if": {
            "properties": {job_trigger.KIND: {"const": job_trigger.EMPTY}},
            "required": [job_trigger.KIND],
        },
        "then": {"properties": {"tag": False, "rule": False, "at_least": False}},
        "else": {"dependentRequired": {"at_least": ["within"]}},
    }


def _of_files(span: dict[str, Any]) -> dict[str, Any]:
    return {
        "file": {
            **_TEXT,
            "pattern": "^([/\\\\]|[A-Za-z]:)",
            "description": "For each file that appears in this folder, an absolute path. {} in the command stands for it.",
        },
        "match": {**_TEXTS, "description": "Patterns for names like *.pdf, one of which must match."},
        "recursive": {"type": "boolean", "default": False, "description": "Also in the folders below."},
        "settle": {**span, "default": "2s", "description": "How long a file must be unchanged."},
        "companion": {
            **_TEXT,
            "pattern": r"\{(name|stem)\}",
            "description": "The file that must lie beside it, like {name}.done.",
        },
        "source": {
            "enum": [*file_trigger.SOURCE],
            "default": "leave",
            "description": "What becomes of the file: it stays, moves to done/ or failed/, or is deleted when its job is done.",
        },
        "at_most": {
            "type": "integer",
            "minimum": 1,
            "maximum": file_trigger.MOST_WAITING,
            "default": file_trigger.AT_MOST,
            "description": "So many jobs of the rule wait at once; the other files wait where they are.",
        },
        "poll": {
            **span,
            "default": "10s",
            "description": "How often the folder is looked at where the system does not tell of changes.",
        },
    }


def _about_jobs(job: Mapping[str, Any], span: dict[str, Any]) -> dict[str, Any]:
    def names(of: Mapping[str, Any], words: str) -> dict[str, Any]:
        one = {key: value for key, value in of.items() if key != "description"} | {"type": "string"}
        several = {"type": "array", "items": one, "minItems": 1, "maxItems": job_trigger.MOST_NAMES}
        return {"description": words, "anyOf": [one, several]}

    fields = job["properties"]
    return {
        job_trigger.KIND: {
            "enum": [*job_trigger.EVENTS],
            "description": "A job was given up; it ended well; it ended well after a run had failed; nothing is left to run.",
        },
        "tag": names(fields["tags"]["items"], "Only jobs with this tag, or one of these."),
        "queue": names(fields["queue"], "Only jobs of this queue, or one of these."),
        "batch": names(fields["batch"], "Only jobs of this batch, or one of these."),
        "rule": names(fields["rule"], "Only jobs that this rule has made, or one of these."),
        "within": {**span, "description": "At most once in each such span, about all of them."},
        "at_least": {
            "type": "integer",
            "minimum": 1,
            "description": "Only if it happens so often within that span.",
        },
    }
