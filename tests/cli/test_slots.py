"""What is told of a worker that runs several jobs at once is true at every moment."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pytest

from queuectl import Spool, Worker
from queuectl.config.keys import MAX_CONCURRENCY

from support import finished, run_cli, wait_until

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Cli = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="commands are written for sh")
LONG = 'while [ ! -e "$HOME/go" ]; do sleep 0.02; done'


@pytest.fixture
def three(spool_dir: Path, workers: Callable[..., object]) -> Iterator[Spool]:
    """A spool with one worker that runs three jobs in its three slots."""
    spool = Spool(spool_dir)
    run_cli("config", "set", "concurrency", "3", expect=0)
    workers(1)
    spool.enqueue_many({"command": LONG, "id": f"long{number}", "timeout": 0} for number in range(3))
    wait_until(lambda: len(spool.workers()[0].jobs) == 3)
    yield spool
    (spool_dir.parent / "home" / "go").touch()


def test_the_status_tells_programs_of_slots(three: Spool, cli: Cli) -> None:
    """The number of workers alone would say that one of one is busy."""
    found = json.loads(cli("status", "--json", expect=0).stdout)

    assert (found["workers"], found["slots"], found["slots_used"]) == (1, 3, 3)


def test_after_lowering_no_running_job_is_hidden(three: Spool, cli: Cli) -> None:
    """Three jobs run on, and the list of workers showed one."""
    cli("config", "set", "concurrency", "1", expect=0)
    wait_until(lambda: three.workers()[0].concurrency == 1)

    assert "3/1 jobs, the oldest: long" in cli("worker", "list", expect=0).stdout
    assert "workers: 1 (1 busy, 3 of 1 slots)" in cli("status", expect=0).stdout


def test_a_job_that_moved_to_another_slot_is_shown_with_its_present_run(
    spool_dir: Path, workers: Callable[..., object]
) -> None:
    """The file of the slot of its first run stays, and names an earlier start."""
    spool = Spool(spool_dir)
    workers(1, "-j", "2")
    home = spool_dir.parent / "home"
    spool.enqueue('while [ ! -e "$HOME/first" ]; do sleep 0.02; done', id="block", timeout=0)
    wait_until(lambda: spool.workers()[0].job_id == "block")
    spool.enqueue(f'[ "$QUEUECTL_ATTEMPT" = 2 ] || exit 1; {LONG}', id="moved", timeout=0, backoff_base=1.5)
    wait_until(lambda: spool.get("moved").attempts == 1)
    (home / "first").touch()
    wait_until(lambda: finished(spool_dir, "block"))
    try:
        wait_until(lambda: [one.id for one in spool.workers()[0].jobs] == ["moved"])
        wait_until(lambda: spool.get("moved").started_at is not None)
        [shown] = spool.workers()[0].jobs
        assert shown.since == spool.get("moved").started_at
    finally:
        (home / "go").touch()
    wait_until(lambda: finished(spool_dir, "moved"))


def test_scale_starts_workers_with_slots(cli: Cli, spool_dir: Path, workers: Callable[..., object]) -> None:
    """After `worker start -j 6`, `worker scale 2` gave the second one a single slot, and there was no way to say more."""
    workers(1, "-j", "6")
    cli("worker", "scale", "2", "-j", "6", expect=0)

    # A worker says so when it begins to work, which is a moment after it is ready.
    wait_until(lambda: [worker.concurrency for worker in Spool(spool_dir).workers()] == [6, 6])


@pytest.mark.parametrize("wrong", [0, -5, "abc", 1.5, True, MAX_CONCURRENCY + 1])
def test_a_program_is_refused_a_concurrency_that_is_none(spool_dir: Path, wrong: object) -> None:
    """0 meant the setting, -5 one job at a time, and a text failed when the worker ran."""
    with pytest.raises(ValueError, match=r"^concurrency must be"):
        Worker(spool_dir, concurrency=wrong)  # type: ignore[arg-type]


def test_the_flag_and_the_setting_take_the_same_numbers(cli: Cli) -> None:
    """The flag took ten thousand, the setting a thousand."""
    cli("config", "set", "concurrency", str(MAX_CONCURRENCY), expect=0)
    assert (
        f"must be 1 to {MAX_CONCURRENCY}"
        in cli("config", "set", "concurrency", str(MAX_CONCURRENCY + 1), expect=2).stderr
    )
    assert cli("worker", "start", "-j", str(MAX_CONCURRENCY + 1), expect=2).stderr


def test_many_jobs_of_a_dead_worker_are_one_note(
    three: Spool, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twenty lines that say the same hid the notes after them."""
    monkeypatch.setattr(
        "queuectl.control.registry.orphaned_runs",
        lambda _: [("worker-7", "a"), ("worker-7", "b"), ("worker-8", "c")],
    )
    assert [note for note in three.notes() if "is gone" in note] == [
        "2 jobs of worker-7, which is gone, wait until the last processes of their runs end",
        "job c of worker-8, which is gone, waits until the last process of its run ends",
    ]
