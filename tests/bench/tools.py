"""What the measurements share: a spool to throw away, workers in it, samples, and a table of them."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

import queuectl
from queuectl import Spool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence


@dataclass(frozen=True)
class Scale:
    """How much is measured.

    Attributes:
        samples: repetitions of what takes milliseconds.
        rounds: repetitions of what takes seconds.
        idle: seconds over which idle workers are watched.
        files: jobs dropped by hand.
        drain: jobs in a drain.
        backlogs: numbers of waiting jobs at which the cost of one is compared.
    """

    samples: int = 60
    rounds: int = 3
    idle: float = 10
    files: int = 100_000
    drain: int = 2000
    backlogs: tuple[int, int] = (1000, 10_000)


TINY = Scale(samples=3, rounds=1, idle=0.3, files=30, drain=20, backlogs=(20, 40))


class Samples:
    """Measured values of one kind, in seconds unless said otherwise."""

    def __init__(self, values: Sequence[float]) -> None:
        self.values = sorted(values)

    @property
    def median(self) -> float:
        """The middle one."""
        return statistics.median(self.values)

    def shown(self, unit: str = "ms") -> list[str]:
        """Median, least, 90 of 100, most: cells of a table."""
        factor = {"s": 1.0, "ms": 1e3, "us": 1e6, "%": 1.0}[unit]
        at_90 = self.values[min(len(self.values) - 1, len(self.values) * 9 // 10)]
        picked = (self.median, self.values[0], at_90, self.values[-1])
        return [f"{value * factor:.2f} {'µs' if unit == 'us' else unit}" for value in picked]


HEADS = ("median", "least", "9 of 10", "most")


def table(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table in Markdown, with its columns aligned for the terminal."""
    every = [list(heads), *[list(row) for row in rows]]
    widths = [max(len(row[column]) for row in every) for column in range(len(heads))]

    def line(row: Sequence[str]) -> str:
        first = row[0].ljust(widths[0])
        rest = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        return "| " + " | ".join([first, *rest]) + " |"

    marks = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    print(f"\n### {title}\n", line(every[0]), "| " + " | ".join(marks) + " |", sep="\n")
    for row in every[1:]:
        print(line(row))
    sys.stdout.flush()


def machine(folder: Path) -> None:
    """Print where this was measured: without that, numbers are rumours."""
    cpu = platform.processor() or platform.machine()
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        cpu = next(line.partition(": ")[2] for line in lines if line.startswith("model name"))
    places = [part for part in psutil.disk_partitions(all=True) if folder.is_relative_to(part.mountpoint)]
    system = max(places, key=lambda part: len(part.mountpoint)).fstype if places else "?"
    memory = psutil.virtual_memory().total / 2**30
    print(
        f"queuectl {queuectl.__version__}, Python {platform.python_version()}, {platform.system()} {platform.release()}"
    )
    print(f"{os.cpu_count()} cores of {cpu}, {memory:.0f} GiB, {system} under {folder}")
    load = ", ".join(f"{value:.2f}" for value in os.getloadavg())
    print(f"{time.strftime('%Y-%m-%d %H:%M')}, load before: {load}")


class Box:
    """A spool in a temporary folder, and its workers."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.path = root / "spool"
        self.spool = Spool(self.path)
        self.spool.refresh()
        self._pids: list[int] = []
        self.environment = {**os.environ, "QUEUECTL_SPOOL": str(self.path), "HOME": str(root)}

    def command(self, *args: str) -> list[str]:
        """The words that run queuectl, as it is installed if it is."""
        program = shutil.which("queuectl", path=os.path.dirname(sys.executable))
        return [program, *args] if program else [sys.executable, "-m", "queuectl", *args]

    def call(self, *args: str) -> float:
        """Run a queuectl command; returns how long it took."""
        return timed(self.command(*args), self.environment)

    def start(self, count: int) -> list[int]:
        """Start background workers; returns their process ids."""
        self.call("worker", "start", "--count", str(count))
        self._pids = [worker.pid for worker in self.spool.workers()]
        return self._pids

    def stop(self) -> None:
        """Stop them all, at once."""
        try:
            self.call("worker", "stop", "--force")
        except subprocess.CalledProcessError:
            for pid in self._pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            raise
        self._pids = []

    def drop(self, name: str, **fields: object) -> int:
        """Rename a job file into pending/; returns the wall clock in nanoseconds just before."""
        scratch = self.path / "tmp" / f".{name}"
        scratch.write_text(json.dumps(fields), encoding="utf-8")
        target = self.path / "pending" / f"{name}.json"
        before = time.time_ns()
        os.rename(scratch, target)
        return before

    def done(self) -> int:
        """How many jobs have ended well."""
        return len(os.listdir(self.path / "done"))

    def record(self, name: str) -> dict[str, str]:
        """A finished job's file."""
        made: dict[str, str] = json.loads((self.path / "done" / f"{name}.json").read_bytes())
        return made

    def wait_for(self, condition: Callable[[], bool], timeout: float = 300) -> None:
        """Look until it holds.

        Raises:
            TimeoutError: it never did.
        """
        end = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > end:
                raise TimeoutError("a measurement did not come to its end")
            time.sleep(0.002)


@contextlib.contextmanager
def box(folder: Path) -> Iterator[Box]:
    """A spool to throw away; at the end its workers and its files are gone."""
    root = Path(tempfile.mkdtemp(prefix="queuectl-bench-", dir=folder))
    try:
        made = Box(root)
        try:
            yield made
        finally:
            made.stop()
    finally:
        shutil.rmtree(root)


def timed(words: Sequence[str], environment: dict[str, str] | None = None) -> float:
    """Run a program with its output thrown away; returns how long it took.

    Raises:
        subprocess.CalledProcessError: it failed, so its time means nothing.
    """
    began = time.perf_counter()
    done = subprocess.run(words, env=environment, check=False, stdin=subprocess.DEVNULL, capture_output=True)
    took = time.perf_counter() - began
    if done.returncode:
        sys.stderr.write(done.stderr.decode(errors="replace"))
        raise subprocess.CalledProcessError(done.returncode, words)
    return took
