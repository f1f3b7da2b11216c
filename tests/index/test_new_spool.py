"""A new spool: the index knows its first jobs, whichever way they are queued."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from queuectl import Spool
from queuectl.index import index
from queuectl.index.index import Index

from support import drain, drop, run_cli, where_is

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def rows(spool: Path) -> list[tuple[str, int]]:
    """The rows of the index file: command, and whether queuectl wrote the job's file."""
    with closing(sqlite3.connect(spool / "data" / "queuectl.db")) as index:
        return index.execute("SELECT command, ours FROM jobs ORDER BY seq").fetchall()


def is_believed(spool: Path) -> bool:
    with closing(sqlite3.connect(spool / "data" / "queuectl.db")) as index:
        return index.execute("SELECT 1 FROM meta WHERE key = 'schema'").fetchone() is not None


def by_line(spool: Path) -> None:
    run_cli("enqueue", "true a", expect=0)


def by_file(spool: Path) -> None:
    run_cli("enqueue", "--file", "-", stdin='{"command": "true a"}\n', expect=0)


def by_each(spool: Path) -> None:
    run_cli("enqueue", "--each", "-", "true {}", stdin="a\n", expect=0)


def by_all_or_nothing(spool: Path) -> None:
    Spool(spool).enqueue_many([{"command": "true a"}], all_or_nothing=True)


def with_a_key(spool: Path) -> None:
    Spool(spool).enqueue("true a", unique="key")


@pytest.mark.parametrize("way", [by_line, by_file, by_each, by_all_or_nothing, with_a_key])
def test_the_first_job_of_a_spool_is_known(
    way: Callable[[Path], None], spool_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their files are marked as ours. Otherwise a worker would check each of them and not reuse it."""
    monkeypatch.setenv("QUEUECTL_SPOOL", str(spool_dir))

    way(spool_dir)

    assert rows(spool_dir) == [("true a", 1)]
    assert is_believed(spool_dir)
    spool = Spool(spool_dir)
    monkeypatch.setattr(spool._intake, "scan", lambda *_, **__: pytest.fail("looked at all"))
    assert [row.command for row in spool.list()] == ["true a"]


def lies_in(place: str) -> Callable[[Path], None]:
    def lie(spool: Path) -> None:
        folder = spool / place
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "there.json").write_text('{"id": "there", "command": "true"}')

    return lie


def was_of_a_worker(spool: Path) -> None:
    (spool / "data" / "workers" / "worker-0.held.0badb007.1").mkdir()


def was_of_another_boot(spool: Path) -> None:
    Spool(spool).refresh()
    with closing(sqlite3.connect(spool / "data" / "queuectl.db")) as index, index:
        index.execute("UPDATE meta SET value = 'another' WHERE key = 'boot'")


@pytest.mark.parametrize(
    "before",
    [
        *map(lies_in, ("pending", "processing/worker-0", "done", "dead")),
        was_of_a_worker,
        was_of_another_boot,
    ],
)
def test_a_spool_that_is_not_new_is_scanned(before: Callable[[Path], None], spool_dir: Path) -> None:
    """An index that is wrongly declared complete would hide jobs, and the outcomes that a power cut left unsynced."""
    Spool(spool_dir).layout.create()
    before(spool_dir)

    Spool(spool_dir).enqueue("true")

    assert rows(spool_dir) == []
    with closing(
        Index(str(spool_dir / "data" / "queuectl.db"), str(spool_dir), Spool(spool_dir)._index.boot)
    ) as index:
        assert not index.open()
    Spool(spool_dir).refresh()
    assert len(rows(spool_dir)) == len(list(spool_dir.rglob("*.json")))


@pytest.mark.parametrize("look", [1, 2, 3])
def test_a_job_that_is_dropped_meanwhile_is_seen(
    look: int, spool_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the folders are checked, between the two checks, and after the second one."""
    looks = 0
    is_empty = index._is_empty

    def dropping(layout: Any) -> bool:
        nonlocal looks
        looks += 1
        if looks == look:
            drop(spool_dir, "dropped", command="true")
        found = is_empty(layout)
        if looks + 1 == look == 3:
            drop(spool_dir, "dropped", command="true")
        return found

    monkeypatch.setattr(index, "_is_empty", dropping)
    spool = Spool(spool_dir)
    spool.enqueue("true", id="own")

    assert {row.id for row in Spool(spool_dir).list()} == {"own", "dropped"}
    drain(spool_dir)
    assert where_is(spool_dir, "dropped") == where_is(spool_dir, "own") == ["done"]


def test_an_index_begun_by_another_process_is_left_alone(
    spool_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Declared complete again, it would be believed about a folder in which a file has arrived since."""
    take = Index._take_write_lock

    def second(index: Index) -> None:
        monkeypatch.setattr(Index, "_take_write_lock", take)
        other = Spool(spool_dir)
        other.layout.create()
        other._begin_index()
        take(index)

    monkeypatch.setattr(Index, "_take_write_lock", second)
    begun: list[object] = []
    finish = Index.finish_rebuild
    monkeypatch.setattr(Index, "finish_rebuild", lambda index: begun.append(finish(index)))

    Spool(spool_dir).enqueue("true")

    assert len(begun) == 1
    assert rows(spool_dir) == [("true", 1)]


def test_many_first_jobs_at_once_are_all_known(spool_dir: Path) -> None:
    """Eight programs create the spool at once: no job is lost, and no index is built over another's rows."""
    code = "import sys; from queuectl import Spool; sys.stdin.read(); Spool(sys.argv[1]).enqueue('true')"
    words = [sys.executable, "-c", code, str(spool_dir)]
    programs = [subprocess.Popen(words, stdin=subprocess.PIPE) for _ in range(8)]
    for program in programs:
        assert program.stdin is not None
        program.stdin.close()  # all at once, now that they have loaded what they need
    assert [program.wait() for program in programs] == [0] * 8

    assert rows(spool_dir) == [("true", 1)] * 8
    assert len(Spool(spool_dir).list()) == len(os.listdir(spool_dir / "pending")) == 8


def test_an_index_that_cannot_be_begun_is_not_needed(
    spool_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the disk is full for the index, the first job is still queued, and the next command finds it."""

    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as broken:
        broken.setattr(Index, "finish_rebuild", full)
        Spool(spool_dir).enqueue("true", id="a")

    assert rows(spool_dir) == []
    assert [row.id for row in Spool(spool_dir).list()] == ["a"]
