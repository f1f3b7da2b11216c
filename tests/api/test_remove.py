"""Removing jobs: gone with what they wrote, never a running one unless that is wanted."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from queuectl import MoveError, Spool
from queuectl.control.registration import Registration
from queuectl.storage import dead_letters

from support import claim_job, drain, drop_bytes, wait_until, where_is

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    from queuectl.index.row import Row
    from queuectl.storage.transitions import Storage

    Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def spool(spool_dir: Path) -> Spool:
    """One job of each state but running; with output that lies in logs/."""
    made = Spool(spool_dir)
    made.enqueue("seq 100000", id="done", tags=["x"])
    made.enqueue("exit 1", id="dead", max_retries=1, tags=["x"])
    made.enqueue("exit 1", id="failed", backoff_base=1000, tags=["x"])
    drain(spool_dir)
    made.enqueue("true", id="waits", tags=["x"])
    made.enqueue("true", id="held", hold=True)
    return made


def test_named_jobs_are_gone_with_what_they_wrote(cli: Cli, spool: Spool, spool_dir: Path) -> None:
    """In any state but running, without a question, and after the index is deleted too."""
    assert list((spool_dir / "logs").glob("done.*"))
    names = ["done", "dead", "failed", "waits", "held"]

    assert cli("remove", *names, expect=0).stdout == "".join(f"{name}: removed\n" for name in names)

    assert spool.list() == []
    assert not list((spool_dir / "logs").glob("done.*"))
    (spool_dir / "data" / "queuectl.db").unlink()
    assert Spool(spool_dir).list() == []
    assert "no job 'done'" in cli("remove", "done", expect=1).stderr


def test_running_job_is_refused(cli: Cli, spool: Spool, spool_dir: Path, workers: Callable[..., Any]) -> None:
    """The others are removed all the same, and the exit code tells."""
    spool.enqueue("sleep 60", id="runs", timeout=0)
    workers(1)
    wait_until(lambda: where_is(spool_dir, "runs") == ["processing/worker-0"])

    refused = cli("remove", "runs", "done", expect=1)

    assert refused.stdout == "done: removed\n"
    assert "job 'runs' is running and cannot be deleted" in refused.stderr
    with pytest.raises(MoveError):
        spool.forget("runs")


def test_cancel_ends_it_first(cli: Cli, spool: Spool, spool_dir: Path, workers: Callable[..., Any]) -> None:
    """With --cancel a running job is ended and then removed."""
    spool.enqueue("sleep 60", id="runs", timeout=0)
    workers(1)
    wait_until(lambda: where_is(spool_dir, "runs") == ["processing/worker-0"])

    assert cli("remove", "--cancel", "runs", "done", expect=0).stdout == "runs: removed\ndone: removed\n"

    assert where_is(spool_dir, "runs") == []
    assert not any(row.id == "runs" for row in Spool(spool_dir).list())


def test_described_jobs_are_asked_about(cli: Cli, spool: Spool) -> None:
    """--dry-run says which, nothing goes without --yes where nobody can answer, and with it they go."""
    would = cli("remove", "--tag", "x", "--dry-run", expect=0).stdout
    assert [line.split()[2] for line in would.splitlines()] == ["done", "dead", "failed", "waits"]
    assert "nothing was deleted" in cli("remove", "--tag", "x", expect=1).stderr
    assert len(spool.list()) == 5

    told = json.loads(cli("remove", "--tag", "x", "--state", "dead", "--yes", "--json", expect=0).stdout)

    assert told == [{"id": "dead", "removed": True}]
    assert cli("remove", "--all", "-y", expect=0).stdout.count("removed") == 4
    assert spool.list() == []
    assert "no jobs to remove" in cli("remove", "--all", "-y", expect=0).stderr
    assert "name the jobs" in cli("remove", expect=2).stderr


def test_rejected_file_is_removed_with_its_reason(cli: Cli, spool_dir: Path) -> None:
    """What could never be a job goes in the same way."""
    Spool(spool_dir).refresh()
    (spool_dir / "config.yaml").write_text("settle_time: 0\n")
    drop_bytes(spool_dir, "bad.json", b"{")
    drain(spool_dir)
    assert (spool_dir / "dead" / "bad.json.reason").exists()

    cli("remove", "bad", expect=0)

    assert list((spool_dir / "dead").iterdir()) == []


@pytest.fixture
def taken_at_the_last_moment(spool_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A waiting job that a worker claims just before its file would be deleted."""
    spool = Spool(spool_dir)
    spool.enqueue("true", id="a")
    worker = Registration.acquire(spool.layout)
    worker.announce("program")
    forget = dead_letters.forget

    def too_late(storage: Storage, row: Row, **how: Any) -> bool:
        if row.state != "pending":
            return forget(storage, row, **how)
        assert claim_job(storage, row, worker.name)
        assert not forget(storage, row, **how)
        assert storage.index.get(row.id), "the row of the claimed job is gone"
        return False

    monkeypatch.setattr(dead_letters, "forget", too_late)
    yield spool
    worker.release()


def test_job_that_a_worker_has_just_taken_is_not_said_to_be_removed(
    taken_at_the_last_moment: Spool, spool_dir: Path
) -> None:
    """It runs; to say that it is removed would be wrong."""
    with pytest.raises(MoveError, match="is running"):
        taken_at_the_last_moment.forget("a")

    assert where_is(spool_dir, "a") == ["processing/worker-0"]
    assert taken_at_the_last_moment.row("a").state == "processing"


def test_clear_counts_a_job_that_a_worker_has_just_taken(taken_at_the_last_moment: Spool) -> None:
    """It is kept, and not overlooked."""
    assert taken_at_the_last_moment.clear() == (0, 1)


def test_job_of_which_a_dead_worker_has_a_file_does_not_come_back(spool: Spool, spool_dir: Path) -> None:
    """A crash in the middle of a settle leaves a copy, which recovery would put back once the job is deleted."""
    before = (spool_dir / "done" / "done.json").read_bytes()
    copy = {**json.loads(before), "history": [], "state": "processing", "attempts": 0}
    drop_bytes(spool_dir, "done.json", json.dumps(copy).encode(), "processing/worker-7")

    spool.forget("done")

    assert where_is(spool_dir, "done") == []
    drain(spool_dir)
    assert where_is(spool_dir, "done") == []


def test_job_that_a_living_worker_is_settling_is_waited_for(
    spool: Spool, spool_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its outcome is in done/, and its claimed file is not gone yet."""
    worker = Registration.acquire(spool.layout)
    worker.announce("program")
    claimed = drop_bytes(spool_dir, "done.json", b'{"command": "true"}', f"processing/{worker.name}")
    looked: list[int] = []

    def asleep(_: float) -> None:
        assert sorted(where_is(spool_dir, "done")) == ["done", f"processing/{worker.name}"]
        looked.append(1)
        claimed.unlink()

    monkeypatch.setattr("time.sleep", asleep)
    try:
        spool.forget("done")
    finally:
        worker.release()

    assert looked == [1]
    assert where_is(spool_dir, "done") == []
