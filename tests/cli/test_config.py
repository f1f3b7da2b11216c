"""A setting that was set applies; an invalid one is refused, and the message names it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from support import load

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    Cli = Callable[..., subprocess.CompletedProcess[str]]


def test_get_of_an_untouched_spool(cli: Cli, spool_dir: Path) -> None:
    """Every setting has a default, and reading settings creates no file."""
    lines = cli("config", "get", expect=0).stdout.splitlines()

    wanted = ["max_retries = 3", "backoff_base = 2", "max_backoff = 86400", "timeout = 20", "priority = 5"]
    assert lines[:6] == [*wanted, "jitter = unset"]
    assert json.loads(cli("config", "get", "--json", expect=0).stdout)["worker_count"] is None
    assert not (spool_dir / "config.yaml").exists()


@pytest.mark.parametrize("key", ["max_retries", "max-retries", "MAX_RETRIES"])
def test_key_is_echoed_as_typed(cli: Cli, spool_dir: Path, key: str) -> None:
    """Each spelling names the same setting; the answer repeats the spelling of the question."""
    assert cli("config", "set", key, "5", expect=0).stdout == f"{key} = 5\n"
    assert cli("config", "get", key, expect=0).stdout == f"{key} = 5\n"
    assert cli("config", "get", "max_retries", "--json", expect=0).stdout == '{\n  "max_retries": 5\n}\n'


def test_quiet_prints_the_value_alone(cli: Cli, spool_dir: Path) -> None:
    """For `$(queuectl config get timeout -q)`; an unset value is an empty text."""
    cli("config", "set", "timeout", "1.5", expect=0)
    assert cli("config", "get", "timeout", "-q", expect=0).stdout == "1.5\n"
    assert cli("config", "get", "--quiet", "max-retries", expect=0).stdout == "3\n"
    assert cli("config", "get", "worker_count", "-q", expect=0).stdout == "\n"
    assert "the value of one setting" in cli("config", "get", "-q", expect=2).stderr
    assert "only one of" in cli("config", "get", "timeout", "-q", "--json", expect=2).stderr


def test_set_is_for_later_jobs_only(cli: Cli, spool_dir: Path) -> None:
    """A job keeps the settings of the time when it was accepted. A flag overrides a setting. `unset` restores the default."""
    cli("enqueue", "--id", "before", "true", expect=0)
    cli("config", "set", "max_retries", "1", expect=0)
    cli("config", "set", "timeout", "10m", expect=0)
    cli("enqueue", "--id", "after", "true", expect=0)
    cli("enqueue", "--id", "flag", "--max-retries", "7", "true", expect=0)
    unset = cli("config", "unset", "max_retries", expect=0)
    cli("enqueue", "--id", "last", "true", expect=0)

    jobs = [load(spool_dir / "pending" / f"{name}.json") for name in ("before", "after", "flag", "last")]
    assert [job["max_retries"] for job in jobs] == [3, 1, 7, 3]
    assert [job["timeout"] for job in jobs] == [20, 600, 600, 600]
    assert unset.stdout == "max_retries = 3\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["set", "timeuot", "30"], "error: unknown setting 'timeuot'; did you mean timeout?"),
        (["get", "timeuot"], "error: unknown setting 'timeuot'; did you mean timeout?"),
        (["unset", "nonsense"], "error: unknown setting 'nonsense'"),
        (["set", "max_retries", "-1"], "error: max_retries: must be at least 0, not -1"),
        (["set", "priority", "11"], "error: priority: must be 1 to 10, not 11"),
        (
            ["set", "timeout", "soon"],
            "error: timeout: 'soon' is not a duration: write seconds, or 30s, 10m, 2h, 7d",
        ),
        (["set", "backoff_base", "0"], "error: backoff_base: must be at least 1, not 0"),
    ],
)
def test_what_is_refused(cli: Cli, spool_dir: Path, words: list[str], message: str) -> None:
    """An unknown key or a bad value gives exit code 2 and one line, and writes nothing."""
    refused = cli("config", *words, expect=2)

    assert (refused.stdout, refused.stderr.splitlines()[0]) == ("", message)
    assert not (spool_dir / "config.yaml").exists()

    assert refused.returncode in {1, 2}
    assert len(refused.stderr.splitlines()) <= 2


def test_bad_file_is_named_with_its_line(cli: Cli, spool_dir: Path) -> None:
    """An error in the settings file stops the command; the message names the file, the line and the key."""
    spool_dir.mkdir(mode=0o700)
    (spool_dir / "config.yaml").write_text("# mine\ntimeout: soon\n")

    for words in (["config", "get"], ["enqueue", "true"]):
        refused = cli(*words, expect=1)
        assert refused.stderr.startswith(f"error: {spool_dir}/config.yaml")
        assert "timeout" in refused.stderr
        assert "2" in refused.stderr.splitlines()[0]


def test_two_files_are_warned_about(cli: Cli, spool_dir: Path) -> None:
    """If both files exist, YAML is used, and settings and status print a warning."""
    spool_dir.mkdir(mode=0o700)
    (spool_dir / "config.yaml").write_text("timeout: 1\n")
    (spool_dir / "config.json").write_text('{"timeout": 2}')

    got = cli("config", "get", "timeout", expect=0)
    status = cli("status", expect=0)

    assert got.stdout == "timeout = 1\n"
    assert got.stderr.startswith("warning: config.yaml and config.json are both there")
    assert "config.yaml and config.json are both there" in status.stderr
    assert status.stdout.startswith("jobs: {")
