"""Users copy the example producers, which enqueue jobs without queuectl: each of them keeps the contract."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from queuectl.layout import Layout

from support import drain, load

if TYPE_CHECKING:
    from collections.abc import Callable

    Cli = Callable[..., subprocess.CompletedProcess[str]]

FOLDER = Path(__file__).parents[2] / "spool_example" / "producers"
PRODUCERS = {
    "producer.sh": ["sh"],
    "producer.py": [sys.executable, "-I", "-S", "-W", "error"],
    "producer.mjs": ["node"],
}
NASTY = "printf '%s\\n' \"a 'b' \\\\ ä\" > \"out put\""


def call(name: str, *words: str) -> list[str]:
    """The command line of a producer; skips the test where its language is not installed."""
    program, *options = PRODUCERS[name]
    if not shutil.which(program):
        pytest.skip(f"{program} is not installed")
    return [program, *options, str(FOLDER / name), *words]


@pytest.fixture
def here(spool_dir: Path) -> Path:
    """A folder with blanks and quotes in its name, in which producers are called; the spool exists."""
    Layout(spool_dir).create()
    folder = spool_dir.parent / 'my "folder'
    folder.mkdir()
    return folder


def test_each_producer_is_tested_and_named() -> None:
    """Each producer is run by these tests and named in the README of the example."""
    readme = (FOLDER.parent / "README.md").read_text(encoding="utf-8")

    assert {path.name for path in FOLDER.iterdir()} == {*PRODUCERS, "steps-in-c.txt"}
    assert [path.name for path in FOLDER.iterdir() if f"`producers/{path.name}`" not in readme] == []


@pytest.mark.parametrize("name", PRODUCERS)
def test_producer_leaves_one_whole_job_that_runs(cli: Cli, spool_dir: Path, here: Path, name: str) -> None:
    """The given command runs in the folder of the call; nothing is left in tmp/, and the file is private."""
    words = [NASTY] if name == "producer.sh" else ["sh", "-c", NASTY]
    done = subprocess.run(
        call(name, *words), cwd=here, check=True, capture_output=True, text=True, timeout=20
    )
    job_id = done.stdout.strip()
    (path,) = (spool_dir / "pending").iterdir()

    assert path.name == f"{job_id}.json"
    assert path.stat().st_mode & 0o777 == 0o600
    assert list((spool_dir / "tmp").iterdir()) == []
    assert ": ok - " in cli("check", path, expect=0).stdout
    drain(spool_dir)
    assert load(spool_dir / "done" / f"{job_id}.json")["command"] == (words[0] if len(words) == 1 else words)
    assert (here / "out put").read_text() == "a 'b' \\ ä\n"


@pytest.mark.parametrize("name", PRODUCERS)
def test_producer_syncs_before_and_after_it_gives_the_name(spool_dir: Path, here: Path, name: str) -> None:
    """The file is synced, then named, then the folder is synced. In another order a power cut leaves half a job or none."""
    if not shutil.which("strace"):
        pytest.skip("strace is not installed")
    trace = spool_dir.parent / "trace"
    watch = [
        "strace",
        "-f",
        "-qq",
        "-y",
        "-o",
        str(trace),
        "-e",
        "trace=fsync,fdatasync,link,linkat,rename,renameat2",
    ]
    subprocess.run([*watch, *call(name, "true")], cwd=here, check=True, capture_output=True, timeout=40)
    steps = []
    for line in trace.read_text().splitlines():
        call_name, _, rest = re.sub(r"^\d+ +", "", line).partition("(")
        if str(spool_dir) in rest and not rest.rstrip().endswith("?"):
            kind = "sync" if "sync" in call_name else "name"
            steps.append(f"{kind} {'pending' if '/pending' in rest else 'tmp'}")

    assert steps == ["sync tmp", "name pending", "sync pending"]


@pytest.mark.parametrize("name", PRODUCERS)
def test_producer_fails_loudly_without_a_spool(spool_dir: Path, tmp_path: Path, name: str) -> None:
    """When a producer cannot enqueue the job, it says so and fails."""
    env = {**os.environ, "QUEUECTL_SPOOL": str(tmp_path / "none")}
    done = subprocess.run(
        call(name, "true"), env=env, check=False, capture_output=True, text=True, timeout=20
    )

    assert (done.returncode != 0, done.stdout) == (True, "")
