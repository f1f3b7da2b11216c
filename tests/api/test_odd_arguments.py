"""The Python door told nonsense: an error of ours, and nothing is queued."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest

from queuectl import Spool
from queuectl.errors import InvalidJob

import support

if TYPE_CHECKING:
    from pathlib import Path

NONSENSE: list[dict[str, Any]] = [
    {"note": object()},
    {"note": b"bytes"},
    {"note": {"inner": {1, 2}}},
    {"note": {1: "a key that is no text"}},
    {"note": 10**30},
    {"note": "\ud800"},
    {"env": {"A": "\ud800"}},
    {"env": {"A": 1}},
    {"timeout": math.inf},
    {"timeout": math.nan},
    {"run_at": math.nan},
    {"delay": 1e300},
    {"delay": -1},
    {"backoff_base": 10**400},
    {"max_retries": 10**30},
    {"priority": True},
    {"id": 5.5},
    {"cwd": 5},
]


@pytest.mark.parametrize("fields", NONSENSE, ids=[f"{next(iter(one))}-{n}" for n, one in enumerate(NONSENSE)])
def test_value_that_no_job_file_can_hold_is_an_invalid_job(spool_dir: Path, fields: dict[str, Any]) -> None:
    """SPEC 7: errors are raised as documented; a stranger's TypeError from deep inside is none of them."""
    spool = Spool(spool_dir)

    with pytest.raises(InvalidJob, match=r"invalid job: ."):
        spool.enqueue({"command": "true", **fields})

    assert sum(spool.counts().values()) == 0


@pytest.mark.parametrize(
    "command", ["", " ", [], (), [""], ["ls", 5], 5, None, b"ls", "a\0b", "\ud800"], ids=repr
)
def test_what_is_no_command_is_an_invalid_job(spool_dir: Path, command: Any) -> None:
    """Bytes or a number instead of text, a list or a mapping: the message says what is wanted."""
    with pytest.raises(InvalidJob):
        Spool(spool_dir).enqueue(command)


def test_nonsense_among_many_loses_none_before_it(spool_dir: Path) -> None:
    """enqueue_many queues what came before the bad one, and the error names it."""
    records: list[dict[str, Any]] = [
        {"command": "true"},
        {"command": "true"},
        {"command": "true", "note": object()},
    ]

    with pytest.raises(InvalidJob) as refused:
        Spool(spool_dir).enqueue_many(records)
    ids = refused.value.queued
    assert [support.where_is(spool_dir, job_id) for job_id in ids] == [["pending"]] * 2
    assert Spool(spool_dir).counts()["pending"] == 2


def test_number_past_64_bits_for_a_base_is_kept_as_a_fraction(spool_dir: Path) -> None:
    """A base of 10^30 is absurd and harmless: the wait is capped."""
    spool = Spool(spool_dir)
    spool.enqueue("true", id="job1", backoff_base=10**30)

    assert spool.get("job1").backoff_base == 1e30
