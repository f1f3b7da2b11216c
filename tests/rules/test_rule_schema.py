"""The JSON Schema of a rule file agrees with the program about what editors can check."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest
import yaml

from queuectl.rules import rule_file
from queuectl.rules.rule import InvalidRule
from queuectl.rules.rule_schema import rule_schema

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

EXAMPLES = sorted((Path(__file__).parents[2] / "spool_example" / "rules").iterdir())
DAILY: dict[str, Any] = {"cron": "0 2 * * *"}
JOB = {"command": "a"}
EACH = {"command": "a {}"}

GOOD: list[Any] = [
    {"when": DAILY, "job": JOB},
    {"when": {"every": 10}, "job": {**JOB, "expires_in": "5m", "batch": "x-{slot}", "after": "batch:y-{slot}"}},
    {"when": {"at": ["2031-01-01T03:00"], "missed": "all", "jitter": "5m"}, "jobs": [{"id": "a", "command": "a"}]},
    {"when": {"file": "/srv/scans"}, "job": EACH},
    {"when": {"file": "/srv/scans", "match": ["*.pdf", "*.tif"], "recursive": True, "settle": 2, "companion": "{stem}.ok",
              "source": "move", "at_most": 10, "poll": "10s"}, "job": {**EACH, "unique": "{name}"}},
    {"when": {"file": "/srv/scans"}, "jobs": [{"id": "a", "command": ["a", "{rel}"]}, {"id": "b", "command": "b", "after": "a"}]},
    {"when": {"job": "dead", "tag": ["a", "b"], "queue": "q", "batch": "b", "rule": "r", "within": "1h", "at_least": 5}, "job": JOB},
    {"when": {"job": "done"}, "job": {**JOB, "unique": "k", "if_exists": "queue"}},
    {"when": {"job": "empty", "queue": "gpu", "within": 60}, "jobs": [{"id": "a", "command": "a"}, {"id": "b", "command": "b", "after": "a"}]},
]  # fmt: skip
BAD: list[Any] = [
    {"job": JOB},
    {"when": DAILY},
    {"when": DAILY, "job": JOB, "jobs": [{"id": "a", "command": "a"}]},
    {"when": {}, "job": JOB},
    {"when": {**DAILY, "every": "1h"}, "job": JOB},
    {"when": {**DAILY, "missed": "run"}, "job": JOB},
    {"when": {**DAILY, "overlp": "skip"}, "job": JOB},
    {"when": {"every": "soon"}, "job": JOB},
    {"when": DAILY, "job": {}},
    {"when": DAILY, "job": {**JOB, "id": "a"}},
    {"when": DAILY, "job": {**JOB, "run_at": "2031-01-01"}},
    {"when": DAILY, "job": {**JOB, "state": "dead"}},
    {"when": DAILY, "job": {**JOB, "priority": 11}},
    {"when": DAILY, "jobs": []},
    {"when": DAILY, "jobs": [JOB]},
    {"when": DAILY, "jobs": [{"id": "x" * 13, "command": "a"}]},
    {"when": DAILY, "job": JOB, "name": "x"},
    {"when": {**DAILY, "file": "/srv/scans"}, "job": EACH},
    {"when": {"file": "scans"}, "job": EACH},
    {"when": {"file": "/srv/scans", "missed": "all"}, "job": EACH},
    {"when": {**DAILY, "settle": 2}, "job": JOB},
    {"when": {"file": "/srv/scans", "source": "keep"}, "job": EACH},
    {"when": {"file": "/srv/scans", "match": []}, "job": EACH},
    {"when": {"file": "/srv/scans", "at_most": 0}, "job": EACH},
    {"when": {"file": "/srv/scans", "companion": "done"}, "job": EACH},
    {"when": {"file": "/srv/scans", "recursive": "yes"}, "job": EACH},
    {"when": {"job": "failed"}, "job": JOB},
    {"when": {"job": "dead", "missed": "once"}, "job": JOB},
    {"when": {"job": "dead", "at_least": 2}, "job": JOB},
    {"when": {"job": "dead", "within": "1h", "at_least": 0}, "job": JOB},
    {"when": {"job": "dead", "queue": []}, "job": JOB},
    {"when": {"job": "dead", "queue": "a b"}, "job": JOB},
    {"when": {"job": "empty", "tag": "a"}, "job": JOB},
    {"when": {"job": "dead"}, "job": {**JOB, "after": "a"}},
    {"when": {"job": "dead"}, "job": {**JOB, "run_at": "2031-01-01"}},
]


def says(record: Any) -> bool:
    """Whether the program takes it."""
    try:
        rule_file.parse("x", json.dumps(record).encode(), "x.json")
    except InvalidRule:
        return False
    return True


@pytest.mark.parametrize(("record", "good"), [*((one, True) for one in GOOD), *((one, False) for one in BAD)])
def test_the_schema_and_the_program_say_the_same(record: Any, good: bool) -> None:
    fits = jsonschema.Draft202012Validator(rule_schema({})).is_valid(record)

    assert (fits, says(record)) == (good, good)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_the_example_rules_fit(path: Path) -> None:
    record = yaml.safe_load(path.read_text())

    jsonschema.Draft202012Validator(rule_schema({})).validate(record)


def test_schema_prints_it(cli: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    printed = json.loads(cli("schema", "--rule", expect=0).stdout)

    jsonschema.Draft202012Validator.check_schema(printed)
    assert printed["title"] == "A rule of queuectl"
    assert "two schemas" in cli("schema", "--rule", "--record", expect=2).stderr
