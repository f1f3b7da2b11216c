"""Rules about jobs: each end that they are about is told once, whoever dies when, and no hook is told of."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from queuectl import Spool
from queuectl.api import status
from queuectl.control import run_lock
from queuectl.errors import InvalidJob
from queuectl.index.filter import Filter
from queuectl.layout import Layout
from queuectl.rules import hooks, job_queueing, rule_file, untold
from queuectl.rules.job_rules import JobRules
from queuectl.storage import dead_letters, settle

from support import claim_job, drain, drop, drop_bytes, load, where_is

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="commands are written for sh")

TELL = 'echo "$QUEUECTL_EVENT $QUEUECTL_ABOUT $QUEUECTL_ABOUT_STATE" >> told'


def write_rule(spool_dir: Path, name: str, when: str, job: str = "", **fields: Any) -> None:
    """A rule whose job notes in the file `told` what it finds."""
    Spool(spool_dir).refresh()
    record = {"command": TELL, "cwd": str(spool_dir.parent), **fields}
    text = f"when: {when}\n{job or f'job: {json.dumps(record)}'}\n"
    (spool_dir / "rules" / f"{name}.yaml").write_text(text)


def told(spool_dir: Path) -> list[str]:
    """What the hooks have noted."""
    path = spool_dir.parent / "told"
    return path.read_text().splitlines() if path.exists() else []


def hooks_of(spool_dir: Path, rule: str = "alarm") -> list[str]:
    """The ids of the jobs that a rule has queued."""
    return [row.id for row in Spool(spool_dir).list() if row.id.startswith(f"{rule}.")]


def test_a_dead_job_is_told_with_its_facts(spool_dir: Path) -> None:
    """Trap 12, too: the text of the error arrives as text, whatever is in it."""
    tell = 'env | grep -a "^QUEUECTL_\\(ABOUT\\|EVENT\\|RULE\\)" | sort > told; cat "$QUEUECTL_ABOUT_OUT" >> told'
    write_rule(spool_dir, "alarm", "{job: dead}", command=tell)
    job_id = "x" * 64
    drop(spool_dir, job_id, command="echo out; exit 7", max_retries=1, id=job_id)
    drain(spool_dir)

    facts = dict(line.split("=", 1) for line in told(spool_dir)[:-1])
    assert told(spool_dir)[-1] == "out"
    assert facts == {
        "QUEUECTL_EVENT": "dead",
        "QUEUECTL_RULE": "alarm",
        "QUEUECTL_ABOUT": job_id,
        "QUEUECTL_ABOUT_STATE": "dead",
        "QUEUECTL_ABOUT_ERROR": load(spool_dir / "dead" / f"{job_id}.json")["last_error"],
        "QUEUECTL_ABOUT_EXIT_CODE": "7",
        "QUEUECTL_ABOUT_FILE": str(spool_dir / "dead" / f"{job_id}.json"),
        "QUEUECTL_ABOUT_OUT": facts["QUEUECTL_ABOUT_OUT"],
    }
    [hook] = hooks_of(spool_dir)
    record = load(spool_dir / "done" / f"{hook}.json")
    assert (record["event"], record["about"], record["rule"]) == ("dead", job_id, "alarm")
    assert (record["give_up_on"], record["max_retries"], record["timeout"]) == ([100], 8, 30.0)


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        ("{job: dead}", ["dead bad dead"]),
        ("{job: done}", ["done good done", "done late done"]),
        ("{job: recovered}", ["recovered late done"]),
        ("{job: done, tag: [a, b]}", ["done good done"]),
        ("{job: done, queue: q}", ["done late done"]),
        ("{job: done, batch: nightly}", ["done good done"]),
        ("{job: dead, rule: other}", []),
    ],
)
def test_a_rule_tells_what_it_is_about_and_nothing_else(
    spool_dir: Path, when: str, expected: list[str]
) -> None:
    """Trap 8: what fails and is tried again is not told; when it succeeds it has recovered."""
    write_rule(spool_dir, "alarm", when)
    drop(spool_dir, "good", command="true", tags=["b", "c"], batch="nightly")
    drop(spool_dir, "bad", command="false", max_retries=1)
    drop(
        spool_dir,
        "late",
        command="test -e once || { : > once; exit 1; }",
        max_retries=2,
        max_backoff=0.01,
        queue="q",
        cwd=str(spool_dir.parent),
    )
    drain(spool_dir, wait_retries=True)

    assert sorted(told(spool_dir)) == expected


def test_what_a_person_does_is_not_told(spool_dir: Path) -> None:
    """Trap 6: a cancel, a file moved by hand, a cleared spool."""
    write_rule(spool_dir, "alarm", "{job: dead}")
    spool = Spool(spool_dir)
    for name in ("cancelled", "moved"):
        spool.enqueue("true", id=name)
    spool.cancel("cancelled")
    (spool_dir / "pending" / "moved.json").rename(spool_dir / "dead" / "moved.json")
    drain(spool_dir)

    assert told(spool_dir) == hooks_of(spool_dir) == []


def test_a_file_that_is_no_job_and_one_that_expired_and_one_without_its_parent_are_told(
    spool_dir: Path,
) -> None:
    """Trap 7. Nothing of them has run, but somebody waits for them."""
    write_rule(
        spool_dir, "alarm", "{job: dead}", command='echo "$QUEUECTL_ABOUT: $QUEUECTL_ABOUT_ERROR" >> told'
    )
    drop_bytes(spool_dir, "rubbish.json", b'{"command": 5}')
    drop(spool_dir, "old", command="true", expires_at="2001-01-01T00:00:00Z")
    drop(spool_dir, "parent", command="exit 3", max_retries=1)
    drop(spool_dir, "child", command="true", after=["parent"], if_blocked="dead")
    (spool_dir / "config.yaml").write_text("settle_time: 0\n")
    drain(spool_dir)

    found = dict(line.split(": ", 1) for line in told(spool_dir))
    assert found.keys() == {"rubbish", "old", "parent", "child"}
    assert "command" in found["rubbish"]
    assert found["old"].startswith("Expired")
    assert found["child"] == "Parent job parent is dead"


def test_a_hook_is_never_told_of(spool_dir: Path) -> None:
    """Trap 2: one that dies would else make the next one, and so on for ever."""
    write_rule(spool_dir, "alarm", "{job: dead}", command=f"{TELL}; exit 100")
    write_rule(spool_dir, "success", "{job: done}")
    drop(spool_dir, "bad", command="false", max_retries=1)
    drain(spool_dir)
    drain(spool_dir)

    [hook] = hooks_of(spool_dir)
    assert where_is(spool_dir, hook) == ["dead"]
    assert told(spool_dir) == ["dead bad dead"]
    assert hooks_of(spool_dir, "success") == []


def test_a_hook_goes_before_a_backlog_that_has_waited_for_hours(spool_dir: Path) -> None:
    """Trap 5: behind an aged backlog of a hundred thousand jobs an alarm would come the next day."""
    write_rule(spool_dir, "alarm", "{job: dead}")
    drop(spool_dir, "bad", command="false", max_retries=1, priority=10)
    for number in range(30):
        drop(
            spool_dir,
            f"old{number}",
            command=f'echo "{number}" >> told',
            cwd=str(spool_dir.parent),
            priority=10,
        )
    Spool(spool_dir).refresh()
    day = time.time() + 86400
    drain(spool_dir, now=lambda: day)

    assert "dead bad dead" in told(spool_dir)[:20]


def test_a_hook_that_is_ready_goes_first(spool_dir: Path) -> None:
    """It may be queued by hand, with `rule run`, before a backlog that is a day old."""
    write_rule(spool_dir, "alarm", "{job: dead}", priority=1)
    for number in range(3):
        drop(
            spool_dir,
            f"old{number}",
            command=f'echo "{number}" >> told',
            cwd=str(spool_dir.parent),
            priority=10,
        )
    spool = Spool(spool_dir)
    spool.run_rule("alarm")
    [hook] = spool.list(where=Filter(sort="next", limit=1))
    assert hook.id.startswith("alarm.")
    assert hook.waited is None or hook.waited < 60
    drain(spool_dir)

    assert told(spool_dir)[0] == "trial trial "


def test_a_running_job_that_a_person_cancels_is_not_told(spool_dir: Path) -> None:
    write_rule(spool_dir, "alarm", "{job: dead}")
    drop(spool_dir, "a", command="queuectl cancel a; sleep 10", cwd=str(spool_dir.parent))
    drain(spool_dir)

    assert load(spool_dir / "dead" / "a.json")["last_error"] == "Cancelled"
    assert hooks_of(spool_dir) == []


def test_each_hook_waits_for_the_end_that_is_not_recorded_yet(
    spool_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker dies in between: the hook must neither begin for nothing, nor be queued once more."""
    write_rule(spool_dir, "alarm", "{job: dead}")
    drop(spool_dir, "bad", command="false", max_retries=1)

    def die(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(settle, "_commit", die)
        with pytest.raises(KeyboardInterrupt):
            drain(spool_dir)
    [first] = hooks_of(spool_dir)
    assert load(spool_dir / "pending" / f"{first}.json")["after_failure"] == ["bad"]
    assert told(spool_dir) == []

    drain(spool_dir)
    assert hooks_of(spool_dir) == [first]
    assert told(spool_dir) == ["dead bad dead"]


def test_each_death_of_a_job_is_told(spool_dir: Path) -> None:
    write_rule(spool_dir, "alarm", "{job: dead}")
    write_rule(spool_dir, "well", "{job: recovered}")
    drop(spool_dir, "bad", command="test -e mended", max_retries=1, cwd=str(spool_dir.parent))
    drain(spool_dir)
    Spool(spool_dir).retry("bad")
    drain(spool_dir)
    (spool_dir.parent / "mended").touch()
    Spool(spool_dir).retry("bad")
    drain(spool_dir)

    assert told(spool_dir) == ["dead bad dead", "dead bad dead", "recovered bad done"]


def test_a_hook_whose_job_has_ended_well_after_all_is_not_needed(spool_dir: Path) -> None:
    """The worker died between the queueing of the hook and the record of the death, and the next run succeeded."""
    write_rule(spool_dir, "alarm", "{job: dead}")
    spool = Spool(spool_dir)
    name = f"alarm.{hooks.occurrence_of('dead', 'job1', 0)}"
    drop(
        spool_dir,
        name,
        id=name,
        command=TELL,
        rule="alarm",
        event="dead",
        about="job1",
        after_failure=["job1"],
        cwd=str(spool_dir.parent),
    )
    spool.enqueue("true", id="job1")
    drain(spool_dir)

    assert told(spool_dir) == []
    assert load(spool_dir / "done" / f"{name}.json")["not_run"] == "job job1 succeeded"


def test_a_full_disk_does_not_keep_the_outcome_from_being_recorded(
    spool_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trap 11: the hook comes when there is room, and a draining worker waits for that."""
    write_rule(spool_dir, "alarm", "{job: dead}")
    drop(spool_dir, "bad", command="false", max_retries=1)
    real: Callable[..., Any] = job_queueing.enqueue_several
    seen: list[list[str]] = []

    def refuse_once(*args: Any, **named: Any) -> Any:
        seen.append(where_is(spool_dir, "bad"))
        if len(seen) == 1:
            raise OSError(28, "No space left on device")
        return real(*args, **named)

    monkeypatch.setattr(job_queueing, "enqueue_several", refuse_once)
    said = drain(spool_dir)

    assert seen == [["processing/worker-0"], ["dead"]]
    assert told(spool_dir) == ["dead bad dead"]
    assert any(line.startswith("cannot queue alarm.job-") for line in said)


def _refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(job_queueing, "enqueue_several", refuse)


def test_a_hook_that_a_full_disk_refused_outlives_the_process_that_tried(
    spool_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command finds a file that is no job, and a list of jobs tells of it. It can wait for no room, as a command ends."""
    listed = [{"id": name, "command": TELL, "cwd": str(spool_dir.parent)} for name in ("one", "two")]
    write_rule(spool_dir, "alarm", "{job: dead}", f"jobs: {json.dumps(listed)}")
    write_rule(spool_dir, "quick", "{job: dead}")
    (spool_dir / "config.yaml").write_text("settle_time: 0\n")
    drop_bytes(spool_dir, "rubbish.json", b'{"command": 5}')
    with monkeypatch.context() as full:
        _refuse(full)
        Spool(spool_dir).list()
    assert where_is(spool_dir, "rubbish") == ["dead"]
    assert len(untold.left(Layout(spool_dir))) == 3

    drain(spool_dir)
    assert sorted(told(spool_dir)) == ["dead rubbish dead"] * 3
    assert untold.left(Layout(spool_dir)) == []
    drain(spool_dir)
    assert len(told(spool_dir)) == 3


def test_a_refused_hook_waits_while_its_rule_is_paused_and_is_dropped_with_its_job(
    spool_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_rule(spool_dir, "alarm", "{job: dead}")
    for job_id in ("kept", "gone"):
        drop(spool_dir, job_id, command="false", max_retries=1)
    with monkeypatch.context() as full:
        _refuse(full)
        full.setattr(JobRules, "has_work", False)  # the worker would wait for room; here it is killed instead
        drain(spool_dir)
    assert [one.about for one in untold.left(Layout(spool_dir))] == ["gone", "kept"]
    (spool_dir / "dead" / "gone.json").unlink()
    pause = spool_dir / "rules" / "alarm.paused"
    pause.touch()
    drain(spool_dir)
    assert told(spool_dir) == []

    pause.unlink()
    drain(spool_dir)
    assert told(spool_dir) == ["dead kept dead"]
    assert untold.left(Layout(spool_dir)) == []


def test_a_hook_of_a_queue_with_a_wrong_file_waits_there_and_keeps_no_other_from_being_queued(
    spool_dir: Path,
) -> None:
    """A draining worker would else wait for ever, and another one would lose what it has in memory."""
    write_rule(spool_dir, "first", "{job: dead}", queue="mail")
    write_rule(spool_dir, "second", "{job: dead}")
    (spool_dir / "queues" / "mail.yaml").write_text("limit: many\n")
    drop(spool_dir, "bad", command="false", max_retries=1)
    drain(spool_dir)

    assert told(spool_dir) == ["dead bad dead"]
    [waiting] = hooks_of(spool_dir, "first")
    assert where_is(spool_dir, waiting) == ["pending"]


def test_a_hook_that_can_be_no_job_keeps_no_other_from_being_queued(
    spool_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_rule(spool_dir, "first", "{job: dead}")
    write_rule(spool_dir, "second", "{job: dead}")
    drop(spool_dir, "bad", command="false", max_retries=1)
    real: Callable[..., Any] = job_queueing.prepared

    def refuse_first(defaults: Any, record: dict[str, Any], now: float) -> Any:
        if record["rule"] == "first":
            raise InvalidJob("too large")
        return real(defaults, record, now)

    monkeypatch.setattr(job_queueing, "prepared", refuse_first)
    said = drain(spool_dir)

    assert told(spool_dir) == ["dead bad dead"]
    assert any("cannot be queued: too large" in line for line in said)


def test_a_spool_with_other_rules_only_asks_nothing_at_the_end_of_a_job(
    spool_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job in a spool without such rules must cost what it did before there were any."""
    write_rule(spool_dir, "nightly", "{cron: '0 2 * * *'}", "job: {command: a}")
    drop(spool_dir, "a", command="false", max_retries=1)
    monkeypatch.setattr(hooks, "records_of", lambda *_: pytest.fail("somebody asked"))
    # Not just now: a young file is read at each look.
    os.utime(spool_dir / "rules" / "nightly.yaml", ns=(0, 10**18))
    monkeypatch.setattr(rule_file, "parse", Parsed(rule_file.parse))
    drain(spool_dir)

    assert Parsed.number == 1  # by the worker that follows rules with a time
    assert where_is(spool_dir, "a") == ["dead"]


class Parsed:
    """Counts the files that are read as rules."""

    number = 0

    def __init__(self, parse: Callable[..., Any]) -> None:
        self._parse = parse
        Parsed.number = 0

    def __call__(self, *args: Any) -> Any:
        """Read one."""
        Parsed.number += 1
        return self._parse(*args)


def test_a_job_that_a_dead_worker_has_left_is_told_by_the_one_that_takes_it_back(spool_dir: Path) -> None:
    """Its worker died for the last time that is allowed; nobody else will record that."""
    write_rule(spool_dir, "alarm", "{job: dead}")
    (spool_dir / "config.yaml").write_text("crash_limit: 1\n")
    spool = Spool(spool_dir)
    spool.enqueue("true", id="a")
    [row] = spool.list()
    (spool_dir / "processing" / "worker-7").mkdir(mode=0o700)
    found = spool._index.get(row.id)
    assert found is not None
    assert claim_job(spool._storage, found, "worker-7")
    mark = spool.get("a").run_mark(1)
    run_lock.acquire(spool.layout, "worker-7", "a", mark, spool._index.boot).release()
    drain(spool_dir)

    assert told(spool_dir) == ["dead a dead"]


def test_whoever_finds_a_file_that_is_no_job_has_it_told(spool_dir: Path) -> None:
    """Also a command that only lists jobs while no worker lives."""
    write_rule(spool_dir, "alarm", "{job: dead}", command='echo "$QUEUECTL_ABOUT" >> told')
    (spool_dir / "config.yaml").write_text("settle_time: 0\n")
    drop_bytes(spool_dir, "rubbish.json", b'{"command": 5}')
    Spool(spool_dir).list()
    assert where_is(spool_dir, "rubbish") == ["dead"]

    drain(spool_dir)
    assert told(spool_dir) == ["rubbish"]


def test_two_workers_that_find_a_file_which_is_no_job_tell_it_once(spool_dir: Path) -> None:
    """The other one has moved the file, and the hook has begun, after this one has seen the file. So the soak has found it."""
    write_rule(spool_dir, "alarm", "{job: dead}", command='echo "$QUEUECTL_ABOUT" >> told')
    (spool_dir / "config.yaml").write_text("settle_time: 0\n")
    drop_bytes(spool_dir, "rubbish.json", b'{"command": 5}')
    path = spool_dir / "pending" / "rubbish.json"
    slow = Spool(spool_dir)
    tell = slow._storage.before_end
    assert tell is not None

    def tell_late(ended: Sequence[tuple[Any, str]]) -> None:
        drain(spool_dir)
        tell(ended)

    slow._storage.before_end = tell_late
    assert dead_letters.bury_file(slow._storage, str(path), "rubbish", "no", judged=path.stat()) is None

    drain(spool_dir)
    assert told(spool_dir) == ["rubbish"]


def test_a_person_can_try_a_rule_and_reads_what_could_not_be_sent(spool_dir: Path) -> None:
    """That a notification died is told by no other one, so status has to."""
    write_rule(spool_dir, "alarm", "{job: dead}", command=f"{TELL}; exit 100")
    spool = Spool(spool_dir)
    [job_id] = spool.run_rule("alarm")
    drain(spool_dir)

    assert told(spool_dir) == ["trial trial "]
    assert job_id.startswith("alarm.run-")
    line = "rule alarm: 1 notification could not be sent: queuectl list --state dead --rule alarm"
    assert line in "\n".join(status.notes(spool))
    assert 'queuectl_rule_untold{rule="alarm"} 1.0' in spool.metrics().splitlines()
    rule = spool.rule("alarm")
    assert (rule.kind, rule.when, rule.next()) == ("job", "a job is dead", [])
    assert rule.last is not None
    assert len(rule.queued) == 1


def test_the_jobs_of_a_list_follow_each_other(spool_dir: Path) -> None:
    text = "jobs: [{id: first, command: 'echo first >> told', cwd: %s}, {id: second, command: 'echo second >> told', cwd: %s, after: first}]"
    write_rule(spool_dir, "alarm", "{job: dead}", text % (spool_dir.parent, spool_dir.parent))
    drop(spool_dir, "bad", command="false", max_retries=1)
    drain(spool_dir)

    assert told(spool_dir) == ["first", "second"]
    assert [name.rpartition(".")[2] for name in hooks_of(spool_dir)] == ["first", "second"]
