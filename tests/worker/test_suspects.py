"""A job whose worker died twice starts apart from others. It waits for that, but not for ever, and nobody waits for it."""

from __future__ import annotations

import itertools
import json
import sys
import time
from typing import TYPE_CHECKING

import gate
import pytest
from gate import STARTED, drop_blocked, names, release, started, worker_in_thread

from queuectl import Spool
from queuectl.control import run_lock
from queuectl.job import outcome
from queuectl.job.record import Job
from queuectl.layout import Layout
from queuectl.worker import suspects

import support
from support import finished, load, wait_until, where_is

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="commands are written for sh")


@pytest.fixture
def home(spool_dir: Path) -> Path:
    return gate.home_with_gate(spool_dir)


def test_jobs_behind_one_that_waits_run_and_it_counts_as_pending(spool_dir: Path, home: Path) -> None:
    drop_blocked(spool_dir, "long")
    with worker_in_thread(spool_dir, 16):
        wait_until(lambda: len(started(home)) == 1)
        Spool(spool_dir).pause()
        support.drop(spool_dir, "suspect", command=STARTED, crashes=2, priority=9)
        for name in names(40):
            support.drop(spool_dir, name, command="true")
        Spool(spool_dir).resume()
        wait_until(lambda: finished(spool_dir, *names(40)))
        assert where_is(spool_dir, "suspect") == ["pending"]
        release(home, lambda: finished(spool_dir, "long", "suspect"))
    first, second = (load(spool_dir / "done" / f"{name}.json") for name in ("long", "suspect"))
    assert first["finished_at"] <= second["started_at"]


def test_an_idle_worker_takes_one_that_waits_in_another(spool_dir: Path, home: Path) -> None:
    drop_blocked(spool_dir, "long")
    with worker_in_thread(spool_dir, 4):
        wait_until(lambda: len(started(home)) == 1)
        support.drop(spool_dir, "suspect", command="true", crashes=2)
        with worker_in_thread(spool_dir, 1):
            wait_until(lambda: finished(spool_dir, "suspect"))
            assert where_is(spool_dir, "long") == ["processing/worker-0"]


def test_no_job_is_kept_waiting_for_one_that_is_gone(
    spool_dir: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its turn has come, and another worker has taken it, or somebody has deleted it."""
    drop_blocked(spool_dir, "long")
    with worker_in_thread(spool_dir, 3) as worker:
        wait_until(lambda: len(started(home)) == 1)
        support.drop(spool_dir, "suspect", command="true", crashes=2)
        wait_until(lambda: worker._slots.suspects)
        monkeypatch.setattr(worker._slots.suspects, "_pass_until", 0.0)
        assert not worker._slots.free
        Spool(spool_dir).cancel("suspect")
        support.drop(spool_dir, "next", command="true")
        wait_until(lambda: finished(spool_dir, "next"))


def test_short_jobs_before_one_that_waits_are_recorded(spool_dir: Path, home: Path) -> None:
    """They would run again after the worker's death."""
    drop_blocked(spool_dir, "long")
    with worker_in_thread(spool_dir, 4):
        wait_until(lambda: len(started(home)) == 1)
        Spool(spool_dir).pause()
        for name in names(4):
            support.drop(spool_dir, name, command=["sleep", "0.02"], priority=9)
        support.drop(spool_dir, "suspect", command="true", crashes=2, priority=1)
        Spool(spool_dir).resume()
        wait_until(lambda: finished(spool_dir, *names(4)))
        assert where_is(spool_dir, "suspect") == ["pending"]


def test_those_without_end_start_one_after_the_other_and_stop_no_other_job(
    spool_dir: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(suspects, "APART", 1.0)
    drop_blocked(spool_dir, "one", "two", crashes=2, priority=9)
    drop_blocked(spool_dir, "fresh")
    with worker_in_thread(spool_dir, 4):
        wait_until(lambda: set(started(home)) == {"one", "two", "fresh"})
        since = sorted(job.since for job in Spool(spool_dir).workers()[0].jobs if job.since)
        assert len(since) == 3
        assert min(later - before for before, later in itertools.pairwise(since)) >= 1.0
        support.drop(spool_dir, "next", command="true")
        wait_until(lambda: finished(spool_dir, "next"))


def test_it_gets_its_turn_although_jobs_before_it_never_cease(
    spool_dir: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside a job without end, too. No other run is young when it starts, and none starts while it is young."""
    monkeypatch.setattr(suspects, "APART", 1.0)
    drop_blocked(spool_dir, "long")
    with worker_in_thread(spool_dir, 3):
        wait_until(lambda: len(started(home)) == 1)
        support.drop(spool_dir, "suspect", command="sleep 0.4", crashes=2, priority=1)
        number, began = 0, time.monotonic()
        while not finished(spool_dir, "suspect"):
            support.drop(spool_dir, f"job{number}", command="sleep 0.1", priority=9)
            number += 1
            time.sleep(0.04)  # not a wait: jobs come faster than two slots run them
            assert time.monotonic() - began < 12
        release(home, lambda: finished(spool_dir, *names(number)))
    mine = load(spool_dir / "done" / "suspect.json")
    beside = [
        name
        for name in names(number)
        if (other := load(spool_dir / "done" / f"{name}.json"))
        and other["started_at"] < mine["finished_at"]
        and mine["started_at"] < other["finished_at"]
    ]
    assert not beside
    assert any(
        load(spool_dir / "done" / f"{name}.json")["started_at"] < mine["started_at"] for name in names(number)
    )


def test_jobs_of_a_machine_that_was_restarted_start_together(spool_dir: Path, home: Path) -> None:
    """After two power cuts all long jobs would start one by one. Still they are dead after the third death."""
    layout = Layout(spool_dir)
    layout.create()
    claims = spool_dir / "processing" / "worker-0"
    claims.mkdir(mode=0o700)
    for place, name in enumerate(names(3)):
        slot = f"worker-0.{place}" if place else "worker-0"
        run_lock.acquire(layout, slot, name, "1.5", "earlier").release()
        record = {"id": name, "command": gate.BLOCKED, "timeout": 0, "crashes": 1}
        (claims / f"{name}.json").write_text(json.dumps(record))
        (claims / f"{name}.json").chmod(0o600)
    with worker_in_thread(spool_dir, 4):
        wait_until(lambda: set(started(home)) == set(names(3)))
        release(home, lambda: finished(spool_dir, *names(3)))
    (entry, _) = load(spool_dir / "done" / "job0.json")["history"]
    assert (entry["outcome"], entry["restarted"]) == ("interrupted", True)


def test_the_crashes_of_a_job_still_count_after_a_restart() -> None:
    job = Job(id="x", command="true", crashes=1)
    assert outcome.record_crash(job, "worker-0", "died", now=1.0, limit=3, restarted=True) == "pending"
    assert (job.crashes, outcome.is_suspect(job)) == (2, False)
    assert outcome.record_crash(job, "worker-0", "died", now=2.0, limit=4) == "pending"
    assert (job.crashes, outcome.is_suspect(job)) == (3, True)
    assert outcome.record_crash(job, "worker-0", "died", now=3.0, limit=4, restarted=True) == "dead"
