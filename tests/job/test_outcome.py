"""Which failures are tried again, how long the wait may be drawn, and up to when a start is worth it."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queuectl import InvalidJob, Spool
from queuectl.job import times
from queuectl.job.outcome import Decision, backoff, decide
from queuectl.job.record import Job

import support

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    Cli = Callable[..., subprocess.CompletedProcess[str]]

NOW = 1_800_000_000.0


def failed(exit_code: int | None, **fields: Any) -> Decision:
    """What is decided after the first of three attempts."""
    job = Job(
        **{"command": "x", "attempts": 1, "max_retries": 3, "backoff_base": 2, "max_backoff": 60, **fields}
    )
    return decide(job, succeeded=False, now=NOW, exit_code=exit_code)


@pytest.mark.parametrize(
    ("exit_code", "fields", "state"),
    [
        (100, {"give_up_on": [100]}, "dead"),
        (111, {"give_up_on": [100]}, "failed"),
        (111, {"retry_on": [111, 75]}, "failed"),
        (1, {"retry_on": [111, 75]}, "dead"),
        (1, {"retry_on": []}, "dead"),
        (75, {"retry_on": [75], "give_up_on": [75]}, "dead"),
        (None, {"retry_on": [111], "give_up_on": [1, 137, 143]}, "failed"),
        (1, {"retry_on": None, "give_up_on": None}, "failed"),
    ],
)
def test_exit_codes_decide_whether_it_is_tried_again(
    exit_code: int | None, fields: dict[str, Any], state: str
) -> None:
    """give_up_on wins over retry_on; a signal, a timeout or a failed start is no exit code and is tried again."""
    assert failed(exit_code, **fields).state == state


@given(
    failures=st.integers(1, 200),
    cap=st.floats(0, 1e9),
    jitter=st.floats(0, 1),
    draw=st.floats(0, 1, exclude_max=True),
)
def test_jitter_lengthens_a_wait_and_never_passes_the_cap(
    failures: int, cap: float, jitter: float, draw: float
) -> None:
    """Up to the share longer where the cap leaves room; where it does not, spread below the cap all the same."""
    plain = backoff(2, failures, cap)
    drawn = backoff(2, failures, cap, jitter, draw)

    assert drawn <= cap
    if plain * (1 + jitter) <= cap:
        assert plain <= drawn <= plain * (1 + jitter) + 1e-6
    else:
        assert cap / (1 + jitter) * (1 - 1e-9) <= drawn


def test_waits_at_the_cap_are_spread_too() -> None:
    """A thousand jobs that have failed long enough do not come back at one moment."""
    waits = {backoff(2, 50, 600, 0.5, draw / 10) for draw in range(10)}

    assert len(waits) == 10
    assert min(waits) == 400
    assert max(waits) < 600


def test_jitter_differs_from_job_to_job(spool_dir: Path) -> None:
    """Jobs that fail together are due apart, each within its share."""
    spool = Spool(spool_dir)
    for number in range(8):
        spool.enqueue("exit 1", id=f"job{number}", backoff_base=100, jitter=0.5)

    support.drain(spool_dir)

    waits = []
    for number in range(8):
        record = support.load(spool_dir / "pending" / f"job{number}.json")
        ended = times.parse_moment(record["finished_at"])
        waits.append(times.parse_moment(record["next_retry_at"]) - ended)
    assert len(set(waits)) == 8
    assert all(100 <= wait <= 150 for wait in waits)


def test_a_program_says_with_100_and_111_what_is_to_become_of_its_job(spool_dir: Path, cli: Cli) -> None:
    """The README's example: 100 is for ever, 111 for now, as settings of the spool; the error says why."""
    cli("config", "set", "give_up_on", "100", expect=0)
    for code in (100, 111):
        cli("enqueue", "--id", f"with-{code}", f"exit {code}", expect=0)

    support.drain(spool_dir)

    dead = support.load(spool_dir / "dead" / "with-100.json")
    assert (dead["attempts"], dead["last_error"]) == (1, "Exit code 100; give_up_on has it")
    assert support.load(spool_dir / "pending" / "with-111.json")["last_error"] == "Exit code 111"
    cli("enqueue", "--id", "own", "--retry-on", "111,75", "exit 3", expect=0)
    support.drain(spool_dir)
    assert (
        support.load(spool_dir / "dead" / "own.json")["last_error"]
        == "Exit code 3; retry_on does not have it"
    )


def test_a_signal_a_timeout_and_no_start_are_tried_again(spool_dir: Path) -> None:
    """They are no exit codes, whatever numbers a shell gives them."""
    spool = Spool(spool_dir)
    policy: dict[str, Any] = {"retry_on": [111], "give_up_on": [137, 143, 127, 1], "backoff_base": 100}
    spool.enqueue(["sh", "-c", "kill -9 $$"], id="signal", **policy)
    spool.enqueue(["sleep", "30"], id="timeout", timeout=0.1, **policy)
    spool.enqueue(["/no/such/program"], id="no-start", **policy)

    support.drain(spool_dir)

    assert spool.counts()["failed"] == 3


def test_every_flag_of_the_policy_lands_in_the_file_and_is_shown(spool_dir: Path, cli: Cli) -> None:
    """The command writes what was said, show says it again; tags of flags and of the JSON text add up."""
    flags = ["--max-backoff", "10m", "--jitter", "0.25", "--retry-on", "111,75", "--give-up-on", "100"]
    flags += [
        "--expires-in",
        "2h",
        "--tag",
        "b",
        "--tag",
        "c",
        "--hold",
        "--unique",
        "k",
        "--if-exists",
        "queue",
    ]
    before = time.time()

    cli("enqueue", *flags, '{"id": "job1", "command": "true", "tags": ["a"]}', expect=0)

    record = support.load(spool_dir / "pending" / "job1.json")
    assert 0 <= times.parse_moment(record.pop("expires_at")) - before - 7200 < 30
    wanted = {
        "max_backoff": 600, "jitter": 0.25, "retry_on": [111, 75], "give_up_on": [100], "tags": ["a", "b", "c"],
        "hold": True, "unique": "k", "if_exists": "queue",
    }  # fmt: skip
    assert {name: record[name] for name in wanted} == wanted
    shown = cli("show", "job1", expect=0).stdout
    for line in ("Max Backoff   600s", "Jitter        0.25", "Retry On      111 75", "Give Up On    100"):
        assert line in shown
    for line in ("Tags          a b c", "Unique        k (queue)", "Held          until", "Expires At    2"):
        assert line in shown
    told = json.loads(cli("show", "job1", "--json", expect=0).stdout)
    assert told["tags"] == ["a", "b", "c"]


@pytest.mark.parametrize(
    "flags",
    [
        ["--jitter", "1.5"],
        ["--jitter", "some"],
        ["--retry-on", "300"],
        ["--retry-on", "1,x"],
        ["--give-up-on", "-1"],
        ["--tag", "two words"],
        ["--unique", ""],
        ["--if-exists", "wait"],
        ["--expires-at", "soon"],
        ["--expires-in", "soon"],
        ["--expires-in", "99999999999999999"],
        ["--max-backoff", "-3"],
    ],
)
def test_a_flag_that_makes_no_sense_is_refused_in_one_line(cli: Cli, flags: list[str]) -> None:
    """Exit code 2, the flag is named, nothing is queued."""
    done = cli("enqueue", *flags, "true", expect=2)

    assert flags[0] in done.stderr
    assert "Traceback" not in done.stderr
    assert cli("list").stdout == ""


def test_a_job_that_would_expire_before_it_may_run_is_refused(spool_dir: Path) -> None:
    """It could never start; that is a slip, told at once. Two ways to say one thing are refused too."""
    spool = Spool(spool_dir)

    with pytest.raises(InvalidJob, match="expires_at: lies before run_at"):
        spool.enqueue("true", delay="2h", expires_in="1h")
    with pytest.raises(InvalidJob, match="expires_at or expires_in"):
        spool.enqueue("true", expires_at=NOW, expires_in=3)
