"""In whatever form a job is given, exactly that job is in the spool, or nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from queuectl.cli import fast_path
from queuectl.job import times

from support import load

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Cli = Callable[..., subprocess.CompletedProcess[str]]


def queued(spool: Path) -> list[dict[str, Any]]:
    """The jobs in pending/, sorted by file name."""
    return [load(path) for path in sorted((spool / "pending").glob("*.json"))]


def only(spool: Path) -> dict[str, Any]:
    jobs = queued(spool)
    assert len(jobs) == 1
    return jobs[0]


def test_text_is_a_shell_command_with_a_new_id(cli: Cli, spool_dir: Path) -> None:
    """A text is queued unchanged, and its new id is printed."""
    done = cli("enqueue", "python -c \"print('Hello')\"", expect=0)

    job = only(spool_dir)
    assert (done.stdout, done.stderr) == (f"enqueued job {job['id']}\n", "")
    assert job["command"] == "python -c \"print('Hello')\""


def test_plain_and_whole_command_queue_the_same(cli: Cli, spool_dir: Path) -> None:
    """The fast path without click writes the same job as click."""
    cli("enqueue", "echo same", expect=0)
    cli("enqueue", "--command", "echo same", expect=0)

    short, long = queued(spool_dir)
    own = {"id", "created_at", "updated_at"}
    assert {k: v for k, v in short.items() if k not in own} == {k: v for k, v in long.items() if k not in own}


@pytest.mark.parametrize("words", [["enqueue"], ["enqueue", ""], ["enqueue", " \n"], ["enqueue", "-x"], ["list", "x"],
                                   ["enqueue", ' {"a"'], ["enqueue", "a", "b"], ["enqueue", "\udcff"]])  # fmt: skip
def test_all_but_one_plain_text_is_left_to_click(words: list[str], spool_dir: Path) -> None:
    """The fast path takes no call that click would read differently or refuse."""
    assert not fast_path.enqueue(words)
    assert not spool_dir.exists()


def test_text_in_braces_is_a_job(cli: Cli, spool_dir: Path) -> None:
    """A text in braces is a job in JSON; unknown fields are kept."""
    cli("enqueue", '{"id":"job1","command":"echo Hello World","priority":8,"ticket":"A-7"}', expect=0)

    job = only(spool_dir)
    assert (job["id"], job["command"], job["priority"], job["ticket"]) == (
        "job1",
        "echo Hello World",
        8,
        "A-7",
    )


def test_flags_set_every_field(cli: Cli, spool_dir: Path) -> None:
    """Each flag sets its field."""
    cli(
        "enqueue", "--id", "job1", "--command", "echo hi", "--timeout", "10m", "--max-retries", "4", "--backoff-base",
        "2.5", "--priority", "8", "--run-at", "2099-01-01T00:00:00Z", "--cwd", "/tmp", "--env", "A=1", "--env", "B=x=y",
        expect=0,
    )  # fmt: skip

    job = only(spool_dir)
    wanted = {
        "id": "job1",
        "command": "echo hi",
        "timeout": 600,
        "max_retries": 4,
        "backoff_base": 2.5,
        "priority": 8,
        "run_at": "2099-01-01T00:00:00.000000Z",
        "cwd": "/tmp",
        "env": {"A": "1", "B": "x=y"},
    }
    assert wanted == {name: job[name] for name in wanted}


def test_explicit_zero_is_kept(cli: Cli, spool_dir: Path) -> None:
    """0 is a value, in flags and in JSON."""
    cli("enqueue", "--id", "flags", "--timeout", "0", "--max-retries", "0", "true", expect=0)
    cli("enqueue", '{"id": "json", "command": "true", "timeout": 0, "max_retries": 0}', expect=0)

    assert [(job["timeout"], job["max_retries"]) for job in queued(spool_dir)] == [(0, 0), (0, 0)]


def test_flags_win_over_json(cli: Cli, spool_dir: Path) -> None:
    """A flag replaces the field of a JSON text; environment variables are added."""
    text = '{"id": "a", "command": "true", "priority": 2, "timeout": 9, "env": {"A": "1", "B": "1"}}'
    cli("enqueue", text, "--id", "b", "--priority", "7", "--env", "B=2", expect=0)

    job = only(spool_dir)
    assert (job["id"], job["priority"], job["timeout"], job["env"]) == ("b", 7, 9, {"A": "1", "B": "2"})


@pytest.mark.parametrize(
    ("words", "command"),
    [
        (["--", "ls", "-l", "my file"], ["ls", "-l", "my file"]),
        (["--", "true"], ["true"]),
        (["--priority", "3", "--", "echo", "--priority", "4"], ["echo", "--priority", "4"]),
        (["--", "echo", "--", "x"], ["echo", "--", "x"]),
        (["--", "{not json}"], ["{not json}"]),
        (["--command", "--", "--id", "dashes"], "--"),
    ],
)
def test_words_behind_dashes_are_a_list(
    cli: Cli, spool_dir: Path, words: list[str], command: str | list[str]
) -> None:
    """After -- every word is taken unchanged; a -- that is the value of an option does not count."""
    cli("enqueue", *words, expect=0)

    assert only(spool_dir)["command"] == command


def test_a_dash_is_not_queued_as_a_command(cli: Cli, spool_dir: Path) -> None:
    """`queuectl enqueue -` would queue a program of this name, and what the caller pipes into it would be lost."""
    refused = cli("enqueue", "-", expect=2, stdin="echo hello\n")

    assert "not read from stdin" in refused.stderr
    assert not spool_dir.exists()


def test_shell_group_goes_into_command(cli: Cli, spool_dir: Path) -> None:
    """For a shell command that starts with {, the error names --command."""
    refused = cli("enqueue", "{ echo a; echo b; }", expect=2)
    cli("enqueue", "--command", "{ echo a; echo b; }", expect=0)

    assert refused.stderr.splitlines()[1] == "hint: for a shell command that starts with { use --command"
    assert only(spool_dir)["command"] == "{ echo a; echo b; }"


def test_cwd_is_the_callers(cli: Cli, spool_dir: Path, tmp_path: Path) -> None:
    """A job runs in the current directory of its caller; a relative folder is relative to it, and ~ is the home directory."""
    here = tmp_path / "wörk dir"
    here.mkdir()
    for job_id, cwd in (("a", None), ("b", "sub"), ("c", "/"), ("d", "~/x")):
        flags = ["--cwd", cwd] if cwd else []
        cli("enqueue", "--id", job_id, *flags, "true", expect=0, cwd=here)
    cli("enqueue", '{"id": "e", "command": "true", "cwd": "sub"}', expect=0, cwd=here)

    wanted = [str(here), str(here / "sub"), "/", str(tmp_path / "home" / "x"), str(here / "sub")]
    assert wanted == [job["cwd"] for job in queued(spool_dir)]


def test_vanished_current_directory_is_told(spool_dir: Path, tmp_path: Path) -> None:
    """If the current directory was deleted, the error says so; --cwd works."""
    gone = tmp_path / "gone"
    script = (
        f'mkdir "{gone}"; cd "{gone}"; rmdir "{gone}"; exec "{sys.executable}" -m queuectl enqueue "$@" true'
    )
    run = subprocess.run(["sh", "-c", script, "sh"], capture_output=True, text=True, check=False)
    named = subprocess.run(
        ["sh", "-c", script, "sh", "--cwd", "/"], capture_output=True, text=True, check=False
    )

    assert (
        run.returncode,
        run.stderr,
    ) == (1, "error: the current directory was deleted\nhint: give a directory with --cwd\n")
    assert (named.returncode, only(spool_dir)["cwd"]) == (0, "/")


def test_delay_counts_from_now(cli: Cli, spool_dir: Path) -> None:
    """--delay is counted from now; with --run-at, the later time holds."""
    before = time.time()
    cli("enqueue", "--id", "a", "--delay", "10m", "true", expect=0)
    cli("enqueue", "--id", "b", "--delay", "10m", "--run-at", "2099-01-01T00:00:00Z", "true", expect=0)

    listed = json.loads(cli("list", "--json", expect=0).stdout)
    assert 600 <= times.parse_moment(listed[0]["run_at"]) - before <= 700
    assert listed[1]["run_at"] == "2099-01-01T00:00:00.000000Z"


def test_taken_id_is_refused_and_nothing_changes(cli: Cli, spool_dir: Path) -> None:
    """A second job with the same id never replaces the first."""
    cli("enqueue", "--id", "job1", "echo first", expect=0)
    again = cli("enqueue", "--id", "job1", "echo second", expect=1)

    assert again.stderr == "error: job id 'job1' is taken: that job is pending\nhint: queuectl show job1\n"
    assert only(spool_dir)["command"] == "echo first"


def test_json_tells_what_was_queued(cli: Cli, spool_dir: Path) -> None:
    """--json prints only an array of the queued jobs, for every kind of input."""
    one = cli("--json", "enqueue", "--id", "a", "echo a", expect=0)
    many = cli(
        "enqueue", "--file", "-", "--json", stdin='{"id":"b","command":["x"]}\n{"command":"y"}', expect=0
    )

    assert [job["id"] for job in json.loads(one.stdout)] == ["a"]
    first, second = json.loads(many.stdout)
    assert (first["id"], first["state"], first["command"]) == ("b", "pending", ["x"])
    assert second["id"] == next(job["id"] for job in queued(spool_dir) if job["command"] == "y")


def test_json_has_the_whole_record(cli: Cli, spool_dir: Path) -> None:
    """It had id, state and command; the rest needed a second call. One job, a list and a template are the same."""
    env = {"LANG": "C", "API_TOKEN": "s3cret"}
    one = cli(
        "enqueue", "--json", json.dumps({"id": "a", "command": "x", "env": env, "my": 1}), "-p", 7, expect=0
    )
    lines = "".join(json.dumps({"id": f"b{n}", "command": "y"}) + "\n" for n in range(30))
    many = cli("enqueue", "--json", "--file", "-", "--tag", "t", stdin=lines, expect=0)
    each = cli("enqueue", "--json", "--each", "-", "--timeout", "1h", "echo {}", stdin="c\n", expect=0)
    later = cli("enqueue", "--json", "--id", "later", "--delay", "1h", "z", expect=0)

    said = [job for done in (one, many, each, later) for job in json.loads(done.stdout)]
    assert len(said) == 33
    waiting = ("waits_for", "waits_for_count", "blocked")
    places = ("engine", "engine_id", "engine_reason", "node")
    shown = {job["id"]: job for job in json.loads(cli("list", "--json", expect=0).stdout)}
    for job in said:
        known = shown[job["id"]]
        assert abs(job["effective_priority"] - known.pop("effective_priority")) < 1
        assert [known.pop(name) for name in waiting] == [[], 0, False]
        assert [known.pop(name) for name in places] == ["local", None, None, None]
        assert {name: job[name] for name in known} == known
    of_one = json.loads(cli("show", "a", "--json", expect=0).stdout)
    assert said[0].keys() == of_one.keys() - {*waiting, *places}
    assert (said[0]["priority"], said[0]["env"]["API_TOKEN"], said[0]["my"]) == (7, "***", 1)


def test_first_command_in_an_empty_home_works(
    cli: Cli, spool_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a spool or any setup, the job is in ~/.queuectl, which is private."""
    monkeypatch.delenv("QUEUECTL_SPOOL")
    cli("enqueue", "true", expect=0)

    spool = spool_dir.parent / "home" / ".queuectl"
    assert len(queued(spool)) == 1
    assert [os.stat(path).st_mode & 0o777 for path in (spool, spool / "pending")] == [0o700, 0o700]
