"""What a page asks again and again: reasons, recent times, throughput, why a job waits, edits of what is unchanged."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest

from queuectl import Filter, MoveError, Spool
from queuectl.job import times

from support import drop, drop_bytes

if TYPE_CHECKING:
    from pathlib import Path

NOON = 1_795_003_200.0


def ended(spool: Path, job_id: str, *, at: float, ran: float = 1, error: str | None = None) -> None:
    """A job that waited for 2 s, ran, and ended at this moment; with an error it is dead."""
    record = {
        "id": job_id,
        "command": "true",
        "attempts": 1,
        "created_at": times.iso(at - ran - 2),
        "started_at": times.iso(at - ran),
        "finished_at": times.iso(at),
        "duration": ran,
        **({"last_error": error, "exit_code": 1} if error else {"exit_code": 0}),
    }
    drop_bytes(spool, f"{job_id}.json", json.dumps(record).encode(), "dead" if error else "done")


def test_reasons_are_counted_the_most_frequent_first(spool_dir: Path) -> None:
    """Of the newest dead jobs that a filter selects."""
    for number, error in enumerate(["Exit code 1", "Exit code 65", "Exit code 65", "Timeout exceeded (20s)"]):
        ended(spool_dir, f"a{number}", at=NOON, error=error)
    ended(spool_dir, "well", at=NOON)
    spool = Spool(spool_dir)

    assert spool.reasons() == [("Exit code 65", 2), ("Exit code 1", 1), ("Timeout exceeded (20s)", 1)]
    assert spool.reasons(Filter(reason="Timeout")) == [("Timeout exceeded (20s)", 1)]
    assert sum(number for _, number in spool.reasons(of_newest=2)) == 2


def test_recent_times_are_those_of_the_last_ends(spool_dir: Path) -> None:
    """Older jobs have no part in them."""
    for number in range(1, 5):
        ended(spool_dir, f"a{number}", at=NOON + number, ran=number)

    waiting, running = Spool(spool_dir).recent(2)

    assert (running.count, running.p50, running.longest) == (2, 3.0, 4.0)
    assert (waiting.p50, waiting.p99) == (2.0, 2.0)


def test_no_job_has_waited_for_less_than_nothing(spool_dir: Path) -> None:
    """A file without `created_at` counts from when it came, which may be after its start: the page said -10000ms."""
    record = {
        "id": "a",
        "command": "true",
        "attempts": 1,
        "started_at": 5.0,
        "finished_at": 6.0,
        "duration": 1.0,
    }
    drop_bytes(spool_dir, "a.json", json.dumps(record).encode(), "done")

    waiting, _ = Spool(spool_dir).recent()

    assert (waiting.count, waiting.p50, waiting.longest) == (1, 0.0, 0.0)


def test_nothing_has_ended_yet(spool_dir: Path) -> None:
    """An empty spool has no times, and no steps."""
    drop(spool_dir, "a", command="true")
    spool = Spool(spool_dir)

    assert [found.p50 for found in spool.recent()] == [None, None]
    assert spool.throughput(NOON) == {}


def test_ends_are_counted_by_minute(spool_dir: Path) -> None:
    """Only those since then; completed and dead ones apart."""
    ended(spool_dir, "before", at=NOON - 1)
    ended(spool_dir, "a", at=NOON)
    ended(spool_dir, "b", at=NOON + 59, error="Exit code 1")
    ended(spool_dir, "c", at=NOON + 120)

    assert Spool(spool_dir).throughput(NOON) == {NOON: (1, 1), NOON + 120: (1, 0)}


def test_why_a_job_waits_is_told_in_sentences(spool_dir: Path) -> None:
    """Each thing that keeps it from starting; a job that does not wait has none."""
    spool = Spool(spool_dir)
    spool.enqueue("true", id="first", hold=True)
    spool.enqueue("true", id="second", after=["first"])
    spool.enqueue("true", id="later", run_at=time.time() + 3600)
    spool.enqueue("true", id="mailed", queue="mail")
    spool.pause("nobody", queue="mail", patience=0)
    ended(spool_dir, "well", at=NOON)

    assert spool.why_waiting("well") == []
    assert spool.why_waiting("first") == ["it is held until somebody releases it", "no worker runs"]
    assert spool.why_waiting("second")[0] == "it waits for first (pending)"
    assert spool.why_waiting("later")[0].startswith("it starts at ")
    assert spool.why_waiting("mailed")[0] == "queue mail is paused"

    (spool_dir / "config.yaml").write_text("min_free_space: 1000000000000000\n")
    assert Spool(spool_dir).why_waiting("first")[1].startswith("workers start nothing: ")
    spool.pause("deploy", patience=0)
    assert "the spool is paused" in spool.why_waiting("first")[1]


@pytest.mark.parametrize("state", ["pending", "dead"])
def test_an_edit_of_what_has_changed_meanwhile_is_refused(spool_dir: Path, state: str) -> None:
    """Two people who have the same form open: the second one is told, and overwrites nothing."""
    if state == "pending":
        Spool(spool_dir).enqueue("true", id="a")
    else:
        ended(spool_dir, "a", at=NOON, error="Exit code 1")
    spool = Spool(spool_dir)
    spool.refresh()
    path = spool_dir / state / "a.json"
    before = path.read_bytes()

    assert spool.set("a", if_unchanged=before, priority=7).priority == 7
    now = path.read_bytes()
    with pytest.raises(MoveError, match="just been taken, moved or changed"):
        spool.set("a", if_unchanged=before, priority=9)

    assert path.read_bytes() == now
    assert spool.set("a", if_unchanged=now, priority=8).priority == 8
