"""A paused spool: the file, the commands, and what workers do."""

from __future__ import annotations

import json
import os
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest

from queuectl import Spool, StillUnderWay, Worker
from queuectl.job.redact import REASON_LENGTH

from support import drop, finished, load, run_cli, wait_until, where_is

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def paused_workers(spool_dir: Path) -> int:
    """How many workers say in their record that they are paused."""
    records = [load(path) for path in (spool_dir / "data" / "workers").glob("worker-*.json")]
    return sum(bool(record.get("paused")) for record in records)


def test_file_called_paused_stops_starts_until_it_is_gone(
    spool_dir: Path, workers: Callable[..., Any]
) -> None:
    """Any tool can pause and resume running workers with `touch` and `rm`."""
    workers(2)
    (spool_dir / "paused").touch()
    wait_until(lambda: paused_workers(spool_dir) == 2, timeout=5)

    drop(spool_dir, "a", command="true")
    Spool(spool_dir).enqueue("true", id="b")
    (spool_dir / "data" / "queuectl.db").unlink()
    time.sleep(1.5)  # longer than anything that could still start one takes
    assert where_is(spool_dir, "a") == where_is(spool_dir, "b") == ["pending"]

    (spool_dir / "paused").unlink()
    wait_until(lambda: finished(spool_dir, "a", "b"))


@pytest.mark.parametrize("kind", ["folder", "broken link"])
def test_whatever_is_called_paused_counts(spool_dir: Path, cli: Callable[..., Any], kind: str) -> None:
    """A folder or a broken link of that name pauses as well, and `resume` removes it."""
    Spool(spool_dir).enqueue("true", id="a")
    if kind == "folder":
        (spool_dir / "paused").mkdir()
    else:
        (spool_dir / "paused").symlink_to("nowhere")

    Worker(spool_dir, drain=True).run()
    assert where_is(spool_dir, "a") == ["pending"]

    cli("resume", expect=0)
    Worker(spool_dir, drain=True).run()
    assert where_is(spool_dir, "a") == ["done"]


def test_what_the_file_says_is_the_reason(
    spool_dir: Path, cli: Callable[..., Any], workers: Callable[..., Any]
) -> None:
    """status, worker list and doctor show the text of the file, without control characters."""
    workers(1)
    (spool_dir / "paused").write_text("new disk,\nback at \x1b[31mnoon\n")

    wait_until(lambda: "new disk, back at" in cli("worker", "list").stdout)
    status = cli("status", "--json")
    told = json.loads(status.stdout)
    assert told["paused"]["reason"] == r"new disk, back at \x1b[31mnoon"
    assert any("new disk" in note for note in told["notes"])
    assert "\x1b" not in status.stdout + cli("worker", "list").stdout + cli("status").stderr

    doctor = cli("doctor", expect=0)
    assert "paused" in doctor.stdout + doctor.stderr


def test_a_reason_as_long_as_a_book_is_cut(spool_dir: Path) -> None:
    """Status stays readable, however long the text is."""
    spool = Spool(spool_dir)
    spool.refresh()
    (spool_dir / "paused").write_text("word " * 10_000)

    found = spool.paused()

    assert found is not None
    assert len(found.reason) == REASON_LENGTH + 1


def test_when_pause_returns_nothing_is_started_any_more(
    spool_dir: Path, cli: Callable[..., Any], workers: Callable[..., Any]
) -> None:
    """In the middle of a drain, no run begins after the moment at which `pause` has returned."""
    spool = Spool(spool_dir)
    spool.enqueue_many({"command": "sleep 0.01"} for _ in range(600))
    workers(2)
    wait_until(lambda: spool.counts()["completed"] > 20)

    cli("pause", expect=0)
    returned = time.time()
    spool.drain()

    begun = [load(path)["started_at"] for path in (spool_dir / "done").glob("*.json")]
    assert spool.counts()["pending"] > 0
    assert max(map(_moment, begun)) <= returned
    for log in (spool_dir / "data" / "workers").glob("*.log"):
        _, _, after = log.read_text().partition("pausing: by hand")
        assert "executing" not in after, "a job claimed before it took notice was started after"


def _moment(text: str) -> float:
    from datetime import datetime

    return datetime.fromisoformat(text).timestamp()


def test_job_claimed_ahead_is_put_back(spool_dir: Path) -> None:
    """A worker claims the next job in the step that ends one; paused between the two, it does not start it."""
    spool = Spool(spool_dir)
    spool.enqueue_many([{"id": "a", "command": "true"}, {"id": "b", "command": "true"}])
    seen: list[list[str]] = []

    def say(line: str) -> None:
        if line.startswith("completed"):
            seen.append(where_is(spool_dir, "b"))
            (spool_dir / "paused").touch()
            worker._upkeep.due_at = 0.0

    worker = Worker(spool_dir, drain=True, say=say)
    worker.run()

    assert seen == [["processing/worker-0"]]
    assert where_is(spool_dir, "b") == ["pending"]


def test_worker_that_is_started_on_a_paused_spool_says_so(
    spool_dir: Path, cli: Callable[..., Any], workers: Callable[..., Any]
) -> None:
    """It starts, says why it does nothing, and begins when the spool is resumed."""
    Spool(spool_dir).enqueue("true", id="a")
    cli("pause", "--reason", "moving house", expect=0)

    started = workers(1)

    assert "moving house" in started.stderr
    assert "queuectl resume" in started.stderr
    wait_until(lambda: paused_workers(spool_dir) == 1)
    assert where_is(spool_dir, "a") == ["pending"]
    cli("resume", expect=0)
    wait_until(lambda: finished(spool_dir, "a"))


def test_worker_that_is_to_leave_when_done_leaves_a_paused_spool(
    spool_dir: Path, cli: Callable[..., Any]
) -> None:
    """`worker start --drain` from cron does not hang for as long as the spool is paused."""
    Spool(spool_dir).enqueue("true", id="a")
    cli("pause", expect=0)

    left = cli("worker", "start", "--foreground", "--drain", "--wait-retries", expect=0, timeout=20)

    assert "pausing: by hand" in left.stdout
    assert where_is(spool_dir, "a") == ["pending"]


def test_workers_of_a_paused_spool_can_be_stopped(
    spool_dir: Path, cli: Callable[..., Any], workers: Callable[..., Any]
) -> None:
    """`worker stop` does not wait for jobs that will not run."""
    Spool(spool_dir).enqueue("true")
    cli("pause", expect=0)
    workers(2)

    assert cli("worker", "stop", expect=0, timeout=15).stdout == "Stopped 2 worker(s)\n"


def test_drain_waits_for_the_jobs_in_hand(
    spool_dir: Path, cli: Callable[..., Any], workers: Callable[..., Any]
) -> None:
    """It returns when nothing runs. Waiting jobs stay, and the spool stays paused."""
    spool = Spool(spool_dir)
    gate = spool_dir.parent / "gate"
    spool.enqueue(f"while [ ! -e {gate} ]; do sleep 0.05; done", id="a")
    spool.enqueue("true", id="b", priority=1)
    workers(1)
    wait_until(lambda: where_is(spool_dir, "a") == ["processing/worker-0"])

    late = cli("drain", "--timeout", "1.5", expect=75)
    assert "still running: a" in late.stderr
    assert (spool_dir / "paused").exists()

    gate.touch()
    assert cli("drain", expect=0).stdout == "drained\n"
    assert where_is(spool_dir, "a") == ["done"]
    assert where_is(spool_dir, "b") == ["pending"]
    assert (spool_dir / "paused").exists()


def test_drain_from_python_names_what_still_runs(spool_dir: Path, workers: Callable[..., Any]) -> None:
    """The error has the ids."""
    spool = Spool(spool_dir)
    spool.enqueue("sleep 30", id="long", timeout=0)
    workers(1)
    wait_until(lambda: where_is(spool_dir, "long") == ["processing/worker-0"])

    with pytest.raises(StillUnderWay) as late:
        spool.drain(timeout=0)

    assert late.value.left == ["long"]


def test_worker_that_does_not_answer_is_named(spool_dir: Path, workers: Callable[..., Any]) -> None:
    """`pause` does not wait without end for a worker that was suspended (SIGSTOP), and does not claim that it has noticed."""
    workers(1)
    spool = Spool(spool_dir)
    [worker] = wait_until(spool.workers)
    os.kill(worker.pid, signal.SIGSTOP)
    try:
        assert spool.pause(patience=0.5) == ["worker-0"]
    finally:
        os.kill(worker.pid, signal.SIGCONT)
    assert spool.pause() == []


def test_pausing_twice_keeps_the_reason(spool_dir: Path, cli: Callable[..., Any]) -> None:
    """A second `pause` without a reason does not wipe out the first one's; resuming twice is no error."""
    cli("pause", "--reason", "deploy", expect=0)
    told = json.loads(cli("pause", "--json", expect=0).stdout)

    assert told["paused"]["reason"] == "deploy"
    assert told["workers_not_paused"] == []
    assert json.loads(cli("resume", "--json", expect=0).stdout) == {"paused": None, "resumed": True}
    assert cli("resume", expect=0).stdout == "not paused\n"


def test_pause_makes_a_spool_that_is_not_there_yet(spool_dir: Path) -> None:
    """Like every command, it needs no set-up first."""
    run_cli("pause", expect=0)

    assert (spool_dir / "paused").read_bytes() == b""
    assert (spool_dir / "pending").is_dir()
