"""Which jobs wait for a job, in turn: found whatever waits for what, also in a ring, and in an order in which they may run."""

from __future__ import annotations

import os
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from queuectl.index import waits
from queuectl.index.descendants import Descent
from queuectl.index.row import row_of
from queuectl.job.record import Job

import support

if TYPE_CHECKING:
    from queuectl.index.index import Index

NOW = 1_800_000_000_000_000


def put(index: Index, job_id: str, state: str = "pending", **fields: Any) -> None:
    """Put a job in this state into the index."""
    job = Job(id=job_id, command="true", **fields)
    status = os.stat_result((0o100600, hash(job_id) % 10**9, 0, 1, 0, 0, 10, 0, 0, 0))
    with index.write():
        index.put(
            row_of(job, support.PLACES[state], f"{job_id}.json", status, state=state, arrived=NOW, now=NOW)
        )
    assert index.broken is None


def ids(index: Index, descent: Descent, *of: str) -> list[str]:
    """The ids of the jobs that are found."""
    return [row.id for row in descent.find(index, of)]


@pytest.mark.parametrize("seed", range(6))
def test_all_that_wait_for_a_job_are_found_and_come_after_it(index: Index, seed: int) -> None:
    """Compared with a walk over plain sets. A job that is put back before its dead parent would be given up again."""
    random = Random(seed)
    names = [f"j{number}" for number in range(40)]
    random.shuffle(names)
    parents = {
        name: random.sample(names[:place], random.randint(0, min(place, 2)))
        for place, name in enumerate(names)
    }
    for name in random.sample(names, len(names)):
        put(index, name, random.choice(["pending", "processing", "dead"]), after=parents[name] or None)
    root = random.choice(names[:10])
    wanted = {root}
    for name in names:
        if wanted.intersection(parents[name]):
            wanted.add(name)
    found = ids(index, Descent(dead=True), root)
    assert sorted(found) == sorted(wanted)
    for place, name in enumerate(found):
        assert not set(parents[name]) & set(found[place:]), (name, found)


def test_a_ring_ends_the_search(index: Index) -> None:
    """Nothing that waits for itself may hang the command with which somebody wants to get rid of it."""
    for job_id, parent in (("a", "c"), ("b", "a"), ("c", "b"), ("d", "c")):
        put(index, job_id, after=[parent])
    put(index, "e", "dead", after=["f"])
    put(index, "f", "dead", after=["e"])
    assert sorted(ids(index, Descent(), "b")) == ["a", "b", "c", "d"]
    assert sorted(ids(index, Descent(dead=True), "f")) == ["e", "f"]


def test_a_batch_is_waited_for_through_each_of_its_jobs(index: Index) -> None:
    """The join waits for every part, and is no part itself. A job of another batch is not touched."""
    for number in range(3):
        put(index, f"part{number}", batch="x")
    put(index, "join", after=["batch:x=3"], batch="x")
    put(index, "report", after=["join"])
    put(index, "other", after=["batch:y=0"])
    assert ids(index, Descent(waiting_only=True), "part1") == ["part1", "join", "report"]
    assert ids(index, Descent(waiting_only=True), "join") == ["join", "report"]


def test_who_waits_no_more_is_not_behind_the_job(index: Index) -> None:
    """A job that runs, and one whose condition is met, go on whatever becomes of the parent."""
    put(index, "dead", "dead")
    put(index, "runs", "processing", after_any=["dead"])
    put(index, "may-start", after_any=["dead"])
    put(index, "blocked", after=["dead"])
    put(index, "behind", after=["runs"])
    assert ids(index, Descent(waiting_only=True), "dead") == ["dead", "blocked"]
    assert sorted(ids(index, Descent(), "dead")) == ["behind", "blocked", "dead", "may-start", "runs"]


def test_a_job_that_does_not_count_hides_those_behind_it(index: Index) -> None:
    """Otherwise they would be put back, and given up again because of it."""
    put(index, "a", "dead")
    put(index, "b", "dead", after=["a"])
    put(index, "c", "dead", after=["b"])
    put(index, "d", "dead", after=["a"])
    assert ids(index, Descent(dead=True, accepts=lambda row: row.id != "b"), "a") == ["a", "d"]


def test_the_search_reads_no_job_that_waits_for_something_else(index: Index) -> None:
    """SQLite would read all waiting jobs for each five hundred that were found: 15 s instead of 2 for 100,000."""
    names = [f"a{number}" for number in range(300)]
    for name in names:
        put(index, name)
    put(index, "b", after=["a7"])
    asked: list[str] = []
    index.db.set_trace_callback(asked.append)
    assert ids(index, Descent(waiting_only=True), *names) == [*names, "b"]
    assert waits.waiting_for(index, names) == ["b"]
    index.db.set_trace_callback(None)
    plans = [index.db.execute(f"EXPLAIN QUERY PLAN {text}").fetchall() for text in asked if " waits " in text]
    first = [plan[0][3] for plan in plans]
    assert len(first) == 3
    assert all("waits USING INDEX waits_parent" in step for step in first), first
