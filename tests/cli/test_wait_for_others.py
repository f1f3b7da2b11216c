"""`queuectl wait` for jobs that wait for other jobs, and for batches; the same from Python."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING

import pytest

from queuectl import Ended, JobError, Spool, StillUnderWay
from queuectl.api import dependencies
from queuectl.api.waiting import Waiting, find_obstacle, now_in_batch

import support

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def chain(spool_dir: Path) -> Spool:
    """`extract` is dead. `load` waits for it, and `tidy` for the end of `load`."""
    spool = Spool(spool_dir)
    spool.enqueue("exit 1", id="extract", max_retries=1)
    spool.enqueue("true", id="load", after="extract")
    spool.enqueue("true", id="tidy", after_any="load")
    support.drain(spool_dir)
    return spool


def test_a_wait_for_success_ends_when_a_parent_is_dead(chain: Spool, cli: Cli) -> None:
    """A script would wait for ever otherwise. It learns which job is dead, however far up the chain."""
    why = "job extract is dead: queuectl retry extract"
    assert chain.wait("tidy", success=True, timeout=5) == [Ended("tidy", "blocked", None, why)]
    told = cli("wait", "tidy", "--for", "success", expect=1)
    assert told.stdout == "tidy - blocked - job extract is dead: queuectl retry extract\n"
    found = json.loads(cli("wait", "load", "--for", "success", "--json", expect=1).stdout)
    assert [(one["id"], one["state"]) for one in found] == [("load", "blocked")]


def test_a_wait_says_what_blocks_the_job(
    chain: Spool, spool_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without --for success it goes on: somebody may mend the parent while it waits."""
    monkeypatch.setattr("queuectl.control.registry.live_workers", lambda _: [_Free()])
    notes: list[str] = []

    def mend() -> None:
        if notes and chain.get("extract").state == "dead":
            chain.retry("extract", command="true")
            support.drain(spool_dir)

    ended = Waiting(chain, ["load", "tidy"], obstacle=notes.append, beat=mend).run(5)
    assert notes[0] == "load cannot start, as job extract is dead: queuectl retry extract"
    assert [one.state for one in ended] == ["completed", "completed"]


class _Free:
    """A worker with a free slot."""

    name, kind, free, jobs = "worker-0", "worker", 1, ()


def test_a_missing_parent_may_still_come(spool_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of a chain are dropped in any order, so a wait for success goes on, and says what is missing."""
    monkeypatch.setattr("queuectl.control.registry.live_workers", lambda _: [_Free()])
    spool = Spool(spool_dir)
    support.drop(spool_dir, "child", command="true", after=["late", "batch:x=2"])
    with pytest.raises(StillUnderWay):
        spool.wait("child", success=True, timeout=0)
    assert find_obstacle(spool, ["child"]) == (
        "child cannot start, as there is no job late: queuectl set child after-=late"
    )
    spool.enqueue("true", id="late", hold=True)
    assert dependencies.cause(spool, "child") == "batch x has 0 of 2 jobs: queuectl show child"


def test_a_dead_part_ends_the_wait_for_its_join(spool_dir: Path) -> None:
    """The other parts may run for hours, and the join cannot succeed whatever they do. After any end it can."""
    spool = Spool(spool_dir)
    spool.enqueue("exit 1", id="bad", batch="x", max_retries=1)
    spool.enqueue("true", id="join", batch="x", after="batch:x")
    spool.enqueue("true", id="any", after_any="batch:x")
    support.drain(spool_dir)
    spool.enqueue("true", id="slow", batch="x", hold=True)
    why = "batch x has 1 dead job: queuectl retry --batch x"
    assert spool.wait("join", success=True, timeout=5) == [Ended("join", "blocked", None, why)]
    spool.retry("bad", command="exit 1")
    with pytest.raises(StillUnderWay):
        spool.wait("join", success=True, timeout=0)
    assert spool.wait("any", success=True, timeout=5) == [Ended("any", "completed", 0)]


def test_a_part_that_is_blocked_is_found_behind_its_batch(chain: Spool) -> None:
    """No member is dead: the dead job is the parent of one."""
    chain.set("load", batch="x")
    chain.enqueue("true", id="join", after="batch:x")
    why = "job extract is dead: queuectl retry extract"
    assert chain.wait("join", success=True, timeout=5) == [Ended("join", "blocked", None, why)]


def test_a_wait_for_a_batch_ends_with_its_last_job(spool_dir: Path, cli: Cli) -> None:
    """Also when that comes after the wait has begun. The exit code says whether all have succeeded."""
    spool = Spool(spool_dir)
    spool.enqueue("true", id="first", batch="x")
    support.drain(spool_dir)

    def tell(one: Ended) -> None:
        with Spool(spool_dir) as other:
            if one.id == "first":
                other.enqueue("exit 1", id="second", batch="x", max_retries=1)
                threading.Thread(target=support.drain, args=(spool_dir,)).start()

    assert [(one.id, one.state) for one in spool.wait(batch="x", tell=tell, timeout=10)] == [
        ("first", "completed"),
        ("second", "dead"),
    ]
    assert cli("wait", "--batch", "x", expect=1).stdout == "first - completed\nsecond - dead - Exit code 1\n"
    cli("wait", "--batch", "x", "--for", "success", expect=1)


def test_a_job_that_came_into_a_batch_and_died_meanwhile_is_told(spool_dir: Path) -> None:
    """A part may queue further parts. `wait --batch x && deploy` must not deploy as the others have succeeded."""
    spool = Spool(spool_dir)
    spool.enqueue("true", id="slow", batch="x")

    def beat() -> None:
        with Spool(spool_dir) as other:
            if other.counts()["dead"] == 0:
                other.enqueue("exit 1", id="late", batch="x", max_retries=1, priority=10)
                support.drain(spool_dir)

    waiting = Waiting(spool, ["slow"], more=lambda: now_in_batch(spool, "x"), beat=beat)
    assert {one.id: one.state for one in waiting.run(10)} == {"slow": "completed", "late": "dead"}


def test_a_wait_for_a_mistyped_batch_is_refused(chain: Spool, cli: Cli) -> None:
    """`queuectl wait --batch nihgt && deploy` must not deploy."""
    told = cli("wait", "--batch", "nihgt", expect=1).stderr
    assert told == "error: no job has the batch nihgt\nhint: queuectl batch list\n"
    with pytest.raises(JobError, match="no job has the batch nihgt"):
        chain.wait(batch="nihgt")
    with pytest.raises(TypeError):
        chain.wait("load", batch="x")
