"""Times as people type them are read as people mean them, and what is not clear is refused."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

from queuectl.job import record as jobs
from queuectl.job import spoken_times, times, zone

if TYPE_CHECKING:
    from collections.abc import Iterator

BERLIN = "CET-1CEST,M3.5.0,M10.5.0/3"
"""The zone of Berlin as TZ may give it, without the database of zones."""


@pytest.fixture(autouse=True)
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The caller's local time: one hour ahead of UTC in winter, two in summer."""
    monkeypatch.setenv("TZ", BERLIN)
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def at(text: str) -> float:
    """A moment in Berlin, in epoch seconds."""
    return time.mktime(time.strptime(text, "%Y-%m-%d %H:%M:%S"))


NOON = "2026-11-29 12:00:00"  # a Sunday


@pytest.mark.parametrize(
    ("typed", "ahead", "behind"),
    [
        ("now", NOON, NOON),
        ("+1h", "2026-11-29 13:00:00", "2026-11-29 13:00:00"),
        ("1h30m", "2026-11-29 13:30:00", "2026-11-29 10:30:00"),
        ("2h 5m", "2026-11-29 14:05:00", "2026-11-29 09:55:00"),
        ("in 2 hours", "2026-11-29 14:00:00", "2026-11-29 14:00:00"),
        ("2h ago", "2026-11-29 10:00:00", "2026-11-29 10:00:00"),
        ("02:00", "2026-11-30 02:00:00", "2026-11-29 02:00:00"),
        ("18:00", "2026-11-29 18:00:00", "2026-11-28 18:00:00"),
        ("18:00:30", "2026-11-29 18:00:30", "2026-11-28 18:00:30"),
        ("6pm", "2026-11-29 18:00:00", "2026-11-28 18:00:00"),
        ("12:30 AM", "2026-11-30 00:30:00", "2026-11-29 00:30:00"),
        ("12:00", NOON, NOON),
        ("noon", NOON, NOON),
        ("tomorrow", "2026-11-30 00:00:00", "2026-11-30 00:00:00"),
        ("Tomorrow  02:00", "2026-11-30 02:00:00", "2026-11-30 02:00:00"),
        ("tomorrow at 2am", "2026-11-30 02:00:00", "2026-11-30 02:00:00"),
        ("today", "2026-11-29 00:00:00", "2026-11-29 00:00:00"),
        ("today 18:00", "2026-11-29 18:00:00", "2026-11-29 18:00:00"),
        ("yesterday", "2026-11-28 00:00:00", "2026-11-28 00:00:00"),
        ("friday 9am", "2026-12-04 09:00:00", "2026-11-27 09:00:00"),
        ("sun 13:00", "2026-11-29 13:00:00", "2026-11-22 13:00:00"),
        ("2026-12-31", "2026-12-31 00:00:00", "2026-12-31 00:00:00"),
        ("2026-12-31 18:00", "2026-12-31 18:00:00", "2026-12-31 18:00:00"),
        ("2026-12-31T18:00", "2026-12-31 18:00:00", "2026-12-31 18:00:00"),
        ("2026-12-31T17:00Z", "2026-12-31 18:00:00", "2026-12-31 18:00:00"),
        ("1900000000", "2030-03-17 18:46:40", "2030-03-17 18:46:40"),
    ],
)
def test_a_time_is_read_as_people_mean_it(typed: str, ahead: str, behind: str) -> None:
    """A time of day alone is the next one for a start, and the last one for `--since`."""
    assert spoken_times.read_moment(typed, at(NOON)) == at(ahead)
    assert spoken_times.read_moment(typed, at(NOON), past=True) == at(behind)


@pytest.mark.parametrize(
    "typed",
    ["", "soon", "18", "1830", "60", "25:00", "13pm", "0pm", "12:60", "tomorrow 2", "tomorrow 25:00", "next week",
     "5m 5m", "30m1h", "10M", "2026-02-30 10:00", "+", "+soon", "ago"],
)  # fmt: skip
def test_what_is_not_clear_is_refused(typed: str) -> None:
    """It must not start the job at once."""
    with pytest.raises(ValueError, match="write"):
        spoken_times.read_moment(typed, at(NOON))


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("2027-03-28T02:30", "2027-03-28T01:30:00.000000Z"),  # the hour is left out: 03:30 in summer time
        ("2027-03-28 02:30", "2027-03-28T01:30:00.000000Z"),
        ("2027-03-28T03:30", "2027-03-28T01:30:00.000000Z"),
        ("2027-10-31T02:30", "2027-10-31T00:30:00.000000Z"),  # the hour comes twice: the first one
    ],
)
def test_the_hour_that_spring_takes_away_is_an_hour_later(
    typed: str, meant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As PEP 495 and cron have it: 02:30 is 03:30, typed and in a file."""
    if not os.path.exists("/usr/share/zoneinfo/Europe/Berlin"):
        pytest.skip("no database of zones")
    monkeypatch.setattr(zone, "LOCALTIME", "/usr/share/zoneinfo/Europe/Berlin")
    assert times.iso(spoken_times.read_moment(typed, at("2027-03-27 12:00:00"))) == meant
    assert times.iso(times.parse_moment(typed)) == meant
    assert times.iso(jobs.from_mapping({"command": "true", "run_at": typed}).run_at or 0) == meant


def test_a_clock_time_in_an_hour_that_comes_twice_is_the_next_one() -> None:
    """At 02:45 summer time, 02:30 comes again in 45 minutes."""
    now = times.parse_moment("2027-10-31T00:45:00Z")
    assert times.iso(spoken_times.read_moment("02:30", now)) == "2027-10-31T01:30:00.000000Z"
    before = times.parse_moment("2027-03-28T00:00:00Z")  # 01:00; there is no 02:30
    assert times.iso(spoken_times.read_moment("02:30", before)) == "2027-03-28T01:30:00.000000Z"


@pytest.mark.parametrize(
    ("typed", "seconds"),
    [("1h30m", 5400), ("2h 5m", 7500), ("1d 2h 3m 4s", 93784), ("+1h", 3600), ("90", 90), ("1.5h", 5400), (90, 90),
     ("2 hours", 7200), ("1 day", 86400), ("500ms", 0.5), (" 10m ", 600)],
)  # fmt: skip
def test_a_length_of_time_may_have_several_units(typed: object, seconds: float) -> None:
    """On the command line, in settings and in job files alike."""
    assert times.parse_duration(typed) == seconds


@pytest.mark.parametrize(
    "typed", ["1h30", "30m1h", "1h1h", "1:30", "10M", "h", "", "-5", "1e3", "5 parsecs", "1h,5m"]
)
def test_a_length_of_time_that_is_not_clear_is_refused(typed: str) -> None:
    """`1h30` may be minutes or seconds, and `1:30` hours or minutes."""
    with pytest.raises(ValueError, match="write seconds, or 30s"):
        times.parse_duration(typed)


@pytest.mark.parametrize("number", [1, 60, 1830, 1830.5, "1830", "0060", 20261231, 978307199])
def test_a_number_before_2001_is_refused_with_the_way_to_write_it(number: object) -> None:
    """1830 means half past six to somebody; as epoch seconds it would start the job at once."""
    with pytest.raises(
        ValueError, match=r"too small for epoch seconds.*write the time like 2026-12-31T18:30:00Z"
    ):
        times.parse_moment(number)
    assert times.parse_moment(978307200) == 978307200
    assert times.parse_moment(0) == 0  # programs write it for `at once`
    assert times.parse_moment("1999-01-01T00:00:00Z") == 915148800


def test_a_time_in_a_file_means_the_machines_zone_whoever_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """An administrator whose TZ is Tokyo must not move the job by his `list`."""
    if not os.path.exists("/usr/share/zoneinfo/Asia/Kolkata"):
        pytest.skip("no database of zones")
    monkeypatch.setattr(zone, "LOCALTIME", "/usr/share/zoneinfo/Asia/Kolkata")
    found = set()
    for here in (BERLIN, "UTC", "JST-9"):
        monkeypatch.setenv("TZ", here)
        time.tzset()
        job = jobs.from_mapping({"command": "true", "run_at": "2027-01-15T13:30"})
        found.add(times.iso(job.run_at or 0))
    assert found == {"2027-01-15T08:00:00.000000Z"}
    monkeypatch.setattr(zone, "LOCALTIME", "/nowhere")
    assert times.iso(times.parse_moment("2027-01-15T13:30", of_machine=True)) == "2027-01-15T13:30:00.000000Z"


def test_a_zone_of_the_machine_that_is_changed_is_read_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A worker that has run for months must agree with a command that starts now."""
    if not os.path.exists("/usr/share/zoneinfo/Asia/Kolkata"):
        pytest.skip("no database of zones")
    link = tmp_path_factory.mktemp("etc") / "localtime"
    monkeypatch.setattr(zone, "LOCALTIME", str(link))
    found = []
    for name in ("Asia/Kolkata", "Asia/Tokyo"):
        link.unlink(missing_ok=True)
        link.symlink_to(f"/usr/share/zoneinfo/{name}")
        found.append(times.parse_moment("2027-01-15T12:00", of_machine=True))
    assert found[0] - found[1] == 3.5 * 3600


def test_a_moment_is_said_with_its_zone() -> None:
    """Name and offset: CST alone is China, Cuba or Chicago."""
    assert times.with_zone(at("2027-07-01 12:00:00")) == "2027-07-01 12:00:00 CEST (+02:00)"
