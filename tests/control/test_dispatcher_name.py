"""The name of an engine belongs to one dispatcher, which is seen, stopped and followed as a worker is."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING

import pytest

from queuectl import Spool, Worker
from queuectl.control import commands, registry
from queuectl.control.registration import Registration
from queuectl.errors import WorkerError

from support import drop_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from queuectl.layout import Layout

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="dispatchers run where Slurm does")


@pytest.fixture
def dispatcher(layout: Layout) -> Iterator[Registration]:
    made = Registration.acquire_named(layout, "slurm")
    made.announce("program")
    yield made
    made.release()


@pytest.mark.parametrize("deleted", ["nothing", "lock", "data"])
def test_an_engine_has_one_dispatcher(dispatcher: Registration, layout: Layout, deleted: str) -> None:
    """Two would hand the same jobs over; so also when somebody has deleted the files of the first one."""
    if deleted != "nothing":
        os.unlink(layout.worker_file("slurm", "lock"))
    if deleted == "data":
        os.unlink(layout.worker_file("slurm", "json"))
    pid = f" \\(PID {os.getpid()}\\)" if deleted != "data" else ""
    with pytest.raises(WorkerError, match=f"^slurm has a dispatcher already{pid}$"):
        Registration.acquire_named(layout, "slurm")
    dispatcher.restore()
    assert [one.name for one in registry.live_workers(layout)] == ["slurm"]


def test_a_name_is_free_after_its_dispatcher(layout: Layout) -> None:
    for _ in range(2):
        made = Registration.acquire_named(layout, "slurm")
        made.announce("program")
        made.release()
    assert registry.live_workers(layout) == []


def test_it_is_seen_and_asked_to_stop_beside_the_workers(
    dispatcher: Registration, layout: Layout, spool_dir: Path
) -> None:
    """After them in lists. What it has handed over is not read for each list: it may be 100,000 jobs."""
    worker = Registration.acquire(layout)
    worker.announce("program")
    drop_bytes(spool_dir, "a.json", b'{"id": "a", "command": "true"}', "processing/slurm")
    found = registry.live_workers(layout)
    assert [(one.name, one.kind, one.jobs) for one in found] == [
        ("worker-0", "worker", ()),
        ("slurm", "dispatcher", ()),
    ]
    assert commands.request_stop(layout, "slurm", force=True)
    assert (commands.requested_stop(dispatcher), commands.requested_stop(worker)) == ("force", None)
    os.unlink(layout.claims("slurm") + "/a.json")
    worker.release()


def test_a_dead_one_is_forgotten_and_its_jobs_are_not(layout: Layout, spool_dir: Path) -> None:
    """A worker may clear its record away, while it has no job there; the jobs wait for the next dispatcher."""
    claim = drop_bytes(spool_dir, "there.json", b'{"id": "there", "command": "true"}', "processing/slurm")
    dead = Registration.acquire_named(layout, "slurm")
    dead.announce("program")
    dead.release(touch_files=False)  # its lock is free, and everything else is as it was
    assert os.path.exists(layout.worker_file("slurm", "json"))

    Spool(spool_dir).enqueue("true", id="mine")
    Worker(spool_dir, drain=True).run()

    assert claim.exists()
    after = Registration.acquire_named(layout, "slurm")
    after.announce("program")
    assert after.predecessor_started_at is not None
    assert after.predecessor_started_at <= time.time()
    after.release()
    assert claim.exists()
