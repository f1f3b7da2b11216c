"""Simple commands run without a shell, with no difference: same words, folder, exit code and error text."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from queuectl.executor import spawn
from queuectl.executor.base import Attempt
from queuectl.executor.local import LocalRunner
from queuectl.executor.spawn import find_program, simple_words
from queuectl.job.outcome import Ending, Outcome

from support import wait_until

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere every text goes to the shell")

SHELLS = ("dash", "bash")
ENVIRONMENT = {"PATH": os.environ["PATH"]}


def read_by(shell: str, command: str, folder: Path) -> list[str]:
    """The words into which a shell splits a command; the first word is defined as a function that prints them."""
    first, _, rest = command.strip().partition(command.split(maxsplit=1)[0])
    script = f'show() {{ for word in "$@"; do printf "%s\\0" "$word"; done; }}; show {first}{rest}'
    done = subprocess.run([shell, "-c", script], cwd=folder, capture_output=True, check=True, timeout=30)
    return done.stdout.decode().split("\0")[:-1]


@settings(max_examples=150, deadline=None)
@given(st.text(alphabet="ab1./ -_=:@%,+~*?[]{}$`\\'\"#!&|;<>()\n\t^\u00e9", min_size=1, max_size=12))
def test_a_shell_would_read_the_same_words(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    """A command that is split without a shell is split into the same words by dash and bash."""
    command = f"prog {text}"
    words = simple_words(command, ENVIRONMENT)
    if words is None:
        return
    folder = tmp_path_factory.getbasetemp()
    for name in ("a", "b", "ab", "1"):
        (folder / name).touch()

    for shell in SHELLS:
        assert read_by(shell, command, folder) == words[1:], (shell, command)


@pytest.mark.parametrize(
    "command",
    ["a *", "a ?", "a ~", "a $HOME", "a 'b'", 'a "b"', "a\nb", "a;b", "a&", "a|b", "a>b", "a<b", "a `b`", "a (b)",
     "a {b,c}", "A=1 a", "a #b", "! a", "a \\b", "~/a", "[ a ]", "a é", "", "  ", "a\rb", "a =b"],
)  # fmt: skip
def test_what_a_shell_might_read_otherwise_goes_to_the_shell(command: str) -> None:
    """Anything but simple words is left to the shell."""
    assert simple_words(command, ENVIRONMENT) is None


def test_no_shell_has_more_built_in_than_we_know_of() -> None:
    """`echo`, `test` or `kill` of a shell differ from the programs of those names: the shell runs them."""
    listed = subprocess.run(
        ["bash", "-c", "compgen -b; compgen -k"], capture_output=True, text=True, check=True
    ).stdout.split()
    programs = sorted(
        {name for folder in ("/usr/bin", "/bin") for name in os.listdir(folder) if name.isalnum()}
    )
    asked = subprocess.run(
        ["dash", "-c", 'for name in "$@"; do type "$name"; done', "dash", *programs],
        capture_output=True, text=True, check=False,
    ).stdout.splitlines()  # fmt: skip
    of_dash = [line.split()[0] for line in asked if line.endswith(("shell builtin", "shell keyword"))]

    assert "echo" in listed
    assert "echo" in of_dash
    for name in [*listed, *of_dash]:
        assert simple_words(f"{name} a", ENVIRONMENT) is None, name


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("name", spawn.PROGRAMS)
def test_a_builtin_that_is_run_as_a_program_does_what_the_shell_would(
    name: str, shell: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only alone: with arguments the shell runs its own, whatever is on PATH."""
    monkeypatch.setattr(spawn, "_shell_name", lambda: shell)
    mine = tmp_path / name
    mine.write_text("#!/bin/sh\necho mine\nexit 7\n")
    mine.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}

    assert simple_words(f" {name} ", environment) == [name]
    assert simple_words(f"{name} --version", environment) is None
    theirs = subprocess.run(
        [shell, "-c", name], env=environment, capture_output=True, check=False, timeout=30
    )
    for fast in (True, False):
        _, code, out, err = _run(tmp_path, name, fast=fast, environment=environment)
        assert (code, out.encode(), err.encode()) == (theirs.returncode, theirs.stdout, theirs.stderr)
    # A list never meant a shell.
    assert _run(tmp_path, [name], fast=True, environment=environment)[1:3] == (7, "mine\n")


def test_an_unknown_shell_keeps_its_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    """The built-in commands of other shells than dash and bash are not known."""
    assert simple_words("ls -l", ENVIRONMENT) == ["ls", "-l"]
    monkeypatch.setattr(spawn, "_shell_name", lambda: "ksh93")
    assert simple_words("ls -l", ENVIRONMENT) is None


def test_a_function_handed_down_to_bash_is_not_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bash takes functions and options from its environment, and a function may have a program's name."""
    monkeypatch.setattr(spawn, "_shell_name", lambda: "bash")
    assert simple_words("ls -l", ENVIRONMENT) == ["ls", "-l"]
    assert simple_words("ls -l", {**ENVIRONMENT, "BASH_FUNC_ls%%": "() { echo mine; }"}) is None
    assert simple_words("ls -l", {**ENVIRONMENT, "SHELLOPTS": "xtrace"}) is None


def test_the_search_gives_up_where_a_shell_might_find_something_else(tmp_path: Path) -> None:
    """A folder or a file without permission, a relative part of PATH, no PATH: the shell decides."""
    (tmp_path / "first").mkdir()
    (tmp_path / "first" / "tool").mkdir()
    (tmp_path / "second").mkdir()
    tool = tmp_path / "second" / "tool"
    tool.write_text("#!/bin/sh\n")
    tool.chmod(0o755)

    assert find_program("tool", {"PATH": f"{tmp_path}/second"}) == str(tool)
    assert find_program("tool", {"PATH": f"{tmp_path}/first:{tmp_path}/second"}) is None
    assert find_program("tool", {"PATH": f".:{tmp_path}/second"}) is None
    assert find_program("tool", {"PATH": f"{tmp_path}/none:{tmp_path}/second"}) == str(tool)
    assert find_program("tool", {}) is None
    tool.chmod(0o644)
    assert find_program("tool", {"PATH": f"{tmp_path}/second"}) is None


def _run(
    folder: Path, command: str | list[str], *, fast: bool, environment: dict[str, str], slot: int = 0
) -> tuple[Ending, int | None, str, str]:
    out, err = folder / "run.out", folder / "run.err"
    here = os.getcwd()
    try:
        started = LocalRunner(may_chdir=fast).start(
            Attempt(
                command=command,
                cwd=str(folder),
                env=environment,
                timeout=20,
                grace=1,
                stdout=str(out),
                stderr=str(err),
                lock_fd=None,
                marks={"QUEUECTL_RUN": "x"},
                log_limit=0,
                slot=slot,
            )
        )
    finally:
        os.chdir(here)
    assert not isinstance(started, Outcome)
    wait_until(lambda: started.poll() is not None)
    outcome = started.poll()
    started.close()
    assert outcome is not None
    return outcome.ending, outcome.exit_code, out.read_text(), err.read_text()


@pytest.mark.parametrize(
    "command",
    ["pwd-of", "./here", "plain-script", "no-such-program a", "not-executable", "a-folder", "false-one", "env",
     "./no-such", "printenv PWD"],
)  # fmt: skip
def test_nobody_can_tell(tmp_path: Path, command: str) -> None:
    """Output, error text, exit code and environment are the same as when the shell runs the command."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for name, text, mode in (
        ("pwd-of", '#!/bin/sh\nprintf \'%s %s\' "$PWD" "$0"\n', 0o755),
        ("plain-script", "echo no first line here\n", 0o755),
        ("not-executable", "#!/bin/sh\n", 0o644),
        ("false-one", "#!/bin/sh\nexit 7\n", 0o755),
    ):
        (tools / name).write_text(text)
        (tools / name).chmod(mode)
    (tools / "a-folder").mkdir()
    (tmp_path / "here").write_text("#!/bin/sh\necho here\n")
    (tmp_path / "here").chmod(0o755)
    environment = {"PATH": f"{tools}:/usr/bin:/bin", "PWD": "/nowhere", "A": "1"}

    with_shell = _run(tmp_path, command, fast=False, environment=environment)
    without = _run(tmp_path, command, fast=True, environment=environment)
    in_thread = _run(tmp_path, command, fast=True, environment=environment, slot=1)

    assert _sorted(without) == _sorted(with_shell) == _sorted(in_thread)


def _sorted(result: tuple[object, ...]) -> tuple[object, ...]:
    ending, code, out, err = result
    return ending, code, sorted(str(out).splitlines()), err


def test_a_plain_command_has_no_shell_above_it(tmp_path: Path) -> None:
    """The program is the worker's own child: half the cost, and a signal that kills it is named."""
    (tmp_path / "die").write_text("#!/bin/sh\nkill -9 $$\n")
    (tmp_path / "die").chmod(0o755)

    ending, code, _, err = _run(tmp_path, "./die", fast=True, environment=ENVIRONMENT)

    assert (ending, code, err) == (Ending.SIGNALLED, 137, "")
