"""What a job costs in system calls. A count says the same on every machine, where a time does not."""

from __future__ import annotations

import statistics
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from queuectl import Spool

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="counted with strace")

JOBS = 60
WORKER = (
    "import sys; from queuectl.worker import Worker; from queuectl.runner import LocalRunner;"
    "Worker(sys.argv[1], drain=True, runner=LocalRunner(may_chdir=True)).run()"
)


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    """A spool with jobs that the index knows of."""
    made = Spool(tmp_path / "spool")
    made.refresh()
    list(made.enqueue_many({"command": "true"} for _ in range(JOBS)))
    return tmp_path / "spool"


def calls_between_starts(spool_dir: Path, trace: Path) -> list[list[str]]:
    """The names of the calls that a worker made from one start of a command to the next, for each job."""
    subprocess.run(
        ["strace", "-o", str(trace), sys.executable, "-c", WORKER, str(spool_dir)], check=True, timeout=120
    )
    rounds: list[list[str]] = []
    for line in trace.read_text().splitlines():
        name = line.partition("(")[0]
        if name in ("clone3", "clone", "vfork"):
            rounds.append([])
        elif rounds and line[0].isalpha():
            rounds[-1].append(name)
    return rounds[10 : JOBS - 10]


def test_a_job_costs_no_more_system_calls_than_it_did(filled: Path, tmp_path: Path) -> None:
    """Claim, run, settle, all recorded: at most 68 calls of the worker's own, 12 of them the index's pages."""
    rounds = calls_between_starts(filled, tmp_path / "trace")

    assert len(rounds) == JOBS - 20
    usual = sorted(rounds, key=len)[len(rounds) // 2]
    assert len(usual) <= 68, sorted(usual)
    assert statistics.median(calls.count("pwrite64") for calls in rounds) <= 18


def test_a_job_waits_for_no_disk_and_changes_three_names(filled: Path, tmp_path: Path) -> None:
    """Between two starts nothing is synced, and three renames move the job: claim, outcome, held file."""
    for calls in calls_between_starts(filled, tmp_path / "trace"):
        assert not {"fsync", "fdatasync", "syncfs", "sync_file_range", "unlink", "link"} & set(calls)
        assert sum(name.startswith("rename") for name in calls) == 3
