"""Batches as people see them: `batch list`, `batch show`, and the same from Python."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from terminal import on_terminal

from queuectl import Batch, Filter, Spool
from queuectl.index import batches

import support

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

    Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def night(spool_dir: Path) -> Spool:
    """A batch with a dead job, one that waits for it, and one that is done; and another batch that waits."""
    spool = Spool(spool_dir)
    spool.enqueue("exit 3", id="extract", batch="night", max_retries=1)
    spool.enqueue("true", id="load", batch="night", after="extract")
    spool.enqueue("true", id="other", batch="night")
    support.drain(spool_dir)
    spool.enqueue("true", id="part", batch="day")
    return spool


def test_batches_are_listed_with_their_numbers(night: Spool, cli: Cli) -> None:
    """How far is each, and does somebody have to do something."""
    assert cli("batch", "list", expect=0).stdout.splitlines() == [
        "day\t1\t0\t0\t0\t0",
        "night\t1\t0\t1\t1\t1",
    ]
    assert json.loads(cli("batch", "list", "--json", expect=0).stdout)[1] == {
        "name": "night", "jobs": 3, "pending": 1, "processing": 0, "completed": 1, "failed": 0, "dead": 1,
        "blocked": 1, "over": False,
    }  # fmt: skip
    assert [one.name for one in night.batches()] == ["day", "night"]
    assert "Blocked" in on_terminal("batch", "list").text


def test_a_batch_says_what_failed_and_what_helps(night: Spool, cli: Cli) -> None:
    """The line that it gives is typed, and the rest of the batch follows by itself."""
    shown = cli("batch", "show", "night", expect=0)
    assert shown.stdout.splitlines() == [
        "batch:      night",
        "jobs:       3",
        "pending:    1",
        "processing: 0",
        "completed:  1",
        "failed:     0",
        "dead:       1",
        "blocked:    1 of those that wait",
        "extract - dead - Exit code 3",
    ]
    assert shown.stderr == "hint: queuectl retry --batch night; queuectl dlq list --batch night\n"
    told = json.loads(cli("batch", "show", "night", "--json", expect=0).stdout)
    assert told["dead_jobs"] == [{"id": "extract", "exit_code": 3, "last_error": "Exit code 3"}]

    night.set("extract", command="true")
    cli("retry", "--batch", "night", expect=0)
    support.drain(Path(night.layout.root))
    assert night.batch("night") == Batch("night", completed=3)
    assert night.batch("night").is_over


def test_a_batch_that_is_blocked_from_outside_says_where_to_look(night: Spool, cli: Cli) -> None:
    """None of its own jobs is dead."""
    night.set("load", batch="late")
    assert cli("batch", "show", "late").stderr == "hint: queuectl list --blocked --batch late\n"


def test_a_batch_that_nobody_has_is_an_error(night: Spool, cli: Cli) -> None:
    """The name is mistyped. A program may ask before the first job has come."""
    assert (
        cli("batch", "show", "nihgt", expect=1).stderr
        == "error: no job has the batch nihgt\nhint: queuectl batch list\n"
    )
    assert "invalid value" in cli("batch", "show", "a b", expect=2).stderr
    assert night.batch("nihgt") == Batch("nihgt")
    assert not night.batch("nihgt").is_over
    with pytest.raises(ValueError, match="cannot be a batch"):
        night.batch("a b")


def test_without_batches_the_list_says_so(spool_dir: Path, cli: Cli) -> None:
    """And makes no spool."""
    assert cli("batch", "list", expect=0).stderr == "no job has a batch\n"
    assert not spool_dir.exists()


def test_a_job_behind_a_batch_with_a_blocked_part_is_blocked(night: Spool, cli: Cli) -> None:
    """The part waits, so the batch is not over. But it never will be, unless somebody mends the part's parent."""
    night.enqueue("true", id="join", batch="night", after=["batch:night"])
    night.enqueue("true", id="report", after_any=["batch:night"])
    night.enqueue("true", id="alone", after=["batch:day"])
    assert [row.id for row in night.list(where=Filter(blocked=True))] == ["load", "join", "report"]
    assert night.batch("night").blocked == 2
    told: dict[str, Any] = json.loads(cli("show", "join", "--json", expect=0).stdout)
    assert told["blocked"]
    assert not json.loads(cli("show", "alone", "--json", expect=0).stdout)["blocked"]


def test_numbers_come_from_the_sql_index_alone(night: Spool) -> None:
    """A batch may have a million jobs, and completion asks at each press of a key."""
    plans: list[str] = []
    night.refresh()
    db = night._index.db
    db.set_trace_callback(plans.append)
    assert batches.states(night._index, "night") == {"night": {"completed": 1, "dead": 1, "pending": 1}}
    assert batches.names(night._index, "n", 10) == ["night"]
    assert batches.names(night._index, "", 1) == ["day"]
    db.set_trace_callback(None)
    asked = [line for line in plans if line.startswith(("SELECT", "WITH")) and "jobs" in line]
    told = [row[3] for query in asked for row in db.execute(f"EXPLAIN QUERY PLAN {query}")]
    assert len(asked) == 3
    assert [line for line in told if "jobs" in line and "jobs_batch" not in line] == []


def test_a_batch_that_was_used_yesterday_is_told(spool_dir: Path, cli: Cli) -> None:
    """Trap 20. Its jobs count, too: a join would start at once, or be blocked by a job that died long ago."""
    old = {"batch": "night", "command": "true", "state": "completed", "finished_at": "2026-01-01T00:00:00Z"}
    for number in range(4):
        path = support.drop(spool_dir, f"part{number}", **old)
        done = spool_dir / "done"
        done.mkdir(exist_ok=True, mode=0o700)
        path.rename(done / path.name)
    spool = Spool(spool_dir)
    spool.refresh()
    told = (
        "note: batch night has jobs that ended over an hour ago, and they count, too: part0, part1, part2 and more; "
        "give each run a name of its own\n"
    )
    assert cli("enqueue", "--batch", "night", "true", expect=0).stderr == told
    assert cli("enqueue", "--after", "batch:night=2", "true", expect=0).stderr == told
    assert (
        cli("enqueue", "--file", "-", "--batch", "night", stdin='{"command": "true"}', expect=0).stderr
        == told
    )
    assert cli("enqueue", "--quiet", "--batch", "night", "true", expect=0).stderr == ""
    assert cli("enqueue", "--batch", "new", "true", expect=0).stderr == ""


def test_a_batch_that_is_under_way_is_not_told(spool_dir: Path, cli: Cli) -> None:
    """One job after another is put into it, and the first have ended already."""
    spool = Spool(spool_dir)
    spool.enqueue("true", batch="night")
    support.drain(spool_dir)
    assert cli("enqueue", "--batch", "night", "true", expect=0).stderr == ""


def test_a_mistyped_batch_is_told_to_who_waits_for_it(night: Spool, cli: Cli) -> None:
    """It is no error, as its jobs may come later. But the job would wait for ever, and nobody knew."""
    told = cli("enqueue", "--after", "batch:nihgt", "true", expect=0).stderr
    assert told == "note: no job has the batch nihgt yet; is night meant?\n"
    for good in ("batch:night", "batch:nihgt=0", "batch:later"):
        assert cli("enqueue", "--after", good, "true", expect=0).stderr == ""
