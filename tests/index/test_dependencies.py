"""Which jobs wait for others: the index follows each change of each row, and says the same when it is made anew."""

from __future__ import annotations

import os
from collections import Counter
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from queuectl.index import schema
from queuectl.index.row import row_of
from queuectl.job import conditions
from queuectl.job.conditions import Verdict
from queuectl.job.record import Job

import support

if TYPE_CHECKING:
    from queuectl.index.index import Index

NOW = 1_800_000_000_000_000
STATES = ("pending", "processing", "completed", "dead")


def put(index: Index, job: Job, state: str, *, at: int = NOW) -> None:
    """Put a job in this state into the index."""
    if state in ("completed", "dead"):
        job.finished_at = at / 1e6
    status = os.stat_result((0o100600, hash(job.id) % 10**9, 0, 1, 0, 0, 10, 0, 0, 0))
    with index.write():
        index.put(
            row_of(job, support.PLACES[state], f"{job.id}.json", status, state=state, arrived=NOW, now=NOW)
        )
    assert index.broken is None


def judge(jobs: dict[str, tuple[Job, str]], job: Job) -> list[int]:
    """The verdicts on a job's conditions, worked out from nothing but the states of all jobs."""
    found = []
    for one in conditions.of_job(job):
        if one.batch is None:
            found.append(one.judge(jobs[one.parent][1] if one.parent in jobs else None))
            continue
        members = Counter(
            state
            for other, state in jobs.values()
            if other.batch == one.batch
            and not any(theirs.batch == one.batch for theirs in conditions.of_job(other))
        )
        waiting = members["pending"] + members["processing"]
        found.append(one.judge_batch(waiting, members["completed"], members["dead"]))
    return found


def check(index: Index, jobs: dict[str, tuple[Job, str]]) -> None:
    """The index says of each waiting job what `judge` says, and has a place for those that may start."""
    verdicts: dict[str, list[int]] = {}
    for job_id, verdict in index.db.execute(
        "SELECT id, verdict FROM waits JOIN jobs USING (seq) ORDER BY waits.rowid"
    ):
        verdicts.setdefault(job_id, []).append(verdict)
    for job_id, (job, state) in jobs.items():
        row = index.get(job_id)
        assert row is not None
        if state in ("completed", "dead"):
            assert job_id not in verdicts
            continue
        wanted = judge(jobs, job)
        assert verdicts.get(job_id, []) == wanted, (job_id, state)
        if state == "pending":
            may_start = Verdict.WAIT not in wanted or Verdict.DECIDED in wanted
            assert (row.ready_key is not None or row.due is not None) == (may_start and not job.hold), (
                job_id,
                wanted,
            )


def some_job(draw: Random, job_id: str) -> Job:
    parents = [f"job{number}" for number in range(6) if f"job{number}" != job_id]
    parents += ["batch:a", "batch:a=2", "batch:b=0", "batch:b=1"]
    fields: dict[str, Any] = {
        kind: draw.sample(parents, draw.choice([1, 1, 2]))
        for kind in conditions.FIELDS
        if draw.random() < 0.3
    }
    if draw.random() < 0.3:
        fields["if_blocked"] = "dead"
    if draw.random() < 0.4:
        fields["batch"] = draw.choice("ab")
    return Job(id=job_id, command="true", priority=5, hold=draw.random() < 0.1, **fields)


@pytest.mark.parametrize("seed", range(30))
def test_whatever_happens_to_rows_the_index_knows_who_may_start(index: Index, seed: int) -> None:
    """Jobs come, run, end, are moved back, are changed and deleted, in any order; rebuilt, the index says the same."""
    draw = Random(seed)
    jobs: dict[str, tuple[Job, str]] = {}
    for _ in range(60):
        job_id = f"job{draw.randrange(6)}"
        if job_id in jobs and draw.random() < 0.2:
            with index.write():
                index.drop(job_id)
            del jobs[job_id]
        else:
            job = jobs[job_id][0] if job_id in jobs and draw.random() < 0.7 else some_job(draw, job_id)
            jobs[job_id] = job, draw.choice(STATES)
            put(index, *jobs[job_id])
        check(index, jobs)

    rows = index.list(None, None)
    with index.write():
        index.begin_rebuild(ahead=False)
        for row in rows:
            row.ready_key, row.due = (None, None) if row.hold or row.state != "pending" else (NOW, None)
            index.put(row)
        schema.finish(index.db)
    assert index.broken is None
    check(index, jobs)


def test_a_job_waits_since_its_last_parent_ended(index: Index) -> None:
    """Its place in the order counts from then: otherwise the last step of a long chain would pass all other jobs."""
    put(index, Job(id="child", command="true", priority=5, after=["one", "two"]), "pending")
    put(index, Job(id="one", command="true", priority=5), "completed", at=NOW + 5_000_000)
    put(index, Job(id="two", command="true", priority=5), "completed", at=NOW + 9_000_000)
    row = index.get("child")
    assert row is not None
    assert (row.due, row.ready_key) == (NOW + 9_000_000, None)


def test_the_end_of_a_parent_does_not_read_its_siblings(index: Index) -> None:
    """A thousand jobs before a join: each end must cost the same as one of ten."""

    def steps(number: int) -> int:
        count = 0

        def step() -> int:
            nonlocal count
            count += 1
            return 0

        ids = [f"p{number}-{place}" for place in range(number)]
        put(index, Job(id=f"join{number}", command="true", priority=5, after=ids), "pending")
        for job_id in ids:
            put(index, Job(id=job_id, command="true", priority=5), "pending")
        index.db.set_progress_handler(step, 1)
        put(index, Job(id=ids[3], command="true", priority=5), "completed")
        index.db.set_progress_handler(None, 1)
        return count

    # Not the same: a search in a larger table takes some steps more, and versions of SQLite differ.
    assert steps(1000) < 2 * steps(10)
