"""Jobs that run until a test lets all of them end at once, and workers for them."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import psutil

from queuectl import Worker
from queuectl.storage import settle as settling
from queuectl.worker import settle_batch

import support
from support import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import pytest

STARTED = 'echo x >> "$HOME/$QUEUECTL_JOB_ID.started"'
BLOCKED = f'{STARTED}; cat "$HOME/gate"'
"""Runs until somebody opens the gate and closes it, see `release`."""


def home_with_gate(spool_dir: Path) -> Path:
    """The home of the jobs, with the gate in it."""
    home = spool_dir.parent / "home"
    os.mkfifo(home / "gate")
    return home


@contextmanager
def worker_in_thread(spool_dir: Path, concurrency: int | None = None, **options: Any) -> Iterator[Worker]:
    """A worker in this process; it is stopped by force at the end."""
    worker = Worker(spool_dir, concurrency=concurrency, **options)
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        yield worker
    finally:
        worker.stop(force=True)
        thread.join(30)


@contextmanager
def worker_process(spool_dir: Path, *words: str) -> Iterator[psutil.Popen]:
    command = [sys.executable, "-m", "queuectl", "worker", "start", "--foreground", *words]
    process = psutil.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/")
    try:
        yield process
    finally:
        support.end_workers(spool_dir)
        process.wait(20)
        process.poll()  # end_workers may have taken its exit code; else its deletion warns that it runs


def started(home: Path) -> dict[str, int]:
    """How often each job has begun."""
    return {path.stem: path.read_text().count("x") for path in home.glob("*.started")}


def release(home: Path, done: Callable[[], object]) -> None:
    """Let all blocked jobs end, those as well that have not opened the gate yet."""

    def look() -> object:
        with suppress(OSError):  # nobody waits there now
            os.close(os.open(home / "gate", os.O_WRONLY | os.O_NONBLOCK))
        return done()

    wait_until(look, 30)


def drop_blocked(spool_dir: Path, *names: str, **fields: Any) -> None:
    for name in names:
        support.drop(spool_dir, name, command=BLOCKED, **{"timeout": 0, "max_retries": 1} | fields)


class FullDisk:
    """Refuses the outcomes of some jobs, or of all, until it has room again.

    Args:
        refused: the ids of the jobs; none for all.

    Attributes:
        tries: how often an outcome was refused, those recorded together counted as one.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *refused: str) -> None:
        self.tries = 0
        self._refused, self._has_room = refused, threading.Event()
        monkeypatch.setattr(settle_batch, "settle_all", self._settle_all)

    def _settle_all(self, storage: Any, claims: Any, *args: Any, **options: Any) -> Any:
        bad = not self._refused or any(claim.job.id in self._refused for claim in claims)
        if bad and not self._has_room.is_set():
            self.tries += 1
            raise OSError(28, "no space left on device")
        return settling.settle_all(storage, claims, *args, **options)

    def make_room(self) -> None:
        """Take all outcomes from now on."""
        self._has_room.set()


def names(number: int) -> list[str]:
    return [f"job{place}" for place in range(number)]
