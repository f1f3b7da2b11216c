"""The README is typed in by newcomers as it stands: every line of it must work."""

from __future__ import annotations

import inspect
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

import queuectl
from queuectl.config import settings
from queuectl.job import record

import support

if TYPE_CHECKING:
    from collections.abc import Iterator

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
NOT_IN_TESTS = {
    "pip install . && queuectl demo",
    "pip install '.[test]' && pytest",
    "python -m tests.bench",
    "python -m tests.bench setup",
    "python -m tests.bench --image",
    "pytest -m slow",
    "python -m tests.mutation",
    "python -m tests.soak --minutes 20",
    "bash .ci/run",
    "queuectl service install --count 2",
    "queuectl config set incoming /var/spool/jobs          # made by the next worker: sticky, 1770",
    'queuectl config set incoming_users "alice bob"        # nobody but them',
    "sudo chgrp staff /var/spool/jobs                      # a group that they and the worker's user are in",
    'pyinstaller --onefile --name queuectl --collect-all queuectl --copy-metadata queuectl "$(command -v queuectl)"',
}
"""Lines that set up the very environment the tests run in, or need a system that a test has not."""


class Block(NamedTuple):
    """A fenced block: the words after the fence, the text, the line on which it begins."""

    info: str
    text: str
    line: int


def blocks(info: str) -> list[Block]:
    fenced = re.finditer(r"^```(.+)\n((?s:.*?))^```$", README, flags=re.MULTILINE)
    found = [Block(one[1], one[2], README.count("\n", 0, one.start()) + 1) for one in fenced]
    return [block for block in found if block.info == info]


def name_of(block: Block) -> str:
    return f"line {block.line}"


@pytest.fixture
def home(spool_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A newcomer's home: nothing in it, no spool named, `queuectl` on the path."""
    monkeypatch.delenv("QUEUECTL_SPOOL")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin")
    folder = spool_dir.parent / "home"
    yield folder
    support.end_workers(folder / ".queuectl")


def type_in(home: Path, script: str) -> str:
    done = subprocess.run(
        ["bash", "-uo", "pipefail", "-c", script],
        cwd=home,
        input="",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=50,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def steps(session: str) -> list[tuple[str, str]]:
    """Split a session into what is typed after the `$ ` and what is then seen."""
    parts = re.split(r"^\$ ", session, flags=re.MULTILINE)
    assert parts[0] == ""
    found = []
    for part in parts[1:]:
        typed = re.match(r"(?:.*\\\n)*.*\n", part)
        assert typed
        found.append((typed[0], part[typed.end() :]))
    return found


def in_order(text: str) -> str:
    """The text with the lines of several workers in the order of their names: which is ready first is chance."""
    return "\n".join(
        sorted(text.strip().splitlines(), key=lambda line: re.findall(r"^\[worker-\d+\]", line) or ["~"])
    )


def like(shown: str) -> str:
    """A pattern for output of which the README leaves out parts, marked by …; how wide a gap is does not matter."""
    words = re.split(r"(…|\s+)", shown.strip())
    return "".join(".*?" if word == "…" else r"\s+" if word.isspace() else re.escape(word) for word in words)


@pytest.mark.parametrize("block", blocks("console"), ids=name_of)
def test_session_prints_what_the_readme_shows(home: Path, block: Block) -> None:
    """Each command, typed in a fresh home, prints what stands below it."""
    typed = steps(block.text)
    output = type_in(home, "".join(f"{{ {line.rstrip()}\n}}\nprintf '\\0'\n" for line, _ in typed))

    for (line, shown), printed in zip(typed, output.split("\0"), strict=False):
        assert re.fullmatch(like(shown), in_order(printed), flags=re.DOTALL), f"$ {line}{printed}"


@pytest.mark.parametrize("block", blocks("sh"), ids=name_of)
def test_commands_of_the_readme_succeed(home: Path, block: Block) -> None:
    """Each line of a plain block works in a fresh home."""
    type_in(home, f"set -e\n{block.text}")


@pytest.mark.parametrize("block", blocks("python"), ids=name_of)
def test_python_of_the_readme_runs(home: Path, block: Block) -> None:
    """Each Python block runs as it stands."""
    del home
    subprocess.run([sys.executable, "-W", "error", "-c", block.text], check=True, timeout=50)


@pytest.mark.parametrize("block", blocks("json"), ids=name_of)
def test_jobs_of_the_readme_are_jobs(block: Block) -> None:
    """Each JSON block is a valid job."""
    assert record.parse(block.text.encode()).command


def test_lines_that_no_test_types_are_known() -> None:
    """Nothing escapes the tests by the way: the lines that are not run are these."""
    lines = {line for block in blocks("sh not-in-tests") for line in block.text.splitlines()}

    assert lines == NOT_IN_TESTS


def test_every_block_is_of_a_kind_that_is_looked_at() -> None:
    """A block of another kind would not be tested."""
    kinds = {"console", "sh", "sh not-in-tests", "python", "json", "ini", "yaml", "text"}
    opened = re.findall(r"^```(.*)\n(?s:.*?)^```$", README, flags=re.MULTILINE)

    assert set(opened) <= kinds


def spoken_of() -> set[str]:
    """Every `queuectl …` in running text and tables, and what the service executes."""
    prose = re.sub(r"^```.*\n(?s:.*?)^```$", "", README, flags=re.MULTILINE)
    services = re.findall(r"^ExecStart=.*/(queuectl .*)$", README, flags=re.MULTILINE)
    assert services
    return {*re.findall(r"`(queuectl [^`]+)`", prose), *services}


def test_commands_in_running_text_exist(home: Path) -> None:
    """A command that a sentence names is one that the program has, with these options."""
    del home
    missing = []
    for line in sorted(spoken_of()):
        words = shlex.split(line.replace("…", ""))[1:]
        path = list(_command_path(words))
        page = support.run_cli(*path, "--help")
        given = words[: words.index("--")] if "--" in words else words
        options = [word for word in given if word.startswith("-")]
        if page.returncode != 0 or any(option not in page.stdout for option in options):
            missing.append(line)

    assert missing == []


def _command_path(words: list[str]) -> Iterator[str]:
    groups = {"worker", "dlq", "config", "service"}
    plain = [word for word in words if not word.startswith("-")]
    for word in plain[:1]:
        yield word
        if word in groups:
            yield from plain[1:2]


def test_every_command_is_spoken_of(home: Path) -> None:
    """Each command that the help pages show stands in the README."""
    del home
    missing = []
    for group in ([], ["worker"], ["dlq"], ["config"], ["service"]):
        page = support.run_cli(*group, "--help", expect=0).stdout.partition("Options:")[0]
        for name in re.findall(r"^  ([a-z]+)  +\S", page, flags=re.MULTILINE):
            command = " ".join(["queuectl", *group, name])
            if not re.search(rf"{command}\b", README):
                missing.append(command)

    assert missing == []


def test_python_names_exist() -> None:
    """What the table says about `spool.…` can be called, with these arguments."""
    calls = re.findall(r"`spool\.([a-z_]+)\((.*?)\)`", README)

    assert len(calls) > 10
    for name, arguments in calls:
        keywords = re.findall(r"(\w+)=", arguments)
        known = inspect.signature(getattr(queuectl.Spool, name)).parameters
        assert "fields" in known or set(keywords) <= set(known), name


def section(heading: str) -> str:
    return README.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def test_every_setting_has_a_row() -> None:
    """The table of settings has each key with its built-in value."""
    rows = re.findall(r"^\| `([a-z_]+)` \| (\S+) \|", section("Settings"), flags=re.MULTILINE)

    built_in = {
        name: None if shown == "unset" else settings.KEYS[name].check(_typed(shown)) for name, shown in rows
    }

    assert built_in == {name: key.default for name, key in settings.KEYS.items()}


def _typed(shown: str) -> str | int:
    return int(shown) if shown.isdigit() else shown


def test_every_producer_field_has_a_row() -> None:
    """The table of the job file has each field, in order."""
    assert re.findall(r"^\| `([a-z_]+)` \|", section("The job file"), flags=re.MULTILINE) == list(
        record.PRODUCER_FIELDS
    )


def test_every_library_has_a_reason() -> None:
    """Each dependency has one line that says why it is there."""
    import tomllib

    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))
    wanted = sorted(re.split(r"[<>=]", line)[0] for line in project["project"]["dependencies"])

    assert re.findall(r"^\| `([a-z_]+)` \|", section("Libraries"), flags=re.MULTILINE) == wanted


def test_the_version_has_an_entry_in_the_changes() -> None:
    """What is installed is what the changes end with."""
    assert section("Changes").lstrip().startswith(f"### {queuectl.__version__}")


def test_every_promise_names_tests_that_exist() -> None:
    """A promise without a test is a wish."""
    section = README.partition("## Promises and limits")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| ") and not line.startswith("| when")]
    named = [re.findall(r"`([a-z]+/test_[a-z_]+\.py)`", row.rpartition(" | ")[2]) for row in rows]

    assert len(rows) > 10
    assert all(named)
    missing = {name for names in named for name in names if not (Path(__file__).parents[1] / name).is_file()}
    assert missing == set()
