"""Jobs that are not worth starting any more: never run, uncharged, in dead/ with the reason, soon."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from queuectl import Spool, Worker
from queuectl.index.index import Index
from queuectl.job import times
from queuectl.layout import Layout
from queuectl.storage.transitions import Storage
from queuectl.system.host import boot_id
from queuectl.worker import maintenance

import support

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    Cli = Callable[..., subprocess.CompletedProcess[str]]


def swept(spool_dir: Path, now: Callable[[], float] = time.time) -> list[str]:
    """Let the chore run once, as a worker does every few seconds; returns what it said."""
    layout = Layout(spool_dir)
    index = Index(layout.index, layout.root, boot_id())
    index.open()
    said: list[str] = []
    try:
        maintenance.give_up_all_expired(Storage(layout, index, now), said.append)
    finally:
        index.close()
    return said


def test_an_expired_job_is_not_run_and_not_charged(spool_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker that reaches it puts it into dead/ with the moment, and goes on."""
    monkeypatch.setattr(maintenance, "give_up_all_expired", lambda *_: True)
    spool = Spool(spool_dir)
    job = spool.enqueue("touch ran", id="late", cwd=str(spool_dir), expires_in=60)
    spool.enqueue("true", id="other", priority=1)

    said = support.drain(spool_dir, now=lambda: time.time() + 61)

    record = support.load(spool_dir / "dead" / "late.json")
    assert record["last_error"] == f"Expired (expires_at was {times.iso(job.expires_at or 0)})"
    assert (record.get("attempts", 0), "history" in record) == (0, False)
    assert not (spool_dir / "ran").exists()
    assert support.where_is(spool_dir, "other") == ["done"]
    assert f"dead late: {record['last_error']}" in said


def test_a_job_in_time_runs(spool_dir: Path) -> None:
    """The very moment is still in time."""
    moment = time.time() + 100
    Spool(spool_dir).enqueue("true", id="job1", expires_at=moment)

    support.drain(spool_dir, now=lambda: times.parse_moment(moment))

    assert support.where_is(spool_dir, "job1") == ["done"]


def test_a_retry_that_would_come_too_late_is_not_waited_for(spool_dir: Path) -> None:
    """Dead at once, with both reasons; one that comes in time is waited for."""
    spool = Spool(spool_dir)
    spool.enqueue("exit 3", id="late", backoff_base=100, expires_in=60)
    spool.enqueue("exit 3", id="fine", backoff_base=30, expires_in=60)

    support.drain(spool_dir)

    record = support.load(spool_dir / "dead" / "late.json")
    assert record["attempts"] == 1
    assert record["last_error"].startswith("Exit code 3; the next attempt would come after expires_at (2")
    assert support.where_is(spool_dir, "fine") == ["pending"]


WAITS: dict[str, dict[str, Any]] = {
    "held": {"hold": True},
    "scheduled": {"delay": 49},
    "failed": {"backoff_base": 40},
}


@pytest.mark.parametrize("how", [*WAITS, "dropped"])
def test_one_that_no_worker_would_reach_is_given_up_too(spool_dir: Path, how: str) -> None:
    """Held, for later, waiting for a retry, or a file that somebody dropped: the look every few seconds finds it."""
    spool = Spool(spool_dir)
    soon = time.time() + 50
    if how == "dropped":
        support.drop(spool_dir, "job1", command="true", hold=True, expires_at=soon)
    else:
        spool.enqueue("exit 1", id="job1", expires_at=soon, **WAITS[how])
    if how == "failed":
        support.drain(spool_dir)
    spool.refresh()

    assert swept(spool_dir) == []
    assert swept(spool_dir, lambda: soon + 1)[0].startswith("dead job1: Expired (expires_at was ")
    assert support.where_is(spool_dir, "job1") == ["dead"]
    assert spool.get("job1").last_error.startswith("Expired")  # type: ignore[union-attr]


def test_an_idle_worker_gives_up_what_expires(spool_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody has to ask: the worker's own look does it."""
    monkeypatch.setattr(maintenance, "EVERY", 0.1)
    spool = Spool(spool_dir)
    spool.enqueue("true", id="job1", hold=True, expires_in=1.5)
    worker = Worker(spool_dir)
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        support.wait_until(lambda: support.where_is(spool_dir, "job1") == ["dead"])
    finally:
        worker.stop()
        thread.join()


def test_a_moment_that_was_moved_in_the_file_counts(spool_dir: Path) -> None:
    """The index may be behind: what the file says now decides, and the look does not come back to it for ever."""
    spool = Spool(spool_dir)
    spool.refresh()
    spool.enqueue("true", id="job1", hold=True, expires_in=10)
    path = spool_dir / "pending" / "job1.json"
    record = support.load(path)
    path.write_text(path.read_text().replace(record["expires_at"], "2100-01-01T00:00:00Z"))

    assert swept(spool_dir, lambda: time.time() + 20) == []
    assert support.where_is(spool_dir, "job1") == ["pending"]
    spool.refresh()
    assert spool.get("job1").expires_at == times.parse_moment("2100-01-01T00:00:00Z")
    assert spool._index.expired(round((time.time() + 20) * 1e6), 9) == []


@pytest.mark.parametrize("how", ["dlq retry", "mv"])
def test_who_puts_an_expired_job_back_wants_it_to_run(spool_dir: Path, cli: Cli, how: str) -> None:
    """By command or by hand: the moment that has passed is taken off, the look leaves it alone, and it runs."""
    spool = Spool(spool_dir)
    spool.enqueue("true", id="job1", expires_at=time.time() - 5)
    support.drain(spool_dir)
    assert support.where_is(spool_dir, "job1") == ["dead"]

    if how == "mv":
        (spool_dir / "dead" / "job1.json").rename(spool_dir / "pending" / "job1.json")
    else:
        cli("dlq", "retry", "job1", expect=0)
    assert spool.get("job1").expires_at is None
    assert swept(spool_dir) == []
    support.drain(spool_dir)

    assert support.where_is(spool_dir, "job1") == ["done"]
    assert "expires_at" not in support.load(spool_dir / "done" / "job1.json")


def test_a_million_waiting_jobs_are_not_looked_through(spool_dir: Path) -> None:
    """The look asks an index of the moments alone."""
    spool = Spool(spool_dir)
    spool.refresh()
    asked: list[str] = []
    spool._index.db.set_trace_callback(asked.append)
    spool._index.expired(5, 9)

    plan = " ".join(row[3] for row in spool._index.db.execute(f"EXPLAIN QUERY PLAN {asked[-1]}"))

    assert "jobs_expires" in plan
    assert "TEMP B-TREE" not in plan
