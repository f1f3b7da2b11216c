"""The commands about jobs that wait for others: enqueue, show, list, set, status, metrics."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from queuectl import Filter, Spool

import support
from support import load, where_is

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def chain(spool_dir: Path, cli: Cli) -> Spool:
    """`load` waits for `extract`, which is dead, and `tidy` for `load`."""
    cli("enqueue", "--id", "extract", "--max-retries", "1", "exit 1", expect=0)
    cli("enqueue", "--id", "load", "--after", "extract", "true", expect=0)
    cli("enqueue", "--id", "tidy", "--after", "load", "--batch", "night", "true", expect=0)
    support.drain(spool_dir)
    return Spool(spool_dir)


def test_flags_become_fields(spool_dir: Path, cli: Cli) -> None:
    """Each may be repeated, or have several ids."""
    for job_id in "abcd":
        cli("enqueue", "--id", job_id, "true", expect=0)
    flags = ["--after", "a,b", "--after", "c", "--after-any", "d", "--if-blocked", "dead", "--batch", "x"]
    cli("enqueue", "--id", "e", *flags, "true", expect=0)
    found = load(spool_dir / "pending" / "e.json")
    assert (found["after"], found["after_any"]) == (["a", "b", "c"], ["d"])
    assert (found["if_blocked"], found["batch"]) == ("dead", "x")


def test_an_unknown_parent_is_refused(spool_dir: Path, cli: Cli) -> None:
    """A mistyped id would keep the job waiting for ever."""
    refused = cli("enqueue", "--after", "typo", "true", expect=1).stderr
    assert refused.splitlines()[0].endswith("error: no job is called typo, so this could never start")
    jobs = '[{"id": "a", "command": "true", "after": ["b"]}, {"id": "b", "command": "true", "after": ["a"]}]'
    ring = cli("enqueue", "--file", "-", stdin=jobs, expect=1).stderr
    assert "waits for itself: a, b, a" in ring or "waits for itself: b, a, b" in ring
    assert Spool(spool_dir).counts()["pending"] == 0


@pytest.mark.parametrize(
    "words", [("--after", ""), ("--after", "extract", "--after", " "), ("--after-any", ",")]
)
def test_an_empty_parent_is_refused(chain: Spool, cli: Cli, words: tuple[str, ...]) -> None:
    """`--after "$first"` with an empty variable must not start the job at once, as if it waited for nothing."""
    assert "is no id and no batch:NAME" in cli("enqueue", *words, "true", expect=2).stderr
    assert chain.counts()["pending"] == 2


def test_a_blocked_job_says_what_helps(chain: Spool, cli: Cli) -> None:
    """The first question about a job that does not start is why, and the second what to do."""
    shown = cli("show", "load", expect=0).stdout
    assert "Waits For     extract (dead; queuectl retry extract)" in shown
    assert "Waits For     load (pending, blocked)" in cli("show", "tidy", expect=0).stdout
    told = json.loads(cli("show", "load", "--json", expect=0).stdout)
    assert told["waits_for"] == [{"id": "extract", "want": "after", "state": "dead"}]
    assert (told["waits_for_count"], told["blocked"]) == (1, True)
    assert cli("list", "--blocked", expect=0).stdout.splitlines() == [
        "load - pending - true",
        "tidy - pending - true",
    ]
    assert cli("list", "--not-blocked", expect=0).stdout.splitlines() == ["extract - dead - exit 1"]
    assert cli("list", "--batch", "night", expect=0).stdout.splitlines() == ["tidy - pending - true"]
    assert (
        "2 jobs are blocked by dead or missing jobs: queuectl list --blocked"
        in cli("status", expect=0).stdout + cli("status", expect=0).stderr
    )
    metrics = cli("metrics", expect=0).stdout
    assert 'queuectl_jobs_waiting{for="repair"} 2.0' in metrics
    assert 'queuectl_jobs_waiting{for="release"} 0.0' in metrics
    chain.enqueue("true", id="idle", after="tidy", hold=True)
    chain.enqueue("true", id="free", hold=True)
    chain.enqueue("true", id="either", after_any="free")
    metrics = cli("metrics", expect=0).stdout
    for cause, number in (("repair", 2), ("release", 2), ("jobs", 1), ("worker", 0)):
        assert f'queuectl_jobs_waiting{{for="{cause}"}} {number}.0' in metrics, cause
    cli("remove", "either", "idle", "free", expect=0)
    assert [row.id for row in chain.list(where=Filter(blocked=True))] == ["load", "tidy"]
    assert [row.waits_for for row in chain.list(where=Filter(batch="night"))] == ["jobs"]


def test_no_retry_is_hinted_at_where_more_jobs_are_missing(chain: Spool, spool_dir: Path, cli: Cli) -> None:
    """A dead job counts for after_any. To run it again brings no further one."""
    support.drop(spool_dir, "bad", command="exit 1", batch="x", max_retries=1)
    support.drain(spool_dir)
    chain.enqueue("true", id="any", after_any="batch:x=2")
    assert "Waits For     batch:x (1 dead of 2)\n" in cli("show", "any", expect=0).stdout
    assert "queuectl show any" in cli("doctor").stdout
    chain.enqueue("true", id="all", after="batch:x=2")
    assert "batch:x (1 dead of 2; queuectl retry --batch x)" in cli("show", "all", expect=0).stdout


def test_set_changes_what_a_job_waits_for(chain: Spool, spool_dir: Path, cli: Cli) -> None:
    """A person decides that the job shall run regardless; and cannot make a ring by mistake."""
    refused = cli("set", "load", "after+=tidy", expect=1).stderr
    assert "waits for itself: load, tidy, load" in refused
    typo = cli("set", "load", "after+=typo", expect=1).stderr
    assert typo == "error: no job is called typo, so this could never start\nhint: queuectl list\n"
    support.drop(spool_dir, "early", command="true", after=["late"])
    cli("set", "early", "after+=extract", expect=0)
    assert load(spool_dir / "pending" / "early.json")["after"] == ["late", "extract"]
    cli("set", "load", "after-=extract", expect=0)
    support.drain(spool_dir)
    assert [where_is(spool_dir, job_id) for job_id in ("load", "tidy")] == [["done"], ["done"]]


def test_a_parent_that_is_waited_for_is_not_deleted(chain: Spool, spool_dir: Path, cli: Cli) -> None:
    """Without its record nobody knows how it ended."""
    refused = cli("remove", "extract", expect=1).stderr
    assert "job 'extract' cannot be deleted: job 'load' waits for it" in refused
    cli("remove", "tidy", "load", "extract", expect=0)
    assert Spool(spool_dir).counts() == dict.fromkeys(chain.counts(), 0)


def test_the_hint_at_what_keeps_a_parent_lets_it_go(spool_dir: Path, cli: Cli) -> None:
    """It names the field in which the child has the parent. `after=` would change nothing."""
    spool = Spool(spool_dir)
    spool.enqueue("true", id="extract", hold=True)
    spool.enqueue("true", id="tidy", after_any="extract")
    told = cli("remove", "extract", expect=1).stderr
    hint = told.splitlines()[-1].removeprefix("hint: queuectl ")
    cli(*hint.split(), expect=0)
    cli("remove", "extract", expect=0)


def test_python_takes_jobs_for_parents(spool_dir: Path) -> None:
    """A program has the job that enqueue returned, and need not know its id."""
    spool = Spool(spool_dir)
    first = spool.enqueue("true")
    second = spool.enqueue("true", after=first)
    third = spool.enqueue("true", after_any=[first, second.id])
    assert (second.after, third.after_any) == ([first.id], [first.id, second.id])
    fields: dict[str, Any] = load(spool_dir / "pending" / f"{second.id}.json")
    assert fields["after"] == [first.id]


def test_clear_keeps_what_is_waited_for_unless_all_goes(chain: Spool, spool_dir: Path, cli: Cli) -> None:
    """`clear --state dead` must not block a pipeline for ever. Whoever clears everything means everything."""
    note = "note: 1 job not deleted, as other jobs wait for them"
    assert cli("purge", "--keep", "0", "--dry-run", expect=0).stderr.splitlines() == [note]
    assert json.loads(cli("purge", "--keep", "0", "--yes", "--json", expect=0).stdout)["kept"] == 1
    cli("enqueue", "--id", "idle", "--hold", "true", expect=0)
    assert cli("remove", "extract", "idle", expect=1).stderr.splitlines()[-1] == note
    assert json.loads(cli("clear", "--state", "dead", "--yes", "--json", expect=0).stdout)["needed"] == 1
    told = cli("clear", "--state", "dead", "--yes", expect=0)
    assert told.stderr.splitlines()[-1] == note
    assert where_is(spool_dir, "extract") == ["dead"]
    assert cli("clear", "--yes", expect=0).stdout == "Deleted 3 job(s)\n"
    assert sum(chain.counts().values()) == 0


def test_downstream_says_what_it_would_do_and_does_that(chain: Spool, spool_dir: Path, cli: Cli) -> None:
    """A person sees which jobs hang on one before they are gone."""
    would = cli("cancel", "extract", "--downstream", "--dry-run", expect=0).stdout.splitlines()
    assert would == ["would cancel load - pending - true", "would cancel tidy - pending - true"]
    assert cli("cancel", "extract", "--downstream", expect=0).stdout.splitlines() == [
        "load: cancelled",
        "tidy: cancelled",
    ]
    told = cli("dlq", "retry", "extract", "--downstream", expect=0)
    assert told.stdout.splitlines() == ["requeued job extract"]
    assert told.stderr.startswith("note: 1 job not retried, because somebody cancelled them")
    assert [where_is(spool_dir, job_id) for job_id in ("load", "tidy")] == [["dead"], ["dead"]]


def test_dlq_retry_takes_what_it_can_of_a_chain(chain: Spool, spool_dir: Path, cli: Cli) -> None:
    """Only the dead ones; the values are for the job that was named, and not for those behind it."""
    cli("set", "load", "if_blocked=dead", expect=0)
    support.drain(spool_dir)
    assert where_is(spool_dir, "load") == ["dead"]
    words = ["dlq", "retry", "extract", "--downstream", "--timeout", "7"]
    assert cli(*words, "--dry-run", expect=0).stdout.splitlines() == [
        "would retry extract - dead - exit 1",
        "would retry load - dead - true",
    ]
    assert cli(*words, expect=0).stdout.splitlines() == ["requeued job extract", "requeued job load"]
    timeouts = [load(spool_dir / "pending" / f"{name}.json")["timeout"] for name in ("extract", "load")]
    assert timeouts == [7, 20]


def test_a_removal_asks_before_it_takes_more_than_was_named(chain: Spool, spool_dir: Path, cli: Cli) -> None:
    """Deleted jobs do not come back, and a chain may have thousands."""
    refused = cli("remove", "extract", "--downstream", expect=1).stderr
    assert "there is no terminal to ask on" in refused
    assert where_is(spool_dir, "tidy") == ["pending"]
    cli("remove", "tidy", "--downstream", expect=0)  # nothing but what was named
    told = cli("remove", "extract", "--downstream", "--yes", expect=0).stdout
    assert told.splitlines() == ["extract: removed", "load: removed"]


def test_a_tree_shows_both_directions(chain: Spool, cli: Cli) -> None:
    """What does this job wait for, and what hangs on it?"""
    assert cli("show", "load", "--tree", expect=0).stdout.splitlines() == [
        "load - pending, blocked - true",
        "waits for:",
        "  after extract - dead - exit 1",
        "waited for by:",
        "  after tidy - pending, blocked - true",
    ]
    found = json.loads(cli("show", "extract", "--tree", "--json", expect=0).stdout)
    assert (found["id"], found["state"], found["waits_for"]) == ("extract", "dead", [])
    [below] = found["waited_for_by"]
    assert (below["id"], below["want"], below["blocked"]) == ("load", "after", True)
    assert [one["id"] for one in below["waited_for_by"]] == ["tidy"]
    assert found["more"] == {"waits_for": 0, "waited_for_by": 0}


def test_a_list_says_what_its_jobs_wait_for(chain: Spool, spool_dir: Path, cli: Cli) -> None:
    """A column for people, and the same as `show` for programs. It is asked for those jobs only that wait for others."""
    support.drop(spool_dir, "early", command="true", after=[f"gone{number}" for number in range(25)])
    lines = cli("list", "--columns", "id,waits-for", expect=0).stdout.splitlines()
    named = ", ".join(f"gone{number} (missing)" for number in range(20))
    assert lines == ["extract\t", "load\textract (dead)", "tidy\tload", f"early\t{named} and 5 more"]
    support.drop(spool_dir, "join", command="true", batch="x", after=["load"], after_any=["batch:y=3"])
    of_each = cli("list", "--columns", "id,batch,after", expect=0).stdout.splitlines()
    assert of_each[1] == "load\t\textract"
    assert of_each[-1] == "join\tx\tload, after_any batch:y=3"
    listed = {one["id"]: one for one in json.loads(cli("list", "--json", expect=0).stdout)}
    for job_id in ("extract", "load", "tidy", "early"):
        shown = json.loads(cli("show", job_id, "--json", expect=0).stdout)
        for name in ("waits_for", "waits_for_count", "blocked"):
            assert listed[job_id][name] == shown[name], (job_id, name)


@pytest.mark.parametrize("together", [False, True])
def test_a_parent_whose_file_has_another_name_is_found(spool_dir: Path, together: bool) -> None:
    """It was dropped a moment ago, and nobody has looked into the folder since: it was said not to be there."""
    spool = Spool(spool_dir)
    spool.enqueue("true", id="earlier")
    support.drop(spool_dir, "some-name", id="parent", command="true")

    if together:
        spool.enqueue_many([{"command": "true", "id": "child", "after": ["parent"]}])
    else:
        spool.enqueue("true", id="child", after=["parent"])

    assert where_is(spool_dir, "child") == ["pending"]
