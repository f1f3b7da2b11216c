"""The starts of a queue with a rate."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queuectl.control.start_rate import StartRate

if TYPE_CHECKING:
    from pathlib import Path

SECOND = 1_000_000
NOW = 1_800_000_000 * SECOND


@pytest.fixture
def path(tmp_path: Path) -> str:
    """Where the starts are written; the folder is made when it is needed."""
    return str(tmp_path / "queues" / "mail.starts")


def test_the_next_start_comes_a_span_after_the_first_of_them(path: str) -> None:
    """5/10s: the sixth start must wait until the first one is ten seconds old."""
    rate = StartRate(path, 5, 10)
    assert [rate.take(NOW + number * SECOND) for number in range(5)] == [0] * 5
    assert rate.take(NOW + 9 * SECOND) == NOW + 10 * SECOND
    assert rate.take(NOW + 10 * SECOND) == 0
    assert rate.take(NOW + 10 * SECOND) == NOW + 11 * SECOND
    assert rate.count(NOW + 10 * SECOND) == 5


@given(
    waits=st.lists(st.integers(0, 4 * SECOND), max_size=60),
    starts=st.integers(1, 5),
    span=st.sampled_from([0.5, 1, 3]),
)
def test_no_span_has_more_starts_than_the_rate(
    tmp_path_factory: pytest.TempPathFactory, waits: list[int], starts: int, span: float
) -> None:
    """Wherever a span begins. A counter that is reset at fixed moments would allow twice as many around them."""
    path = str(tmp_path_factory.mktemp("rate") / "q.starts")
    now, noted = NOW, []
    for wait in waits:
        now += wait
        next_at = StartRate(path, starts, span).take(now)
        if next_at == 0:
            noted.append(now)
        else:
            assert next_at > now
    long = round(span * SECOND)
    assert all(sum(begin <= moment < begin + long for moment in noted) <= starts for begin in noted)


def test_a_clock_set_back_costs_one_span_and_no_more(path: str) -> None:
    """Starts that lie ahead count as now. Without that the queue would stand still for the hour that the clock lost."""
    rate = StartRate(path, 2, 10)
    assert [rate.take(NOW), rate.take(NOW)] == [0, 0]
    back = NOW - 3600 * SECOND
    assert rate.take(back) == back + 10 * SECOND
    assert rate.take(back + 10 * SECOND) == 0


def test_a_start_that_did_not_happen_is_given_back(path: str) -> None:
    """A job that was claimed and put back would use up a start of an hour."""
    rate = StartRate(path, 1, 3600)
    assert rate.take(NOW) == 0
    rate.give_back(NOW)
    assert rate.take(NOW + 1) == 0
    rate.give_back(NOW)  # another one's is left alone
    assert rate.take(NOW + 2) > 0


def test_a_changed_rate_counts_the_starts_that_were(path: str) -> None:
    """A lower rate must not begin with an empty memory, nor a higher one forget what has just started."""
    assert [StartRate(path, 4, 10).take(NOW + number) for number in range(4)] == [0] * 4
    assert StartRate(path, 2, 10).take(NOW + 5) == NOW + 2 + 10 * SECOND
    assert StartRate(path, 5, 10).take(NOW + 6) == 0
    assert StartRate(path, 5, 10).take(NOW + 7) > 0


def test_a_torn_file_ends_no_worker(path: str) -> None:
    """After a power cut the file may end in the middle of a moment."""
    rate = StartRate(path, 2, 10)
    rate.take(NOW)
    with open(path, "ab") as file:
        file.write(b"abc")
    assert rate.take(NOW + 1) == 0
    assert rate.take(NOW + 2) == NOW + 10 * SECOND


def test_a_rate_that_is_lowered_and_raised_again_forgets_no_start(path: str) -> None:
    """100/1h became 2/1h for a minute; 98 starts of this hour were forgotten, and 98 more could follow."""
    before, lower = StartRate(path, 100, 3600), StartRate(path, 2, 3600)
    for number in range(99):
        assert before.take(NOW + number * SECOND) == 0
    assert lower.take(NOW + 100 * SECOND) > NOW
    lower.give_back(NOW + 98 * SECOND)

    assert before.count(NOW + 101 * SECOND) == 98
    assert [before.take(NOW + 101 * SECOND) for _ in range(3)] == [0, 0, NOW + 3600 * SECOND]
    assert before.take(NOW + 2 * 3600 * SECOND) == 0


def test_a_rate_of_very_many_starts_that_is_lowered_forgets_none_of_the_span(path: str) -> None:
    """More than are kept of an old rate: they count again when the rate is raised within the hour."""
    before, lower = StartRate(path, 1200, 3600), StartRate(path, 2, 3600)
    for number in range(1150):
        assert before.take(NOW + number) == 0
    lower.give_back(NOW + 1149)
    assert before.count(NOW + 1150) == 1149


def test_a_rate_whose_span_is_shortened_and_lengthened_again_forgets_no_start(path: str) -> None:
    """100/1h became 5/1m for some minutes; all but 5 starts of this hour were forgotten, and 95 more could follow."""
    before, shorter = StartRate(path, 100, 3600), StartRate(path, 5, 60)
    for number in range(90):
        assert before.take(NOW + number * SECOND) == 0
    assert [shorter.take(NOW + minute * 60 * SECOND) for minute in (3, 4, 5)] == [0, 0, 0]

    after = NOW + 6 * 60 * SECOND
    assert before.count(after) == 93
    assert [before.take(after) for _ in range(8)] == [0] * 7 + [NOW + 3600 * SECOND]


def test_the_file_of_a_rate_stays_small(path: str) -> None:
    """It is read and written at each start, and a queue may have millions."""
    rate = StartRate(path, 5, 1)
    for number in range(1100):
        assert rate.take(NOW + number * SECOND) == 0
    assert os.stat(path).st_size == 1000 * 8
