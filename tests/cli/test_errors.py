"""Every error is one line, with at most one hint and the right exit code. Never a traceback."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from queuectl import cli as command_line
from queuectl.errors import SpoolFull

from support import drop_bytes, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Cli = Callable[..., subprocess.CompletedProcess[str]]

HUGE = "x" * 100_000
BINARY = os.fsdecode(b"\xff\xfe\x80")
HOSTILE = [
    "../../etc/passwd",
    "/etc/passwd",
    "..",
    ".",
    ".hidden",
    "a/b",
    "CON",
    "nul.txt",
    "a b",
    "é",
    "a\nb",
    "-x",
]

USAGE = [
    ["--nonsense"], ["nonsense"], ["--spool"], ["--spool", "", "list"], ["list", "--spool", ""],
    ["enqueue"], ["enqueue", ""], ["enqueue", "  "], ["enqueue", "a", "b"], ["enqueue", "ls", "-la"], ["enqueue", "--"],
    ["enqueue", "--", ""], ["enqueue", "x", "--", "y"], ["enqueue", "x", "--command", "y"],
    ["enqueue", "--file", "a", "--command", "y"], ["enqueue", "--command", ""], ["enqueue", "--file"],
    ["enqueue", "{"], ["enqueue", '{"command": }'], ["enqueue", '{"a": 1} x'], ["enqueue", "{" * 5000],
    ["enqueue", '{"command": "x", "command": "y"}'], ["enqueue", BINARY], ["enqueue", "--", "echo", BINARY],
    ["enqueue", "--id", BINARY, "x"], ["enqueue", "--id", "", "x"], ["enqueue", "--id", HUGE, "x"],
    ["enqueue", "--priority", "99", "x"], ["enqueue", "--priority", "0", "x"], ["enqueue", "--priority", "1.5", "x"],
    ["enqueue", "--priority", "high", "x"], ["enqueue", "--priority", HUGE, "x"], ["enqueue", "--priority", "٣", "x"],
    ["enqueue", "--timeout", "-1", "x"], ["enqueue", "--timeout", "nan", "x"], ["enqueue", "--timeout", "9" * 400, "x"],
    ["enqueue", "--max-retries", "-1", "x"], ["enqueue", "--max-retries", "9" * 30, "x"],
    ["enqueue", "--backoff-base", "0.5", "x"], ["enqueue", "--backoff-base", "inf", "x"],
    ["enqueue", "--run-at", "soon", "x"], ["enqueue", "--run-at", "9" * 50, "x"], ["enqueue", "--run-at", "", "x"],
    ["enqueue", "--delay", "-5", "x"], ["enqueue", "--delay", "99999999999999d", "x"], ["enqueue", "--delay", "", "x"],
    ["enqueue", "--env", "A", "x"], ["enqueue", "--env", "=1", "x"], ["enqueue", "--env", BINARY, "x"],
    ["list", "--state", "nonsense"], ["list", "--state", ""], ["list", "--state", HUGE], ["list", "--limit", "-1"],
    ["list", "--limit", "many"], ["list", "extra"], ["status", "extra"], ["show"], ["show", "a", "b"], ["logs"],
    ["logs", "a", "--attempt", "0"], ["logs", "a", "--attempt", "x"], ["logs", "a", "--json"],
    ["worker", "nonsense"], ["worker", "start", "--count", "0"], ["worker", "start", "--count", "-1"],
    ["worker", "start", "--count", "1000000"], ["worker", "start", "--count", "two"], ["worker", "start", "extra"],
    ["worker", "start", "--wait-retries"], ["worker", "start", "--foreground", "--json"],
    ["worker", "stop", "--timeout", "-1"], ["worker", "logs", "a", "b"],
    ["dlq", "nonsense"], ["dlq", "retry"], ["dlq", "retry", "a", "--all"], ["dlq", "retry", "a", "--timeout", "-1"],
    ["config", "set"], ["config", "set", "timeout"], ["config", "set", "timeout", "1", "2"], ["config", "unset"],
    ["config", "get", "a", "b"], ["cancel"], ["clear", "--state", "processing"], ["clear", "--state", "nonsense"],
    ["reindex", "x"], ["completion"], ["completion", "tcsh"], ["demo", "x"],
    ["enqueue", '{"command": "x", "priority": 99}'], ["enqueue", '{"command": "x", "timeout": -1}'],
    ["enqueue", '{"command": ""}'], ["enqueue", "{}"], ["enqueue", '{"command": 7}'], ["enqueue", '{"command": []}'],
    ["enqueue", '{"command": "x", "id": "../x"}'], ["enqueue", '{"command": "x", "run_at": "soon"}'],
    ["enqueue", '{"command": "x", "env": {"A": 1}}'], ["enqueue", '{"command": "x", "cwd": 7}'],
    ["enqueue", '[{"command": "x", "priority": 99}, {"command": "x"}]'],
    ["enqueue", "--run-at", "+2h", "--expires-in", "1h", "x"], ["set", "a", "priority=99"], ["set", "a", "prio=9"],
    ["retry", "a", "--set", "priority=99"], ["dlq", "retry", "a", "--set", "timeout=x"], ["list", "--exit-code", "x"],
    ["config", "get", "nonsense"], ["config", "get", ""], ["config", "get", HUGE], ["config", "set", "timeout", ""],
    ["config", "set", "timeout", BINARY], ["config", "set", BINARY, "1"], ["config", "set", "timeout", HUGE],
    ["config", "set", "priority", "99"], ["config", "unset", "nonsense"], ["config", "set", "nonsense", "1"],
]  # fmt: skip

REFUSED = [
    ["enqueue", "--file", "nowhere.json"], ["enqueue", "--file", "/"], ["enqueue", "--file", ""],
    ["enqueue", "--file", BINARY], ["enqueue", "--file", HUGE], ["enqueue", "--file", "-"],
    ["show", "nobody"], ["show", ""], ["show", HUGE], ["show", BINARY], ["logs", "nobody"], ["logs", "-f", "nobody"],
    ["worker", "logs", "nobody"], ["worker", "logs", "../x"], ["dlq", "retry", "nobody"], ["cancel", "nobody"],
    ["set", "nobody", "priority=9"], ["worker", "stop", "nobody"],
]  # fmt: skip


def is_one_line_error(done: subprocess.CompletedProcess[str]) -> bool:
    """Check: one line and at most one hint, both short, and no other output."""
    lines = done.stderr.splitlines()
    return (
        done.stdout == ""
        and 1 <= len(lines) <= 2
        and lines[0].startswith("error: ")
        and all(line.startswith("hint: ") for line in lines[1:])
        and max(map(len, lines)) < 1100
    )


def short(words: list[str]) -> str:
    return ascii(" ".join(words))[1:50]


@pytest.mark.parametrize("words", USAGE, ids=short)
def test_usage_errors(cli: Cli, spool_dir: Path, words: list[str]) -> None:
    """A mistake in what is typed gives exit code 2, whether it is an option, a name or a value, and queues nothing.

    A bad value was 2 in `set` and `enqueue --priority`, and 1 in `config set` and in a job in JSON.
    """
    done = cli(*words)

    assert (done.returncode, is_one_line_error(done)) == (2, True), done.stderr
    assert not list(spool_dir.glob("pending/*"))


@pytest.mark.parametrize("words", REFUSED, ids=short)
def test_refusals(cli: Cli, spool_dir: Path, words: list[str]) -> None:
    """A call that cannot be done, or a file that is wrong, gives exit code 1, and changes nothing."""
    done = cli(*words)

    assert (done.returncode, is_one_line_error(done)) == (1, True), done.stderr
    assert not list(spool_dir.glob("pending/*"))


@pytest.mark.parametrize("job_id", HOSTILE, ids=ascii)
def test_hostile_ids_touch_nothing(cli: Cli, spool_dir: Path, tmp_path: Path, job_id: str) -> None:
    """An id that is a path, a device or empty is refused by every command."""
    calls = [["enqueue", "--id", job_id, "x"], ["show", "--", job_id], ["logs", "--", job_id],
             ["cancel", "--", job_id], ["dlq", "retry", "--", job_id]]  # fmt: skip
    answers = [cli(*words) for words in calls]

    assert [done.returncode for done in answers] == [2, 1, 1, 1, 1]
    assert all(is_one_line_error(done) for done in answers)
    assert [path.name for path in tmp_path.iterdir() if path.name not in {"home", "spool"}] == []
    assert not list(spool_dir.glob("*/*.json"))


def test_errors_cannot_bite_a_terminal_either(cli: Cli, spool_dir: Path) -> None:
    """A message repeats what was typed, with control characters as escapes."""
    done = cli("show", "\x1b[2J\x9b\u202e", expect=1)

    assert not {"\x1b", "\x9b", "\u202e"} & set(done.stderr)


@pytest.mark.parametrize("words", [["status"], ["list"], ["enqueue", "x"], ["enqueue", "--", "x"], ["worker", "start"],
                                   ["config", "set", "timeout", "1"], ["reindex"]])  # fmt: skip
def test_spool_that_is_a_file_is_told_by_name(cli: Cli, spool_dir: Path, words: list[str]) -> None:
    """An error of the disk gives exit code 3, with the path and the reason."""
    spool_dir.write_text("")

    done = cli(*words, expect=3)

    assert is_one_line_error(done), done.stderr
    assert str(spool_dir) in done.stderr


@pytest.mark.parametrize(
    ("raised", "code", "told"),
    [
        (OSError(errno.EIO, "Input/output error", "/x/y"), 3, "error: cannot use /x/y: input/output error\n"),
        (
            OSError(errno.ENOSPC, "No space left on device", "/x"),
            4,
            "error: cannot use /x: no space left on device\n",
        ),
        (SpoolFull("no room", hint="rm"), 4, "error: no room\nhint: rm\n"),
        (KeyboardInterrupt(), 130, "error: interrupted\n"),
        (BrokenPipeError(), 141, ""),
    ],
)
def test_each_accident_has_its_exit_code(
    capsys: pytest.CaptureFixture[str], raised: BaseException, code: int, told: str
) -> None:
    """The exit codes in the table hold for all errors of a command."""

    def fail() -> int:
        raise raised

    assert command_line._guarded(fail) == code
    assert capsys.readouterr().err == told


def test_bug_keeps_its_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    """An unexpected error gives exit code 70, with a traceback for the bug report."""
    assert command_line._guarded(lambda: 1 // 0) == 70
    told = capsys.readouterr().err
    assert "ZeroDivisionError" in told
    assert told.endswith("error: this is a bug in queuectl; the lines above say where\n")


def shell(script: str, **options: Any) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "Q": f"{sys.executable} -m queuectl"}
    return subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, check=False, env=env, **options
    )


def test_reader_that_goes_away_is_no_error(cli: Cli, spool_dir: Path) -> None:
    """`list | head` ends quietly, as `cat` does."""
    lines = "".join(f'{{"id": "j{n}", "command": "{"x" * 500}"}}\n' for n in range(3000))
    cli("enqueue", "--file", "-", stdin=lines, expect=0)

    done = shell(
        "$Q list | head -n 1; echo ${PIPESTATUS[0]}; $Q list --json | head -c 5 >/dev/null; echo ${PIPESTATUS[0]}"
    )

    assert done.stderr == ""
    assert done.stdout.splitlines()[1:] == ["141", "141"]


def test_output_that_cannot_be_written_is_told(cli: Cli, spool_dir: Path) -> None:
    """If stdout is a full disk, the command reports one error and fails."""
    cli("enqueue", "x", expect=0)
    done = shell("$Q list > /dev/full; echo $?")

    assert (done.stdout, done.stderr) == ("4\n", "error: cannot write the output: no space left on device\n")


def test_closed_streams_break_nothing(cli: Cli, spool_dir: Path) -> None:
    """With closed standard streams, as under cron and daemons, commands still work."""
    done = shell(
        "$Q enqueue --id a x >&-; echo $?; $Q enqueue --id b -- x <&- >&- 2>&-; echo $?; $Q list --json >&-; echo $?"
    )

    assert done.stdout == "0\n0\n0\n"
    assert sorted(path.name for path in spool_dir.glob("pending/*.json")) == ["a.json", "b.json"]


def test_terminal_without_unicode_still_gets_its_lines(cli: Cli, spool_dir: Path) -> None:
    """With an old locale, unknown characters are shown as escapes, and the command works."""
    cli("enqueue", "--id", "a", "echo grüße", expect=0)

    done = cli("list", expect=0, env={"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"})

    assert done.stdout == "a - pending - echo gr\\xfc\\xdfe\n"


INTERRUPTED_IN_A_TEXT = """
import sys
from queuectl import cli

def interrupted(words):
    exec("raise KeyboardInterrupt")  # what dataclasses and namedtuple do

cli._run = interrupted
sys.exit(cli.main([]))
"""


def test_an_interrupt_in_the_middle_of_an_import_is_130_too(tmp_path: Path) -> None:
    """Python ends with a second SIGINT after `python -m` if a text that it ran was interrupted: then nobody sees 130."""
    (tmp_path / "program.py").write_text(INTERRUPTED_IN_A_TEXT)

    done = subprocess.run(
        [sys.executable, "-m", "program"], cwd=tmp_path, capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stderr) == (130, "error: interrupted\n")


def test_interrupt_is_130_and_quiet(cli: Cli, spool_dir: Path) -> None:
    """Ctrl+C ends --follow without a traceback, and with at most one line."""
    drop_bytes(spool_dir, "a.json", b'{"command": "x"}')
    words = [sys.executable, "-m", "queuectl", "logs", "-f", "a"]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as process:
        wait_until((spool_dir / "data" / "queuectl.db").exists)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=20)

    assert process.returncode == 130
    assert told in {"", "error: interrupted\n"}
