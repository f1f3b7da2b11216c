"""Every command line of the requirements (C01 to C28), typed in an empty home."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import tomllib
from typing import TYPE_CHECKING

import pytest
from documents import PAGES, TOP

import support

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Type = Callable[..., str]

GENERATED = r"[0-9]{8}T[0-9]{6}-[0-9a-z]{8}"


@pytest.fixture
def home(spool_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty home folder, and no variable that names a spool."""
    monkeypatch.delenv("QUEUECTL_SPOOL")
    fresh = spool_dir.parent / "home"
    yield fresh
    if (fresh / ".queuectl" / "data" / "workers").exists():
        support.run_cli("worker", "stop", "--force", cwd=fresh, timeout=20)


@pytest.fixture
def spool(home: Path) -> Path:
    """Where the first command makes the spool."""
    return home / ".queuectl"


@pytest.fixture
def typed(home: Path) -> Type:
    """Run a line of the requirements in that home; returns what it prints."""

    def run(line: str, *, expect: int = 0, stdin: str | None = None) -> str:
        program, *words = shlex.split(line)
        assert program == "queuectl"
        return support.run_cli(*words, expect=expect, stdin=stdin, cwd=home).stdout

    return run


def work_off(typed: Type) -> str:
    """Run the waiting jobs, retries included; returns what the worker printed."""
    return typed("queuectl worker start --foreground --drain --wait-retries")


def test_c01_enqueue_a_shell_command(typed: Type, spool: Path) -> None:
    """C01: the text is a shell command, and its new id is printed; the first command makes the spool (T69)."""
    told = typed("""queuectl enqueue "python3 -c \\"print('Hello')\\"" """)

    assert re.fullmatch(rf"enqueued job {GENERATED}\n", told)
    job_id = told.split()[-1]
    work_off(typed)
    assert typed(f"queuectl logs {job_id}") == "Hello\n"
    assert support.load(spool / "done" / f"{job_id}.json")["command"] == "python3 -c \"print('Hello')\""


def test_c02_enqueue_a_job_in_json(typed: Type) -> None:
    """C02: the text is a JSON object."""
    told = typed("""queuectl enqueue '{"id":"job1","command":"echo Hello World"}'""")

    assert told == "enqueued job job1\n"
    work_off(typed)
    assert typed("queuectl logs job1") == "Hello World\n"


def test_c03_enqueue_a_file(typed: Type, home: Path, spool: Path) -> None:
    """C03: an object with id, command and max_retries in a file."""
    (home / "job.json").write_text('{"id": "job1", "command": "echo Hello from QueueCTL", "max_retries": 2}')

    assert typed("queuectl enqueue --file job.json") == "enqueued job job1\n"

    assert support.load(spool / "pending" / "job1.json")["max_retries"] == 2
    assert typed("queuectl list") == "job1 - pending - echo Hello from QueueCTL\n"


@pytest.mark.parametrize(
    ("flags", "wanted"),
    [
        ("", {"timeout": 20, "max_retries": 3, "backoff_base": 2, "priority": 5}),
        ("--timeout 5 --max-retries 3", {"timeout": 5, "max_retries": 3}),
        ("--priority 8", {"priority": 8}),
        (
            "--timeout 5 --max-retries 3 --backoff-base 2 --priority 8",
            {"timeout": 5, "max_retries": 3, "backoff_base": 2, "priority": 8},
        ),
    ],
    ids=["C04", "C05", "C06", "C07"],
)
def test_c04_to_c07_enqueue_with_flags(typed: Type, spool: Path, flags: str, wanted: dict[str, int]) -> None:
    """C04-C07: id and command as flags, limits of its own, and the defaults without."""
    told = typed(f'queuectl enqueue --id job1 --command "echo Hello World" {flags}')

    assert told == "enqueued job job1\n"
    record = support.load(spool / "pending" / "job1.json")
    assert {name: record[name] for name in wanted} == wanted
    assert (record["id"], record["command"]) == ("job1", "echo Hello World")


@pytest.mark.parametrize("flags", ["", "--count 1", "--count 3"])
def test_c08_c09_c11_start_and_stop_workers(typed: Type, spool: Path, flags: str) -> None:
    """C08, C09, C11: one worker or N, in the background, ready when the command returns; all stop gracefully."""
    number = int(flags[-1:] or 1)
    typed('queuectl enqueue --id job1 --command "echo Hello"')

    *lines, started, pids = typed(f"queuectl worker start {flags}").splitlines()

    assert started == f"Started {number} worker(s)"
    found = [re.fullmatch(r"\[worker-(\d+)\] started PID=(\d+)", line) for line in lines]
    assert sorted(int(line[1]) for line in found if line) == list(range(number))
    assert pids == f"Worker PIDs: [{', '.join(line[2] for line in found if line)}]"
    support.wait_until(lambda: support.finished(spool, "job1"), message="job1 to end")
    assert "executing job job1: echo Hello" in typed("queuectl worker logs")
    assert typed("queuectl worker stop") == f"Stopped {number} worker(s)\n"
    assert typed("queuectl worker stop") == "No workers to stop\n"


def test_c10_worker_in_the_foreground(typed: Type) -> None:
    """C10: workers in this terminal; each job's start and end with id, command, priority, attempt, limit, time and code."""
    typed('queuectl enqueue --id good --command "echo Hello" --priority 8 --timeout 9')
    typed('queuectl enqueue --id bad --command "exit 3" --max-retries 2 --backoff-base 1')

    said = typed("queuectl worker start --foreground --drain --wait-retries")

    assert re.search(r"^\[worker-0\] started PID=\d+$", said, flags=re.MULTILINE)
    assert "[worker-0] executing job good: echo Hello\n" in said
    assert re.search(r"priority 8, attempt 1/3, timeout 9s", said)
    assert "[worker-0] completed good\n" in said
    assert re.search(r"execution time \d+\.\d{3}s, exit code 0", said)
    assert re.search(r"priority 5, attempt 2/2, timeout 20s", said)
    assert re.search(r"execution time \d+\.\d{3}s, exit code 3", said)
    assert "[worker-0] dead bad: Exit code 3\n" in said


def test_c12_status(typed: Type) -> None:
    """C12: counts by state; the line is that of the second seed, letter by letter."""
    nothing = "jobs: {'pending': 0, 'processing': 0, 'completed': 0, 'failed': 0, 'dead': 0}\nworkers: 0\n"
    assert typed("queuectl status") == nothing
    typed('queuectl enqueue --id job1 --command "echo Hello"')
    work_off(typed)

    assert typed("queuectl status") == nothing.replace("'completed': 0", "'completed': 1")


def test_c13_c14_list(typed: Type, spool: Path) -> None:
    """C13, C14: all jobs, or those of one state, each state by its name, done as well as completed."""
    typed("queuectl enqueue --id completed1 --command true")
    typed("queuectl enqueue --id dead1 --max-retries 1 --command false")
    typed("queuectl enqueue --id failed1 --backoff-base 99 --command false")
    typed("queuectl worker start --foreground --drain")
    typed("queuectl enqueue --id pending1 --delay 1h --command true")
    typed("queuectl enqueue --id processing1 --timeout 0 --command 'sleep 60'")
    typed("queuectl worker start")
    support.wait_until(
        lambda: support.where_is(spool, "processing1") == ["processing/worker-0"], message="a claim"
    )

    lines = {
        state: f"{state}1 - {state} - " for state in ("completed", "dead", "failed", "pending", "processing")
    }
    for state, line in lines.items():
        assert re.fullmatch(rf"{line}\S.*\n", typed(f"queuectl list --state {state}"))
    assert typed("queuectl list --state done") == typed("queuectl list --state completed")
    everything = typed("queuectl list").splitlines()
    assert sorted(line.split()[0] for line in everything) == sorted(f"{state}1" for state in lines)
    assert typed("queuectl worker stop --force") == "Stopped 1 worker(s)\n"


def test_c15_show(typed: Type) -> None:
    """C15: details with the output, under the names of the first seed."""
    typed('queuectl enqueue --id job1 --command "echo Hello"')
    work_off(typed)

    shown = [re.split(r"\s{2,}", line, maxsplit=1) for line in typed("queuectl show job1").splitlines()]

    fields = {name: value for name, value in shown if name}
    assert shown[0] == ["Field", "Value"]
    wanted = {"ID": "job1", "Command": "echo Hello", "State": "completed", "Priority": "5", "Timeout": "20s"}
    assert wanted.items() <= fields.items()
    assert {
        "Max Retries": "3",
        "Backoff Base": "2",
        "Attempts": "1/3",
        "Output": "Hello",
    }.items() <= fields.items()
    assert re.fullmatch(r"\d+\.\d{3}s", fields["Exec Time"])
    for name in ("Created", "Started", "Finished"):
        assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", fields[name])


def test_c16_to_c18_dead_letters(typed: Type, spool: Path) -> None:
    """C16-C18: dead jobs are listed with their reason; retry sends them back, on request with a longer timeout."""
    typed("queuectl enqueue --id job1 --max-retries 1 --command 'exit 3'")
    typed("queuectl enqueue --id job2 --max-retries 1 --timeout 0.2 --command 'sleep 2'")
    work_off(typed)

    assert typed("queuectl dlq list") == (
        "job1 - exit 3 - 1 - Exit code 3\njob2 - sleep 2 - 1 - Timeout exceeded (0.2s)\n"
    )
    typed("queuectl dlq retry job1")
    typed("queuectl dlq retry job2 --timeout 60")
    assert typed("queuectl dlq list") == ""
    assert support.load(spool / "pending" / "job1.json").get("attempts", 0) == 0
    work_off(typed)
    assert typed("queuectl list --state completed") == "job2 - completed - sleep 2\n"
    assert support.load(spool / "done" / "job2.json")["timeout"] == 60
    assert typed("queuectl dlq retry job2", expect=1) == ""
    assert typed("queuectl dlq retry nobody", expect=1) == ""


def test_c19_clear_the_dead_letters(typed: Type, spool: Path) -> None:
    """C19: it asks first; without an answer nothing is deleted; --yes deletes the dead jobs only."""
    typed("queuectl enqueue --id job1 --max-retries 1 --command 'exit 3'")
    typed("queuectl enqueue --id job2 --command true")
    work_off(typed)

    typed("queuectl dlq clear", expect=1)
    assert support.where_is(spool, "job1") == ["dead"]
    assert typed("queuectl dlq clear --yes") == "Deleted 1 job(s)\n"

    assert typed("queuectl list") == "job2 - completed - true\n"


def test_c20_to_c22_config(typed: Type, spool: Path) -> None:
    """C20-C22: set and get one setting, get all; both spellings are one key; the next job has the new value."""
    assert typed("queuectl config set max_retries 5") == "max_retries = 5\n"
    assert typed("queuectl config set backoff_base 3") == "backoff_base = 3\n"
    assert typed("queuectl config get max_retries") == "max_retries = 5\n"
    assert typed("queuectl config get backoff_base") == "backoff_base = 3\n"
    assert typed("queuectl config set max-retries 4") == "max-retries = 4\n"

    everything = dict(line.split(" = ") for line in typed("queuectl config get").splitlines())
    assert {
        "max_retries": "4",
        "backoff_base": "3",
        "timeout": "20",
        "priority": "5",
    }.items() <= everything.items()
    typed("queuectl enqueue --id job1 --command true")
    record = support.load(spool / "pending" / "job1.json")
    assert (record["max_retries"], record["backoff_base"]) == (4, 3)
    assert typed("queuectl config set max_retries many", expect=2) == ""
    assert typed("queuectl config set no_such_key 1", expect=2) == ""


def test_c23_clear(typed: Type) -> None:
    """C23: deletes all jobs, asking first."""
    for state in ("completed", "dead"):
        command = "true" if state == "completed" else "false"
        typed(f"queuectl enqueue --id {state}1 --max-retries 1 --command {command}")
    work_off(typed)
    typed("queuectl enqueue --id pending1 --command true")

    typed("queuectl clear", expect=1)
    assert len(typed("queuectl list").splitlines()) == 3
    assert typed("queuectl clear --yes") == "Deleted 3 job(s)\n"

    assert typed("queuectl list") == ""
    assert json.loads(typed("queuectl list --json")) == []


def test_c24_to_c26_packaging_is_as_documented() -> None:
    """C24-C26: pip installs the command; PyInstaller and pytest are documented. test_executable builds the file."""
    project = tomllib.loads((TOP / "pyproject.toml").read_text(encoding="utf-8"))
    documents = "".join(PAGES.values())

    assert project["project"]["scripts"]["queuectl"]
    assert project["tool"]["pytest"]["ini_options"]["testpaths"] == ["tests"]
    assert any(need.startswith("pyinstaller") for need in project["project"]["optional-dependencies"]["test"])
    assert re.search(r"^pip install -e ", documents.replace("`", "\n"), flags=re.MULTILINE)
    assert re.search(r"^pyinstaller .*--onefile .*--name queuectl ", documents, flags=re.MULTILINE)
    assert "dist/queuectl" in documents
    assert re.search(r"\bpytest\b", documents)


def test_c27_files_alone_operate_the_queue(typed: Type, home: Path, spool: Path) -> None:
    """C27: another tool drops job.json; a dead job is fixed and sent back with a file manager."""
    typed("queuectl status")  # somebody has used the spool before: its folders are there
    (home / "job.json").write_text('{"command": "test -e mended"}')
    typed("queuectl config set max_retries 1")
    shutil.copy(home / "job.json", spool / "pending" / "job.json")

    typed("queuectl worker start --foreground --drain")
    assert support.load(spool / "dead" / "job.json")["last_error"] == "Exit code 1"
    (home / "mended").touch()
    shutil.move(spool / "dead" / "job.json", spool / "pending" / "job.json")
    assert typed("queuectl list") == "job - pending - test -e mended\n"
    typed("queuectl worker start --foreground --drain")

    assert typed("queuectl list") == "job - completed - test -e mended\n"
    (spool / "done" / "job.json").unlink()
    assert typed("queuectl list") == ""


@pytest.mark.parametrize(
    "group", ["", "enqueue", "worker", "worker start", "dlq", "dlq retry", "config", "list", "show", "clear"]
)
def test_c28_help_at_every_level(typed: Type, group: str) -> None:
    """C28: each help page has the usage and examples."""
    page = typed(f"queuectl {group} --help")

    assert f"Usage: queuectl {group}".rstrip() in page
    assert "Examples:" in page


def test_c28_version(typed: Type) -> None:
    """C28: the version of the package."""
    project = tomllib.loads((TOP / "pyproject.toml").read_text(encoding="utf-8"))
    assert typed("queuectl --version") == f"queuectl {project['project']['version']}\n"
