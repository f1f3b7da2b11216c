"""Reads the file of a rule: what it says, or what is wrong with it, with line and column."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import yaml

from queuectl.config import plain_yaml, yaml_documents
from queuectl.errors import InvalidJob
from queuectl.job import strict_json
from queuectl.rules import file_trigger, job_template, job_trigger, time_trigger
from queuectl.rules.file_trigger import FileTrigger
from queuectl.rules.rule import InvalidRule, Rule, Wrong

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from queuectl.layout import Layout
    from queuectl.rules.rule import Trigger

LIMIT = 1 << 20
"""Bytes that a rule file may have."""

KINDS: dict[str, Callable[[Mapping[str, Any], str], Trigger]] = {
    **dict.fromkeys(time_trigger.KINDS, time_trigger.read),
    file_trigger.KIND: file_trigger.read,
    job_trigger.KIND: job_trigger.read,
}
"""Each kind of rule, by the key of `when` that makes a rule one of this kind, and what reads it."""

_PARTS = ("when", "job", "jobs")
_MARKED = (*time_trigger.KINDS, "timezone", "from", "until", job_trigger.KIND, *job_trigger.KEYS)
"""The keys of `when` that say for what jobs are queued."""


def parse(name: str, data: bytes, path: str, layout: Layout | None = None) -> Rule:
    """Read a rule.

    Args:
        name: of the rule.
        path: of the file, for messages; if it ends in .json, it is JSON.
        layout: of the spool, in which no rule may watch for files.

    Raises:
        InvalidRule: it cannot be used, and why.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidRule("not UTF-8", path, (data.count(b"\n", 0, error.start) + 1, 1)) from None
    try:
        record, node = _json(text) if path.endswith(".json") else _yaml(text)
    except InvalidJob as error:
        reason = error.message.replace("a job must", "a rule must")
        if error.at:  # its place is told in front
            reason = reason.removesuffix(" (line {}, column {})".format(*error.at))
        raise InvalidRule(reason, path, error.at) from None
    try:
        return _rule(name, record, layout)
    except Wrong as error:
        at = None if node is None else yaml_documents.place_at(node, error.path)
        raise InvalidRule(error.sentence, path, at) from None


def _json(text: str) -> tuple[Any, Any]:
    """Return the value of a JSON text, and its node, if the reader of YAML can read it too: it knows the places."""
    value = strict_json.load_json(text)
    try:
        return value, yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError:
        return value, None


def _yaml(text: str) -> tuple[Any, Any]:
    try:
        found = list(yaml_documents.documents(text, 0))
    except plain_yaml.Unclear as error:
        raise InvalidJob(error.reason, at=(error.line, error.column)) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        at = (mark.line + 1, mark.column + 1) if mark else None
        raise InvalidJob(f"not YAML: {error.problem or error.context}", at=at) from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise InvalidJob(f"not YAML: {' '.join(str(error).split())[:200]}") from None
    if not found:
        raise InvalidJob("the file is empty")
    if len(found) > 1:
        raise InvalidJob("has several documents; each rule has a file of its own")
    value, node = found[0]
    return (yaml_documents.as_json(value) if isinstance(value, dict) else value), node


def _rule(name: str, record: Any, layout: Layout | None) -> Rule:
    if not isinstance(record, dict):
        raise Wrong((), "must have when: and job:")
    for key in record:
        if key not in _PARTS:
            raise Wrong((key,), "is not known; a rule has when: and job: (or jobs:)")
    when = record.get("when")
    if not isinstance(when, dict):
        raise Wrong(("when",) if "when" in record else (), "when: must say when, like {cron: '0 2 * * *'}")
    kind = _kind(when)
    trigger = KINDS[kind](when, kind)
    if layout is not None and isinstance(trigger, FileTrigger) and trigger.overlaps(layout):
        raise Wrong(("when", kind), "is a folder of the spool itself")
    found, is_list = job_template.read(record, trigger)
    return Rule(name, kind, trigger, _mark(when), found, is_list)


def _kind(when: Mapping[str, Any]) -> str:
    found = [kind for kind in KINDS if when.get(kind) is not None]
    if len(found) == 1:
        return found[0]
    if not found:
        raise Wrong(("when",), f"has none of {', '.join(KINDS)}; one of them is wanted")
    raise Wrong(("when",), f"has {' and '.join(found)}; one of them is wanted")


def _mark(when: Mapping[str, Any]) -> str:
    """Return a text that differs when the moments may differ."""
    told = {key: value for key, value in when.items() if key in _MARKED}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]
