"""The manual page contains all help pages, in roff without warnings."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import click
import pytest

from queuectl.cli.commands.man import _quoted, _text
from queuectl.cli.root import root

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Cli = Callable[..., subprocess.CompletedProcess[str]]


def commands(group: click.Group, path: str = "") -> Iterator[tuple[str, click.Command]]:
    ctx = click.Context(group, info_name="queuectl")
    for name in group.list_commands(ctx):
        found = group.get_command(ctx, name)
        assert found is not None
        yield f"{path}{name}", found
        if isinstance(found, click.Group):
            yield from commands(found, f"{path}{name} ")


def shown(page: str) -> tuple[str, str]:
    """The text and the warnings that `man` produces."""
    if not shutil.which("man"):
        pytest.skip("man is not installed")
    done = subprocess.run(
        ["man", "--warnings", "-E", "UTF-8", "-l", "-"], input=page, capture_output=True, text=True, check=True,
        env={"PATH": "/usr/bin:/bin", "MANWIDTH": "100", "MANPAGER": "cat", "LC_ALL": "C.UTF-8", "MAN_KEEP_FORMATTING": ""},
        timeout=50,
    )  # fmt: skip
    return re.sub(r".\x08|\x1b\[[0-9;]*m", "", done.stdout), done.stderr


def test_page_is_shown_without_a_complaint(cli: Cli) -> None:
    """Groff finds no unknown request and no line that it cannot break."""
    text, complaints = shown(cli("man", expect=0).stdout)

    assert complaints == ""
    wanted = [
        "NAME",
        "SYNOPSIS",
        "DESCRIPTION",
        "OPTIONS",
        "JOBS",
        "WORKERS",
        "FILES",
        "ENVIRONMENT",
        "EXIT STATUS",
        "EXAMPLES",
    ]
    assert [heading for heading in wanted if f"\n{heading}\n" not in text] == []
    assert "queuectl - A background job spool made of plain files" in text


def test_every_command_option_and_example_stands_there(cli: Cli) -> None:
    """The manual page contains everything from the help pages, unchanged."""
    text, _ = shown(cli("man", expect=0).stdout)
    lines = {" ".join(line.split()) for line in text.splitlines()}
    missing = []
    for path, found in commands(root):
        if not re.search(rf"^   {path} ", text, flags=re.MULTILINE):
            missing.append(path)
        options = [param.opts for param in found.params if isinstance(param, click.Option)]
        missing += [f"{path} {names}" for names in options if not any(name in text for name in names)]
        examples = getattr(found, "examples", "").splitlines()
        missing += [line for line in examples if line.strip() and " ".join(line.split()) not in lines]

    assert missing == []


def test_text_that_roff_would_read_is_only_text() -> None:
    """A dot at the start of a line, a backslash and a quote are escaped."""
    page = (
        ".TH X 1\n.SH X\n"
        + "\n.br\n".join(map(_text, [".SH no", "'nor this", "a\\nb -- `c` ~d^"]))
        + "\n.TP\n.B "
        + _quoted('--x "y"')
    )
    text, complaints = shown(page)

    assert complaints == ""
    for line in (".SH no", "'nor this", "a\\nb -- `c` ~d^", '--x "y"'):
        assert line in text


def test_page_is_no_json(cli: Cli) -> None:
    """--json is refused."""
    assert "the manual page has no JSON form" in cli("man", "--json", expect=2).stderr
