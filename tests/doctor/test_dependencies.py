"""The doctor about jobs that wait for others: what keeps them waiting for ever, and no false alarm about the others."""

from __future__ import annotations

import sys
from collections import Counter
from contextlib import closing
from typing import TYPE_CHECKING, Any

import gate
import pytest

from queuectl import Spool
from queuectl.doctor import doctor
from queuectl.intake.admission import Admission
from queuectl.job import record
from queuectl.layout import Layout
from queuectl.storage import dependencies

import support
from support import drop, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="commands are written for sh")


def faults(spool_dir: Path) -> list[str]:
    """What is wrong, by what the doctor says."""
    return [one.fact for one in doctor.examine(Layout(spool_dir)) if not one.harmless]


def test_a_job_that_waits_for_others_is_no_fault(spool_dir: Path) -> None:
    """Its place in the order follows from the end of other jobs, and not from its own file."""
    with closing(Spool(spool_dir)) as spool:
        spool.enqueue("true", id="done")
        spool.enqueue("exit 1", id="dead", max_retries=1)
        support.drain(spool_dir)
        jobs: list[dict[str, Any]] = [
            {"after": "done"},
            {"after": "dead"},
            {"after": "dead", "if_blocked": "dead"},
            {"after_failure": "dead", "run_at": "2031-01-01T00:00:00Z"},
            {"after_any": ["done", "dead"], "unique": "key", "if_exists": "queue"},
            {"after": "dead", "unique": "key", "if_exists": "queue"},
            {"after": "j1"},
            {"after": "done", "hold": True},
            {"after": "dead", "hold": True},
        ]
        for number, fields in enumerate(jobs):
            spool.enqueue("true", id=f"j{number}", **fields)
        drop(spool_dir, "dropped", command="true", after=["done"])
        drop(spool_dir, "early", command="true", after=["nobody"])
        spool.refresh()
    assert faults(spool_dir) == []
    spool.release("j8")
    spool.refresh()
    spool.close()
    assert faults(spool_dir) == []


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE jobs SET ready_key = 1 WHERE id = 'blocked'",
        "UPDATE jobs SET ready_key = NULL, due = NULL WHERE id = 'free'",
        "UPDATE jobs SET due = due - 90000000 WHERE id = 'free'",
    ],
)
def test_an_index_that_lets_the_wrong_jobs_go_is_noticed(spool_dir: Path, damage: str) -> None:
    """One would be claimed again and again, another one never."""
    with closing(Spool(spool_dir)) as spool:
        spool.enqueue("true", id="done")
        support.drain(spool_dir)
        spool.enqueue("true", id="free", after="done")
        drop(spool_dir, "blocked", command="true", after=["nobody"])
        spool.refresh()
        assert faults(spool_dir) == []
        with spool._index.write():
            spool._index.db.execute("DROP TRIGGER child_placed")
            spool._index.db.execute(damage)
    [fault] = faults(spool_dir)
    assert fault.startswith("the index has another order than pending/")


def test_a_ring_that_no_claim_has_found_is_told(spool_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The intake looks at a thousand jobs at the most. Nothing else would ever say why these wait."""
    monkeypatch.setattr(dependencies, "RING_STEPS", 0)
    with closing(Spool(spool_dir)) as spool:
        spool.refresh()  # an index that is made anew has its own look for rings
    for job_id, parents in (("a", ["b"]), ("b", ["c", "d"]), ("c", ["a"]), ("d", ["b"]), ("out", ["c"])):
        drop(spool_dir, job_id, command="true", after=parents)
    drop(spool_dir, "join", command="true", after_any=["batch:x"])
    drop(spool_dir, "part", command="true", after=["join"], batch="x")
    with closing(Spool(spool_dir)) as spool:
        spool.refresh()
        assert spool.counts()["pending"] == 7
    found = [one for one in doctor.examine(Layout(spool_dir)) if one.kind == "ring"]
    told = sorted((one.fact, one.cure, one.harmless) for one in found)
    assert told[-1] == (
        "job join waits for itself: join, batch:x, part, join",
        "let one of them go: queuectl set join after_any=",
        False,
    )
    # Of two rings with a job in common one is told, and the other once that one is mended.
    assert told[0][0] in ("job a waits for itself: a, b, c, a", "job b waits for itself: b, d, b")
    assert len(told) == 2


def test_each_obstacle_is_told_with_what_helps(spool_dir: Path) -> None:
    """Once for each dead or missing job, however many wait for it, and it is no fault of the spool."""
    with closing(Spool(spool_dir)) as spool:
        spool.enqueue("exit 1", id="dead", max_retries=1, batch="x")
        support.drain(spool_dir)
        for number in range(3):
            spool.enqueue("true", id=f"child{number}", after="dead")
        spool.enqueue("true", id="behind", after="child0")
        spool.enqueue("true", id="join", after="batch:x=2")
        spool.enqueue("true", id="fine", after_failure="dead")
        for number in range(25):
            drop(spool_dir, f"early{number:02}", command="true", after_any=[f"gone{number:02}"])
        spool.refresh()
    found = [one for one in doctor.examine(Layout(spool_dir)) if one.kind == "blocked"]
    assert [(one.fact, one.cure) for one in found[:3]] == [
        ("3 jobs wait, like child0, for job dead, which is dead", "queuectl retry dead"),
        (
            "job join waits for batch x, of which no job is left (0 completed, 1 dead)",
            "queuectl retry --batch x",
        ),
        (
            "job early00 waits for job gone00, and there is no such job",
            "queuectl set early00 after_any-=gone00",
        ),
    ]
    assert (len(found), found[-1].cure) == (21, "queuectl list --blocked")
    assert all(one.harmless for one in found)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells which files of a process were deleted")
def test_a_run_that_no_limit_counts_any_more_is_told(spool_dir: Path) -> None:
    """Somebody has deleted data/: the places are made anew, and until this job has ended one more may run."""
    home = gate.home_with_gate(spool_dir)
    (spool_dir / "queues").mkdir(parents=True, mode=0o700)
    spool_dir.chmod(0o700)
    (spool_dir / "queues" / "mail.yaml").write_text("limit: 1\n")
    gate.drop_blocked(spool_dir, "free")
    gate.drop_blocked(spool_dir, "limited", queue="mail")
    with gate.worker_in_thread(spool_dir, 2):
        wait_until(lambda: gate.started(home) == {"free": 1, "limited": 1})
        assert faults(spool_dir) == []
        (spool_dir / "data" / "queues" / "mail.0").unlink()
        assert faults(spool_dir) == [
            "job limited runs, and no limit counts it, as the lock file data/queues/mail.0 was deleted"
        ]
        gate.release(home, lambda: support.finished(spool_dir, "free", "limited"))
        assert faults(spool_dir) == []


def test_job_files_are_read_again_only_if_something_is_wrong_with_them(
    spool_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A note about one job that waits in vain had ten thousand files read six times, one by one in a transaction."""
    monkeypatch.setattr(doctor, "_CONFIRM_AFTER", 0)
    with closing(Spool(spool_dir)) as spool:
        spool.refresh()
        for number in range(20):
            drop(spool_dir, f"j{number}", command="true", after=[f"j{number - 1}" if number else "nobody"])
        assert len(spool.list()) == 20
    calls: Counter[str] = Counter()

    def counted(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def counting(*rest: Any) -> Any:
            calls[name] += 1
            return call(*rest)

        return counting

    monkeypatch.setattr(record, "parse", counted("parsed", record.parse))
    monkeypatch.setattr(Admission, "admit", counted("admitted", Admission.admit))

    [note] = doctor.examine(Layout(spool_dir))

    assert (note.kind, note.harmless) == ("blocked", True)
    assert calls == {"parsed": 2 * 20}, "files become rows one by one, and not all at once"
    (spool_dir / "pending" / "j3.json").write_text('"rubbish"')
    assert len(doctor.examine(Layout(spool_dir))) > 1
