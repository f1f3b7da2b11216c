"""Scheduled jobs: how a time can be written, and that they wait for it without delaying others."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from queuectl import Spool
from queuectl.job import times
from queuectl.job.times import micros

import support

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A local time that is not UTC: two hours ahead in summer, one in winter."""
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


WRITTEN = [
    ("2030-07-01T12:00:00Z", "2030-07-01T12:00:00.000000Z"),
    ("2030-07-01 12:00:00Z", "2030-07-01T12:00:00.000000Z"),
    ("2030-07-01T12:00:00.25Z", "2030-07-01T12:00:00.250000Z"),
    ("2030-07-01T12:00:00+02:00", "2030-07-01T10:00:00.000000Z"),
    ("2030-07-01T12:00:00-0530", "2030-07-01T17:30:00.000000Z"),
    ("2030-07-01T12:00:00", "2030-07-01T10:00:00.000000Z"),
    ("2030-12-01T12:00", "2030-12-01T11:00:00.000000Z"),
    ("2030-12-01", "2030-11-30T23:00:00.000000Z"),
    ("20301201T120000", "2030-12-01T11:00:00.000000Z"),
    ("1900000000", "2030-03-17T17:46:40.000000Z"),
    (1900000000, "2030-03-17T17:46:40.000000Z"),
    (1900000000.5, "2030-03-17T17:46:40.500000Z"),
]
GARBAGE = [
    "tomorrow",
    "",
    "12:00",
    "2030-13-01",
    "2030-02-30T00:00:00Z",
    "2030-07-01T25:00:00Z",
    "2030-07-01T12:00:00+99:00",
    "-1",
    "1e999",
    "nan",
    "1900000000000",  # milliseconds: the year 62178
    -5,
    1900000000000,
    True,
    [1900000000],
    {"at": 1900000000},
]


@pytest.mark.usefixtures("berlin")
@pytest.mark.parametrize(("written", "meant"), WRITTEN)
def test_moment_in_every_form_is_understood(written: object, meant: str) -> None:
    """R33: ISO 8601 with an offset, with Z, without (local time, summer and winter), a date, epoch seconds."""
    assert times.iso(times.parse_moment(written)) == meant


@pytest.mark.parametrize("garbage", GARBAGE, ids=repr)
def test_what_is_no_moment_is_never_taken_for_now(garbage: object) -> None:
    """T30: a typing error in run_at must not start the job at once."""
    with pytest.raises(ValueError):
        times.parse_moment(garbage)


@pytest.mark.usefixtures("berlin")
def test_run_at_is_kept_in_one_form_however_it_was_given(spool_dir: Path, cli: Cli) -> None:
    """By flag, JSON, file of jobs and drop; the CLI tells the same moment in UTC with a fixed width."""
    moment = "2030-07-01T10:00:00.000000Z"
    cli("enqueue", "--id", "flag", "--run-at", "2030-07-01T12:00", "--command", "true", expect=0)
    cli("enqueue", '{"id": "json", "command": "true", "run_at": "2030-07-01T10:00Z"}', expect=0)
    lines = '{"id": "file", "command": "true", "run_at": 1909130400}\n'
    cli("enqueue", "--file", "-", stdin=lines, expect=0)
    support.drop(spool_dir, "drop", command="true", run_at="2030-07-01T12:00:00+02:00")

    rows = json.loads(cli("list", "--json", expect=0).stdout)

    assert {row["id"]: row["run_at"] for row in rows} == dict.fromkeys(
        ["flag", "json", "file", "drop"], moment
    )
    assert support.load(spool_dir / "pending" / "flag.json")["run_at"] == moment


@pytest.mark.parametrize("garbage", ["soon", "2030-13-01", "1900000000000"])
def test_enqueue_refuses_a_garbled_moment(spool_dir: Path, cli: Cli, garbage: str) -> None:
    """T30: as a flag and inside JSON; the message names the field, and nothing is queued."""
    by_flag = cli("enqueue", "--run-at", garbage, "--command", "true")
    by_json = cli("enqueue", json.dumps({"command": "true", "run_at": garbage}))

    for refused in (by_flag, by_json):
        assert refused.returncode in (1, 2)
        assert "run" in refused.stderr
        assert "Traceback" not in refused.stderr
    assert cli("list", "--json", expect=0).stdout == "[]\n"


def test_dropped_file_with_a_garbled_moment_goes_to_dead(spool_dir: Path, cli: Cli) -> None:
    """T30: it does not run; its bytes are untouched, and the reason beside it names run_at."""
    job_file = support.drop(spool_dir, "party", command=f"touch '{spool_dir}/ran'", run_at="tomorrow")
    was = job_file.read_bytes()

    support.drain(spool_dir, now=lambda: time.time() + 10)

    assert (spool_dir / "dead" / "party.json").read_bytes() == was
    assert "run_at" in (spool_dir / "dead" / "party.json.reason").read_text()
    assert not (spool_dir / "ran").exists()
    (letter,) = json.loads(cli("dlq", "list", "--json", expect=0).stdout)
    assert letter["id"] == "party"
    assert "run_at" in letter["last_error"]


@pytest.mark.parametrize("run_at", ["2001-01-01T00:00:00Z", 0, "1970-01-02"])
def test_moment_in_the_past_means_now(spool_dir: Path, run_at: object) -> None:
    """A job that is overdue runs at once, and gets no bonus for the years: it has waited since its arrival."""
    support.drop(spool_dir, "overdue", command="true", run_at=run_at)

    support.drain(spool_dir)

    assert support.where_is(spool_dir, "overdue") == ["done"]


def test_overdue_job_does_not_overtake(spool_dir: Path) -> None:
    """If run_at is before the arrival, waiting counts from the arrival: an old date gives no earlier turn."""
    spool = Spool(spool_dir)
    for job_id, run_at in (("first", None), ("overdue", "2001-01-01T00:00:00Z")):
        spool.enqueue(f"echo {job_id} >> '{spool_dir}/order'", id=job_id, run_at=run_at)

    support.drain(spool_dir)

    assert (spool_dir / "order").read_text().split() == ["first", "overdue"]


@pytest.mark.parametrize("how", ["enqueued", "dropped"])
def test_job_due_in_2_s_waits_for_its_moment(spool_dir: Path, cli: Cli, workers: Cli, how: str) -> None:
    """T30: a worker with nothing else to do starts it when it is due, not before, and without anybody's help."""
    workers(1)
    moment = time.time() + 2
    if how == "enqueued":
        cli("enqueue", "--id", "job1", "--run-at", f"{moment:.6f}", "--command", "true", expect=0)
    else:
        support.drop(spool_dir, "job1", command="true", run_at=moment)

    support.wait_until(lambda: support.finished(spool_dir, "job1"), message="job1 to end")

    started = times.parse_moment(support.load(spool_dir / "done" / "job1.json")["started_at"])
    assert started >= round(moment, 6)
    assert started < moment + 3, "nobody looked when it was due"


def test_delay_counts_from_now(spool_dir: Path, cli: Cli) -> None:
    """--delay takes a duration with a unit; the file holds the moment."""
    before = time.time()
    cli("enqueue", "--id", "job1", "--delay", "10m", "--command", "true", expect=0)

    run_at = times.parse_moment(support.load(spool_dir / "pending" / "job1.json")["run_at"])
    assert before + 600 <= run_at <= time.time() + 600


def test_scheduled_job_is_pending_until_it_is_due(spool_dir: Path, cli: Cli) -> None:
    """It lies in pending/, is counted as pending, and a draining worker leaves it there."""
    cli("enqueue", "--id", "job1", "--delay", "1h", "--command", "true", expect=0)

    assert cli("worker", "start", "--foreground", "--drain", expect=0).stdout.count("executing") == 0

    assert json.loads(cli("status", "--json", expect=0).stdout)["jobs"]["pending"] == 1
    support.drain(spool_dir, now=lambda: time.time() + 3601)
    assert support.where_is(spool_dir, "job1") == ["done"]


@pytest.mark.parametrize("how", ["enqueued", "dropped"])
def test_immediate_job_does_not_wait_for_the_next_due_one(
    spool_dir: Path, cli: Cli, workers: Cli, how: str
) -> None:
    """T41: with a job due in an hour a worker does not sleep for an hour: a job that arrives meanwhile starts at once."""
    cli("enqueue", "--id", "later", "--delay", "1h", "--command", "true", expect=0)
    workers(1)
    before = time.time()
    if how == "enqueued":
        Spool(spool_dir).enqueue("true", id="soon")
    else:
        support.drop(spool_dir, "soon", command="true")

    support.wait_until(lambda: support.finished(spool_dir, "soon"), message="the immediate job to end")

    started = times.parse_moment(support.load(spool_dir / "done" / "soon.json")["started_at"])
    assert started - before < 3, "far below the hour; the promised second is measured by tests/bench"
    assert support.where_is(spool_dir, "later") == ["pending"]


def test_thousand_scheduled_jobs_do_not_stand_in_front_of_a_ready_one(spool_dir: Path, cli: Cli) -> None:
    """DESIGN 3: jobs for later are kept apart, however urgent, or every claim would have to step over them."""
    spool = Spool(spool_dir)
    later = time.time() + 3600
    spool.enqueue_many({"command": "false", "priority": 10, "run_at": later} for _ in range(1000))
    spool.enqueue("true", id="ready", priority=1)

    said = support.drain(spool_dir)

    assert [line.splitlines()[0] for line in said if "executing" in line] == ["executing job ready: true"]
    counts = json.loads(cli("status", "--json", expect=0).stdout)["jobs"]
    assert (counts["pending"], counts["completed"]) == (1000, 1)


def test_scheduled_jobs_start_in_the_order_of_their_moments(spool_dir: Path) -> None:
    """Of equal priority the job that is due first runs first, whenever it was enqueued."""
    spool = Spool(spool_dir)
    start = time.time()
    for minutes in (30, 10, 20):
        spool.enqueue(f"echo {minutes} >> '{spool_dir}/order'", run_at=start + minutes * 60)

    support.drain(spool_dir, now=lambda: start + 3600)

    assert (spool_dir / "order").read_text().split() == ["10", "20", "30"]


@given(st.floats(0, times.LATEST), st.floats(0, times.LATEST))
@example(1.0, 0.999999)
@example(1_800_000_000.0, 1_799_999_999.999999)
@example(1_800_000_000.9999996, 1_800_000_001.0)
@example(999_999_999.999999, 1_000_000_000.0)
def test_text_order_of_times_is_their_order(one: float, other: float) -> None:
    """T42: times are written with a fixed width, so that comparing text compares moments, around whole seconds too."""
    texts = [times.iso(one), times.iso(other)]

    assert [len(text) for text in texts] == [27, 27]
    micros = [round(one * 1e6), round(other * 1e6)]
    assert (texts[0] < texts[1]) == (micros[0] < micros[1])
    assert (texts[0] == texts[1]) == (micros[0] == micros[1])


@given(st.integers(86400 * 10**6, 7_200_000_000 * 10**6), st.integers(-14 * 60, 14 * 60))
def test_moment_survives_being_written_and_read(micros: int, offset: int) -> None:
    """T42: to the microsecond, in whatever zone it was written."""
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=micros)
    written = moment.astimezone(timezone(timedelta(minutes=offset))).isoformat()

    again = times.iso(times.parse_moment(written))

    assert again == moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    assert times.iso(times.parse_moment(again)) == again


@given(st.floats(1.7e9, 2.5e9))
@example(1795311323.5088495)
def test_index_and_file_round_a_moment_alike(moment: float) -> None:
    """Otherwise a rebuilt index would have other times than the one in use."""
    assert micros(moment) == micros(times.parse_moment(times.iso(moment)))
