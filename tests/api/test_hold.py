"""Hold and release: by the commands, in the job's file, and while somebody else has a hand on the job."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from queuectl import InvalidJob, JobNotFound, MoveError, Spool, Worker
from queuectl.storage.settle import settle
from queuectl.system import files

from support import drain, drop, finished, load, wait_until, where_is

if TYPE_CHECKING:
    import os
    from collections.abc import Callable
    from pathlib import Path


def test_held_job_waits_until_it_is_released(
    spool_dir: Path, cli: Callable[..., Any], workers: Callable[..., Any]
) -> None:
    """Workers leave it alone, others run past it, and after `release` it runs at once."""
    spool = Spool(spool_dir)
    spool.enqueue("true", id="a", priority=9)
    assert cli("hold", "a", expect=0).stdout == "a: held\n"
    workers(1)
    spool.enqueue("true", id="b", priority=1)
    wait_until(lambda: finished(spool_dir, "b"))
    assert where_is(spool_dir, "a") == ["pending"]
    assert load(spool_dir / "pending" / "a.json")["hold"] is True

    assert cli("release", "a", expect=0).stdout == "a: released\n"

    wait_until(lambda: finished(spool_dir, "a"))
    assert "hold" not in load(spool_dir / "done" / "a.json")


def test_hold_in_the_file_is_the_same(spool_dir: Path, workers: Callable[..., Any]) -> None:
    """`"hold": true`, written by a producer or an editor, holds; taken out by hand, it releases."""
    workers(1)
    drop(spool_dir, "a", command="true", hold=True)
    spool = Spool(spool_dir)
    assert [row.held for row in spool.list()] == [True]
    (spool_dir / "data" / "queuectl.db").unlink()
    assert [row.held for row in spool.list()] == [True]
    drain(spool_dir)
    assert where_is(spool_dir, "a") == ["pending"]

    drop(
        spool_dir, "a", command="true"
    )  # as editors do; where no events are to be had, it is seen within a second

    wait_until(lambda: finished(spool_dir, "a"))


def test_hold_survives_a_deleted_index(spool_dir: Path) -> None:
    """The hold is in the file, so the index may go."""
    spool = Spool(spool_dir)
    spool.enqueue("true", id="a")
    spool.hold("a")
    spool._index.close()
    for path in (spool_dir / "data").glob("queuectl.db*"):
        path.unlink()

    drain(spool_dir)

    assert where_is(spool_dir, "a") == ["pending"]
    assert [row.held for row in Spool(spool_dir).list()] == [True]


def test_holding_twice_says_so(spool_dir: Path, cli: Callable[..., Any]) -> None:
    """What is so already is no error, and the file is left alone."""
    Spool(spool_dir).enqueue("true", id="a")
    cli("hold", "a", expect=0)
    before = (spool_dir / "pending" / "a.json").stat()

    assert cli("hold", "a", expect=0).stdout == "a: held already\n"
    assert (spool_dir / "pending" / "a.json").stat().st_ino == before.st_ino
    cli("release", "a", expect=0)
    assert cli("release", "a", expect=0).stdout == "a: not held\n"


def test_running_job_cannot_be_held(
    spool_dir: Path, cli: Callable[..., Any], workers: Callable[..., Any]
) -> None:
    """It is refused, and the hint says what can be done to it."""
    Spool(spool_dir).enqueue("sleep 30", id="a", timeout=0)
    workers(1)
    wait_until(lambda: where_is(spool_dir, "a") == ["processing/worker-0"])

    refused = cli("hold", "a", expect=1)

    assert refused.stderr == ("error: job 'a' is processing and cannot be held\nhint: queuectl cancel a\n")


def test_many_are_held_and_released_by_filters(spool_dir: Path, cli: Callable[..., Any]) -> None:
    """Filters, --dry-run and --all work as in the other verbs; `release --all` looks at held ones only."""
    spool = Spool(spool_dir)
    for number in range(3):
        spool.enqueue("true", id=f"x{number}", tags=["x"])
    spool.enqueue("true", id="y")

    assert cli("hold", "--tag", "x", "--dry-run", expect=0).stdout.count("would hold") == 3
    assert not any(row.held for row in spool.list())
    assert cli("hold", "--tag", "x", expect=0).stdout == "x0: held\nx1: held\nx2: held\n"
    assert [row.id for row in spool.list() if row.held] == ["x0", "x1", "x2"]
    told = json.loads(cli("release", "--all", "--json", expect=0).stdout)
    assert [one["id"] for one in told] == ["x0", "x1", "x2"]
    assert all(one["changed"] for one in told)
    assert "no jobs to release" in cli("release", "--tag", "x", expect=0).stderr


@pytest.mark.parametrize("by_hand", [False, True])
def test_released_job_has_not_waited(spool_dir: Path, by_hand: bool) -> None:
    """Waiting counts from when a job could first run: one that was held for an hour overtakes nobody for it."""
    ago = time.time() - 3600
    spool = Spool(spool_dir)
    spool._storage.now = lambda: ago
    spool.enqueue("true", id="held", priority=5)
    spool.hold("held")
    assert [row.held for row in spool.list()] == [True]
    spool._storage.now = time.time
    spool.enqueue("true", id="fresh", priority=6)
    path = spool_dir / "pending" / "held.json"
    if by_hand:
        path.write_text(json.dumps({**load(path), "hold": False}))
    else:
        spool.release("held")

    said = [line.split()[2] for line in drain(spool_dir) if line.startswith("executing")]

    assert said == ["fresh:", "held:"]


def test_held_job_that_was_cancelled_runs_when_it_is_retried(spool_dir: Path) -> None:
    """Who retries a job wants it to run: the hold went with the cancel."""
    spool = Spool(spool_dir)
    spool.enqueue("true", id="a")
    spool.hold("a")
    spool.cancel("a")
    spool.retry("a")

    drain(spool_dir)

    assert where_is(spool_dir, "a") == ["done"]


def test_failed_job_keeps_its_moment_over_a_hold(spool_dir: Path) -> None:
    """Held between two attempts and released, it is tried again when it would have been."""
    now = 1_900_000_000.0
    spool = Spool(spool_dir)
    spool._storage.now = lambda: now
    spool.enqueue("exit 1", id="a", backoff_base=100)
    drain(spool_dir, now=lambda: now)
    due = spool.get("a").next_retry_at
    spool.hold("a")
    now += 1000
    assert spool.get("a").state == "failed"
    drain(spool_dir, now=lambda: now)
    assert spool.get("a").attempts == 1

    spool.release("a")

    job = spool.get("a")
    assert (job.state, job.next_retry_at, job.attempts) == ("failed", due, 1)
    drain(spool_dir, now=lambda: now + 1)
    assert spool.get("a").attempts == 2


def test_dropped_job_gets_its_settings_written_when_it_is_changed(spool_dir: Path) -> None:
    """What was settled when it was accepted stays so, though the index is deleted after."""
    spool = Spool(spool_dir)
    drop(spool_dir, "a", command="true", note="mine")
    (spool_dir / "config.yaml").write_text("timeout: 77\n")
    assert spool.get("a").timeout == 77
    (spool_dir / "config.yaml").write_text("timeout: 99\n")
    spool.hold("a")

    record = load(spool_dir / "pending" / "a.json")

    assert (record["timeout"], record["hold"], record["note"], record["id"]) == (77, True, "mine", "a")


def meanwhile(monkeypatch: pytest.MonkeyPatch, happens: Callable[[], object]) -> None:
    """Let something happen after a job was read to be changed, and before the change lands."""
    real = files.write_new
    left = [True]

    def write_new(path: str, data: bytes, *, sync: bool) -> os.stat_result:
        status = real(path, data, sync=sync)
        if left:
            left.clear()
            happens()
        return status

    monkeypatch.setattr(files, "write_new", write_new)


@pytest.mark.parametrize("has_index", [True, False])
def test_job_that_is_taken_while_it_is_held_runs_once_and_as_it_was(
    spool_dir: Path, monkeypatch: pytest.MonkeyPatch, has_index: bool
) -> None:
    """The claim wins, the hold is refused, and there are never two of the job."""
    spool = Spool(spool_dir)
    spool.enqueue("true", id="a")
    worker = Worker(spool_dir)
    worker.register()
    worker._recover()
    claims: list[Any] = []

    def claim() -> None:
        claims.append(worker._claiming.next())
        if not has_index:
            spool._index.broken = "gone"

    meanwhile(monkeypatch, claim)
    with pytest.raises(MoveError, match="just been taken"):
        spool.hold("a")

    assert where_is(spool_dir, "a") == ["processing/worker-0"]
    assert claims[0].job.hold is False
    settle(worker._storage, claims[0], "completed")
    worker._registration.release()  # type: ignore[union-attr]
    worker._index.close()
    assert where_is(spool_dir, "a") == ["done"]
    assert list((spool_dir / "tmp").iterdir()) == []


@pytest.mark.parametrize("exchange", [True, False])
def test_edit_by_somebody_else_is_not_overwritten(
    spool_dir: Path, monkeypatch: pytest.MonkeyPatch, exchange: bool
) -> None:
    """Of two changes at once the second is refused, and the first stays: where files can change places, and elsewhere."""
    if not exchange:
        monkeypatch.setattr(files, "exchange", lambda *_: False)
    spool = Spool(spool_dir)
    spool.enqueue("true", id="a")
    path = spool_dir / "pending" / "a.json"
    theirs = json.dumps({"id": "a", "command": "echo theirs"})
    meanwhile(monkeypatch, lambda: path.write_text(theirs))

    with pytest.raises(MoveError, match="changed by somebody else"):
        spool.hold("a")

    assert path.read_text() == theirs
    assert spool.get("a").command == "echo theirs"
    assert list((spool_dir / "tmp").iterdir()) == []
    assert spool.hold("a")
    assert load(path)["hold"] is True


def test_job_that_is_no_job_any_more_cannot_be_held(spool_dir: Path) -> None:
    """An editor has just written nonsense: it is refused, and the bytes stay."""
    spool = Spool(spool_dir)
    spool.enqueue("true", id="a")
    path = spool_dir / "pending" / "a.json"
    path.write_text("{")

    with pytest.raises((InvalidJob, MoveError, JobNotFound)):
        spool.hold("a")

    assert b"{" in b"".join(one.read_bytes() for one in spool_dir.glob("[pd]e*/a.json"))
