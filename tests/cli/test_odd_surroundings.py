"""An odd locale, an odd path or strict warnings: a command works, or says in one line why not."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from support import finished, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Cli = Callable[..., subprocess.CompletedProcess[str]]

ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def test_a_job_with_other_letters_works_in_a_locale_that_lacks_them(
    cli: Cli, spool_dir: Path, workers: Callable[..., Any]
) -> None:
    """It is queued, run with the bytes that its file holds, shown and logged."""
    cli("enqueue", "--id", "a", "echo é→", env=ASCII, expect=0)
    workers(1, env=ASCII)
    wait_until(lambda: finished(spool_dir, "a"))

    assert cli("logs", "a", env=ASCII, expect=0).stdout == "é→\n"
    assert cli("list", "--command", "é", env=ASCII, expect=0).stdout == "a - completed - echo é→\n"


@pytest.mark.skipif(sys.platform == "darwin", reason="there every file name is UTF-8")
def test_a_spool_whose_path_is_not_utf8_can_be_used(tmp_path: Path, spool_dir: Path) -> None:
    """No command ends with a traceback because of its path."""
    spool = os.fsencode(tmp_path) + b"/\xff\xe9"
    for words in (["enqueue", "true"], ["list"], ["doctor"], ["status", "--json"]):
        done = subprocess.run(
            [sys.executable.encode(), b"-m", b"queuectl", b"--spool", spool, *map(os.fsencode, words)],
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, words
        note = b"note: made a new spool: " if words[0] == "enqueue" else b""
        assert done.stderr.startswith(note), words
        assert done.stderr.count(b"\n") == bool(note), words


def test_strict_warnings_change_nothing(cli: Cli, spool_dir: Path) -> None:
    """With PYTHONWARNINGS=error a warning of the library would become a traceback."""
    strict = {"PYTHONWARNINGS": "error"}
    for words in (["enqueue", "true"], ["worker", "start", "--drain"], ["list"], ["doctor"]):
        assert cli(*words, env=strict, expect=0).stderr == ""
    wait_until(lambda: list(spool_dir.glob("done/*.json")))
    wait_until(lambda: not list(spool_dir.glob("data/workers/*.json")), message="the end of the worker")
