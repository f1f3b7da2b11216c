"""Jobs as people type them: a list in JSON, a number for an id, a forgotten `--`, a list of names with a mark."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING

import pytest

from queuectl import Spool

from support import drain, drop, load, where_is

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    Cli = Callable[..., subprocess.CompletedProcess[str]]


def commands(spool_dir: Path) -> list[object]:
    return [load(path)["command"] for path in sorted((spool_dir / "pending").glob("*.json"))]


def test_list_of_jobs_is_taken_as_jobs(cli: Cli, spool_dir: Path) -> None:
    """It was queued as a command for the shell, which does not know it. Flags hold for each job."""
    text = '[{"id": "a", "command": "true"}, {"id": "b", "command": ["echo", "hi"], "run_at": "+1h"}]'
    done = cli("enqueue", text, "--priority", "8", expect=0)
    assert done.stdout == "enqueued job a\nenqueued job b\n"
    assert commands(spool_dir) == ["true", ["echo", "hi"]]
    assert load(spool_dir / "pending" / "b.json")["priority"] == 8
    assert cli("enqueue", ' [ {"id": "c", "command": "x"} ]', expect=0).stdout == "enqueued job c\n"
    assert cli("enqueue", '["echo", "two words"]', "--id", "d", expect=0).stdout == "enqueued job d\n"
    assert commands(spool_dir)[2:] == ["x", ["echo", "two words"]]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[{"command": "true"}', "a list of jobs in JSON, but this one is not JSON"),
        ('[{"command": "true"}, 5]', "it must hold jobs"),
        ('["echo", 5]', "it must hold jobs"),
        ("[]", "it must hold jobs"),
    ],
)
def test_list_that_holds_something_else_is_refused(cli: Cli, spool_dir: Path, text: str, says: str) -> None:
    """And nothing is queued."""
    refused = cli("enqueue", text, expect=2).stderr
    assert says in refused
    assert "use --command" in refused
    assert not (spool_dir / "pending").exists() or commands(spool_dir) == []


@pytest.mark.parametrize("text", ["[ -d / ]", '[ "a" = "a" ] && echo yes', "[ -f /x ] || true", "[ a ]"])
def test_tests_of_the_shell_are_commands(cli: Cli, spool_dir: Path, text: str) -> None:
    """`[` is the name of a program."""
    cli("enqueue", text, expect=0)
    assert commands(spool_dir) == [text]


def test_one_wrong_job_of_a_list_is_named(cli: Cli, spool_dir: Path) -> None:
    """The jobs before it are queued, as with a file."""
    refused = cli("enqueue", '[{"command": "a"}, {"command": "b", "priority": 99}]', expect=2).stderr
    assert "TEXT job 2: invalid job: priority" in refused
    assert "1 job before it was queued" in refused


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["rm", "my file"], ["rm", "my file"]),
        (["echo", "$HOME", "it's", "a;b"], ["echo", "$HOME", "it's", "a;b"]),
        (["ls", "--all", "my dir"], ["ls", "--all", "my dir"]),
    ],
)
def test_hint_for_a_forgotten_dash_works_as_typed(
    cli: Cli, spool_dir: Path, words: list[str], meant: list[str]
) -> None:
    """The quotes that the shell has taken off are in it again: `rm "my file"` must not become `rm my file`."""
    hint = cli("enqueue", *words, expect=2).stderr.partition("hint: ")[2]
    typed = shlex.split(hint)
    assert typed == ["queuectl", "enqueue", "--", *meant]
    cli(*typed[1:], expect=0)
    assert commands(spool_dir) == [meant]


def test_hint_after_options_shows_none_of_their_values(cli: Cli, spool_dir: Path) -> None:
    """One of them may be a password."""
    said = cli("enqueue", "--env", "TOKEN=sesame", "ls", "--wide", "a b", expect=2).stderr
    assert "queuectl enqueue [OPTIONS] -- ls --wide 'a b'" in said
    assert "sesame" not in said


def test_number_is_taken_as_an_id(cli: Cli, spool_dir: Path) -> None:
    """Typed, in a file and dropped; 1 and "1" are the same id, and 1.5 and true are none."""
    cli("enqueue", '{"id": 1, "command": "true"}', expect=0)
    cli("enqueue", "--file", "-", stdin='{"id": 2, "command": "true"}\n', expect=0)
    drop(spool_dir, "x", id=3, command="true")
    assert Spool(spool_dir).enqueue({"id": 4, "command": "true"}).id == "4"
    drain(spool_dir)
    assert [where_is(spool_dir, job_id) for job_id in "1234"] == [["done"]] * 4
    assert load(spool_dir / "done" / "1.json")["id"] == "1"
    assert "'1'" in cli("enqueue", '{"id": "1", "command": "true"}', expect=1).stderr
    for wrong in ("1.5", "true", "-1"):
        assert "id:" in cli("enqueue", f'{{"id": {wrong}, "command": "true"}}', expect=2).stderr
    twice = '{"id": 7, "command": "a"}\n{"id": "7", "command": "a"}\n'
    assert "an earlier job in the file has it" in cli("check", "-", stdin=twice, expect=1).stdout


@pytest.mark.parametrize("text", ["\ufeffa b\nc\n", "a b\r\nc", "\ufeffa b\r\nc\r\n"])
def test_byte_order_mark_is_no_part_of_the_first_name(cli: Cli, spool_dir: Path, text: str) -> None:
    """A list that an editor on Windows has saved begins with one."""
    cli("enqueue", "--each", "-", "--id", "n{n}", "--", "cat", "{}", stdin=text, expect=0)
    assert commands(spool_dir) == [["cat", "a b"], ["cat", "c"]]


def test_check_says_that_a_file_of_several_jobs_cannot_be_dropped(
    cli: Cli, spool_dir: Path, tmp_path: Path
) -> None:
    """It passed a file that goes to dead/ when it is dropped."""
    several = tmp_path / "jobs.json"
    several.write_text(json.dumps([{"command": "a"}, {"command": "b"}]))
    one = tmp_path / "one.json"
    one.write_text('{"command": "a"}')
    assert "a dropped file holds one job, in JSON" in cli("check", str(several), expect=0).stderr
    assert cli("check", str(one), expect=0).stderr == ""

    dropped = drop(spool_dir, "x", command="a")
    dropped.write_text('{"command": "a"}\n{"command": "b"}\n')
    said = cli("check", str(dropped), expect=1)
    assert "a dropped file holds one job, in JSON: queuectl enqueue --file" in said.stdout


@pytest.mark.parametrize("name", ["cmd", "Command", "COMMAND", "script"])
def test_command_under_another_name_is_pointed_at(cli: Cli, spool_dir: Path, name: str) -> None:
    """Else `missing` is all that somebody reads who has written it."""
    wrong = json.dumps({name: "true"})
    assert f"{name!r} is not known, call it command" in cli("enqueue", wrong, expect=2).stderr
    assert f"{name!r} is not known, call it command" in cli("check", "-", stdin=wrong, expect=1).stdout
