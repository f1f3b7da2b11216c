"""The order of jobs: priority, waiting time, arrival."""

from __future__ import annotations

import os
import subprocess
import time
from typing import TYPE_CHECKING, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queuectl import Spool
from queuectl.index.index import Index
from queuectl.index.row import row_of
from queuectl.job import times
from queuectl.job.record import Job

import support

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Cli = Callable[..., subprocess.CompletedProcess[str]]

NOW = 1_800_000_000.0
MINUTE = 60_000_000  # microseconds


class Waiting(NamedTuple):
    """A waiting job. Times are microseconds before NOW."""

    priority: int
    arrived: int
    due: int | None
    retry: bool


def effective_priority(job: Waiting) -> float:
    """The formula of SPEC 4, in sixtieths of a second so that nothing is rounded: priority + waiting time / 60 s."""
    waited = job.arrived if job.due is None else min(job.arrived, job.due)
    return job.priority * MINUTE + waited


waiting_jobs = st.builds(
    Waiting,
    priority=st.integers(1, 10),
    # Whole minutes make ties, single microseconds break them, days outgrow every priority.
    arrived=st.one_of(
        st.integers(0, 12).map(lambda minutes: minutes * MINUTE),
        st.integers(0, 4 * 86400 * 10**6),
        st.sampled_from([3 * MINUTE - 1, 3 * MINUTE, 3 * MINUTE + 1]),
    ),
    due=st.one_of(st.none(), st.integers(0, 12).map(lambda minutes: minutes * MINUTE)),
    retry=st.booleans(),
)


def put(index: Index, job: Waiting, number: int, *, at: float) -> None:
    """Put a job into the index as if it arrived at this time."""
    due = None if job.due is None else NOW - job.due / 1e6
    made = Job(id=f"job{number}", command="true", priority=job.priority)
    if job.retry and due is not None:
        made.attempts, made.next_retry_at = 1, due
    else:
        made.run_at = due
    status = os.stat_result((0o100600, number + 1, 0, 1, 0, 0, 10, 0, 0, 0))
    arrived = round(NOW * 1e6) - job.arrived
    row = row_of(
        made,
        "pending",
        f"job{number}.json",
        status,
        state=made.waiting_state,
        arrived=arrived,
        now=round(at * 1e6),
    )
    with index.write():
        index.put(row)


@given(jobs=st.lists(waiting_jobs, min_size=1, max_size=25), late=st.booleans())
def test_jobs_are_suggested_in_the_order_of_the_formula(jobs: list[Waiting], late: bool) -> None:
    """Whatever waits, the next job is the one of the highest effective priority, and of equal ones the first to come.

    late: the index learned of them before they were due, and has to promote them.
    """
    jobs = sorted(jobs, key=lambda job: -job.arrived)
    index = Index(":memory:", "/nonexistent", "boot")
    index.open()
    for number, job in enumerate(jobs):
        put(index, job, number, at=NOW - job.arrived / 1e6 if late else NOW)

    with index.write():
        index.mark_due_ready(round(NOW * 1e6))
    handed_out = []
    while (row := support.first_ready(index)) is not None:
        handed_out.append(row.id)
        with index.write():
            index.drop(row.id)
    index.close()

    ranked = sorted(range(len(jobs)), key=lambda number: (-effective_priority(jobs[number]), number))
    assert handed_out == [f"job{number}" for number in ranked]


@given(jobs=st.lists(waiting_jobs, min_size=2, max_size=10), later=st.integers(0, 10**6))
def test_order_of_waiting_jobs_never_changes(jobs: list[Waiting], later: int) -> None:
    """Two waiting jobs age at the same rate, so their order never changes and needs no update (T38)."""

    def order(shift: int) -> list[int]:
        def key(number: int) -> tuple[float, int]:
            job = jobs[number]
            older = job._replace(
                arrived=job.arrived + shift, due=None if job.due is None else job.due + shift
            )
            return -effective_priority(older), number

        return sorted(range(len(jobs)), key=key)

    assert order(0) == order(later)


def run_order(spool_dir: Path) -> list[str]:
    """The ids in the order in which the jobs wrote them."""
    path = spool_dir / "order"
    return path.read_text().split() if path.exists() else []


def note(spool_dir: Path) -> str:
    """A command that writes its job's id to a file."""
    return f'echo "$QUEUECTL_JOB_ID" >> "{spool_dir}/order"'


@pytest.mark.parametrize(
    ("waited", "first"), [(181, "waited"), (180, "waited"), (179, "fresh")], ids=["past", "tie", "before"]
)
def test_priority_5_that_waited_180_s_ties_with_a_fresh_priority_8(
    spool_dir: Path, waited: int, first: str
) -> None:
    """The example of SPEC 4, with a spool and a worker: of two equal jobs the earlier one runs first."""
    spool = Spool(spool_dir)
    spool.refresh()
    moment = time.time()
    spool._storage.now = lambda: moment - waited
    spool.enqueue(note(spool_dir), id="waited", priority=5)
    spool._storage.now = lambda: moment
    spool.enqueue(note(spool_dir), id="fresh", priority=8)

    support.drain(spool_dir)

    assert run_order(spool_dir)[0] == first


def test_higher_priorities_go_first_and_equal_ones_in_order_of_arrival(spool_dir: Path) -> None:
    """Ten is the most urgent priority; equal jobs run in order of arrival."""
    spool = Spool(spool_dir)
    for number, priority in enumerate([5, 1, 10, 5, 8, 10, 1, 8]):
        spool.enqueue(note(spool_dir), id=f"p{priority}-{number}", priority=priority)

    support.drain(spool_dir)

    assert run_order(spool_dir) == ["p10-2", "p10-5", "p8-4", "p8-7", "p5-0", "p5-3", "p1-1", "p1-6"]


def test_old_job_of_the_lowest_priority_is_not_starved(spool_dir: Path) -> None:
    """After ten minutes a priority 1 job runs before every new job, whatever that one's priority."""
    spool = Spool(spool_dir)
    spool.refresh()
    moment = time.time()
    spool._storage.now = lambda: moment - 600
    spool.enqueue(note(spool_dir), id="old", priority=1)
    spool._storage.now = lambda: moment
    for number in range(3):
        spool.enqueue(note(spool_dir), id=f"fresh{number}", priority=10)

    support.drain(spool_dir)

    assert run_order(spool_dir)[0] == "old"


def test_job_scheduled_long_ago_has_no_advantage(spool_dir: Path) -> None:
    """R21: waiting counts from run_at. A job scheduled a week ahead has not waited when it is due."""
    start = time.time()
    spool = Spool(spool_dir)
    spool.refresh()
    spool._storage.now = lambda: start - 7 * 86400
    spool.enqueue(note(spool_dir), id="scheduled", priority=5, run_at=start + 600)
    spool._storage.now = lambda: start + 590
    spool.enqueue(note(spool_dir), id="waiting", priority=5)

    support.drain(spool_dir, now=lambda: start + 601)

    assert run_order(spool_dir) == ["waiting", "scheduled"]


def test_retry_waits_from_next_retry_at(spool_dir: Path) -> None:
    """R21: after a failure waiting counts from next_retry_at, so an old failing job does not overtake others."""
    start = time.time()
    spool = Spool(spool_dir)
    spool.refresh()
    spool._storage.now = lambda: start - 3600
    spool.enqueue(f"{note(spool_dir)}; exit 1", id="failing", backoff_base=100, max_retries=2)
    support.drain(spool_dir, now=lambda: start)
    due = times.parse_moment(support.load(spool_dir / "pending" / "failing.json")["next_retry_at"])
    spool._storage.now = lambda: due - 30
    spool.enqueue(note(spool_dir), id="waiting")

    support.drain(spool_dir, now=lambda: due + 1)

    assert run_order(spool_dir) == ["failing", "waiting", "failing"]


def test_burst_of_enqueued_jobs_runs_in_order_of_arrival(spool_dir: Path) -> None:
    """T09: fifty jobs at nearly the same time, with a worker running: random ids do not change their order."""
    spool = Spool(spool_dir)
    ids = [spool.enqueue(note(spool_dir)).id for _ in range(25)]
    ids += spool.enqueue_many({"command": note(spool_dir)} for _ in range(25))

    support.drain(spool_dir)

    assert run_order(spool_dir) == ids


def test_burst_enqueued_under_a_running_worker_keeps_its_order(spool_dir: Path, workers: Cli) -> None:
    """T09: it makes no difference whether the worker or the producer writes to the index first."""
    workers(1)
    spool = Spool(spool_dir)
    ids = [spool.enqueue(note(spool_dir)).id or "" for _ in range(50)]

    support.wait_until(lambda: support.finished(spool_dir, *ids), message="fifty jobs to end")

    assert run_order(spool_dir) == ids


def test_burst_of_dropped_files_runs_in_order_of_arrival(spool_dir: Path) -> None:
    """T09: fifty files from a shell loop, named as people number them: job2 comes before job10."""
    spool = Spool(spool_dir)
    spool.refresh()
    script = """
    for i in $(seq 50); do
        printf '{"command": "echo $QUEUECTL_JOB_ID >> %s"}' "$1/order" > "$1/tmp/new"
        mv "$1/tmp/new" "$1/pending/job$i.json"
    done"""
    subprocess.run(["sh", "-c", script, "sh", str(spool_dir)], check=True)

    support.drain(spool_dir)

    assert run_order(spool_dir) == [f"job{number}" for number in range(1, 51)]


def test_files_of_one_tick_of_the_clock_run_in_the_order_of_their_numbers(spool_dir: Path) -> None:
    """Files that arrive within one tick of the file system's clock have the same time; then their names decide."""
    spool = Spool(spool_dir)
    spool.refresh()
    for number in range(1, 51):
        support.drop(spool_dir, f"job{number}", command=note(spool_dir))

    support.drain(spool_dir)

    assert run_order(spool_dir) == [f"job{number}" for number in range(1, 51)]


def test_editing_a_waiting_file_keeps_its_place(spool_dir: Path) -> None:
    """Editing a job in pending/ does not move it to the end of the order."""
    spool = Spool(spool_dir)
    spool.refresh()
    start = time.time()
    spool._storage.now = lambda: start - 120
    spool.enqueue(note(spool_dir), id="edited")
    spool._storage.now = lambda: start - 60
    spool.enqueue(note(spool_dir), id="other")
    spool._storage.now = time.time
    path = spool_dir / "pending" / "edited.json"
    path.write_text(path.read_text().replace("echo", "echo ''; echo"))
    assert [row.id for row in spool.list()] == ["edited", "other"]

    support.drain(spool_dir)

    assert run_order(spool_dir) == ["edited", "other"]


def test_reindex_keeps_the_order(spool_dir: Path, cli: Cli) -> None:
    """The index may be deleted at any time: the order follows from the files, too."""
    spool = Spool(spool_dir)
    ids = [spool.enqueue(note(spool_dir), priority=5).id for _ in range(12)]
    urgent = spool.enqueue(note(spool_dir), priority=9).id
    for name in os.listdir(spool_dir / "data"):
        if name.startswith("queuectl.db"):
            (spool_dir / "data" / name).unlink()

    support.drain(spool_dir)

    assert run_order(spool_dir) == [urgent, *ids]


def asked(index: Index, ask: Callable[[], object]) -> list[str]:
    """The steps of SQLite's query plans, one line each."""
    statements: list[str] = []
    index.db.set_trace_callback(statements.append)
    ask()
    index.db.set_trace_callback(None)
    plans = [index.db.execute(f"EXPLAIN QUERY PLAN {text}").fetchall() for text in statements]
    return [step[3] for plan in plans for step in plan]


def test_next_job_is_found_without_looking_at_the_others() -> None:
    """T38, T39: the order is read from an SQL index: no scan of the waiting jobs, no sorting."""
    index = Index(":memory:", "/nonexistent", "boot")
    index.open()
    for number in range(20):
        put(index, Waiting(5, number, None, retry=False), number, at=NOW)
    put(index, Waiting(5, 0, -3600 * 10**6, retry=False), 20, at=NOW)

    steps = asked(index, lambda: support.first_ready(index))
    steps += asked(index, index.ready_and_due)
    steps += asked(index, lambda: index.mark_due_ready(round(NOW * 1e6)))
    index.close()

    assert len(steps) >= 3
    # Of questions with several parts; `found` has a row for each lane.
    frame = (
        "SCAN CONSTANT ROW",
        "SCALAR SUBQUERY",
        "CORRELATED",
        "CO-ROUTINE",
        "SETUP",
        "RECURSIVE STEP",
        "SCAN found",
    )
    looks = [step for step in steps if not step.startswith(frame)]
    assert [step for step in looks if "USING" not in step or "TEMP B-TREE" in step] == []


def test_enqueueing_a_job_changes_no_other_row() -> None:
    """T38: waiting needs no updates: what an enqueue writes does not depend on how many jobs wait."""
    changes = []
    for waiting in (0, 300):
        index = Index(":memory:", "/nonexistent", "boot")
        index.open()
        for number in range(waiting):
            put(index, Waiting(5, number, None, retry=False), number, at=NOW)
        before = index.db.total_changes
        put(index, Waiting(5, 0, None, retry=False), waiting, at=NOW)
        changes.append(index.db.total_changes - before)
        index.close()

    assert changes[0] == changes[1]


@pytest.mark.parametrize("priority", [0, 11, -1, 99, 5.5, "8", True])
def test_priority_outside_of_1_to_10_is_refused(spool_dir: Path, cli: Cli, priority: object) -> None:
    """R22, T31: the command line refuses it at once; a dropped file goes to dead/ with the reason beside it."""
    refused = cli("enqueue", "--priority", "x" if priority == "8" else str(priority), "--command", "true")
    assert refused.returncode == 2
    assert "priority" in refused.stderr
    support.drop(spool_dir, "job1", command=f"touch '{spool_dir}/ran'", priority=priority)

    support.drain(spool_dir, now=lambda: time.time() + 10)

    assert support.where_is(spool_dir, "job1") == ["dead"]
    assert "priority" in (spool_dir / "dead" / "job1.json.reason").read_text()
    assert not (spool_dir / "ran").exists()


def test_priority_is_five_and_timeout_twenty_in_every_form(spool_dir: Path, cli: Cli) -> None:
    """R14, R23: the defaults do not depend on how a job was queued."""
    cli("enqueue", "--id", "flag", "--command", "true", expect=0)
    cli("enqueue", '{"id": "json", "command": "true"}', expect=0)
    cli("enqueue", "--file", "-", stdin='{"id": "file", "command": "true"}', expect=0)
    Spool(spool_dir).enqueue("true", id="door")
    support.drop(spool_dir, "drop", command="true")

    support.drain(spool_dir)

    for job_id in ("flag", "json", "file", "door", "drop"):
        record = support.load(spool_dir / "done" / f"{job_id}.json")
        names = ("priority", "timeout", "max_retries", "backoff_base", "max_backoff")
        assert [record[name] for name in names] == [5, 20, 3, 2, 86400], job_id
