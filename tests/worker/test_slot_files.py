"""How many files a worker has open for its runs, and what follows when it may open few."""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import gate
import psutil
import pytest
from gate import drop_blocked, names, release, started, worker_process

from queuectl import Spool

import support
from support import finished, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Cli = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits of a process are Linux's")

FEW = (
    "import resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64)); "
    "from queuectl.cli import main; sys.exit(main())"
)


@pytest.fixture
def home(spool_dir: Path) -> Path:
    return gate.home_with_gate(spool_dir)


@contextmanager
def worker_with_few_files(spool_dir: Path, *words: str) -> Iterator[None]:
    command = [sys.executable, "-c", FEW, "worker", "start", "--foreground", *words]
    process = psutil.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        support.end_workers(spool_dir)
        process.wait(20)


def concurrency(spool_dir: Path) -> int | None:
    found = Spool(spool_dir).workers()
    return found[0].concurrency if found else None


def test_a_changed_number_does_not_count_the_files_of_runs_twice(
    spool_dir: Path, home: Path, cli: Cli
) -> None:
    cli("config", "set", "concurrency", "8", expect=0)
    drop_blocked(spool_dir, *names(12))
    with worker_with_few_files(spool_dir):
        wait_until(lambda: len(started(home)) == 8)
        cli("config", "set", "concurrency", "7", expect=0)
        wait_until(lambda: concurrency(spool_dir) != 8)
        assert concurrency(spool_dir) == 7
        cli("config", "set", "concurrency", "9", expect=0)
        wait_until(lambda: concurrency(spool_dir) != 7)
        assert concurrency(spool_dir) == 9
        wait_until(lambda: len(started(home)) == 9)
        release(home, lambda: finished(spool_dir, *names(12)))
    assert set(started(home).values()) == {1}


def test_the_number_that_is_offered_is_the_number_that_run(spool_dir: Path) -> None:
    command = [sys.executable, "-c", FEW, "worker", "start", "--foreground", "--drain", "-j", "500"]
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert refused.returncode == 3
    number = int(refused.stderr.split("--concurrency ")[1].split()[0])
    assert number > 1
    with worker_with_few_files(spool_dir, "-j", str(number)):
        wait_until(lambda: (concurrency(spool_dir) or 1) > 1)
        assert concurrency(spool_dir) == number


def test_fewer_slots_keep_no_files_of_the_others(spool_dir: Path, home: Path, cli: Cli) -> None:
    cli("config", "set", "concurrency", "30", expect=0)
    drop_blocked(spool_dir, *names(30))
    with worker_process(spool_dir):
        wait_until(lambda: len(started(home)) == 30)
        release(home, lambda: finished(spool_dir, *names(30)))
        worker = psutil.Process(Spool(spool_dir).workers()[0].pid)
        assert worker.num_fds() > 60
        cli("config", "set", "concurrency", "2", expect=0)
        wait_until(lambda: worker.num_fds() < 40)
        support.drop(spool_dir, "next", command="echo x")
        wait_until(lambda: finished(spool_dir, "next"))
