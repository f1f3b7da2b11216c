"""A throw-away Slurm cluster on loopback: one controller and three nodes of four processors, see slurm_cluster/."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

CLUSTER = Path(__file__).parent / "slurm_cluster" / "testcluster.sh"


@contextmanager
def started(folder: Path) -> Iterator[Path]:
    """Start a cluster whose files are in this folder, and set SLURM_CONF; end it afterwards.

    Without Slurm the test is skipped. With QUEUECTL_MUST_SLURM it fails.
    """
    if not shutil.which("slurmctld"):
        if os.environ.get("QUEUECTL_MUST_SLURM"):
            pytest.fail("slurmctld is missing")
        pytest.skip("Slurm is not installed")
    knobs = {**os.environ, "QT_PORT": str(_free_ports(4)), "QT_MINJOBAGE": "10"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
        try:
            subprocess.run([CLUSTER, "start", folder, "3", "4"], env=knobs, check=True, timeout=60)
            yield folder
        finally:
            subprocess.run([CLUSTER, "stop", folder], check=False, timeout=60)


def _free_ports(number: int) -> int:
    """The first of so many free ports in a row, below those that the kernel gives to connections."""
    for first in range(20000 + os.getpid() % 12000, 32700, number):
        taken = False
        for port in range(first, first + number):
            with socket.socket() as probe:
                taken |= probe.connect_ex(("127.0.0.1", port)) == 0
        if not taken:
            return first
    raise AssertionError("no free ports")
