"""Nobody is surprised by the default time limit: it is named beforehand, and `enqueue --wait` has none."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from terminal import on_terminal

from queuectl import Spool

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

    Cli = Callable[..., subprocess.CompletedProcess[str]]

ROOT = Path(__file__).parents[2]


def test_answer_on_a_terminal_names_the_limits(cli: Cli, spool_dir: Path) -> None:
    """One line: how long, how often, and that it is the default if it is. A pipe gets the id only."""
    plain = on_terminal("enqueue", "sleep 60").text
    given = on_terminal("enqueue", "--timeout", "90", "--max-retries", "1", "sleep 60").text
    endless = on_terminal("enqueue", "--timeout", "0", "sleep 60").text

    assert (
        "limits: 20s for each attempt, 3 attempts; this is the default: for longer jobs give --timeout"
        in plain
    )
    assert "limits: 90s for each attempt, 1 attempt\n" in given
    assert "limits: no time limit, 3 attempts\n" in endless
    assert "limits" not in on_terminal("enqueue", "--quiet", "true").text
    assert "limits" not in cli("enqueue", "true", expect=0).stdout


def test_answer_for_many_jobs_names_the_limit_that_some_of_them_get(spool_dir: Path, tmp_path: Path) -> None:
    """Jobs with a limit of their own need no such line."""
    jobs = tmp_path / "jobs.jsonl"
    jobs.write_text('{"command": "a", "timeout": 5}\n{"command": "b"}\n')
    own = tmp_path / "own.jsonl"
    own.write_text('{"command": "a", "timeout": 5}\n')

    assert on_terminal("enqueue", "--file", str(jobs)).text.count("limits: 20s for each attempt") == 1
    assert "limits" not in on_terminal("enqueue", "--file", str(own)).text


def test_help_names_the_limits_of_this_spool(cli: Cli, spool_dir: Path) -> None:
    """What the page says is what will apply; a settings file that cannot be read does not hide the page."""
    assert "--timeout 20s, --max-retries 3" in " ".join(cli("enqueue", "--help", expect=0).stdout.split())
    cli("config", "set", "timeout", "2h", expect=0)
    cli("config", "set", "max_retries", "5", expect=0)
    assert "--timeout 2h, --max-retries 5" in " ".join(cli("enqueue", "--help", expect=0).stdout.split())
    (spool_dir / "config.yaml").write_text("timeout: [")
    assert "--max-retries" in cli("enqueue", "--help", expect=0).stdout


def test_wait_has_no_limit_unless_one_is_given(
    cli: Cli, spool_dir: Path, workers: Callable[..., Any]
) -> None:
    """A flag, the job itself or the settings file give one; the built-in default is none."""
    workers(1)
    for job_id, words in {
        "none": ["true"],
        "flag": ["--timeout", "7", "true"],
        "json": ['{"command": "true", "timeout": 8}'],
    }.items():
        cli("enqueue", "--wait", "--id", job_id, *words, expect=0)
    cli("config", "set", "timeout", "9", expect=0)
    cli("enqueue", "--wait", "--id", "setting", "true", expect=0)

    spool = Spool(spool_dir)
    found = {job_id: spool.get(job_id).timeout for job_id in ("none", "flag", "json", "setting")}
    assert found == {"none": 0, "flag": 7, "json": 8, "setting": 9}


def test_wait_says_when_an_attempt_fails_and_another_comes(
    cli: Cli, spool_dir: Path, workers: Callable[..., Any]
) -> None:
    """Else the output seems to begin again for no reason. With --json too, and for retries without a wait."""
    workers(1)
    words = ["--max-retries", "3", "--max-backoff", "0.2", "echo once; exit 3"]
    shown = cli("enqueue", "--wait", "--id", "a", *words, expect=3).stderr
    with_json = cli("enqueue", "--wait", "--json", *words, expect=3)
    at_once = cli("enqueue", "--wait", "--id", "b", "--max-backoff", "0", "exit 3", expect=3).stderr

    for said, name in ((shown, "a"), (at_once, "b")):
        assert re.findall(rf"note: {name}: attempt (\d) of 3 failed: Exit code 3; the next one", said) == [
            "1",
            "2",
        ]
        assert said.endswith(f"{name}: Exit code 3\n")
    assert with_json.stderr.count("failed: Exit code 3; the next one") == 2
    assert json.loads(with_json.stdout)[0]["state"] == "dead"


@pytest.mark.parametrize(
    "path", ["README.md", *(str(p.relative_to(ROOT)) for p in sorted((ROOT / "queuectl/guide").glob("*.md")))]
)
def test_examples_of_long_work_give_a_time_limit(path: str) -> None:
    """`rsync`, `tar` or `make` in an example without --timeout dies after 20 seconds at whoever copies it."""
    _refuse_unlimited((ROOT / path).read_text())


def test_examples_in_the_help_give_a_time_limit(cli: Cli) -> None:
    """The same for the help page."""
    _refuse_unlimited(cli("enqueue", "--help", expect=0).stdout)


def _refuse_unlimited(text: str) -> None:
    long_work = re.compile(r'queuectl enqueue [^`\n]*(["\s](?:make|rsync|tar|ffmpeg|gzip|pg_dump|restic) )')
    bad = [
        line
        for line in text.splitlines()
        if long_work.search(line) and "--timeout" not in line and "--wait" not in line
    ]
    assert bad == []


def test_a_person_is_told_when_nothing_will_run_the_job(cli: Cli, spool_dir: Path) -> None:
    """Otherwise the job waits for ever, and nobody knows; in a pipe the answer stays one line."""
    idle = on_terminal("enqueue", "true").text
    cli("pause", expect=0)
    paused = on_terminal("enqueue", "true").text

    assert "note: no worker runs: queuectl worker start" in idle
    assert "queuectl resume" in paused
    assert cli("enqueue", "true", expect=0).stderr == ""
