"""Users type in what the README and the guide show: every command line in them must work."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from documents import BLOCKS, PAGES, TOP, Block, blocks, name_of, prose, rows, section

import queuectl
from queuectl.job import record

import support

if TYPE_CHECKING:
    from collections.abc import Iterator

NOT_IN_TESTS = {
    "python3 -m venv .venv && . .venv/bin/activate && pip install . && queuectl demo",
    "pip install '.[test]' && pytest",
    "python -m tests.bench",
    "python -m tests.bench setup",
    "python -m tests.bench --image",
    "pip install -e '.[test]'",
    "pytest",
    "pytest -m slow",
    "pip install '.[web]'                     # in a copy of the sources",
    "queuectl web",
    "queuectl web --open                      # the browser opens by itself",
    "queuectl web --url                       # another link to the server that runs",
    "ssh -L 9000:127.0.0.1:8484 server",
    "ssh -L 9000:/run/user/1000/queuectl.socket server   # for queuectl web --socket PATH",
    "python -m tests.mutation",
    "python -m tests.soak --minutes 20",
    "bash .ci/run",
    "queuectl service install --count 2",
    "queuectl service install --engine slurm",
    "sudo queuectl service install --spool /srv/jobs --system --run-as jobs --engine slurm",
    "docker volume create jobs",
    "docker run --detach --name workers --stop-timeout 900 --volume jobs:/spool my-workers",
    'docker exec workers queuectl enqueue --timeout 10m "./convert.sh"',
    "queuectl config set incoming /var/spool/jobs          # made by the next worker: sticky, 1770",
    'queuectl config set incoming_users "alice bob"        # nobody but them',
    "sudo chgrp staff /var/spool/jobs                      # a group with them and the worker's user",
    "pyinstaller --onefile --name queuectl --collect-all queuectl --copy-metadata queuectl \\",
    '  "$(command -v queuectl)"',
}
"""Lines that set up the environment of the tests, or need a system that a test does not have."""


@pytest.fixture
def home(spool_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty home folder without a spool, and `queuectl` on the path."""
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
    """Split a session into pairs: what is typed after `$ `, and the output below it."""
    parts = re.split(r"^\$ ", session, flags=re.MULTILINE)
    assert parts[0] == ""
    found = []
    for part in parts[1:]:
        typed = re.match(r"(?:.*\\\n)*.*\n", part)
        assert typed
        found.append((typed[0], part[typed.end() :]))
    return found


def in_order(text: str) -> str:
    """The text with the lines of several workers sorted by name, because the order in which they start varies."""
    return "\n".join(
        sorted(text.strip().splitlines(), key=lambda line: re.findall(r"^\[worker-\d+\]", line) or ["~"])
    )


def like(shown: str) -> str:
    """A pattern for shown output: … stands for anything, and the width of a gap does not matter."""
    words = re.split(r"(…|\s+)", shown.strip())
    return "".join(".*?" if word == "…" else r"\s+" if word.isspace() else re.escape(word) for word in words)


@pytest.mark.parametrize("block", blocks("console"), ids=name_of)
def test_session_prints_what_is_shown(home: Path, block: Block) -> None:
    """Each command, typed in an empty home, prints what is shown below it."""
    typed = steps(block.text)
    output = type_in(home, "".join(f"{{ {line.rstrip()}\n}}\nprintf '\\0'\n" for line, _ in typed))

    for (line, shown), printed in zip(typed, output.split("\0"), strict=False):
        assert re.fullmatch(like(shown), in_order(printed), flags=re.DOTALL), f"$ {line}{printed}"


@pytest.mark.parametrize("block", blocks("sh"), ids=name_of)
def test_commands_succeed(home: Path, block: Block) -> None:
    """Each block of commands succeeds in an empty home."""
    type_in(home, f"set -e\n{block.text}")


@pytest.mark.parametrize("block", blocks("python"), ids=name_of)
def test_python_runs(home: Path, block: Block) -> None:
    """Each Python block runs unchanged."""
    del home
    subprocess.run([sys.executable, "-W", "error", "-c", block.text], check=True, timeout=50)


@pytest.mark.parametrize("block", blocks("json"), ids=name_of)
def test_jobs_are_valid(block: Block) -> None:
    """Each JSON block is a valid job."""
    assert record.parse(block.text.encode()).command


def test_lines_that_no_test_runs_are_known() -> None:
    """The lines that no test runs are exactly the known ones."""
    lines = {line for block in blocks("sh not-in-tests") for line in block.text.splitlines()}

    assert lines == NOT_IN_TESTS


def test_every_block_is_of_a_tested_kind() -> None:
    """No block is of a kind that these tests ignore."""
    kinds = {
        "console",
        "sh",
        "console on-a-cluster",
        "sh not-in-tests",
        "python",
        "json",
        "ini",
        "yaml",
        "text",
    }

    assert {block.info for block in BLOCKS} <= kinds


def test_nothing_of_ours_names_the_package_of_somebody_else() -> None:
    """The name on the public index is another program's: whoever installs by name runs a stranger's code."""
    asked = ["git", "-C", str(TOP), "ls-files", "-z"]
    listed = []
    if shutil.which("git"):
        listed = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.split("\0")
    paths = [TOP / name for name in listed if name] or [
        one for one in TOP.rglob("*") if ".venv" not in one.parts
    ]
    texts = [one for one in paths if one.suffix in {".py", ".md", ".txt", ".toml", ".yaml"} and one.is_file()]
    named = re.compile(
        r"\b(pipx?|uvx?|uv pip)( -\S+)* (install|run|add|tool install)( -\S+)* ['\"]?queuectl\b"
    )

    assert len(texts) > 100
    found = [str(one) for one in texts if named.search(one.read_text(encoding="utf-8", errors="replace"))]
    assert found == []


def commands_in_text() -> set[str]:
    """Every `queuectl …` in text and tables, and the command that the service runs."""
    services = re.findall(r"^ExecStart=.*/(queuectl .*)$", PAGES["service"], flags=re.MULTILINE)
    assert services
    return {*(line for page in PAGES for line in re.findall(r"`(queuectl [^`]+)`", prose(page))), *services}


def test_commands_in_text_exist(home: Path) -> None:
    """A command in a sentence or table exists, with all its options."""
    del home
    missing = []
    pages: dict[tuple[str, ...], subprocess.CompletedProcess[str]] = {}
    for line in sorted(commands_in_text()):
        words = shlex.split(line.replace("…", ""))[1:]
        path = tuple(_command_path(words))
        page = pages[path] = pages.get(path) or support.run_cli(*path, "--help")
        given = words[: words.index("--")] if "--" in words else words
        options = [word for word in given if word.startswith("-")]
        if page.returncode != 0 or any(option not in page.stdout for option in options):
            missing.append(line)

    assert missing == []


def _command_path(words: list[str]) -> Iterator[str]:
    groups = {"worker", "dlq", "config", "service", "rule"}
    plain = [word for word in words if not word.startswith("-")]
    for word in plain[:1]:
        yield word
        if word in groups:
            yield from plain[1:2]


def test_pages_of_the_guide_that_are_named_exist() -> None:
    """Each page of the guide that is named anywhere exists."""
    named = {topic for text in PAGES.values() for topic in re.findall(r"`queuectl guide ([a-z]+)", text)}

    assert len(named) > 5
    assert named <= set(PAGES)


def test_the_readme_is_short() -> None:
    """The README is for the first hour. The rest belongs in the guide."""
    assert PAGES["README"].count("\n") <= 300


def test_fields_of_the_readme_are_those_of_the_guide() -> None:
    """The README shows some fields, with the same names and defaults as the full table."""
    whole = {cells[0]: cells[2] for cells in rows(section("What you write", "fields"))}
    some = {cells[0]: cells[1] for cells in rows(section("The job file"))}

    assert len(some) > 5
    assert {name: whole.get(name) for name in some} == some


def test_every_library_has_a_reason() -> None:
    """Each dependency has one line that says why it is there."""
    import tomllib

    project = tomllib.loads((TOP / "pyproject.toml").read_text(encoding="utf-8"))
    wanted = sorted(re.split(r"[<>=]", line)[0] for line in project["project"]["dependencies"])

    assert re.findall(r"^\| `([a-z_]+)` \|", section("Libraries"), flags=re.MULTILINE) == wanted


def test_the_version_has_an_entry_in_the_changes() -> None:
    """The newest entry under Changes is that of the installed version."""
    assert section("Changes").lstrip().startswith(f"### {queuectl.__version__}")
