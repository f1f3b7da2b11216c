"""An idle worker puts its full check off while a snapshot is unchanged, and misses nothing."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from spool_changes import CHANGES

from queuectl import Spool, Worker
from queuectl.control import permissions
from queuectl.layout import Layout
from queuectl.worker import idle
from queuectl.worker.idle import Snapshot

from support import drop, finished, load, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def spool(spool_dir: Path) -> Path:
    Spool(spool_dir).refresh()
    (spool_dir / "processing" / "worker-7").mkdir(mode=0o700)
    return spool_dir


def snapshot_of(spool: Path) -> Snapshot:
    layout = Layout(spool)
    watched = permissions.PermissionCheck(layout)
    return Snapshot(layout, watched.above, watched.within)


@pytest.mark.parametrize("how", CHANGES)
def test_whatever_a_full_check_would_find_shows(
    spool: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """Each change that a full check would find changes the snapshot."""
    monkeypatch.setattr(idle, "CLOCK_STEP", -(10**18))
    index = Spool(spool)
    index.refresh()
    (spool / "data" / "copy").write_bytes((spool / "data" / "queuectl.db").read_bytes())
    seen = snapshot_of(spool)
    assert not seen.is_current()
    seen.take()
    assert seen.is_current()
    mode = spool.parent.stat().st_mode & 0o777
    try:
        CHANGES[how](spool)
        assert not seen.is_current()
    finally:
        spool.parent.chmod(mode)


def test_a_queue_that_is_edited_in_place_shows(spool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time of its folder stays the same then."""
    monkeypatch.setattr(idle, "CLOCK_STEP", -(10**18))
    file = spool / "queues" / "mail.yaml"
    file.write_text("limit: 1\n")
    seen = snapshot_of(spool)
    seen.take()
    assert seen.is_current()

    with file.open("r+") as opened:
        opened.write("limit: 2\n")

    assert not seen.is_current()


def test_a_very_recent_change_is_not_trusted(spool: Path) -> None:
    """A second change within one step of the filesystem's clock would leave the same time."""
    seen = snapshot_of(spool)
    seen.take()
    assert not seen.is_current()


@pytest.fixture
def idle_worker(spool_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Worker]:
    """An idle worker, with its full checks counted."""
    monkeypatch.setattr(idle, "CLOCK_STEP", 100_000_000)
    worker = Worker(spool_dir)
    looks = worker.__dict__["looks"] = []
    take = worker._upkeep.snapshot.take

    def counted() -> None:
        looks.append(time.monotonic())
        take()

    monkeypatch.setattr(worker._upkeep.snapshot, "take", counted)
    thread = threading.Thread(target=worker.run)
    thread.start()
    yield worker
    worker.stop()
    thread.join()


def test_an_idle_worker_makes_a_full_check_after_five_seconds_only(idle_worker: Worker) -> None:
    """In between it compares the snapshot only."""
    looks: list[float] = idle_worker.__dict__["looks"]
    wait_until(lambda: len(looks) > 1 and looks[-1] - looks[-2] > 2.5, timeout=30)


HOLDS = """
import os, sys, time
from queuectl import Worker
worker = Worker(sys.argv[1])
worker.register()
os.makedirs(worker.layout.claims(worker.name), exist_ok=True)
os.rename(sys.argv[2], os.path.join(worker.layout.claims(worker.name), "job.json"))
print("holds", flush=True)
time.sleep(60)
"""


def test_a_dead_others_job_is_taken_back_by_one_that_dozes(
    spool_dir: Path, idle_worker: Worker, tmp_path: Path
) -> None:
    """Within two seconds: a worker that has a claim is checked every second."""
    looks: list[float] = idle_worker.__dict__["looks"]
    wait_until(lambda: len(looks) > 1 and looks[-1] - looks[-2] > 2.5, timeout=30)
    (tmp_path / "job").write_text('{"command": "true"}')
    words = [sys.executable, "-c", HOLDS, str(spool_dir), str(tmp_path / "job")]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as other:
        assert other.stdout
        assert other.stdout.readline() == b"holds\n"
        held = time.monotonic()
        wait_until(
            lambda: time.monotonic() > held + 2.5
        )  # it puts its checks off by now, if it ever does beside a claim
        assert not finished(spool_dir, "job")
        other.kill()
        began = time.monotonic()
    wait_until(lambda: finished(spool_dir, "job"), timeout=20)
    assert time.monotonic() - began < 5


def test_a_due_job_wakes_an_idle_worker(spool_dir: Path, idle_worker: Worker) -> None:
    """On time, and not at the next full check."""
    moment = time.time() + 4
    drop(spool_dir, "job", command="true", run_at=moment)
    wait_until(lambda: finished(spool_dir, "job"), timeout=20)
    record: dict[str, Any] = load(spool_dir / "done" / "job.json")
    assert 0 <= Spool(spool_dir).get("job").started_at - moment < 0.8, record  # type: ignore[operator]
