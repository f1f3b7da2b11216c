"""The doctor says what rules about jobs have not told, and why, where no rule can tell of it."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from queuectl import Spool
from queuectl.doctor import doctor, hooks
from queuectl.doctor.finding import Case
from queuectl.layout import Layout
from queuectl.rules import untold
from queuectl.rules.untold import Untold

from support import drain, drop

if TYPE_CHECKING:
    from pathlib import Path


def write_rule(spool_dir: Path, name: str, when: str, **fields: Any) -> None:
    """A rule about jobs, whose job does nothing."""
    Spool(spool_dir).refresh()
    text = f"when: {when}\njob: {json.dumps({'command': 'true', **fields})}\n"
    (spool_dir / "rules" / f"{name}.yaml").write_text(text)


def found(spool_dir: Path, kind: str) -> dict[str, doctor.Finding]:
    """What the doctor finds of one kind, by its place."""
    return {one.where: one for one in doctor.examine(Layout(spool_dir)) if one.kind == kind}


@pytest.mark.parametrize(
    ("when", "paused", "cure"),
    [
        ("{job: dead}", False, "make room on the disk: the workers try again each second"),
        ("{job: dead}", True, "queuectl rule resume alarm"),
        ("{job: done}", False, "bring back the rule alarm for dead jobs, or delete this file"),
        ("{job: nonsense}", False, "bring back the rule alarm for dead jobs, or delete this file"),
    ],
)
def test_what_the_disk_has_refused_is_told_with_what_helps(
    spool_dir: Path, when: str, paused: bool, cure: str
) -> None:
    write_rule(spool_dir, "alarm", when)
    if paused:
        (spool_dir / "rules" / "alarm.paused").touch()
    layout = Layout(spool_dir)
    untold.make_folder(layout)
    untold.note(layout, Untold("dead", "alarm.job-aaaaaaaaaaaaa", "load"))

    [one] = found(spool_dir, "untold").values()
    assert one.where == "data/rules/untold/dead~alarm.job-aaaaaaaaaaaaa~load"
    assert one.fact.startswith("rule alarm has not told of the end of job load yet")
    assert (one.cure, one.harmless) == (cure, False)


def test_a_notification_that_could_not_be_sent_is_told(spool_dir: Path) -> None:
    write_rule(spool_dir, "alarm", "{job: dead}", command="exit 100")
    drop(spool_dir, "bad", command="false", max_retries=1)
    drain(spool_dir)

    [one] = found(spool_dir, "dead hook").values()
    assert one.fact == "rule alarm: 1 notification could not be sent"
    assert (one.cure, one.harmless) == ("queuectl list --state dead --rule alarm", True)


def test_a_hook_that_nobody_runs_is_told_after_ten_minutes(spool_dir: Path) -> None:
    """It goes before all others, so something keeps it."""
    write_rule(spool_dir, "alarm", "{job: dead}", queue="mail")
    (spool_dir / "queues" / "mail.paused").touch()
    drop(spool_dir, "bad", command="false", max_retries=1)
    drain(spool_dir)

    assert found(spool_dir, "hook") == {}
    spool = Spool(spool_dir)
    spool.refresh()
    spool._index.mark_due_ready(round(time.time() * 1e6))
    assert found(spool_dir, "drift") == {}
    later = Case(Layout(spool_dir), lambda: time.time() + hooks.LONG + 60, lambda _: None)
    later.index.look(in_use=False)
    [one] = hooks.compare(later)
    later.index.close()
    assert " is to tell of bad, and waits since " in one.fact


def test_a_digest_that_is_ready_is_where_it_belongs_in_the_order(spool_dir: Path) -> None:
    """It goes before all others. The doctor once took that for a fault of the index."""
    write_rule(spool_dir, "storm", "{job: dead, within: 1h, at_least: 1}", queue="mail")
    jobs = "jobs: [{id: a, command: 'true', queue: mail}, {id: b, command: 'true', queue: mail}]"
    (spool_dir / "rules" / "calm.yaml").write_text(f"when: {{job: empty}}\n{jobs}\n")
    (spool_dir / "queues" / "mail.paused").touch()
    drop(spool_dir, "bad", command="false", max_retries=1)
    drain(spool_dir)

    waiting = [job for job in Spool(spool_dir).list() if job.id.startswith("calm.")]
    assert [job.state for job in waiting] == ["pending"] * 2
    assert found(spool_dir, "drift") == {}


def test_a_digest_whose_rule_is_gone_is_told_as_it_lists_more_than_was_meant(spool_dir: Path) -> None:
    write_rule(spool_dir, "daily", "{job: dead, tag: nightly, within: 1d}")
    drop(spool_dir, "bad", command="false", max_retries=1, tags=["nightly"])
    drain(spool_dir)
    assert found(spool_dir, "hook") == {}

    (spool_dir / "rules" / "daily.yaml").unlink()
    [one] = found(spool_dir, "hook").values()
    assert " will tell of all ends from " in one.fact
    assert one.cure == f"queuectl rule check daily, or queuectl cancel {one.where}"
