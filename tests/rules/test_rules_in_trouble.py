"""Rules in a spool that refuses something: a reason, a note, the mode of a file, a time from the future."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest
from rules.clock import World, one_tick

from queuectl.rules import plans

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NIGHTLY = '{cron: "0 2 * * *", timezone: UTC}'
SECOND_NIGHT = "backup.20310102T020000Z"


@pytest.fixture
def world(spool_dir: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(spool_dir, "2031-01-01T12:00Z", monkeypatch)


def with_a_name_that_is_too_long(rules: Path) -> Path:
    path = rules / ("a" * 248 + ".yaml")
    path.touch()
    return path


def with_a_folder_in_the_place_of_its_reason(rules: Path) -> Path:
    (rules / "wrong.yaml").touch()
    (rules / "wrong.yaml.reason").mkdir()
    return rules / "wrong.yaml"


@pytest.mark.parametrize(
    "drop", [with_a_name_that_is_too_long, with_a_folder_in_the_place_of_its_reason], ids=["long", "folder"]
)
def test_a_wrong_file_whose_reason_cannot_be_written_ends_no_other_rule(
    world: World, drop: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("queuectl.rules.rule_book.RuleBook._is_being_written", lambda *_: False)
    world.write("backup", NIGHTLY)
    wrong = drop(world.folder)
    world._stamp()
    world.look()

    assert world.go("2031-01-02T02:00Z") == [SECOND_NIGHT]
    assert [line for line in world.said if wrong.name in line]


def test_a_reason_that_the_disk_refused_is_written_a_minute_later(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not at each look: each attempt changes the folder, which wakes the workers."""
    monkeypatch.setattr("queuectl.rules.rule_book.RuleBook._is_being_written", lambda *_: False)
    wrong = with_a_folder_in_the_place_of_its_reason(world.folder)
    world._stamp()
    world.look()
    tried = world.folder.stat().st_mtime_ns

    world.go(plans._REASONS_AGAIN / 2)
    assert world.folder.stat().st_mtime_ns == tried
    reason = wrong.with_name("wrong.yaml.reason")
    reason.rmdir()
    os.utime(world.folder, ns=(0, tried))
    world.go(plans._REASONS_AGAIN / 2)
    assert reason.read_text() == "the file is empty\n"


def test_a_note_that_the_disk_refuses_delays_no_job_and_is_written_as_soon_as_it_can_be(world: World) -> None:
    """Without it the next worker would run the night again once the record of its job is purged."""
    notes = world.folder.parent / "data" / "rules"
    notes.rmdir()
    notes.touch()  # no folder can be made there
    world.write("backup", NIGHTLY)
    world.look()
    assert world.go("2031-01-02T02:00Z") == [SECOND_NIGHT]
    world.go(1)
    told = [line for line in world.said if "its note cannot be written" in line]
    assert told == ["rule backup: its note cannot be written: file exists"]  # once, and not each second

    notes.unlink()
    assert not world.scheduler.nothing_due
    world.go(1)
    (world.folder.parent / "pending" / f"{SECOND_NIGHT}.json").unlink()
    world.anew()
    assert world.go(60) == []
    assert world.scheduler.nothing_due


@pytest.mark.skipif(sys.platform == "win32", reason="modes")
def test_a_file_that_others_could_write_counts_as_soon_as_its_mode_is_mended(world: World) -> None:
    """A new mode changes neither the time nor the size of a file."""
    world.write("backup", NIGHTLY)
    path = world.folder / "backup.yaml"
    for folder in (world.folder, world.folder.parent):
        folder.chmod(0o755)
    path.chmod(0o666)
    os.utime(path, (0, 0))
    world.look()
    assert (world.folder / "backup.yaml.reason").read_text().startswith("can be written by others")

    path.chmod(0o644)
    assert world.go("2031-01-02T02:00Z") == [SECOND_NIGHT]
    assert not (world.folder / "backup.yaml.reason").exists()


def test_rules_with_a_time_ahead_of_the_clock_are_read_once(world: World) -> None:
    """The clock was set back, or is in 1970. Read again at each look, the first ones would leave no time for the others."""
    for number in range(20):
        world.write(f"rule-{number}", NIGHTLY)
        os.utime(world.folder / f"rule-{number}.yaml", (4_000_000_000, 4_000_000_000))
    world.look()
    book = world.scheduler._plans._book  # type: ignore[union-attr]
    book._monotonic = one_tick(world)

    assert book.refresh(world.ticks) == set()
    assert book.is_complete
