"""The table of ends: what a runner has written, and Slurm's word about it, as an outcome of the job."""

from __future__ import annotations

from typing import Any

import pytest

from queuectl.engine.base import Row
from queuectl.engine.endings import Interrupted, NotBegun, loss, meaning
from queuectl.engine.handed import Ended, Lost
from queuectl.engine.packs import Record
from queuectl.job import outcome as outcomes
from queuectl.job.outcome import Ending, Outcome
from queuectl.job.record import Job

KEY = ("a", "1.7")


def ended(
    how: str, code: int | None = None, state: str = "", *, no_memory: bool = False, **more: Any
) -> Ended:
    """An end as it is told, with the state of the runner's row in Slurm."""
    fields: dict[str, Any] = {
        "why": "",
        "ran": True,
        "node": "n2",
        "started": 1.0,
        "ended": 3.5,
        "seconds": 2.5,
        **more,
    }
    record = Record(0, how, code, out=3, err=4, runner="n2.7.8", **fields)
    row = Row("7", state, "", is_live=False) if state else None
    return Ended(KEY, record, ("0.out", "0.err"), row, no_memory)


@pytest.mark.parametrize(
    ("event", "ending", "code", "error"),
    [
        (ended("exited", 0), Ending.SUCCEEDED, 0, None),
        (ended("exited", 0, "NODE_FAIL"), Ending.SUCCEEDED, 0, None),
        (ended("exited", 0, "CANCELLED"), Ending.SUCCEEDED, 0, None),
        (ended("exited", 7), Ending.FAILED, 7, "Exit code 7"),
        (ended("exited", 127), Ending.FAILED, 127, "Exit code 127 (command not found)"),
        (ended("signalled", -11), Ending.SIGNALLED, 139, "Killed by signal 11 (SIGSEGV)"),
        (ended("signalled", -9), Ending.SIGNALLED, 137, "Killed by signal 9 (SIGKILL)"),
        (ended("signalled", -9, "OUT_OF_MEMORY"), Ending.SIGNALLED, 137, "Out of memory on n2 (killed by signal 9)"),
        (ended("signalled", -9, no_memory=True), Ending.SIGNALLED, 137, "Out of memory on n2 (killed by signal 9)"),
        (ended("timed_out", -15), Ending.TIMED_OUT, 143, "Timeout exceeded (60s)"),
        (ended("timed_out", 0), Ending.TIMED_OUT, 0, "Timeout exceeded (60s)"),
        (ended("cancelled", -15), Ending.CANCELLED, 143, "Cancelled"),
        (ended("not_started", why="no program 'x' found on n2", ran=False), Ending.NOT_STARTED, None, "Cannot start: no program 'x' found on n2"),
        (ended("terminated", -15, "TIMEOUT"), Ending.TIMED_OUT, 143, "Ended at Slurm's time limit, which its partition sets"),
        (ended("terminated", -15, "DEADLINE"), Ending.TIMED_OUT, 143, "Ended at Slurm's time limit, which its partition sets"),
        (ended("terminated", -15, "CANCELLED"), Ending.CANCELLED, 143, "Cancelled in Slurm by scancel"),
        (ended("terminated", -15, "PREEMPTED"), Ending.PREEMPTED, 143, "Preempted by another job of the cluster"),
    ],
)  # fmt: skip
def test_what_came_to_an_end_is_an_outcome(
    event: Ended, ending: Ending, code: int | None, error: str | None
) -> None:
    """As of a run on this machine; Slurm's word counts only where Slurm itself has ended it."""
    found = meaning(event, in_shell=True, timeout=60)
    assert found == Outcome(ending, code, error, 2.5, printed=(3, 4))


@pytest.mark.parametrize(
    ("event", "error"),
    [
        (ended("terminated", -15), "the runner on n2 was ended by Slurm"),
        (ended("terminated", -15, "NODE_FAIL"), "the runner on n2 was ended by Slurm (NODE_FAIL)"),
        (ended("fenced", -9), "n2 was cut off from the shared folder, and has ended it"),
    ],
)
def test_what_the_cluster_ended_is_no_failure_of_the_job(event: Ended, error: str) -> None:
    """It is recorded as the death of a worker is: uncharged, and counted."""
    assert meaning(event, in_shell=True, timeout=60) == Interrupted(error)


@pytest.mark.parametrize(
    ("event", "stopped", "found"),
    [
        (ended("not_begun", why="cannot write its output: Read-only file system", ran=False), False, NotBegun("cannot write its output: Read-only file system (n2)")),
        (ended("cancelled", ran=False), False, NotBegun("Cancelled", is_cancelled=True)),
        (ended("cancelled", ran=False), True, NotBegun("Cancelled", is_cancelled=False)),
    ],
)  # fmt: skip
def test_what_has_not_run_is_no_attempt(event: Ended, stopped: bool, found: NotBegun) -> None:
    assert meaning(event, in_shell=True, timeout=60, stopped=stopped) == found


def test_a_forced_stop_costs_no_attempt() -> None:
    """Its runs were ended by a wish, and not because somebody wanted the jobs gone."""
    found = meaning(ended("cancelled", -15), in_shell=True, timeout=60, stopped=True)
    assert isinstance(found, Outcome)
    assert (found.ending, found.error) == (Ending.STOPPED, "Stopped with its worker")


@pytest.mark.parametrize(
    ("runner", "state", "error"),
    [
        ("n2.7.8", "NODE_FAIL", "n2 has not been heard of for 635s (NODE_FAIL)"),
        ("n2.lab.org.7.8", "", "n2.lab.org has not been heard of for 635s"),
        ("", "", "its node has not been heard of for 635s"),
    ],
)
def test_a_lost_run_says_who_was_not_heard_of(runner: str, state: str, error: str) -> None:
    row = Row("7", state, "", is_live=False) if state else None
    assert loss(Lost(KEY, runner, 635.2, row)) == Interrupted(error)


def test_a_preempted_job_waits_again_at_once_and_pays_nothing() -> None:
    """Neither an attempt nor a death of its worker: another job of the cluster went before."""
    job = Job(id="a", command="true", max_retries=1, crashes=2)
    found = meaning(ended("terminated", -15, "PREEMPTED"), in_shell=True, timeout=60)
    assert isinstance(found, Outcome)
    assert outcomes.record(job, found, now=100.0) == "pending"
    assert (job.attempts, job.crashes, job.next_retry_at) == (0, 2, None)
    assert job.history[0]["outcome"] == "preempted"
