"""When the index may be believed: every way in which it can be wrong about a folder is noticed."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from typing import TYPE_CHECKING

import pytest

from queuectl import Spool
from queuectl.index import freshness
from queuectl.storage.settle import settle
from queuectl.system import files

from support import claim_job, drain, drop, where_is

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

YEAR = 365 * 86400 * 10**9


@pytest.fixture
def spool(spool_dir: Path) -> Spool:
    made = Spool(spool_dir)
    made.enqueue("true", id="a")
    made.refresh()
    os.utime(made.layout.pending, ns=(0, time.time_ns() - YEAR))  # long ago, so that any change shows
    made._index.mark_stale("pending")
    made.refresh()
    assert made._index.agrees("pending", time.time_ns())
    return made


def claim(spool: Spool) -> None:
    row = spool._index.get("a")
    assert row
    os.makedirs(spool.layout.claims("worker-0"), exist_ok=True)
    with spool._index.moving():
        assert claim_job(spool._storage, row, "worker-0")


def enqueue(spool: Spool) -> None:
    spool.enqueue("true", id="b")


@pytest.mark.parametrize("move", [claim, enqueue])
def test_own_move_needs_no_new_scan(move: Callable[[Spool], None], spool: Spool) -> None:
    """Otherwise every move would cost a scan of the folder."""
    move(spool)

    assert spool._index.agrees("pending", time.time_ns())


@pytest.mark.parametrize("move", [claim, enqueue])
def test_own_move_does_not_hide_a_move_of_others(
    move: Callable[[Spool], None], spool: Spool, spool_dir: Path
) -> None:
    """A file dropped before the move would never be seen."""
    drop(spool_dir, "dropped", command="true")

    move(spool)

    assert not spool._index.agrees("pending", time.time_ns())
    assert "dropped" in {row.id for row in spool.list()}


@pytest.mark.parametrize("number", [0, 1, 2])
def test_many_own_moves_do_not_hide_a_move_of_others_between_them(
    number: int, spool: Spool, spool_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their last time is noted once, at the end: a file dropped before the first, or between two, must be seen."""
    ids = spool.enqueue_many(["true", "true", "true"])
    move, moved = files.move_to_free_name, []

    def drop_before(source: str, folder: str, name: str) -> str:
        moved.append(name)
        return move(source, folder, name)

    enter = freshness.OwnChanges.__enter__

    def just_before(self: freshness.OwnChanges) -> None:
        if len(moved) == number and not (spool_dir / "pending" / "dropped.json").exists():
            drop(spool_dir, "dropped", command="true")
        enter(self)

    monkeypatch.setattr(files, "move_to_free_name", drop_before)
    monkeypatch.setattr(freshness.OwnChanges, "__enter__", just_before)
    spool.cancel_many(ids)
    monkeypatch.undo()

    assert not spool._index.agrees("pending", time.time_ns())
    assert "dropped" in {row.id for row in spool.list()}


def test_a_stamp_of_the_present_is_not_believed_for_long(spool: Spool) -> None:
    """If the file system's clock ticks slowly, a second change within the tick leaves the same time."""
    index = spool._index
    os.utime(spool.layout.pending)
    index.mark_stale("pending")
    spool.refresh()
    later = time.time_ns() + 10**9

    answers = []
    for fine in (True, False):
        index._fine_times = fine
        answers.append(index.agrees("pending", later))

    assert answers == [True, False]


def test_a_drop_in_the_second_of_the_last_look_is_seen(spool: Spool, spool_dir: Path) -> None:
    """Some file systems store whole seconds only: the folder has the same time before and after the drop."""
    second = time.time_ns() // 10**9 * 10**9

    def whole_seconds() -> None:
        os.utime(spool_dir / "pending", ns=(second, second))

    whole_seconds()
    assert [row.id for row in spool.list()] == ["a"]
    drop(spool_dir, "dropped", command="true")
    whole_seconds()

    assert {row.id for row in spool.list()} == {"a", "dropped"}
    assert not spool._index.agrees("pending", second + 10**10)


def test_what_is_known_to_be_wrong_is_looked_at(spool: Spool) -> None:
    """The folder is scanned although its time matches."""
    spool._index.mark_stale("pending")

    assert not spool._index.agrees("pending", time.time_ns())


def test_nothing_is_written_into_a_file_that_is_gone(spool: Spool) -> None:
    """SQLite would write into the deleted file without an error, and nobody else would see it."""
    index = spool._index
    os.rename(index.path, index.path + ".away")

    with pytest.raises(sqlite3.DatabaseError, match="replaced"), index.write():
        raise AssertionError
    with index.moving("pending"):
        assert not index.usable
        index.drop("a")

    assert index.broken == "the index file was replaced"
    assert not index.usable
    assert [row.id for row in spool.list()] == ["a"]


def test_a_damaged_file_makes_room_for_a_new_one(spool: Spool, spool_dir: Path) -> None:
    """Without a new file every command would have to read all folders."""
    spool._index.close()
    for path in (spool_dir / "data").glob("queuectl.db*"):
        path.write_bytes(b"no index at all " * 1000)

    again = Spool(spool_dir)

    assert [row.id for row in again.list()] == ["a"]
    assert again._index.path == str(spool_dir / "data" / "queuectl.db")
    assert (spool_dir / "data" / "queuectl.db").read_bytes().startswith(b"SQLite format 3")


def test_a_move_told_to_a_file_that_was_replaced_is_found(spool: Spool, spool_dir: Path) -> None:
    """The process that builds the new file may note a folder's time just after that move."""
    spool._index.mark_stale("done")
    spool.refresh()
    row = spool._index.get("a")
    assert row
    os.makedirs(spool.layout.claims("worker-0"))
    taken = claim_job(spool._storage, row, "worker-0")
    assert taken
    with spool._index.moving():
        for path in (spool_dir / "data").glob("queuectl.db*"):
            path.unlink()
        other = Spool(spool_dir)
        other.refresh()
        with other._index.moving("done"):
            assert settle(spool._storage, taken, "completed")
    assert [row.id for row in other.list("completed")] == []

    assert [row.id for row in spool.list("completed")] == ["a"]
    assert [row.id for row in other.list("completed")] == ["a"]


@pytest.mark.parametrize("damage", ['{"timeout": 20', '{"tineout": 20}', "[20]", '"x"'])
def test_damaged_settings_of_a_row_end_no_worker(spool_dir: Path, damage: str) -> None:
    """Changed text in a row is damage like any other: the index is rebuilt, and the job runs."""
    drop(spool_dir, "j", command="true")
    spool = Spool(spool_dir)
    spool.refresh()
    with contextlib.closing(sqlite3.connect(spool_dir / "data" / "queuectl.db", isolation_level=None)) as db:
        db.execute("UPDATE jobs SET settings = ?", (damage,))

    assert Spool(spool_dir).get("j").timeout in (None, 20)
    with contextlib.closing(sqlite3.connect(spool_dir / "data" / "queuectl.db", isolation_level=None)) as db:
        db.execute("UPDATE jobs SET settings = ?", (damage,))
    drain(spool_dir, wait_retries=True)

    assert where_is(spool_dir, "j") == ["done"]
