"""`queuectl guide`: every topic has a page, and the tables of the pages are complete."""

from __future__ import annotations

import inspect
import json
import re
from typing import TYPE_CHECKING

import pytest
from documents import BLOCKS, GUIDE, PAGES, TOP, rows, section
from terminal import on_terminal

import queuectl
from queuectl.cli.commands.guide import TOPICS
from queuectl.config.keys import KEYS
from queuectl.job import record

import support

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    Cli = Callable[..., subprocess.CompletedProcess[str]]

WIDEST_LINE_OF_A_BLOCK = 98
"""On a terminal a page has 100 columns, and a block has margins: a longer line would be wrapped."""


def test_every_topic_is_a_page_and_every_page_a_topic() -> None:
    """Each listed topic has a file, and each file is listed."""
    assert sorted(TOPICS) == sorted(path.stem for path in GUIDE.iterdir())
    assert [name for name in TOPICS if not PAGES[name].startswith("# ")] == []


def test_without_a_topic_the_pages_are_listed(cli: Cli, spool_dir: Path) -> None:
    """Without a topic each page gets one line: in a pipe, on a terminal, and as JSON. No spool is made."""
    lines = [f"{topic} - {summary}" for topic, summary in TOPICS.items()]

    assert cli("guide", expect=0).stdout.splitlines() == lines
    assert json.loads(cli("guide", "--json", expect=0).stdout) == [
        {"topic": topic, "summary": summary} for topic, summary in TOPICS.items()
    ]
    seen = on_terminal("guide").text
    assert all(topic in seen and summary in seen for topic, summary in TOPICS.items())
    assert not spool_dir.exists()


@pytest.mark.parametrize("topic", TOPICS)
def test_in_a_pipe_a_page_is_plain_markdown(cli: Cli, topic: str) -> None:
    """In a pipe the page is printed byte for byte, so that it can be searched and kept."""
    assert cli("guide", topic, expect=0).stdout == PAGES[topic]
    assert json.loads(cli("guide", topic, "--json", expect=0).stdout)["markdown"] == PAGES[topic]


@pytest.mark.parametrize("topic", TOPICS)
def test_on_a_terminal_a_page_is_laid_out(topic: str) -> None:
    """On a terminal no Markdown is left, the lines fit, and no command is wrapped."""
    seen = on_terminal("guide", topic, width=120)
    lines = [line.strip() for line in seen.text.splitlines()]

    assert seen.code == 0
    assert max(map(len, seen.text.splitlines())) <= 100
    assert [line for line in lines if line.startswith(("```", "| ", "|--"))] == []
    typed = [
        line for block in BLOCKS if block.page == topic for line in block.text.expandtabs(1).splitlines()
    ]
    assert [line for line in typed if line.strip() not in lines] == []


def test_on_a_terminal_a_page_goes_through_the_pager(tmp_path: Path) -> None:
    """The pager is used, except with --no-pager."""
    pager = tmp_path / "pager"
    pager.write_text("#!/bin/sh\nsed 's/^/>> /'\n")
    pager.chmod(0o755)

    assert ">> " in on_terminal("guide", "rules", env={"PAGER": str(pager)}).text
    assert ">> " not in on_terminal("guide", "rules", "--no-pager", env={"PAGER": str(pager)}).text


@pytest.mark.parametrize(
    ("topic", "told"),
    [
        ("setings", "the guide has no page 'setings'; did you mean 'settings'?"),
        ("../../README", "the guide has no page '../../README'"),
        ("xyzzy", "the guide has no page 'xyzzy'"),
    ],
)
def test_an_unknown_topic_is_a_usage_error(cli: Cli, topic: str, told: str) -> None:
    """An unknown topic gives one line of fact and a hint."""
    done = cli("guide", topic, expect=2)

    assert (done.stdout, done.stderr) == ("", f"error: {told}\nhint: queuectl guide\n")


def test_blocks_are_narrow_enough_for_a_terminal() -> None:
    """A wrapped command could not be copied."""
    wide = [
        f"{block.page}:{block.line}: {line}"
        for block in BLOCKS
        if block.page in TOPICS
        for line in block.text.splitlines()
        if len(line) > WIDEST_LINE_OF_A_BLOCK
    ]

    assert wide == []


def test_every_command_is_on_its_page(spool_dir: Path) -> None:
    """Each command of the help pages is on the page `commands`."""
    del spool_dir
    missing = []
    for group in ([], ["worker"], ["batch"], ["dlq"], ["config"], ["service"]):
        page = support.run_cli(*group, "--help", expect=0).stdout.partition("Options:")[0]
        for name in re.findall(r"^  ([a-z]+)  +\S", page, flags=re.MULTILINE):
            command = " ".join(["queuectl", *group, name])
            if not re.search(rf"{command}\b", PAGES["commands"]):
                missing.append(command)

    assert missing == []


def test_python_names_exist() -> None:
    """Each call of `spool.…` in the documents exists, with these arguments."""
    calls = re.findall(r"`spool\.([a-z_]+)\((.*?)\)`", "".join(PAGES.values()))

    assert len(calls) > 10
    for name, arguments in calls:
        keywords = re.findall(r"(\w+)=", arguments)
        known = inspect.signature(getattr(queuectl.Spool, name)).parameters
        assert "fields" in known or set(keywords) <= set(known), name


def test_every_setting_has_a_row() -> None:
    """The table of settings has each key with its built-in value."""
    shown = {key.strip("`"): value for key, value, _ in rows(PAGES["settings"])}

    built_in = {
        name: None if value == "unset" else KEYS[name].check(int(value) if value.isdigit() else value)
        for name, value in shown.items()
    }

    assert built_in == {name: key.default or None for name, key in KEYS.items()}


def test_every_producer_field_has_a_row() -> None:
    """The table of fields has each field, in order, and it is the only one."""
    names = [f"`{name}`" for name in record.PRODUCER_FIELDS]

    assert [cells[0] for cells in rows(section("What you write", "fields"))] == names
    example = (TOP / "spool_example" / "README.md").read_text(encoding="utf-8")
    assert [
        line for line in example.splitlines() if line.startswith(("| `backoff_base`", "| `if_exists`"))
    ] == []
    assert "queuectl guide fields" in example


def test_every_field_that_queuectl_writes_is_named() -> None:
    """The page explains each field that queuectl writes into a job file."""
    named = section("What queuectl writes", "fields")
    written = record.KNOWN.difference(record.PRODUCER_FIELDS)

    assert [name for name in sorted(written) if f"`{name}`" not in named] == []


def test_every_promise_names_tests_that_exist() -> None:
    """Each promise names tests, and each of these files exists."""
    promises = rows(PAGES["promises"])
    named = [re.findall(r"`([a-z]+/test_[a-z_]+\.py)`", cells[-1]) for cells in promises]

    assert len(named) > 10
    assert all(named)
    assert {name for names in named for name in names if not (TOP / "tests" / name).is_file()} == set()


def test_job_with_a_schema_attached_is_accepted(cli: Cli, spool_dir: Path) -> None:
    """As the page of fields says: the field for editors is kept, has no effect, and is no slip of another field."""
    text = '{"$schema": "/home/me/queuectl-job.schema.json", "id": "a", "command": "true"}'
    done = cli("enqueue", text, expect=0)
    assert (done.stdout, done.stderr) == ("enqueued job a\n", "")
    assert "$schema" in (spool_dir / "pending" / "a.json").read_text()
