"""Editors go by the schema and workers by the validator: what one calls a job the other must not refuse."""

from __future__ import annotations

import json
import string
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from queuectl.config.keys import KEYS
from queuectl.errors import InvalidJob
from queuectl.job import record as job
from queuectl.job.record import KNOWN, PRODUCER_FIELDS
from queuectl.job.schema import job_schema

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

    Cli = Callable[..., subprocess.CompletedProcess[str]]

SCHEMA = job_schema({key.name: key.default for key in KEYS.values() if key.default is not None})
JUDGE = jsonschema.Draft202012Validator(SCHEMA)

# Texts that come near to what each field takes. A schema cannot count days, nor tell 5.0 from 5.
NEAR_IDS = st.text(alphabet="aZ09._-/ ä\n", max_size=6) | st.sampled_from(
    ["nul", "a.", "a.b", "nul.", "Com1.txt", "com10", "x" * 64, "x" * 65]
)
DURATIONS = st.builds(
    "{}{}{}".format,
    st.integers(0, 9999),
    st.sampled_from(["", " ", "x"]),
    st.sampled_from(
        [
            "",
            "ms",
            "s",
            "m",
            "h",
            "d",
            "w",
            "y",
            "H",
            "h30m",
            "m1h",
            "h 5m",
            "d2d",
            " Hours",
            "mins",
            "h 30",
            "none",
        ]
    ),
) | st.sampled_from(["none", "None ", "+1h", "+ 5", "1 week 2 days 3h4m 5 sec 6ms"])
DATES = st.sampled_from(["2030-01-01", "2030-01-01T08:00", "2030-01-01 08:00:00+02:00", "20300101", "2030-W05-2", "1900000000",
                         "1900000000.5", "tomorrow", "01.01.2030", "", "2030", "5.5", "+5", "0", "0.0", "1830", "978307199", "978307200", "978307199.9", "979000000", "0978307200",
                         "999999999", "12345678", "20301", "203001", "2030001"])  # fmt: skip
WHOLE = st.integers(-3, 13) | st.sampled_from([2**31, 2**31 + 1, -(2**31), -(2**31) - 1, 10**15])
FLOATS = st.floats(-5, 1e12).filter(lambda value: not value.is_integer())
TEXTS = st.text(alphabet=string.ascii_letters + " =\n\0ä", max_size=5)
SCALARS = st.none() | st.booleans() | WHOLE | FLOATS | TEXTS | DURATIONS | DATES | NEAR_IDS
WORDS = st.sampled_from(["retry", "dead", "done", "pending", "failed", "completed"])
VALUES = (
    SCALARS
    | WORDS
    | st.lists(SCALARS, max_size=3)
    | st.lists(st.text(alphabet="a b:\n", max_size=2) | st.just("x" * 65), max_size=3)
    | st.lists(st.integers(-1, 3) | st.sampled_from([255, 256]), max_size=66)
    | st.sampled_from([[1] * 64, [1] * 65, "y" * 200, "y" * 201])
    | st.dictionaries(TEXTS, SCALARS, max_size=2)
    | st.lists(st.dictionaries(st.just("run"), st.integers(1, 3)), max_size=2)
)


def is_job(record: dict[str, Any]) -> bool:
    try:
        job.parse(json.dumps(record).encode())
    except InvalidJob:
        return False
    return True


def test_schema_names_exactly_the_fields_that_the_validator_knows() -> None:
    """A field that one of the two lacks would be completed by no editor, or checked by nobody."""
    assert set(SCHEMA["properties"]) == KNOWN
    ours = {name for name, rule in SCHEMA["properties"].items() if rule.get("readOnly")}
    assert ours == KNOWN - set(PRODUCER_FIELDS)
    assert all(rule["description"] for rule in SCHEMA["properties"].values())


def test_schema_is_a_schema() -> None:
    """It follows the draft that it names, and takes its own examples."""
    jsonschema.Draft202012Validator.check_schema(SCHEMA)

    assert all(JUDGE.is_valid(example) and is_job(example) for example in SCHEMA["examples"])


@pytest.mark.parametrize("name", sorted(KNOWN))
@given(value=VALUES)
@example(value="a.")
@example(value="nul.x")
@example(value="x" * 65)
@example(value=["x" * 65])
@example(value="a\n")
@example(value="1h ")
def test_schema_and_validator_say_the_same_of_each_field(name: str, value: Any) -> None:
    """Whatever stands in a field: the schema takes it exactly if the validator does."""
    record = {"command": "true", name: value}

    assert JUDGE.is_valid(record) == is_job(record)


@given(record=st.dictionaries(st.sampled_from([*sorted(KNOWN), "ticket"]), SCALARS, max_size=6))
def test_schema_and_validator_say_the_same_of_whole_jobs(record: dict[str, Any]) -> None:
    """Fields do not get into each other's way, `command` must be there, unknown ones are let be."""
    if "\0" in str(record.get("ticket")):
        record["ticket"] = None  # no text of a job file may hold one, also where no rule looks
    assert JUDGE.is_valid(record) == is_job(record)


def test_command_prints_the_schema(cli: Cli) -> None:
    """What is printed is what was tested, with --json or without."""
    assert json.loads(cli("schema", expect=0).stdout) == json.loads(cli("schema", "--json").stdout) == SCHEMA
