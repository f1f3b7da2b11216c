"""SIGKILL before every file-system call of every move: what was acknowledged is there, once, and gets done."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import faults
import pytest
import sweeps
from stories import STORIES, judge, set_up

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CALLS = (
    "openat,write,pwrite64,ftruncate,fsync,fdatasync,rename,renameat2,link,linkat,unlink,mkdir,rmdir,syncfs"
)

pytestmark = pytest.mark.timeout(240)


MANY = {"openat": 5, "pwrite64": 9}
"""Calls of which there are dozens, most of them of the index or only looking: every n-th of them by default."""


POINTS = [(name, call) for name, story in STORIES.items() for call in story.calls.split()]


@pytest.mark.parametrize(("name", "call"), POINTS, ids=[f"{name}-{call}" for name, call in POINTS])
def test_a_kill_before_any_call_loses_nothing(
    name: str,
    call: str,
    server: faults.Server,
    spool_dir: Path,
    record_property: Callable[[str, object], None],
) -> None:
    """Killed before its n-th call of a kind, for every n there is, a move leaves each job whole, once, and runnable."""
    story = STORIES[name]
    every, tried = _every(name, call), 0
    for number in sweeps.points(every):
        spool = spool_dir.with_name(f"spool{number}")
        runs = spool.with_name(f"{spool.name}.runs")
        request = set_up(story, server, spool, runs)
        known = bool(spool.exists() and faults.places(spool))
        inject = f"{call}:signal=KILL:when={number}"
        answer = server.faulted(spool, story.move, inject, threads=story.threads, **request)
        assert "error" not in answer, answer
        acked = "value" in answer
        assert acked != answer["killed"]
        try:
            judge(story, server, spool, runs, acked=acked, known=known)
            assert sum(faults.runs(runs).values()) <= story.all_runs
        except AssertionError as error:
            raise AssertionError(f"killed before {call} number {number}: {error}") from error
        shutil.rmtree(spool, ignore_errors=True)
        if acked:
            break
        tried += 1
    record_property("points", tried)
    print(f"points: {tried}")
    assert tried or sweeps.has_begun_late(every), f"{call} was never reached"


def _every(name: str, call: str) -> int:
    if call == "openat" and name.startswith("recovered"):
        return 300  # a look at every process of the machine
    # Real processes, and most points are those of a single one.
    slowly = {
        "several at once": 3,
        "done, with children, in a queue with a limit": 6,
        "queued by a rule": 14,
        "taken from a folder": 12,
        "buried, and told by rules": 1 if call in ("linkat", "renameat2") else 40,
    }.get(name, 1)
    return MANY.get(call, 1) * slowly


@pytest.mark.parametrize("name", STORIES)
def test_the_sweep_knows_every_call(name: str, server: faults.Server, spool_dir: Path) -> None:
    """No move makes a file-system call of a kind that the sweep above does not put a kill before."""
    story = STORIES[name]
    request = set_up(story, server, spool_dir, spool_dir.with_name("runs"))
    found = server.calls(spool_dir, story.move, CALLS, threads=story.threads, **request)
    assert set(found) <= set(story.calls.split()), found
