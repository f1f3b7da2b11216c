"""Starts in threads: while the system starts one program, the worker does what is due for others, and nothing is lost."""

from __future__ import annotations

import errno
import os
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, cast

import gate
import pytest
from gate import STARTED, drop_blocked, names, release, started, worker_in_thread

from queuectl import Spool
from queuectl.executor import launcher, spawn
from queuectl.executor.base import Attempt
from queuectl.executor.local import LocalRunner
from queuectl.job.outcome import Ending
from queuectl.system import posix_spawn
from queuectl.system.files import token
from queuectl.system.locks import is_locked

import support
from support import finished, load, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from queuectl.executor.base import Running

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other systems start without threads")


@pytest.fixture
def home(spool_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir("/")
    return gate.home_with_gate(spool_dir)


class SlowSystem:
    """Starts each program in a thread only when it is told to go on.

    Attributes:
        begun: how many starts it was asked for.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun = 0
        self._goes_on = threading.Event()
        self._real = posix_spawn.posix_spawn
        monkeypatch.setattr(launcher, "posix_spawn", self._start)

    def _start(self, *args: Any) -> int:
        self.begun += 1
        self._goes_on.wait(20)
        return self._real(*args)

    def go_on(self) -> None:
        """Let these starts and all others begin."""
        self._goes_on.set()


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch) -> SlowSystem:
    return SlowSystem(monkeypatch)


def test_a_start_that_takes_long_holds_up_nothing_else(
    spool_dir: Path, home: Path, system: SlowSystem
) -> None:
    """The end of another run is recorded, its slot gets the next job, and each job has its own run lock."""
    layout = Spool(spool_dir).layout
    drop_blocked(spool_dir, *names(4))
    with worker_in_thread(spool_dir, 4, runner=LocalRunner(may_chdir=True)):
        wait_until(lambda: system.begun == 2 and len(started(home)) == 1)
        release(home, lambda: finished(spool_dir, "job0"))
        support.drop(spool_dir, "next", command="true")
        wait_until(lambda: finished(spool_dir, "next"))
        time.sleep(0.1)  # not a wait: after 20 ms the lock of a run that has begun is left to its processes
        system.go_on()
        wait_until(lambda: len(started(home)) == 4)
        locks = [layout.worker_file(f"worker-0.{slot}", "run") for slot in (1, 2, 3)]
        wait_until(lambda: all(map(is_locked, locks)))
        release(home, lambda: finished(spool_dir, *names(4)))
        wait_until(lambda: not any(map(is_locked, locks)))
    assert set(started(home).values()) == {1}


def test_few_starts_wait_for_a_thread(spool_dir: Path, home: Path, system: SlowSystem) -> None:
    """Those that wait count as running already: their timeouts go on, and after the worker's death as crashed."""
    drop_blocked(spool_dir, *names(9))
    with worker_in_thread(spool_dir, 9, runner=LocalRunner(may_chdir=True)):
        wait_until(lambda: len(started(home)) == 9 - 2 * launcher.THREADS)
        assert system.begun == launcher.THREADS
        system.go_on()
        wait_until(lambda: len(started(home)) == 9)
        release(home, lambda: finished(spool_dir, *names(9)))
    assert set(started(home).values()) == {1}


@pytest.mark.parametrize("how", ["cancel", "timeout", "stop"])
def test_what_is_wanted_during_a_start_is_done_after_it(
    spool_dir: Path, home: Path, system: SlowSystem, how: str
) -> None:
    drop_blocked(spool_dir, "first")
    support.drop(spool_dir, "slow", command=f"{STARTED}; exec sleep 60", timeout=1, max_retries=1)
    with worker_in_thread(spool_dir, 2, runner=LocalRunner(may_chdir=True)) as worker:
        wait_until(lambda: system.begun == 1 and len(started(home)) == 1)
        cancel = threading.Thread(target=Spool(spool_dir).cancel, args=("slow",))
        if how == "cancel":
            cancel.start()
            wait_until(lambda: [*(spool_dir / "data" / "workers").glob("*cancel*")])
            worker.look_now()
        elif how == "stop":
            worker.stop(force=True)
        time.sleep(1.1 if how == "timeout" else 0.2)  # not a wait: so long the start takes
        system.go_on()
        place = "pending" if how == "stop" else "dead"
        wait_until((spool_dir / place / "slow.json").exists)
        if how == "cancel":
            cancel.join(20)
    record = load(spool_dir / place / "slow.json")
    assert (
        record["history"][-1]["outcome"]
        == {
            "cancel": "cancelled",
            "timeout": "timed_out",
            "stop": "stopped",
        }[how]
    )
    assert support.processes_of(spool_dir) == []


def test_an_end_that_is_wanted_during_a_start_needs_no_second_wish(
    tmp_path: Path, system: SlowSystem
) -> None:
    """A forced stop is asked for in each round of the worker, a cancel once."""
    (tmp_path / "out").touch()
    attempt = Attempt(
        command="exec sleep 60",
        cwd=str(tmp_path),
        env={"PATH": os.environ["PATH"]},
        timeout=0,
        grace=1,
        stdout=str(tmp_path / "out"),
        stderr=str(tmp_path / "err"),
        lock_fd=None,
        marks={"QUEUECTL_RUN": token()},
        log_limit=0,
        slot=1,
    )
    running = cast("Running", LocalRunner(may_chdir=True).start(attempt))
    wait_until(lambda: system.begun)
    assert not running.has_begun()
    running.cancel(Ending.STOPPED, now=True)
    running.cancel(Ending.CANCELLED)
    assert running.poll() is None
    system.go_on()
    wait_until(lambda: running.poll() is not None, 5)
    outcome = running.poll()
    running.close()
    assert outcome is not None
    assert outcome.ending is Ending.STOPPED


def test_a_machine_that_starts_nothing_pauses_the_worker_uncharged(
    spool_dir: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if that turns out in the thread: the jobs go back, none is charged, and they run when it is over.

    Nor does a start that was refused count for the rate of its queue: the next one would wait for an hour.
    """
    Spool(spool_dir).set_queue("mail", rate="2/1h")
    refusing = threading.Event()

    def refuses(way: Callable[..., Any]) -> Callable[..., Any]:
        def start(*args: Any) -> Any:
            if refusing.is_set():
                raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
            return way(*args)

        return start

    monkeypatch.setattr(launcher, "posix_spawn", refuses(posix_spawn.posix_spawn))
    for way in (spawn.spawn, spawn.fast_spawn):
        monkeypatch.setattr(f"queuectl.executor.local.{way.__name__}", refuses(way))
    monkeypatch.setattr("queuectl.worker.upkeep.can_start", lambda: not refusing.is_set())
    said: list[str] = []
    drop_blocked(spool_dir, "first")
    with worker_in_thread(spool_dir, 3, runner=LocalRunner(may_chdir=True), say=said.append):
        wait_until(lambda: len(started(home)) == 1)
        refusing.set()
        for name in names(2):
            support.drop(spool_dir, name, command=STARTED, max_retries=1, queue="mail")
        wait_until(lambda: any(line.startswith("pausing: cannot start a process") for line in said))
        refusing.clear()
        wait_until(lambda: finished(spool_dir, *names(2)))
        release(home, lambda: finished(spool_dir, "first"))
    for name in names(2):
        assert [one["outcome"] for one in load(spool_dir / "done" / f"{name}.json")["history"]] == [
            "succeeded"
        ]
