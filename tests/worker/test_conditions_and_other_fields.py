"""Jobs that wait for jobs, and that are held, scheduled, unique or given up at a moment, too; and files that are wrong."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import gate
import pytest
from noted import drop, order

from queuectl import Spool
from queuectl.control.permits import Permit, Permits

import support
from support import load, run_cli, where_is

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="commands are written for sh")

NOON = datetime(2031, 1, 1, 12, tzinfo=UTC).timestamp()


@pytest.fixture
def home(spool_dir: Path) -> Path:
    return gate.home_with_gate(spool_dir)


def drain_at(spool_dir: Path, seconds: float) -> None:
    """Run a worker at a moment after noon until nothing can run now."""
    support.drain(spool_dir, now=lambda: NOON + seconds)


def test_a_child_with_a_moment_waits_for_both(spool_dir: Path, home: Path) -> None:
    """The parent ends after the moment of one of them, and before that of the other."""
    drop(spool_dir, "parent", run_at="2031-01-01T13:00:00Z")
    drop(spool_dir, "early", after=["parent"], run_at="2031-01-01T12:30:00Z")
    drop(spool_dir, "late", after=["parent"], run_at="2031-01-01T14:00:00Z")
    drain_at(spool_dir, 2700)
    assert order(home) == []
    drain_at(spool_dir, 3700)
    assert order(home) == ["parent", "early"]
    drain_at(spool_dir, 7300)
    assert order(home) == ["parent", "early", "late"]


def test_a_child_that_is_held_waits_for_its_release_and_its_parent(spool_dir: Path, home: Path) -> None:
    """Released before its parent has ended, it waits on; and held, the end of its parent does not let it go."""
    drop(spool_dir, "parent", hold=True)
    drop(spool_dir, "first", after=["parent"], hold=True)
    drop(spool_dir, "second", after=["parent"], hold=True)
    support.drain(spool_dir)
    spool = Spool(spool_dir)
    spool.release("first")
    support.drain(spool_dir)
    assert order(home) == []
    spool.release("parent")
    support.drain(spool_dir)
    assert order(home) == ["parent", "first"]
    spool.release("second")
    support.drain(spool_dir)
    assert order(home) == ["parent", "first", "second"]


def test_a_child_with_a_unique_key_gets_its_turn_after_its_conditions(spool_dir: Path, home: Path) -> None:
    """It came first of its key. The other one must not wait for a job that cannot start."""
    drop(spool_dir, "child", after=["parent"], unique="k", if_exists="queue")
    drop(spool_dir, "other", unique="k", if_exists="queue")
    drop(spool_dir, "parent", hold=True)
    support.drain(spool_dir)
    assert order(home) == ["other"]
    Spool(spool_dir).release("parent")
    support.drain(spool_dir)
    assert order(home) == ["other", "parent", "child"]


def test_a_child_that_waits_too_long_is_given_up(spool_dir: Path, home: Path) -> None:
    """Its parent never comes. Without this it would wait for ever."""
    drop(spool_dir, "child", after=["missing"], expires_at="2031-01-01T13:00:00Z")
    drain_at(spool_dir, 0)
    assert where_is(spool_dir, "child") == ["pending"]
    drain_at(spool_dir, 3700)
    assert where_is(spool_dir, "child") == ["dead"]
    assert order(home) == []


def test_a_parent_that_has_expired_is_dead_for_its_children(spool_dir: Path, home: Path) -> None:
    """It never ran, so nobody settled it as a failure."""
    drop(spool_dir, "parent", run_at="2031-01-01T15:00:00Z", expires_at="2031-01-01T13:00:00Z")
    drop(spool_dir, "load", after=["parent"])
    drop(spool_dir, "tidy", after_any=["parent"])
    drop(spool_dir, "alarm", after_failure=["parent"])
    drain_at(spool_dir, 3700)
    assert sorted(order(home)) == ["alarm", "tidy"]
    assert where_is(spool_dir, "load") == ["pending"]


def test_a_missing_parent_sends_no_job_to_dead(spool_dir: Path, home: Path) -> None:
    """It may still come: files of a chain are dropped in any order. Only a dead one does that."""
    drop(spool_dir, "child", after=["parent"], if_blocked="dead")
    support.drain(spool_dir, wait_retries=True)
    assert where_is(spool_dir, "child") == ["pending"]
    drop(spool_dir, "parent")
    support.drain(spool_dir)
    assert order(home) == ["parent", "child"]


def test_a_job_that_was_not_needed_counts_as_done(spool_dir: Path, home: Path) -> None:
    """For those that wait for it, and for who waits for it at a terminal."""
    drop(spool_dir, "good")
    drop(spool_dir, "bad", command="exit 1")
    drop(spool_dir, "alarm", after_failure=["bad", "good"])
    drop(spool_dir, "next", after=["alarm"])
    support.drain(spool_dir)
    assert order(home) == ["good", "next"]
    assert where_is(spool_dir, "alarm") == ["done"]
    assert run_cli("--spool", str(spool_dir), "wait", "alarm", "--for", "success").returncode == 0


def test_a_parent_that_is_named_twice_is_waited_for_once(spool_dir: Path, home: Path) -> None:
    """In one list it is one condition, and in two lists both must hold."""
    drop(spool_dir, "parent", command="exit 1")
    drop(spool_dir, "twice", after_any=["parent", "parent"])
    drop(spool_dir, "both", after_any=["parent"], after_failure=["parent"])
    drop(spool_dir, "word", after_any="parent")
    support.drain(spool_dir)
    assert sorted(order(home)) == ["both", "twice", "word"]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"after": [1]}, "after: must be a list of ids, and has a number in it"),
        ({"after": ["a b"]}, "after: 'a b' is no id and no batch:NAME"),
        ({"after_any": ["batch:"]}, "after_any: 'batch:' is no id and no batch:NAME"),
        ({"after": ["batch:x=y"]}, "after: the count of batch:x must be a whole number"),
        ({"after": ["wrong"]}, "after: it cannot wait for itself"),
        ({"after": ["p"], "after_failure": ["p"]}, "after_failure: could never start: p is in after, too"),
        ({"batch": "a=b"}, "batch: "),
        ({"if_blocked": "die"}, "if_blocked: "),
    ],
)
def test_a_file_with_a_wrong_condition_is_dead_with_the_reason(
    spool_dir: Path, home: Path, fields: dict[str, Any], reason: str
) -> None:
    """Its producer has no answer to read. The job must not start as if it had no condition."""
    drop(spool_dir, "wrong", **fields)
    (spool_dir / "config.yaml").write_text("settle_time: 0\n")
    support.drain(spool_dir)
    assert order(home) == []
    assert where_is(spool_dir, "wrong") == ["dead"]
    assert reason in (spool_dir / "dead" / "wrong.json.reason").read_text()


def test_a_list_of_which_half_was_queued_says_which_jobs_are_missing(spool_dir: Path, home: Path) -> None:
    """The producer died in the middle. The children of what it did not queue wait, and can be mended."""
    drop(spool_dir, "load", after=["extract-1", "extract-2"])
    drop(spool_dir, "extract-1")
    support.drain(spool_dir)
    shown = run_cli("--spool", str(spool_dir), "show", "load").stdout
    assert "Waits For     extract-2 (there is no such job)\n" in shown
    assert load(spool_dir / "pending" / "load.json")["after"] == ["extract-1", "extract-2"]
    drop(spool_dir, "extract-2")
    support.drain(spool_dir)
    assert order(home) == ["extract-1", "extract-2", "load"]


def test_a_job_of_a_paused_queue_is_given_up_at_its_moment(spool_dir: Path, home: Path) -> None:
    """Its queue is closed, so no worker would ever look at it for another reason."""
    spool = Spool(spool_dir)
    spool.pause("the server is down", queue="mail")
    drop(spool_dir, "late", queue="mail", expires_at="2031-01-01T13:00:00Z")
    drop(spool_dir, "next", queue="mail")
    drain_at(spool_dir, 3700)
    assert [where_is(spool_dir, name) for name in ("late", "next")] == [["dead"], ["pending"]]
    assert order(home) == []


def test_a_job_whose_key_is_taken_gives_its_place_back(spool_dir: Path, home: Path) -> None:
    """Two of one key wait for a queue with one place. The second must not keep it from the job behind them."""
    spool = Spool(spool_dir)
    spool.set_queue("mail", limit=1)
    for name in ("first", "second"):
        drop(spool_dir, name, queue="mail", unique="k", if_exists="queue", priority=9)
    drop(spool_dir, "other", queue="mail")
    support.drain(spool_dir)
    assert sorted(order(home)) == ["first", "other", "second"]
    permit = Permits(spool.layout.permits).take("mail", 1, {}, {})
    assert isinstance(permit, Permit)
    permit.release()
