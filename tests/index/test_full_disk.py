"""The index of a spool on a full disk: no process is ended by a signal, and the index is right afterwards."""

from __future__ import annotations

import os
import sqlite3
from typing import TYPE_CHECKING

import faults
import pytest

from queuectl import Spool
from queuectl.index import database

import support

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every disk looks like one with blocks of 1 KiB."""
    real = os.statvfs

    def statvfs(path: str) -> os.statvfs_result:
        found = list(real(path))
        found[0] = found[1] = 1024
        return os.statvfs_result(found)

    monkeypatch.setattr(os, "statvfs", statvfs)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[faults.Disk]:
    made = faults.Disk(tmp_path, "ext4", 16, "-b", "1024", "-m", "0")
    yield made
    made.close()


def shared_memory(spool: Path) -> bool:
    return (spool / "data" / "queuectl.db-shm").exists()


def test_nothing_is_mapped_where_the_blocks_are_small(spool_dir: Path, small_blocks: None) -> None:
    """SQLite makes sure of one block in 4 KiB only; a write into the others would end the process on a full disk."""
    spool = Spool(spool_dir)
    spool.enqueue("true", id="a")

    assert [row.id for row in spool.list()] == ["a"]
    assert not shared_memory(spool_dir)


def test_a_map_that_is_there_is_given_up_where_the_blocks_are_small(
    spool_dir: Path, request: pytest.FixtureRequest
) -> None:
    """A spool may be copied to another disk, and an older queuectl has mapped its index everywhere."""
    spool = Spool(spool_dir)
    spool.enqueue("true", id="a")
    spool._index.close()
    request.getfixturevalue("small_blocks")

    again = Spool(spool_dir)
    assert [row.id for row in again.list()] == ["a"]
    assert not shared_memory(spool_dir)


def test_without_a_map_a_reader_holds_up_a_command_for_a_moment_only(
    spool_dir: Path, small_blocks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A frozen reader keeps others from committing; the job is queued without the index."""
    monkeypatch.setattr(database, "WRITE_TIMEOUT", 0.2)
    Spool(spool_dir).enqueue("true", id="a")
    reader = sqlite3.connect(spool_dir / "data" / "queuectl.db", isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM jobs").fetchall()
    try:
        spool = Spool(spool_dir)
        spool.enqueue("true", id="b")
        assert {row.id for row in spool.list()} == {"a", "b"}
    finally:
        reader.close()
    assert {row.id for row in Spool(spool_dir).list()} == {"a", "b"}


def test_what_is_written_after_a_refused_commit_is_committed(
    spool_dir: Path, small_blocks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The transaction that was refused is over. Otherwise every later write would be a part of it, and be lost."""
    monkeypatch.setattr(database, "WRITE_TIMEOUT", 0.2)
    spool = Spool(spool_dir)
    spool.enqueue("true", id="a")
    reader = sqlite3.connect(spool_dir / "data" / "queuectl.db", isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM jobs").fetchall()
    change = "UPDATE jobs SET priority = ?"
    with pytest.raises(sqlite3.OperationalError), spool._index.write():
        spool._index.db.execute(change, (1,))
    reader.execute("COMMIT")

    with spool._index.write():
        spool._index.db.execute(change, (2,))

    assert reader.execute("SELECT priority FROM jobs").fetchall() == [(2,)]
    reader.close()


def test_an_index_that_somebody_writes_is_not_deleted(
    spool_dir: Path, small_blocks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a WAL a writer locks readers out, too. Each command took its file for damaged and made it anew."""
    monkeypatch.setattr(database, "WRITE_TIMEOUT", 0.2)
    Spool(spool_dir).enqueue("true", id="a")
    path = spool_dir / "data" / "queuectl.db"
    before = path.stat().st_ino
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("BEGIN EXCLUSIVE")
    try:
        spool = Spool(spool_dir)
        spool.enqueue("true", id="b")
        assert {row.id for row in spool.list()} == {"a", "b"}
    finally:
        writer.close()
    assert path.stat().st_ino == before
    assert {row.id for row in Spool(spool_dir).list()} == {"a", "b"}
    assert path.stat().st_ino == before


def test_a_disk_filled_to_its_last_block_ends_nobody(
    disk: faults.Disk, cli: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a worker nor a command gets a SIGBUS; when there is room again, everything is right."""
    spool = disk.at / "spool"
    monkeypatch.setenv("QUEUECTL_SPOOL", str(spool))
    support.run_cli("enqueue", "--id", "before", "true", expect=0)
    support.run_cli("worker", "start", expect=0)
    support.wait_until(lambda: support.finished(spool, "before"))
    try:
        fill(disk.at / "filler")
        codes = [
            support.run_cli(*words).returncode
            for words in (["list"], ["enqueue", "--id", "full", "true"], ["status"])
        ]
        assert not shared_memory(spool)
        assert [code for code in codes if code not in (0, 4)] == []
        assert len(Spool(spool).workers()) == 1
        (disk.at / "filler").unlink()
        support.run_cli("enqueue", "--id", "after", "true", expect=0)
        support.wait_until(lambda: support.finished(spool, "after"), timeout=40)
    finally:
        support.end_workers(spool)


def fill(path: Path) -> None:
    """Write into a file until not one more byte has room."""
    with path.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue
