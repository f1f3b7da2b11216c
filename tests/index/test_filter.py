"""Filters select the jobs that they describe, and no others, in lists and in commands on many jobs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from queuectl import Filter, Spool
from queuectl.index.filter import SORTS

from support import drain, drop_bytes, where_is

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    Cli = Callable[..., subprocess.CompletedProcess[str]]

LATER = 4e9  # the year 2096


@pytest.fixture
def mixed(spool_dir: Path) -> Spool:
    """Jobs that have succeeded and failed, and others that wait in each way."""
    spool = Spool(spool_dir)
    spool.enqueue("exit 7", id="bad", max_retries=1, tags=["import", "eu"])
    spool.enqueue("echo FFmpeg", id="good", tags=["import"])
    spool.enqueue("sleep 0.05", id="slow", priority=1)
    drain(spool_dir)
    spool.enqueue("echo later", id="later", run_at=LATER, tags=["import"])
    spool.enqueue("echo held", id="held", hold=True, priority=9)
    spool.enqueue("echo " + "x" * 300 + " needle", id="long", priority=3)
    return spool


@pytest.mark.parametrize(
    ("which", "ids"),
    [
        (Filter(), ["bad", "good", "slow", "later", "held", "long"]),
        (Filter(states=("dead",)), ["bad"]),
        (Filter(states=("done", "dead")), ["bad", "good", "slow"]),
        (Filter(tags=("import",)), ["bad", "good", "later"]),
        (Filter(tags=("import", "eu")), ["bad"]),
        (Filter(tags=("imp",)), []),
        (Filter(exit_codes=(7, 8)), ["bad"]),
        (Filter(exit_codes=(0,)), ["good", "slow"]),
        (Filter(command="ffmpeg"), ["good"]),
        (Filter(command="NEEDLE"), ["long"]),
        (Filter(command="xx n"), ["long"]),
        (Filter(command="no such"), []),
        (Filter(reason="EXIT code"), ["bad"]),
        (Filter(reason="7", command="exit"), ["bad"]),
        (Filter(reason="no such"), []),
        (Filter(worker="worker-0"), ["bad", "good", "slow"]),
        (Filter(held=True), ["held"]),
        (Filter(held=False, states=("pending",)), ["later", "long"]),
        (Filter(since=LATER), []),
        (Filter(until=LATER, states=("dead",)), ["bad"]),
        (Filter(since=0.0, limit=2), ["bad", "good"]),
        (Filter(command="echo", limit=2), ["good", "later"]),
        (Filter(sort="priority", states=("pending",)), ["long", "later", "held"]),
        (Filter(sort="-duration", limit=1), ["slow"]),
        (Filter(sort="next", states=("pending",)), ["long", "later", "held"]),
        (Filter(sort="-id", limit=2), ["slow", "long"]),
    ],
    ids=repr,
)
def test_a_filter_finds_what_it_describes(mixed: Spool, which: Filter, ids: list[str]) -> None:
    """The jobs found match all fields, in the given order, also by the part of a command that the index does not store."""
    assert [row.id for row in mixed.list(where=which)] == ids


@pytest.mark.parametrize("key", SORTS)
def test_every_list_can_be_sorted_both_ways(mixed: Spool, key: str) -> None:
    """Each key of --sort works in both directions and loses no job."""
    there, back = mixed.list(where=Filter(sort=key)), mixed.list(where=Filter(sort=f"-{key}"))
    assert len(there) == len(back) == 6
    assert {row.id for row in there} == {row.id for row in back}


def test_the_answer_is_the_same_when_the_index_is_made_anew(mixed: Spool, spool_dir: Path) -> None:
    """Tags, holds, times and durations come from the files: the index may be deleted."""
    before = [(row.id, row.tags, row.held, row.started_at, row.duration) for row in mixed.list()]
    (spool_dir / "data" / "queuectl.db").unlink()
    again = Spool(spool_dir)

    assert sorted(
        (row.id, row.tags, row.held, row.started_at, row.duration) for row in again.list()
    ) == sorted(before)
    assert [row.id for row in again.list(where=Filter(tags=("eu",)))] == ["bad"]


def test_filters_of_the_command_line(mixed: Spool, cli: Cli) -> None:
    """The options select the same jobs as the filter in Python; JSON has tags and times."""
    found = cli("list", "--tag", "import", "-s", "done", "-s", "dead", "--sort", "-id", "--json", expect=0)
    told = json.loads(found.stdout)

    assert [job["id"] for job in told] == ["good", "bad"]
    assert told[1]["tags"] == ["import", "eu"]
    assert told[1]["duration"] > 0
    assert told[1]["started_at"] < told[1]["finished_at"]
    assert cli("list", "--held", expect=0).stdout == "held - pending - echo held\n"
    assert (
        cli("list", "--since", "1h", "--until", "1s", "--exit-code", "3", expect=0).stderr
        == "no jobs match\n"
    )
    assert len(cli("list", "--since", "1h", expect=0).stdout.splitlines()) == 6
    assert cli("list", "--until", "1h", expect=0).stdout == ""


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--tag", "a b"], "'a b' cannot be a tag"),
        (["--state", "gone"], "'gone' is not one of pending"),
        (["--exit-code", "x"], "'x' is not a whole number"),
        (["--sort", "size"], "'size' is not one of arrived"),
        (["--limit", "-1"], "must be 0 or more"),
    ],
    ids=" ".join,
)
def test_impossible_filters_are_refused(cli: Cli, spool_dir: Path, words: list[str], told: str) -> None:
    """An impossible filter is a usage error, reported in one line."""
    done = cli("list", *words, expect=2)
    assert told in done.stderr
    assert done.stderr.count("\n") == 2


def test_a_dry_run_changes_nothing_and_says_what_would(mixed: Spool, cli: Cli, spool_dir: Path) -> None:
    """--dry-run names each job; without it the command does just that."""
    planned = cli("cancel", "--tag", "import", "--dry-run", expect=0)
    assert planned.stdout == "would cancel later - pending - echo later\n"
    assert where_is(spool_dir, "later") == ["pending"]

    assert cli("cancel", "--tag", "import", expect=0).stdout == "later: cancelled\n"
    assert where_is(spool_dir, "later") == ["dead"]
    refused = cli("cancel", "good", "--dry-run", expect=1)
    assert refused.stderr.startswith("error: job 'good' is completed and cannot be cancelled")
    assert json.loads(cli("dlq", "retry", "--all", "--dry-run", "--json", expect=0).stdout) == [
        {"id": "bad", "would": "retry", "state": "dead"},
    ]


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["job1", "--all"],
        ["job1", "--tag", "x"],
        ["--state", "done"],
    ],
    ids=" ".join,
)
def test_the_jobs_must_be_named(cli: Cli, mixed: Spool, words: list[str]) -> None:
    """No job given, ids together with a filter, or a state that cannot be cancelled: nothing is cancelled."""
    before: Any = [(row.id, row.state) for row in mixed.list()]
    assert cli("cancel", *words, expect=2).stdout == ""
    assert [(row.id, row.state) for row in mixed.list()] == before


def test_a_held_job_is_not_run_and_a_released_file_is(spool_dir: Path) -> None:
    """`"hold": true` in a file keeps a job waiting; when it is removed from the file, the job runs."""
    drop_bytes(spool_dir, "j.json", b'{"command": "true", "hold": true}')
    drain(spool_dir)
    assert where_is(spool_dir, "j") == ["pending"]
    drop_bytes(spool_dir, "j.json", b'{"command": "true"}')
    drain(spool_dir)
    assert where_is(spool_dir, "j") == ["done"]


@pytest.mark.parametrize(
    ("written", "asked"),
    [
        ("Übung", "übung"),
        ("Übung", "ÜBUNG"),
        ("Москва", "москва"),
        ("Straße", "STRASSE"),
        ("ΌΣΟΣ", "όσος"),
        ("İstanbul", "i̇stanbul"),
    ],
)
@pytest.mark.parametrize("far", [False, True], ids=["at the beginning", "far behind"])
def test_text_is_found_in_upper_and_lower_case_of_any_language(
    spool_dir: Path, written: str, asked: str, far: bool
) -> None:
    """SQLite itself knows the letters of ASCII only; of a long text the index has only the beginning."""
    spool = Spool(spool_dir)
    before = "x" * 300 if far else ""
    spool.enqueue(f"echo {before} {written}", id="a")
    record = {"id": "b", "command": "true", "attempts": 1, "last_error": f"{before}: {written}"}
    drop_bytes(spool_dir, "b.json", json.dumps(record).encode(), "dead")
    spool.enqueue("echo other", id="c")

    assert [row.id for row in spool.list(where=Filter(command=asked))] == ["a"]
    assert [row.id for row in spool.list(where=Filter(reason=asked))] == ["b"]


def test_commands_on_many_jobs_take_a_reason(cli: Cli, spool_dir: Path) -> None:
    """As they take every other filter."""
    for name, why in (("a", "Timeout exceeded (5s)"), ("b", "Exit code 3")):
        record = {"id": name, "command": "true", "attempts": 1, "last_error": why}
        drop_bytes(spool_dir, f"{name}.json", json.dumps(record).encode(), "dead")

    assert cli("list", "--reason", "timeout", expect=0).stdout.splitlines() == ["a - dead - true"]
    assert cli("remove", "--reason", "exit code", "--yes", expect=0).stdout == "b: removed\n"
    assert [where_is(spool_dir, name) for name in "ab"] == [["dead"], []]
