"""`retry` runs a job again whatever became of it, and nothing that a person does not want to run."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from queuectl import MoveError, Spool

from support import drain, drop, drop_bytes, load, where_is

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def spool(spool_dir: Path) -> Spool:
    """One job in each state that can be retried; each writes a line when it runs."""
    made = Spool(spool_dir)
    run = f"echo $QUEUECTL_JOB_ID >>{spool_dir.parent}/ran"
    made.enqueue(run, id="done", tags=["x"])
    made.enqueue(f"{run}; exit 1", id="dead", max_retries=1, tags=["x"])
    made.enqueue(f"{run}; exit 1", id="failed", backoff_base=1000, tags=["x"])
    drain(spool_dir)
    (spool_dir.parent / "ran").unlink()
    return made


def ran(spool_dir: Path) -> list[str]:
    """The jobs that have run, in order, after one more look of a worker."""
    drain(spool_dir)
    path = spool_dir.parent / "ran"
    return sorted(path.read_text().split()) if path.exists() else []


def test_a_job_in_any_of_three_states_runs_again(cli: Cli, spool: Spool, spool_dir: Path) -> None:
    """Dead and completed ones from the beginning; a failed one now, with the attempts that it had."""
    told = cli("retry", "done", "dead", "failed", expect=0).stdout

    assert sorted(told.splitlines()) == [f"requeued job {name}" for name in ("dead", "done", "failed")]
    assert [spool.get(name).attempts for name in ("done", "dead", "failed")] == [0, 0, 1]
    assert [len(spool.get(name).history) for name in ("done", "dead", "failed")] == [1, 1, 1]
    assert ran(spool_dir) == ["dead", "done", "failed"]
    assert [spool.get(name).attempts for name in ("done", "dead", "failed")] == [1, 1, 2]


def test_filters_select_dead_and_failed_jobs(cli: Cli, spool: Spool, spool_dir: Path) -> None:
    """A completed one has to be asked for: who retries a group means what went wrong in it."""
    told = json.loads(cli("retry", "--tag", "x", "--json", expect=0).stdout)
    assert sorted(entry["id"] for entry in told) == ["dead", "failed"]

    cli("retry", "--tag", "x", "--state", "done", expect=0)
    assert ran(spool_dir) == ["dead", "done", "failed"]


def test_fields_are_changed_in_each_state(cli: Cli, spool: Spool) -> None:
    """--set and --timeout mean the same for all of them."""
    cli("retry", "done", "dead", "failed", "--timeout", "7", "--set", "priority=9", expect=0)

    assert {(spool.get(name).timeout, spool.get(name).priority) for name in ("done", "dead", "failed")} == {
        (7, 9)
    }


def test_what_waits_or_is_held_is_refused(cli: Cli, spool: Spool) -> None:
    """A waiting job runs anyway; a held one waits for its release."""
    spool.enqueue("true", id="waits")
    spool.hold("failed")

    assert "is pending and cannot be retried" in cli("retry", "waits", expect=1).stderr
    held = cli("retry", "failed", expect=1).stderr
    assert held.splitlines()[1] == "hint: queuectl release failed"
    assert "1 held job not retried" in cli("retry", "--state", "failed", expect=0).stderr
    with pytest.raises(MoveError):
        spool.retry("failed")


def test_dlq_retry_is_for_dead_jobs_and_names_the_other_verb(cli: Cli, spool: Spool, spool_dir: Path) -> None:
    """Its scripts go on as before."""
    refused = cli("dlq", "retry", "done", expect=1).stderr.splitlines()

    assert refused == ["error: job 'done' is completed, not dead", "hint: to run it now: queuectl retry done"]
    assert cli("dlq", "retry", "--all", expect=0).stdout == "requeued job dead\n"
    assert where_is(spool_dir, "done") == ["done"]


@pytest.mark.parametrize("verb", [["retry"], ["dlq", "retry"]])
def test_all_leaves_out_what_somebody_cancelled(
    cli: Cli, spool: Spool, spool_dir: Path, verb: list[str]
) -> None:
    """Also what was held before; by its name or by the reason it runs again."""
    for name in ("one", "two", "three"):
        spool.enqueue("true", id=name, hold=name == "two")
    spool.cancel_many(["one", "two", "three"])
    drop(spool_dir, "byhand", command="true").rename(spool_dir / "dead" / "byhand.json")

    done = cli(*verb, "--all", "--state", "dead", expect=0)

    assert done.stdout == "requeued job dead\n"
    assert "note: 3 jobs not retried, because somebody cancelled them" in done.stderr
    assert "note: 1 job not retried, because somebody moved them to dead/" in done.stderr
    assert cli(*verb, "one", expect=0).stdout == "requeued job one\n"
    by_reason = cli(*verb, "--reason", "cancelled", expect=0)
    assert sorted(by_reason.stdout.splitlines()) == ["requeued job three", "requeued job two"]
    assert where_is(spool_dir, "byhand") == ["dead"]


@pytest.mark.parametrize("verb", [["retry"], ["dlq", "retry"]])
def test_a_dry_run_refuses_what_the_retry_would_refuse(cli: Cli, spool_dir: Path, verb: list[str]) -> None:
    """A file that is no job cannot be retried until it is fixed, and --set may fix it."""
    Spool(spool_dir).counts()
    drop_bytes(spool_dir, "bad.json", b"{", "dead")
    drop_bytes(spool_dir, "high.json", b'{"command": "true", "priority": 99}', "dead")
    before = load(spool_dir / "dead" / "high.json")

    refused = cli(*verb, "bad", "high", "--dry-run", expect=1)
    fixed = cli(*verb, "high", "--set", "priority=9", "--dry-run", expect=0)

    assert (refused.stdout, refused.stderr.count("error: ")) == ("", 2)
    assert fixed.stdout == "would retry high - dead - true\n"
    assert load(spool_dir / "dead" / "high.json") == before


def test_one_refusal_among_many_stops_no_other(cli: Cli, spool: Spool, spool_dir: Path) -> None:
    """Each result is reported."""
    drop_bytes(spool_dir, "bad.json", b"{", "dead")
    spool.refresh()

    results: dict[str, Any] = spool.retry_many(["bad", "nobody", "dead", "done"])

    assert [type(results[name]).__name__ for name in ("bad", "nobody", "dead", "done")] == [
        "InvalidJob",
        "JobNotFound",
        "Job",
        "Job",
    ]
    assert where_is(spool_dir, "bad") == ["dead"]
