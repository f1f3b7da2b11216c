"""The index may be deleted, damaged, old or locked: no job is lost, run twice or misreported because of it."""

from __future__ import annotations

import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queuectl import Filter, Spool
from queuectl.errors import DuplicateId
from queuectl.index import database as index_file
from queuectl.index import schema
from queuectl.index.index import Index
from queuectl.index.row import Row, values_of
from queuectl.intake.loader import Loader
from queuectl.intake.reconcile import Intake
from queuectl.job.fields import STATES
from queuectl.layout import Layout
from queuectl.storage.transitions import Storage
from queuectl.system.locks import Lock

from support import drain, drop, finished, load, wait_until, where_is

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FAR = "2100-01-01T00:00:00Z"


def database(spool: Path) -> Path:
    return spool / "data" / "queuectl.db"


def truth(spool: Path) -> dict[str, int]:
    """The number of jobs by state, counted from the folders alone."""
    counts = dict.fromkeys(STATES, 0)
    for path in spool.glob("pending/*.json"):
        try:
            waits_again = "next_retry_at" in load(path)
        except FileNotFoundError:
            return truth(spool)  # claimed between the two looks
        counts["failed" if waits_again else "pending"] += 1
    counts["processing"] = len(list(spool.glob("processing/*/*.json")))
    counts["completed"] = len(list(spool.glob("done/*.json")))
    counts["dead"] = len(list(spool.glob("dead/*.json")))
    return counts


def fill(spool: Path) -> dict[str, str]:
    """Jobs in every state but processing; returns the state of each."""
    for number in range(4):
        drop(spool, f"good{number}", command="true")
    drop(spool, "bad", command="false", max_retries=1)
    drop(spool, "again", command="false", backoff_base=100_000)
    (spool / "config.yaml").write_text("settle_time: 0\n")
    (spool / "pending" / "no_job.json").write_text("{}")
    for number in range(3):
        drop(spool, f"late{number}", command="true", run_at=FAR)
    drain(spool)
    good, late = (dict.fromkeys((f"{name}{n}" for n in range(count)), state) for name, count, state in (
        ("good", 4, "completed"), ("late", 3, "pending")))  # fmt: skip
    return {**good, "bad": "dead", "again": "failed", "no_job": "dead", **late}


# -- damage --------------------------------------------------------------------------------------------------------


def deleted(path: Path, _: Path) -> None:
    for name in (path, with_ending(path, "-wal"), with_ending(path, "-shm")):
        name.unlink(missing_ok=True)


def with_ending(path: Path, ending: str) -> Path:
    return path.with_name(path.name + ending)


def deleted_alone(path: Path, _: Path) -> None:
    """Only the database is deleted; its -wal and -shm files stay."""
    path.unlink()


def side_files_deleted(path: Path, _: Path) -> None:
    with_ending(path, "-wal").unlink(missing_ok=True)
    with_ending(path, "-shm").unlink(missing_ok=True)


def side_file_zeroed(path: Path, _: Path) -> None:
    if with_ending(path, "-wal").exists():
        with_ending(path, "-wal").write_bytes(b"")


def emptied(path: Path, _: Path) -> None:
    path.write_bytes(b"")


def truncated(path: Path, _: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def zeroed(path: Path, _: Path) -> None:
    path.write_bytes(b"\0" * path.stat().st_size)


def scrambled(path: Path, _: Path) -> None:
    path.write_bytes(random.Random(7).randbytes(path.stat().st_size))


def beheaded(path: Path, _: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"x" * 100)


def made_text(path: Path, _: Path) -> None:
    path.write_text("hello\n")


def made_a_folder(path: Path, _: Path) -> None:
    deleted(path, path)
    path.mkdir()


def an_old_one_moved_over_it(path: Path, old: Path) -> None:
    shutil.copy(old, with_ending(path, ".old"))
    with_ending(path, ".old").replace(path)


def an_old_one_copied_into_it(path: Path, old: Path) -> None:
    path.write_bytes(old.read_bytes())


def of_another_version(path: Path, _: Path) -> None:
    change(path, "UPDATE meta SET value = 999 WHERE key = 'schema'")


def of_the_version_before(path: Path, _: Path) -> None:
    """As an old worker makes it that runs beside a new one: its counts have the same name and fewer columns."""
    change(
        path,
        "DROP TABLE counts",
        "CREATE TABLE counts(state TEXT PRIMARY KEY, n INTEGER NOT NULL) WITHOUT ROWID",
        "DROP TABLE jobs",
        *(part for part in schema.tables().split(";") if "jobs" in part),
        "UPDATE meta SET value = 5 WHERE key = 'schema'",
    )


def of_another_shape(path: Path, _: Path) -> None:
    """As a later version might leave it behind."""
    change(
        path,
        "DROP TABLE jobs",
        "CREATE TABLE jobs(id INTEGER, x)",
        "UPDATE meta SET value = 999 WHERE key = 'schema'",
    )


def without_a_table(path: Path, _: Path) -> None:
    change(path, "DROP TABLE jobs")


def change(path: Path, *statements: str) -> None:
    db = sqlite3.connect(path, timeout=20, isolation_level=None)
    for statement in statements:
        db.execute(statement)
    db.close()


DAMAGES: dict[str, Callable[[Path, Path], None]] = {
    damage.__name__: damage
    for damage in (
        deleted, deleted_alone, side_files_deleted, side_file_zeroed, emptied, truncated, zeroed, scrambled, beheaded, made_text,
        made_a_folder, an_old_one_moved_over_it, an_old_one_copied_into_it, of_another_version, of_the_version_before,
        of_another_shape, without_a_table,
    )
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_index_changes_no_answer(spool_dir: Path, damage: str, cli: Callable[..., Any]) -> None:
    """The next command answers correctly, and so does the one after it; then the jobs run."""
    drop(spool_dir, "oldest", command="true")
    drain(spool_dir)
    old = spool_dir.parent / "old.db"
    shutil.copy(database(spool_dir), old)
    expected = {"oldest": "completed", **fill(spool_dir)}

    DAMAGES[damage](database(spool_dir), old)

    for _ in range(2):
        spool = Spool(spool_dir)
        assert {row.id: row.state for row in spool.list()} == expected
        assert spool.counts() == truth(spool_dir)
    assert cli("status", expect=0).stdout == f"jobs: {truth(spool_dir)}\nworkers: 0\n"
    drop(spool_dir, "new", command="true")
    drain(spool_dir)
    assert where_is(spool_dir, "new") == ["done"]
    assert Spool(spool_dir).counts() == truth(spool_dir)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("how", ["one", "many", "set", "wait"])
def test_damage_keeps_no_job_from_waiting_for_another(spool_dir: Path, damage: str, how: str) -> None:
    """A program has the index open. Whether a job waits for itself is asked of the index alone."""
    with Spool(spool_dir) as spool:
        spool.enqueue("true", id="first")
        spool.enqueue("true", id="second", after="first")
        spool.enqueue("true", id="third")
        shutil.copy(database(spool_dir), spool_dir.parent / "old.db")

        DAMAGES[damage](database(spool_dir), spool_dir.parent / "old.db")

        if how == "one":
            spool.enqueue("true", id="last", after="second")
        elif how == "many":
            spool.enqueue_many([{"id": "last", "command": "true", "after": ["second"]}])
        elif how == "set":
            spool.set("third", after="second")
        else:
            assert "no worker" in " ".join(spool.why_waiting("second"))
        names = {path.stem for path in (spool_dir / "pending").iterdir()}
        assert {row.id for row in spool.list()} == names


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_while_workers_run_costs_no_job(
    spool_dir: Path, damage: str, cli: Callable[..., Any], workers: Callable[..., Any]
) -> None:
    """Two workers are busy: each job runs once, the workers go on, and the counts are right at the end."""
    ran = spool_dir.parent / "ran"
    expected = fill(spool_dir)
    old = spool_dir.parent / "old.db"
    shutil.copy(database(spool_dir), old)
    workers(2)
    pids = [worker.pid for worker in Spool(spool_dir).workers()]
    names = [f"work{number}" for number in range(60)]
    for number, name in enumerate(names):
        drop(spool_dir, name, command=f"sleep 0.01; echo {name} >> {ran}")
        if number == 30:
            wait_until(lambda: len(list((spool_dir / "done").iterdir())) > 8)
            DAMAGES[damage](database(spool_dir), old)
    wait_until(lambda: finished(spool_dir, *names), timeout=40, message=lambda: truth(spool_dir))

    assert sorted(ran.read_text().split()) == sorted(names)
    spool = Spool(spool_dir)
    found = {row.id: row.state for row in spool.list()}
    assert found == {**expected, **dict.fromkeys(names, "completed")}
    assert spool.counts() == truth(spool_dir)
    drop(spool_dir, "new", command="true")
    wait_until(lambda: finished(spool_dir, "new"))
    assert Spool(spool_dir).counts() == truth(spool_dir)
    assert [worker.pid for worker in Spool(spool_dir).workers()] == pids


def test_a_spool_without_data_is_complete(spool_dir: Path, cli: Callable[..., Any]) -> None:
    """data/ is not needed to understand the spool, nor to use it."""
    expected = fill(spool_dir)
    shutil.rmtree(spool_dir / "data")
    assert {row["id"]: row["state"] for row in json.loads(cli("list", "--json", expect=0).stdout)} == expected
    drop(spool_dir, "new", command="true")
    drain(spool_dir)
    assert Spool(spool_dir).counts() == truth(spool_dir)


# -- out of reach --------------------------------------------------------------------------------------------------

HOLD = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=20)
db.execute("BEGIN EXCLUSIVE")
print("held", flush=True)
sys.stdin.readline()
"""


def hold(spool: Path) -> subprocess.Popen[str]:
    """A process that keeps the index locked until it reads a line from stdin."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(database(spool))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout
    assert holder.stdout.readline() == "held\n"
    return holder


def test_an_index_that_is_locked_for_a_while_costs_time_only(
    spool_dir: Path, cli: Callable[..., Any], workers: Callable[..., Any]
) -> None:
    """Another tool reads it: workers and commands go on afterwards, and nothing runs twice."""
    ran = spool_dir.parent / "ran"
    expected = fill(spool_dir)
    workers(2)
    holder = hold(spool_dir)
    try:
        for number in range(10):
            drop(spool_dir, f"work{number}", command=f"echo {number} >> {ran}")
        time.sleep(1.5)
    finally:
        holder.communicate("\n", timeout=20)
    names = [f"work{number}" for number in range(10)]
    wait_until(lambda: finished(spool_dir, *names))
    assert sorted(ran.read_text().split()) == sorted(str(number) for number in range(10))
    found = {row.id: row.state for row in Spool(spool_dir).list()}
    assert found == {**expected, **dict.fromkeys(names, "completed")}


@pytest.mark.parametrize("change", ["drop", "distrust", "put"])
def test_a_single_change_waits_for_whoever_writes(spool_dir: Path, change: str) -> None:
    """Outside of a move, too: the index is not marked broken because another process writes for a moment."""
    spool = Spool(spool_dir)
    spool.enqueue("true", id="a")
    spool.refresh()
    mirror = spool._index
    with mirror.moving():
        row = mirror.get("a")
    assert row is not None
    changes = {
        "drop": lambda: mirror.drop("a"),
        "distrust": lambda: mirror.mark_stale("pending"),
        "put": lambda: mirror.put(row),
    }
    holder = hold(spool_dir)
    let_go = threading.Timer(0.3, lambda: holder.communicate("\n", timeout=20))
    let_go.start()
    try:
        changes[change]()
        assert mirror.broken is None
    finally:
        let_go.join()


def test_commands_work_while_the_index_stays_locked(spool_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the time limit a command reads the folders itself; jobs are queued and run without the index, too."""
    expected = fill(spool_dir)
    monkeypatch.setattr(index_file, "WRITE_TIMEOUT", 0.2)
    monkeypatch.setattr(index_file, "WORKER_TIMEOUT", 0.2)
    holder = hold(spool_dir)
    try:
        drop(spool_dir, "dropped", command="true")
        Spool(spool_dir).enqueue("true", id="queued")
        spool = Spool(spool_dir)
        assert {row.id: row.state for row in spool.list()} == {
            **expected,
            "dropped": "pending",
            "queued": "pending",
        }
        drain(spool_dir)
        assert finished(spool_dir, "dropped", "queued")
        assert "every look reads all folders" in " ".join(spool.notes())
    finally:
        holder.communicate("\n", timeout=20)
    assert Spool(spool_dir).counts() == truth(spool_dir)


def test_an_index_that_cannot_be_written_is_not_needed(spool_dir: Path) -> None:
    """Because of its own permissions, and of its folder's."""
    expected = fill(spool_dir)
    database(spool_dir).chmod(0o400)
    if os.access(database(spool_dir), os.W_OK):
        pytest.skip("root may write everything")
    assert {row.id: row.state for row in Spool(spool_dir).list()} == expected
    (spool_dir / "data").chmod(0o500)
    try:
        assert {row.id: row.state for row in Spool(spool_dir).list()} == expected
    finally:
        (spool_dir / "data").chmod(0o700)


# -- trust ---------------------------------------------------------------------------------------------------------


def test_an_index_from_before_the_boot_is_rebuilt(spool_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be older than the folders, even if it seems to match; it is rebuilt before the first answer."""
    expected = fill(spool_dir)
    change(
        database(spool_dir),
        "DELETE FROM jobs WHERE id LIKE 'good%'",
        "UPDATE jobs SET state = 'pending' WHERE id = 'bad'",
    )
    monkeypatch.setattr("queuectl.api.spool_base.boot_id", lambda: "another boot")
    spool = Spool(spool_dir)
    assert spool.counts() == truth(spool_dir)
    assert {row.id: row.state for row in spool.list()} == expected
    again = Spool(spool_dir)
    assert again._index.open() is True
    assert again.counts() == truth(spool_dir)


def test_reindex_finds_every_job(spool_dir: Path, cli: Callable[..., Any]) -> None:
    """Whatever the index held before."""
    expected = fill(spool_dir)
    change(database(spool_dir), "DELETE FROM jobs WHERE id LIKE 'good%'")
    assert Spool(spool_dir).reindex() == len(expected)
    assert {row.id: row.state for row in Spool(spool_dir).list()} == expected


def rows_of(made: Index) -> dict[str, tuple[Any, ...]]:
    return {
        row.id: (row.state, row.place, row.name, row.priority, row.attempts, row.max_retries, row.run_at, row.next_retry_at,
                 row.command, row.exit_code, row.inode, row.mtime, row.size, row.due is None)
        for row in made.list(None, None)
    }  # fmt: skip


def test_an_index_built_from_scratch_equals_the_one_in_use(
    spool_dir: Path, workers: Callable[..., Any]
) -> None:
    """After drops, runs, retries, cancels, moves by hand and deletions, with two workers, both have the same rows."""
    fill(spool_dir)
    workers(2)
    spool = Spool(spool_dir)
    for number in range(40):
        drop(
            spool_dir,
            f"drop{number}",
            command="true" if number % 4 else "false",
            max_retries=1,
            priority=1 + number % 10,
        )
    queued = [
        spool.enqueue(f"exit {number % 2}", max_retries=2, backoff_base=50_000).id for number in range(10)
    ]
    assert len(spool.enqueue_many([{"command": "true"} for _ in range(20)])) == 20
    spool.cancel("late0")
    spool.retry("bad")
    (spool_dir / "pending" / "late1.json").rename(spool_dir / "dead" / "late1.json")
    (spool_dir / "done" / "good0.json").unlink()
    (spool_dir / "done" / "good1.json").rename(spool_dir / "pending" / "good1.json")
    wait_until(
        lambda: truth(spool_dir)["processing"] == 0 and truth(spool_dir)["pending"] == 1,
        message=lambda: truth(spool_dir),
    )
    wait_until(lambda: spool.counts() == truth(spool_dir), message=lambda: (spool.counts(), truth(spool_dir)))
    assert all(queued)

    layout = Layout(spool_dir)
    fresh = Index(":memory:", layout.root, "no boot")
    Intake(layout, fresh, Storage(layout, fresh), spool.settings).rebuild()

    assert rows_of(fresh) == rows_of(spool._index)
    assert fresh.counts() == spool.counts() == truth(spool_dir)


# -- the tables ----------------------------------------------------------------------------------------------------

OPS = st.lists(
    st.tuples(
        st.sampled_from(["put", "drop", "drop_if_at", "claimed", "insert_new"]),
        st.sampled_from("abcde"),
        st.sampled_from(STATES),
        st.sampled_from("xyz"),
    ),
    max_size=30,
)


@given(OPS)
def test_counts_are_what_counting_would_say(ops: list[tuple[str, str, str, str]]) -> None:
    """However rows are inserted, changed and deleted; and no two rows have the same file."""
    made = Index(":memory:", "/nowhere", "boot")
    made.open()
    for what, job_id, state, name in ops:
        row = Row(id=job_id, state=state, place="pending", name=name)
        if what == "claimed":
            made.mark_claimed([row], "processing/worker-0", "worker-0")
        elif what == "insert_new":
            made.insert_new([values_of(row)])
        elif what == "drop":
            made.drop(job_id)
        elif what == "drop_if_at":
            made.drop_if_at(job_id, "pending", name)
        else:
            getattr(made, what)(row)
        if made.broken:  # two files of one name in one folder cannot be
            made.broken = None
    counted = dict(made.db.execute("SELECT state, count(*) FROM jobs GROUP BY state").fetchall())
    assert made.counts() == {state: counted.get(state, 0) for state in STATES}
    places = made.db.execute("SELECT place || '/' || name FROM jobs").fetchall()
    assert len(places) == len(set(places))
    made.close()


def test_new_rows_are_complete_whatever_columns_are_empty() -> None:
    """Only the columns with a value are named in the statement; the row of a known id is not replaced."""
    made = Index(":memory:", "/nowhere", "boot")
    made.open()
    told: list[dict[str, Any]] = [
        {"ready_key": 1, "priority": 5},
        {"ready_key": 2, "priority": 6},
        {"due": 3, "tags": " a "},
        {"ready_key": 4},
        {"behind": 5, "unique_key": "k", "expires": 9, "last_error": "no"},
        {"ready_key": 6, "priority": 7},
    ]
    rows = [
        Row(id=f"j{n}", state="pending", place="pending", name=f"j{n}.json", **one)
        for n, one in enumerate(told)
    ]
    assert made.insert_new([values_of(row) for row in rows[:2]]) == 2

    assert made.insert_new([values_of(row) for row in rows]) == len(rows) - 2
    assert made.insert_new([]) == 0

    for number, row in enumerate(rows):
        row.seq = number + 1
        assert made.get(row.id) == row
    made.close()


def test_rows_are_listed_in_the_order_of_arrival(spool_dir: Path) -> None:
    """A limit and a page shorten the list, and nothing else does."""
    ids = Spool(spool_dir).enqueue_many(
        [{"id": f"job{n}", "command": "true", "priority": 1 + n % 10} for n in range(60)]
    )
    spool = Spool(spool_dir)
    assert [row.id for row in spool.list()] == ids
    assert [row.id for row in spool.list(limit=7)] == ids[:7]
    assert [row.id for row in spool.list("pending")] == ids
    assert spool.list("dead") == []
    first = spool._index.list(None, 25)
    assert [row.id for row in spool._index.list(None, 100, first[-1].seq or 0)] == ids[25:]


# -- stamps --------------------------------------------------------------------------------------------------------


def agreed(spool_dir: Path) -> Spool:
    """A spool whose index has agreed with pending/ for some time."""
    drop(spool_dir, "first", command="true")
    spool = Spool(spool_dir)
    spool.refresh()
    time.sleep(0.05)
    spool.refresh()
    assert spool._index.agrees("pending", time.time_ns())
    return spool


@pytest.mark.parametrize("change", ["drop", "delete", "replace", "rename"])
def test_a_change_by_others_is_noticed(spool_dir: Path, change: str) -> None:
    """Every change of a name in the folder."""
    spool = agreed(spool_dir)
    path = spool_dir / "pending" / "first.json"
    if change == "drop":
        drop(spool_dir, "second", command="true")
    elif change == "delete":
        path.unlink()
    elif change == "replace":
        drop(spool_dir, "first", command="false")
    else:
        path.rename(path.with_name("other.json"))
    assert not spool._index.agrees("pending", time.time_ns())


def test_our_own_move_is_not_a_change_by_others(spool_dir: Path) -> None:
    """Otherwise each move would cost a scan."""
    spool = agreed(spool_dir)
    Spool(spool_dir).enqueue("true")
    assert spool._index.agrees("pending", time.time_ns())


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_file_dropped_during_our_own_move_is_run(
    spool_dir: Path, workers: Callable[..., Any], when: str
) -> None:
    """It arrives between our two readings of the folder's time and does not change what we see; an idle worker still finds it."""
    spool = agreed(spool_dir)
    workers(1)
    wait_until(lambda: finished(spool_dir, "first"))
    ours = spool_dir / "tmp" / "ours.json"
    ours.write_text('{"command": "true"}')
    spool.refresh()
    with spool._index.moving("pending"):
        if when == "before":
            drop(spool_dir, "theirs", command="true")
        ours.rename(spool_dir / "pending" / "ours.json")
        if when == "after":
            drop(spool_dir, "theirs", command="true")
    wait_until(lambda: finished(spool_dir, "theirs", "ours"), timeout=8)
    assert spool.counts() == truth(spool_dir)


def test_two_changes_within_one_tick_of_the_clock_are_both_noticed(spool_dir: Path) -> None:
    """A folder's time advances in steps; a change right after a scan may leave it the same."""
    spool = agreed(spool_dir)
    for number in range(30):
        drop(spool_dir, f"one{number}", command="true")
        spool.refresh()
        drop(spool_dir, f"two{number}", command="true")
        assert spool.counts()["pending"] >= 2 * number + 2
    time.sleep(0.05)
    assert spool.counts()["pending"] == 61


def test_a_replaced_folder_is_noticed(spool_dir: Path) -> None:
    """Even with the same time, as a backup tool restores it."""
    spool = agreed(spool_dir)
    folder = spool_dir / "pending"
    status = folder.stat()
    folder.rename(spool_dir / "away")
    folder.mkdir(mode=0o700)
    os.utime(folder, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert spool.counts()["pending"] == 0


@pytest.mark.parametrize("many", [False, True], ids=["one", "many"])
def test_damage_in_the_middle_of_an_enqueue_costs_nothing(
    spool_dir: Path, monkeypatch: pytest.MonkeyPatch, many: bool
) -> None:
    """It is noticed when the id is checked: the job is still queued, once, and a taken id is refused."""
    spool = Spool(spool_dir)
    spool.enqueue("true", id="taken")
    spool.refresh()

    def damaged(*_: object) -> None:
        raise sqlite3.DatabaseError("database disk image is malformed")

    with monkeypatch.context() as patch:
        patch.setattr(Index, "get", damaged)
        if many:
            assert spool.enqueue_many([{"id": "new", "command": "true"}]) == ["new"]
        else:
            spool.enqueue("true", id="new")
        with pytest.raises(DuplicateId):
            spool.enqueue("true", id="taken")
    assert Spool(spool_dir).counts()["pending"] == 2
    assert spool.counts()["pending"] == 2


NO_ROWS = [
    "UPDATE jobs SET due = 'worker-0.json'",
    "UPDATE jobs SET name = x'07' WHERE id = 'job'",
    "UPDATE jobs SET id = x'00' WHERE id = 'job'",
    "UPDATE jobs SET arrived = 'never' WHERE id = 'job'",
    "UPDATE jobs SET priority = 'high' WHERE id = 'job'",
    "UPDATE counts SET n = 'many' WHERE state = 'pending'",
    "UPDATE jobs SET lane = 'mail gpu=two' WHERE id = 'job'",
]


@pytest.mark.parametrize("statement", NO_ROWS)
def test_an_invalid_row_is_damage_and_ends_no_worker(spool_dir: Path, statement: str) -> None:
    """A copy written over the open file mixes pages, and SQLite returns text for a number without an error."""
    drop(spool_dir, "later", command="true", run_at=FAR)
    drop(spool_dir, "job", command="true", run_at=FAR)
    Spool(spool_dir).refresh()
    change(database(spool_dir), statement)

    drain(spool_dir, wait_retries=False)
    spool = Spool(spool_dir)
    assert {row.id for row in spool.list()} == {"later", "job"}
    assert spool.counts()["pending"] == 2
    drain(spool_dir, now=lambda: time.time() + 80 * 365.25 * 86400)
    assert finished(spool_dir, "later", "job")


def test_an_invalid_due_time_is_damage(spool_dir: Path) -> None:
    """A due time is read from SQLite's own index of it, without the row that `_row` checks."""
    spool = Spool(spool_dir)
    spool.enqueue("true", run_at=FAR)
    spool.refresh()
    change(database(spool_dir), "UPDATE jobs SET due = 'worker-0.json'")
    with pytest.raises(sqlite3.DatabaseError, match="malformed"):
        spool._index.ready_and_due()


def test_damage_that_shows_only_when_the_index_is_emptied_costs_nothing(
    spool_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`reindex` reads pages that no other command reads: it starts with a new file."""
    expected = fill(spool_dir)
    spool = Spool(spool_dir)
    spool.refresh()
    damaged = iter([True])
    empty = schema.start_anew

    def start_anew(db: sqlite3.Connection) -> None:
        if next(damaged, False):
            raise sqlite3.DatabaseError("database disk image is malformed")
        empty(db)

    monkeypatch.setattr(schema, "start_anew", start_anew)

    assert spool.reindex() == len(expected)


def test_a_rebuild_reads_files_while_others_use_the_index(
    spool_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It read a million files inside the index's lock: each enqueue waited, and went on without the index."""
    spool, other = Spool(spool_dir), Spool(spool_dir)
    for name in ("stays", "edited", "removed", "cancelled", "put-back"):
        spool.enqueue("true", id=name)
    spool.cancel("put-back")
    load, read = Loader.load, []

    def meanwhile(self: Loader, place: str, names: list[str], left_dead: Any) -> Any:
        found = load(self, place, names, left_dead)
        read.extend(names)
        if place == "pending" and len(read) > 3 and "new.json" not in os.listdir(spool_dir / "pending"):
            other.enqueue("true", id="new")
            assert other._index.usable
            other.forget("removed")
            other.cancel("cancelled")
            other.retry("put-back", priority=9)
            path = spool_dir / "pending" / "edited.json"
            was = path.stat()
            path.write_text(path.read_text().replace('"priority": 5', '"priority": 8'))
            assert path.stat().st_ino == was.st_ino
        return found

    monkeypatch.setattr(Loader, "load", meanwhile)

    told: list[int] = []
    assert spool.reindex(told.append) == 5
    assert told[-1] == 5
    monkeypatch.undo()
    edited = spool._index.get("edited")
    assert edited
    assert edited.priority == 8  # before a command looks for edits
    for door in (spool, other, Spool(spool_dir)):
        assert {row.id: (row.state, row.priority) for row in door.list()} == {
            "stays": ("pending", 5),
            "edited": ("pending", 8),
            "cancelled": ("dead", 5),
            "put-back": ("pending", 9),
            "new": ("pending", 5),
        }
    assert other.counts() == {"pending": 4, "processing": 0, "completed": 0, "failed": 0, "dead": 1}


@pytest.mark.parametrize("clock", ["fine", "slow"])
def test_a_rebuild_looks_again_only_into_a_folder_that_may_have_changed(
    spool_dir: Path, monkeypatch: pytest.MonkeyPatch, clock: str
) -> None:
    """To compare a million files with their rows took a third of a rebuild, while all others waited.

    A file that is replaced shows in the time of its folder, unless that time is so young that the clock had not ticked since.
    """
    spool = Spool(spool_dir)
    spool.enqueue_many([{"id": name, "command": "true"} for name in "ab"])
    pending = spool_dir / "pending"
    looks: list[str] = []
    scan_all, load = Intake.scan_all, Loader.load

    def look(self: Intake, place: str, **how: bool) -> None:
        looks.append(place)
        scan_all(self, place, **how)

    monkeypatch.setattr(Intake, "scan_all", look)
    for folder in ("pending", "done", "dead"):
        os.utime(spool_dir / folder, ns=(0, 1_500_000_000_123_456_789))
    assert spool.reindex() == 2
    assert not looks
    assert spool._intake.pending_agrees()
    drop(spool_dir, "broken", command=7)
    os.utime(pending, ns=(0, 1_500_000_000_123_456_789))
    assert spool.reindex() == 2
    assert looks == ["pending"]  # what may still be written is not forgotten
    assert spool._intake.unfinished == 1

    (pending / "broken.json").unlink()
    looks.clear()
    when = time.time_ns() if clock == "slow" else 1_500_000_000_123_456_789
    os.utime(pending, ns=(0, when + (when % 10**9 == 0)))

    def meanwhile(self: Loader, place: str, names: list[str], left_dead: Any) -> Any:
        found = load(self, place, names, left_dead)
        if place == "pending":
            other = spool_dir / "tmp" / "new"
            other.write_text((pending / "a.json").read_text().replace('"priority": 5', '"priority": 8'))
            was = pending.stat().st_mtime_ns
            other.replace(pending / "a.json")
            if clock == "slow":
                os.utime(pending, ns=(0, was))
        return found

    monkeypatch.setattr(Loader, "load", meanwhile)
    assert spool.reindex() == 2
    assert "pending" in looks
    again = spool._index.get("a")
    assert again
    assert again.priority == 8


def test_many_rows_take_the_place_of_a_stale_one_that_has_their_file(spool_dir: Path) -> None:
    """Somebody deleted that one's file, and the index does not know it yet; the counts stay right."""
    spool = Spool(spool_dir)
    ids = list(spool.enqueue_many(["true", "true", "true"]))
    index = spool._index
    index.put(Row("stale", "dead", "dead", f"{ids[1]}.json"))
    rows = [row for job_id in ids if (row := index.get(job_id))]
    for row in rows:
        row.state, row.place, row.ready_key = "dead", "dead", None

    with index.moving():
        index.put_all([*rows, Row("new", "dead", "dead", "new.json")])

    assert index.broken is None
    assert index.get("stale") is None
    assert [(row.id, row.place) for row in index.list("dead", None)] == [
        (name, "dead") for name in (*ids, "new")
    ]
    assert (index.counts()["pending"], index.counts()["dead"]) == (0, 4)


def test_many_rows_go_to_the_end_in_their_order(spool_dir: Path) -> None:
    """A job that was sent back comes after those that have been queued since."""
    spool = Spool(spool_dir)
    ids = list(spool.enqueue_many([{"id": name, "command": "true"} for name in "abcd"]))
    spool.cancel_many(["a", "b"])

    spool.retry_many(["b", "a"])

    assert [row.id for row in spool.list(where=Filter(sort="arrived"))] == ["c", "d", "b", "a"]
    assert ids == ["a", "b", "c", "d"]


def test_after_a_boot_one_process_reads_and_nobody_is_locked_out_meanwhile(
    spool_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each read a million files for itself, one of them inside the index's lock: a worker's claims waited for it."""
    for name in ("a", "b", "c"):
        drop(spool_dir, name, command="true")
    first, second = Spool(spool_dir), Spool(spool_dir)
    first.refresh()
    monkeypatch.setattr(index_file.Database, "_is_trusted", _until_made_anew())
    load, waiter = Loader.load, threading.Thread(target=second.counts)
    readers: set[int] = set()
    acquire = Lock.acquire
    asked: list[str] = []

    def noted(path: str, **more: float) -> Lock | None:
        asked.append(path)
        return acquire(path, **more)

    def meanwhile(self: Loader, place: str, names: list[str], left_dead: Any) -> Any:
        if not readers:
            waiter.start()
            change(database(spool_dir), "BEGIN IMMEDIATE", "ROLLBACK")
            wait_until(lambda: len(asked) == 2, timeout=5)
        readers.add(threading.get_ident())
        return load(self, place, names, left_dead)

    monkeypatch.setattr(Loader, "load", meanwhile)
    monkeypatch.setattr(Lock, "acquire", noted)
    assert first.counts()["pending"] == 3
    waiter.join()

    assert readers == {threading.get_ident()}
    assert second.counts()["pending"] == 3


def _until_made_anew() -> Callable[[index_file.Database], bool]:
    """As if the machine had been booted, until somebody has made the index anew."""
    made_at: list[float] = []

    def is_trusted(self: index_file.Database) -> bool:
        if not made_at:
            made_at.append(self.meta("made"))
        return bool(self.meta("made") != made_at[0])

    return is_trusted


def test_of_two_files_with_one_id_the_first_is_the_job_when_all_are_read_at_once(spool_dir: Path) -> None:
    """The rows are inserted without a look at each id, and sorted later."""
    spool = Spool(spool_dir)
    spool.refresh()
    made = spool._index
    made.begin_ahead()
    rows = [("a", "1"), ("b", "2"), ("a", "3"), ("c", "2")]
    made.put_ahead(
        [values_of(Row(id=job_id, state="pending", place="pending", name=name)) for job_id, name in rows]
    )
    with made.write():
        made.begin_rebuild(ahead=True)
        made.finish_rebuild()

    assert [(row.id, row.name) for row in made.list(None, None)] == [("a", "1"), ("b", "2")]
    assert made.insert_new([values_of(Row(id="a", state="pending", place="pending", name="4"))]) == 0
    made.end_ahead()
