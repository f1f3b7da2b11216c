"""Times on the command line, in files and in settings: one way to read them, and the answer says what was read."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest

from queuectl.job import times

from support import drop, load

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    Cli = Callable[..., subprocess.CompletedProcess[str]]

BERLIN = {"TZ": "CET-1CEST,M3.5.0,M10.5.0/3"}
TOKYO = {"TZ": "JST-9"}


def test_the_answer_says_when_it_starts(cli: Cli, spool_dir: Path) -> None:
    """With its zone, on stderr: scripts read the id from stdout. A time that is past is called that."""
    done = cli("enqueue", "--id", "a", "--run-at", "2031-07-01 12:00", "true", expect=0, env=BERLIN)
    assert done.stdout == "enqueued job a\n"
    assert done.stderr == "note: it starts at 2031-07-01 12:00:00 CEST (+02:00)\n"
    assert load(spool_dir / "pending" / "a.json")["run_at"] == "2031-07-01T10:00:00.000000Z"

    past = cli("enqueue", "--run-at", "2020-01-01", "true", expect=0, env=BERLIN).stderr
    assert past == "note: it starts at once: the time is past, 2020-01-01 00:00:00 CET (+01:00)\n"
    many = cli(
        "enqueue", "--run-at", "2031-07-01T12:00Z", "--file", "-", stdin='{"command": "true"}', expect=0
    )
    assert "note: it starts at 2031-07-01 12:00:00 UTC" in many.stderr
    assert cli("enqueue", "-q", "--run-at", "+1h", "true", expect=0).stderr == ""
    assert cli("enqueue", "true", expect=0).stderr == ""


def test_a_wrong_time_zone_is_said(cli: Cli, spool_dir: Path) -> None:
    """A mistyped TZ means UTC, in silence: the job would start hours away from what was meant."""
    wrong = cli("enqueue", "--run-at", "2031-07-01 12:00", "true", expect=0, env={"TZ": "Europe/Berln"})
    told = "note: TZ is 'Europe/Berln', which is no time zone of this machine, so UTC was meant\n"
    assert wrong.stderr.endswith(told)


@pytest.mark.parametrize("typed", ["tomorrow 02:00", "+1h", "1h30m", "18:00", "friday 9am"])
def test_flags_and_fields_read_times_as_people_say_them(cli: Cli, spool_dir: Path, typed: str) -> None:
    """`--run-at`, a job in JSON that is typed, and `set` agree."""
    cli("enqueue", "--id", "flag", "--run-at", typed, "--expires-at", "2099-01-01", "true", expect=0)
    cli("enqueue", json.dumps({"id": "json", "command": "true", "run_at": typed}), expect=0)
    cli("enqueue", "--id", "set", "--hold", "true", expect=0)
    cli("set", "set", f"run_at={typed}", expect=0)

    found = [
        times.parse_moment(load(spool_dir / "pending" / f"{name}.json")["run_at"])
        for name in ("flag", "json", "set")
    ]
    assert min(found) > time.time() + 1
    assert max(found) - min(found) < 30
    cli("set", "set", "run_at=none", expect=0)
    assert "run_at" not in load(spool_dir / "pending" / "set.json")


def test_since_takes_days_and_times_of_day(cli: Cli, spool_dir: Path) -> None:
    """`yesterday` is the day before, and 18:00 the last one."""
    cli("enqueue", "--id", "a", "true", expect=0)
    for typed in ("yesterday", "1h30m", "2h ago", "monday"):
        assert cli("list", "--since", typed, expect=0).stdout.startswith("a - "), typed
    assert cli("list", "--since", "tomorrow", expect=0).stdout == ""
    assert cli("list", "--until", "yesterday", expect=0).stdout == ""


def test_none_means_no_limit(cli: Cli, spool_dir: Path) -> None:
    """In a flag, a field, and a setting."""
    cli("enqueue", "--id", "a", "--timeout", "none", "--delay", "none", "true", expect=0)
    cli("enqueue", '{"id": "b", "command": "true", "timeout": "none"}', expect=0)
    assert [load(spool_dir / "pending" / f"{name}.json")["timeout"] for name in "ab"] == [0, 0]
    cli("config", "set", "timeout", "none", expect=0)
    assert cli("config", "get", "timeout", expect=0).stdout == "timeout = 0\n"
    cli("config", "set", "keep_done", "1h30m", expect=0)
    assert cli("config", "get", "keep_done", expect=0).stdout == "keep_done = 1h30m\n"
    cli("config", "set", "keep_done", "none", expect=0)
    assert cli("config", "get", "keep_done", expect=0).stdout == "keep_done = unset\n"


def test_bare_number_as_a_time_is_refused(cli: Cli, spool_dir: Path) -> None:
    """Typed, in JSON and in a file: 1830 would be in 1970, and start at once."""
    wrong = "too small for epoch seconds"
    assert wrong in cli("enqueue", "--run-at", "1830", "true", expect=2).stderr
    assert wrong in cli("enqueue", '{"command": "true", "run_at": 60}', expect=2).stderr
    assert (
        wrong in cli("enqueue", "--file", "-", stdin='{"command": "true", "run_at": "1830"}', expect=1).stderr
    )
    drop(spool_dir, "a", command="true", run_at=1830)
    assert wrong in cli("check", str(spool_dir / "pending/a.json"), expect=1).stdout
    assert cli("list", "--state", "pending", "--json", expect=0).stdout.strip() == "[]"


def test_dropped_time_without_a_zone_is_the_same_for_every_reader(cli: Cli, spool_dir: Path) -> None:
    """Whoever looks first, from whatever zone; `show` and `check` say which moment it is."""
    path = drop(spool_dir, "a", command="true", run_at="2031-01-01T03:00")
    meant = times.iso(times.parse_moment("2031-01-01T03:00", of_machine=True))
    for env in (TOKYO, BERLIN, {"TZ": "UTC"}):
        assert json.loads(cli("list", "--json", expect=0, env=env).stdout)[0]["run_at"] == meant
        assert json.loads(cli("show", "a", "--json", expect=0, env=env).stdout)["run_at"] == meant
        cli("reindex", expect=0, env=env)

    said = cli("check", str(path), expect=0, env=TOKYO).stdout
    assert (
        f"run_at has no zone, so that of this machine counts: {times.with_zone(times.parse_moment(meant), of_machine=True)}"
        in said
    )
    assert "+09:00" in cli("show", "a", expect=0, env=TOKYO).stdout


def test_file_of_jobs_means_the_machines_zone_too(cli: Cli, spool_dir: Path) -> None:
    """A file says the same whether it is dropped or given to `enqueue --file`."""
    text = '{"id": "a", "command": "true", "run_at": "2031-01-01T03:00"}\n'
    cli("enqueue", "--file", "-", stdin=text, expect=0, env=TOKYO)
    meant = times.iso(times.parse_moment("2031-01-01T03:00", of_machine=True))
    assert load(spool_dir / "pending" / "a.json")["run_at"] == meant
