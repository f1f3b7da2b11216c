"""A draining worker leaves no file behind that lay in pending/ before its last look, whatever hid the file from it."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any

import pytest

from queuectl import Spool, Worker
from queuectl.system import file_times, files
from queuectl.system.locks import Lock

from support import drain, drop, drop_bytes, where_is

if TYPE_CHECKING:
    from pathlib import Path

YEAR = 365 * 86400 * 10**9


def test_a_file_that_came_beside_the_last_claim_is_not_left_behind(
    spool_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The claim noted the folder's time after its rename, and with it that of the file."""
    monkeypatch.setattr(file_times, "YOUNG", 0)  # a time is believed at once, as where file times are fine
    Spool(spool_dir).enqueue("true", id="first")
    move = files.move_into_own
    dropped: list[str] = []

    def rename_beside(old: Any, new: Any) -> None:
        if "/pending/" in str(old) and "/processing/" in str(new) and not dropped:
            dropped.append(str(new))
            drop(spool_dir, "second", command="true")
        move(old, new)

    monkeypatch.setattr(files, "move_into_own", rename_beside)
    drain(spool_dir)

    assert dropped
    assert [where_is(spool_dir, name) for name in ("first", "second")] == [["done"], ["done"]]


def test_a_file_that_came_beside_a_move_of_another_program_is_not_left_behind(spool_dir: Path) -> None:
    """Nothing shows it, and the worker has moved nothing that would make it look again."""
    Spool(spool_dir).refresh()
    drop(spool_dir, "hidden", command="true")
    status = os.stat(spool_dir / "pending")
    worker = Worker(spool_dir, drain=True)
    worker.check()
    worker._index.open()
    with worker._index.write():
        worker._index.db.execute(
            "UPDATE folders SET mtime = ?, stamped = ? WHERE place = 'pending'",
            (status.st_mtime_ns, status.st_mtime_ns + YEAR),
        )
    assert worker._intake.pending_agrees()

    worker.run()

    assert where_is(spool_dir, "hidden") == ["done"]


@pytest.mark.parametrize("watched", [False, True])
def test_a_file_that_comes_after_the_scan_is_not_left_behind_beside_one_that_is_not_complete(
    spool_dir: Path, watched: bool
) -> None:
    """As long as a file was not complete, the worker did not look whether the folder had changed."""
    Spool(spool_dir).refresh()
    (spool_dir / "config.yaml").write_text("settle_time: 600\n")
    drop_bytes(spool_dir, "broken.json", b"{no json")
    drop(spool_dir, "first", command="true")
    worker = Worker(spool_dir, drain=True)
    if watched:
        worker._watch.start()
    take_in = worker._scheduler.take_in

    def take_in_and_drop() -> None:
        take_in()
        has_looked = worker._last_look._has_begun and not worker._scheduler.may_have_missed
        if has_looked and not where_is(spool_dir, "second"):
            drop(spool_dir, "second", command="true")

    worker._scheduler.take_in = take_in_and_drop  # type: ignore[method-assign]
    worker.run()

    assert [where_is(spool_dir, name) for name in ("second", "broken")] == [["done"], ["pending"]]


def test_a_worker_that_wants_to_leave_waits_for_its_turn_to_look(
    spool_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another worker scans. It may be past the file already, and it does not keep the processor busy meanwhile."""
    Spool(spool_dir).refresh()
    worker = Worker(spool_dir, drain=True)
    colleague = Lock.acquire(str(spool_dir / "data" / "intake.lock"))
    assert colleague is not None
    waits: list[float] = []
    wait = worker._wake_up.wait

    def wait_and_see(timeout: float, *more: Any) -> bool:
        waits.append(timeout)
        if len(waits) == 5:
            colleague.release()
        return wait(timeout, *more)

    monkeypatch.setattr(worker._wake_up, "wait", wait_and_see)
    worker.run()

    assert len(waits) >= 5
    assert 0 < min(waits[:5]) <= max(waits[1:5]) < 0.1


def test_a_fault_that_lasts_neither_keeps_a_worker_that_wants_to_leave_nor_is_told_twice(
    spool_dir: Path,
) -> None:
    """A drop folder that was not safe made each round fail, and each failure put off the next claim: it never left."""
    Spool(spool_dir).refresh()
    (spool_dir / "config.yaml").write_text(f"incoming: {spool_dir}\n")
    said: list[str] = []
    worker = Worker(spool_dir, drain=True, say=said.append)
    too_late = threading.Timer(5, worker.stop)
    too_late.start()

    worker.run()

    too_late.cancel()
    assert not worker.flags.stopping
    assert len([line for line in said if "drop folder" in line]) == 1
