"""Long output on a terminal is shown in a pager, and never anywhere else; colour is optional."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from terminal import on_terminal

from queuectl import Spool

from support import drop_bytes

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Cli = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no pty")

PAGED = [["list"], ["dlq", "list"], ["dlq", "show", "bad"], ["show", "bad"], ["logs", "bad"]]


@pytest.fixture
def pager(spool_dir: Path, tmp_path: Path) -> dict[str, str]:
    """A pager that marks each line, one dead job and some waiting jobs."""
    spool = Spool(spool_dir)
    spool.enqueue("echo one; echo two; exit 3", id="bad", max_retries=1)
    from support import drain

    drain(spool_dir)
    for number in range(3):
        spool.enqueue("true", id=f"job{number}")
    script = tmp_path / "my pager"
    script.write_text("#!/bin/sh\nsed 's/^/>> /'\necho \"LESS=$LESS\"\n")
    script.chmod(0o755)
    return {"PAGER": f"'{script}'"}


def timeless(line: str) -> str:
    """A line without its ages, and without the blanks and rules that are as long as these make a column."""
    return re.sub(r"([ ━─])\1*", r"\1", re.sub(r"\d+s", "…", re.sub(r" *\+\d\.\d", "", line))).rstrip()


@pytest.mark.parametrize("words", PAGED, ids=" ".join)
def test_terminal_gets_the_pager(pager: dict[str, str], words: list[str]) -> None:
    """Each line goes through the pager; the exit code is that of the command."""
    bare, paged = on_terminal(*words), on_terminal(*words, env=pager)

    assert bare.text.strip()
    lines = paged.text.splitlines()
    behind = lines[lines.index("LESS=FRX") + 1 :]
    assert all(line.startswith("hint: ") for line in behind)
    shown = lines[: lines.index("LESS=FRX")]
    assert all(line.startswith(">> ") for line in shown)
    told = [line.removeprefix(">> ") for line in shown] + behind
    assert [timeless(line) for line in told] == [timeless(line) for line in bare.text.splitlines()]
    assert paged.code == bare.code == 0


@pytest.mark.parametrize("words", PAGED, ids=" ".join)
def test_no_pager_in_a_pipe_nor_unasked(cli: Cli, pager: dict[str, str], words: list[str]) -> None:
    """Pipes, --json, --no-pager, -f, a dumb terminal and an empty PAGER use no pager."""
    assert ">> " not in cli(*words, env=pager, expect=0).stdout
    for more, env in ((["--no-pager"], pager), ([], {**pager, "TERM": "dumb"}), ([], {"PAGER": ""})):
        assert ">> " not in on_terminal(*words, *more, env=env).text
    if words[0] != "logs":
        assert ">> " not in on_terminal(*words, "--json", env=pager).text
    else:
        assert ">> " not in on_terminal(*words, "-f", env=pager).text


def test_no_pager_when_a_person_pipes_it_on(pager: dict[str, str]) -> None:
    """With `queuectl list | grep x` stdin is a terminal but stdout is not: no pager."""
    ours, theirs = pty.openpty()
    try:
        done = subprocess.run(
            [sys.executable, "-m", "queuectl", "list"], stdin=theirs, stdout=subprocess.PIPE, text=True, check=True,
            env={**os.environ, **pager}, timeout=20,
        )  # fmt: skip
    finally:
        os.close(ours)
        os.close(theirs)

    assert "job2 - pending - true\n" in done.stdout
    assert ">> " not in done.stdout


def test_refusal_keeps_its_words_and_its_exit_code(pager: dict[str, str]) -> None:
    """Errors are not paged."""
    seen = on_terminal("show", "nobody", env=pager)

    assert seen.code == 1
    assert "error: no job 'nobody' in this spool" in seen.text.splitlines()


@pytest.mark.parametrize("many", [900, 3000], ids=["table", "lines"])
def test_reader_may_leave_early(spool_dir: Path, many: int) -> None:
    """Leaving the pager early is not an error: exit code 0."""
    Spool(spool_dir).enqueue_many({"command": "echo " + "x" * 900} for _ in range(many))
    seen = on_terminal("list", env={"PAGER": "head -n 3"})

    assert seen.code == 0
    assert "error" not in seen.text
    assert len(seen.text.splitlines()) == 3


def test_reader_of_a_long_record_may_leave_early(spool_dir: Path) -> None:
    """The library that draws tables would end the process with exit code 1."""
    record = {"command": "x", "output": "a line of output\n" * 8000}
    drop_bytes(spool_dir, "job1.json", json.dumps(record).encode(), "done")
    seen = on_terminal("show", "job1", env={"PAGER": "head -n 3"})
    assert (seen.code, len(seen.text.splitlines())) == (0, 3)


def test_pager_that_is_not_there_is_told_and_done_without(pager: dict[str, str]) -> None:
    """With an invalid PAGER the list is printed directly."""
    seen = on_terminal("list", env={"PAGER": "no-such-pager -x"})

    assert "note: no pager: PAGER=no-such-pager -x" in seen.text
    assert "job2" in seen.text
    assert seen.code == 0


def test_commands_with_a_pager_say_so(cli: Cli, pager: dict[str, str], spool_dir: Path) -> None:
    """Exactly these commands have --no-pager; help pages are not paged."""
    (spool_dir / "data" / "workers" / "w.log").write_text("2026-01-01T00:00:00.000000Z [w] started\n")
    for words in PAGED:
        path = [word for word in words if word != "bad"]
        assert "--no-pager" in cli(*path, "--help", expect=0).stdout
    for words in (["worker", "logs"], ["stats"]):
        assert "--no-pager" in cli(*words, "--help", expect=0).stdout
        assert ">> " not in on_terminal(*words, "--no-pager", env=pager).text
        assert ">> " in on_terminal(*words, env=pager).text
    assert "--no-pager" not in cli("status", "--help", expect=0).stdout


COLOURED = {"NO_COLOR": "", "TERM": "xterm-256color"}


@pytest.mark.parametrize(
    ("env", "coloured"),
    [
        ({}, True),
        ({"NO_COLOR": "1"}, False),
        ({"CLICOLOR": "0"}, False),
        ({"CLICOLOR": "1"}, True),
        ({"TERM": "dumb"}, False),
    ],
)
@pytest.mark.parametrize("words", [["status"], ["list"], ["dlq", "list"], ["show", "bad"]], ids=" ".join)
def test_colour_is_left_out_where_it_is_not_wanted(
    pager: dict[str, str], words: list[str], env: dict[str, str], coloured: bool
) -> None:
    """NO_COLOR, CLICOLOR=0 and a dumb terminal: tables have no colours."""
    raw = on_terminal(*words, env={**COLOURED, **env}).raw
    painted = [code for code in (b"31", b"32", b"33", b"36") if b"\x1b[" + code + b"m" in raw]

    assert bool(painted) == (coloured and words in (["list"], ["show", "bad"]))


def test_only_less_is_sent_colours(pager: dict[str, str], tmp_path: Path) -> None:
    """Other pagers would show the colour codes as text."""
    os.symlink("/bin/cat", tmp_path / "less")

    assert b"\x1b[" in on_terminal("list", env={**COLOURED, "PAGER": str(tmp_path / "less")}).raw
    assert b"\x1b[" not in on_terminal("list", env={**COLOURED, **pager}).raw
