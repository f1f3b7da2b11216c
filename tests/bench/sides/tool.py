"""What the peers' sides share. It runs in their environment: standard library only."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def run(command: str) -> tuple[int, str]:
    """A job: run it in the shell; exit code and output are its result."""
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout


def hand(one: Callable[[str], object]) -> None:
    """Hand over each line of stdin, and print how many seconds it took."""
    commands = sys.stdin.read().splitlines()
    began = time.perf_counter()
    for command in commands:
        one(command)
    print(time.perf_counter() - began)
