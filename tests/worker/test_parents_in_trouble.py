"""Jobs that wait for jobs whose end is not simple: killed, cancelled, purged, put back, or one of very many."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import gate
import pytest
from gate import BLOCKED, started, worker_in_thread, worker_process
from noted import NOTED, drop, order

from queuectl import Filter, Spool
from queuectl.errors import NeverStarts

import support
from support import finished, load, wait_until, where_is

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="commands are written for sh")


@pytest.fixture
def home(spool_dir: Path) -> Path:
    return gate.home_with_gate(spool_dir)


def blocked(spool_dir: Path) -> list[str]:
    return [row.id for row in Spool(spool_dir).list(where=Filter(blocked=True))]


def test_a_parent_that_was_purged_is_unknown(spool_dir: Path, home: Path) -> None:
    """Trap 3. Nobody knows any more how it ended. A producer is told so, and a file waits."""
    spool = Spool(spool_dir)
    spool.enqueue("true", id="parent")
    support.drain(spool_dir)
    assert spool.purge(keep=0).jobs == 1
    with pytest.raises(NeverStarts, match="no job is called parent, so this could never start"):
        spool.enqueue("true", after="parent")
    for kind in ("after", "after_any", "after_failure"):
        drop(spool_dir, kind, **{kind: ["parent"]})
    support.drain(spool_dir)
    assert order(home) == []
    assert sorted(blocked(spool_dir)) == ["after", "after_any", "after_failure"]


def test_a_parent_that_kills_its_workers_lets_its_children_go(spool_dir: Path, home: Path) -> None:
    """Trap 7. No worker has seen its end: the one that finds it abandoned for the third time gives it up."""
    drop(spool_dir, "parent", command=BLOCKED, timeout=0, crashes=2, max_retries=5)
    drop(spool_dir, "tidy", after_any=["parent"])
    drop(spool_dir, "alarm", after_failure=["parent"])
    drop(spool_dir, "load", after=["parent"])
    with worker_process(spool_dir) as worker:
        wait_until(lambda: started(home) == {"parent": 1})
        worker.kill()
        worker.wait(10)
        support.drain(spool_dir)
    assert where_is(spool_dir, "parent") == ["dead"]
    assert load(spool_dir / "dead" / "parent.json")["crashes"] == 3
    assert sorted(order(home)) == ["alarm", "tidy"]
    assert blocked(spool_dir) == ["load"]


@pytest.mark.parametrize("runs", [False, True])
def test_a_cancelled_parent_is_dead_for_its_children(spool_dir: Path, home: Path, runs: bool) -> None:
    """Trap 8. Whoever cancels a job wants its tidying up done, and not what builds upon it."""
    drop(spool_dir, "parent", command=BLOCKED, timeout=0, priority=10, hold=not runs)
    drop(spool_dir, "tidy", after_any=["parent"])
    drop(spool_dir, "alarm", after_failure=["parent"])
    drop(spool_dir, "load", after=["parent"])
    with worker_in_thread(spool_dir, 2):
        wait_until(lambda: not runs or started(home) == {"parent": 1})
        Spool(spool_dir).cancel("parent")
        wait_until(lambda: finished(spool_dir, "parent", "tidy", "alarm"))
    assert sorted(order(home)) == ["alarm", "tidy"]
    assert where_is(spool_dir, "parent") == ["dead"]
    assert blocked(spool_dir) == ["load"]


def test_a_job_with_very_many_parents_runs_once_after_the_last(spool_dir: Path, home: Path) -> None:
    """Trap 9. Their list is too long for a variable, so the command finds it in a file."""
    spool = Spool(spool_dir)
    parents = [f"part{number}" for number in range(120)]
    join = 'printf x >> "$HOME/joined"; cp "$QUEUECTL_AFTER" "$HOME/parents"; ls "$QUEUECTL_SPOOL/pending" > "$HOME/left"'
    spool.enqueue_many(
        [{"id": "join", "command": join, "after": parents, "priority": 10}]
        + [{"id": name, "command": ["true"]} for name in parents]
    )
    with worker_in_thread(spool_dir, 2):
        wait_until(lambda: finished(spool_dir, "join"))
    lines = [line.split("\t") for line in (home / "parents").read_text().splitlines()]
    assert [line[:2] for line in lines] == [[name, "completed"] for name in parents]
    assert ((home / "joined").read_text(), (home / "left").read_text()) == ("x", "")


def test_a_join_starts_after_the_last_of_parts_that_are_quicker_than_their_producer(
    spool_dir: Path, home: Path
) -> None:
    """Trap 10. At most moments the batch looks as if it were over: each part ends before the next one comes."""
    spool = Spool(spool_dir)
    spool.enqueue('ls "$QUEUECTL_SPOOL/done" | wc -l > "$HOME/done"', id="join", after=["batch:x=100"])
    with worker_in_thread(spool_dir, 2):
        for number in range(100):
            spool.enqueue(["true"], id=f"part{number}", batch="x")
        wait_until(lambda: finished(spool_dir, "join"), 20)
    assert (home / "done").read_text().strip() == "100"


def test_an_empty_batch_is_not_over_unless_the_job_says_so(spool_dir: Path, home: Path) -> None:
    """Trap 11. Its name may be mistyped, or its jobs have not come yet."""
    for kind in ("after", "after_any", "after_failure"):
        drop(spool_dir, kind, **{kind: ["batch:nobody"]})
    drop(spool_dir, "empty", after=["batch:nobody=0"])
    support.drain(spool_dir)
    assert order(home) == ["empty"]
    assert sorted(blocked(spool_dir)) == ["after", "after_any", "after_failure"]


def test_a_retry_waits_for_a_parent_that_was_put_back(spool_dir: Path, home: Path) -> None:
    """Trap 15. The child has run once. Its second attempt needs what the parent makes anew."""
    drop(spool_dir, "parent")
    drop(spool_dir, "child", after=["parent"], command=f"{NOTED}; exit 1", max_retries=2, backoff_base=5)
    support.drain(spool_dir)
    assert order(home) == ["parent", "child"]
    (spool_dir / "done" / "parent.json").unlink()
    drop(spool_dir, "parent", hold=True)
    support.drain(spool_dir, now=lambda: 2_000_000_000.0)  # long after the retry is due
    assert order(home) == ["parent", "child"]
    Spool(spool_dir).release("parent")
    support.drain(spool_dir, now=lambda: 2_000_000_000.0)
    assert order(home) == ["parent", "child", "parent", "child"]


@pytest.mark.parametrize("index", ["new", "lost", "good"])
def test_a_ring_is_found_whatever_becomes_of_the_index(spool_dir: Path, home: Path, index: str) -> None:
    """Trap 17. Nobody looked while the files came, and who waits for whom is known only when all of them were read."""
    if index != "new":
        Spool(spool_dir).enqueue("true", id="first")
        support.drain(spool_dir)
    if index == "lost":
        (spool_dir / "data" / "queuectl.db").unlink()
    for job_id, parent in ("ab", "bc", "ca", "xb"):
        drop(spool_dir, job_id, after=[parent])
    support.drain(spool_dir)
    places = {"a": ["pending"], "b": ["pending"], "c": ["dead"], "x": ["pending"]}
    assert {job_id: where_is(spool_dir, job_id) for job_id in places} == places
    assert (spool_dir / "dead" / "c.json.reason").read_text().startswith("c waits for itself: c, a, b, c")
    (spool_dir / "data" / "queuectl.db").unlink()
    support.drain(spool_dir)
    assert {job_id: where_is(spool_dir, job_id) for job_id in places} == places
    assert sorted(blocked(spool_dir)) == ["a", "b", "x"]
