"""An odd locale, an odd path or strict warnings: a command works, or says in one line why not."""

from __future__ import annotations

import os
import shutil
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


def test_a_job_with_other_letters_works_in_an_8_bit_locale(
    cli: Cli, spool_dir: Path, workers: Callable[..., Any], tmp_path: Path
) -> None:
    """In Latin-1 an `é` is another byte: the command got that one, and what it wrote could not be shown."""
    name = "en_US.ISO-8859-1"
    made = subprocess.run(
        ["localedef", "-i", "en_US", "-f", "ISO-8859-1", tmp_path / name], capture_output=True, check=False
    ) if shutil.which("localedef") else None  # fmt: skip
    if made is None or made.returncode:
        pytest.skip("this machine cannot make a Latin-1 locale")
    latin = {"LC_ALL": name, "LOCPATH": str(tmp_path), "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    cli("enqueue", "--id", "a", "--env", "X=ü€", "echo é→ $X", env=latin, expect=0)
    workers(1, env=latin)
    wait_until(lambda: finished(spool_dir, "a"))

    assert cli("logs", "a", env=latin, expect=0).stdout == "é→ ü€\n"
    assert cli("list", env=latin, expect=0).stdout == "a - completed - echo é→ $X\n"
    shown = cli("show", "a", env=latin, expect=0).stdout
    assert "echo é→ $X" in shown
    assert "X=ü€" in shown
    typed = [sys.executable.encode(), b"-m", b"queuectl", b"enqueue", b"echo \xe9"]
    done = subprocess.run(typed, env={**os.environ, **latin}, capture_output=True, check=False)
    assert (done.returncode, done.stderr.splitlines()[0]) == (2, b"error: the command is not UTF-8")


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


def limited(number: int, *words: str, kind: str = "n") -> subprocess.CompletedProcess[str]:
    """Run a command that may have so many files open."""
    line = 'ulimit -"$1" "$2" && shift 2 && exec "$@"'
    return subprocess.run(
        ["sh", "-c", line, "sh", kind, str(number), sys.executable, "-m", "queuectl", *words],
        capture_output=True, text=True, check=False, timeout=20, stdin=subprocess.DEVNULL,
    )  # fmt: skip


@pytest.mark.parametrize("number", [5, 6, 8, 12])
@pytest.mark.parametrize(
    "words", [["enqueue", "true"], ["list"], ["worker", "start", "--foreground", "--drain"]]
)
def test_with_too_few_open_files_a_command_begins_nothing(
    cli: Cli, spool_dir: Path, number: int, words: list[str]
) -> None:
    """It gave a traceback, said that a job had not run, or was a worker that could neither run a job nor give it back."""
    cli("enqueue", "--id", "a", "true", expect=0)

    done = limited(number, *words)

    told = f"error: this process may open {number} files, and 16 are needed\n"
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr in (told, f"{told}hint: ulimit -n 1024\n")
    assert cli("list", expect=0).stdout == "a - pending - true\n"


@pytest.mark.parametrize("number", [16, 18, 20, 22, 24, 28])
def test_a_worker_with_few_open_files_runs_its_job_or_leaves(cli: Cli, spool_dir: Path, number: int) -> None:
    """It claimed the job for ever, and after three such workers the job was dead."""
    cli("enqueue", "--id", "a", "echo ran; echo so >&2", expect=0)

    done = limited(number, "worker", "start", "--foreground", "--drain")

    if done.returncode == 0:
        assert cli("show", "a", "--json", expect=0).stdout.count('"state": "completed"')
        assert number >= 20
    else:
        assert (done.returncode, done.stdout) == (3, "")
        assert done.stderr.startswith(f"error: this process may open {number} files, and ")
        assert done.stderr.endswith(" are needed\nhint: ulimit -n 1024\n")
        assert cli("list", expect=0).stdout == "a - pending - echo ran; echo so >&2\n"
        assert number < 28


def test_a_low_limit_that_may_be_raised_is_raised(cli: Cli, spool_dir: Path) -> None:
    """Only the hard limit is beyond the user."""
    assert limited(8, "enqueue", "--id", "a", "true", kind="Sn").returncode == 0
    assert limited(8, "worker", "start", "--foreground", "--drain", kind="Sn").returncode == 0
    assert cli("list", expect=0).stdout == "a - completed - true\n"
