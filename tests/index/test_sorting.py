"""A list of a large spool is read in its order, and statistics are kept: nothing goes through all jobs, and nothing differs."""

from __future__ import annotations

import random
import sqlite3
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queuectl import Filter, Spool
from queuectl.api import metrics, stats
from queuectl.index import database, schema, sorting, statistics
from queuectl.index.filter import SORTS
from queuectl.index.index import Index
from queuectl.index.row import Row
from queuectl.job.fields import STATES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MINUTE = 60_000_000
ORDERS = [f"{way}{key}" for key in SORTS for way in ("", "-")]


def row(chance: random.Random, number: int, state: str) -> Row:
    """A job in this state, with values of which many are equal or missing."""
    some = range(3)
    made = Row(
        id=f"job{chance.randrange(10**9)}-{number}",
        state=state,
        place="pending" if state in ("pending", "failed") else state,
        name=f"{number}.json",
        arrived=chance.choice(some),
        priority=chance.choice([1, 5, 10]),
        attempts=chance.choice(some),
        created_at=chance.choice([None, *some]),
        updated_at=chance.choice([None, *some]),
        command=chance.choice("abc"),
        worker=chance.choice([None, "a", "b"]),
        exit_code=chance.choice([None, *some]),
        size=number,
    )
    if made.place == "pending":
        setattr(made, chance.choice(["ready_key", "due", "behind", "run_at"]), chance.randrange(20))
    if state != "pending" and chance.random() < 0.8:
        made.finished_at = number * MINUTE * 3 + chance.choice(some)
        made.started_at = made.finished_at - chance.choice([5, 7])
        made.duration = chance.choice([None, 3, 4])
    return made


@pytest.fixture
def index(spool_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    """Three hundred jobs of all states, which count as very many."""
    monkeypatch.setattr(sorting, "LARGE", 10)
    spool = Spool(spool_dir)
    spool.refresh()
    made = spool._index
    chance = random.Random(7)
    with made.write():
        for number in range(300):
            made.put(row(chance, number, STATES[number % len(STATES)]))
    assert made.broken is None
    yield made
    spool.close()


@contextmanager
def plans_of(db: sqlite3.Connection) -> Iterator[list[str]]:
    """How SQLite reads what is asked in the block: the lines of its query plans."""
    asked: list[str] = []
    lines: list[str] = []
    db.set_trace_callback(asked.append)
    try:
        yield lines
    finally:
        db.set_trace_callback(None)
    for statement in asked:
        if statement.startswith("SELECT"):
            lines += [detail for *_, detail in db.execute(f"EXPLAIN QUERY PLAN {statement}")]


def full_reads(lines: list[str]) -> list[str]:
    """Steps that go through the whole table of jobs, or sort what they have found."""
    return [line for line in lines if line == "SCAN jobs" or line.endswith("FOR ORDER BY")]


@pytest.mark.parametrize("states", [(), ("pending", "failed"), ("dead",)], ids=str)
@pytest.mark.parametrize("order", ORDERS)
def test_a_short_list_of_very_many_jobs_is_not_sorted(
    index: Index, monkeypatch: pytest.MonkeyPatch, order: str, states: tuple[str, ...]
) -> None:
    """Each key, both ways: the jobs are those that sorting all would find, and an index has them in this order."""
    which = Filter(states=states, sort=order, limit=70)

    with plans_of(index.db) as lines:
        found = index.select(which)
    with monkeypatch.context() as patch:
        patch.setattr(sorting, "LARGE", 10**9)
        sorted_by_hand = index.select(which)

    assert [one.id for one in found] == [one.id for one in sorted_by_hand]
    if order.removeprefix("-") == "next" and states == ("dead",):
        return  # they do not wait, so there is no order to follow
    by_number = order in {"arrived", "-arrived"} or (order.endswith("next") and not states)
    assert [line for line in full_reads(lines) if not (by_number and line == "SCAN jobs")] == []


@pytest.mark.parametrize(
    "which",
    [
        Filter(sort="-duration"),
        Filter(sort="-duration", tags=("x",), limit=5),
        Filter(sort="-duration", states=("processing",), limit=5),
        Filter(sort="next", states=("completed",), limit=5),
    ],
    ids=repr,
)
def test_where_few_may_match_the_matching_ones_are_sorted(
    index: Index, monkeypatch: pytest.MonkeyPatch, which: Filter
) -> None:
    """Looking up each job in the order of the list, in vain, takes longer than sorting those that match."""
    monkeypatch.setattr(sorting, "_SHARE", 3)
    index.select(Filter(sort="-duration", limit=1))  # the index for this order is there

    with plans_of(index.db) as lines:
        index.select(which)

    assert any(line.endswith("FOR ORDER BY") for line in lines), lines
    assert not [line for line in lines if "jobs_by_" in line]


def test_a_list_is_sorted_while_the_index_cannot_be_written(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process writes into it for long: the list comes all the same."""
    monkeypatch.setattr(database, "WRITE_TIMEOUT", 0.01)
    which = Filter(sort="-created", limit=5)
    other = sqlite3.connect(index.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    found = index.select(which)

    other.close()
    assert len(found) == 5
    assert index.broken is None
    assert [one.id for one in index.select(which)] == [one.id for one in found]


def test_statistics_of_very_many_jobs_read_few(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts, sums and the longest times are kept, percentiles come from a sample, the last ends from an index."""
    monkeypatch.setattr(stats, "SAMPLE", 10)

    with plans_of(index.db) as lines:
        found = stats.gather(index, Filter(), "day", now=1e9)
        last = index.last_ended(20)
        list(metrics.of_jobs(index, 1e9))

    assert found.sampled
    assert found.all.ended
    assert len(last) == 20
    assert full_reads(lines) == []
    assert "SCAN jobs USING COVERING INDEX jobs_sampled" in lines
    assert not [line for line in lines if "jobs_ended" in line and "SEARCH" in line]


def test_jobs_that_ended_last_come_first(index: Index) -> None:
    """Those without a time of their end, too: they were given up when they were last changed."""
    ended = [one for state in ("completed", "failed", "dead") for one in index.list(state, None)]

    def moment(one: Row) -> tuple[int, int]:
        known = [one.finished_at, one.updated_at, one.arrived]
        return next(value for value in known if value is not None), one.seq or 0

    ended.sort(key=moment, reverse=True)
    assert [one.id for one in index.last_ended(200)] == [one.id for one in ended]


def test_the_longest_run_is_forgotten_with_its_job() -> None:
    """Sums can be kept up to date by subtracting, the longest of several times cannot."""
    made = Index(":memory:", "/nowhere", "boot")
    made.open()
    schema.run(made.db, statistics.MAKE)
    for name, ran in (("short", 3), ("long", 9)):
        row = Row(id=name, state="completed", place="done", name=name, attempts=1)
        row.finished_at, row.started_at, row.duration = MINUTE + ran, MINUTE, ran
        made.put(row)
    assert stats.gather(made, Filter(), None, now=1e9).all.running.longest == 9e-6

    made.drop("long")

    found = stats.gather(made, Filter(), None, now=1e9)
    assert (found.all.ended, found.all.running.longest) == (1, 3e-6)
    made.close()


ENDED: st.SearchStrategy[dict[str, Any]] = st.builds(
    dict,
    state=st.sampled_from(STATES),
    finished_at=st.sampled_from([None, 5, 20 * MINUTE, 20 * MINUTE + 9, 50 * MINUTE]),
    started_at=st.sampled_from([None, 2, 3]),
    duration=st.sampled_from([None, 0, 4, 9]),
    attempts=st.integers(0, 2),
    size=st.integers(0, 9),
    arrived=st.integers(0, 2),
)
CHANGES = st.lists(st.tuples(st.sampled_from("abcd"), st.none() | ENDED), max_size=25)
MOMENTS = st.none() | st.sampled_from([0.0, 300.0, 900.0, 1200.0, 1800.0, 4000.0])


@given(CHANGES, MOMENTS, MOMENTS)
def test_kept_sums_are_what_counting_would_say(
    changes: list[tuple[str, dict[str, Any] | None]], since: float | None, until: float | None
) -> None:
    """However jobs end, run again and are deleted; also of a period that begins or ends within a quarter of an hour."""
    made = Index(":memory:", "/nowhere", "boot")
    made.open()
    schema.run(made.db, statistics.MAKE)
    for job_id, values in changes:
        if values is None:
            made.drop(job_id)
        else:
            made.put(Row(id=job_id, place=values["state"], name=job_id, **values))
    assert made.broken is None
    which = Filter(since=since, until=until)

    kept = stats.gather(made, which, None, now=1e9)

    selection = stats._Selection(made, which, "NULL")
    counted = stats.Stats(kept.since, kept.until)
    stats._count(counted, lambda _key, _quarter: (), selection.counted())
    assert kept.steps == counted.steps
    assert (kept.first_start, kept.last_end) == (counted.first_start, counted.last_end)
    for name in ("completed", "dead", "attempts", "retried", "seconds"):
        assert getattr(kept.all, name) == pytest.approx(getattr(counted.all, name))
    assert kept.all.waiting.longest == counted.all.waiting.longest
    assert kept.all.running.longest == counted.all.running.longest
    sizes = made.db.execute("SELECT coalesce(sum(size), 0) FROM jobs").fetchone()
    assert made.db.execute("SELECT sum(bytes) FROM counts").fetchone() == sizes
    made.close()
