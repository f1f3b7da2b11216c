"""What a worker knows of its runs: those that cannot be ended, and the moments at which each is due."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import gate
import orjson
import pytest
from gate import drop_blocked, names, release, started, worker_in_thread

from queuectl import Spool
from queuectl.job.outcome import Ending, Outcome

import support
from support import finished, wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from queuectl.executor.base import Attempt

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="commands are written for sh")


class _Lingering:
    """An attempt whose processes cannot be ended, until somebody puts its job id into `ended`."""

    pid = 0

    def __init__(self, job_id: str, ended: set[str]) -> None:
        self._job_id, self._ended = job_id, ended

    def has_begun(self) -> bool:
        return True

    def wait_fd(self) -> None:
        return None

    def next_poll(self) -> float:
        return time.monotonic() + 0.05

    def poll(self) -> Outcome | None:
        return Outcome(Ending.SUCCEEDED, 0, None, 0.1) if self._job_id in self._ended else None

    def session(self) -> None:
        return None

    def cancel(self, ending: Ending, *, now: bool = False) -> None:  # noqa: ARG002  (the protocol's)
        self._ended.add(self._job_id)

    def cannot_end(self) -> str:
        return f"process of {self._job_id}"

    def close(self) -> None:
        self._ended.discard(self._job_id)


class _Runner:
    def __init__(self) -> None:
        self.ended: set[str] = set()

    def start(self, attempt: Attempt) -> _Lingering:
        return _Lingering(attempt.env["QUEUECTL_JOB_ID"], self.ended)

    def forget_output(self, stdout: str) -> None:
        """It keeps none."""


def test_what_cannot_be_ended_is_told_until_the_last_of_it_ends(spool_dir: Path) -> None:
    """And the reason of a pause is another thing: neither hides the other."""
    runner = _Runner()
    support.drop(spool_dir, "one", command="x")
    support.drop(spool_dir, "other", command="x")
    record = spool_dir / "data" / "workers" / "worker-0.json"

    def told() -> str:
        return "; ".join(one.paused or "" for one in Spool(spool_dir).workers())

    with worker_in_thread(spool_dir, 3, runner=runner):
        wait_until(lambda: "cannot end one" in told() and "cannot end other" in told())
        runner.ended.add("one")
        wait_until(lambda: finished(spool_dir, "one"))
        wait_until(lambda: "cannot end one" not in told(), 5)
        assert "cannot end other" in told()
        assert orjson.loads(record.read_bytes()).get("paused") is None
        runner.ended.add("other")
        wait_until(lambda: finished(spool_dir, "other"))
        wait_until(lambda: not told(), 5)


def test_deadlines_of_ended_runs_are_not_kept(spool_dir: Path) -> None:
    """Behind that of a run that goes on they would stay for an hour, and hold all that the runs had."""
    Spool(spool_dir).layout.create()
    (spool_dir / "config.yaml").write_text("log_limit: 0\n")
    home = gate.home_with_gate(spool_dir)
    drop_blocked(spool_dir, "long", timeout=1000)
    with worker_in_thread(spool_dir, 8) as worker:
        wait_until(lambda: len(started(home)) == 1)
        for name in names(150):
            support.drop(spool_dir, name, command=["sleep", "0.05"], timeout=3600)
        wait_until(lambda: finished(spool_dir, *names(150)), 30)
        assert len(worker._slots._deadlines) <= 2 * 8 + 65
        release(home, lambda: finished(spool_dir, "long"))
