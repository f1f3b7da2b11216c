"""A Filter takes what a program has, and refuses what selects nothing by mistake."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from queuectl import Filter

NOON = datetime(2031, 1, 2, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({"states": "dead"}, {"states": ("dead",)}),
        ({"states": ["done", "failed"]}, {"states": ("completed", "failed")}),
        ({"tags": "nightly"}, {"tags": ("nightly",)}),
        ({"tags": {"nightly"}}, {"tags": ("nightly",)}),
        ({"exit_codes": 3}, {"exit_codes": (3,)}),
        ({"since": NOON, "until": "2031-01-02T12:00:00Z"}, {"since": NOON.timestamp(), "until": NOON.timestamp()}),
        ({"since": 1_900_000_000}, {"since": 1.9e9}),
    ],
    ids=str,
)  # fmt: skip
def test_one_value_is_one_and_a_moment_may_be_a_datetime(given: dict[str, Any], kept: dict[str, Any]) -> None:
    """`Filter(states="dead")` looked for the states d, e, a and d, and found nothing."""
    made = Filter(**given)

    assert {name: getattr(made, name) for name in kept} == kept
    assert made == Filter(**kept)


@pytest.mark.parametrize("span", ["2h", timedelta(hours=2)], ids=str)
def test_a_span_counts_back_from_now(span: Any) -> None:
    """`since="2h"` was compared with numbers, deep inside."""
    assert abs((Filter(since=span).since or 0) - (time.time() - 7200)) < 60


@pytest.mark.parametrize(
    "wrong",
    [{"states": "daed"}, {"states": ("dead", "x")}, {"states": [None]}, {"since": "yester"}, {"since": -1}, {"until": "2 moons"},
     {"tags": [5]}, {"exit_codes": "1"}, {"exit_codes": [True]}, {"sort": "age"}, {"limit": -1}],
    ids=str,
)  # fmt: skip
def test_what_selects_nothing_is_refused(wrong: dict[str, Any]) -> None:
    """A typing error looked like an empty spool."""
    with pytest.raises(ValueError, match=r"."):
        Filter(**wrong)
