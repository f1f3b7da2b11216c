"""The file of a rule: what it says, and what is told of a wrong one, with line and column."""

from __future__ import annotations

import json
import sys
import zoneinfo
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pytest

from queuectl.rules import job_template, rule_file
from queuectl.rules.rule import InvalidRule, Rule

if TYPE_CHECKING:
    from queuectl.rules.occurrences import Schedule

JOB = "job: {command: 'true'}"


def parse(text: str, path: str = "rules/backup.yaml") -> Rule:
    return rule_file.parse("backup", text.encode(), path)


def fault(text: str, path: str = "rules/backup.yaml") -> str:
    with pytest.raises(InvalidRule) as found:
        parse(text, path)
    return str(found.value)


def schedule(text: str) -> Schedule:
    found = parse(text).trigger.schedule
    assert found is not None
    return found


def made(
    text: str, occurrence: str = "20310101T010000Z", moment: int | None = 1924995600
) -> list[dict[str, Any]]:
    return list(job_template.made(parse(text), occurrence, moment, 0.0))


@pytest.mark.parametrize(
    ("when", "reason"),
    [
        ('cron: "0 25 * * *"', "line 2, column 9: when.cron: bad hour in '0 25 * * *'"),
        ('cron: ["0 2 * * *", "0 25 * * *"]', "line 2, column 23: when.cron[2]: bad hour in '0 25 * * *'"),
        (
            'cron: "0 0 2 * * *"',
            "line 2, column 9: when.cron: has 6 fields; 5 are wanted: minute hour day month weekday. For seconds: every",
        ),
        ('cron: "0 0 30 2 *"', "line 2, column 9: when.cron: no day is like that"),
        (
            "{cron: '0 2 * * *', timezone: Berlin}",
            "line 2, column 33: when.timezone: no zone is called Berlin; is Europe/Berlin meant?",
        ),
        ("every: 0", "line 2, column 10: when.every: must be at least 1s"),
        ("every: 1.5s", "line 2, column 10: when.every: must be whole seconds"),
        ("{every: 10m, missed: run}", "line 2, column 24: when.missed: must be once, skip or all"),
        ("{every: 10m, overlap: run}", "line 2, column 25: when.overlap: must be skip, queue, replace or allow"),
        ("{every: 10m, jiter: 5m}", "line 2, column 23: when.jiter: is not known beside every; is jitter meant?"),
        ("{cron: '0 2 * * *', every: 10m}", "line 2, column 3: when: has cron and every; one of them is wanted"),
        ("{timezone: UTC}", "line 2, column 3: when: has none of cron, every, at, file, job; one of them is wanted"),
        ("at: soon", "line 2, column 7: when.at: 'soon' is not a time: write it like 2026-12-31T18:00:00Z, or as epoch seconds"),
        ("{every: 10m, from: 2031-01-02, until: 2031-01-01}", "line 2, column 41: when.until: lies before from"),
        ("job: failed", "line 2, column 8: when.job: must be dead, done, recovered or empty; each failed attempt is not told, as it is tried again"),
        ("{job: dead, at_least: 5}", "line 2, column 25: when.at_least: within must say in which span"),
        ("{job: dead, within: 0}", "line 2, column 23: when.within: must be at least 1s"),
        ("{job: dead, within: 1h, at_least: 0}", "line 2, column 37: when.at_least: must be 1 or more"),
        ("{job: empty, tag: a}", "line 2, column 21: when.tag: empty is told for the spool, a queue or a batch"),
        ("{job: dead, queue: [a, 'b c']}", "line 2, column 26: when.queue[2]: 'b c' cannot be a queue: 1 to 30 of a-z A-Z 0-9 _ -, the first a letter or digit"),
        ("{job: dead, missed: once}", "line 2, column 23: when.missed: is not known beside job"),
        ("{job: dead, every: 1h}", "line 2, column 3: when: has every and job; one of them is wanted"),
    ],
)  # fmt: skip
def test_a_wrong_when_is_told_with_its_place(when: str, reason: str) -> None:
    assert fault(f"when:\n  {when}\n{JOB}\n") == f"rules/backup.yaml, {reason}"


@pytest.mark.parametrize(
    ("rest", "reason"),
    [
        ("job: {id: x, command: a}", "line 2, column 11: job.id: a rule makes the ids"),
        ("job: {command: a, run_at: 2031-01-01}", "line 2, column 27: job.run_at: the slot says when"),
        ("job: {command: a, state: done}", "line 2, column 26: job.state: only queuectl writes this field"),
        ("job: {}", "line 2, column 6: job.command: missing: it says what to run"),
        ("job: {command: a, priority: 99}", "line 2, column 29: job.priority: must be 1 to 10, not 99"),
        ("job: {command: a, expires_in: x}", "line 2, column 31: job.expires_in: 'x' is not a duration: write seconds, or 30s, 10m, 2h, 7d"),
        ("jobs: []", "line 2, column 7: jobs: must be a list of 1 to 1000 jobs"),
        ("jobs: [{command: a}]", "line 2, column 8: jobs[1]: each job of a list needs an id of 1 to 12 of A-Z a-z 0-9 . _ -"),
        ("jobs: [{id: a, command: a, after: a}]", "line 2, column 35: jobs[1].after: it cannot wait for itself"),
        ("", "line 1, column 1: has neither job nor jobs; one of them is wanted"),
        ("jobs: [{id: a, command: a}]\njob: {command: a}", "line 1, column 1: has job and jobs; one of them is wanted"),
        ("job: {command: a}\nextra: 1", "line 3, column 8: extra: is not known; a rule has when: and job: (or jobs:)"),
    ],
)  # fmt: skip
def test_a_wrong_job_is_told_with_its_place(rest: str, reason: str) -> None:
    assert fault(f"when: {{every: 10m}}\n{rest}\n") == f"rules/backup.yaml, {reason}"


@pytest.mark.parametrize(
    ("rest", "reason"),
    [
        ("job: {command: a, after: b}", "line 2, column 26: job.after: a job rule sets it"),
        ("job: {command: a, run_at: 2031-01-01}", "line 2, column 27: job.run_at: what has happened says when"),
        ("job: {command: a, unique: k}", "line 2, column 27: job.unique: needs if_exists: queue, as nothing that happens is left out; for one job about many: when.within"),
    ],
)  # fmt: skip
def test_what_a_rule_about_jobs_says_itself_its_job_must_not_say(rest: str, reason: str) -> None:
    assert fault(f"when: {{job: dead}}\n{rest}\n") == f"rules/backup.yaml, {reason}"


@pytest.mark.parametrize(
    ("when", "words"),
    [
        ("{job: dead}", "a job is dead"),
        ("{job: dead, tag: [a, b], queue: q}", "a job with the tag a or b of the queue q is dead"),
        ("{job: done, batch: x}", "a job of the batch x is done"),
        ("{job: recovered, rule: r}", "a job of the rule r is done after a failed run"),
        ("{job: dead, within: 1h}", "a job is dead, at most once every hour"),
        ("{job: dead, within: 10m, at_least: 5}", "5 jobs or more are dead within 10 minutes"),
        ("{job: empty}", "nothing of the spool is left to run"),
        ("{job: empty, queue: [a, b]}", "nothing of the queues a and b is left to run"),
    ],
)
def test_a_rule_about_jobs_says_in_words_what_it_is_about(when: str, words: str) -> None:
    found = parse(f"when: {when}\n{JOB}")

    assert (found.kind, found.trigger.words) == ("job", words)
    assert found.trigger.schedule is None


def test_a_job_that_an_earlier_one_of_its_list_would_keep_out_is_refused() -> None:
    when, two = (
        "when: {every: 1d}",
        "jobs: [{id: a, command: a, unique: k}, {id: b, command: b, unique: k%s}]",
    )

    assert "jobs[2].unique: is the key of an earlier job of the list" in fault(f"{when}\n{two % ''}")
    assert len(parse(f"{when}\n{two % ', if_exists: queue'}").jobs) == 2


def test_jobs_that_wait_for_each_other_in_a_ring_are_refused() -> None:
    ring = "jobs: [{id: a, command: a, after: b}, {id: b, command: b, after: a}]"

    assert "line 2, column 7: jobs: " in fault(f"when: {{every: 1d}}\n{ring}")
    assert "waits for itself: " in fault(f"when: {{every: 1d}}\n{ring}")


def test_what_is_no_yaml_and_what_is_no_json_have_a_place() -> None:
    assert "line 2, column" in fault("when: {cron: '0 2 * * *'\njob: [}")
    assert fault("when: 1\nwhen: 2") == "rules/backup.yaml, line 2, column 1: when: is given twice"
    assert fault("") == "rules/backup.yaml: the file is empty"
    broken = fault('{"when": {"every": 0},\n "job": {"command": "a"}}', "rules/backup.json")
    assert broken == "rules/backup.json, line 1, column 20: when.every: must be at least 1s"
    assert "not JSON" in fault('{"when": ', "rules/backup.json")
    assert fault('{"when": {},}', "rules/backup.json").count("column") == 1


def test_overlap_that_a_list_cannot_have_and_a_life_shorter_than_the_delay_are_refused() -> None:
    text = "when: {every: 10m, overlap: replace}\njobs: [{id: a, command: a}]"
    assert "when.overlap: must be skip or allow with jobs" in fault(text)
    short = "when: {every: 10m, jitter: 5m}\njob: {command: a, expires_in: 1m}"
    assert "job.expires_in: must be longer than jitter, or it could never start" in fault(short)


def test_a_number_without_a_unit_means_seconds() -> None:
    assert list(islice(schedule(f"when: {{every: 10}}\n{JOB}").after(0), 2)) == [10, 20]


def test_times_without_an_offset_are_those_of_the_rules_zone() -> None:
    text = "when: {at: [2031-07-01T03:00, 2031-01-01T03:00], timezone: Europe/Berlin, from: 2031-02-01}"

    found = list(schedule(f"{text}\n{JOB}").after(0))
    assert found == [datetime(2031, 7, 1, 3, tzinfo=ZoneInfo("Europe/Berlin")).timestamp()]


def test_the_job_gets_its_id_its_moment_its_end_and_the_key_against_overlap() -> None:
    text = "when: {cron: '0 2 * * *', timezone: Europe/Berlin}\njob: {command: a, expires_in: 1h, tags: [x]}"

    assert made(text) == [
        {
            "command": "a",
            "tags": ["x"],
            "id": "backup.20310101T010000Z",
            "rule": "backup",
            "scheduled_for": "2031-01-01T02:00:00+01:00",
            "expires_at": 1924995600 + 3600,
            "unique": "rule/backup",
            "if_exists": "skip",
        }
    ]


def test_the_jobs_of_a_list_name_each_other_and_share_a_batch() -> None:
    text = """
when: {every: 1d}
jobs:
- {id: extract, command: a}
- {id: load, command: b, after: [extract, other], batch: 'x-{slot}'}
- {id: tell, command: c, after_any: 'batch:x-{slot}=1'}
"""
    extract, load, tell = made(text)

    base = "backup.20310101T010000Z"
    assert (extract["id"], extract["batch"]) == (f"{base}.extract", base)
    assert load["after"] == [f"{base}.extract", "other"]
    assert load["batch"] == "x-20310101T010000Z"
    assert tell["after_any"] == ["batch:x-20310101T010000Z=1"]
    assert "unique" not in extract


def test_the_delay_of_an_occurrence_is_the_same_each_time_and_differs_between_them() -> None:
    """A delay that is drawn anew would begin again with each restart."""
    text = f"when: {{every: 1h, jitter: 5m}}\n{JOB}"

    first, again = made(text)[0]["run_at"], made(text)[0]["run_at"]
    other = made(text, "20310101T020000Z", 1924999200)[0]["run_at"] - 3600
    assert first == again != other
    assert 1924995600 <= first < 1924995600 + 300


def test_a_key_of_its_own_and_allow_leave_the_job_alone() -> None:
    own = made("when: {every: 1h}\njob: {command: a, unique: mine}")[0]
    allowed = made("when: {every: 1h, overlap: allow}\njob: {command: a}")[0]

    assert (own["unique"], "if_exists" in own, "unique" in allowed) == ("mine", False, False)


def test_only_a_changed_time_changes_the_mark() -> None:
    def mark(when: str, job: str = "a") -> str:
        return parse(json.dumps({"when": {"cron": when}, "job": {"command": job}}), "rules/backup.json").mark

    assert mark("0 2 * * *") == mark("0 2 * * *", "b") != mark("0 3 * * *")


def test_without_zones_it_is_asked_for_the_package_that_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """A person who reads that Europe/Berlin does not exist would doubt the name."""
    for name in ["tzdata", *(name for name in sys.modules if name.startswith("tzdata."))]:
        monkeypatch.setitem(sys.modules, name, None)
    zoneinfo.reset_tzpath(to=[])
    zoneinfo.ZoneInfo.clear_cache()
    try:
        told = fault("when: {cron: '0 2 * * *', timezone: Europe/Berlin}\njob: {command: x}")
    finally:
        zoneinfo.reset_tzpath()
    assert told == (
        "rules/backup.yaml, line 1, column 37: when.timezone: no zone is known here; is tzdata installed? pip install tzdata"
    )
    assert fault("when: {cron: '0 2 * * *', timezone: qqqqqqqq}\njob: {command: x}").endswith(
        "no zone is called qqqqqqqq; write it like Europe/Berlin (is tzdata installed?)"
    )
