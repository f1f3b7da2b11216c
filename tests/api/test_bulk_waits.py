"""Verbs for many jobs wait for the disk a fixed number of times, however many jobs and transactions there are."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest

from queuectl import Filter, Spool
from queuectl.api import removal
from queuectl.storage import rewriting
from queuectl.system import files

from support import drain, load, where_is

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere each file is synced for itself")


def _remove(spool: Spool, ids: list[str]) -> object:
    gone = spool.forget_many(ids)
    spool.sync_deletions()
    return gone


VERBS: dict[str, tuple[str, str, int, Callable[[Spool, list[str]], object]]] = {
    "hold": ("pending", "pending", 2, lambda spool, ids: spool.hold_many(ids)),
    "release": ("held", "pending", 2, lambda spool, ids: spool.release_many(ids)),
    "set": ("pending", "pending", 2, lambda spool, ids: spool.set_many(ids, priority=7)),
    "set dead ones": ("dead", "dead", 2, lambda spool, ids: spool.set_many(ids, priority=7)),
    "cancel": ("pending", "dead", 2, lambda spool, ids: spool.cancel_many(ids)),
    "retry dead ones": ("dead", "pending", 2, lambda spool, ids: spool.retry_many(ids)),
    "retry failed ones": ("failed", "pending", 2, lambda spool, ids: spool.retry_many(ids)),
    "remove": ("pending", "", 1, _remove),
    "remove dead ones": ("dead", "", 1, _remove),
    "clear": ("dead", "", 1, lambda spool, _: spool.clear()),
    "purge": ("dead", "", 0, lambda spool, _: spool.purge(keep=0, where=Filter(states="dead"))),
}
"""The state of the jobs before, their folder after, how often the disk is waited for, and the verb.

Changed files are waited for twice: for all bytes, and, once they are in place, for all names. A purged job that comes
back after a power cut is over, and does not run. So nothing waits for its deletion.
"""


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    made: list[str] = []

    def counted(call: Callable[..., object]) -> Callable[..., object]:
        def wait(fd: int, *more: object) -> object:
            made.append(os.readlink(f"/proc/self/fd/{fd}"))
            return call(fd, *more)

        return wait

    monkeypatch.setattr(os, "fsync", counted(os.fsync))
    monkeypatch.setattr(files, "_syncfs", counted(files._syncfs))
    monkeypatch.setattr(files, "_sync_file_range", counted(files._sync_file_range))
    return made


@pytest.mark.parametrize("verb", VERBS)
def test_many_jobs_wait_for_the_disk_no_more_often_than_one(
    verb: str, spool_dir: Path, waits: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two or three waits a job made ten thousand jobs a matter of half a minute."""
    before, after, times, do = VERBS[verb]
    spool = Spool(spool_dir)
    many = 30
    failing = {"command": "exit 1", "max_retries": 2, "backoff_base": 1000}
    ids = list(spool.enqueue_many([failing if before == "failed" else {"command": "true"}] * many))
    if before == "failed":
        drain(spool_dir)
    elif before == "dead":
        spool.cancel_many(ids)
    elif before == "held":
        spool.hold_many(ids)
    for module in (rewriting, removal):
        monkeypatch.setattr(module, "AT_ONCE", 7)
    spool.refresh()
    waits.clear()

    do(spool, ids)

    assert len(waits) == times, waits
    assert {tuple(where_is(spool_dir, job_id)) for job_id in ids} == {(after,) if after else ()}
    assert not [name for name in os.listdir(spool_dir / "tmp") if name.endswith(".tmp")]


def test_changes_of_many_are_told_one_by_one(spool_dir: Path) -> None:
    """Waiting and dead ones at once; those that cannot be changed keep none of the others."""
    spool = Spool(spool_dir)
    for name in "abcd":
        spool.enqueue("true", id=name)
    spool.cancel("c")
    (spool_dir / "pending" / "d.json").rename(spool_dir / "done" / "d.json")

    results = spool.set_many(["c", "nobody", "a", "d", "b"], priority=9, unique=None)

    assert list(results) == ["c", "nobody", "a", "d", "b"]
    told = {name: getattr(result, "priority", type(result).__name__) for name, result in results.items()}
    assert told == {"a": 9, "b": 9, "c": 9, "d": "MoveError", "nobody": "JobNotFound"}
    assert [load(spool_dir / place)["priority"] for place in ("pending/a.json", "dead/c.json")] == [9, 9]


def test_only_one_of_many_gets_a_unique_key(spool_dir: Path) -> None:
    """Each looks for the key that the one before it has got."""
    spool = Spool(spool_dir)
    ids = spool.enqueue_many(["true", "true", "true"])

    results = spool.set_many(ids, unique="k")

    assert sorted(type(result).__name__ for result in results.values()) == ["Job", "KeyTaken", "KeyTaken"]
    assert [row.unique for row in spool.list()].count("k") == 1
