"""The measurements run and print their tables; what they measure is nobody's promise here."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import faults
import pytest

import support

pytestmark = pytest.mark.slow
"""They take a minute of two processors, and change only with the measurements themselves."""

TOP = Path(__file__).parents[2]
ROWS = {
    "drain": 12,
    "sleepers": 2,
    "concurrency": 11,
    "latency": 8,
    "enqueue": 5,
    "python": 4,
    "idle": 2,
    "dropped": 6,
    "flood": 5,
    "bulk": 5,
    "verbs": 9,
    "queues": 4,
    "dependencies": 6,
    "rules": 6,
    "files-and-hooks": 5,
    "growth": 12,
    "reports": 9,
    "web": 26,
    **({"slurm": 8} if shutil.which("slurmctld") else {}),
}
PATIENCE = 180
"""Seconds. A cluster and four dispatchers start one after the other, beside other tests."""

PEERS = ("parallel", "task-spooler", "nq", "Filespooler", "huey", "rq", "celery", "persist-queue", "dirq")


def bench(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`python -m tests.bench --tiny` with its spools in this folder."""
    return subprocess.run(
        [sys.executable, "-m", "tests.bench", "--tiny", "--dir", str(folder), *words],
        cwd=TOP,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE - 5,
    )


def tables(told: str) -> dict[str, list[list[str]]]:
    """Each table of it: its heading, and the cells of its rows."""
    found: dict[str, list[list[str]]] = {}
    for part in told.split("\n### ")[1:]:
        heading, *lines = part.splitlines()
        rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines if line.startswith("|")]
        assert len({len(row) for row in rows}) == 1
        found[heading] = [[cell.strip() for cell in row] for row in rows[2:]]
    return found


@pytest.mark.timeout(PATIENCE)
@pytest.mark.parametrize("name", ROWS)
def test_measurement_prints_its_table_and_cleans_up(name: str, tmp_path: Path) -> None:
    """With tiny numbers: a heading, its rows, where it was measured; no file and no process stays behind."""
    done = bench(tmp_path, name)

    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("queuectl ")
    assert "under" in lines[1]
    assert sum(len(rows) for rows in tables(done.stdout).values()) == ROWS[name]
    assert os.listdir(tmp_path) == []
    assert support.processes_of(tmp_path) == []


def test_a_peer_that_is_not_installed_is_named_as_missing(tmp_path: Path) -> None:
    """No peer is left out in silence: each has its row in the tables, and the row says what is missing."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("xargs", "sh", "date", "wc", "sleep"):
        (programs / name).symlink_to(Path("/usr/bin") / name if name != "sh" else "/bin/sh")

    nothing = {"PATH": str(programs), "QUEUECTL_BENCH_PEERS": str(tmp_path / "none")}
    done = bench(tmp_path, "peers", **nothing)

    assert done.returncode == 0, done.stderr
    found = tables(done.stdout)
    assert len(found) == 3
    *drains, handed = found.values()
    assert [len(rows) for rows in found.values()] == [15, 15, 17]
    for rows in drains:
        told = {row[0]: row[1] for row in rows}
        assert told["queuectl"].endswith("/s")
        assert told["xargs -P2 sh -c"].endswith("/s")
        for peer in PEERS[:7]:
            assert next(text[:13] for name, text in told.items() if name.startswith(peer)) == "not installed"
    missing = [row[0] for row in handed if row[1].startswith("not installed")]
    assert all(any(name.startswith(peer) for name in missing) for peer in PEERS[1:])
    assert os.listdir(tmp_path) == ["programs"]


def test_a_disk_with_a_journal_comes_and_goes(tmp_path: Path) -> None:
    """With --image everything is measured twice, the second time on ext4 with a journal, of which nothing is left."""
    if os.geteuid() != 0:
        faults.must_not_skip("only root can mount a disk")

    done = bench(tmp_path, "--image", "0.1", "python")

    if "mount: " in done.stderr and "umount" not in done.stderr:
        faults.must_not_skip(f"cannot mount: {done.stderr}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("### (p)") == 2
    assert "ext4 with a journal under" in done.stdout
    assert os.listdir(tmp_path) == []
    assert str(tmp_path) not in Path("/proc/mounts").read_text(encoding="utf-8")
