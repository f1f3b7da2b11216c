"""Lanes: the waiting jobs that have the same limits, and the order among all of them."""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING, Any

import pytest

from queuectl.index import lanes
from queuectl.index.row import lane_of, row_of
from queuectl.job.record import Job

if TYPE_CHECKING:
    from queuectl.index.index import Index

NOW = 1_800_000_000_000_000


def put(index: Index, number: int, arrived: int, **fields: Any) -> None:
    """Put a waiting job into the index.

    Args:
        arrived: microseconds before NOW.
    """
    job = Job(id=f"job{number}", command="true", priority=5, **fields)
    status = os.stat_result((0o100600, number + 1, 0, 1, 0, 0, 10, 0, 0, 0))
    index.put(
        row_of(job, "pending", f"job{number}.json", status, state="pending", arrived=NOW - arrived, now=NOW)
    )


@pytest.mark.parametrize(
    ("fields", "lane"),
    [
        ({}, None),
        ({"queue": "default"}, None),
        ({"queue": "mail"}, "mail"),
        ({"needs": {"gpu": 1}}, "default gpu=1"),
        ({"queue": "train", "needs": {"memory": 16, "gpu": 2}}, "train gpu=2 memory=16"),
    ],
)
def test_a_lane_is_a_queue_and_what_is_needed_whatever_the_order(
    fields: dict[str, Any], lane: str | None
) -> None:
    """Two jobs with the same limits in two lanes would be looked at twice, and a limit could be evaded."""
    assert lane_of(Job(command="true", **fields)) == lane


def test_jobs_of_all_lanes_come_in_one_order(index: Index) -> None:
    """A queue is no priority: a job that came later in another lane does not pass one that came before."""
    jobs: list[tuple[int, dict[str, Any]]] = [
        (5, {}),
        (9, {"queue": "mail"}),
        (7, {"queue": "mail"}),
        (8, {}),
        (6, {"needs": {"gpu": 1}}),
        (1, {"queue": "zoo"}),
    ]
    for number, (arrived, fields) in enumerate(jobs):
        put(index, number, arrived, **fields)

    assert [row.id for row in index.ready(9)] == ["job1", "job3", "job2", "job4", "job0", "job5"]
    assert [row.id for row in index.ready(2)] == ["job1", "job3"]
    assert [row.id for row in index.ready_in("mail", 9)] == ["job1", "job2"]
    assert index.ready_lanes() == [None, "default gpu=1", "mail", "zoo"]


def test_lanes_without_a_job_that_can_run_are_not_named(index: Index) -> None:
    """Each lane costs a look at each claim. One whose jobs have ended must not be looked at for ever."""
    put(index, 1, 5, queue="mail")
    put(index, 2, 5, queue="later", run_at=NOW / 1e6 + 60)
    put(index, 3, 5, queue="held", hold=True)

    assert index.ready_lanes() == ["mail"]
    index.drop("job1")
    assert index.ready_lanes() == []


@pytest.mark.parametrize("seed", range(8))
def test_the_first_jobs_are_found_without_reading_all_lanes(index: Index, seed: int) -> None:
    """A customer each, a hundred queues: each claim would read the first jobs of all of them. The order is the same."""
    draw = random.Random(seed)
    for number in range(60):
        put(
            index,
            number,
            draw.randrange(30),
            queue=draw.choice([None, *"abcdefgh"]),
            needs=draw.choice([None, {"gpu": 1}]),
        )
    served = {queue: draw.randrange(9) for queue in "abcd"}
    every, heads = index.ready_lanes(), index.ready_heads()
    assert [lane for lane, _ in heads] == every
    for limit in (1, 2, 5, 16, 70):
        all_rows = [index.ready_in(lane, limit) for lane in every]
        some = [index.ready_in(lane, limit) for lane in lanes.with_first(heads, limit)]
        assert lanes.by_age(some, limit) == lanes.by_age(all_rows, limit)
        some = [index.ready_in(lane, limit) for lane in lanes.with_first(heads, limit, served)]
        assert lanes.by_turns(some, limit, served) == lanes.by_turns(all_rows, limit, served)
    assert len(lanes.with_first(heads, 1)) < len(every) / 2


def test_finding_the_lanes_does_not_read_their_jobs(index: Index) -> None:
    """A hundred thousand jobs of a full queue must cost the claims of other queues nothing."""

    def steps() -> int:
        count = 0

        def step() -> int:
            nonlocal count
            count += 1
            return 0

        index.db.set_progress_handler(step, 1)
        index.ready_lanes()
        index.ready_heads()
        index.db.set_progress_handler(None, 1)
        return count

    for number in range(3):
        put(index, number, number, queue=f"q{number}")
    few = steps()
    for number in range(10, 500):
        put(index, number, number, queue=f"q{number % 3}")

    assert steps() <= few
