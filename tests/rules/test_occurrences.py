"""The moments of rules: cron in the nights in which the clock changes, equal distances, and what cannot be a time."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import islice
from zoneinfo import ZoneInfo

import pytest

from queuectl.rules import occurrences
from queuectl.rules.occurrences import At, Cron, Every, Within, checked_cron

BERLIN = ZoneInfo("Europe/Berlin")


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp())


def berlin(schedule: Cron, after: str, count: int) -> list[str]:
    """The next moments, by the clock in Berlin."""
    found = islice(schedule.after(at(after)), count)
    return [datetime.fromtimestamp(one, BERLIN).isoformat() for one in found]


def cron(*expressions: str) -> Cron:
    return Cron(tuple(map(checked_cron, expressions)), BERLIN)


def test_a_time_that_the_night_leaves_out_comes_once_right_after_the_gap() -> None:
    found = berlin(cron("30 2 * * *"), "2031-03-29T12:00Z", 2)

    assert found == ["2031-03-30T03:00:00+02:00", "2031-03-31T02:30:00+02:00"]


def test_a_time_that_comes_twice_counts_the_first_time_only() -> None:
    found = berlin(cron("30 2 * * *"), "2031-10-25T12:00Z", 2)

    assert found == ["2031-10-26T02:30:00+02:00", "2031-10-27T02:30:00+01:00"]


@pytest.mark.parametrize("now", ["2031-10-26T02:15:00+01:00", "2031-10-26T02:45:00+01:00"])
def test_in_the_second_of_two_equal_hours_the_time_of_the_first_has_passed(now: str) -> None:
    """Without the check of the order, cronsim names a moment of an hour ago, and it would be due again and again."""
    assert berlin(cron("30 2 * * *"), now, 1) == ["2031-10-27T02:30:00+01:00"]
    assert next(cron("30 2 * * *").before(at(now))) == at("2031-10-26T02:30:00+02:00")


def test_what_runs_each_half_hour_runs_in_both_hours_of_the_autumn_night() -> None:
    half = berlin(cron("*/30 * * * *"), "2031-10-26T01:45:00+02:00", 4)
    full = berlin(cron("0 * * * *"), "2031-10-26T01:45:00+02:00", 2)

    hours = "2031-10-26T02:00:00+02:00", "2031-10-26T02:30:00+02:00"
    assert half == [*hours, "2031-10-26T02:00:00+01:00", "2031-10-26T02:30:00+01:00"]
    assert full == ["2031-10-26T02:00:00+02:00", "2031-10-26T02:00:00+01:00"]


def test_two_times_that_the_gap_moves_to_one_moment_are_one() -> None:
    found = berlin(cron("0,30 2 * * *"), "2031-03-29T12:00Z", 2)

    assert found == ["2031-03-30T03:00:00+02:00", "2031-03-31T02:00:00+02:00"]


@pytest.mark.parametrize("night", ["2031-03-30", "2031-10-26"])
@pytest.mark.parametrize(
    "expression",
    [
        "30 2 * * *",
        "*/30 * * * *",
        "0 * * * *",
        "0,30 1-3 * * *",
        "59 2 * * *",
        "15 */2 * * *",
        "0 2,3 * * 0",
    ],
)
def test_backwards_it_finds_the_same_moments_as_forwards(expression: str, night: str) -> None:
    """What was missed is looked for backwards; a moment found only one way would run twice, or never."""
    schedule = cron(expression)
    start, end = at(f"{night}T00:00Z") - 4 * 3600, at(f"{night}T00:00Z") + 6 * 3600
    forwards = []
    for one in schedule.after(start):
        if one > end:
            break
        forwards.append(one)

    for now in range(start, end, 23 * 60):
        passed = [one for one in forwards if one <= now]
        assert occurrences.between(schedule, start, now) == passed
        later = [one for one in forwards if one > now]
        assert list(islice(schedule.after(now), len(later))) == later


def test_of_several_expressions_each_counts_and_a_common_moment_counts_once() -> None:
    both = Cron((checked_cron("0 2 * * *"), checked_cron("0 2,14 * * *")), ZoneInfo("UTC"))

    found = [datetime.fromtimestamp(one, UTC).hour for one in islice(both.after(0), 4)]
    assert found == [2, 14, 2, 14]
    back = [datetime.fromtimestamp(one, UTC).hour for one in islice(both.before(86400 * 5), 3)]
    assert back == [14, 2, 14]


def test_day_of_month_and_weekday_are_either_as_in_debian() -> None:
    """Friday the 13th would be another rule; cron-converter read it so."""
    schedule = Cron((checked_cron("0 0 13 * 5"),), ZoneInfo("UTC"))

    days = [
        datetime.fromtimestamp(one, UTC).day for one in islice(schedule.after(at("2031-01-01T00:00Z")), 4)
    ]
    assert days == [3, 10, 13, 17]


@pytest.mark.parametrize(
    ("text", "day"),
    [
        ("0 0 L * *", "2031-01-31"),
        ("0 0 * * MON#2", "2031-01-13"),
        ("@yearly", "2032-01-01"),
        ("@weekly", "2031-01-05"),
        ("0 0 1 FEB *", "2031-02-01"),
    ],
)
def test_last_days_numbered_weekdays_names_and_nicknames_are_known(text: str, day: str) -> None:
    schedule = Cron((checked_cron(text),), ZoneInfo("UTC"))

    assert next(schedule.after(at("2031-01-01T12:00Z"))) == at(f"{day}T00:00Z")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("0 25 * * *", "bad hour in '0 25 * * *'"),
        ("60 2 * * *", "bad minute in '60 2 * * *'"),
        ("0 2 32 * *", "bad day-of-month in '0 2 32 * *'"),
        ("0 2 * 13 *", "bad month in '0 2 * 13 *'"),
        ("0 2 * * XYZ", "bad day-of-week in '0 2 * * XYZ'"),
        ("0 2 * * *,", "bad day-of-week in '0 2 * * *,'"),
        ("*/0 * * * *", "bad minute in '*/0 * * * *'"),
        (
            "0 0 2 * * *",
            "has 6 fields; 5 are wanted: minute hour day month weekday. For seconds: every",
        ),
        ("0 2 *", "has 3 fields; 5 are wanted: minute hour day month weekday"),
        ("0 0 30 2 *", "no day is like that"),
        ("0 0 31 4,6 *", "no day is like that"),
        ("", "must be text like '0 2 * * *': minute hour day month weekday"),
        (5, "must be text like '0 2 * * *': minute hour day month weekday"),
    ],
)
def test_what_is_no_cron_expression_is_refused_with_the_field_that_is_wrong(
    text: object, reason: str
) -> None:
    with pytest.raises(ValueError, match=r".") as found:
        checked_cron(text)

    assert str(found.value) == reason


def test_reboot_is_no_time() -> None:
    with pytest.raises(ValueError, match="@reboot is not known: write @hourly @daily"):
        checked_cron("@reboot")


def test_equal_distances_lie_on_one_grid_whoever_asks_when() -> None:
    """A rule of seven days fires each week, although its worker is restarted each hour."""
    week = Every(7 * 86400)
    start = at("2031-01-01T00:00Z")

    seen = {next(week.after(now)) for now in range(start, start + 6 * 86400, 3600)}
    assert len(seen) <= 2
    assert all(one % (7 * 86400) == 0 for one in seen)
    assert list(islice(Every(600, start).before(start + 1201), 5)) == [start + 1200, start + 600, start]
    assert next(Every(600, start).after(start - 10**6)) == start


def test_a_period_bounds_both_ways() -> None:
    schedule = Within(Every(10), first=100, last=130)

    assert list(schedule.after(0)) == [100, 110, 120, 130]
    assert list(schedule.before(10**9)) == [130, 120, 110, 100]
    assert list(Within(At((5, 7, 9)), first=6).before(8)) == [7]
    assert list(At((5, 7, 9)).after(5)) == [7, 9]


def test_of_very_many_missed_moments_the_last_thousand_are_named() -> None:
    found = occurrences.between(Every(60), 0, 60 * 10**6)

    assert (len(found), found[0], found[-1]) == (1000, 60 * (10**6 - 999), 60 * 10**6)


def test_the_zone_of_the_machine_is_asked_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    schedule = Cron((checked_cron("0 2 * * *"),))
    now = at("2031-01-01T12:00Z")
    found = []
    for name in ("Europe/Berlin", "America/New_York"):
        monkeypatch.setattr(occurrences, "of_machine", lambda name=name: ZoneInfo(name))
        found.append(next(schedule.after(now)))

    assert found == [at("2031-01-02T02:00:00+01:00"), at("2031-01-02T02:00:00-05:00")]


def test_an_occurrence_is_named_in_utc_and_shown_with_the_offset_of_its_zone() -> None:
    moment = at("2031-01-01T02:00:00+01:00")

    assert occurrences.text_of(moment) == "20310101T010000Z"
    assert occurrences.scheduled_for(moment, BERLIN) == "2031-01-01T02:00:00+01:00"
    assert occurrences.cron_in_words("0 2 * * *") == "at 02:00 every day"
