"""Held files: the claimed file of a settled job is its only durable copy until a sync has come back."""

from __future__ import annotations

import errno
import os
import threading
from typing import TYPE_CHECKING

import pytest

from queuectl import Spool
from queuectl.storage import file_pool, power_loss
from queuectl.storage.settle import settle
from queuectl.system import files
from queuectl.system.locks import Lock

from support import claim_job, drop_bytes, load, wait_until

if TYPE_CHECKING:
    from pathlib import Path

JOB = b'{"id": "a", "command": "true"}'


@pytest.fixture
def spool(spool_dir: Path) -> Spool:
    made = Spool(spool_dir)
    made.refresh()
    return made


def held_folder(spool_dir: Path, boot: str) -> Path:
    """A folder with one held file, as a worker of that boot leaves it."""
    folder = spool_dir / "data" / "workers" / f"worker-7.held.{power_loss.short(boot)}.1"
    folder.mkdir()
    (folder / "a~0.json").write_bytes(JOB)
    return folder


def test_a_job_settled_twice_before_a_sync_is_held_twice(spool: Spool, spool_dir: Path) -> None:
    """Its first claimed file is the one that is surely on the disk; the second must not push it out."""
    mine = file_pool.FilePool(spool.layout, "worker-0", "boot", print)
    for content in (b"1", b"2"):
        mine.keep(str(drop_bytes(spool_dir, "a.json", content)), "a", ours=True)

    [folder] = (spool_dir / "data" / "workers").glob("worker-0.held.*")

    assert sorted(path.read_bytes() for path in folder.iterdir()) == [b"1", b"2"]
    mine.close()


def test_a_held_file_is_not_written_before_its_sync_is_back(
    spool: Spool, spool_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Written too early it is neither the old job nor a new outcome after a power cut."""
    may_go_on = threading.Event()
    sync = files.sync_filesystem

    def slowly(folder: str) -> None:
        may_go_on.wait(20)
        sync(folder)

    monkeypatch.setattr(files, "HAS_SYNCFS", True)
    monkeypatch.setattr(files, "sync_filesystem", slowly)
    mine = file_pool.FilePool(spool.layout, "worker-0", "boot", print)
    claimed = drop_bytes(spool_dir, "a.json", JOB)
    claimed.chmod(0o600)  # as queuectl makes its files; others are not written again
    mine.keep(str(claimed), "a", ours=True)
    [folder] = (spool_dir / "data" / "workers").glob("worker-0.held.*")
    inode = (folder / "a~0.json").stat().st_ino

    before = mine.write(b"outcome")
    mine.flush()
    during = mine.write(b"outcome")
    assert (folder / "a~0.json").read_bytes() == JOB
    may_go_on.set()
    wait_until(lambda: list((spool_dir / "data" / "workers").glob("worker-0.spare.*")))
    after = mine.write(b"outcome")

    assert [status.st_ino == inode for _, status in (before, during, after)] == [False, False, True]
    mine.close()


def test_held_files_of_this_boot_say_nothing_about_power(spool: Spool, spool_dir: Path) -> None:
    """No page was lost since: a job restored from one of them would run again."""
    folder = held_folder(spool_dir, "boot")

    assert power_loss.restore(spool.layout, "boot") == 0

    assert folder.exists()
    assert not list((spool_dir / "pending").iterdir())


def test_held_files_of_another_boot_are_not_swept(spool: Spool, spool_dir: Path) -> None:
    """They go only once it is known that the outcomes have reached the disk."""
    folder = held_folder(spool_dir, "boot")

    power_loss.sweep(spool.layout, "worker-7", "another boot")

    assert (folder / "a~0.json").read_bytes() == JOB
    assert power_loss.restore(spool.layout, "another boot") == 1
    assert os.listdir(spool_dir / "pending") == ["a.json"]


def test_a_queued_file_that_somebody_linked_to_is_not_ours_to_write(spool: Spool, spool_dir: Path) -> None:
    """A backup by hard links keeps what it saw."""
    ours = []
    for job_id in ("a", "b"):
        spool.enqueue("true", id=job_id)
    os.link(spool_dir / "pending" / "a.json", spool_dir.parent / "backup.json")
    os.makedirs(spool.layout.claims("worker-0"))
    for job_id in ("a", "b"):
        row = spool._index.get(job_id)
        assert row
        claim = claim_job(spool._storage, row, "worker-0")
        assert claim
        ours.append(claim.ours)

    assert ours == [False, True]


def test_on_a_full_disk_an_outcome_goes_into_the_reserve(
    spool: Spool, spool_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An outcome that is not recorded is a command that runs again."""
    mine = file_pool.FilePool(spool.layout, "worker-0", "boot", print)

    def full() -> tuple[str, int]:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(mine, "_open", full)

    path, status = mine.write(b"outcome")

    assert os.path.basename(path) == "worker-0.reserve"
    assert (status.st_size, (spool_dir / "data" / "workers" / "worker-0.reserve").read_bytes()) == (
        7,
        b"outcome",
    )
    with pytest.raises(OSError, match="No space"):
        mine.write(b"another")
    mine.close()


def test_an_outcome_too_long_for_the_disk_leaves_its_output_out(
    spool: Spool, spool_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Better an outcome without its output than none."""
    spool.enqueue("true", id="a")
    row = spool._index.get("a")
    os.makedirs(spool.layout.claims("worker-0"))
    assert row
    claim = claim_job(spool._storage, row, "worker-0")
    assert claim
    claim.job.output = "x" * 5000
    write = files.write_all

    def small(fd: int, data: bytes) -> None:
        if len(data) > 4000:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(fd, data)

    monkeypatch.setattr(files, "write_all", small)

    assert settle(spool._storage, claim, "completed")

    assert "left out, as the disk is full" in load(spool_dir / "done" / "a.json")["output"]


def test_one_process_restores_at_a_time(spool: Spool, spool_dir: Path) -> None:
    """Two that put the same job back would put it back twice; who waits finds nothing left to do."""
    held_folder(spool_dir, "another boot")
    lock = Lock.acquire(str(spool_dir / "data" / "restore.lock"))
    assert lock
    thread = threading.Thread(target=power_loss.restore, args=(spool.layout, "boot"))
    thread.start()
    thread.join(0.4)
    early = os.listdir(spool_dir / "pending")

    lock.release()
    thread.join(10)

    assert early == []
    assert os.listdir(spool_dir / "pending") == ["a.json"]
