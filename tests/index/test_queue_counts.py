"""The counts of queues agree with a plain count of all jobs, and do not read a million waiting jobs one by one."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queuectl import Spool
from queuectl.index import batches, queue_counts, schema, statistics
from queuectl.index.index import Index
from queuectl.index.row import Row
from queuectl.job.fields import STATES
from queuectl.job.times import micros

from support import drain

if TYPE_CHECKING:
    from pathlib import Path


def test_each_way_to_wait_is_counted(spool_dir: Path) -> None:
    """Ready, due later, due and not yet in the order, behind a unique key, held, failed, dead."""
    spool = Spool(spool_dir)
    jobs: list[dict[str, Any]] = [
        {"command": "exit 1", "queue": "mail", "max_retries": 1},
        {"command": "exit 1", "queue": "mail", "max_retries": 5},
        {"command": "true", "queue": "mail"},
    ]
    spool.enqueue_many(jobs)
    drain(spool_dir)
    for queue in ("mail", "sms", None):
        more: list[dict[str, Any]] = [{}, {}, {"delay": 60}, {"hold": True}, {"unique": f"k-{queue}"}]
        more += [{"unique": f"k-{queue}", "if_exists": "queue"}]
        spool.enqueue_many({"command": "true", "queue": queue, **fields} for fields in more)

    found = queue_counts.by_queue(queue_counts.by_lane(spool._index, micros(spool._storage.now())))

    plain: dict[str, dict[str, int]] = {}
    for row in spool.list():
        if row.state in queue_counts.COUNTED:
            states = plain.setdefault(row.queue, {})
            states[row.state] = states.get(row.state, 0) + 1
    assert {name: {state: n for state, n in one.states.items() if n} for name, one in found.items()} == plain
    assert (found["mail"].waiting, found["mail"].states["dead"], found["sms"].waiting) == (7, 1, 6)


def test_a_job_that_came_due_while_no_worker_lives_has_waited_since(spool_dir: Path) -> None:
    """It gets its place in the order from a worker only."""
    spool = Spool(spool_dir)
    job = spool.enqueue("true", queue="mail", delay=60)
    due = micros(job.run_at or 0)

    before, after = (queue_counts.by_lane(spool._index, now)["mail"].since for now in (due - 1, due + 10**6))

    assert (before, after) == (None, due)


def test_ready_jobs_are_counted_without_reading_their_rows(spool_dir: Path) -> None:
    """A full queue may hold a million of them."""
    spool = Spool(spool_dir)
    spool.enqueue("true", queue="mail")
    [(*_, plan)] = spool._index.db.execute(f"EXPLAIN QUERY PLAN {queue_counts._READY}").fetchall()

    assert "USING COVERING INDEX jobs_ready" in plan


def waiting(job_id: str, state: str, lane: str | None, batch: str | None, **more: Any) -> Row:
    """A row of the index."""
    return Row(id=job_id, state=state, place=state, name=job_id, arrived=1, lane=lane, batch=batch, **more)


CHANGE = st.tuples(
    st.sampled_from("abcdef"), st.none() | st.tuples(st.sampled_from(STATES), st.sampled_from([None, "mail", "sms"]),
                                                     st.sampled_from([None, "one", "two"]), st.sampled_from([None, 3, 9])))  # fmt: skip


@given(st.lists(CHANGE, max_size=30))
def test_numbers_that_are_kept_are_what_counting_would_say(
    changes: list[tuple[str, tuple[str, str | None, str | None, int | None] | None]],
) -> None:
    """However jobs move between states, queues and batches, and are deleted; a job that is due has waited since."""
    made = Index(":memory:", "/nowhere", "boot")
    made.open()
    counted: list[object] = []
    for keep in (False, True):
        if keep:
            schema.run(made.db, statistics.COUNT_LANES + statistics.COUNT_BATCHES)
        for job_id, to in changes:
            if to is None:
                made.drop(job_id)
            else:
                due = to[3] if to[0] in ("pending", "failed") else None
                made.put(waiting(job_id, *to[:3], due=due, hold=due is None))
        assert made.broken is None
        lanes = queue_counts.by_lane(made, 5)
        shown = {
            lane: ({state: n for state, n in one.states.items() if n}, one.since)
            for lane, one in lanes.items()
        }
        counted.append((shown, batches.states(made), batches.states(made, "one")))
    made.close()

    assert counted[0] == counted[1]


@pytest.mark.parametrize(
    "count", [queue_counts.by_lane, lambda index, _: batches.states(index)], ids=["lanes", "batches"]
)
def test_counting_the_jobs_of_queues_and_batches_takes_as_long_whatever_their_number(
    spool_dir: Path, monkeypatch: pytest.MonkeyPatch, count: Any
) -> None:
    """Counted in steps of SQLite's machine. `status` and each page ask for it: of 90,000 jobs it took 100 ms."""
    monkeypatch.setattr(queue_counts, "COUNT_ABOVE", 5)
    monkeypatch.setattr(batches, "COUNT_ABOVE", 5)
    spool = Spool(spool_dir)
    spool.refresh()
    index = spool._index
    steps = []
    for first, last in ((0, 20), (20, 2000)):
        with index.write():
            for number in range(first, last):
                index.put(
                    waiting(
                        f"j{number}",
                        "pending",
                        "mail",
                        "one",
                        **({"due": 9} if number % 2 else {"hold": True}),
                    )
                )
        count(index, 5)
        tick = itertools.count()
        index.db.set_progress_handler(lambda tick=tick: next(tick) and 0, 1)  # type: ignore[misc]  # bound at once
        count(index, 5)
        index.db.set_progress_handler(None, 0)
        steps.append(next(tick))
    spool.close()

    assert steps[1] <= steps[0] + 20
