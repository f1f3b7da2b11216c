"""What the state machine has found, each told as the story that made it happen."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import sys
import time
from itertools import count
from typing import TYPE_CHECKING

import pytest
from checker import assert_spool_sane

from queuectl import Spool
from queuectl.system import files

from support import drain, drop, drop_bytes, first_ready, load, run_cli, where_is

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="commands are written for sh")


def lose_index(spool: Path) -> None:
    for path in (spool / "data").glob("queuectl.db*"):
        path.unlink()


def test_a_buried_duplicate_never_takes_the_place_of_the_job(spool_dir: Path) -> None:
    """A duplicate in dead/ holds a job with the id of another; an index made anew must not take it for that job."""
    drop(spool_dir, "report", command="echo right", id="report")
    assert Spool(spool_dir).get("report").command == "echo right"
    drop(spool_dir, "second", command="echo wrong", id="report")
    assert Spool(spool_dir).counts()["dead"] == 1

    lose_index(spool_dir)

    assert Spool(spool_dir).get("report").command == "echo right"
    assert (
        Spool(spool_dir).get("second").last_error
        == "duplicate id: 'report' is the id of another job, which is pending"
    )
    assert where_is(spool_dir, "report") == ["pending"]
    drain(spool_dir)
    assert where_is(spool_dir, "report") == ["done"]
    assert_spool_sane(spool_dir, acknowledged=["report"])


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no renameat2")
@pytest.mark.parametrize("call", ["replace", "fsync", "_renameat2"])
def test_who_dies_over_a_duplicate_does_not_give_it_the_id_of_the_job(
    spool_dir: Path, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without its reason the duplicate looks like a job that was given up by hand, and the waiting job lost its id."""
    drop(spool_dir, "report", command="echo right")
    assert Spool(spool_dir).get("report").command == "echo right"
    drop(spool_dir, "second", command="echo wrong", id="report")
    module = files if call.startswith("_") else os
    real, deaths = getattr(module, call), count()

    class DiedError(BaseException):
        pass

    def die_after(*given: Any, **named: Any) -> Any:
        done = real(*given, **named)
        if next(deaths) == 0:
            raise DiedError
        return done

    monkeypatch.setattr(module, call, die_after)
    with contextlib.suppress(DiedError):
        Spool(spool_dir).counts()
    monkeypatch.undo()

    Spool(spool_dir).reindex()

    assert next(deaths) > 0
    assert Spool(spool_dir).get("report").command == "echo right"
    assert_spool_sane(spool_dir, acknowledged=["report"])


@pytest.mark.parametrize("first", ["list", "reindex", "doctor --repair", "a worker"])
def test_a_dropped_job_that_is_edited_beside_its_claimed_copy_is_one_job(spool_dir: Path, first: str) -> None:
    """Its worker died in the middle of a settle. The edited file was taken for a duplicate, and the old command ran again."""
    dropped = b'{"command": "echo ran >> %s/../ledger; exit 3", "backoff_base": 60}' % os.fsencode(spool_dir)
    drop_bytes(spool_dir, "report.json", dropped)
    drain(spool_dir)
    drop_bytes(spool_dir, "report.json", dropped, "processing/worker-7")
    path = spool_dir / "pending" / "report.json"
    drop_bytes(spool_dir, "report.json", json.dumps(load(path) | {"command": "echo edited"}).encode())

    if first == "reindex":
        lose_index(spool_dir)
    if first != "a worker":
        run_cli("--spool", str(spool_dir), *first.split())
    in_an_hour = time.time() + 3600
    drain(spool_dir, now=lambda: in_an_hour)

    assert where_is(spool_dir, "report") == ["done"]
    assert load(spool_dir / "done" / "report.json")["output"] == "edited\n"
    assert (spool_dir.parent / "ledger").read_text() == "ran\n"
    assert_spool_sane(spool_dir, acknowledged=["report"])


def test_a_reason_left_behind_is_not_believed_of_the_next_file(spool_dir: Path) -> None:
    """Rubbish in dead/ was deleted by hand and its reason was not; a job of that name that dies is a job."""
    door = Spool(spool_dir)
    drop_bytes(spool_dir, "x.json", b'"rubbish"', "dead")
    (spool_dir / "dead" / "x.json.reason").write_text("not a job\n")
    (spool_dir / "dead" / "x.json").unlink()
    door.enqueue("exit 3", id="x", max_retries=1)
    drain(spool_dir)
    lose_index(spool_dir)

    assert Spool(spool_dir).get("x").last_error == "Exit code 3"
    assert json.loads((spool_dir / "dead" / "x.json").read_bytes())["exit_code"] == 3
    assert not (spool_dir / "dead" / "x.json.reason").exists()


@pytest.mark.parametrize("parts", [5, 9, 12])
def test_an_index_cut_within_a_page_is_not_believed(spool_dir: Path, parts: int) -> None:
    """SQLite takes the missing half of a page for zeros, and counts and lists wrong without a word."""
    door = Spool(spool_dir)
    for number in range(60):
        door.enqueue(f"echo {number}", id=f"job{number}")
    path = spool_dir / "data" / "queuectl.db"
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size * parts // 13 + 100)

    assert Spool(spool_dir).counts()["pending"] == 60
    assert len(door.list()) == 60
    assert_spool_sane(spool_dir)


def test_what_the_index_alone_knows_is_no_drift(spool_dir: Path) -> None:
    """A failed job was given up by hand and put back: that its attempts are over stands in no file."""
    drop(spool_dir, "job", command="false", max_retries=3, backoff_base=1000)
    drain(spool_dir)
    (spool_dir / "pending" / "job.json").rename(spool_dir / "dead" / "job.json")
    assert Spool(spool_dir).get("job").state == "dead"
    (spool_dir / "dead" / "job.json").rename(spool_dir / "pending" / "job.json")

    assert [(row.state, row.attempts) for row in Spool(spool_dir).list()] == [("pending", 0)]
    assert_spool_sane(spool_dir, acknowledged=["job"])


def test_an_index_cut_between_pages_is_made_anew_when_it_is_asked(spool_dir: Path) -> None:
    """It opens well, its folders seem to agree, and only the question about a missing page finds it out."""
    spool = Spool(spool_dir)
    for number in range(30):
        spool.enqueue(f"echo {number}", id=f"job{number}")
    path = spool_dir / "data" / "queuectl.db"
    pages = path.stat().st_size // 4096

    for kept in range(1, max(pages, 12)):
        for ask in (
            lambda door: door.counts()["pending"],
            lambda door: len(door.list()),
            lambda door: door.get("job7").id,
            lambda door: door._ask(lambda: first_ready(door._index)).id if door.counts() else "",
            lambda door: door._ask(door._index.ready_and_due)[1] or 30 if door.counts() else 0,
            lambda door: len(door.list("pending")),
        ):
            spool.list()
            with contextlib.closing(sqlite3.connect(path)) as db:
                db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            if path.stat().st_size > kept * 4096:
                os.truncate(path, kept * 4096)
            assert ask(Spool(spool_dir)) in {30, "job7", "job0"}
    assert_spool_sane(spool_dir)


def test_a_file_that_is_buried_while_the_index_turns_out_damaged_is_listed(spool_dir: Path) -> None:
    """The look-up of its id failed, so its row was not written, and the list that followed was believed."""
    spool_dir.mkdir(mode=0o700, exist_ok=True)
    (spool_dir / "config.yaml").write_text("settle_time: 0\n")
    spool = Spool(spool_dir)
    spool.enqueue("echo right", id="report")
    path = spool_dir / "data" / "queuectl.db"
    for number, part in enumerate(("jobs_id", "counts", "waits_parent"), 1):
        spool.list()
        with contextlib.closing(sqlite3.connect(path)) as db:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            [page] = db.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (part,)).fetchone()
        with path.open("r+b") as file:
            file.seek(4096 * (page - 1))
            file.write(bytes(4096))
        drop_bytes(spool_dir, f"rubbish{number}.json", b'"rubbish"')

        assert len(Spool(spool_dir).list()) == 1 + number
    assert_spool_sane(spool_dir, acknowledged=["report"])


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("a", {"id": "report", "after_any": ["parent"]}),
        ("a", {"id": "report", "unique": "key"}),
        ("report", {"after_any": ["parent"]}),
        ("report", {"unique": "key"}),
    ],
)
def test_a_copy_that_came_later_never_gets_the_id_of_a_job_that_is_read_with_care(
    spool_dir: Path, name: str, fields: dict[str, object]
) -> None:
    """An index made anew reads plain files first. The job that was there before has the id all the same."""
    Spool(spool_dir).enqueue("true", id="parent")
    drop(spool_dir, name, command="echo right", **fields)
    assert Spool(spool_dir).get("report").command == "echo right"
    time.sleep(0.02)  # beyond one tick of the file system's clock
    drop(spool_dir, "b", command="echo wrong", id="report")

    lose_index(spool_dir)

    assert Spool(spool_dir).get("report").command == "echo right"
    assert [job.id for job in Spool(spool_dir).list("dead")] == ["b"]
    assert_spool_sane(spool_dir, acknowledged=["report", "parent"])
