"""What a worker maintains: the index and its file, files that producers left behind, and dead workers."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from queuectl import Spool, Worker
from queuectl.doctor import doctor
from queuectl.layout import Layout
from queuectl.storage.scratch import ScratchFiles
from queuectl.system import files
from queuectl.worker import maintenance
from queuectl.worker.maintenance import DOUBT_AFTER, STALE, sweep_tmp

from support import drain, drop, finished, load, wait_until, where_is

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

DAY = 24 * 3600.0
NOBODY = 65534


def change(spool: Path, *statements: str) -> None:
    """Write into the index as another program would."""
    db = sqlite3.connect(spool / "data" / "queuectl.db", timeout=20, isolation_level=None)
    for statement in statements:
        db.execute(statement)
    db.close()


def is_doubted(spool: Path) -> bool:
    """Whether a worker has begun to measure the time until the next comparison of pending/ with the index."""
    db = sqlite3.connect(f"file:{spool / 'data' / 'queuectl.db'}?mode=ro", uri=True, timeout=20)
    try:
        return bool(db.execute("SELECT 1 FROM meta WHERE key = 'doubted'").fetchone())
    except sqlite3.OperationalError:
        return False  # there is no index yet
    finally:
        db.close()


# -- other workers ---------------------------------------------------------------------------------------------------


def test_a_crowd_of_workers_shares_the_look_at_each_other(
    spool_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If each of a hundred workers checked a hundred others each second, they would do nothing else."""
    worker = Worker(spool_dir)
    worker.register()
    worker._intake.refresh()
    crowd: list[str] = []
    looks: list[float] = []

    def busy(now: float) -> list[str]:
        looks.append(now)
        return crowd

    monkeypatch.setattr(worker._maintenance._claims_seen, "names", busy)
    for size, wanted in ((9, 2), (1000, 1)):
        crowd[:] = ["worker-9"] * size
        looks.clear()
        worker._maintenance._next_claimants = 0.0
        for later in (0.0, 1.0):
            worker._maintenance._next_claimants -= later
            worker._maintenance.take_back(worker._settings, worker.name, has_no_job=False)
        assert len(looks) == wanted
    assert worker._registration
    worker._registration.release()


# -- leftovers of producers ------------------------------------------------------------------------------------------


def scratch(spool: Path, folder: str = "tmp") -> Path:
    path = spool / folder / files.temporary_name()
    path.write_text("{")
    return path


def test_workers_sweep_what_killed_producers_left_a_day_ago(spool_dir: Path) -> None:
    """Never sooner, and nothing that may belong to others: other names, other folders, other kinds of files."""
    Layout(spool_dir).create()
    old = scratch(spool_dir)
    strange = [
        spool_dir / "tmp" / name
        for name in (
            "half.json",
            ".half.tmp",
            ".ABCDEFGHIJKLMNOP.tmp",
            ".abcdefghijklmnop.tmp.json",
            "a" * 21,
        )
    ]
    for path in strange:
        path.write_text("{")
    folder = spool_dir / "tmp" / files.temporary_name()
    folder.mkdir()
    half = spool_dir / "tmp" / f".{files.token()}.lot"
    half.write_text("{")
    link = spool_dir / "tmp" / files.temporary_name()
    link.symlink_to(strange[0])
    elsewhere = scratch(spool_dir, "done")
    untouched = [*strange, folder, half, link, elsewhere]

    drain(spool_dir, now=lambda: time.time() + STALE - 60)
    assert old.exists()

    drain(spool_dir, now=lambda: time.time() + STALE + 60)
    assert not old.exists()
    assert all(os.path.lexists(path) for path in untouched)


def test_a_folder_that_a_killed_producer_wrote_a_batch_in_goes_too(spool_dir: Path) -> None:
    """A day later, and only the files that such a folder holds. With any other file in it, it stays."""
    layout = Layout(spool_dir)
    layout.create()
    old, strange = ScratchFiles(layout.tmp, 3, apart=True), ScratchFiles(layout.tmp, 1, apart=True)
    for path in (*old.paths, *strange.paths, f"{strange.folder}/mine.json"):
        files.write_new(path, b"{", sync=False)

    sweep_tmp(layout, time.time() + STALE - 60)
    assert len(os.listdir(old.folder)) == 3

    sweep_tmp(layout, time.time() + STALE + 60)
    assert not os.path.exists(old.folder)
    assert os.listdir(strange.folder) == ["mine.json"]


def test_what_is_old_by_one_of_its_times_only_is_not_swept(spool_dir: Path) -> None:
    """A producer can set a file's mtime; only ctime tells when the file arrived."""
    Layout(spool_dir).create()
    path = scratch(spool_dir)
    os.utime(path, (1e9, 1e9))
    sweep_tmp(Layout(spool_dir), time.time())
    assert path.exists()


# -- an index in memory ----------------------------------------------------------------------------------------------


def test_a_worker_returns_to_the_file_when_it_can_be_kept_again(
    spool_dir: Path, monkeypatch: pytest.MonkeyPatch, cli: Callable[..., Any]
) -> None:
    """After a disk was full or read-only for a while, the worker returns to the shared index."""
    monkeypatch.setattr(maintenance, "EVERY", 0.2)
    refusing = threading.Event()
    connect: Callable[..., sqlite3.Connection] = sqlite3.connect

    def refuse(path: str, *args: Any, **kwargs: Any) -> sqlite3.Connection:
        if refusing.is_set() and path != ":memory:":
            raise sqlite3.OperationalError("unable to open database file")
        return connect(path, *args, **kwargs)

    monkeypatch.setattr(sqlite3, "connect", refuse)
    said: list[str] = []
    worker = Worker(spool_dir, say=said.append)
    worker.check()
    refusing.set()
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        drop(spool_dir, "first", command="true")
        wait_until(lambda: finished(spool_dir, "first"))
        assert worker._index.path == ":memory:"
        refusing.clear()
        wait_until(lambda: "the index is kept in its file again" in said)
        drop(spool_dir, "second", command="true")
        wait_until(lambda: finished(spool_dir, "second"))
        assert worker._index.path == str(spool_dir / "data" / "queuectl.db")
        assert "'completed': 2" in cli("status", expect=0).stdout
    finally:
        worker.stop()
        thread.join()


def test_what_was_moved_meanwhile_is_found_when_it_returns(spool_dir: Path) -> None:
    """Other workers used the file, and may have recorded the folder as unchanged over that move."""
    worker = Worker(spool_dir)
    worker.check()
    worker._intake.refresh()
    index = worker._index
    stamps = index.db.execute("SELECT place, mtime FROM folders").fetchall()
    assert {place for place, _ in stamps} == {"pending", "done", "dead"}
    index.use_memory()
    worker._intake.refresh()

    index.use_file(worker.layout.index)

    assert index.open()
    assert not [place for place, _ in stamps if index.agrees(place, time.time_ns())]
    index.close()


# -- a worker that died ----------------------------------------------------------------------------------------------

DIES = """
import os, sys
from pathlib import Path
from queuectl import Spool, Worker
from queuectl.storage.settle import settle
root = Path(sys.argv[1])
worker = Worker(root)
worker.register()
worker._intake.refresh()
index = worker._index
with index.moving():
    worker._prefetch.fill()
    claim = worker._prefetch.next()
with index.moving():
    for path in (root / "data").glob("queuectl.db*"):
        path.unlink()
    other = Spool(root)
    other.refresh()
    with other._index.moving("done"):
        assert settle(worker._storage, claim, "completed")
os._exit(9)
"""


def is_halted(spool_dir: Path, pid: int) -> bool:
    """Stop a worker, but not while it writes into the index: nobody else could for as long."""
    os.kill(pid, signal.SIGSTOP)
    db = sqlite3.connect(spool_dir / "data" / "queuectl.db", timeout=0.5, isolation_level=None)
    try:
        db.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError:
        os.kill(pid, signal.SIGCONT)
        return False
    finally:
        db.close()
    return True


@pytest.mark.parametrize("successor", ["takes its name", "lives beside it"])
def test_the_last_move_of_a_worker_that_died_is_found(
    spool_dir: Path, workers: Callable[..., Any], cli: Callable[..., Any], successor: str
) -> None:
    """It recorded the move in an index that was just replaced, and the new index recorded the folder as unchanged."""
    if successor == "lives beside it":
        workers(1)
    drop(spool_dir, "due", command="true", run_at="2100-01-01")
    Spool(spool_dir).refresh()
    stopped = [worker.pid for worker in Spool(spool_dir).workers()]
    wait_until(lambda: all(is_halted(spool_dir, pid) for pid in stopped))  # it must not take the job itself
    drop(spool_dir, "job", command="true")
    died = subprocess.run([sys.executable, "-c", DIES, str(spool_dir)], check=False)
    assert died.returncode == 9
    assert where_is(spool_dir, "job") == ["done"]
    assert [row.id for row in Spool(spool_dir).list("completed")] == []

    for pid in stopped:
        os.kill(pid, 18)
    if not stopped:
        drain(spool_dir)

    # Another worker that is idle meanwhile looks at everything within half a minute.
    wait_until(lambda: cli("list", "--state", "done").stdout == "job - completed - true\n", timeout=45)


# -- a job that the index lost ------------------------------------------------------------------------------------------


def test_a_job_that_the_index_lost_runs_in_the_end(spool_dir: Path) -> None:
    """Another program deleted its row, and no folder has changed since."""
    drop(spool_dir, "job", command="true", run_at=time.time() + 3600)
    jump = 0.0
    said: list[str] = []
    worker = Worker(spool_dir, say=said.append, now=lambda: time.time() + jump)
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        wait_until(
            lambda: (spool_dir / "data" / "queuectl.db").exists() and is_doubted(spool_dir)
        )  # not by the worker's own connection, which is its thread's
        after_all_other_looks = time.monotonic() + 1.5
        wait_until(lambda: time.monotonic() > after_all_other_looks)
        change(spool_dir, "DELETE FROM jobs")
        still = time.monotonic() + 1.5
        wait_until(lambda: time.monotonic() > still)
        assert Spool(spool_dir).list() == []
        worker._maintenance._next_round = 0.0
        jump = DOUBT_AFTER + 3700
        wait_until(lambda: finished(spool_dir, "job"))
    finally:
        worker.stop()
        thread.join()


# -- damage that does not show -----------------------------------------------------------------------------------------


def fill(spool: Path) -> None:
    for number in range(60):
        drop(spool, f"late{number}", command=f"echo {'x' * 300}", run_at="2100-01-01")
    drain(spool)


def test_a_worker_that_starts_finds_damage(spool_dir: Path, cli: Callable[..., Any]) -> None:
    """Random bytes in pages that no query has read so far."""
    fill(spool_dir)
    path = spool_dir / "data" / "queuectl.db"
    change(spool_dir, "PRAGMA wal_checkpoint(TRUNCATE)")
    with closing(sqlite3.connect(path)) as db:
        (root,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'jobs_due'").fetchone()
    with path.open("r+b") as file:
        file.seek((root - 1) * 4096 + 100)
        file.write(random.Random(7).randbytes(3000))

    said = drain(spool_dir)

    assert "the index is damaged and will be rebuilt" in said
    assert Spool(spool_dir).counts()["pending"] == 60
    assert doctor.examine(Layout(spool_dir)) == []
    assert "damaged" not in "".join(drain(spool_dir))


DAMAGED = {
    "another order": "UPDATE jobs SET priority = 10, ready_key = 0 WHERE id = 'late7'",
    "another state": "UPDATE jobs SET state = 'dead' WHERE id = 'late7'",
    "a row less": "DELETE FROM jobs WHERE id = 'late7'",
    "a row too many": "INSERT INTO jobs(id, state, place, name) VALUES ('ghost', 'pending', 'pending', 'ghost.json')",
    "another place": "UPDATE jobs SET place = 'done' WHERE id = 'late7'",
    "other counts": "UPDATE counts SET n = 99 WHERE state = 'pending'",
}


@pytest.mark.parametrize("what", DAMAGED)
def test_the_doctor_finds_what_others_wrote_into_the_index(
    spool_dir: Path, cli: Callable[..., Any], what: str
) -> None:
    """It compares the index with the files, row by row. The repair rebuilds the index, and no job is lost."""
    fill(spool_dir)
    change(spool_dir, DAMAGED[what])

    told = cli("doctor", expect=1).stdout
    assert "index" in told

    cli("doctor", "--repair", expect=0)
    cli("doctor", expect=0)
    assert Spool(spool_dir).counts()["pending"] == 60


def test_an_older_copy_written_into_the_index_is_found(spool_dir: Path, cli: Callable[..., Any]) -> None:
    """`cp` keeps the file's inode. The folders have changed since, which shows it; the doctor finds other differences."""
    fill(spool_dir)
    path = spool_dir / "data" / "queuectl.db"
    change(spool_dir, "PRAGMA wal_checkpoint(TRUNCATE)")
    old = path.read_bytes()
    (spool_dir / "pending" / "late7.json").rename(spool_dir / "dead" / "late7.json")
    drop(spool_dir, "new", command="true", run_at="2100-01-01")
    drain(spool_dir)
    change(spool_dir, "PRAGMA wal_checkpoint(TRUNCATE)")
    path.write_bytes(old)

    assert Spool(spool_dir).counts() | {"pending": 60, "dead": 1} == Spool(spool_dir).counts()
    assert load(spool_dir / "dead" / "late7.json")["command"]
    assert cli("show", "new", expect=0)
    cli("doctor", expect=0)
