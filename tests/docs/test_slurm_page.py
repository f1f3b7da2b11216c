"""The page about Slurm, typed in on a cluster: its sessions belong together, and are run in order in one home."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import real_slurm
from documents import TOP, blocks

import support

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Slurm runs on Linux")

PROGRAM = TOP / "tests" / "as_dispatcher.py"
"""Stands for queuectl. A dispatcher refuses root, which tests may be: their nodes are this machine."""

FOLDER = "/shared/queuectl"
"""The folder in the sessions. The test has another one."""


def steps(session: str) -> list[tuple[str, str]]:
    """Split a session into pairs: what is typed after `$ `, and the output below it."""
    parts = re.findall(r"^\$ (.*\n)((?:(?!\$ ).*\n)*)", session, flags=re.MULTILINE)
    return [(typed, shown) for typed, shown in parts]


def like(shown: str) -> str:
    """A pattern for shown output: … stands for anything in a line."""
    return ".*".join(re.escape(part) for part in shown.strip().split("…"))


@pytest.mark.timeout(180)
def test_the_sessions_on_a_cluster_print_what_is_shown(
    tmp_path: Path, spool_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    share = tmp_path / "share"
    share.mkdir(mode=0o700)
    home = spool_dir.parent / "home"
    monkeypatch.delenv("QUEUECTL_SPOOL")
    program = tmp_path / "bin" / "queuectl"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {PROGRAM} "$@"\n')
    program.chmod(0o755)
    path = f"{program.parent}:/usr/local/bin:/usr/bin:/bin"
    found = blocks("console on-a-cluster")
    assert found
    with real_slurm.started(tmp_path / "c"):
        monkeypatch.setenv("PATH", path)
        try:
            for block in found:
                for typed, shown in steps(block.text.replace(FOLDER, str(share))):
                    done = subprocess.run(
                        ["bash", "-c", typed], cwd=home, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                        stderr=subprocess.STDOUT, text=True, check=False, timeout=60,
                    )  # fmt: skip
                    assert re.fullmatch(like(shown), done.stdout.strip()), f"$ {typed}{done.stdout}"
        finally:
            support.end_workers(home / ".queuectl")
