"""--each queues one job for each of many files or lines: exactly those, with unchanged names."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from support import load

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Cli = Callable[..., subprocess.CompletedProcess[str]]

NAMES = ["a.wav", "it's.wav", "my $HOME song.wav", "-x.wav", "b.txt", ".hidden.wav", "sub/deep.wav"]


@pytest.fixture
def music(tmp_path: Path) -> Path:
    """A folder of files with common names and with difficult ones."""
    folder = tmp_path / "music"
    for name in NAMES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def commands(spool: Path, *ids: str) -> list[object]:
    return [load(spool / "pending" / f"{job_id}.json")["command"] for job_id in ids]


def test_glob_makes_a_job_for_each_file(cli: Cli, spool_dir: Path, music: Path) -> None:
    """The same files that the shell would find, sorted; a name that starts with a dash does not become an option."""
    done = cli(
        "enqueue", "--each", "*.wav", "--quiet", "--", "ffmpeg", "-i", "{}", "{stem}.mp3", cwd=music, expect=0
    )

    assert commands(spool_dir, *done.stdout.split()) == [
        ["ffmpeg", "-i", "./-x.wav", "-x.mp3"],
        ["ffmpeg", "-i", "a.wav", "a.mp3"],
        ["ffmpeg", "-i", "it's.wav", "it's.mp3"],
        ["ffmpeg", "-i", "my $HOME song.wav", "my $HOME song.mp3"],
    ]
    assert {load(path)["cwd"] for path in (spool_dir / "pending").iterdir()} == {str(music)}


def test_text_template_is_quoted_and_runs(cli: Cli, spool_dir: Path, music: Path) -> None:
    """Names are quoted for the shell, so that the command gets them unchanged."""
    text = "printf '%s\\n' {n} {} >> out; test -e {}"
    cli("enqueue", "--each", "*song.wav", "--each", "it*.wav", "--id", "job-{n}", text, cwd=music, expect=0)
    cli("worker", "start", "--foreground", "--drain", expect=0)

    assert (music / "out").read_text() == "1\nmy $HOME song.wav\n2\nit's.wav\n"
    assert sorted(path.name for path in (spool_dir / "done").iterdir()) == ["job-1.json", "job-2.json"]


def test_lines_of_stdin_are_values(cli: Cli, spool_dir: Path) -> None:
    """Lines of stdin: blank lines are skipped, a last line without a line end counts, a carriage return is removed."""
    done = cli("enqueue", "--each", "-", "--quiet", "--", "x", "{}", stdin="a b\r\n\n $(c) \nlast", expect=0)

    assert commands(spool_dir, *done.stdout.split()) == [["x", "a b"], ["x", " $(c) "], ["x", "last"]]


def test_values_that_end_in_nul_may_hold_anything(cli: Cli, spool_dir: Path) -> None:
    """NUL-terminated values, as from `find -print0`, may contain line ends; --null without --each - is an error."""
    odd = "a\nb\0 \0c\r\0last"
    done = cli("enqueue", "--each", "-", "-0", "--quiet", "--", "x", "{}", stdin=odd, expect=0)

    assert commands(spool_dir, *done.stdout.split()) == [
        ["x", "a\nb"],
        ["x", " "],
        ["x", "c\r"],
        ["x", "last"],
    ]
    assert "--null works only with --each -" in cli("enqueue", "--null", "x", expect=2).stderr


def test_long_input_is_cut_nowhere(cli: Cli, spool_dir: Path) -> None:
    """The size of a read changes no value."""
    words = [f"{'grüße' * 30}-{number}" for number in range(2000)]
    done = cli("enqueue", "--each", "-", "--quiet", "--", "x", "{}", stdin="\n".join(words), expect=0)

    assert commands(spool_dir, *done.stdout.split()) == [["x", word] for word in words]


def test_flags_apply_to_each_job(cli: Cli, spool_dir: Path, music: Path) -> None:
    """Flags apply to all jobs; patterns are relative to --cwd, and ** searches subfolders."""
    done = cli(
        "enqueue",
        "--each",
        "**/*.wav",
        "--cwd",
        music,
        "--priority",
        "9",
        "--json",
        "-c",
        "x {dir}/{name}",
        expect=0,
    )
    jobs = {
        row["command"]: load(spool_dir / "pending" / f"{row['id']}.json") for row in json.loads(done.stdout)
    }

    assert "x sub/deep.wav" in jobs
    assert len(jobs) == 5
    assert {(job["priority"], job["cwd"]) for job in jobs.values()} == {(9, str(music))}


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["--each", "*.wav", "--each", "*.flac", "x {}"], 1, "nothing matches '*.flac' in "),
        (["--each", "*.wav"], 2, "no command for --each"),
        (["--each", "*.wav", "--"], 2, "no command for --each"),
        (["--each", "*.wav", "echo hello"], 2, "the command has no placeholder"),
        (["--each", "*.wav", "echo {stme}"], 2, "is {stem} meant?"),
        (["--each", "*.wav", 'echo "{}"'], 2, "in quotes"),
        (["--each", "a.wav", "b.txt", "echo {}"], 2, "hint: put the pattern in quotes"),
        (["--each", "a.wav", "b.txt", "--", "echo", "{}"], 2, "hint: put the pattern in quotes"),
        (["--each", "*.wav", "--file", "x", "echo {}"], 2, "--each and --file"),
        (["--each", "*.wav", "--id", "x {n}", "echo {}"], 1, "'x 1' cannot be an id"),
        (["--each", "a.wav", "--quiet", "--json", "echo {}"], 2, "--quiet and --json"),
        (["--id", "job-{n}", "echo hi"], 2, "only with --each"),
    ],
)
def test_slips_are_told_and_nothing_is_queued(
    cli: Cli, spool_dir: Path, music: Path, words: list[str], code: int, told: str
) -> None:
    """Errors: a pattern without a match, an invalid template, a pattern that the shell has expanded."""
    done = cli("enqueue", *words, cwd=music, expect=code)

    assert told in done.stderr
    assert not (spool_dir / "pending").exists() or not list((spool_dir / "pending").iterdir())


def test_one_id_is_for_one_job(cli: Cli, spool_dir: Path, music: Path) -> None:
    """An id without a number works for one match only; a second match is an error."""
    cli("enqueue", "--each", "a.*", "--id", "one", "x {}", cwd=music, expect=0)
    done = cli("enqueue", "--each", "*.wav", "--id", "two", "--all-or-nothing", "x {}", cwd=music, expect=2)

    assert "hint: number them, as in --id job-{n}" in done.stderr
    assert [path.name for path in (spool_dir / "pending").iterdir()] == ["one.json"]


def test_unique_key_is_each_jobs_own(cli: Cli, spool_dir: Path, music: Path) -> None:
    """With --unique, the same files queued again are skipped; one key for all jobs needs `if_exists: queue`."""
    words = ["enqueue", "--each", "*.wav", "--quiet", "--", "x", "{}"]
    first = cli(*words[:3], "--unique", "mp3:{}", *words[3:], cwd=music, expect=0)
    (music / "new.wav").touch()
    again = cli(*words[:3], "--unique", "mp3:{}", *words[3:], cwd=music, expect=0)
    one_key = cli(*words[:3], "--unique", "mp3", "--all-or-nothing", *words[3:], cwd=music, expect=2)
    in_line = cli(*words[:3], "--unique", "mp3", "--if-exists", "queue", *words[3:], cwd=music, expect=0)

    assert len(first.stdout.split()) == 4
    keys = [str(load(path).get("unique")) for path in (spool_dir / "pending").iterdir()]
    assert sorted(key for key in keys if key != "mp3") == [
        "mp3:./-x.wav",
        "mp3:a.wav",
        "mp3:it's.wav",
        "mp3:my $HOME song.wav",
        "mp3:new.wav",
    ]
    assert (
        again.stderr.count("skipped: ") + again.stdout.count("skipped: ") == 4
        or len(again.stdout.split()) == 1
    )
    assert "hint: number them, as in --unique job-{n}" in one_key.stderr
    assert len(in_line.stdout.split()) == 5


def test_no_lines_are_no_error(cli: Cli) -> None:
    """Empty input queues nothing, and is not an error."""
    done = cli("enqueue", "--each", "-", "x {}", stdin="\n\n", expect=0)

    assert (done.stdout, done.stderr) == ("", "no jobs in --each\n")


def test_name_that_is_no_utf8_is_refused(cli: Cli, spool_dir: Path, music: Path) -> None:
    """A name that is not UTF-8 is refused: a job file cannot contain it, and a changed name would be another file."""
    (music / "a.bin").touch()
    with open(bytes(music) + b"/\xff.bin", "w"):
        done = cli("enqueue", "--each", "*.bin", "x {}", cwd=music, expect=1)

    assert "is not UTF-8, so no job file can contain it" in done.stderr
    assert (
        list((spool_dir / "pending").glob("*.json")) == []
    )  # the names before it, too: known before the first job


def test_a_line_that_is_no_utf8_loses_no_other(spool_dir: Path) -> None:
    """It ended the stream: the lines before it were queued, those behind it were not. With --all-or-nothing none is."""

    def enqueue(*words: str) -> subprocess.CompletedProcess[bytes]:
        command = [
            sys.executable,
            "-m",
            "queuectl",
            "enqueue",
            "-q",
            *words,
            "--id",
            "job-{n}",
            "--each",
            "-",
            "echo {}",
        ]
        return subprocess.run(command, input=b"one\n\xff\xfe\ntwo\n", capture_output=True, check=False)

    all_of_them = enqueue("--all-or-nothing")
    assert (all_of_them.returncode, all_of_them.stdout) == (1, b"")
    assert b"is not UTF-8" in all_of_them.stderr

    done = enqueue()
    assert (done.returncode, done.stdout) == (1, b"job-1\njob-2\n")
    assert rb"left out: '\udcff\udcfe' is not UTF-8" in done.stderr
    assert b"error: 1 value on stdin not queued" in done.stderr
    assert [load(spool_dir / "pending" / f"job-{n}.json")["command"] for n in (1, 2)] == [
        "echo one",
        "echo two",
    ]


def test_quiet_prints_ids_only(cli: Cli, spool_dir: Path) -> None:
    """--quiet prints only ids, for one job and for a file of jobs."""
    one = cli("enqueue", "-q", "--id", "a", "true", expect=0).stdout
    many = cli(
        "enqueue", "-q", "--file", "-", stdin='{"id":"b","command":"x"}\n{"id":"c","command":"y"}', expect=0
    ).stdout

    assert one + many == "a\nb\nc\n"
