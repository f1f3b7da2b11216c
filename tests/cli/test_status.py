"""The output of status, list and show is correct for people and for scripts, and safe for terminals."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest
from terminal import on_terminal

from queuectl import Spool
from queuectl.cli import render

from support import drain, drop, drop_bytes

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    Cli = Callable[..., subprocess.CompletedProcess[str]]

NASTY = "\x1b]0;owned\x07\x1b[2J\x9b31m\x7f\u202etxt.exe\u2066\ud83c\udf89 grüße\r\n\ttab"
RISKY = [b"\x1b]0", b"\x1b[2J", b"\x07", b"\x7f", "\x9b".encode(), "\u202e".encode(), "\u2066".encode()]


def place(spool: Path, folder: str, job_id: str, **fields: Any) -> None:
    """Put a job file into any folder of the spool."""
    record = {"id": job_id, "command": "echo x", **fields}
    drop_bytes(spool, f"{job_id}.json", json.dumps(record).encode(), folder)


@pytest.fixture
def five(spool_dir: Path) -> Path:
    """A spool with one completed, one failed, two pending and one dead job."""
    place(spool_dir, "done", "job1", command="echo Hello", exit_code=0, attempts=1, duration=0.234)
    place(spool_dir, "pending", "job2", state="failed", attempts=1, next_retry_at="2099-01-01T00:00:00Z")
    place(spool_dir, "pending", "job3", command=["printf", "a b\n"])
    place(spool_dir, "pending", "job4", command="echo a\necho b")
    place(spool_dir, "dead", "job5", attempts=3, max_retries=3, last_error="Timeout exceeded (5s)")
    return spool_dir


def test_status_in_a_pipe_is_two_literal_lines(cli: Cli, five: Path) -> None:
    """The counts are in the documented order; an empty spool has five zeros."""
    done = cli("status", expect=0)
    empty = cli("--spool", five.parent / "other", "status", expect=0)

    assert done.stdout == (
        "jobs: {'pending': 2, 'processing': 0, 'completed': 1, 'failed': 1, 'dead': 1}\nworkers: 0\n"
    )
    assert empty.stdout == (
        "jobs: {'pending': 0, 'processing': 0, 'completed': 0, 'failed': 0, 'dead': 0}\nworkers: 0\n"
    )


def test_status_on_a_terminal_is_a_table(five: Path) -> None:
    """On a terminal the table has the documented rows in the documented order."""
    seen = on_terminal("status")

    lines = seen.text.splitlines()
    assert lines[0].strip() == "QueueCTL System Status"
    rows = ["Total Jobs", "Pending", "Processing", "Completed", "Failed", "Dead (DLQ)", "Workers", "Index"]
    assert [next((n for n, line in enumerate(lines) if line.strip().startswith(row)), 0) for row in rows] == [
        4, 5, 6, 7, 8, 9, 10, 11,
    ]  # fmt: skip
    assert lines[4].split() == ["Total", "Jobs", "5"]
    # A long path goes on in the next line.
    assert "".join(" ".join(lines[11:]).split()[1:]).startswith(str(five / "data" / "queuectl.db"))


def test_status_as_json(cli: Cli, five: Path) -> None:
    """--json has the counts, the workers and the paths."""
    told = json.loads(cli("status", "--json", expect=0).stdout)

    assert told == {
        "jobs": {"pending": 2, "processing": 0, "completed": 1, "failed": 1, "dead": 1},
        "total": 5,
        "workers": 0,
        "slots": 0,
        "slots_used": 0,
        "dispatchers": [],
        "spool": str(five),
        "index": str(five / "data" / "queuectl.db"),
        "paused": None,
        "notes": [],
    }


def test_list_in_a_pipe_is_a_line_a_job(cli: Cli, five: Path) -> None:
    """Every job is listed; line ends in a command are escapes, so that each job is one line."""
    lines = cli("list", expect=0).stdout.splitlines()

    assert sorted(lines) == [
        "job1 - completed - echo Hello",
        "job2 - failed - echo x",
        "job3 - pending - printf 'a b\\n'",
        "job4 - pending - echo a\\necho b",
        "job5 - dead - echo x",
    ]


@pytest.mark.parametrize(
    ("state", "ids"),
    [
        ("pending", ["job3", "job4"]),
        ("processing", []),
        ("completed", ["job1"]),
        ("done", ["job1"]),
        ("DONE", ["job1"]),
        ("failed", ["job2"]),
        ("dead", ["job5"]),
    ],
)
def test_list_of_a_state(cli: Cli, five: Path, state: str, ids: list[str]) -> None:
    """--state selects the jobs, done means completed, and JSON is an array even when empty."""
    rows = json.loads(cli("list", "--state", state, "--json", expect=0).stdout)

    assert sorted(row["id"] for row in rows) == ids


def test_nothing_is_hidden_by_default(cli: Cli, spool_dir: Path) -> None:
    """Sixty jobs are sixty lines; only --limit leaves some out, and 0 prints none."""
    for number in range(60):
        drop(spool_dir, f"j{number}", command="true")

    assert len(cli("list", expect=0).stdout.splitlines()) == 60
    counts = [len(cli("list", "--limit", n, expect=0).stdout.splitlines()) for n in ("7", "0", "9" * 30)]
    assert counts == [7, 0, 60]


def test_long_commands_are_told_in_full(cli: Cli, spool_dir: Path) -> None:
    """The index keeps only the start of a long command, but the list prints all of it."""
    command = "echo " + "x" * 5000
    drop(spool_dir, "long", command=command)

    assert cli("list", expect=0).stdout == f"long - pending - {command}\n"
    assert json.loads(cli("list", "--json", expect=0).stdout)[0]["command"] == command


def test_list_as_json_has_the_documented_fields(cli: Cli, five: Path) -> None:
    """A failed job shows when it runs again."""
    (row,) = json.loads(cli("list", "--state", "failed", "--json", expect=0).stdout)

    assert (row["state"], row["attempts"], row["next_retry_at"]) == (
        "failed",
        1,
        "2099-01-01T00:00:00.000000Z",
    )


def test_show_has_every_field(cli: Cli, spool_dir: Path) -> None:
    """Labels, times, unknown fields, the history and the output have their lines."""
    place(
        spool_dir, "done", "job1", command="echo Hello", priority=8, timeout=20, max_retries=3, backoff_base=2,
        attempts=2, duration=0.2341, exit_code=0, output="Hello\nWorld\n", ticket="A-7", env={"A": "1"}, cwd="/x",
        created_at="2026-01-01T00:00:00Z", started_at="2026-01-01T00:00:01Z", finished_at="2026-01-01T00:00:02Z",
        history=[{"run": 1, "attempt": 1, "outcome": "failed", "exit_code": 3, "duration": 1, "error": "Exit code 3"}],
    )  # fmt: skip

    done = cli("show", "job1", expect=0, env={"TZ": "UTC"})

    assert done.stdout == (
        "Field         Value\n"
        "ID            job1\n"
        "Command       echo Hello\n"
        "State         completed\n"
        "Priority      8\n"
        "Timeout       20s\n"
        "Max Retries   3\n"
        "Backoff Base  2\n"
        "Attempts      2/3\n"
        "Directory     /x\n"
        "Environment   A=1\n"
        "Exec Time     0.234s\n"
        "Created       2026-01-01 00:00:00\n"
        "Started       2026-01-01 00:00:01\n"
        "Finished      2026-01-01 00:00:02\n"
        "Exit Code     0\n"
        "ticket        A-7\n"
        "Run 1         failed, attempt 1, exit code 3, 1.000s: Exit code 3\n"
        "Output        Hello\n"
        "              World\n"
    )


def test_show_says_what_keeps_a_job_back(cli: Cli, spool_dir: Path) -> None:
    """It said when the job came, and nothing of why it had not begun: a pause, a full disk, or no worker."""
    spool = Spool(spool_dir)
    spool.enqueue("true", id="a")
    spool.pause("deploy")

    [line] = [
        line for line in cli("show", "a", expect=0).stdout.splitlines() if line.startswith("Kept Back  ")
    ]

    assert ": deploy; no worker runs" in line


def test_plain_finished_job_fits_on_a_small_terminal(spool_dir: Path) -> None:
    """It took 26 lines of 24, and its command and state scrolled away. With the prompt, and the line that was typed."""
    spool = Spool(spool_dir)
    job_id = spool.enqueue("echo Hello").id
    drain(spool_dir)

    text = on_terminal("show", job_id, width=80).text
    assert text.count("\n") <= 22
    for field in (
        "ID", "Command", "State", "Attempts", "Directory", "Exec Time", "Started", "Finished", "Exit Code", "Output"
    ):  # fmt: skip
        assert f"\n  {field} " in text

    failed = spool.enqueue({"command": "exit 3", "max_retries": 1, "max_backoff": 60, "Updated": "mine"}).id
    drain(spool_dir)
    text = on_terminal("show", failed, width=80).text
    for value in ("Max Backoff    60s", "Run 1          failed", "Updated        mine"):
        assert value in text


def test_show_as_json_is_the_file(cli: Cli, five: Path) -> None:
    """--json has the fields of the job's file, with the state from the folder."""
    told = json.loads(cli("show", "job5", "--json", expect=0).stdout)

    assert (told["id"], told["state"], told["last_error"]) == ("job5", "dead", "Timeout exceeded (5s)")


def test_show_on_a_terminal_is_a_table(five: Path) -> None:
    """The table has the documented title and headings."""
    lines = [line.split() for line in on_terminal("show", "job1").text.splitlines()]

    assert lines[0] == ["Job", "Details:", "job1"]
    assert ["Field", "Value"] in lines
    assert ["Exec", "Time", "0.234s"] in lines


def test_strange_history_is_shown_all_the_same(cli: Cli, spool_dir: Path) -> None:
    """An edited history with odd values does not fail."""
    place(
        spool_dir,
        "done",
        "job1",
        history=[{}, {"run": "x", "duration": "long", "started_at": "never", "worker": 7}],
    )

    lines = cli("show", "job1", expect=0).stdout.splitlines()

    assert lines[-2:] == ["Run 1     ended", "Run x     ended, by 7, at never"]


@pytest.mark.parametrize("words", [["list"], ["show", "n"], ["dlq", "list"], ["list", "--json"], ["show", "n", "--json"],
                                   ["logs", "n"], ["dlq", "list", "--json"]])  # fmt: skip
def test_nothing_that_bites_reaches_a_terminal(spool_dir: Path, words: list[str]) -> None:
    """Control and reordering characters of a job file are escapes in tables, lines and JSON."""
    place(
        spool_dir, "dead", "n", command=NASTY.encode("utf-16", "surrogatepass").decode("utf-16"), last_error=NASTY[:30],
        output=NASTY[:30], history=[{"run": 1, "error": NASTY[:30]}], ticket=NASTY[:30],
    )  # fmt: skip
    (spool_dir / "logs").mkdir()
    (spool_dir / "logs" / "n.1.out").write_bytes(NASTY[:20].encode() + b"\xff\x00\r\n")

    seen = on_terminal(*words)

    assert seen.code == 0
    assert [bad for bad in RISKY if bad in seen.raw] == []


def test_escapes_are_readable_and_letters_stay() -> None:
    """Each escape identifies its character; other languages and emoji are unchanged."""
    assert (
        render.visible("a\x1b\n\x85\u202e\U000e0041é漢🎉👨‍👩‍👧")
        == "a\\x1b\\n\\x85\\u202e\\U000e0041é漢🎉👨‍👩‍👧"
    )
    assert render.visible_lines("a\r\nb\tc\rd\x07") == "a\nb       c\nd\\x07"
    assert json.loads(render.json_text({"a": "\x7f\x9b\u202e\U000e0041é"})) == {
        "a": "\x7f\x9b\u202e\U000e0041é"
    }


def test_empty_spool_says_so_only_to_people(cli: Cli, spool_dir: Path) -> None:
    """Without jobs: no line on stdout, an empty array in JSON, a note on stderr."""
    cli("reindex", expect=0)
    plain = cli("list", expect=0)

    assert (plain.stdout, plain.stderr) == ("", "no jobs\n")
    assert cli("list", "--json", expect=0).stdout == "[]\n"


ODD_NAMES = {
    b"job.txt": "job.txt",
    b"JOB": "JOB",
    b"caf\xe9.json": "caf\\xe9.json",
    b"a\x1b[2J.txt": "a\\x1b[2J.txt",
}


@pytest.mark.parametrize("name", ODD_NAMES, ids=ODD_NAMES.values())
def test_files_that_no_job_can_be_called_are_told(cli: Cli, spool_dir: Path, name: bytes) -> None:
    """Files that will not run, because of their name, are reported by `status` and `doctor` with the reason."""
    cli("reindex", expect=0)
    folder = os.fsencode(spool_dir / "pending")
    for other in (b".job.json.swp", b"job.json.part", b"job.json~", b".gitkeep"):  # nobody waits for these
        with open(os.path.join(folder, other), "wb"):
            pass
    assert cli("status", expect=0).stderr == ""
    with open(os.path.join(folder, name), "wb") as file:
        file.write(b'{"command": "true"}')

    told = cli("status", expect=0).stderr

    assert told == f"note: pending/{ODD_NAMES[name]} is ignored: a job's file is called NAME.json, in UTF-8\n"
    assert "is ignored" in cli("status", "--json", expect=0).stdout
    doctor = cli("doctor", expect=0)
    assert f"pending/{ODD_NAMES[name]}" in doctor.stdout + doctor.stderr
    assert cli("doctor", "--json", expect=0).stdout.isascii()
    with open(os.path.join(folder, b"two.txt"), "wb"):
        pass
    assert "and 1 more are ignored" in cli("status", expect=0).stderr
