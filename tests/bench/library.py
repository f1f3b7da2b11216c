"""Peers that are libraries of Python: huey, rq, celery, persist-queue, dirq."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from . import install
from .place import plain_environment, wait_for
from .race import WORKERS
from .redis_server import Redis

if TYPE_CHECKING:
    from collections.abc import Sequence

TOP = Path(__file__).parents[2]


class _Library:
    """What they share.

    Attributes:
        library: the module to import.
        side: our module that hands over.
        kind: which storage.
    """

    library = ""
    side = ""
    kind = ""
    client = "Python"
    runs = True
    most = 1_000_000

    def missing(self) -> str:
        """The library, if the peers' environment has it not."""
        return "" if install.has(self.library) else f"{self.library} (python -m tests.bench setup)"

    def environment(self, root: Path) -> dict[str, str]:
        """Where its side finds its things."""
        return plain_environment(PYTHONPATH=str(TOP), BENCH_FOLDER=str(root), BENCH_KIND=self.kind)

    def hand(self, root: Path, commands: Sequence[str]) -> float:
        """One after the other, in a process of its own; its start is no part."""
        words = [install.program("python"), "-m", f"tests.bench.sides.{self.side}"]
        lines = "".join(f"{text}\n" for text in commands)
        environment = self.environment(root)
        handed = subprocess.run(
            words, input=lines, env=environment, stdout=subprocess.PIPE, text=True, check=True, timeout=300
        )
        return float(handed.stdout)

    def work(self, root: Path) -> None:
        """Nothing: it only keeps."""

    def close(self, root: Path) -> None:
        """Nothing runs."""

    def worked(self, root: Path, *commands: list[str], over: signal.Signals | None = None) -> None:
        """Run these workers until they end by themselves, or until all is done and this signal ends them."""
        with contextlib.ExitStack() as stack:
            told = stack.enter_context(open(root / "told", "wb"))
            running = []
            for words in commands:
                process = subprocess.Popen(
                    words,
                    env=self.environment(root),
                    cwd=root,
                    stdin=subprocess.DEVNULL,
                    stdout=told,
                    stderr=told,
                )
                stack.callback(_end, process)
                running.append(process)
            if over:
                wait_for(lambda: self.done(root), pause=0.2)
                for process in running:
                    process.send_signal(over)
            for process in running:
                process.wait(timeout=300)

    def done(self, root: Path) -> bool:
        """Whether the last jobs have been run."""
        stamps, ran = root / "stamps", root / "ran"
        if ran.exists():
            return len(ran.read_bytes().split()) == 10
        return stamps.exists() and len(stamps.read_bytes().split()) == 4


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.kill()
        process.wait()


class HueySqlite(_Library):
    """huey in SQLite, two threads: its own advice when in doubt, and here faster than processes."""

    name = "huey, SQLite, threads"
    records = "result in its database (here exit code and output)"
    durable = "its write-ahead log"
    library = "huey"
    side = "on_huey"
    kind = "sqlite"

    def work(self, root: Path) -> None:
        """Its consumer, asking often."""
        queue = f"tests.bench.sides.{self.side}.queue"
        words = [install.program("huey_consumer"), queue, "-w", str(WORKERS), "-k", "thread"]
        self.worked(root, [*words, "-d", "0.01", "-m", "0.05", "-n", "-q"], over=signal.SIGINT)


class HueyFile(HueySqlite):
    """huey in files."""

    name = "huey, files, threads"
    records = "result in a file (here exit code and output)"
    durable = "nothing"
    kind = "file"


class _OnRedis(_Library):
    """With a Redis server from before the first job until after the last."""

    synced = False
    _server: Redis | None = None

    def missing(self) -> str:
        """The library, or the server."""
        return super().missing() or ("" if shutil.which("redis-server") else "redis-server")

    def environment(self, root: Path) -> dict[str, str]:
        """With the server's address."""
        server = self._server or Redis(root, synced=self.synced)
        self._server = server
        return super().environment(root) | {"BENCH_URL": server.url}

    def close(self, root: Path) -> None:
        """Stop the server."""
        del root
        if self._server:
            self._server.stop()
            self._server = None


class RqSimple(_OnRedis):
    """rq with workers that do not fork."""

    name = "rq, Redis, SimpleWorker"
    records = "state, times, result in Redis, for 500 s (here exit code and output)"
    durable = "a snapshot within a minute or an hour"
    library = "rq"
    side = "on_rq"
    kind = "redis"
    worker = "rq.worker.SimpleWorker"

    def work(self, root: Path) -> None:
        """Two workers that end when the queue is empty."""
        assert self._server
        words = [install.program("rq"), "worker", "--burst", "--quiet", "--url", self._server.url]
        self.worked(root, *[[*words, "-w", self.worker] for _ in range(WORKERS)])


class RqFork(RqSimple):
    """rq as it comes."""

    name = "rq, Redis, a fork a job"
    worker = "rq.worker.Worker"


class RqSynced(RqSimple):
    """rq with a Redis that syncs each write."""

    name = "rq, Redis synced, SimpleWorker"
    durable = "its append-only file"
    synced = True


class CeleryRedis(_OnRedis):
    """celery with its pool of processes."""

    name = "celery, Redis, prefork"
    records = "state, result in Redis, for a day (here exit code and output)"
    durable = "a snapshot within a minute or an hour"
    library = "celery"
    side = "on_celery"
    kind = "redis"
    pool = "prefork"

    def work(self, root: Path) -> None:
        """A worker that runs two at a time, without what only clusters need."""
        words = [
            install.program("celery"),
            "-A",
            f"tests.bench.sides.{self.side}",
            "worker",
            "-c",
            str(WORKERS),
        ]
        words += ["-P", self.pool, "--prefetch-multiplier", "16", "--loglevel", "error"]
        words += ["--without-gossip", "--without-mingle", "--without-heartbeat"]
        self.worked(root, words, over=signal.SIGTERM)


class CeleryThreads(CeleryRedis):
    """celery with threads."""

    name = "celery, Redis, threads"
    pool = "threads"


class CeleryFiles(CeleryRedis):
    """celery with messages and results in files."""

    name = "celery, files, prefork"
    records = "message and result in files (here exit code and output)"
    durable = "nothing"
    kind = "file"

    def missing(self) -> str:
        """Only the library."""
        return _Library.missing(self)

    def environment(self, root: Path) -> dict[str, str]:
        """With its folders."""
        for name in ("messages", "processed", "control", "results"):
            os.makedirs(root / name, exist_ok=True)
        return _Library.environment(self, root)


class PersistQueueFile(_Library):
    """persist-queue in files."""

    name = "persist-queue, files"
    records = "runs nothing"
    durable = "nothing until a hundred are in a file"
    library = "persistqueue"
    side = "keep"
    kind = "files"
    runs = False


class PersistQueueSqlite(PersistQueueFile):
    """persist-queue in SQLite."""

    name = "persist-queue, SQLiteAckQueue"
    durable = "its write-ahead log"
    kind = "sqlite"


class Dirq(PersistQueueFile):
    """dirq."""

    name = "dirq, QueueSimple"
    durable = "nothing"
    library = "dirq"
    kind = "dirq"
