"""The measurements run and print their tables; what they measure is nobody's promise here."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).parent.parent
ROWS = {"latency": 5, "idle": 2, "enqueue": 2, "dropped": 6, "drain": 2, "backlog": 4}


@pytest.mark.parametrize("name", ROWS)
def test_measurement_prints_its_table_and_cleans_up(name: str, tmp_path: Path) -> None:
    """With tiny numbers: a heading, its rows, where it was measured; no file and no process stays behind."""
    words = [sys.executable, "-m", "tests.bench", "--tiny", "--dir", str(tmp_path), name]

    done = subprocess.run(words, cwd=TOP, capture_output=True, text=True, check=False, timeout=50)

    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("queuectl ")
    assert len([line for line in lines if line.startswith("### (")]) == 1
    rows = [line for line in lines if line.startswith("|")]
    assert len(rows) == ROWS[name] + 2
    assert len({row.count("|") for row in rows}) == 1
    assert os.listdir(tmp_path) == []
