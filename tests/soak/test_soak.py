"""The soak runs, and finds nothing; `python -m tests.soak` does it for as long as one likes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_half_a_minute_of_harm_breaks_no_promise(tmp_path: Path) -> None:
    """Producers, workers and a killer on one spool; nothing is lost, doubled, run beside itself or left alive."""
    words = [
        sys.executable,
        "-m",
        "tests.soak",
        "--minutes",
        "0.45",
        "--pause",
        "0.6",
        "--dir",
        str(tmp_path),
    ]

    done = subprocess.run(words, cwd=TOP, capture_output=True, text=True, check=False, timeout=280)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "no promise broken (seed " in done.stdout
    assert list(tmp_path.iterdir()) == []
