"""queuectl itself."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from queuectl import Spool

from .place import plain_environment, timed, wait_for
from .race import WORKERS

if TYPE_CHECKING:
    from collections.abc import Sequence

EVERYTHING = "state, exit code, output, times, attempts, worker, in a file a job"


def command(*args: str) -> list[str]:
    """The words that run queuectl, as it is installed if it is."""
    program = shutil.which("queuectl", path=str(Path(sys.executable).parent))
    return [program, *args] if program else [sys.executable, "-m", "queuectl", *args]


class InProcess:
    """Jobs handed over by `Spool.enqueue`, worked off by background workers."""

    name = "queuectl"
    records = EVERYTHING
    durable = "file and folder"
    client = "Python"
    runs = True
    most = 1_000_000

    def missing(self) -> str:
        """It is here, or this would not run."""
        return ""

    def hand(self, root: Path, commands: Sequence[str]) -> float:
        """One durable `enqueue` after the other, in one process."""
        spool = Spool(root / "spool")
        spool.refresh()
        began = time.perf_counter()
        for text in commands:
            spool.enqueue(text)
        return time.perf_counter() - began

    def work(self, root: Path) -> None:
        """Start background workers that leave when nothing is left to do."""
        spool = Spool(root / "spool")
        spool.workers()  # the first look imports what it needs, which would take a core away from the jobs
        self._call(root, "worker", "start", "--drain", "--count", str(WORKERS))
        # Looking costs the machine something, so not often: the marks among the jobs tell the time.
        wait_for(lambda: not spool.workers(), pause=0.3)

    def close(self, root: Path) -> None:
        """Stop what still runs."""
        if Spool(root / "spool").workers():
            self._call(root, "worker", "stop", "--force")

    def _call(self, root: Path, *args: str) -> float:
        return timed(command(*args), plain_environment(QUEUECTL_SPOOL=str(root / "spool"), HOME=str(root)))


class ByCommand(InProcess):
    """The same, handed over by the command line."""

    name = "queuectl enqueue"
    client = "a program a job"
    runs = False
    most = 60

    def hand(self, root: Path, commands: Sequence[str]) -> float:
        """One `queuectl enqueue` after the other."""
        environment = plain_environment(QUEUECTL_SPOOL=str(root / "spool"), HOME=str(root))
        self._call(root, "status")
        began = time.perf_counter()
        for text in commands:
            subprocess.run(command("enqueue", text), env=environment, stdout=subprocess.DEVNULL, check=True)
        return time.perf_counter() - began
