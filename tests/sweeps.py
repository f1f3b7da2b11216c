"""Which points of a sweep are tried: a fault before the n-th call of a move, for n = 1, 2, 3 and so on.

All of them take hours. So a run tries every n-th, and its seed says with which it begins: after some runs all were tried.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FULL = bool(os.environ.get("QUEUECTL_FULL"))
"""Try every point."""

STRIDE = int(os.environ.get("QUEUECTL_STRIDE") or 4)
"""Try every n-th point, and fewer where a move has dozens of calls of a kind."""

SEED = int(os.environ.get("QUEUECTL_SEED") or 0)
"""What a test draws depends on it; conftest.py draws it for all processes of a run."""


def points(every: int = 1) -> Iterator[int]:
    """The numbers of the calls before which a sweep puts its fault; its user ends it when a call is not reached.

    Args:
        every: where there are dozens of calls, one of so many is tried.
    """
    every = 1 if FULL else every * STRIDE
    return itertools.count(1 + (SEED % every), every)


def has_begun_late(every: int = 1) -> bool:
    """Whether `points` begins behind call number 1, so that a move with few calls has none of its points."""
    return next(points(every)) > 1


def deaths(program: str, story: str, folder: Path, seconds: float) -> list[dict[str, Any]]:
    """Let a program tell a story in which it dies at each point in turn; what was found after each death."""
    words = [sys.executable, program, story, str(folder)]
    told = subprocess.run(words, capture_output=True, text=True, check=False, timeout=seconds)
    assert told.returncode == 0, told.stderr
    return [json.loads(line) for line in told.stdout.splitlines()]
