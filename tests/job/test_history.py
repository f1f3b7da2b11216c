"""A job's history is bounded: the first and the last runs stay, how many lie between is counted, no number changes."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from queuectl import Spool
from queuectl.job import record as jobs
from queuectl.job.copies import continues
from queuectl.job.record import FIRST_RUNS, LAST_RUNS

from support import drain, drop, load, where_is

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

KEPT = FIRST_RUNS + LAST_RUNS


def run(number: int) -> dict[str, Any]:
    return {"run": number, "attempt": number, "outcome": "failed", "error": "Exit code 3"}


def job_of(runs: int) -> jobs.Job:
    """A job that has run so often, as its file would say it."""
    job = jobs.Job(id="job", command="exit 3", created_at=1e9, max_retries=10**6)
    for number in range(1, runs + 1):
        job.add_run(run(number))
    return job


def fields_of(runs: int) -> dict[str, Any]:
    return job_of(runs).to_dict() | {"attempts": runs, "timeout": 20}


def test_the_first_and_the_last_runs_are_kept_and_the_rest_is_counted() -> None:
    """A hundred thousand runs make a file no larger than a hundred do; each entry still knows its run."""
    job = job_of(100_000)
    assert (len(job.history), job.history_left_out, job.runs) == (KEPT, 100_000 - KEPT, 100_000)
    assert all(entry["run"] == number for number, entry in job.numbered_history())
    assert [number for number, _ in job.numbered_history()][: FIRST_RUNS + 1] == [
        *range(1, FIRST_RUNS + 1),
        100_000 - LAST_RUNS + 1,
    ]
    assert len(job.to_bytes()) < len(job_of(KEPT).to_bytes()) * 1.3
    assert jobs.parse(job.to_bytes()) == job


@pytest.mark.parametrize("runs", [1, FIRST_RUNS, KEPT - 1, KEPT, KEPT + 1, KEPT + 2, 3 * KEPT])
def test_a_later_copy_is_known_as_one_however_much_was_left_out(runs: int) -> None:
    """And never the other way round: what decides between two copies of a job must not tire."""
    later = job_of(runs)
    for fewer in {0, 1, FIRST_RUNS, runs // 2, runs - 1} - {runs}:
        if fewer < runs:
            assert continues(later, job_of(fewer))
            assert not continues(job_of(fewer), later)
    assert not continues(later, job_of(runs))
    stranger = job_of(runs - 1)
    if stranger.history:
        stranger.history[-1] = {**stranger.history[-1], "error": "Exit code 4"}
        assert not continues(later, stranger)


def test_run_numbers_go_on_past_the_bound(cli: Callable[..., Any], spool_dir: Path) -> None:
    """The next run of a job with a long past has the next number: in its log's name, in its record, for `logs`."""
    drop(spool_dir, "job", **fields_of(1000) | {"command": "echo hi $QUEUECTL_ATTEMPT; exit 3"})

    drain(spool_dir)

    record = load(spool_dir / "pending" / "job.json")
    assert (record["attempts"], record["history_left_out"], len(record["history"])) == (
        1001,
        1001 - KEPT,
        KEPT,
    )
    assert [entry["run"] for entry in record["history"]][-2:] == [1000, 1001]
    assert (spool_dir / "logs" / "job.1001.out").read_text() == "hi 1001\n"
    assert cli("logs", "job", expect=0).stdout == "hi 1001\n"
    told = cli("show", "job", expect=0).stdout
    assert f"Runs {FIRST_RUNS + 1} to {1001 - LAST_RUNS}" in told
    assert "Run 1001 " in told


def test_what_a_run_has_to_say_is_bounded_too(spool_dir: Path) -> None:
    """A hundred entries that each repeat a folder's name of megabytes would outgrow what is read of a file."""
    drop(spool_dir, "job", command="true", cwd="/" + "x" * 200_000, timeout=5)

    drain(spool_dir)

    record = load(spool_dir / "pending" / "job.json")
    assert record["last_error"].startswith("Cannot start: the folder /xxx")
    assert len(record["history"][0]["error"]) < 2000


def test_a_copy_left_by_a_crash_is_void_past_the_bound_too(spool_dir: Path) -> None:
    """Dead just after a settle, a worker leaves the claimed file beside the outcome; the outcome holds."""
    Spool(spool_dir).refresh()
    claims = spool_dir / "processing" / "worker-0"
    claims.mkdir(mode=0o700)
    (claims / "job.json").write_text(json.dumps(fields_of(KEPT)))
    (spool_dir / "done" / "job.json").write_text(json.dumps(fields_of(KEPT + 1) | {"state": "completed"}))

    drain(spool_dir)

    assert where_is(spool_dir, "job") == ["done"]
    assert load(spool_dir / "done" / "job.json")["history"][-1]["run"] == KEPT + 1


def test_given_up_and_put_back_by_hand_past_the_bound_is_new_again(
    cli: Callable[..., Any], spool_dir: Path
) -> None:
    """Fresh attempts, remembered by the number of its runs, until the next run makes that past."""
    drop(spool_dir, "job", **fields_of(500) | {"next_retry_at": time.time() + 900})
    cli("list", expect=0)
    (spool_dir / "pending" / "job.json").rename(spool_dir / "dead" / "job.json")
    cli("list", expect=0)
    (spool_dir / "dead" / "job.json").rename(spool_dir / "pending" / "job.json")

    drain(spool_dir)

    record = load(spool_dir / "pending" / "job.json")
    assert (record["attempts"], record["history"][-1]["run"]) == (1, 501)


def test_a_file_that_claims_billions_of_runs_holds_nobody_up(spool_dir: Path) -> None:
    """Deleting such a job does not look for the logs of each run; those that are there go all the same."""
    drop(spool_dir, "job", **fields_of(KEPT) | {"history_left_out": 2_000_000_000})
    spool = Spool(spool_dir)
    spool.refresh()
    mine, other = spool_dir / "logs" / "job.7.out", spool_dir / "logs" / "job.x.7.out"
    mine.touch()
    other.touch()
    began = time.monotonic()
    spool.forget("job")
    assert time.monotonic() - began < 5
    assert (mine.exists(), other.exists()) == (False, True)
