"""Dead jobs are listed, retried and deleted exactly as asked."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from terminal import on_terminal

from support import drop, drop_bytes, load, wait_until, where_is

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    Cli = Callable[..., subprocess.CompletedProcess[str]]


def bury(spool: Path, job_id: str, **fields: Any) -> None:
    record = {"id": job_id, "command": f"echo {job_id}", "attempts": 3, "max_retries": 3, **fields}
    drop_bytes(spool, f"{job_id}.json", json.dumps(record).encode(), "dead")


@pytest.fixture
def dead(spool_dir: Path) -> Path:
    """A spool with two dead jobs."""
    bury(spool_dir, "job1", last_error="Timeout exceeded (5s)", history=[{"run": 1}, {"run": 2}, {"run": 3}])
    bury(spool_dir, "job2", last_error="Exit code 3")
    return spool_dir


def test_list_in_a_pipe(cli: Cli, dead: Path) -> None:
    """A line has the id, the command, the attempts and the reason. An empty queue prints nothing on stdout."""
    lines = cli("dlq", "list", expect=0).stdout.splitlines()
    cli("dlq", "clear", "--yes", expect=0)
    empty = cli("dlq", "list", expect=0)

    assert sorted(lines) == [
        "job1 - echo job1 - 3 - Timeout exceeded (5s)",
        "job2 - echo job2 - 3 - Exit code 3",
    ]
    assert (empty.stdout, empty.stderr) == ("", "the dead letter queue is empty\n")
    assert cli("dlq", "list", "--json", expect=0).stdout == "[]\n"


def test_list_on_a_terminal(dead: Path) -> None:
    """On a terminal the table has the documented title and headings."""
    lines = [line.strip() for line in on_terminal("dlq", "list").text.splitlines()]

    assert lines[0] == "Dead Letter Queue (DLQ)"
    assert lines[2].split("  ")[0] == "Job ID"
    assert [word for word in lines[2].split("  ") if word] == [
        "Job ID",
        " Command",
        " Attempts",
        " Age",
        " Last Error",
    ]


def test_list_status_and_state_agree(cli: Cli, dead: Path) -> None:
    """Status, list and dlq list agree on the number of dead jobs, including an unreadable file."""
    drop_bytes(dead, "bad.json", b'{"command": ', "dead")

    listed = json.loads(cli("dlq", "list", "--json", expect=0).stdout)
    by_state = json.loads(cli("list", "--state", "dead", "--json", expect=0).stdout)

    assert listed == by_state
    assert len(listed) == 3 == json.loads(cli("status", "--json").stdout)["jobs"]["dead"]
    assert "bad - (no job) - 0 - invalid job: not JSON" in cli("dlq", "list").stdout


def test_retry_gives_fresh_attempts_and_keeps_the_history(cli: Cli, dead: Path) -> None:
    """A retried job is pending with 0 attempts, and keeps its history."""
    done = cli("dlq", "retry", "job1", expect=0)

    job = load(dead / "pending" / "job1.json")
    assert done.stdout == "requeued job job1\n"
    assert where_is(dead, "job1") == ["pending"]
    assert (job["state"], job["attempts"], len(job["history"])) == ("pending", 0, 3)
    assert "last_error" not in job


@pytest.mark.parametrize(("text", "seconds"), [("60", 60), ("10m", 600), ("0", 0)])
def test_retry_with_a_new_timeout(cli: Cli, dead: Path, text: str, seconds: float) -> None:
    """The new time limit is stored in the job."""
    cli("dlq", "retry", "job1", "--timeout", text, expect=0)

    assert load(dead / "pending" / "job1.json")["timeout"] == seconds


def test_retry_of_several_reports_each(cli: Cli, dead: Path) -> None:
    """A job that cannot be retried does not stop the others, and changes the exit code."""
    drop(dead, "alive", command="true")

    done = cli("dlq", "retry", "job1", "nobody", "alive", "job2", expect=1)
    again = cli("dlq", "retry", "job1", "job2", "--json", expect=1)

    assert done.stdout == "requeued job job1\nrequeued job job2\n"
    assert done.stderr.splitlines()[0] == "error: no job 'nobody' in this spool"
    assert done.stderr.splitlines()[1].startswith("error: job 'alive' is pending")
    assert [sorted(entry) for entry in json.loads(again.stdout)] == [["error", "id"]] * 2


def test_retry_of_all(cli: Cli, dead: Path) -> None:
    """--all retries every dead job; without any it is not an error."""
    done = cli("dlq", "retry", "--all", "--json", expect=0)
    none = cli("dlq", "retry", "--all", expect=0)

    assert sorted(entry["id"] for entry in json.loads(done.stdout)) == ["job1", "job2"]
    assert (none.stdout, none.stderr) == ("", "no jobs to retry\n")


def test_retry_of_what_is_no_job_says_why(cli: Cli, spool_dir: Path) -> None:
    """A broken file stays in dead/, unchanged, until it is fixed."""
    drop_bytes(spool_dir, "bad.json", b'{"command": ', "dead")

    refused = cli("dlq", "retry", "bad", expect=1)
    (spool_dir / "dead" / "bad.json").write_text('{"command": "true"}')
    cli("dlq", "retry", "bad", expect=0)

    assert refused.stderr.startswith("error: invalid job: not JSON: ")
    assert where_is(spool_dir, "bad") == ["pending"]


def test_retry_of_a_failed_job_says_when_it_runs(cli: Cli, spool_dir: Path) -> None:
    """A failed job is retried automatically; the hint runs it at once."""
    drop(
        spool_dir,
        "job1",
        command="true",
        state="failed",
        attempts=1,
        next_retry_at="2099-01-01T00:00:00Z",
        last_error="Exit code 1",
    )

    refused = cli("dlq", "retry", "job1", expect=1).stderr.splitlines()

    assert re.match(r"error: job 'job1' is not dead; it will be retried automatically at \d{4}-", refused[0])
    assert refused[1] == "hint: to run it now: queuectl retry job1"
    cli("retry", "job1", expect=0)
    cli("worker", "start", "--foreground", "--drain", expect=0)
    assert where_is(spool_dir, "job1") == ["done"]


def test_clear_asks_a_person(dead: Path) -> None:
    """The question has the number of jobs; any answer but yes deletes nothing."""
    refused = on_terminal("dlq", "clear", typed="n\n")
    kept = where_is(dead, "job1")
    agreed = on_terminal("dlq", "clear", typed="y\n")

    assert "Delete 2 dead jobs permanently? [y/N]" in refused.text
    assert (refused.code, kept) == (1, ["dead"])
    assert (agreed.code, where_is(dead, "job1")) == (0, [])
    assert "Deleted 2 job(s)" in agreed.text


def test_clear_without_a_terminal_needs_yes(cli: Cli, dead: Path) -> None:
    """Without a terminal and without --yes nothing is deleted, and the hint names --yes."""
    refused = cli("dlq", "clear", stdin="y\n", expect=1)

    assert where_is(dead, "job1") == ["dead"]
    assert refused.stderr.splitlines()[1] == "hint: add --yes"
    assert cli("dlq", "clear", "--yes", expect=0).stdout == "Deleted 2 job(s)\n"
    assert cli("dlq", "clear", expect=0).stdout == "Dead letter queue is empty\n"


def test_clear_deletes_every_state_but_running(
    cli: Cli, dead: Path, workers: Callable[..., Any], tmp_path: Path
) -> None:
    """`clear` does not delete running jobs; with --state it deletes only that state."""
    cli(
        "enqueue",
        "--id",
        "runs",
        "--timeout",
        "0",
        f"while [ ! -e '{tmp_path}/go' ]; do sleep 0.05; done",
        expect=0,
    )
    drop_bytes(dead, "fine.json", b'{"command": "true"}', "done")
    workers(1)
    wait_until(lambda: where_is(dead, "runs") == ["processing/worker-0"])
    cli("enqueue", "--id", "waits", "true", expect=0)

    only_done = cli("clear", "--state", "done", "--yes", expect=0)
    rest = cli("clear", "--yes", expect=0)
    (tmp_path / "go").touch()

    assert only_done.stdout == "Deleted 1 job(s)\n"
    assert (rest.stdout, rest.stderr) == ("Deleted 3 job(s)\n", "note: 1 running job not deleted\n")
    wait_until(lambda: where_is(dead, "runs") == ["done"])


def test_cancelled_jobs_are_dead(cli: Cli, spool_dir: Path, workers: Callable[..., Any]) -> None:
    """Cancelling a waiting and a running job makes both dead with the reason Cancelled; both can be retried."""
    cli("enqueue", "--id", "waits", "--delay", "1h", "true", expect=0)
    cli("enqueue", "--id", "runs", "sleep 60", expect=0)
    workers(1)
    wait_until(lambda: where_is(spool_dir, "runs") == ["processing/worker-0"])

    cli("cancel", "waits", "runs", expect=0)

    wait_until(lambda: where_is(spool_dir, "runs") == ["dead"])
    rows = json.loads(cli("dlq", "list", "--json").stdout)
    assert {row["id"]: row["last_error"] for row in rows} == {"waits": "Cancelled", "runs": "Cancelled"}
    assert cli("cancel", "waits", expect=1).stderr.startswith(
        "error: job 'waits' is dead and cannot be cancelled"
    )
