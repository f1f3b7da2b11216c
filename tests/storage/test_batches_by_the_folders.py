"""A job that waits for a batch: the index knows the jobs of the batch, and the folders tell whether they are over."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import gate
import pytest
from noted import drop, order

from queuectl import Spool
from queuectl.index import waits
from queuectl.job import record
from queuectl.job.conditions import Verdict
from queuectl.layout import DEAD, DONE
from queuectl.storage import dependencies

import support
from support import where_is

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="commands are written for sh")

PARTS = ("part1", "part2")


@pytest.fixture
def home(spool_dir: Path) -> Path:
    return gate.home_with_gate(spool_dir)


@pytest.fixture
def over(spool_dir: Path, home: Path) -> Spool:
    """Two parts are done, and a job that waits for both could start: the index has let it go."""
    for name in PARTS:
        drop(spool_dir, name, batch="parts")
    support.drain(spool_dir)
    spool = Spool(spool_dir)
    drop(spool_dir, "join", after=["batch:parts=2"])
    spool.refresh()
    assert judged(spool, spool_dir) == Verdict.MET
    return spool


def judged(spool: Spool, spool_dir: Path) -> int:
    """Judge the job as a worker does that has just claimed it."""
    with spool._index.write():
        return dependencies.judge(
            spool._storage, record.parse((spool_dir / "pending" / "join.json").read_bytes())
        )[0]


def put_back(spool_dir: Path, name: str) -> None:
    (spool_dir / "done" / f"{name}.json").rename(spool_dir / "pending" / f"{name}.json")


def test_a_part_that_was_put_back_by_hand_is_waited_for(spool_dir: Path, home: Path, over: Spool) -> None:
    """The index does not know of the move yet, and took the batch for complete: the join ran before its part."""
    put_back(spool_dir, "part1")

    assert judged(over, spool_dir) == Verdict.WAIT
    assert over._index.batch_counts("parts") == (1, 1, 0)
    support.drain(spool_dir)
    assert order(home)[2:] == ["part1", "join"]


def test_a_part_that_was_put_back_and_returned_is_over_again(
    spool_dir: Path, home: Path, over: Spool
) -> None:
    """Nobody has read the file in pending/ meanwhile. The join must not wait for ever for a part that is done."""
    put_back(spool_dir, "part1")
    assert judged(over, spool_dir) == Verdict.WAIT
    (spool_dir / "pending" / "part1.json").rename(spool_dir / "done" / "part1.json")
    support.drain(spool_dir)
    assert order(home) == [*PARTS, "join"]


def test_a_part_whose_record_was_deleted_does_not_count(spool_dir: Path, home: Path, over: Spool) -> None:
    """Two were wanted, and there is one."""
    (spool_dir / "done" / "part1.json").unlink()
    assert judged(over, spool_dir) == Verdict.WAIT
    support.drain(spool_dir)
    assert where_is(spool_dir, "join") == ["pending"]


def test_files_of_a_batch_are_looked_for_only_after_a_change_by_hand(
    spool_dir: Path, over: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten thousand jobs may wait for ten thousand parts. To look for all parts before each of them would take minutes."""
    monkeypatch.setattr(type(over._index), "agrees", lambda _self, place, _now: place in (DONE, DEAD))
    monkeypatch.setattr(waits, "ended_members", None)
    assert judged(over, spool_dir) == Verdict.MET


def test_many_parents_are_looked_for_in_few_steps(
    spool_dir: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker does nothing else meanwhile. Asked for one by one, 10,000 took 0.1 s, and to describe them 0.3 s."""
    names = [f"p{number}" for number in range(250)]
    spool = Spool(spool_dir)
    spool.enqueue_many({"command": "true", "id": name} for name in names)
    for name in names:
        (spool_dir / "pending" / f"{name}.json").rename(spool_dir / "done" / f"{name}.json")
    (spool_dir / "done" / "p7.json").rename(spool_dir / "dead" / "p7.json")
    (spool_dir / "logs" / "p9.0.out").touch()
    spool.refresh()
    job = record.parse(
        b'{"command": "true", "after_any": [%s]}' % ", ".join(f'"{n}"' for n in names).encode()
    )
    asked: list[str] = []
    for function in ("lexists", "exists"):
        monkeypatch.setattr(os.path, function, asked.append)

    assert dependencies.judge(spool._storage, job)[0] == Verdict.MET
    dependencies.describe(spool._storage, job, str(spool_dir / "list"))

    monkeypatch.undo()
    lines = [line.split("\t") for line in (spool_dir / "list").read_text().splitlines()]
    assert [line[1] for line in lines] == ["dead" if name == "p7" else "completed" for name in names]
    assert [line[0] for line in lines if line[3]] == ["p9"]
    assert not asked
