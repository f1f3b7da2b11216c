"""A worker that has ended, and whose lock another process still holds, is named together with that process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from queuectl.doctor import doctor
from queuectl.layout import Layout

from support import wait_until

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc to find who holds a lock")

PROGRAM = """
import ctypes, os, signal, sys
from queuectl import Worker
worker = Worker(sys.argv[1])
worker.register()
child = ctypes.CDLL(None).fork()  # as a library does it: Python's own hooks do not run
if child == 0:
    os.close(1)
    signal.pause()
print(child, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_child_that_keeps_the_lock_of_a_dead_worker_is_named(spool_dir: Path) -> None:
    """The worker counted as alive, its jobs were not taken back, and nothing was said to be wrong."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(spool_dir)],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        timeout=30,
    )
    child = int(done.stdout)
    try:
        (finding,) = doctor.examine(Layout(spool_dir))
        assert finding.kind == "kept lock"
        assert f"is held by a process that it started: {child}" in finding.fact
        assert finding.cure.endswith(f"kill {child}")
    finally:
        os.kill(child, signal.SIGKILL)
    wait_until(lambda: doctor.examine(Layout(spool_dir)) == [])
