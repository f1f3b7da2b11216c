"""A file of jobs may have any format and size: every job is queued, or the error says where it is wrong."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import pytest
from terminal import on_terminal

from queuectl.cli import job_reader
from queuectl.errors import InvalidJob

from support import load

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    Cli = Callable[..., subprocess.CompletedProcess[str]]
MIB = 1 << 20


def read(text: str | bytes, name: str = "stdin") -> list[dict[str, Any]]:
    data = text.encode() if isinstance(text, str) else text
    return list(job_reader.JobFile(io.BytesIO(data), name))


@pytest.mark.parametrize(
    "text",
    [
        '{"command": "a"}',
        '\ufeff  \n{"command":\n "a"}\n\n',
        '[{"command": "a"}]',
        "command: a\n",
        "- command: a\n",
        "---\ncommand: a\n...\n",
        "# a comment\ncommand: a # another\n",
    ],
)
def test_one_job_in_every_form(text: str) -> None:
    """The same job in JSON or YAML, alone or in a list, with a byte-order mark or blanks."""
    assert read(text) == [{"command": "a"}]


@pytest.mark.parametrize(
    "text",
    [
        '{"command": "a"}\n{"command": "b"}\n',
        '{"command": "a"}\r\n\r\n{"command": "b"}',
        '{\n  "command": "a"\n}\n{\n  "command": "b"\n}\n',
        '[{"command": "a"},\n {"command": "b"}]\n',
        '[\n\n  {"command": "a"}  ,{"command": "b"}\n]',
        "- command: a\n- command: b\n",
        "command: a\n---\ncommand: b\n",
    ],
)
def test_several_jobs_in_every_form(text: str) -> None:
    """A list, one job on each line, objects in sequence, and YAML documents are all read as a sequence of jobs."""
    assert read(text) == [{"command": "a"}, {"command": "b"}]


@pytest.mark.parametrize("size", [1, 7, 64, 4096])
def test_chunks_may_end_anywhere(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """The size of a read, even inside a word or a character, changes nothing."""
    monkeypatch.setattr(job_reader, "CHUNK", size)
    jobs = [{"id": f"j{n}", "command": "grüße 🎉 " + "x" * n} for n in range(40)]

    assert jobs == read("\n".join(json.dumps(job, ensure_ascii=False) for job in jobs))
    assert jobs == read(json.dumps(jobs, indent=1, ensure_ascii=False))


def test_yaml_keeps_times_as_written() -> None:
    """A time without an offset is local time in a job file, although YAML would read it as UTC."""
    assert read("command: a\nrun_at: 2030-01-01 08:00:00\n") == [
        {"command": "a", "run_at": "2030-01-01 08:00:00"}
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        (" \n\n", "the file is empty"),
        ('{"command": "a"', "not JSON: expecting ',' delimiter (line 1, where the file ends)"),
        ('[{"command": "a"}', "not JSON: the file ends in the middle of the list"),
        ('[{"command": "a"},]', "not JSON: a job must follow the comma (line 1)"),
        ('[{"command": "a"}\n{"command": "b"}]', "not JSON: a comma is missing (line 2)"),
        ('[{"command": "a"}] x', "not JSON: there is text after the end of the list (line 1)"),
        ('{"command": "a"}\n17\n', "a job is a JSON object: {…}"),
        ('{"command": "a", "command": "b"}', "command: is given twice"),
        ("command: a\ncommand: b\n", "command: is given twice"),
        ("just some words\n", "a job must be a mapping with `command`, or JSON"),
        ("command: [unclosed\n", "neither JSON nor YAML: did not find expected ',' or ']' (line 2, column 1)"),
        ("command: !!binary aGk=\n", "bytes is not a JSON value"),
        (b"\xff\xfe{\x00", "the file is UTF-16; save it as UTF-8"),
        (b'{"command": "\xff"}', "the file is not UTF-8 (byte 13)"),
        ('{"command": "' + "x" * (8 * MIB + 1), f"too large: the text of a job may have {8 * MIB} bytes"),
        ('{"a":' * 100_000, "nested too deeply"),
        (("a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b]\n"
          "d: &d [*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e]\n"
          "g: [*f,*f,*f,*f,*f,*f,*f,*f]"), f"too large: a job may have {MIB} bytes"),
        ("a: &a\n  b: *a\n", f"too large: a job may have {MIB} bytes"),
    ],
)  # fmt: skip
def test_what_is_no_job_is_named(text: str | bytes, message: str) -> None:
    """Each kind of error has its own message, with the line."""
    with pytest.raises(InvalidJob) as caught:
        read(text)

    assert caught.value.message == message


def test_jobs_before_the_damage_are_queued_and_counted(cli: Cli, spool_dir: Path, tmp_path: Path) -> None:
    """A bad job ends the file. The error has its line and the number of jobs that were queued before it."""
    file = tmp_path / "jobs.ndjson"
    file.write_text(
        '{"id":"a","command":"true"}\n{"id":"b","command":"true"}\n\n{"command":"c","priority":99}\n'
    )

    done = cli("enqueue", "--file", file, expect=1)

    told = f"error: {file} line 4: invalid job: priority: must be 1 to 10, not 99; 2 jobs before it were queued\n"
    assert (done.stdout, done.stderr) == ("enqueued job a\nenqueued job b\n", told)
    assert sorted(path.stem for path in (spool_dir / "pending").glob("*.json")) == ["a", "b"]


def test_taken_id_in_a_file_is_named_with_its_line(cli: Cli, spool_dir: Path) -> None:
    """A duplicate id in the file, or one that is already used, ends the file."""
    twice = cli(
        "enqueue", "--file", "-", stdin='{"id":"a","command":"1"}\n{"id":"a","command":"2"}\n', expect=1
    )
    taken = cli("enqueue", "--file", "-", stdin='{"command":"0"}\n{"id":"a","command":"3"}\n', expect=1)

    first = "error: stdin line 2: job id 'a' is taken: that job is pending; 1 job before it was queued"
    assert [first, first] == [twice.stderr.splitlines()[0], taken.stderr.splitlines()[0]]
    assert load(spool_dir / "pending" / "a.json")["command"] == "1"


def test_partial_json_output_is_still_json(cli: Cli, spool_dir: Path) -> None:
    """With --json the array of the jobs queued before an error is complete JSON."""
    done = cli(
        "enqueue", "--json", "--file", "-", stdin='{"id":"a","command":"1"}\n{"command":7}\n', expect=1
    )

    assert [(job["id"], job["command"]) for job in json.loads(done.stdout)] == [("a", "1")]


def test_flags_are_laid_over_every_job(cli: Cli, spool_dir: Path) -> None:
    """Flags apply to all jobs of the file; --id works only for one."""
    cli(
        "enqueue",
        "--file",
        "-",
        "--priority",
        "9",
        stdin="- {id: a, command: x}\n- {id: b, command: y, priority: 1}",
    )
    several = cli("enqueue", "--file", "-", "--id", "c", stdin='{"command":"x"}\n{"command":"y"}', expect=2)

    assert [load(spool_dir / "pending" / f"{name}.json")["priority"] for name in "ab"] == [9, 9]
    assert "--id names one job, and the file contains several" in several.stderr


def test_documented_job_file_works(cli: Cli, spool_dir: Path, tmp_path: Path) -> None:
    """`enqueue --file job.json` prints the documented line; an empty list queues nothing."""
    (tmp_path / "job.json").write_text('{"id": "job1", "command": "echo Hello", "max_retries": 3}')
    (tmp_path / "none.json").write_text("[]")

    assert cli("enqueue", "--file", tmp_path / "job.json", expect=0).stdout == "enqueued job job1\n"
    assert cli("enqueue", "--file", tmp_path / "none.json", expect=0).stdout == ""


def test_many_jobs_through_a_pipe(cli: Cli, spool_dir: Path) -> None:
    """Thousands of jobs from a pipe are all queued, one line each, without a progress bar."""
    lines = "".join(f'{{"id": "j{n}", "command": "true"}}\n' for n in range(5000))

    done = cli("enqueue", "--file", "-", stdin=lines, expect=0)

    assert [f"enqueued job j{n}" for n in range(5000)] == done.stdout.splitlines()
    assert done.stderr == ""
    assert json.loads(cli("status", "--json").stdout)["jobs"]["pending"] == 5000


def test_person_sees_progress_instead_of_thousands_of_lines(spool_dir: Path, tmp_path: Path) -> None:
    """On a terminal a long file ends with one line that has the number of jobs; a short one prints a line for each job."""
    file = tmp_path / "jobs.ndjson"
    file.write_text("".join(f'{{"id": "j{n}", "command": "true"}}\n' for n in range(3000)))
    short = tmp_path / "short.json"
    short.write_text('[{"id": "a", "command": "true"}]')

    long = on_terminal("enqueue", "--file", str(file))

    assert long.code == 0
    assert long.text.rstrip().endswith("enqueued 3000 jobs")
    assert long.text.count("enqueued job ") < 1000
    assert on_terminal("enqueue", "--file", str(short)).text.startswith("enqueued job a\nlimits: 20s")
