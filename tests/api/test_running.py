"""What is shown of a running job is its present run: the true start, and nothing of the end of the run before."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from queuectl import Spool
from queuectl.job import times

from support import load, wait_until, where_is

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    Cli = Callable[..., subprocess.CompletedProcess[str]]


def began(path: Path) -> float:
    return float(wait_until(lambda: path.exists() and path.read_text().strip()))


def test_start_of_a_running_job_is_the_true_one_from_the_first_moment(
    cli: Cli, spool_dir: Path, workers: Callable[..., Any], tmp_path: Path
) -> None:
    """list, show and worker list agree on it while the job is younger than its worker's notes in its file."""
    mark, gate = tmp_path / "mark", tmp_path / "gate"
    workers(1)
    command = f'date +%s.%N > "{mark}"; while [ ! -e "{gate}" ]; do sleep 0.02; done'
    cli("enqueue", "--id", "job1", "--command", command, expect=0)
    true_start = began(mark)

    spool = Spool(spool_dir)
    [row] = spool.list("processing")
    [worker] = spool.workers()
    started = spool.get("job1").started_at
    shown = cli("show", "job1", expect=0).stdout
    listed = json.loads(cli("list", "--json", expect=0).stdout)[0]
    columns = cli("list", "--columns", "attempts,started", expect=0).stdout
    gate.touch()

    assert started is not None
    assert row.started_at == times.micros(started) / 1e6
    assert worker.job_since == started
    assert -0.01 < true_start - started < 0.5
    assert "Attempts" in shown
    assert [line.split()[1] for line in shown.splitlines() if line.startswith("Attempts")] == ["1/3"]
    assert any(line.startswith("Started") for line in shown.splitlines())
    assert listed["started_at"] is not None
    assert columns.startswith("1\t2")


def test_a_second_attempt_shows_nothing_of_the_end_of_the_first(
    cli: Cli, spool_dir: Path, workers: Callable[..., Any], tmp_path: Path
) -> None:
    """Neither show nor list nor the job's file says that a job has ended that runs."""
    mark, gate = tmp_path / "mark", tmp_path / "gate"
    command = (
        f'[ "$QUEUECTL_ATTEMPT" = 2 ] || exit 3; touch "{mark}"; while [ ! -e "{gate}" ]; do sleep 0.02; done'
    )
    cli("enqueue", "--id", "job1", "--max-backoff", "0", "--command", command, expect=0)
    workers(1)
    wait_until(mark.exists)

    job = Spool(spool_dir).get("job1")
    [row] = Spool(spool_dir).list("processing")
    path = spool_dir / "processing" / "worker-0" / "job1.json"
    wait_until(lambda: load(path)["state"] == "processing", message="the note in the file")
    record = load(path)
    gate.touch()
    wait_until(lambda: where_is(spool_dir, "job1") == ["done"])

    of_the_end = ("exit_code", "finished_at", "next_retry_at", "duration", "last_error")
    assert [getattr(job, name) for name in of_the_end] == [None] * 5
    assert [getattr(row, name) for name in of_the_end] == [None] * 5
    assert not {*of_the_end, "output"} & set(record)
    assert job.started_at is not None
    assert abs(time.time() - job.started_at) < 30
    assert job.history[0]["exit_code"] == 3
