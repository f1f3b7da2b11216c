"""The counts of queues agree with a plain count of all jobs, and do not read a million waiting jobs one by one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from queuectl import Spool
from queuectl.index import queue_counts
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
