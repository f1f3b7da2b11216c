"""A watched folder that others change at the wrong moment: files that are gone, and a folder that is another one now."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rules.folder_world import Watched

from queuectl.rules import folder_look
from queuectl.system.wake_up import WakeUp
from queuectl.system.watcher import FolderWatch
from queuectl.worker.idle import IdleWait

from support import drain, load, wait_until


@pytest.fixture
def one(spool_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Watched:
    return Watched(spool_dir, monkeypatch)


@pytest.mark.parametrize("source", ["leave", "move", "delete"])
def test_a_file_that_is_deleted_before_its_run_fails_with_the_words_of_the_command_and_once(
    one: Watched, spool_dir: Path, source: str
) -> None:
    """Trap 12. There is no loop: the file makes no other job."""
    one.rule(f"source: {source}", job="job: {command: 'cat {}', max_retries: 1}")
    one.drop("a.pdf")
    [job_id] = one.go(1)
    [path] = list(one.scans.rglob("a.pdf"))
    path.unlink()
    drain(spool_dir, now=lambda: one.now)

    assert one.go(60) == [job_id]
    assert "No such file" in load(spool_dir / "dead" / f"{job_id}.json")["output"]
    assert one.go(60) == [job_id]


@pytest.mark.parametrize(
    ("changed", "is_taken"),
    [
        (-2.5, True),  # a file system with nanoseconds
        (-3, True),  # whole seconds: it can be 2 s old
        (-2, False),  # even seconds, as on FAT: it may have changed just now
        (-4, True),
    ],
)
def test_where_times_are_coarse_a_file_is_not_older_than_it_may_be(
    one: Watched, monkeypatch: pytest.MonkeyPatch, changed: float, is_taken: bool
) -> None:
    """A file that was written a moment ago seems to be unchanged for the settle time there."""
    real = folder_look._of

    def coarse(*args: Any) -> folder_look.Found:
        found = real(*args)
        found.changed = round((one.now + changed) * 1e9)
        return found

    monkeypatch.setattr(folder_look, "_of", coarse)
    one.rule()
    one.drop("a.pdf")
    for _ in range(3):
        one.scheduler.look()
    assert len(one.ids()) == is_taken


@pytest.mark.parametrize("source", ["leave", "move"])
def test_a_folder_that_is_replaced_by_another_one_is_looked_at_anew(one: Watched, source: str) -> None:
    """Trap 18. The same names in it are other files, and what was there before is not taken once more."""
    one.rule(f"source: {source}")
    one.drop("a.pdf", "one")
    [first] = one.go(1)
    one.end(first)
    one.go(60)
    one.scans.rename(one.scans.with_name("old"))
    one.go(31)
    assert one.scheduler.due_in() < 60
    one.scans.mkdir()
    one.drop("a.pdf", "another")
    assert len(one.go(31)) == 2

    one.end_all()
    one.go(60)
    shutil.rmtree(one.scans)
    one.scans.with_name("old").rename(one.scans)
    assert len(one.go(31)) == 2


def sleeper(one: Watched, watch: FolderWatch, wake_up: WakeUp) -> IdleWait:
    """The sleep of a worker for which nothing is due but its rules."""
    quiet: Any = SimpleNamespace(nothing_due=True, seconds_to_next=lambda: 60.0, within=(), above=())
    still: Any = SimpleNamespace(
        is_current=lambda **_: True, has_other_rules=False, unchanged_for=60.0, links=()
    )
    return IdleWait(one.spool.layout, quiet, wake_up, watch, quiet, quiet, quiet, one.scheduler, still)


@pytest.mark.skipif(sys.platform != "linux", reason="inotify")
def test_a_file_whose_event_the_kernel_had_to_drop_is_found(one: Watched) -> None:
    """Trap 7. More happens than the kernel keeps, and then a file is written anew, which changes no time of its folder."""
    one.rule()
    path = one.drop("a.pdf")
    assert len(one.go(1)) == 1
    one.go(31)
    kept = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    pending = one.folder.parent / "pending"
    ours, other = pending / ".a", pending / ".b"
    ours.touch()
    asked = []

    def storm() -> bool:
        asked.append(1)
        if len(asked) == 2:  # the watch has begun, and the wait has not
            for _ in range(kept // 2 + 1):
                os.rename(ours, other)
                os.rename(other, ours)
            path.write_text("another")
        return False

    wake_up = WakeUp()
    watch = FolderWatch(str(pending), wake_up)
    try:
        assert watch.start()
        watch.is_lost = watch.is_edited = False
        wait_until(lambda: bool(one.go(1)) and one.scheduler.nothing_due)
        waited = sleeper(one, watch, wake_up).wait(lambda: 20.0, storm)
    finally:
        watch.stop()
        wake_up.close()
    assert (waited, watch.is_lost) == (False, True)
    one.go(2)
    assert len(one.go(2)) == 2
