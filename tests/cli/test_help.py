"""The help pages are complete, and a command imports only what it uses."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest
from terminal import on_terminal

import queuectl
from queuectl.cli import plain_worker
from queuectl.cli.base import Group
from queuectl.cli.root import root

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Cli = Callable[..., subprocess.CompletedProcess[str]]

DOCUMENTED = {
    "enqueue", "worker start", "worker stop", "worker scale", "worker list", "worker logs", "status", "list", "show", "logs", "dlq list",
    "dlq show", "dlq edit", "dlq retry", "dlq clear", "config get", "config set", "config unset", "cancel", "retry", "clear", "reindex", "doctor",
    "hold", "release", "pause", "resume", "drain", "demo", "completion", "check", "schema", "stats", "metrics", "top", "web",
    "set", "edit", "remove",
    "batch list", "batch show", "notify mail", "notify webhook", "queue list", "queue show", "queue set", "queue unset", "rule list", "rule show", "rule check", "rule add", "rule run", "rule pause", "rule resume", "rule remove", "service print", "service install", "service uninstall", "purge", "wait", "guide", "man", "engine check",
}  # fmt: skip


def commands(
    group: click.Group = root, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every visible command and group with the words that call it."""
    ctx = click.Context(group, info_name="queuectl")
    for name in group.list_commands(ctx):
        found = group.get_command(ctx, name)
        assert found is not None, name
        yield (*path, name), found
        if isinstance(found, click.Group):
            yield from commands(found, (*path, name))


ALL = list(commands())
PATHS = [path for path, _ in ALL]


def test_every_documented_command_is_there() -> None:
    """The help pages show exactly the documented commands."""
    assert {" ".join(path) for path, found in ALL if not isinstance(found, click.Group)} == DOCUMENTED


@pytest.mark.parametrize("path", [(), *PATHS], ids=" ".join)
def test_help_is_a_page_to_work_from(cli: Cli, spool_dir: Path, path: tuple[str, ...]) -> None:
    """Each page has a description, help for all options, and examples; it creates no spool."""
    page = cli(*path, "--help", expect=0).stdout

    assert page.startswith(f"Usage: {' '.join(('queuectl', *path))} ")
    assert "\nExamples:\n  queuectl" in page.replace("\n  eval", "\n  queuectl")
    assert not re.search(r"^  (-\S+)?--[a-z-]+( [A-Z]\S*)?$", page, flags=re.MULTILINE)
    assert max(map(len, page.splitlines())) <= 100
    assert not spool_dir.exists()


@pytest.mark.parametrize(
    ("path", "command"), ALL, ids=lambda part: " ".join(part) if isinstance(part, tuple) else ""
)
def test_every_option_is_explained(path: tuple[str, ...], command: click.Command) -> None:
    """Every option has a help text, and each command takes --spool, --json and --no-pager."""
    options = [param for param in command.params if isinstance(param, click.Option)]

    assert [param.name for param in options if not param.help and not param.hidden] == []
    assert {"spool", "json", "no_pager"} <= {param.name for param in options}


def test_json_is_offered_only_where_it_works(cli: Cli, spool_dir: Path) -> None:
    """The help of `logs` offered --json, and `logs --json` was refused. --no-pager was unknown to most commands."""
    refuse = {("logs", "a"), ("worker", "logs"), ("man",), ("completion", "bash"), ("web",)}
    shown = {path: cli(*path, "--help", expect=0).stdout for path, _ in ALL}
    assert {path for path, page in shown.items() if "--json " not in page} == {
        tuple(word for word in words if word not in {"a", "bash"}) for words in refuse
    }
    for words in refuse:
        for line in ([*words, "--json"], ["--json", *words]):
            assert "no JSON form" in (told := cli(*line, expect=2).stderr) or "without a JSON form" in told
    assert {path for path, page in shown.items() if "--no-pager " in page} == {
        ("list",), ("show",), ("logs",), ("dlq", "list"), ("dlq", "show"), ("worker", "logs"), ("stats",), ("guide",)
    }  # fmt: skip
    for line in (["--no-pager", "list"], ["status", "--no-pager"], ["config", "--no-pager", "get"]):
        cli(*line, expect=0)


def test_examples_parse() -> None:
    """Every example on a help page is a valid call."""
    for _, found in [((), root), *ALL]:
        for line in getattr(found, "examples", "").splitlines():
            text = re.split(r"\s{3,}|\s\|\s", line.strip())[0]
            if not text.startswith("queuectl "):
                continue
            words = shlex.split(text)[1:]
            context, command = click.Context(root, info_name="queuectl"), root
            while isinstance(command, click.Group):
                name, inner, words = command.resolve_command(context, words)
                assert inner is not None, text
                command, context = inner, click.Context(inner, info_name=name, parent=context)  # type: ignore[assignment]
            command.make_context("x", words[: words.index(">")] if ">" in words else words)


def test_bare_call_shows_how_things_stand(cli: Cli, spool_dir: Path) -> None:
    """`queuectl` alone shows the status and how to get help; with --json only the status."""
    cli("enqueue", "true", expect=0)
    bare = cli(expect=0)

    assert bare.stdout == cli("status", expect=0).stdout
    assert bare.stderr == "for help: queuectl --help\n"
    assert json.loads(cli("--json", expect=0).stdout) == json.loads(cli("status", "--json").stdout)
    assert cli("-h", expect=0).stdout == cli("--help", expect=0).stdout


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["ls"], "no command 'ls'; in queuectl it is 'list'\nhint: queuectl list --help"),
        (
            ["requeue", "job1"],
            "no command 'requeue'; in queuectl it is 'retry'\nhint: queuectl retry --help",
        ),
        (["tail"], "no command 'tail'; in queuectl it is 'logs -f'\nhint: queuectl logs --help"),
        (["HELP"], "no command 'HELP'; in queuectl it is '--help'\nhint: queuectl --help"),
        (
            ["worker", "kill"],
            "no command 'kill'; in queuectl it is 'stop --force'\nhint: queuectl worker stop --help",
        ),
        (
            ["dlq", "requeue"],
            "no command 'requeue'; in queuectl it is 'retry'\nhint: queuectl dlq retry --help",
        ),
        (
            ["dlq", "rm", "job1"],
            "no command 'rm'; in queuectl it is 'queuectl remove JOB'\nhint: queuectl remove --help",
        ),
        (
            ["init"],
            "no command 'init': a spool needs no set-up, the first job makes it\nhint: queuectl enqueue --help",
        ),
        (["undrain"], "no command 'undrain'\nhint: queuectl --help"),
        (["removr"], "no command 'removr'; did you mean 'remove'?\nhint: queuectl remove --help"),
        (["liist"], "no command 'liist'; did you mean 'list'?\nhint: queuectl list --help"),
        (["xyzzy"], "no command 'xyzzy'\nhint: queuectl --help"),
        (
            ["list", "--limt", "3"],
            "no such option '--limt'. Did you mean '--limit'?\nhint: queuectl list --help",
        ),
    ],
)
def test_wrong_word_is_answered_with_the_right_one(
    cli: Cli, spool_dir: Path, words: list[str], told: str
) -> None:
    """Typing errors and command names of other tools get a suggestion."""
    done = cli(*words, expect=2)

    assert (done.stdout, done.stderr) == ("", f"error: {told}\n")


def test_bare_group_shows_its_page_as_an_error(cli: Cli, spool_dir: Path) -> None:
    """A group without a command fails, so that a script with an empty variable notices it."""
    done = cli("dlq", expect=2)

    assert (done.stdout, done.stderr) == ("", cli("dlq", "--help").stdout)


def test_version(cli: Cli) -> None:
    """--version and the installed program print the same version."""
    installed = subprocess.run(
        [Path(sys.executable).parent / "queuectl", "--version"], capture_output=True, text=True, check=True
    )

    assert cli("--version", expect=0).stdout == installed.stdout == f"queuectl {queuectl.__version__}\n"


@pytest.mark.parametrize(
    "words",
    [
        ["--spool", "S", "--json", "dlq", "list"],
        ["dlq", "--spool", "S", "--json", "list"],
        ["dlq", "list", "--spool", "S", "--json"],
        ["--json", "dlq", "--spool=S", "list"],
        ["--spool", "elsewhere", "dlq", "list", "--spool", "S", "--json"],
    ],
)
def test_shared_options_stand_anywhere(cli: Cli, spool_dir: Path, tmp_path: Path, words: list[str]) -> None:
    """--spool and --json work before and after any command name; the last --spool counts."""
    spool = tmp_path / "named"
    (spool / "dead").mkdir(parents=True, mode=0o700)
    (spool / "dead" / "job1.json").write_text('{"command": "x"}')

    done = cli(*(word.replace("S", str(spool)) for word in words), expect=0)

    assert [row["id"] for row in json.loads(done.stdout)] == ["job1"]
    assert not spool_dir.exists()


@pytest.mark.parametrize("words", [["status"], ["list"], ["dlq", "list"], ["worker", "list"], ["config", "get"], ["reindex"],
                                   ["dlq", "clear"], ["clear"], ["dlq", "retry", "--all"], ["worker", "stop"]])  # fmt: skip
def test_json_is_all_there_is(spool_dir: Path, words: list[str]) -> None:
    """With --json a terminal gets only JSON."""
    seen = on_terminal(*words, "--json")

    json.loads(seen.text)
    assert seen.code == 0


LOADS = """
import sys
from queuectl.cli import main
code = main(sys.argv[1:])
heavy = {"rich", "psutil", "yaml", "filelock", "watchdog", "subprocess", "asyncio", "email", "http"}
print(sorted(heavy & set(sys.modules)), "click" in sys.modules, file=sys.stderr)
"""


SLOW = {
    "argparse", "ast", "asyncio", "click", "ctypes", "dataclasses", "email", "enum", "inspect", "json", "logging",
    "orjson", "pathlib", "platform", "psutil", "queue", "re", "shutil", "signal", "subprocess", "tempfile",
    "threading", "traceback", "typing", "uuid", "yaml",
}  # fmt: skip
"""Modules of the standard library and others. None of them is needed to queue a shell command."""
NOT_FOR_ONE = {
    "storage.locate", "storage.settle", "storage.claim", "config.file", "intake.dropped_file", "control.permissions", "intake.reconcile", "system.locks", "intake.loader", "worker.health", "executor.local", "control.registry", "system.fork", "job.redact", "storage.file_pool", "job.strict_json", "system.watcher", "worker.worker",
}  # fmt: skip
"""Modules that queueing one job does not need."""
LOADED = """
import sys
before = set(sys.modules)
from queuectl.cli import main
code = main(sys.argv[1:])
print(*sorted(set(sys.modules) - before), file=sys.stderr)
"""


def test_a_line_of_shell_is_queued_with_little_more_than_the_interpreter(spool_dir: Path) -> None:
    """In a shell loop `queuectl enqueue TEXT` runs a thousand times: each extra module costs 0.2 to 7 ms."""
    done = subprocess.run(
        [sys.executable, "-c", LOADED, "enqueue", "echo 'hello' > \"ä\""],
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = done.stderr.split()

    assert sorted(SLOW & set(loaded)) == []
    assert {room for room in NOT_FOR_ONE if f"queuectl.{room}" in loaded} == set()


def test_the_status_is_told_without_the_slow_modules(spool_dir: Path) -> None:
    """`watch queuectl status` and checks call it all day. With click and the modules behind it, it takes twice as long."""
    words = [sys.executable, "-c", LOADED, "status"]
    subprocess.run([*words[:-1], "enqueue", "true"], capture_output=True, check=True)
    done = subprocess.run(words, capture_output=True, text=True, check=True)

    assert SLOW & set(done.stderr.split()) == {"enum", "signal", "threading"}


@pytest.mark.parametrize(
    ("words", "loaded"),
    [
        (["enqueue", "true"], "[] False"),
        (["enqueue", "--priority", "3", "true"], "[] True"),
        (["enqueue", '{"command": "x"}'], "[] True"),
        (["list"], "[] True"),
        (["status"], "[] False"),
        (["status", "--json"], "[] False"),
        (["--json", "status"], "[] True"),
        (["--help"], "[] True"),
    ],
)
def test_commands_load_only_what_they_use(spool_dir: Path, words: list[str], loaded: str) -> None:
    """Scripts call these commands thousands of times, so no extra library is imported."""
    done = subprocess.run([sys.executable, "-c", LOADS, *words], capture_output=True, text=True, check=True)

    assert done.stderr.splitlines()[-1] == loaded


@pytest.mark.parametrize(
    "words", ["start --foreground --drain -j 2", "run --mode child --drain --concurrency 2"]
)
def test_a_worker_starts_without_the_libraries_of_the_command_line(
    spool_dir: Path, cli: Cli, words: str
) -> None:
    """Its first job would wait for them, and the memory of each worker would hold them."""
    cli("enqueue", "true", expect=0)
    started = [sys.executable, "-c", LOADED, "worker", *words.split()]
    done = subprocess.run(started, capture_output=True, text=True, check=True)

    assert "completed" in done.stdout
    assert {"click", "rich"} & set(done.stderr.split()) == set()


@pytest.mark.parametrize(
    "words",
    [
        "worker start",
        "worker list --foreground",
        "worker start --foreground --json",
        "worker start --foreground --queue mail",
        "worker start --foreground --wait-retries",
        "worker start --foreground -j 0",
        "worker start --foreground -j 10001",
        "worker start --foreground -j 1_0",
        "worker start --foreground -j",
        "worker start --foreground --mode child",
        "worker run --foreground",
        "worker run --mode other",
        "worker run --launch {}",
        "worker run --engine slurm",
        "--spool new worker start --foreground",
        "--json start worker --foreground",
    ],
)
def test_all_other_words_for_a_worker_are_left_to_the_command_line(spool_dir: Path, words: str) -> None:
    """It knows what is wrong with them, and what they mean."""
    assert plain_worker.run(words.split()) is None


def test_many_options_stand_under_headings(cli: Cli, spool_dir: Path) -> None:
    """Each option is under one heading; arguments are not listed as options."""
    page = cli("enqueue", "--help", expect=0).stdout
    found = re.findall(r"^([A-Z][^\n]*):\n((?:  [^\n]*\n)+)", page, flags=re.MULTILINE)
    parts = {heading: re.findall(r"^  .*?(--[a-z-]+)", text, flags=re.MULTILINE) for heading, text in found}

    assert parts["When"] == ["--run-at", "--delay", "--expires-at", "--expires-in"]
    assert [*parts][-2:] == ["Options", "Examples"]
    options = [name for heading, names in parts.items() if heading != "Examples" for name in names]
    assert len(options) == len(set(options)) > 25
    assert "[TEXT" not in page.partition("Options:")[2].partition("Examples:")[0]
    assert "Which jobs:\n  -s, --state" in cli("cancel", "--help", expect=0).stdout


OPPOSITES = {
    "recover": "doctor --repair", "dequeue": "cancel", "unpause": "resume", "unhold": "release", "rerun": "retry",
    "dlq rm": "queuectl remove JOB", "dlq delete": "queuectl remove JOB", "dlq count": "queuectl status",
    "config reset": "unset", "config delete": "unset", "config list": "get", "config show": "get",
    "job": "show", "jobs": "list", "health": "doctor", "follow": "logs -f", "dashboard": "top",
}  # fmt: skip


def test_a_word_of_other_tools_leads_to_what_it_means() -> None:
    """The nearest name may be the opposite: `recover` was sent to `remove`, `dequeue` to `enqueue`."""
    from queuectl.cli.root import root

    context = click.Context(root, info_name="queuectl")
    groups = {"": root}
    for name in root.list_commands(context):
        found = root.get_command(context, name)
        if isinstance(found, Group):
            groups[name] = found
    for group in groups.values():
        for word, right in group.other_words.items():
            assert word not in group.list_commands(context), (
                f"{word} is a command, and its hint is never shown"
            )
            first = right.removeprefix("queuectl ").split()[0]
            home = root if right.startswith("queuectl ") else group
            assert first.startswith("-") or home.get_command(context, first), f"{word}: there is no {right}"
    for words, right in OPPOSITES.items():
        name, _, word = words.rpartition(" ")
        assert groups[name].other_words[word] == right
