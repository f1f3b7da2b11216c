"""Peers that are programs of the shell: xargs, GNU parallel, task-spooler, nq, Filespooler."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import subprocess
import time
from typing import TYPE_CHECKING

from .place import wait_for
from .race import WORKERS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

SUBREAPER = 36
"""PR_SET_CHILD_SUBREAPER of prctl(2)."""


class _Program:
    """What they share.

    Attributes:
        program: what must be on the PATH.
    """

    program = ""
    runs = True
    most = 1_000_000

    def missing(self) -> str:
        """The program, if it is not on the PATH."""
        return "" if shutil.which(self.program) else self.program

    def close(self, root: Path) -> None:
        """Nothing of it outlives its work."""


class Xargs(_Program):
    """`xargs -P2 sh -c`: the floor, which keeps no books."""

    name = "xargs -P2 sh -c"
    records = "nothing"
    durable = "takes none"
    client = ""
    program = "xargs"

    def hand(self, root: Path, commands: Sequence[str]) -> float:
        """A file of lines."""
        (root / "lines").write_text("".join(f"{text}\n" for text in commands), encoding="utf-8")
        return 0.0

    def words(self, root: Path) -> list[str]:
        """The command line; its own files, if it has any, lie under `root`."""
        del root
        return ["xargs", f"-P{WORKERS}", "-d", "\n", "-n1", "sh", "-c"]

    def work(self, root: Path) -> None:
        """Run the lines."""
        with open(root / "lines", "rb") as lines, open(root / "output", "wb") as output:
            environment = os.environ | {"PARALLEL_SHELL": "/bin/sh", "HOME": str(root)}
            subprocess.run(
                self.words(root), stdin=lines, stdout=output, stderr=output, env=environment, check=True
            )


class Parallel(Xargs):
    """GNU parallel with its record of jobs."""

    name = "parallel -j2 --joblog"
    records = "exit code, start, run time, in one log"
    program = "parallel"

    def words(self, root: Path) -> list[str]:
        """Lines are run by /bin/sh, as everywhere here."""
        return ["parallel", f"-j{WORKERS}", "--will-cite", "--joblog", str(root / "log")]


class ParallelResults(Parallel):
    """The same, and each job's output in files of its own."""

    name = "parallel -j2 --joblog --results"
    records = "exit code, start, run time, in one log; output in files a job"

    def words(self, root: Path) -> list[str]:
        """Likewise."""
        return [*super().words(root), "--results", str(root / "results")]


class TaskSpooler(_Program):
    """task-spooler, its queue held up by two gates until all jobs are in it."""

    name = "task-spooler (tsp -S 2)"
    records = (
        "exit code, times, in the memory of its server; output in a file a job (a process waits for each job)"
    )
    durable = "nothing"
    client = "a program a job"
    program = "tsp"
    most = 800  # a process and a connection wait for each job; it selects over them, so under 1024

    def hand(self, root: Path, commands: Sequence[str]) -> float:
        """One `tsp` after the other."""
        environment = self._environment(root)
        _adopt_orphans()
        gate = f"until [ -e {root}/open ]; do sleep 0.02; done"
        for _ in range(WORKERS):
            self._tsp(environment, "sh", "-c", gate)
        began = time.perf_counter()
        for text in commands:
            self._tsp(environment, "sh", "-c", text)
        return time.perf_counter() - began

    def work(self, root: Path) -> None:
        """Open the gates, and ask now and then whether a job is left."""
        environment = self._environment(root)
        (root / "open").touch()
        wait_for(lambda: not self._waiting(environment), pause=0.2)

    def close(self, root: Path) -> None:
        """End its server."""
        (root / "open").touch()
        self._tsp(self._environment(root), "-K")
        _reap()

    def _environment(self, root: Path) -> dict[str, str]:
        mine = {
            "TS_SOCKET": str(root / "socket"),
            "TMPDIR": str(root),
            "TS_SLOTS": str(WORKERS),
            "TS_MAXFINISHED": "2000",
        }
        return os.environ | mine

    def _tsp(self, environment: Mapping[str, str], *words: str) -> None:
        quiet = subprocess.DEVNULL
        subprocess.run(
            ["tsp", *words], env=environment, stdin=quiet, stdout=quiet, stderr=quiet, check=False, timeout=60
        )

    def _waiting(self, environment: Mapping[str, str]) -> bool:
        listed = subprocess.run(
            ["tsp", "-l"], env=environment, capture_output=True, text=True, check=True, timeout=60
        )
        return any(word in listed.stdout for word in (" queued ", " running "))


class Nq(_Program):
    """nq, which runs one job at a time: two queues, each held up by a gate until all jobs are in it."""

    name = "nq, two queues"
    records = "command, exit code, output, in a file a job (a process waits for each job)"
    durable = "the file with the command, by the process that waits"
    client = "a program a job"
    program = "nq"
    most = 800  # each waiting job is a process that waits for every job before it

    def hand(self, root: Path, commands: Sequence[str]) -> float:
        """One `nq` after the other, dealt out to the queues."""
        _adopt_orphans()
        queues = [os.environ | {"NQDIR": str(root / f"nq{number}")} for number in range(WORKERS)]
        for queue in queues:
            self._nq(queue, f"until [ -e {root}/open ]; do sleep 0.02; done")
        began = time.perf_counter()
        for number, text in enumerate(commands):
            self._nq(queues[number % WORKERS], text)
        return time.perf_counter() - began

    def work(self, root: Path) -> None:
        """Open the gates and wait for all."""
        (root / "open").touch()
        for number in range(WORKERS):
            subprocess.run(
                ["nq", "-w"], env=os.environ | {"NQDIR": str(root / f"nq{number}")}, check=True, timeout=300
            )

    def close(self, root: Path) -> None:
        """Let what waits run out."""
        (root / "open").touch()
        _reap()

    def _nq(self, environment: Mapping[str, str], text: str) -> None:
        subprocess.run(
            ["nq", "-q", "sh", "-c", text], env=environment, stdin=subprocess.DEVNULL, check=True, timeout=60
        )


class Filespooler(_Program):
    """Filespooler, which works a queue off one after the other: two queues, a process for each."""

    name = "Filespooler (fspl), two queues"
    records = "nothing: the file of a job that went well is deleted; output is passed on"
    durable = "the file, not the folder"
    client = "two programs a job"
    program = "fspl"

    def hand(self, root: Path, commands: Sequence[str]) -> float:
        """`fspl prepare | fspl queue-write`, one after the other, dealt out to the queues."""
        for number in range(WORKERS):
            subprocess.run(["fspl", "queue-init", "-q", str(root / f"queue{number}")], check=True)
        began = time.perf_counter()
        for number, text in enumerate(commands):
            mine = number % WORKERS
            prepare = ["fspl", "prepare", "-s", str(root / f"sequence{mine}"), "--", text]
            with subprocess.Popen(prepare, stdout=subprocess.PIPE) as made:
                subprocess.run(
                    ["fspl", "queue-write", "-q", str(root / f"queue{mine}")], stdin=made.stdout, check=True
                )
        return time.perf_counter() - began

    def work(self, root: Path) -> None:
        """A processor for each queue; it ends when the queue is empty."""
        with contextlib.ExitStack() as stack:
            running = []
            for number in range(WORKERS):
                output = stack.enter_context(open(root / f"output{number}", "wb"))
                words = ["fspl", "--log-level", "error", "queue-process", "-q", str(root / f"queue{number}")]
                words += ["--allow-job-params", "/bin/sh", "--", "-c"]
                running.append(stack.enter_context(subprocess.Popen(words, stdout=output, stderr=output)))
            for process in running:
                if process.wait(timeout=300):
                    raise RuntimeError("fspl queue-process failed")


def _adopt_orphans() -> None:
    """Become the parent of what these programs leave behind, or each job stays as a zombie where init reaps none."""
    ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0)


def _reap() -> None:
    end = time.monotonic() + 60
    with contextlib.suppress(ChildProcessError):
        while time.monotonic() < end:
            if not os.waitpid(-1, os.WNOHANG)[0]:
                time.sleep(0.02)
