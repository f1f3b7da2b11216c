"""Rules that tell of many ends by one job, and of the moment at which nothing is left to run, under a clock that the tests set."""

from __future__ import annotations

import os
import shutil
import sys
import time
from typing import TYPE_CHECKING

import pytest
from rules.test_hooks import hooks_of, told, write_rule

from queuectl import Spool
from queuectl.errors import SpoolError
from queuectl.rules import job_queueing, rule_book, rule_note

from support import drain, drop, load, where_is

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="commands are written for sh")

COUNT = 'echo "$QUEUECTL_EVENT $QUEUECTL_COUNT $(cut -f1 "$QUEUECTL_AFTER" | sort | tr "\\n" " ")" >> told'
EMPTY = 'echo "$QUEUECTL_EVENT $QUEUECTL_ABOUT" >> told'
SPAN = 3600


class Clock:
    """A clock that starts in the middle of a period, and goes on with each look at it."""

    def __init__(self) -> None:
        self.now = (time.time() // SPAN + 2) * SPAN + SPAN / 2

    def __call__(self) -> float:
        """Epoch seconds."""
        self.now += 0.001
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def fail(spool_dir: Path, *names: str) -> None:
    for name in names:
        drop(spool_dir, name, command="false", max_retries=1)


def test_a_storm_makes_one_job_with_all_of_them_at_the_end_of_the_period(
    spool_dir: Path, clock: Clock
) -> None:
    """Trap 3. Ten thousand mails would hide the first one, and block the mail server."""
    write_rule(spool_dir, "alarm", "{job: dead, within: 1h}", command=COUNT)
    fail(spool_dir, "a", "b")
    drain(spool_dir, now=clock)
    [hook] = hooks_of(spool_dir)
    record = load(spool_dir / "pending" / f"{hook}.json")
    fail(spool_dir, "c")
    drain(spool_dir, now=clock)

    assert told(spool_dir) == []
    assert hooks_of(spool_dir) == [hook]
    clock.now += SPAN
    drain(spool_dir, now=clock)
    drain(spool_dir, now=clock)
    assert told(spool_dir) == ["dead 3 a b c "]
    start = hook.removeprefix("alarm.")
    assert record["run_at"].startswith(time.strftime("%Y-%m-%dT%H:00:02", time.gmtime(clock.now)))
    assert start == time.strftime("%Y%m%dT%H0000Z", time.gmtime(clock.now - SPAN))


def test_expires_in_counts_from_the_end_of_the_period(spool_dir: Path, clock: Clock) -> None:
    """Counted from the first end, the job would expire before it could start."""
    write_rule(spool_dir, "alarm", "{job: dead, within: 1h}", command=COUNT, expires_in="5m")
    fail(spool_dir, "a")
    drain(spool_dir, now=clock)
    clock.now += SPAN / 2 + 60
    drain(spool_dir, now=clock)

    assert told(spool_dir) == ["dead 1 a "]


def test_each_end_is_told_in_one_period_only(spool_dir: Path, clock: Clock) -> None:
    write_rule(spool_dir, "alarm", "{job: dead, within: 1h}", command=COUNT)
    for name in "abc":
        fail(spool_dir, name)
        drain(spool_dir, now=clock)
        clock.now += SPAN
    drain(spool_dir, now=clock)

    assert told(spool_dir) == ["dead 1 a ", "dead 1 b ", "dead 1 c "]


def test_what_is_mended_before_the_end_of_the_period_is_not_told(spool_dir: Path, clock: Clock) -> None:
    write_rule(spool_dir, "alarm", "{job: dead, within: 1h}", command=COUNT)
    fail(spool_dir, "a")
    drain(spool_dir, now=clock)
    Spool(spool_dir).retry("a")
    Spool(spool_dir).hold("a")
    clock.now += SPAN
    drain(spool_dir, now=clock)

    [hook] = hooks_of(spool_dir)
    assert told(spool_dir) == []
    assert load(spool_dir / "done" / f"{hook}.json")["not_run"] == "nothing of that period is left to tell"


def test_the_filter_the_person_and_the_hooks_do_not_count(spool_dir: Path, clock: Clock) -> None:
    write_rule(spool_dir, "alarm", "{job: dead, tag: [x, y], within: 1h}", command=COUNT)
    write_rule(spool_dir, "other", "{job: dead}", command="false", max_retries=1, tags=["x"])
    for name, tags in (("a", ["x"]), ("b", ["z"]), ("c", ["w", "y"])):
        drop(spool_dir, name, command="false", max_retries=1, tags=tags)
    spool = Spool(spool_dir)
    spool.enqueue("true", id="cancelled", tags=["x"])
    spool.cancel("cancelled")
    drain(spool_dir, now=clock)
    clock.now += SPAN
    drain(spool_dir, now=clock)

    assert told(spool_dir) == ["dead 2 a c "]
    assert len(spool.list("dead")) == 7


def test_recovered_jobs_are_told_together(spool_dir: Path, clock: Clock) -> None:
    write_rule(spool_dir, "alarm", "{job: recovered, within: 1h}", command=COUNT)
    drop(spool_dir, "good", command="true")
    for name in ("a", "b"):
        command = f"test -e {name}.once || {{ : > {name}.once; exit 1; }}"
        drop(spool_dir, name, command=command, cwd=str(spool_dir.parent), max_retries=1)
    drain(spool_dir, now=clock)
    for name in ("a", "b"):
        Spool(spool_dir).retry(name)
    drain(spool_dir, now=clock)
    clock.now += SPAN
    drain(spool_dir, now=clock)

    assert told(spool_dir) == ["recovered 2 a b "]


def test_at_least_waits_for_that_many_within_the_span_and_then_tells_at_once(
    spool_dir: Path, clock: Clock
) -> None:
    write_rule(spool_dir, "alarm", "{job: dead, within: 10m, at_least: 3}", command=COUNT)
    fail(spool_dir, "a", "b")
    drain(spool_dir, now=clock)
    clock.now += 700
    fail(spool_dir, "c", "d")
    drain(spool_dir, now=clock)
    assert told(spool_dir) == []

    fail(spool_dir, "e")
    drain(spool_dir, now=clock)
    drain(spool_dir, now=clock)
    assert told(spool_dir) == ["dead 3 c d e "]


def test_a_new_rule_tells_nothing_of_before_and_a_deleted_note_nothing_twice(
    spool_dir: Path, clock: Clock
) -> None:
    Spool(spool_dir).refresh()
    fail(spool_dir, "a")
    drain(spool_dir, now=lambda: time.time() - 60)
    write_rule(spool_dir, "alarm", "{job: dead, within: 1h}", command=COUNT)
    write_rule(spool_dir, "bare", "{job: empty}", command=EMPTY)
    drain(spool_dir, now=clock)
    clock.now += SPAN
    drain(spool_dir, now=clock)
    assert told(spool_dir) == []

    fail(spool_dir, "b")
    drain(spool_dir, now=clock)
    (spool_dir / "data" / "rules" / "alarm.json").unlink()
    (spool_dir / "data" / "rules" / "bare.json").unlink()
    drain(spool_dir, now=clock)
    clock.now += SPAN
    drain(spool_dir, now=clock)
    assert sorted(told(spool_dir)) == ["dead 1 b ", "empty the spool"]


def test_an_empty_spool_is_told_once_after_the_last_run(spool_dir: Path, clock: Clock) -> None:
    """Trap 10: a held and a blocked job will not run by themselves. The hook itself does not count, or it would go on for ever."""
    write_rule(spool_dir, "alarm", "{job: empty}", command=EMPTY)
    drop(spool_dir, "a", command="true")
    drop(spool_dir, "held", command="true", hold=True)
    drop(spool_dir, "blocked", command="true", after=["nobody"])
    drain(spool_dir, now=clock)
    [hook] = hooks_of(spool_dir)
    (spool_dir / "done" / f"{hook}.json").unlink()  # as retention does, some day
    drain(spool_dir, now=clock)
    assert told(spool_dir) == ["empty the spool"]

    drop(spool_dir, "b", command="true")
    drain(spool_dir, now=clock)
    assert told(spool_dir) == ["empty the spool"] * 2


def test_what_waits_for_a_held_job_is_not_left_to_run(spool_dir: Path, clock: Clock) -> None:
    """It is not blocked: a release of the held job is all that is missing. But nothing runs by itself any more."""
    write_rule(spool_dir, "alarm", "{job: empty}", command=EMPTY)
    write_rule(spool_dir, "queue", "{job: empty, queue: gpu}", command=EMPTY)
    drop(spool_dir, "a", command="true", queue="gpu")
    drop(spool_dir, "held", command="true", hold=True)
    drop(spool_dir, "member", command="true", hold=True, batch="night")
    drop(spool_dir, "child", command="true", after=["held"])
    drop(spool_dir, "grandchild", command="true", after_any=["child"], queue="gpu")
    drop(spool_dir, "join", command="true", after=["batch:night"])
    drop(spool_dir, "later", command="true", run_at=clock.now + 60)
    drain(spool_dir, now=clock)
    assert told(spool_dir) == ["empty the queue gpu"]

    clock.now += 61
    drain(spool_dir, now=clock)
    assert told(spool_dir) == ["empty the queue gpu", "empty the spool"]
    drop(spool_dir, "b", command="true")
    drop(spool_dir, "after-later", command="true", after=["soon"], queue="gpu")
    drop(spool_dir, "soon", command="true", run_at=clock.now + 60)
    drain(spool_dir, now=clock)
    assert len(told(spool_dir)) == 2


def test_a_job_for_tomorrow_or_between_two_attempts_is_left_to_run(spool_dir: Path, clock: Clock) -> None:
    write_rule(spool_dir, "alarm", "{job: empty}", command=EMPTY)
    drop(spool_dir, "a", command="true")
    drop(spool_dir, "tomorrow", command="true", run_at=clock.now + 86400)
    drain(spool_dir, now=clock)
    assert told(spool_dir) == []

    clock.now += 86401
    drain(spool_dir, now=clock)
    assert told(spool_dir) == ["empty the spool"]


def test_an_empty_queue_and_an_empty_batch_are_told_while_others_go_on(spool_dir: Path, clock: Clock) -> None:
    write_rule(spool_dir, "queue", "{job: empty, queue: gpu}", command=EMPTY)
    write_rule(spool_dir, "batch", "{job: empty, batch: nightly}", command=EMPTY)
    drop(spool_dir, "a", command="true", queue="gpu")
    drop(spool_dir, "b", command="true", batch="nightly")
    drop(spool_dir, "later", command="true", run_at=clock.now + 86400)
    drain(spool_dir, now=clock)

    assert sorted(told(spool_dir)) == ["empty the batch nightly", "empty the queue gpu"]


def test_a_queue_that_is_empty_again_and_again_is_told_once_in_a_span(spool_dir: Path, clock: Clock) -> None:
    write_rule(spool_dir, "alarm", "{job: empty, within: 1h}", command=EMPTY)
    for name in "abc":
        drop(spool_dir, name, command="true")
        drain(spool_dir, now=clock)
    assert told(spool_dir) == ["empty the spool"]

    clock.now += SPAN
    drop(spool_dir, "d", command="true")
    drain(spool_dir, now=clock)
    assert told(spool_dir) == ["empty the spool"] * 2


def test_what_happens_during_a_pause_of_the_rule_is_not_told(spool_dir: Path, clock: Clock) -> None:
    write_rule(spool_dir, "alarm", "{job: dead}")
    write_rule(spool_dir, "digest", "{job: dead, within: 1h}", command=COUNT)
    drain(spool_dir, now=clock)
    for name in ("alarm", "digest"):
        Spool(spool_dir).pause_rule(name)
    fail(spool_dir, "a")
    drain(spool_dir, now=clock)
    clock.now += 5
    for name in ("alarm", "digest"):
        Spool(spool_dir).resume_rule(name)
    stamp = int(clock.now * 1e9)
    os.utime(spool_dir / "rules", ns=(stamp, stamp))
    fail(spool_dir, "b")
    drain(spool_dir, now=clock)
    clock.now += SPAN
    drain(spool_dir, now=clock)

    assert sorted(told(spool_dir)) == ["dead 1 b ", "dead b dead"]


@pytest.fixture
def edit(spool_dir: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Writes the rule alarm, whose file then has the time of the clock."""
    arrived = [0.0]
    monkeypatch.setattr(rule_book, "_change_time", lambda _: arrived[0])

    def write(when: str) -> None:
        # The time of a file has whole seconds here: what has ended before is older.
        clock.now += 2
        arrived[0] = clock.now
        write_rule(spool_dir, "alarm", when, command=COUNT)
        clock.now += 2

    return write


def fail_with(spool_dir: Path, clock: Clock, **tags: str) -> None:
    for name, tag in tags.items():
        drop(spool_dir, name, command="false", max_retries=1, tags=[tag])
    drain(spool_dir, now=clock)


def test_each_end_is_told_by_what_the_rule_said_then(
    spool_dir: Path, clock: Clock, edit: Callable[[str], None]
) -> None:
    """Trap 13. A person who changes a tag must not lose what has died under the old one, nor have anything told twice."""
    edit("{job: dead, within: 1h, tag: x}")
    fail_with(spool_dir, clock, a="x", ignored="y")
    edit("{job: dead, within: 1h, tag: y}")
    fail_with(spool_dir, clock, late="x", b="y")
    edit("{job: dead, within: 2h, tag: z}")
    fail_with(spool_dir, clock, c="z", later="y")
    for _ in range(3):
        clock.now += SPAN
        drain(spool_dir, now=clock)

    assert sorted(told(spool_dir)) == ["dead 1 a ", "dead 1 b ", "dead 1 c "]


def test_an_edit_tells_what_a_killed_worker_has_left_untold(
    spool_dir: Path, clock: Clock, edit: Callable[[str], None]
) -> None:
    """It died between the end of the job and the hook. The file says something else by the time the next one looks."""
    edit("{job: dead, within: 1h, tag: x}")
    drain(spool_dir, now=clock)
    note = (spool_dir / "data/rules/alarm.json").read_bytes()
    fail_with(spool_dir, clock, a="x")
    (spool_dir / "pending" / f"{hooks_of(spool_dir)[0]}.json").unlink()
    (spool_dir / "data/rules/alarm.json").write_bytes(note)
    edit("{job: dead, within: 1h, tag: y}")
    drain(spool_dir, now=clock)
    clock.now += SPAN
    drain(spool_dir, now=clock)

    assert told(spool_dir) == ["dead 1 a "]


def test_what_was_before_an_edit_is_told_although_the_disk_was_full_then(
    spool_dir: Path, clock: Clock, edit: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    edit("{job: dead, within: 1h, tag: x, at_least: 2}")
    fail_with(spool_dir, clock, a="x")
    drop(spool_dir, "b", command="false", max_retries=1, tags=["x"])
    with monkeypatch.context() as full:
        full.setattr(job_queueing, "enqueue_several", refuse)
        drain(spool_dir, now=clock)
        edit("{job: dead, within: 1h, tag: y}")
        drain(spool_dir, now=clock)
    drain(spool_dir, now=clock)
    clock.now += SPAN
    drain(spool_dir, now=clock)

    assert told(spool_dir) == ["dead 2 a b "]


def refuse(*_: object, **__: object) -> None:
    raise SpoolError("no space left on device")


def test_a_rule_that_tells_of_each_end_from_now_on_tells_none_of_them_twice(
    spool_dir: Path, clock: Clock, edit: Callable[[str], None]
) -> None:
    edit("{job: dead, within: 1h}")
    fail_with(spool_dir, clock, a="x")
    edit("{job: dead}")
    fail_with(spool_dir, clock, b="x")
    clock.now += SPAN
    drain(spool_dir, now=clock)

    assert len(hooks_of(spool_dir)) == 2
    assert [line for line in told(spool_dir) if line.startswith("dead 1")] == ["dead 1 a "]


def test_a_clock_that_was_set_back_makes_no_rule_silent(spool_dir: Path, clock: Clock) -> None:
    write_rule(spool_dir, "alarm", "{job: dead, within: 1h}", command=COUNT)
    fail(spool_dir, "a")
    drain(spool_dir, now=clock)
    clock.now += 30 * 86400
    fail(spool_dir, "b")
    drain(spool_dir, now=clock)
    clock.now -= 29 * 86400
    drain(spool_dir, now=clock)
    fail(spool_dir, "c")
    drain(spool_dir, now=clock)
    clock.now += SPAN
    drain(spool_dir, now=clock)

    assert told(spool_dir) == ["dead 1 a ", "dead 1 c "]


def test_a_crash_between_the_job_and_the_note_tells_nothing_twice(spool_dir: Path, clock: Clock) -> None:
    write_rule(spool_dir, "alarm", "{job: empty}", command=EMPTY)
    write_rule(spool_dir, "digest", "{job: dead, within: 1h}", command=COUNT)
    drain(spool_dir, now=clock)
    shutil.copytree(spool_dir / "data" / "rules", spool_dir / "notes")
    fail(spool_dir, "a")
    drain(spool_dir, now=clock)
    clock.now += SPAN
    drain(spool_dir, now=clock)
    shutil.rmtree(spool_dir / "data" / "rules")
    shutil.move(spool_dir / "notes", spool_dir / "data" / "rules")
    drain(spool_dir, now=clock)

    assert sorted(told(spool_dir)) == ["dead 1 a ", "empty the spool"]
    note = rule_note.read(Spool(spool_dir).layout, "digest")
    assert note is not None
    assert note.told > 0
    assert where_is(spool_dir, "a") == ["dead"]
