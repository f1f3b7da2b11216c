"""Rules with a time, under a clock that the tests set: each moment once, whatever was missed, paused, edited or set back."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import pytest
from rules.clock import World, at, one_tick

from queuectl.errors import SpoolFull
from queuectl.rules import job_queueing, occurrences, plans, rule_note
from queuectl.rules.plan import choose
from queuectl.storage import enqueue
from queuectl.system import files
from queuectl.system.locks import Lock

from support import load

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from queuectl.errors import KeyTaken
    from queuectl.layout import Layout
    from queuectl.storage.transitions import Prepared, Storage

NIGHTLY = '{cron: "0 2 * * *", timezone: Europe/Berlin}'
UTC_NIGHTLY = '{cron: "0 2 * * *", timezone: UTC, %s}'


@pytest.fixture
def world(spool_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], World]:
    """Make a spool at a moment."""
    return lambda now: World(spool_dir, now, monkeypatch)


@pytest.mark.parametrize(
    ("day", "job", "moment"),
    [
        ("2031-03-29", "backup.20310330T010000Z", "2031-03-30T03:00:00+02:00"),
        ("2031-10-25", "backup.20311026T003000Z", "2031-10-26T02:30:00+02:00"),
    ],
)
def test_in_the_nights_in_which_the_clock_changes_it_runs_once(
    world: Callable[[str], World], spool_dir: Path, day: str, job: str, moment: str
) -> None:
    one = world(f"{day}T12:00Z")
    one.write("backup", '{cron: "30 2 * * *", timezone: Europe/Berlin}')
    one.look()

    for _ in range(24 * 4):
        one.go(15 * 60)
    assert one.ids() == [job]
    assert load(spool_dir / "pending" / f"{job}.json")["scheduled_for"] == moment


def test_after_a_week_without_workers_the_last_moment_is_run_once(world: Callable[[str], World]) -> None:
    one = world("2031-01-01T12:00Z")
    one.write("backup", NIGHTLY)
    one.look()

    one.anew()
    assert one.go("2031-01-08T12:00Z") == ["backup.20310108T010000Z"]
    assert (one.note("backup").skipped, one.note("backup").skips[-1][1]) == (6, "missed")
    assert one.go(3600) == ["backup.20310108T010000Z"]


def test_with_all_each_night_of_the_week_is_run_the_oldest_first(world: Callable[[str], World]) -> None:
    one = world("2031-01-01T12:00Z")
    one.write("backup", UTC_NIGHTLY % "missed: all, overlap: allow")
    one.look()

    assert one.go("2031-01-08T12:00Z") == [f"backup.2031010{day}T020000Z" for day in range(2, 9)]
    assert one.note("backup").skipped == 0
    assert one.note("backup").queued[-1] == at("2031-01-08T02:00Z")


def test_what_is_too_much_to_be_caught_up_is_counted(
    world: Callable[[str], World], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(occurrences, "MOST", 3)
    one = world("2031-01-01T12:00Z")
    one.write("backup", UTC_NIGHTLY % "missed: all, overlap: allow")
    one.look()

    assert one.go("2031-01-07T12:00Z") == [f"backup.2031010{day}T020000Z" for day in (5, 6, 7)]
    note = one.note("backup")
    assert (note.skipped, note.skips[-1][0]) == (3, at("2031-01-04T02:00Z"))


@pytest.mark.parametrize(("late", "expected"), [(9, ["backup.20310102T020000Z"]), (11, [])])
def test_with_skip_only_what_is_not_late_yet_is_run(
    world: Callable[[str], World], late: int, expected: list[str]
) -> None:
    one = world("2031-01-01T12:00Z")
    one.write("backup", UTC_NIGHTLY % "missed: skip, grace: 10m")
    one.look()

    assert one.go(f"2031-01-02T02:{late:02}Z") == expected
    assert one.note("backup").skipped == (not expected)


def test_moments_that_one_busy_second_brings_are_not_missed(world: Callable[[str], World]) -> None:
    """A worker with a job looks once a second; each second's job would else lose one now and then."""
    one = world("2031-01-01T12:00Z")
    one.write("tick", "{every: 1s, overlap: allow}")
    one.look()

    assert len(one.go(2.0)) == 2
    assert choose([1, 2, 3], one.scheduler._plans._plans["tick"].trigger, 3.9) == [1, 2, 3]  # type: ignore[union-attr]


def test_a_job_whose_record_was_purged_is_not_run_again(
    world: Callable[[str], World], spool_dir: Path
) -> None:
    """The index is deleted, too: the note alone knows that the night was done."""
    one = world("2031-01-01T12:00Z")
    one.write("backup", NIGHTLY)
    one.look()
    one.go("2031-01-02T02:00Z")

    (spool_dir / "pending" / "backup.20310102T010000Z.json").unlink()
    one.anew()
    assert one.go(60) == []
    assert one.go("2031-01-03T01:00Z") == ["backup.20310103T010000Z"]


def test_a_job_that_was_queued_but_not_noted_is_not_queued_twice(world: Callable[[str], World]) -> None:
    """The worker was killed between the two. Done meanwhile, the job is found in done/."""
    one = world("2031-01-01T12:00Z")
    one.write("backup", NIGHTLY)
    one.look()
    before = (one.spool.layout.rule_note("backup"), one.note("backup"))
    one.go("2031-01-02T01:00Z")
    one.end("backup.20310102T010000Z")

    rule_note.write(one.spool.layout, "backup", before[1])
    one.anew()
    assert one.go(60) == ["backup.20310102T010000Z"]
    assert one.note("backup").queued == [at("2031-01-02T01:00Z")]
    assert one.note("backup").skipped == 0


def test_it_is_queued_before_it_is_noted(
    world: Callable[[str], World], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Noted first, a crash between the two loses the night."""
    one = world("2031-01-01T12:00Z")
    one.write("backup", NIGHTLY)
    one.look()
    there: list[list[str]] = []
    write = rule_note.write

    def watched(layout: Layout, rule: str, note: rule_note.Note) -> None:
        there.append(one.ids())
        write(layout, rule, note)

    monkeypatch.setattr(rule_note, "write", watched)

    one.go("2031-01-02T01:00Z")
    assert there == [["backup.20310102T010000Z"]]


def test_what_was_dropped_before_its_moment_runs_although_no_worker_lived_then(
    world: Callable[[str], World],
) -> None:
    one = world("2031-01-01T01:00Z")
    one.write("backup", UTC_NIGHTLY % "missed: once")

    assert one.go("2031-01-01T03:00Z") == ["backup.20310101T020000Z"]


def test_nothing_from_before_a_rule_came_is_run(world: Callable[[str], World]) -> None:
    one = world("2031-01-01T01:00Z")
    one.write("backup", UTC_NIGHTLY % "missed: all, from: 2030-01-01")
    one.look()

    assert one.ids() == []
    assert one.note("backup").skipped == 0


def test_a_hundred_missed_minutes_end_no_rule(world: Callable[[str], World]) -> None:
    """Kubernetes stopped for good after 100."""
    one = world("2031-01-01T12:00:30Z")
    one.write("tick", '{cron: "* * * * *"}')
    one.look()
    one.go(101 * 60)
    one.end_all()

    assert len(one.go(60)) == 2
    assert one.note("tick").skipped == 100


def test_of_a_month_in_a_pause_nothing_is_caught_up(world: Callable[[str], World]) -> None:
    one = world("2031-01-01T12:00Z")
    one.write("backup", NIGHTLY)
    one.look()
    one.pause("backup")
    one.look()
    one.go("2031-01-10T12:00Z")
    one.anew()
    one.go("2031-02-01T12:00Z", look=False)
    one.resume("backup")

    assert one.go(60) == []
    assert one.go("2031-02-02T01:00Z") == ["backup.20310202T010000Z"]
    assert one.note("backup").skipped == 0


def test_a_pause_that_ended_before_a_worker_looked_is_not_caught_up(world: Callable[[str], World]) -> None:
    """All workers were stopped meanwhile, as for an upgrade."""
    one = world("2031-01-01T12:00Z")
    one.write("backup", UTC_NIGHTLY % "missed: all")
    one.look()
    one.scheduler.close()
    one.spool.pause_rule("backup")
    one.go("2031-01-04T12:00Z", look=False)
    one.spool.resume_rule("backup")
    one._stamp()
    one.anew()

    assert one.go(60) == []
    assert one.go("2031-01-05T02:00Z") == ["backup.20310105T020000Z"]


def test_a_file_that_was_away_is_as_a_pause(world: Callable[[str], World]) -> None:
    """Renamed to NAME.yaml.off and back: the same `when`, so the note alone would catch up."""
    one = world("2031-01-01T12:00Z")
    one.write("backup", NIGHTLY)
    one.look()
    os.rename(one.folder / "backup.yaml", one.folder / "backup.yaml.off")
    one._stamp()
    one.anew().look()
    one.write("other", NIGHTLY)
    one.look()
    one.go("2031-01-09T12:00Z", look=False)
    os.rename(one.folder / "backup.yaml.off", one.folder / "backup.yaml")
    one._stamp()

    assert [job for job in one.go(60) if job.startswith("backup")] == []


def test_of_a_job_that_takes_longer_than_the_span_there_is_never_a_second_one(
    world: Callable[[str], World],
) -> None:
    one = world("2031-01-01T12:00:30Z")
    one.write("tick", '{cron: "* * * * *"}')
    one.look()
    first = one.go(60)

    assert one.go(60) == one.go(60) == first
    note = one.note("tick")
    assert note.skipped == 2
    assert note.skips[-1][1] == f"job {first[0]} is not over"
    one.end_all()
    assert len(one.go(60)) == 2


def test_a_job_that_waits_for_its_retry_is_not_over(world: Callable[[str], World], spool_dir: Path) -> None:
    one = world("2031-01-01T12:00:30Z")
    one.write("tick", '{cron: "* * * * *"}')
    one.look()
    [job] = one.go(60)
    path = spool_dir / "pending" / f"{job}.json"
    record = load(path) | {"state": "failed", "attempts": 1, "next_retry_at": "2031-02-01T00:00:00.000000Z"}
    path.write_text(json.dumps(record))

    assert one.go(60) == [job]


def test_with_queue_they_line_up_and_with_replace_the_newest_waits(world: Callable[[str], World]) -> None:
    one = world("2031-01-01T12:00:30Z")
    one.write("line", '{cron: "* * * * *", overlap: queue}')
    one.write("last", '{cron: "* * * * *", overlap: replace}')
    one.look()
    one.go(60)
    found = one.go(60)

    assert [job[:4] for job in found] == ["last", "line", "line"]
    assert found[0] == "last.20310101T120200Z"


def test_a_long_distance_is_not_counted_anew_by_each_restart(world: Callable[[str], World]) -> None:
    """Trap 9. A machine that is started each morning would never come to the end of seven days."""
    one = world("2031-01-01T12:00Z")
    one.write("weekly", "{every: 7d, overlap: allow}")
    for _ in range(30):
        one.anew()
        one.go(12 * 3600.0)
    assert one.ids() == ["weekly.20310102T000000Z", "weekly.20310109T000000Z", "weekly.20310116T000000Z"]


def test_an_hour_that_is_edited_from_nine_to_eight_at_half_past_eight_waits_for_tomorrow(
    world: Callable[[str], World],
) -> None:
    one = world("2031-01-01T07:00Z")
    one.write("backup", '{cron: "0 9 * * *", timezone: UTC}')
    one.look()
    one.go("2031-01-01T08:30Z")
    one.write("backup", '{cron: "0 8 * * *", timezone: UTC}')

    assert one.go("2031-01-01T20:00Z") == []
    assert one.go("2031-01-02T08:00Z") == ["backup.20310102T080000Z"]


def test_an_edited_command_changes_no_moment(world: Callable[[str], World], spool_dir: Path) -> None:
    one = world("2031-01-01T01:00Z")
    one.write("backup", UTC_NIGHTLY % "missed: once")
    one.look()
    one.go("2031-01-01T02:30Z", look=False)
    one.write("backup", UTC_NIGHTLY % "missed: once", "job: {command: other}")

    [job] = one.go(60)
    assert load(spool_dir / "pending" / f"{job}.json")["command"] == "other"


def test_a_clock_that_was_a_day_ahead_is_doubted_for_ten_minutes_and_repeats_nothing(
    world: Callable[[str], World],
) -> None:
    one = world("2031-01-01T12:00Z")
    one.write("hourly", '{cron: "0 * * * *", timezone: UTC, overlap: allow}')
    one.look()
    ahead = one.go("2031-01-02T12:00Z")
    one.end_all()

    one.now = float(at("2031-01-01T12:58:30Z"))
    for _ in range(9):
        one.go(60)
    assert one.ids() == ahead == ["hourly.20310102T120000Z"]
    one.ticks += 120
    one.look()
    assert one.go("2031-01-01T14:00Z") == ["hourly.20310101T140000Z", *ahead]
    for hour in range(15, 24):
        one.go(f"2031-01-01T{hour}:00Z")
    for hour in range(13):
        one.go(f"2031-01-02T{hour:02}:00Z")
    assert len(one.ids()) == len(set(one.ids())) == 24 - 1


def test_a_clock_that_is_set_back_by_half_an_hour_repeats_nothing_and_waits(
    world: Callable[[str], World], spool_dir: Path
) -> None:
    """The records are gone, and the note has the last ten moments only."""
    one = world("2031-01-01T12:00:30Z")
    one.write("tick", '{cron: "* * * * *", overlap: allow, missed: all}')
    one.look()
    assert len(one.go(30 * 60)) == 30
    for path in (spool_dir / "pending").iterdir():
        path.unlink()

    one.now -= 30 * 60
    for _ in range(30):
        assert one.go(60) == []
    assert one.go(60) == ["tick.20310101T123100Z"]


def test_a_machine_that_boots_in_1970_queues_nothing_until_it_has_the_time(
    world: Callable[[str], World],
) -> None:
    one = world("2031-01-01T12:00Z")
    one.write("backup", NIGHTLY)
    one.look()
    one.anew()
    one.now = 60.0

    for _ in range(8):
        assert one.go(60) == []
    assert one.go("2031-01-02T12:00Z") == ["backup.20310102T010000Z"]


def test_a_new_zone_of_the_machine_moves_the_next_moments_and_repeats_none(
    world: Callable[[str], World], monkeypatch: pytest.MonkeyPatch
) -> None:
    berlin, new_york = ZoneInfo("Europe/Berlin"), ZoneInfo("America/New_York")
    monkeypatch.setattr(occurrences, "of_machine", lambda: berlin)
    one = world("2031-01-01T12:00Z")
    one.write("backup", '{cron: "0 2 * * *", overlap: allow}')
    one.look()
    one.go("2031-01-02T01:00Z")
    monkeypatch.setattr(occurrences, "of_machine", lambda: new_york)
    one.go(60)

    assert one.scheduler.due_in() == at("2031-01-02T02:00-05:00") - one.now
    one.go("2031-01-02T02:00-05:00")
    assert one.go("2031-01-03T02:00+01:00") == ["backup.20310102T010000Z", "backup.20310102T070000Z"]


def test_a_restart_does_not_put_a_delayed_job_off(world: Callable[[str], World], spool_dir: Path) -> None:
    one = world("2031-01-01T12:00Z")
    one.write("backup", UTC_NIGHTLY % "jitter: 5m")
    one.look()
    [job] = one.go("2031-01-02T02:00Z")

    run_at = load(spool_dir / "pending" / f"{job}.json")["run_at"]
    assert "2031-01-02T02:00:00" <= run_at < "2031-01-02T02:05:00"
    one.anew()
    assert one.go(60) == [job]
    assert load(spool_dir / "pending" / f"{job}.json")["run_at"] == run_at


def test_a_night_in_which_a_step_died_does_not_end_the_pipeline(world: Callable[[str], World]) -> None:
    """`load` is blocked by it. The next night runs all the same, and the first one can still be mended."""
    one = world("2031-01-01T12:00Z")
    pipeline = "jobs:\n- {id: extract, command: a}\n- {id: load, command: b, after: [extract]}"
    one.write("nightly", UTC_NIGHTLY % "missed: once", pipeline)
    one.look()
    one.go("2031-01-02T02:00Z")
    one.go("2031-01-03T02:00Z")
    assert len(one.ids()) == 2
    assert "is not over" in one.note("nightly").skips[-1][1]

    one.end("nightly.20310102T020000Z.extract", "dead")
    found = one.go("2031-01-04T02:00Z")
    assert found[2:] == ["nightly.20310104T020000Z.extract", "nightly.20310104T020000Z.load"]
    assert {one.spool.get(job).batch for job in one.ids()} == {
        "nightly.20310102T020000Z",
        "nightly.20310104T020000Z",
    }


def test_a_list_of_which_one_job_is_kept_out_by_its_key_is_passed_over_as_a_whole(
    world: Callable[[str], World],
) -> None:
    """Half of it would be queued, and the jobs after the one that is missing would wait for ever."""
    one = world("2031-01-01T12:00Z")
    jobs = "jobs: [{id: a, command: a}, {id: b, command: b, unique: key}, {id: c, command: c, after: b}]"
    one.write("nightly", UTC_NIGHTLY % "overlap: allow", jobs)
    one.look()
    one.spool.enqueue("true", id="other", unique="key")

    assert one.go("2031-01-02T02:00Z") == ["other"]
    assert one.note("nightly").skips == [(at("2031-01-02T02:00Z"), "job other is not over")]
    one.end("other")
    assert [job[-1] for job in one.go("2031-01-03T02:00Z")] == ["a", "b", "c", "r"]


def test_of_a_list_that_was_half_queued_the_rest_is_queued(
    world: Callable[[str], World], spool_dir: Path
) -> None:
    one = world("2031-01-01T12:00Z")
    one.write("nightly", UTC_NIGHTLY % "missed: once", "jobs: [{id: a, command: a}, {id: b, command: b}]")
    one.look()
    before = one.note("nightly")
    one.go("2031-01-02T02:00Z")
    (spool_dir / "pending" / "nightly.20310102T020000Z.b.json").unlink()

    rule_note.write(one.spool.layout, "nightly", before)
    one.anew()
    assert one.go(60) == ["nightly.20310102T020000Z.a", "nightly.20310102T020000Z.b"]


def test_a_moment_whose_time_is_over_makes_no_dead_job(world: Callable[[str], World]) -> None:
    one = world("2031-01-01T12:00Z")
    one.write("backup", UTC_NIGHTLY % "missed: once", "job: {command: a, expires_in: 1h}")
    one.look()

    assert one.go("2031-01-02T12:00Z") == []
    assert one.note("backup").skips == [(at("2031-01-02T02:00Z"), "expires_in was over")]


def test_a_thousand_rules_at_one_moment_are_all_queued_in_slices(
    world: Callable[[str], World], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In small: the clock of the slices stands still, and then has passed after each few jobs."""
    monkeypatch.setattr(plans, "_AT_ONCE", 4)
    one = world("2031-01-01T12:00Z")
    for number in range(30):
        one.write(f"rule-{number}", UTC_NIGHTLY % "missed: once")
    one.look()
    one.now = float(at("2031-01-02T02:00Z"))
    ticking = one.scheduler
    ticking._monotonic = ticking._plans._monotonic = one_tick(one)  # type: ignore[union-attr]

    rounds = 0
    while (ticking.has_work or not rounds) and rounds < 60:
        ticking.look()
        rounds += 1
    assert len(one.ids()) == 30
    assert 1 < rounds <= 31


def test_rules_that_are_due_at_one_moment_wait_for_the_disk_once(
    world: Callable[[str], World], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trap 13. At full hour a thousand of them are due. Each is judged for itself all the same."""
    one = world("2031-01-01T12:00Z")
    for number in range(12):
        one.write(f"rule-{number}", UTC_NIGHTLY % "missed: once")
    one.write("short", UTC_NIGHTLY % "missed: once", "job: {command: 'true', expires_in: 1s}")
    one.write("missed", UTC_NIGHTLY % "missed: skip, grace: 1s")
    one.write("list", UTC_NIGHTLY % "missed: once", "jobs: [{id: a, command: a}, {id: b, command: b}]")
    one.write("rests", UTC_NIGHTLY % "missed: once")
    one.pause("rests")
    one.look()
    under_way = one.spool.run_rule("rule-3")
    made = job_queueing.prepared(
        one.spool._job_defaults(),
        {"id": "rule-4.20310102T020000Z", "command": "true", "rule": "rule-4"},
        one.now,
    )
    enqueue.enqueue(one.storage, made)
    calls: list[int] = []
    several = job_queueing.enqueue_several

    def counting(storage: Storage, wanted: list[Prepared], *, durable: bool) -> dict[str, KeyTaken]:
        calls.append(len(wanted))
        return several(storage, wanted, durable=durable)

    monkeypatch.setattr(job_queueing, "enqueue_several", counting)
    assert len(one.go("2031-01-02T02:00:05Z")) == len(under_way) + 11 + 2
    assert calls == [12]
    assert one.note("rule-3").skips == [(at("2031-01-02T02:00Z"), f"job {under_way[0]} is not over")]
    assert one.note("short").skips == [(at("2031-01-02T02:00Z"), "expires_in was over")]
    assert one.note("missed").skips == [(at("2031-01-02T02:00Z"), "missed")]
    queued = [one.note(f"rule-{number}").queued for number in range(12) if number != 3]
    assert queued == [[at("2031-01-02T02:00Z")]] * 11


def test_a_long_list_holds_no_worker_up_and_is_queued_once(world: Callable[[str], World]) -> None:
    """A thousand jobs take three seconds. Between slices of them the worker starts jobs, and another worker may go on."""
    one = world("2031-01-01T12:00Z")
    jobs = ", ".join(f"{{id: j{number}, command: 'true'}}" for number in range(20))
    one.write("night", UTC_NIGHTLY % "missed: once", f"jobs: [{jobs}]")
    one.look()
    one.now = float(at("2031-01-02T02:00Z"))

    sizes: set[int] = set()
    for number in range(60):
        ticking = one.anew() if number == 5 else one.scheduler
        ticking._monotonic = one_tick(one)
        if ticking._plans is not None:
            ticking._plans._monotonic = ticking._monotonic
        ticking.look()
        sizes.add(len(one.ids()))
    assert len(sizes) > 5
    assert one.ids() == sorted(f"night.20310102T020000Z.j{number}" for number in range(20))
    assert (one.note("night").queued, one.note("night").skipped) == ([at("2031-01-02T02:00Z")], 0)


def test_what_the_disk_refuses_is_told_and_tried_again_and_keeps_no_other_rule(
    world: Callable[[str], World], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = world("2031-01-01T12:00Z")
    for name in ("backup", "other"):
        one.write(name, NIGHTLY)
    one.look()
    real = enqueue.enqueue

    def full(storage: Storage, made: Prepared, *, durable: bool = True) -> None:
        if made.id.startswith("backup."):
            raise SpoolFull("no space")
        real(storage, made, durable=durable)

    several = job_queueing.enqueue_several

    def none(_storage: Storage, wanted: list[Prepared], *, durable: bool) -> dict[str, KeyTaken]:
        assert durable
        assert len(wanted) == 2
        raise SpoolFull("no space")

    monkeypatch.setattr(enqueue, "enqueue", full)
    monkeypatch.setattr(job_queueing, "enqueue_several", none)
    assert one.go("2031-01-02T01:00Z") == ["other.20310102T010000Z"]
    assert one.said == ["rule backup: no space"]
    assert one.scheduler.due_in() == 1.0
    assert one.note("backup").queued == []
    monkeypatch.setattr(enqueue, "enqueue", real)
    monkeypatch.setattr(job_queueing, "enqueue_several", several)
    assert one.go(1) == ["backup.20310102T010000Z", "other.20310102T010000Z"]


def test_a_producer_that_decides_about_keys_holds_no_worker_up(
    world: Callable[[str], World], spool_dir: Path
) -> None:
    """The lock may be held for a minute: until then the worker would start no job."""
    one = world("2031-01-01T12:00Z")
    one.write("backup", NIGHTLY)
    one.look()
    lock = Lock.acquire(str(spool_dir / "data" / "unique.lock"))
    assert lock is not None

    began = time.monotonic()
    assert one.go("2031-01-02T01:00Z") == []
    assert time.monotonic() - began < 20
    assert one.scheduler.due_in() == 1.0
    lock.release()
    assert one.go(1) == ["backup.20310102T010000Z"]


def test_a_note_that_a_killed_worker_left_half_written_is_deleted(
    world: Callable[[str], World], spool_dir: Path
) -> None:
    one = world("2031-01-01T12:00Z")
    one.write("backup", NIGHTLY)
    left = spool_dir / "data" / "rules" / files.temporary_name()
    left.write_bytes(b"{")
    one.look()

    assert not left.exists()


def test_while_others_may_write_into_the_spool_nothing_is_queued(world: Callable[[str], World]) -> None:
    one = world("2031-01-01T12:00Z")
    one.write("backup", NIGHTLY)
    one.look()
    one.danger = "rules/ can be written by others"

    assert one.go("2031-01-02T01:00Z") == []
    assert one.scheduler.due_in() > 0
    one.danger = None
    assert one.go(60) == ["backup.20310102T010000Z"]


def test_of_two_workers_one_works_and_the_other_goes_on_when_it_leaves(world: Callable[[str], World]) -> None:
    one = world("2031-01-01T12:00Z")
    one.write("backup", NIGHTLY)
    one.look()
    first = one.scheduler
    del one.scheduler
    second = one.anew()
    second.look()

    assert (first.due_in() < 10**6, second._plans, second.nothing_due) == (True, None, True)
    first.close()
    assert not second.nothing_due
    assert one.go("2031-01-02T01:00Z") == ["backup.20310102T010000Z"]


def test_without_data_every_rule_begins_now(world: Callable[[str], World], spool_dir: Path) -> None:
    """The records are purged, too: from the arrival of its file on, all would be run again."""
    one = world("2031-01-01T12:00Z")
    one.write("backup", UTC_NIGHTLY % "missed: all, overlap: allow")
    one.look()
    for job in one.go("2031-01-03T12:00Z"):
        (spool_dir / "pending" / f"{job}.json").unlink()
    one.scheduler.close()
    (spool_dir / "data" / "rules" / "backup.json").unlink()
    for lock in (spool_dir / "data").glob("*.lock"):
        os.utime(lock, (one.now, one.now))  # all of data/ is made anew

    one.anew()
    assert one.go(60) == []
    assert one.go("2031-01-04T02:00Z") == ["backup.20310104T020000Z"]


def test_a_note_that_a_power_cut_left_empty_repeats_nothing(
    world: Callable[[str], World], spool_dir: Path
) -> None:
    """Its time is that of its last writing. The record of the job may have been purged."""
    one = world("2031-01-01T12:00Z")
    one.write("backup", NIGHTLY)
    one.look()
    [job] = one.go("2031-01-02T01:00Z")
    (spool_dir / "pending" / f"{job}.json").unlink()
    note = spool_dir / "data" / "rules" / "backup.json"
    note.write_bytes(b"")
    os.utime(note, (one.now, one.now))
    one.anew()

    assert one.go(60) == []
    assert one.go("2031-01-03T01:00Z") == ["backup.20310103T010000Z"]
