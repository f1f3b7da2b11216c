"""`queuectl check` reports what is wrong with a file, and where, before any of its jobs is queued."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from queuectl import Spool
from queuectl.errors import InvalidJob
from queuectl.job.fault_location import find_field

from support import drop_bytes, where_is

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    Cli = Callable[..., subprocess.CompletedProcess[str]]


def findings(cli: Cli, text: str, name: str = "jobs.json") -> list[dict[str, Any]]:
    """The result of `check --json` for a file with this text; its exit code must agree."""
    with open(name, "w", encoding="utf-8", newline="") as file:
        file.write(text)
    done = cli("check", "--json", name, cwd=".")
    found: list[dict[str, Any]] = json.loads(done.stdout)
    assert done.returncode == (not all(one["ok"] for one in found))
    return found


@pytest.fixture(autouse=True)
def here(spool_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the files into the current directory of the command."""
    monkeypatch.chdir(spool_dir.parent)


def test_good_files_are_called_good_and_nothing_is_made(cli: Cli, spool_dir: Path) -> None:
    """Each job has a line with its command. No job is queued, and no spool is created."""
    (spool_dir.parent / "a.json").write_text('{"id": "a", "command": ["ls", "my file"]}')
    (spool_dir.parent / "b.ndjson").write_text('{"command": "x"}\n{"command": "y"}\n')

    done = cli("check", "a.json", "b.ndjson", expect=0, cwd=spool_dir.parent)

    said = [line for line in done.stdout.splitlines() if not line.startswith(" ")]
    assert said == ["a.json:1: ok - a - ls 'my file'", "b.ndjson:1: ok - x", "b.ndjson:2: ok - y"]
    assert done.stderr == ""
    assert not spool_dir.exists()


@pytest.mark.parametrize(
    ("text", "place", "field", "error"),
    [
        ('{\n  "command": "x",\n  "priority": 99\n}', (3, 15), "priority", "must be 1 to 10, not 99"),
        ('{"command": "x", "env": {"A": 1}}', (1, 25), "env", "the value of A must be text, not a number: put it in quotes"),
        ('{"id": "a"}', (1, 1), "command", "missing: it says what to run"),
        ('\n\n[{"command": "a"},\n  {"command": 3}]', (4, 15), "command", "must be text or a list of texts, not a number"),
        ('[{"command": "a"}, {"command": 3}]', (1, 32), "command", "must be text or a list of texts, not a number"),
        ('{"command": "x",\n "command": "y"}', (2, 13), "command", "is given twice"),
        ('{"command": "x"}\n{"command": "y", 3}', (2, 18), None, "not JSON: expecting property name enclosed in double quotes"),
        ('{"command": "x"}\n{"command": "y"', (2, 16), None, "not JSON: expecting ',' delimiter"),
        ('[{"command": "x"}\n {"command": "y"}]', (2, 2), None, "not JSON: a comma is missing"),
        ('{"command": "grüße 🎉", "timeout": -1}', (1, 35), "timeout", "must not be negative, not -1"),
        ('{"co\\u006dmand": "x", "cw\\u0064": 7}', (1, 35), "cwd", "must be text, not a number"),
        ("- command: a\n- command: b\n  priority: high\n", (3, 13), "priority", "must be a whole number, not text"),
        ("command: a\n---\n\ncommand: b\ncommand: c\n", (5, 1), "command", "is given twice"),
        ("- command: [unclosed\n", (2, 1), None, "neither JSON nor YAML: did not find expected ',' or ']'"),
        ('{"id": "a", "command": "x"}\n{"command": "y", "id": "a"}', (2, 24), "id", "an earlier job in the file has it"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_line_and_column(
    cli: Cli, text: str, place: tuple[int, int], field: str | None, error: str
) -> None:
    """FILE:LINE:COLUMN is the position of the wrong value, so that an editor can open the file there."""
    name = "jobs.yaml" if text.lstrip()[0] not in "{[" else "jobs.json"
    bad = [one for one in findings(cli, text, name) if not one["ok"]]

    assert [(one["line"], one["column"], one["field"], one["error"]) for one in bad] == [
        (*place, field, error)
    ]
    where = f"{name}:{place[0]}:{place[1]}: "
    told = where + (f"{field}: " if field else "") + error
    assert told in cli("check", name, expect=1, cwd=".").stdout.splitlines()


def test_all_bad_jobs_of_all_files_are_told(cli: Cli, spool_dir: Path) -> None:
    """One call reports all errors: checking continues after a bad job and after a missing file."""
    lines = ['{"command": 1}', '{"command": "a"}', '{"command": "b", "priority": 0}', '{"command": "c"}']
    (spool_dir.parent / "jobs.ndjson").write_text("\n".join(lines))
    (spool_dir.parent / "last.json").write_text('{"command": "z"}')

    done = cli("check", "jobs.ndjson", "none.json", "last.json", cwd=spool_dir.parent, expect=1)

    told = [line.split()[0] for line in done.stdout.splitlines() if line[0] != " "]
    wanted = [
        "jobs.ndjson:1:13:",
        "jobs.ndjson:2:",
        "jobs.ndjson:3:30:",
        "jobs.ndjson:4:",
        "none.json:",
        "last.json:1:",
    ]
    assert told == wanted
    assert done.stderr == "error: 3 of 6 jobs refused\n"


def test_columns_are_right_however_the_file_is_read(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a list on one line that is longer than one read, the columns are still right."""
    before = ", ".join('{"command": "true"}' for _ in range(9000))
    found = findings(cli, f'[{before}, {{"command": "x", "timeout": "soon"}}]')

    assert (found[-1]["line"], found[-1]["column"]) == (1, len(before) + 32)


def test_defaults_are_those_of_the_spool(cli: Cli) -> None:
    """Missing fields are shown with the values of the settings; fields that the job has are not shown."""
    cli("config", "set", "timeout", "90s", expect=0)
    cli("config", "set", "priority", "7", expect=0)

    (one,) = findings(cli, '{"command": "x", "priority": 2, "delay": "10m"}')

    assert {name: one["defaults"].get(name) for name in ("timeout", "max_retries", "priority", "run_at")} == {
        "timeout": 90, "max_retries": 3, "priority": None, "run_at": None,
    }  # fmt: skip
    assert "timeout 90, max_retries 3" in cli("check", "jobs.json", expect=0, cwd=".").stdout


def test_wrong_settings_are_not_blamed_on_a_file(cli: Cli, spool_dir: Path) -> None:
    """An error in the settings is not reported as an error of the file."""
    cli("reindex", expect=0)
    (spool_dir / "config.yaml").write_text("timeout: soon\n")
    (spool_dir.parent / "a.json").write_text('{"command": "true"}')
    done = cli("check", "a.json", cwd=spool_dir.parent, expect=1)

    assert done.stdout == ""
    assert "config.yaml, line 1: timeout: " in done.stderr


def test_fields_that_look_like_slips_are_pointed_at(cli: Cli) -> None:
    """An unknown field is allowed, but a misspelt one is reported. Fields of other programs are not reported."""
    (one,) = findings(cli, '{"command": "x",\n "priorty": 9, "ticket": 7, "delay": 5, "expires_in": 9}')

    assert one["notes"] == [
        "2:13: 'priorty' is kept but has no effect; did you mean priority?",
        "2:38: delay works only with `enqueue`; in a dropped file it has no effect: use run_at",
        "2:55: expires_in works only with `enqueue`; in a dropped file it has no effect: use expires_at",
    ]
    assert not {"run_at", "expires_at"} & one["defaults"].keys()


def test_stdin_is_checked_too(cli: Cli) -> None:
    """`check -` reads stdin. Empty input is an error."""
    assert cli("check", "-", stdin='{"command": "a"}', expect=0).stdout.startswith("stdin:1: ok - a\n")
    assert cli("check", "-", stdin="", expect=1).stdout == "stdin: the file is empty\n"
    assert cli("check", "-", stdin="[]", expect=0).stderr == "no jobs in stdin\n"
    assert cli("check", expect=2).stderr.startswith("error: missing argument")


def test_check_and_workers_agree(cli: Cli, spool_dir: Path) -> None:
    """A job that check accepts is taken by a worker; a job that it rejects goes to dead/."""
    texts = {
        "good": '{"command": "true"}',
        "late": '{"command": "true", "run_at": "2099-01-01"}',
        "bad": '{"command": "true", "timeout": "soon"}',
        "half": '{"command": "true"',
    }
    for name, text in texts.items():
        path = drop_bytes(spool_dir, f"{name}.json", text.encode())
        assert cli("check", path).returncode == (name in {"bad", "half"}), name
    cli("config", "set", "settle_time", "0", expect=0)
    cli("worker", "start", "--foreground", "--drain", expect=0)

    assert [where_is(spool_dir, name) for name in texts] == [["done"], ["pending"], ["dead"], ["dead"]]


def test_python_checks_a_job_as_enqueue_would(spool_dir: Path) -> None:
    """Spool.check validates a job without creating anything."""
    spool = Spool(spool_dir)

    assert (spool.check("true").timeout, spool.check({"command": ["x"]}, timeout="1m").timeout) == (20, 60)
    with pytest.raises(InvalidJob, match="priority: must be 1 to 10"):
        spool.check("true", priority=11)
    assert not spool_dir.exists()


def test_where_a_field_stands_is_found_in_broken_text_too() -> None:
    """Looking for the position of a field stops at the value, and never fails."""
    assert find_field('{"a": 1, "b": [1, {"a": 2}], "a": 3, "c": oops', "a") == (1, 35)
    assert find_field('{"a"', "a") == (1, 5)
    assert find_field("", "a") is None
    assert find_field("[1]", "a") is None
    assert find_field('{"b": {"a": 1}}', "a") is None
