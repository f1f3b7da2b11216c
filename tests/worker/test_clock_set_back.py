"""After the clock was set back, a failed job waits no longer than its own backoff."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from queuectl import Spool, Worker
from queuectl.api import listing
from queuectl.job import record as jobs
from queuectl.job import times

from support import drain, load, where_is

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    Cli = Callable[..., subprocess.CompletedProcess[str]]

AHEAD = 9 * 365 * 86400.0


class Clock:
    """A wall clock that somebody sets."""

    def __init__(self) -> None:
        self.ahead = AHEAD

    def __call__(self) -> float:
        """Return epoch seconds."""
        return time.time() + self.ahead


def failed_ahead(spool_dir: Path, **fields: Any) -> None:
    """A job whose first attempt failed while the clock was nine years ahead."""
    flag = spool_dir.parent / "flag"
    Spool(spool_dir).enqueue(
        f"[ -e {flag} ] || {{ touch {flag}; exit 1; }}", id="a", **{"max_backoff": 0.3, **fields}
    )
    drain(spool_dir, now=Clock())
    assert (
        times.parse_moment(load(spool_dir / "pending" / "a.json")["next_retry_at"]) > time.time() + AHEAD / 2
    )


@pytest.mark.parametrize("index", ["kept", "rebuilt"])
def test_failed_job_runs_again_after_its_own_wait(spool_dir: Path, index: str) -> None:
    """With the index from before, and with one that is made from the files."""
    failed_ahead(spool_dir)
    if index == "rebuilt":
        (spool_dir / "data" / "queuectl.db").unlink()

    began = time.monotonic()
    drain(spool_dir, wait_retries=True)

    assert where_is(spool_dir, "a") == ["done"]
    assert time.monotonic() - began < 20


def test_clock_that_is_set_back_under_a_worker_is_noticed(
    spool_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker that saw the failure waits for the year 2035, until its next round of duties."""
    monkeypatch.setattr("queuectl.worker.maintenance.EVERY", 0.1)
    flag = spool_dir.parent / "flag"
    spool = Spool(spool_dir)
    spool.enqueue(f"[ -e {flag} ] || {{ touch {flag}; exit 1; }}", id="a", max_backoff=3)
    clock = Clock()

    def say(line: str) -> None:
        if "failed" in line:
            clock.ahead = 0.0

    Worker(spool_dir, drain=True, wait_retries=True, say=say, now=clock).run()

    assert where_is(spool_dir, "a") == ["done"]


@pytest.mark.parametrize("comes", ["before", "after"])
def test_a_job_whose_parent_ended_ahead_of_the_clock_starts(spool_dir: Path, comes: str) -> None:
    """It counts its waiting from that end: it would wait until the clock has passed it, an hour later, or years."""
    ahead = Clock()
    spool = Spool(spool_dir)
    spool.enqueue("true", id="parent")
    if comes == "before":
        spool.enqueue("true", id="child", after="parent", hold=True)
    Worker(spool_dir, drain=True, say=lambda _: None, now=ahead).run()
    if comes == "before":
        spool.release("child")
    else:
        spool.enqueue("true", id="child", after="parent")
    spool.enqueue("true", id="tomorrow", after="parent", run_at=time.time() + 86400)

    Worker(spool_dir, drain=True, say=lambda _: None).run()

    assert where_is(spool_dir, "child") == ["done"]
    assert where_is(spool_dir, "tomorrow") == ["pending"]


def test_waits_that_are_right_stay_as_they_are(spool_dir: Path, cli: Cli) -> None:
    """The wait begins once, however often it is looked at; and what a person has set is kept."""
    failed_ahead(spool_dir, max_backoff=500, backoff_base=400)
    spool = Spool(spool_dir)
    spool.refresh()
    now = round(time.time() * 1e6)
    spool._index.shorten_waits(now)
    spool._index.shorten_waits(now + 60_000_000)
    assert listing.one(spool, "a").due == now + 400_000_000

    cli("set", "a", "run_at=+1h", expect=0)
    assert spool.row("a").due_at == pytest.approx(time.time() + 3600, abs=60)
    assert cli("doctor", expect=0).returncode == 0
    assert json.loads(cli("list", "--json", expect=0).stdout)[0]["state"] == "failed"


def test_only_a_retry_from_the_future_is_shortened() -> None:
    """`run_at` means the wall clock, and a wait that began in the past is as long as it is."""
    scheduled = jobs.Job(id="a", command="x", run_at=5000.0, finished_at=4000.0)
    waiting = jobs.Job(id="a", command="x", attempts=1, finished_at=1000.0, next_retry_at=5000.0)
    set_back = jobs.Job(id="a", command="x", attempts=1, finished_at=4000.0, next_retry_at=4008.0)

    assert (scheduled.due_by(2000.0), waiting.due_by(2000.0), set_back.due_by(2000.0)) == (
        5000.0,
        5000.0,
        2008.0,
    )
    assert [one.is_due(2000.0) for one in (scheduled, waiting, set_back)] == [False, False, True]
