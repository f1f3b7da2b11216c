"""A watched folder that others change at the wrong moment: files that are gone, and a folder that is another one now."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import pytest
from rules.folder_world import Watched

from queuectl.rules import folder_look

from support import drain, load

if TYPE_CHECKING:
    from pathlib import Path


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
