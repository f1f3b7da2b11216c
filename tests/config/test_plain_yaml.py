"""YAML in jobs and settings means what stands there; what readers understand differently is refused with its line."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import pytest

from queuectl.cli import job_reader
from queuectl.config import settings
from queuectl.errors import ConfigError, InvalidJob
from queuectl.layout import Layout

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    Cli = Callable[..., subprocess.CompletedProcess[str]]


def read(text: str) -> list[dict[str, Any]]:
    return list(job_reader.JobFile(io.BytesIO(text.encode()), "jobs.yaml"))


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("18:30", "18:30"),
        ("1:30", "1:30"),
        ("190:20:30.15", "190:20:30.15"),
        ("yes", "yes"),
        ("No", "No"),
        ("on", "on"),
        ("y", "y"),
        ("true", True),
        ("False", False),
        ("~", None),
        ("null", None),
        ("30", 30),
        ("-5", -5),
        ("+5", 5),
        ("0", 0),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        ("2026-12-31", "2026-12-31"),
        ("2026-12-31T18:00:00", "2026-12-31T18:00:00"),
        ("1.2.3", "1.2.3"),
        ("=", "="),
        ("'030'", "030"),
        ("0abc", "0abc"),
        (".", "."),
        ("-", "-"),
    ],
)
def test_plain_values_are_what_stands_there(written: str, meant: Any) -> None:
    """No number of base 60, no word for true or false but these two, no date."""
    text = f"command: x\nextra: {written}\n" if written != "-" else 'command: x\nextra: "-"\n'
    assert read(text) == [{"command": "x", "extra": meant}]


@pytest.mark.parametrize(
    "written",
    [
        "030",
        "0644",
        "-012",
        "0o17",
        "0x1F",
        "0b11",
        "1_000",
        "08",
        "!!int 0o30",
        "!!bool yes",
        "!!int '1:30'",
    ],
)
def test_number_that_is_read_in_different_ways_is_refused_with_its_line(written: str, tmp_path: Path) -> None:
    """030 is 24 in YAML 1.1 and 30 in YAML 1.2."""
    with pytest.raises(InvalidJob, match=r"is read in different ways.*\(line 3, column") as refused:
        read(f"\ncommand: x\nextra: {written}\n")
    assert (refused.value.at or (0,))[0] == 3
    layout = Layout(tmp_path / "spool")
    layout.create()
    (tmp_path / "spool" / "config.yaml").write_text(f"# mine\ntimeout: {written}\n")
    with pytest.raises(ConfigError, match=r"config.yaml, line 2: .*is read in different ways"):
        settings.load(layout)


def test_names_of_variables_are_text() -> None:
    """`NO: x` was the variable `false`, and `1.50` was `1.5`."""
    assert read("command: x\nenv: {NO: x, on: a, 010: b, 1.50: c, ~: d, 2026-12-31: e, true: f}\n")[0][
        "env"
    ] == {
        "NO": "x",
        "on": "a",
        "010": "b",
        "1.50": "c",
        "~": "d",
        "2026-12-31": "e",
        "true": "f",
    }
    assert read("base: &b {a: 1}\ncommand: x\nmore: {<<: *b, c: 2}\n")[0]["more"] == {"a": 1, "c": 2}


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("timeout: 1:30", "config.yaml, line 1: timeout: '1:30' is not a duration"),
        ("keep_done: 030", "config.yaml, line 1: '030' is read in different ways"),
        ("keep_done: 18:30", "config.yaml, line 1: keep_done"),
        ("priority: yes", "config.yaml, line 1: priority: must be a whole number"),
        ("max_retries: 0x10", "config.yaml, line 1: '0x10' is read"),
        ("log_limit: 1_000", "config.yaml, line 1: '1_000' is read"),
    ],
)
def test_settings_are_no_yaml_1_1(cli: Cli, spool_dir: Path, line: str, says: str) -> None:
    """`timeout: 1:30` was 90 and `keep_done: 030` was 24, and nobody was told."""
    spool_dir.mkdir()
    (spool_dir / "config.yaml").write_text(f"{line}\n")
    assert says in cli("config", "get", expect=1).stderr


def test_job_at_half_past_six_does_not_start_at_once(cli: Cli, spool_dir: Path, tmp_path: Path) -> None:
    """`run_at: 18:30` was 1110 seconds after 1970. It is refused with its line, by `check` too."""
    path = tmp_path / "job.yaml"
    path.write_text("command: 'true'\nrun_at: 18:30\n")
    assert "run_at: '18:30' is not a time" in cli("enqueue", "--file", str(path), expect=1).stderr
    assert f"{path}:2:9: run_at: '18:30' is not a time" in cli("check", str(path), expect=1).stdout
    path.write_text("command: 'true'\nhold: yes\n")
    assert f"{path}:2:7: hold: must be true or false, not text" in cli("check", str(path), expect=1).stdout
    assert json.loads(cli("list", "--json", expect=0).stdout) == []
