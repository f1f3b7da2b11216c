"""A command that changes jobs goes on when its output cannot be written, and its exit code is about the work."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from queuectl import Spool

from support import drop_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

MANY = 300
"""So many lines are more than a buffer of output holds."""

FULL = Path("/dev/full")


@pytest.fixture
def closed() -> Iterator[int]:
    """A pipe whose reader has gone, as after `| head -1`."""
    reading, writing = os.pipe()
    os.close(reading)
    yield writing
    os.close(writing)


@pytest.fixture(params=["", "1"], ids=["buffered", "unbuffered"], autouse=True)
def buffered(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With PYTHONUNBUFFERED, which containers set, the error comes at once instead of at the end."""
    monkeypatch.setenv("PYTHONUNBUFFERED", request.param)


def run(*args: str, stdout: int, stderr: int = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "queuectl", *args],
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        text=True,
        check=False,
        timeout=60,
    )


def fill_dead(spool_dir: Path) -> None:
    for number in range(MANY):
        record = {"command": "true", "attempts": 1, "last_error": "Exit code 1", "tags": ["t" * 40]}
        drop_bytes(spool_dir, f"job-{number:03}-{'x' * 30}.json", json.dumps(record).encode(), "dead")


def test_bulk_commands_go_on_without_a_reader(spool_dir: Path, closed: int) -> None:
    """`queuectl dlq retry --all | head -1` retries all of them, and so for the others."""
    fill_dead(spool_dir)
    spool = Spool(spool_dir)

    retried = run("dlq", "retry", "--all", stdout=closed)
    assert (retried.returncode, spool.counts()["pending"]) == (0, MANY)
    assert retried.stderr == f"note: cannot write the output: broken pipe; {MANY} of {MANY} jobs retried\n"
    assert run("cancel", "--all", stdout=closed).returncode == 0
    assert spool.counts()["dead"] == MANY
    assert run("remove", "--all", "--yes", stdout=closed, stderr=closed).returncode == 0
    assert sum(spool.counts().values()) == 0


def test_a_file_of_jobs_is_queued_to_its_end(spool_dir: Path, tmp_path: Path, closed: int) -> None:
    """Jobs whose lines nobody reads are queued like the others."""
    jobs = tmp_path / "jobs.jsonl"
    jobs.write_text("".join(json.dumps({"command": "true", "id": f"j{n}"}) + "\n" for n in range(5000)))

    done = run("enqueue", "--file", str(jobs), stdout=closed)

    assert (done.returncode, Spool(spool_dir).counts()["pending"]) == (0, 5000)
    assert "enqueued 5000 jobs" in done.stderr


@pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full")
def test_the_exit_code_is_about_the_work_on_a_full_disk(spool_dir: Path, tmp_path: Path) -> None:
    """Exit code 4 says that nothing is queued; here the job is queued, and its id is told on stderr."""
    jobs = tmp_path / "jobs.json"
    jobs.write_text('[{"command": "true"}, {"command": "true"}]')
    with FULL.open("w") as full:
        quick = run("enqueue", "true", stdout=full.fileno())
        slow = run("enqueue", "--id", "a", "true", stdout=full.fileno())
        several = run("enqueue", "--file", str(jobs), stdout=full.fileno())
        reading = run("list", stdout=full.fileno())

    [first] = [row.id for row in Spool(spool_dir).list(limit=1)]
    begin = "note: cannot write the output: no space left on device; enqueued"
    assert (quick.returncode, quick.stderr) == (0, f"{begin} job {first}\n")
    assert (slow.returncode, slow.stderr) == (0, f"{begin} job a\n")
    assert (several.returncode, several.stderr) == (0, f"{begin} 2 jobs\n")
    assert reading.returncode == 4
    assert Spool(spool_dir).counts()["pending"] == 4


def test_a_command_that_only_reads_ends_with_its_reader(spool_dir: Path, closed: int) -> None:
    """It has nothing else to do; so does a dry run."""
    fill_dead(spool_dir)

    for args in (["list"], ["dlq", "retry", "--all", "--dry-run"]):
        assert "Traceback" not in run(*args, stdout=closed).stderr
    assert run("list", stdout=closed).returncode == 141
    assert Spool(spool_dir).counts()["dead"] == MANY
