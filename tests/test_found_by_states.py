"""What the state machine has found, each told as the story that made it happen."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pytest
from checker import assert_spool_sane

from queuectl import Spool

from support import drain, drop, drop_bytes, where_is

if TYPE_CHECKING:
    from pathlib import Path

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
