"""Where it is measured: the machine, and spools to throw away."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

import queuectl
from queuectl import Spool
from queuectl.job import times

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

_used: list[Path] = []


def folder_in(folder: Path) -> Path:
    """A new folder, which goes when all has been measured: deleted files make every create slow for minutes."""
    made = Path(tempfile.mkdtemp(prefix="queuectl-bench-", dir=folder))
    _used.append(made)
    return made


def clear_up() -> None:
    """Delete all that was used."""
    while _used:
        shutil.rmtree(_used.pop(), ignore_errors=True)  # those on an image went with it


def machine(folder: Path) -> None:
    """Print where this was measured: without that, numbers are rumours."""
    cpu = platform.processor() or platform.machine()
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        cpu = next(line.partition(": ")[2] for line in lines if line.startswith("model name"))
    memory = psutil.virtual_memory().total / 2**30
    system = f"{platform.system()} {platform.release()}"
    versions = f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}"
    print(f"queuectl {queuectl.__version__}{_commit()}, {versions}, {system}")
    print(f"{os.cpu_count()} cores of {cpu}, {memory:.0f} GiB, {_disk(folder)} under {folder}")
    load = ", ".join(f"{value:.2f}" for value in os.getloadavg())
    print(f"{time.strftime('%Y-%m-%d %H:%M')}, load before: {load}", flush=True)


def _commit() -> str:
    words = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return f" ({done.stdout.strip()})"


def _disk(folder: Path) -> str:
    places = [part for part in psutil.disk_partitions(all=True) if folder.is_relative_to(part.mountpoint)]
    if not places:
        return "an unknown file system"
    part = max(places, key=lambda part: len(part.mountpoint))
    if part.fstype != "ext4":
        return part.fstype
    journals = Path("/proc/fs/jbd2").glob(f"{Path(part.device).name}-*")
    return "ext4 with a journal" if any(journals) else "ext4 without a journal"


def plain_environment(**more: str) -> dict[str, str]:
    """Ours, but compiled modules are kept, as they are wherever no developer has forbidden it."""
    return {name: text for name, text in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"} | more


class Box:
    """A spool in a folder of its own, and its workers."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.path = root / "spool"
        self.spool = Spool(self.path)
        self.spool.refresh()
        self.pids: list[int] = []
        self.environment = plain_environment(QUEUECTL_SPOOL=str(self.path), HOME=str(root))

    def command(self, *args: str) -> list[str]:
        """The words that run queuectl, as it is installed if it is."""
        program = shutil.which("queuectl", path=os.path.dirname(sys.executable))
        return [program, *args] if program else [sys.executable, "-m", "queuectl", *args]

    def call(self, *args: str) -> float:
        """Run a queuectl command; returns how long it took."""
        return timed(self.command(*args), self.environment)

    def start(self, count: int, *options: str) -> list[int]:
        """Start background workers, with more options of `worker start`; returns their process ids."""
        self.call("worker", "start", "--count", str(count), *options)
        self.pids = [worker.pid for worker in self.spool.workers()]
        return self.pids

    def stop(self) -> None:
        """Stop them all, at once."""
        if not self.pids:
            return
        try:
            self.call("worker", "stop", "--force")
        except subprocess.CalledProcessError:
            for pid in self.pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            raise
        self.pids = []

    def drop(self, name: str, **fields: object) -> int:
        """Rename a job file into pending/; returns the wall clock in nanoseconds just before."""
        scratch = self.path / "tmp" / f".{name}"
        scratch.write_text(json.dumps(fields), encoding="utf-8")
        target = self.path / "pending" / f"{name}.json"
        before = time.time_ns()
        os.rename(scratch, target)
        return before

    def done(self) -> set[str]:
        """The files of jobs that have ended well."""
        return set(os.listdir(self.path / "done"))

    def record(self, name: str) -> dict[str, str]:
        """A finished job's file."""
        made: dict[str, str] = json.loads((self.path / "done" / f"{name}.json").read_bytes())
        return made

    def hand_over(self, count: int, **fields: object) -> float:
        """Enqueue so many `true`, durably; returns the seconds it took."""
        one = {"command": "true", **fields}
        began = time.perf_counter()
        for _ in self.spool.enqueue_stream(one for _ in range(count)):
            pass
        return time.perf_counter() - began

    def work_off(self, *, workers: int, jobs: int) -> float:
        """Seconds from the first start to the end of the job that ends as the jobs-th; the start of workers is no part."""
        before = self.done()
        self.start(workers)
        wait_for(lambda: len(self.done()) >= len(before) + jobs, pause=0.05)
        self.stop()
        return self.took(self.done() - before, jobs)

    def took(self, names: set[str], jobs: int) -> float:
        """The same, from the records of jobs that have ended."""
        records = [self.record(name.removesuffix(".json")) for name in names if name.endswith(".json")]
        first = min(times.parse_moment(record["started_at"]) for record in records)
        ends = sorted(times.parse_moment(record["finished_at"]) for record in records)
        return ends[jobs - 1] - first


@contextlib.contextmanager
def box(folder: Path) -> Iterator[Box]:
    """A spool to throw away; at the end its workers are gone."""
    made = Box(folder_in(folder))
    try:
        yield made
    finally:
        made.stop()


def wait_for(condition: Callable[[], bool], timeout: float = 300, pause: float = 0.002) -> None:
    """Look until it holds, every `pause` seconds.

    Raises:
        TimeoutError: it never did.
    """
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"a measurement did not come to its end in {timeout:g} s")
        time.sleep(pause)


def timed(words: Sequence[str], environment: Mapping[str, str] | None = None) -> float:
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


def bare_python(environment: Mapping[str, str]) -> float:
    """What any program in Python costs: `python -c pass`."""
    return timed([sys.executable, "-c", "pass"], environment)
