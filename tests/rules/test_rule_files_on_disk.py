"""Rule files as people write them: by hand, half, wrong, by others; and real workers that follow them."""

from __future__ import annotations

import calendar
import os
import signal
import subprocess
import sys
import time
from datetime import datetime
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import gate
import pytest

from queuectl import Spool, Worker
from queuectl.rules import scheduler
from queuectl.rules.rule_book import RuleBook

from support import drain, load, wait_until, where_is

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

EVERY_SECOND = "when: {every: 1s, overlap: allow, missed: all}\njob: {command: 'true'}\n"
YEARLY = "when: {cron: '@yearly'}\njob: {command: 'true'}\n"


@pytest.fixture
def rules(spool_dir: Path) -> Path:
    Spool(spool_dir).layout.create()
    return spool_dir / "rules"


@pytest.fixture
def book(rules: Path) -> RuleBook:
    return RuleBook(Spool(rules.parent).layout, lambda: 0.0)


def test_a_half_written_rule_leaves_the_one_from_before_in_force(rules: Path, book: RuleBook) -> None:
    """However long the writer takes: it has the file open. Also if what is there so far could be a rule."""
    path = rules / "backup.yaml"
    path.write_text(YEARLY)
    book.refresh()

    with path.open("w") as half:
        for part in ("when: {every: 1s}\njob: {comm", "and: 'false'}\n"):
            half.write(part)
            half.flush()
            book.refresh()
            assert book.rules()["backup"].kind == "cron"
            assert not book.faults()
            assert book.files["backup"].unfinished
    book.refresh()
    assert book.rules()["backup"].kind == "every"


def test_a_wrong_rule_that_has_just_been_written_is_not_judged_yet(rules: Path) -> None:
    waiting = RuleBook(Spool(rules.parent).layout, lambda: 60.0)
    (rules / "backup.yaml").write_text("when: {every: 1s}\n")
    waiting.refresh()

    assert not waiting.faults()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("my backup.yaml", "cannot be a rule: its name must be 1 to 30 of a-z A-Z 0-9 _ -"),
        ("a.b.yaml", "cannot be a rule: its name must be"),
        ("backup.json", "the rule backup has another file beside it, which counts"),
        ("backup.yaml.txt", "cannot be a rule: its name must end in .yaml, .yml or .json"),
        ("Other.YAML", "cannot be a rule: its name must end in .yaml, .yml or .json"),
    ],
)
def test_a_file_that_can_be_no_rule_is_told(rules: Path, book: RuleBook, name: str, reason: str) -> None:
    (rules / "backup.yaml").write_text(YEARLY)
    (rules / name).write_text(YEARLY)
    book.refresh()

    assert [*book.rules()] == ["backup"]
    assert reason in str(book.faults()[name])


@pytest.mark.parametrize("name", [".backup.yaml", "backup.yaml.off", "backup.yaml~", "#b.yaml", "notes.txt"])
def test_other_files_are_ignored(rules: Path, book: RuleBook, name: str) -> None:
    (rules / name).write_text(YEARLY)
    book.refresh()

    assert (book.rules(), book.faults()) == ({}, {})


@pytest.mark.skipif(sys.platform == "win32", reason="needs modes and links")
def test_a_link_and_a_file_that_others_may_write_are_no_rules(
    rules: Path, book: RuleBook, tmp_path: Path
) -> None:
    """What a rule says is run. Who may write where a link leads to, nobody has checked."""
    target = tmp_path / "target.yaml"
    target.write_text(YEARLY)
    (rules / "linked.yaml").symlink_to(target)
    os.link(target, rules / "open.yaml")
    target.chmod(0o666)
    book.refresh()

    assert book.rules() == {}
    assert "a symbolic link" in str(book.faults()["linked.yaml"])
    assert "can be written by others" in str(book.faults()["open.yaml"])


@pytest.mark.skipif(sys.platform == "win32", reason="modes")
def test_who_may_write_into_the_folder_of_rules_stops_the_workers(
    rules: Path, cli: Callable[..., Any]
) -> None:
    (rules / "tick.yaml").write_text(EVERY_SECOND)
    rules.chmod(0o777)
    rules.parent.chmod(0o755)

    refused = cli("worker", "start", "--drain", expect=1).stderr
    assert f"{rules} can be written by others, who could run commands as you" in refused


@pytest.fixture
def background() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []

    def start(*args: str) -> subprocess.Popen[bytes]:
        line = [sys.executable, "-m", "queuectl", "worker", "run", *args]
        quiet = subprocess.DEVNULL
        started.append(subprocess.Popen(line, stdout=quiet, stderr=quiet, start_new_session=True))
        return started[-1]

    yield start
    for one in started:
        one.kill()
        one.wait()


def moments(spool: Path) -> list[int]:
    """The moments of the jobs of a rule that are in the spool, in order."""
    found = [job.id.partition(".")[2] for job in Spool(spool).list()]
    return sorted(calendar.timegm(time.strptime(one, "%Y%m%dT%H%M%SZ")) for one in found)


def test_workers_that_are_killed_queue_each_moment_once(
    rules: Path, background: Callable[..., subprocess.Popen[bytes]]
) -> None:
    """Two at a time, the older one killed after each new moment. None is lost, and none is there twice."""
    (rules / "tick.yaml").write_text(EVERY_SECOND)
    (rules.parent / "paused").touch()  # the jobs only wait
    running = [background(), background()]

    for _ in range(3):
        before = len(moments(rules.parent))
        wait_until(lambda before=before: len(moments(rules.parent)) > before, timeout=30)  # type: ignore[misc]
        running[0].send_signal(signal.SIGKILL)
        running = [running[1], background()]
    found = moments(rules.parent)
    assert found == list(range(found[0], found[-1] + 1))


def test_an_idle_worker_wakes_at_the_moment(
    rules: Path, background: Callable[..., subprocess.Popen[bytes]]
) -> None:
    """Not at its next look, which may be a second later. The best of three, as the machine may be busy."""
    (rules / "tick.yaml").write_text(EVERY_SECOND)
    (rules.parent / "paused").touch()
    background()
    wait_until(lambda: len(moments(rules.parent)) >= 4, timeout=30)

    late = []
    for folder in ("pending", "done"):
        for path in (rules.parent / folder).glob("tick.*.json"):
            record = load(path)
            queued, due = (datetime.fromisoformat(record[one]) for one in ("created_at", "scheduled_for"))
            late.append((queued - due).total_seconds())
    assert 0 <= min(late) < 0.1


def test_an_idle_worker_wakes_within_a_fraction_of_its_look(rules: Path) -> None:
    """The next round is due at the moment of the rule, 0.4 s from now, and not in a second."""
    (rules / "tick.yaml").write_text(EVERY_SECOND)
    moment = int((rules / "tick.yaml").stat().st_ctime) + 0.6
    worker = Worker(rules.parent, now=lambda: moment)
    upkeep = worker._upkeep
    upkeep.rules.look()
    upkeep.work_for("worker", None, worker._batch)
    upkeep.run()

    assert 0 < upkeep.due_at - time.monotonic() <= 0.41
    upkeep.put_off()
    assert 0 < upkeep.due_at - time.monotonic() <= 0.41
    upkeep.rules.close()


def test_a_draining_worker_queues_all_that_is_due_however_slow(
    rules: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slice is over after the first file that was read, and after the first job that was queued."""
    monkeypatch.setattr(scheduler, "SLICE", 0.0)
    for number in range(5):
        (rules / f"hourly-{number}.yaml").write_text("when: {every: 1h}\njob: {command: 'true'}\n")
    (rules.parent / "paused").touch()
    late = ((rules / "hourly-4.yaml").stat().st_ctime // 3600 + 1) * 3600 + 60

    drain(rules.parent, now=lambda: late)
    assert len(list((rules.parent / "pending").iterdir())) == 5


def test_a_worker_that_runs_a_long_job_queues_what_is_due(rules: Path) -> None:
    spool = rules.parent
    home = gate.home_with_gate(spool)
    gate.drop_blocked(spool, "long")

    with gate.worker_in_thread(spool):
        wait_until(lambda: gate.started(home), timeout=30)
        (rules / "tick.yaml").write_text(EVERY_SECOND)
        wait_until(lambda: [*(spool / "pending").glob("tick.*.json")], timeout=30)
        assert where_is(spool, "long")[0].startswith("processing")


def test_a_draining_worker_queues_what_is_due_before_it_leaves(rules: Path) -> None:
    """Started by cron each five minutes, it is the only worker: each moment is run once."""
    (rules / "tick.yaml").write_text("when: {every: 1m}\njob: {command: 'true'}\n")
    arrived = int((rules / "tick.yaml").stat().st_ctime) // 60 * 60

    for round_ in (1, 2, 3):
        clock = (
            arrived + 300.0 * round_ + 1
        )  # the next moment is a minute away, however slow this machine is now
        drain(rules.parent, now=lambda clock=clock: clock)  # type: ignore[misc]  # bound at once
    done = sorted(path.stem for path in (rules.parent / "done").iterdir())
    assert len(done) == 3
    assert all(load(rules.parent / "done" / f"{one}.json")["rule"] == "tick" for one in done)


def test_a_paused_spool_pauses_no_rule(rules: Path) -> None:
    (rules / "tick.yaml").write_text("when: {every: 1s}\njob: {command: 'true'}\n")
    arrived = int((rules / "tick.yaml").stat().st_ctime)
    (rules.parent / "paused").touch()

    drain(rules.parent, now=lambda: arrived + 300.0)
    assert len(list((rules.parent / "pending").iterdir())) == 1


def test_the_command_learns_its_rule_and_its_moment(rules: Path) -> None:
    out = rules.parent.parent / "out"
    text = f"when: {{every: 1h, timezone: Europe/Berlin}}\njob: {{command: 'echo $QUEUECTL_RULE $QUEUECTL_SCHEDULED_FOR > {out}'}}\n"
    (rules / "told.yaml").write_text(text)
    drain(rules.parent, now=lambda: time.time() + 3601)

    rule, moment = out.read_text().split()
    when = datetime.fromisoformat(moment)
    assert (rule, when.minute, when.second) == ("told", 0, 0)
    assert when.utcoffset() == when.astimezone(ZoneInfo("Europe/Berlin")).utcoffset()


def test_a_wrong_rule_gets_its_reason_and_a_right_one_loses_it(rules: Path) -> None:
    path, reason = rules / "backup.yaml", rules / "backup.yaml.reason"
    path.write_text("when: {cron: '0 25 * * *'}\njob: {command: a}\n")
    os.utime(path, (0, 0))
    misnamed = rules / "other.yaml.txt"
    misnamed.write_text(YEARLY)
    said = drain(rules.parent, now=lambda: time.time() + 60)
    wait_until(lambda: time.time() - path.stat().st_ctime > 2.1)
    said += drain(rules.parent)

    assert reason.read_text() == "line 1, column 14: when.cron: bad hour in '0 25 * * *'\n"
    assert any("rules/backup.yaml, line 1, column 14: when.cron: bad hour" in line for line in said)
    assert "must end in .yaml" in (rules / "other.yaml.txt.reason").read_text()
    path.write_text(YEARLY)
    os.rename(misnamed, rules / "other.yaml")
    drain(rules.parent)
    assert sorted(os.listdir(rules)) == ["backup.yaml", "other.yaml"]


def test_an_idle_worker_with_rules_costs_nothing_between_their_moments(rules: Path) -> None:
    """Nothing keeps it from its long sleep."""
    for number in range(20):
        (rules / f"rule-{number}.yaml").write_text(YEARLY)
    worker = Worker(rules.parent)
    scheduler = worker._upkeep.rules
    scheduler.look()
    while scheduler.has_work:
        scheduler.look()

    assert scheduler.nothing_due
    assert scheduler.due_in() > 3600
    scheduler.close()
