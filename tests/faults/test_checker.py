"""A checker that finds nothing wrong proves nothing, unless it finds what is wrong."""

from __future__ import annotations

import json
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest
from checker import assert_spool_sane

from queuectl import Spool

from support import drain, drop_bytes, end_all, load, processes_of

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def spool(spool_dir: Path) -> Path:
    """A spool with a job in most states; each run has written its id down."""
    door = Spool(spool_dir)
    for job_id, command in (("good", "true"), ("bad", "exit 1"), ("later", "exit 2")):
        door.enqueue(command, id=job_id, max_retries=2 if job_id == "later" else 1)
    drain(spool_dir)
    door.enqueue("true", id="waits")
    drop_bytes(spool_dir, "odd.json", b"?", "dead")
    (spool_dir / "dead" / "odd.json.reason").write_text("no JSON\n")
    return spool_dir


KNOWN: dict[str, Any] = {"acknowledged": ["good", "bad", "later", "waits"], "runs": ["good", "bad", "later"]}


def test_a_sound_spool_is_sane(spool: Path) -> None:
    """Where nothing is wrong, nothing is said."""
    assert_spool_sane(spool, **KNOWN)


def test_a_lost_job_is_noticed(spool: Path) -> None:
    """An acknowledged id must lie somewhere."""
    (spool / "pending" / "waits.json").unlink()
    with pytest.raises(AssertionError, match="waits was acknowledged and is lost"):
        assert_spool_sane(spool, **KNOWN)


def test_a_job_in_two_places_is_noticed(spool: Path) -> None:
    """By the doctor, and by a look that uses nothing of queuectl's."""
    drop_bytes(spool, "good.json", (spool / "done" / "good.json").read_bytes(), "dead")
    with pytest.raises(
        AssertionError, match=r"(?s)doctor: twin.*good lies in done/good\.json and dead/good\.json"
    ):
        assert_spool_sane(spool, **KNOWN)


def test_what_cannot_be_read_needs_a_reason(spool: Path) -> None:
    """A torn file in done/ is an outcome that is lost."""
    (spool / "done" / "good.json").write_bytes(b"\0" * 100)
    with pytest.raises(AssertionError, match=r"done/good\.json is no job, and nothing explains it"):
        assert_spool_sane(spool, **KNOWN)


def test_a_run_that_nobody_wrote_down_is_noticed(spool: Path) -> None:
    """A job that began more often than its history says ran beside itself, or again."""
    with pytest.raises(AssertionError, match="good was started 2 times"):
        assert_spool_sane(spool, **KNOWN | {"runs": ["good", "good"]})
    assert_spool_sane(spool, **KNOWN | {"runs": ["good", "good"]}, unrecorded=1)


def test_a_finished_job_that_ran_again_is_noticed(spool: Path) -> None:
    """Unless a person sent it back."""
    (spool / "done" / "good.json").rename(spool / "pending" / "good.json")
    drain(spool)
    with pytest.raises(AssertionError, match="good had succeeded and was run again"):
        assert_spool_sane(spool, **KNOWN)
    assert_spool_sane(spool, **KNOWN, again=["good"])


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE jobs SET attempts = 7 WHERE id = 'later'",
        "UPDATE jobs SET last_error = 'else' WHERE id = 'bad'",
        "UPDATE jobs SET due = NULL WHERE id = 'later'",
        "UPDATE counts SET n = n + 1 WHERE state = 'completed'",
        "DELETE FROM jobs WHERE id = 'good'",
    ],
)
def test_an_index_that_lies_is_noticed(spool: Path, change: str) -> None:
    """It must say what one made anew would say."""
    Spool(spool).list()
    with sqlite3.connect(spool / "data" / "queuectl.db") as db:
        db.execute(change)
    db.close()
    with pytest.raises(AssertionError, match="the spool is not sane"):
        assert_spool_sane(spool, **KNOWN)


def test_a_job_of_a_dead_worker_is_noticed(spool: Path) -> None:
    """Until somebody takes it back, or the test says that it knows."""
    drop_bytes(
        spool, "taken.json", json.dumps({"command": "true", "id": "taken"}).encode(), "processing/worker-5"
    )
    with pytest.raises(AssertionError, match="doctor: abandoned"):
        assert_spool_sane(spool, **KNOWN)
    assert_spool_sane(spool, **KNOWN, allow=["abandoned"])
    drain(spool)
    assert_spool_sane(spool, acknowledged=["taken", *KNOWN["acknowledged"]])
    outcomes = [entry["outcome"] for entry in load(spool / "done" / "taken.json")["history"]]
    assert outcomes == ["interrupted", "succeeded"]


def test_a_process_that_lives_on_is_noticed(spool: Path) -> None:
    """Unless the test's jobs leave them on purpose."""
    Spool(spool).enqueue("sleep 20 &", id="leaves")
    drain(spool)
    with pytest.raises(AssertionError, match="is running, though that run has ended"):
        assert_spool_sane(spool, **KNOWN)
    assert_spool_sane(spool, **KNOWN, background=True)
    end_all(processes_of(spool))
