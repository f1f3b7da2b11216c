"""What a job costs in system calls. A count says the same on every machine, where a time does not."""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections import Counter
from itertools import chain
from typing import TYPE_CHECKING, Any

import pytest

from queuectl import Spool

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="counted with strace")

JOBS = 200
MIDDLE = slice(40, 104)
"""Four times as many as are claimed at once: the first and the last ones are claimed in smaller numbers."""

WORKER = """
import sys
from queuectl.system import mounts, watcher
from queuectl.worker import idle, job_run, prefetch, scan_scheduler, worker
from queuectl.executor.local import LocalRunner
prefetch.MAX_BATCH, prefetch.BATCH_SECONDS, prefetch.LONG_JOB = int(sys.argv[2]), 1e9, 1e8
watcher.LOAD_AFTER, idle.TICK, job_run.SESSION_AFTER = 0, 1e9, 1e8
mounts.RECHECK = scan_scheduler.SAFETY_PAUSE = 1e9
worker.Worker(sys.argv[1], drain=True, runner=LocalRunner(may_chdir=True)).run()
"""
"""However slow it is under strace, it claims as many at once as it may, and it has a watch, as after a second of work.
What is done by the clock is left out: how often it falls between these jobs depends on the machine."""


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    """A spool with jobs that the index knows of."""
    made = Spool(tmp_path / "spool")
    made.refresh()
    made.enqueue_many({"command": "true"} for _ in range(JOBS))
    return tmp_path / "spool"


def calls_between_starts(spool_dir: Path, trace: Path, at_once: int) -> list[list[str]]:
    """The names of the calls that a worker made from one start of a command to the next, for each job."""
    command = [sys.executable, "-c", WORKER, str(spool_dir), str(at_once)]
    subprocess.run(["strace", "-o", str(trace), *command], check=True, timeout=120)
    rounds: list[list[str]] = []
    for line in trace.read_text().splitlines():
        name = line.partition("(")[0]
        if "CLONE_VFORK" in line or name == "vfork":
            rounds.append([])
        elif rounds and line[0].isalpha():
            rounds[-1].append(name)
    assert len(rounds) == JOBS
    return rounds[MIDDLE]


@pytest.mark.parametrize(("at_once", "most", "of_index"), [(1, 71, 18), (16, 44, 2)])
def test_a_job_costs_no_more_system_calls_than_it_did(
    filled: Path, tmp_path: Path, at_once: int, most: int, of_index: int
) -> None:
    """Claim, run, settle, all recorded: so many calls of the worker's own, and so many of them the index's pages.

    With one at a time it is 69, and up to one more when a checkpoint of the index falls into these jobs.
    """
    rounds = calls_between_starts(filled, tmp_path / "trace", at_once)

    assert statistics.mean(map(len, rounds)) <= most, Counter(chain(*rounds))
    assert statistics.mean(calls.count("pwrite64") for calls in rounds) <= of_index


@pytest.mark.parametrize("at_once", [1, 16])
def test_a_job_waits_for_no_disk_and_changes_three_names(filled: Path, tmp_path: Path, at_once: int) -> None:
    """Between two starts nothing is synced, and three renames move the job: claim, outcome, held file."""
    rounds = calls_between_starts(filled, tmp_path / "trace", at_once)

    for calls in rounds:
        assert not {"fsync", "fdatasync", "syncfs", "sync_file_range", "unlink", "link", "linkat"} & set(
            calls
        )
    renames = sum(name.startswith("rename") for calls in rounds for name in calls)
    assert (
        3 * len(rounds) <= renames <= 3 * len(rounds) + 2
    )  # now and then a folder of held files gets its name


def test_many_jobs_given_up_or_sent_back_compare_no_folder(
    spool_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look at a whole folder for each of them made five thousand retries a matter of a minute."""
    spool = Spool(spool_dir)
    spool.refresh()
    ids = spool.enqueue_many({"command": "true"} for _ in range(20))
    looks: list[str] = []
    scan = spool._intake.scan

    def watched(place: str, **how: Any) -> Any:
        looks.append(place)
        return scan(place, **how)

    monkeypatch.setattr(spool._intake, "scan", watched)

    for job_id in ids:
        spool.hold(job_id)
    for job_id in ids:
        spool.set(job_id, priority=9)
    for job_id in ids:
        spool.cancel(job_id)
    for job_id in ids:
        spool.retry(job_id)

    assert looks == []
    assert [row.priority for row in spool.list("pending")] == [9] * 20
