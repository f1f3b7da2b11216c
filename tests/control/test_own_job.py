"""A command that a job calls does not wait for that job: it would wait until the job's time limit ends both."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pytest

from queuectl import Spool
from queuectl.api import listing
from queuectl.control import own_job
from queuectl.control.registration import Registration
from queuectl.errors import QueuectlError
from queuectl.layout import Layout

from support import claim_job, finished, load, run_cli, wait_until

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Cli = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="commands are written for sh")


@pytest.fixture
def inside(spool_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Spool]:
    """This process, and what it starts, belongs to the running job `mine` of worker-0."""
    spool = Spool(spool_dir)
    spool.enqueue("true", id="mine")
    registration = Registration.acquire(spool.layout)
    registration.announce("background")
    assert claim_job(spool._storage, listing.one(spool, "mine"), registration.name)
    for name, value in (("JOB_ID", "mine"), ("WORKER", registration.name)):
        monkeypatch.setenv(f"QUEUECTL_{name}", value)
    yield spool
    registration.release()


def test_variables_of_a_job_that_has_ended_mean_nothing(
    spool_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program that a job left in the background keeps them, and so does a shell that was started in a job."""
    layout = Layout(spool_dir)
    layout.create()
    for name, value in (("JOB_ID", "mine"), ("WORKER", "worker-0")):
        monkeypatch.setenv(f"QUEUECTL_{name}", value)
    assert own_job.find(layout) is None


def test_job_of_another_spool_is_not_meant(inside: Spool, tmp_path: Path) -> None:
    """A job of one spool may drain another one."""
    assert own_job.find(inside.layout) == own_job.OwnJob("mine", "worker-0")
    assert own_job.find(Layout(tmp_path / "other")) is None
    Spool(tmp_path / "other").drain(timeout=5)


def test_drain_in_a_job_pauses_nothing(inside: Spool) -> None:
    """It left the spool paused as well."""
    with pytest.raises(QueuectlError, match="job mine, and drain would wait"):
        inside.drain(timeout=5)
    assert inside.paused() is None


def test_wait_for_itself_is_refused_and_all_means_the_others(inside: Spool) -> None:
    """`wait mine` inside of it never ends; `wait --all` waits for all others."""
    with pytest.raises(QueuectlError, match="job mine, which would wait for itself"):
        inside.wait("mine", timeout=5)
    run_cli("wait", "--all", "--timeout", "5", expect=0)


def test_a_job_does_not_follow_its_own_output(inside: Spool) -> None:
    """`logs -f mine` inside of it waits for its end, and copies its own output for ever. Filters mean the others."""
    refused = run_cli("logs", "-f", "mine", expect=1)
    assert "this command belongs to job mine, which would follow its own output" in refused.stderr
    others = run_cli("logs", "-f", "--state", "processing", expect=0, timeout=20)
    assert others.stderr == "no jobs match\n"
    run_cli("logs", "mine", expect=0)


def test_enqueue_wait_without_another_worker_queues_nothing(inside: Spool) -> None:
    """The only worker runs the job that waits."""
    refused = run_cli("enqueue", "--id", "inner", "--wait", "true", expect=1)
    assert refused.stderr.startswith("error: worker-0 is the only worker, and it runs job mine, which would")
    assert [row.id for row in inside.list()] == ["mine"]


def test_forced_stop_in_a_job_stops_nothing(inside: Spool) -> None:
    """It would end the job, which is put back and does the same again, for ever."""
    refused = run_cli("worker", "stop", "--force", expect=1)
    assert "job mine, which --force would end" in refused.stderr
    assert [worker.stopping for worker in inside.workers()] == [False]


def test_a_job_can_stop_the_workers(spool_dir: Path) -> None:
    """The command returns at once, and the worker leaves when the job has ended."""
    spool = Spool(spool_dir)
    spool.enqueue(f"'{sys.executable}' -m queuectl worker stop", id="stopper", priority=9, max_retries=1)
    spool.enqueue("true", id="next")

    run_cli("worker", "start", "--foreground", expect=0)

    assert finished(spool_dir, "stopper")
    record = load(spool_dir / "done" / "stopper.json")
    assert "worker-0 stops when job stopper ends" in json.dumps(record["output"])
    assert (spool_dir / "pending" / "next.json").exists()


def test_wait_in_a_job_says_when_no_worker_is_free(inside: Spool, spool_dir: Path) -> None:
    """Another worker lives, and is busy: the wait is said, because both may wait for each other."""
    other = Registration.acquire(inside.layout)
    other.announce("background")
    inside.enqueue("true", id="theirs", priority=10)
    assert claim_job(inside._storage, listing.one(inside, "theirs"), other.name)
    try:
        waiting = run_cli("enqueue", "--id", "inner", "true", expect=0)
        waiting = run_cli("wait", "inner", "--timeout", "0.5", expect=75)
    finally:
        other.release()
    assert "note: no worker is free while worker-0 runs job mine, which waits here" in waiting.stderr
    wait_until((spool_dir / "pending" / "inner.json").exists)


def test_a_worker_with_a_free_slot_runs_what_its_job_waits_for(spool_dir: Path) -> None:
    """One worker with two slots is enough: the wait is neither refused nor said to be without hope."""
    spool = Spool(spool_dir)
    wait = f"'{sys.executable}' -m queuectl enqueue --id inner --wait true"
    spool.enqueue(wait, id="outer", timeout=30, max_retries=0)

    run_cli("worker", "start", "--foreground", "--drain", "-j", "2", expect=0)

    assert finished(spool_dir, "outer", "inner")
    assert "no worker is free" not in json.dumps(load(spool_dir / "done" / "outer.json"))


def test_two_jobs_of_one_worker_that_wait_say_that_nobody_is_free(spool_dir: Path) -> None:
    """Both slots are taken by jobs that wait: each is told at once what would help, and ends when its time is over."""
    spool = Spool(spool_dir)
    for name in ("one", "two"):
        there = (
            f'touch "$HOME/{name}"; while [ ! -e "$HOME/one" ] || [ ! -e "$HOME/two" ]; do sleep 0.02; done'
        )
        call = f"'{sys.executable}' -m queuectl"
        wait = f"{call} enqueue --id in-{name} true; {call} wait in-{name} --timeout 1 || exit 0"
        spool.enqueue(f"{there}; {wait}", id=name, timeout=30, max_retries=0)

    run_cli("worker", "start", "--foreground", "--drain", "-j", "2", expect=0)

    assert finished(spool_dir, "one", "two", "in-one", "in-two")
    said = "".join(json.dumps(load(spool_dir / "done" / f"{name}.json")) for name in ("one", "two"))
    assert "note: no worker is free while worker-0 runs job" in said
