"""Where the caller stands changes nothing: no module is imported from there, and no spool is made there by accident."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from queuectl import Spool, SpoolError
from queuectl.executor import base
from queuectl.worker import program

from support import wait_until, where_is

if TYPE_CHECKING:
    from collections.abc import Callable

    Cli = Callable[..., subprocess.CompletedProcess[str]]

ROOT = Path(__file__).parents[2]


@pytest.fixture
def trap(tmp_path: Path) -> Path:
    """A folder with modules of the names of Python's own; each leaves a mark when it is imported."""
    folder = tmp_path / "trap"
    folder.mkdir()
    for name in (
        "queue",
        "json",
        "tempfile",
        "subprocess",
        "shutil",
        "sqlite3",
        "click",
        "yaml",
        "queuectl_x",
    ):
        (folder / f"{name}.py").write_text(
            f"open({str(tmp_path / 'sprung')!r}, 'a').write({name!r} + ' ')\nraise SystemExit(99)\n"
        )
    return folder


def sprung(trap: Path) -> str:
    mark = trap.parent / "sprung"
    return mark.read_text() if mark.exists() else ""


def test_no_command_imports_from_the_current_folder(
    cli: Cli, spool_dir: Path, trap: Path, workers: Callable[..., Any]
) -> None:
    """Neither the command, nor the workers that it starts, in the background and in the foreground."""
    cli("enqueue", "--id", "a", "true", expect=0, cwd=trap)
    cli("config", "set", "timeout", "5", expect=0, cwd=trap)
    workers(1, cwd=trap)
    wait_until(lambda: where_is(spool_dir, "a") == ["done"])
    cli("worker", "stop", expect=0, cwd=trap)
    cli("worker", "start", "--foreground", "--count", "2", "--drain", expect=0, cwd=trap)
    assert sprung(trap) == ""


def test_demo_imports_nothing_from_the_current_folder(
    cli: Cli, spool_dir: Path, trap: Path, tmp_path: Path
) -> None:
    """`queuectl demo` in a folder with a queue.py executed that file."""
    (tmp_path / "t").mkdir()
    cli("demo", expect=0, cwd=trap, env={"TMPDIR": str(tmp_path / "t")}, timeout=40)
    assert sprung(trap) == ""


def test_program_runs_from_everywhere_without_its_folder_in_the_path(trap: Path) -> None:
    """As workers are started: by the path of the file, with nothing of the caller's folder in the search path."""
    words = program.words()
    assert words[1] == "-P"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [*words, "--version"],
        cwd=trap,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert (done.returncode, done.stdout[:8], sprung(trap)) == (0, "queuectl", ""), done.stderr


@pytest.mark.parametrize("home", ["", "here"])
def test_without_a_home_no_spool_is_made_in_the_current_folder(home: str, tmp_path: Path) -> None:
    """A spool called `~` in each folder in which somebody types a command loses jobs."""
    environment = {name: value for name, value in os.environ.items() if name != "QUEUECTL_SPOOL"}
    for words in (["enqueue", "true"], ["list"], ["--spool", "~/s", "enqueue", "true"]):
        done = subprocess.run(
            [sys.executable, "-m", "queuectl", *words],
            cwd=tmp_path,
            env={**environment, "HOME": home, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
        assert done.returncode == 3, done
        assert "HOME is not usable" in done.stderr
        assert "set HOME to an absolute path, or name the spool with --spool or QUEUECTL_SPOOL" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_home_of_an_unknown_user_is_no_folder_of_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mistyped `~bakcup/spool` would be another spool in each folder in which somebody types it."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SpoolError, match="there is no user no-such-user") as refused:
        Spool("~no-such-user/s")
    assert refused.value.hint == "for a folder that is called ~no-such-user, write ./~no-such-user/s"
    with pytest.raises(SpoolError, match="there is no user no-such-user"):
        Spool(tmp_path / "spool").enqueue("true", cwd="~no-such-user")
    Spool("./~no-such-user/s").enqueue("true")
    assert (tmp_path / "~no-such-user" / "s" / "pending").is_dir()


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user without HOME and without an entry in passwd, as in many containers."""
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("QUEUECTL_SPOOL", raising=False)

    def unknown(_: int) -> Any:
        raise KeyError

    monkeypatch.setattr("pwd.getpwuid", unknown)


@pytest.mark.usefixtures("nobody")
def test_user_without_home_and_passwd_is_told_what_to_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python leaves `~` as it is then. A job without a folder runs in / instead."""
    monkeypatch.chdir(tmp_path)
    for path in (None, "~", "~/spool"):
        with pytest.raises(SpoolError, match="cannot find the home folder") as refused:
            Spool(path)
        assert "QUEUECTL_SPOOL" in (refused.value.hint or "")
    with pytest.raises(SpoolError, match="cannot find the home folder"):
        Spool(tmp_path / "spool").enqueue("true", cwd="~/x")
    assert base._folder(None) == "/"
    assert list(tmp_path.iterdir()) in ([], [tmp_path / "spool"])
