"""A command that command_server.py forks does and says what one with a Python of its own does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from queuectl import Spool

from support import COMMANDS, drop_bytes

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere each has a Python of its own")
SAME = {
    "help": (["enqueue", "--help"], ""),
    "version": (["--version"], ""),
    "list": (["list"], ""),
    "json": (["list", "--json"], ""),
    "no such job": (["show", "nobody"], ""),
    "a wrong word": (["lst"], ""),
    "a wrong flag": (["status", "--nope"], ""),
    "stdin": (["check", "-"], '{"command": "grün", "priority": 99}'),
    "much of stdin": (["check", "-"], '{"command": "true"}\n' * 20_000),
    "a file of the folder": (["check", "a.json"], ""),
    "no spool": (["--spool", "nowhere", "status"], ""),
    "a time zone": (["show", "a"], ""),
}


@pytest.mark.parametrize("case", SAME)
def test_both_ways_say_the_same(spool_dir: Path, case: str) -> None:
    """Tests would otherwise promise what users do not get."""
    Spool(spool_dir).enqueue("echo grün", id="a", run_at=2e9)
    home = spool_dir.parent / "home"
    (home / "a.json").write_text('{"command": "true", "timeout": -1}')
    words, stdin = SAME[case]
    env = {**os.environ, "TZ": "JST-9", "COLUMNS": "70"}

    forked = COMMANDS.run(words, stdin, env, str(home), 20)
    anew = subprocess.run(
        [sys.executable, "-m", "queuectl", *words],
        input=stdin,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
        env=env,
        cwd=home,
    )

    assert forked
    assert (forked.returncode, forked.stdout, forked.stderr) == (anew.returncode, anew.stdout, anew.stderr)


def test_another_start_of_python_gets_a_python_of_its_own(spool_dir: Path) -> None:
    """The locale is read once, when Python starts."""
    for name in ("LC_ALL", "PYTHONWARNINGS", "LANG"):
        assert COMMANDS.run(["status"], "", {**os.environ, name: "odd"}, "/", 20) is None


def test_commands_run_side_by_side(spool_dir: Path) -> None:
    """One that waits must not hold up the others, and one that takes too long is killed."""
    spool = Spool(spool_dir)
    spool.enqueue("true", id="a")
    with pytest.raises(subprocess.TimeoutExpired):
        COMMANDS.run(["wait", "a"], "", os.environ, "/", 0.5)
    drop_bytes(spool_dir, "b.json", b'{"command": "true"}')
    done = COMMANDS.run(["list", "--json"], "", os.environ, "/", 20)
    assert done
    assert {row["id"] for row in json.loads(done.stdout)} == {"a", "b"}
