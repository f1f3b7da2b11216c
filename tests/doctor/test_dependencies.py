"""The doctor about jobs that wait for others: what keeps them waiting for ever, and no false alarm about the others."""

from __future__ import annotations

import sys
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from queuectl import Spool
from queuectl.doctor import doctor
from queuectl.layout import Layout

import support
from support import drop

if TYPE_CHECKING:
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
