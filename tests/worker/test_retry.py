"""Retries: how long a failed job waits, how often it runs, and where it ends."""

from __future__ import annotations

import json
import os
import signal
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queuectl import Spool
from queuectl.job import times
from queuectl.job.outcome import Decision, backoff, decide
from queuectl.job.record import Job

import support

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    Cli = Callable[..., subprocess.CompletedProcess[str]]


class Clock:
    """A wall clock that a test moves on; it starts at the real time, so that files are never from its future."""

    def __init__(self) -> None:
        self.moment = time.time()

    def __call__(self) -> float:
        """The moment it stands at."""
        return self.moment


def waits_of(spool: Path, job_id: str, clock: Clock) -> list[float]:
    """Run a failing job until it is dead, with the clock set to the time of each retry; returns the waits between."""
    waits = []
    support.drain(spool, now=clock)
    while (path := spool / "pending" / f"{job_id}.json").exists():
        record = support.load(path)
        due = times.parse_moment(record["next_retry_at"])
        waits.append(round(due - times.parse_moment(record["finished_at"]), 6))

        clock.moment = due - 0.000001
        support.drain(spool, now=clock)
        assert support.load(path)["attempts"] == record["attempts"], "it ran before its moment"

        clock.moment = due
        support.drain(spool, now=clock)
    return waits


@pytest.mark.parametrize(
    ("base", "failures", "cap", "wait"),
    [
        (2, 1, 86400, 2),
        (2, 2, 86400, 4),
        (2, 3, 86400, 8),
        (3, 2, 86400, 9),
        (1, 50, 86400, 1),
        (1.5, 2, 86400, 2.25),
        (2, 16, 86400, 65536),
        (2, 17, 86400, 86400),
        (10, 30, 86400, 86400),
        (10, 100_000, 86400, 86400),
        (1e308, 2, 86400, 86400),
        (2, 5, 0, 0),
    ],
)
def test_backoff_is_the_base_to_the_number_of_failures(
    base: float, failures: int, cap: float, wait: float
) -> None:
    """SPEC 4: base ** n seconds after the n-th failed attempt, never more than the cap, never an overflow."""
    assert backoff(base, failures, cap) == wait


@given(
    base=st.floats(1, 1e300),
    failures=st.integers(1, 2**31),
    cap=st.floats(0, 1e9),
    allowed=st.integers(0, 2**31),
)
def test_every_decision_is_one_that_can_be_written_down(
    base: float, failures: int, cap: float, allowed: int
) -> None:
    """Whatever the numbers, the next moment is now or later, within the cap, and a moment that a file can hold."""
    now = 1_800_000_000.0
    job = Job(command="false", attempts=failures, max_retries=allowed, backoff_base=base, max_backoff=cap)

    decision = decide(job, succeeded=False, now=now)

    if failures >= max(1, allowed):
        assert decision == Decision("dead")
    else:
        assert decision.state == "failed"
        assert decision.retry_at is not None
        assert now <= decision.retry_at <= now + cap
        assert times.parse_moment(times.iso(decision.retry_at)) == pytest.approx(decision.retry_at)


def test_failing_job_waits_2_4_8_seconds_and_is_dead_after_its_last_run(spool_dir: Path) -> None:
    """With max_retries 4 the command runs four times, not three and not five; the waits are exact."""
    Spool(spool_dir).enqueue(f"echo run >> '{spool_dir}/runs'; exit 3", id="job1", max_retries=4)

    assert waits_of(spool_dir, "job1", Clock()) == [2, 4, 8]

    assert (spool_dir / "runs").read_text().split() == ["run"] * 4
    assert support.where_is(spool_dir, "job1") == ["dead"]
    record = support.load(spool_dir / "dead" / "job1.json")
    assert (record["state"], record["attempts"], record["exit_code"]) == ("dead", 4, 3)
    assert record["last_error"] == "Exit code 3"
    assert "next_retry_at" not in record
    assert [(entry["run"], entry["attempt"]) for entry in record["history"]] == [
        (1, 1),
        (2, 2),
        (3, 3),
        (4, 4),
    ]


def test_failing_job_reaches_dead_by_the_real_clock(spool_dir: Path, cli: Cli) -> None:
    """A worker that was told to wait for retries runs a failing job to its end, and then leaves (T33)."""
    cli(
        "enqueue",
        "--id",
        "job1",
        "--max-retries",
        "3",
        "--backoff-base",
        "1",
        "--command",
        "exit 1",
        expect=0,
    )

    said = cli("worker", "start", "--foreground", "--drain", "--wait-retries", expect=0).stdout

    assert said.count("executing job job1") == 3
    assert "dead job1: Exit code 1" in said
    record = support.load(spool_dir / "dead" / "job1.json")
    starts = [times.parse_moment(entry["started_at"]) for entry in record["history"]]
    ends = [times.parse_moment(entry["finished_at"]) for entry in record["history"]]
    assert all(begun - ended >= 1 for ended, begun in zip(ends, starts[1:], strict=False))


def test_wait_is_capped_by_the_setting(spool_dir: Path, cli: Cli) -> None:
    """max_backoff bounds every wait, also that of a base whose power no number can hold (T43)."""
    cli("config", "set", "max_backoff", "5s", expect=0)
    spool = Spool(spool_dir)

    spool.enqueue("exit 1", id="steady", max_retries=5)
    assert waits_of(spool_dir, "steady", Clock()) == [2, 4, 5, 5]
    spool.enqueue("exit 1", id="steep", max_retries=3, backoff_base=1e300)
    assert waits_of(spool_dir, "steep", Clock()) == [5, 5]


def test_thirty_attempts_with_base_ten_are_capped_at_a_day(spool_dir: Path) -> None:
    """T43: the 30th wait of a base of ten would be 10^30 seconds; it is 86400."""
    job_file = support.drop(spool_dir, "job1", command="exit 1", max_retries=40, backoff_base=10, attempts=29)
    assert job_file.exists()

    support.drain(spool_dir)

    record = support.load(spool_dir / "pending" / "job1.json")
    due = times.parse_moment(record["next_retry_at"])
    assert due - times.parse_moment(record["finished_at"]) == pytest.approx(86400)


def test_wait_past_the_last_moment_that_can_be_written_ends_no_worker(spool_dir: Path) -> None:
    """A retry due after the year 9999 is due at its end; the worker settles the job and goes on."""
    support.drop(spool_dir, "far", command="exit 1", backoff_base=1e300, max_backoff=times.LATEST)
    support.drop(spool_dir, "other", command="true", priority=1)

    support.drain(spool_dir)

    assert support.where_is(spool_dir, "other") == ["done"]
    record = support.load(spool_dir / "pending" / "far.json")
    assert record["next_retry_at"] == "9999-12-31T23:59:59.000000Z"


@pytest.mark.parametrize("field", ["timeout", "max_backoff", "backoff_base"])
@pytest.mark.parametrize("value", [1e301, 10**18 * 5, -1, "1e400", True])
def test_absurd_number_in_a_file_ends_no_worker(spool_dir: Path, field: str, value: object) -> None:
    """A value that is not a duration or a base is refused with a reason in dead/, or kept; no worker dies."""
    support.drop(spool_dir, "absurd", command="exit 1", **{field: value})
    support.drop(spool_dir, "other", command="true", priority=1)

    support.drain(spool_dir, now=lambda: time.time() + 10)  # past the time in which the file might still grow

    assert support.where_is(spool_dir, "other") == ["done"]
    if field == "backoff_base" and value == 10**18 * 5:
        assert support.load(spool_dir / "pending" / "absurd.json")["attempts"] == 1
    else:
        assert support.load(spool_dir / "dead" / "absurd.json") == {"command": "exit 1", field: value}
        assert field in (spool_dir / "dead" / "absurd.json.reason").read_text()


@pytest.mark.parametrize("allowed", [0, 1])
def test_max_retries_zero_and_one_both_mean_one_run(spool_dir: Path, cli: Cli, allowed: int) -> None:
    """R11, T29: 0 is kept as it was given, and is not taken for 'not given'."""
    cli("config", "set", "max_retries", "7", expect=0)
    cli("enqueue", "--id", "flag", "--max-retries", str(allowed), "--command", "exit 1", expect=0)
    cli("enqueue", json.dumps({"id": "json", "command": "exit 1", "max_retries": allowed}), expect=0)
    support.drop(spool_dir, "file", command="exit 1", max_retries=allowed)

    support.drain(spool_dir)

    for job_id in ("flag", "json", "file"):
        record = support.load(spool_dir / "dead" / f"{job_id}.json")
        assert (record["max_retries"], record["attempts"], len(record["history"])) == (allowed, 1, 1)


def test_setting_of_zero_retries_is_taken_at_its_word(spool_dir: Path, cli: Cli) -> None:
    """T29: a 0 in the settings is a value like any other."""
    cli("config", "set", "max-retries", "0", expect=0)
    assert cli("config", "get", "max_retries", expect=0).stdout == "max_retries = 0\n"
    cli("enqueue", "--id", "job1", "--command", "exit 1", expect=0)

    support.drain(spool_dir)

    assert support.load(spool_dir / "dead" / "job1.json")["max_retries"] == 0


@pytest.mark.parametrize("how", ["flag", "file", "setting"])
def test_timeout_zero_is_no_timeout(spool_dir: Path, cli: Cli, how: str) -> None:
    """T29: an explicit 0 is kept, and a job that outlasts every other limit ends well."""
    cli("config", "set", "timeout", "0" if how == "setting" else "0.2", expect=0)
    if how == "file":
        support.drop(spool_dir, "job1", command="sleep 0.6", timeout=0)
    else:
        zero = ["--timeout", "0"] if how == "flag" else []
        cli("enqueue", "--id", "job1", *zero, "--command", "sleep 0.6", expect=0)

    support.drain(spool_dir)

    assert support.load(spool_dir / "done" / "job1.json")["timeout"] == 0


def test_dead_letters_are_counted_the_same_everywhere(spool_dir: Path, cli: Cli) -> None:
    """T36, T37: status, list, dlq list, show and the file agree on who is dead after how many attempts."""
    for name in ("a", "b"):
        cli(
            "enqueue",
            "--id",
            name,
            "--max-retries",
            "2",
            "--backoff-base",
            "1",
            "--command",
            "exit 4",
            expect=0,
        )
    cli("enqueue", "--id", "c", "--command", "true", expect=0)
    support.drain(spool_dir, wait_retries=True)

    status = json.loads(cli("status", "--json", expect=0).stdout)
    listed = json.loads(cli("list", "--state", "dead", "--json", expect=0).stdout)
    letters = json.loads(cli("dlq", "list", "--json", expect=0).stdout)

    assert status["jobs"] == {"pending": 0, "processing": 0, "completed": 1, "failed": 0, "dead": 2}
    for rows in (listed, letters):
        assert sorted((row["id"], row["attempts"], row["max_retries"]) for row in rows) == [
            ("a", 2, 2),
            ("b", 2, 2),
        ]
    assert json.loads(cli("show", "a", "--json", expect=0).stdout)["attempts"] == 2
    assert support.load(spool_dir / "dead" / "a.json")["attempts"] == 2


def test_failed_job_is_told_as_failed_while_it_waits(spool_dir: Path, cli: Cli) -> None:
    """R10: between two attempts it is in pending/, counts as failed and not as pending, and says when it runs again."""
    cli("enqueue", "--id", "job1", "--backoff-base", "100", "--command", "echo no >&2; exit 9", expect=0)
    support.drain(spool_dir)

    assert support.where_is(spool_dir, "job1") == ["pending"]
    counts = json.loads(cli("status", "--json", expect=0).stdout)["jobs"]
    assert (counts["pending"], counts["failed"]) == (0, 1)
    assert cli("list", "--state", "failed", expect=0).stdout == "job1 - failed - echo no >&2; exit 9\n"
    assert cli("list", "--state", "pending", expect=0).stdout == ""
    (row,) = json.loads(cli("list", "--json", expect=0).stdout)
    assert (row["last_error"], row["attempts"], row["exit_code"]) == ("Exit code 9", 1, 9)
    assert times.parse_moment(row["next_retry_at"]) > time.time() + 60
    assert support.load(spool_dir / "pending" / "job1.json")["state"] == "failed"


def test_failing_job_does_not_hold_up_others(spool_dir: Path, cli: Cli, workers: Cli) -> None:
    """T34: no worker sleeps during a backoff; a job that arrives meanwhile runs before the retry is due."""
    cli("enqueue", "--id", "bad", "--backoff-base", "60", "--priority", "10", "--command", "exit 1", expect=0)
    workers(1)
    failed = spool_dir / "pending" / "bad.json"
    support.wait_until(
        lambda: failed.exists() and support.load(failed).get("next_retry_at"), message="a failure"
    )

    cli("enqueue", "--id", "good", "--command", "true", expect=0)
    support.wait_until(lambda: support.finished(spool_dir, "good"), message="the other job to end")

    assert support.load(failed)["attempts"] == 1
    assert cli("worker", "stop", expect=0).stdout == "Stopped 1 worker(s)\n"


def test_one_life_after_another_is_counted_from_zero(spool_dir: Path, cli: Cli) -> None:
    """R28: dlq retry gives fresh attempts and keeps the history; the runs are numbered on."""
    cli(
        "enqueue",
        "--id",
        "job1",
        "--max-retries",
        "2",
        "--backoff-base",
        "1",
        "--command",
        "exit 1",
        expect=0,
    )
    support.drain(spool_dir, wait_retries=True)

    assert "job1" in cli("dlq", "retry", "job1", "--timeout", "60", expect=0).stdout
    waiting = support.load(spool_dir / "pending" / "job1.json")
    assert (waiting.get("attempts", 0), waiting["timeout"], len(waiting["history"])) == (0, 60, 2)
    assert "next_retry_at" not in waiting
    support.drain(spool_dir, wait_retries=True)

    record = support.load(spool_dir / "dead" / "job1.json")
    assert record["attempts"] == 2
    assert [(e["run"], e["attempt"]) for e in record["history"]] == [(1, 1), (2, 2), (3, 1), (4, 2)]


def test_settings_are_copied_when_a_job_is_accepted(spool_dir: Path, cli: Cli) -> None:
    """R15, T35: `config set` is for jobs that come later, whether they were enqueued or dropped."""
    old = {"max_retries": 1, "backoff_base": 3, "timeout": 11, "priority": 7, "max_backoff": 100}
    for key, value in old.items():
        cli("config", "set", key, str(value), expect=0)
    cli("enqueue", "--id", "flag-old", "--command", "true", expect=0)
    support.drop(spool_dir, "file-old", command="true")
    cli("status", expect=0)  # looks at the folders: the file is accepted
    new = {"max_retries": 9, "backoff_base": 4, "timeout": 12, "priority": 2, "max_backoff": 200}
    for key, value in new.items():
        cli("config", "set", key, str(value), expect=0)
    cli("enqueue", "--id", "flag-new", "--command", "true", expect=0)
    support.drop(spool_dir, "file-new", command="true")

    shown = {job: json.loads(cli("show", job, "--json", expect=0).stdout) for job in ("file-old", "file-new")}
    support.drain(spool_dir)

    for job_id, wanted in (("flag-old", old), ("file-old", old), ("flag-new", new), ("file-new", new)):
        record = support.load(spool_dir / "done" / f"{job_id}.json")
        assert {key: record[key] for key in wanted} == wanted, job_id
    assert shown["file-old"]["timeout"] == 11
    assert shown["file-new"]["timeout"] == 12


def test_own_fields_win_over_settings(spool_dir: Path, cli: Cli) -> None:
    """SPEC 4: job field > config of the spool > built-in."""
    cli("config", "set", "timeout", "11", expect=0)
    cli("enqueue", "--id", "own", "--timeout", "3", "--command", "true", expect=0)
    support.drop(spool_dir, "file", command="true", timeout=4)
    support.drop(spool_dir, "null", command="true", timeout=None)

    support.drain(spool_dir)

    found = {name: support.load(spool_dir / "done" / f"{name}.json") for name in ("own", "file", "null")}
    assert [found[name]["timeout"] for name in ("own", "file", "null")] == [3, 4, 11]
    assert [found[name]["max_retries"] for name in found] == [3, 3, 3]


def test_running_worker_takes_a_new_setting_for_the_very_next_drop(
    spool_dir: Path, cli: Cli, workers: Cli
) -> None:
    """A file dropped after `config set` has returned is a new job, also for a worker that was up before."""
    workers(1)
    for number in range(3):
        job_id = f"job{number}"
        cli("config", "set", "max_retries", str(number + 10), expect=0)
        support.drop(spool_dir, job_id, command="true")
        support.wait_until(partial(support.finished, spool_dir, job_id), message=f"{job_id} to end")
        assert support.load(spool_dir / "done" / f"{job_id}.json")["max_retries"] == number + 10


def test_death_of_a_worker_costs_no_attempt(spool_dir: Path, cli: Cli, workers: Cli) -> None:
    """T14: with max_retries 1, a job whose worker was killed still runs to its end, and says what happened."""
    cli("enqueue", "--id", "job1", "--max-retries", "1", "--timeout", "0", "--command",
        f"test -e '{spool_dir}/again' || {{ touch '{spool_dir}/again'; exec sleep 60; }}", expect=0)  # fmt: skip
    workers(1)
    support.wait_until((spool_dir / "again").exists, message="the first run")
    (worker,) = Spool(spool_dir).workers()
    os.kill(worker.pid, signal.SIGKILL)

    workers(1, "--drain", "--wait-retries")
    support.wait_until(lambda: support.finished(spool_dir, "job1"), message="job1 to end")

    record: dict[str, Any] = support.load(spool_dir / "done" / "job1.json")
    assert (record["attempts"], record["max_retries"]) == (1, 1)
    assert [entry["outcome"] for entry in record["history"]] == ["interrupted", "succeeded"]


def test_settings_of_a_job_given_up_and_sent_back_are_those_of_its_return(spool_dir: Path, cli: Cli) -> None:
    """It never ran, so its file does not have them. It gets them again, and is listed and ordered by them."""
    cli("config", "set", "priority", "7", expect=0)
    support.drop(spool_dir, "job1", command="true")
    cli("cancel", "job1", expect=0)
    cli("config", "set", "max_retries", "4", expect=0)

    cli("dlq", "retry", "job1", expect=0)
    (row,) = json.loads(cli("list", "--json", expect=0).stdout)
    cli("config", "set", "max_retries", "9", expect=0)
    cli("doctor", expect=0)
    support.drain(spool_dir)

    assert (row["priority"], row["max_retries"]) == (7, 4)
    assert support.load(spool_dir / "done" / "job1.json")["max_retries"] == 4


def test_job_that_may_be_tried_again_at_once_is_not_lost(spool_dir: Path) -> None:
    """The next job is claimed in the transaction that settles one. If both are the same job, its file is never missing."""
    spool = Spool(spool_dir)
    spool.enqueue("exit 1", id="job1", max_backoff=0)

    support.drain(spool_dir)

    record: dict[str, Any] = support.load(spool_dir / "dead" / "job1.json")
    assert (record["attempts"], len(record["history"])) == (3, 3)
