"""A verb for a job and all that wait for it: cancel, retry, forget."""

from __future__ import annotations

import json
import sys
from itertools import pairwise
from random import Random
from typing import TYPE_CHECKING, Any

import gate
import pytest
from gate import drop_blocked, release, started, worker_in_thread

from queuectl import MoveError, Spool
from queuectl.errors import StillNeeded

import support
from support import finished, load, wait_until, where_is

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="commands are written for sh")


@pytest.fixture
def home(spool_dir: Path) -> Path:
    return gate.home_with_gate(spool_dir)


def places(spool_dir: Path, *job_ids: str) -> str:
    """Where each of these jobs is, in words."""
    return " ".join("/".join(where_is(spool_dir, job_id)) or "nowhere" for job_id in job_ids)


def a_chain(spool_dir: Path, length: int) -> list[str]:
    """A chain of dead jobs behind `first`, as if_blocked leaves them; they have arrived in any order."""
    names = ["first", *(f"j{number}" for number in range(length))]
    records: list[dict[str, Any]] = [
        {"id": "first", "command": '[ -e "$HOME/mended" ]', "last_error": "Exit code 1"}
    ]
    records += [
        {"id": name, "command": "true", "after": [parent], "if_blocked": "dead"}
        | {"last_error": f"Parent job {parent} is dead"}
        for parent, name in pairwise(names)
    ]
    for record in Random(1).sample(records, len(records)):
        data = json.dumps({"state": "dead", "max_retries": 1, "timeout": 20, **record}).encode()
        support.drop_bytes(spool_dir, f"{record['id']}.json", data, "dead")
    assert Spool(spool_dir).counts()["dead"] == length + 1
    return names


def test_all_that_a_dead_job_has_taken_with_it_come_back_in_order(spool_dir: Path, home: Path) -> None:
    """Trap 19. The index knows nothing any more of what dead jobs have waited for, but for their own rows."""
    names = a_chain(spool_dir, 200)
    (spool_dir / "data" / "queuectl.db").unlink()
    spool = Spool(spool_dir)
    assert spool.retry("first", downstream=True).state == "pending"
    assert [row.id for row in spool.list("pending")] == names


def test_a_chain_that_is_mended_runs_to_its_end(spool_dir: Path, home: Path) -> None:
    """The jobs that come back wait for the first one, and each for the one before it."""
    names = a_chain(spool_dir, 5)
    (home / "mended").touch()
    Spool(spool_dir).retry("first", downstream=True, timeout=60)
    assert [load(spool_dir / "pending" / f"{name}.json")["timeout"] for name in names] == [60, *[20] * 5]
    support.drain(spool_dir)
    assert places(spool_dir, *names) == " ".join(["done"] * 6)


def test_a_parent_that_was_put_back_already_is_no_error(spool_dir: Path, home: Path) -> None:
    """Somebody has retried it without the others, and now wants them."""
    names = a_chain(spool_dir, 3)
    spool = Spool(spool_dir)
    spool.retry("first")
    assert spool.retry("first", downstream=True).state == "pending"
    assert places(spool_dir, *names) == "pending pending pending pending"
    with pytest.raises(MoveError, match="is pending"):
        spool.retry("first", downstream=True)


def test_a_retry_undoes_a_cancel_of_the_same_jobs_and_no_other(spool_dir: Path, home: Path) -> None:
    """A job that somebody has cancelled by itself must not run because its parent is mended."""
    spool = Spool(spool_dir)
    spool.enqueue("true", id="a")
    spool.enqueue("true", id="b", after="a")
    spool.enqueue("true", id="c", after="b")
    assert spool.cancel("a", downstream=True) == "cancelled"
    assert places(spool_dir, "a", "b", "c") == "dead dead dead"
    spool.retry("a", downstream=True)
    assert places(spool_dir, "a", "b", "c") == "pending pending pending"

    names = a_chain(spool_dir, 2)
    spool.enqueue("true", id="given-up", after="first", hold=True)
    spool.cancel("given-up")
    spool.retry("first", downstream=True)
    assert places(spool_dir, *names, "given-up") == "pending pending pending dead"


def test_a_cancel_downstream_lets_nothing_start_that_waits_for_the_end(spool_dir: Path, home: Path) -> None:
    """Cancelled alone, a job is dead, which is what the jobs of after_any and after_failure wait for."""
    drop_blocked(spool_dir, "running")
    support.drop(spool_dir, "alarm", command="true", after_failure=["running"])
    support.drop(spool_dir, "tidy", command="true", after_any=["running", "alarm"])
    support.drop(spool_dir, "other", command="true", hold=True)
    with worker_in_thread(spool_dir, 3):
        wait_until(lambda: started(home) == {"running": 1})
        spool = Spool(spool_dir)
        assert spool.cancel("running", downstream=True) == "cancelled"
        assert places(spool_dir, "running", "alarm", "tidy", "other") == "dead dead dead pending"
    assert [load(spool_dir / "dead" / f"{name}.json").get("history") for name in ("alarm", "tidy")] == [
        None,
        None,
    ]


def test_what_is_blocked_by_a_dead_job_can_be_cancelled_by_its_name(spool_dir: Path, home: Path) -> None:
    """The parent is over already, and that is no reason to refuse the rest."""
    spool = Spool(spool_dir)
    spool.enqueue("exit 1", id="parent", max_retries=1)
    spool.enqueue("true", id="child", after="parent")
    spool.enqueue("true", id="grandchild", after="child")
    support.drain(spool_dir)
    assert spool.cancel_many(["parent"], downstream=True) == {"child": "cancelled", "grandchild": "cancelled"}
    with pytest.raises(MoveError, match="'parent' is dead"):
        spool.cancel("parent", downstream=True)


def test_a_removal_downstream_takes_what_could_never_start_again(spool_dir: Path, home: Path) -> None:
    """Dead ones, too: retried without their parents they would be blocked. What is completed is history, and stays."""
    names = a_chain(spool_dir, 3)
    spool = Spool(spool_dir)
    spool.enqueue("true", id="tidy", after_any="first")
    support.drain(spool_dir)
    spool.enqueue("true", id="waits", after="j1")
    spool.forget("first", downstream=True)
    assert places(spool_dir, *names, "waits", "tidy") == "nowhere nowhere nowhere nowhere nowhere done"


def test_a_removal_keeps_the_parent_of_a_job_that_runs(spool_dir: Path, home: Path) -> None:
    """The job was told where the record and the output of its parent are."""
    support.drop(spool_dir, "parent", command="true")
    drop_blocked(spool_dir, "child", after=["parent"])
    with worker_in_thread(spool_dir, 2):
        wait_until(lambda: started(home) == {"child": 1})
        spool = Spool(spool_dir)
        results = spool.forget_many(["parent"], downstream=True)
        assert {job_id: type(error) for job_id, error in results.items() if error} == {
            "parent": StillNeeded,
            "child": MoveError,
        }
        assert where_is(spool_dir, "parent") == ["done"]
        release(home, lambda: finished(spool_dir, "child"))
