"""With very many rules not each file is looked at each second, and none is forgotten."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from rules.clock import World

from queuectl.rules import rule_book

if TYPE_CHECKING:
    from pathlib import Path

DAILY = "when: {cron: '0 2 * * *'}\njob: {command: 'true'}\n"
HOURLY = "when: {cron: '0 * * * *'}\njob: {command: 'true'}\n"


@pytest.fixture
def many(spool_dir: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """Six rules, which are many: two more than are looked at each second. They are looked at each ten seconds."""
    monkeypatch.setattr(rule_book, "FEW", 4)
    monkeypatch.setattr(rule_book, "PER_FILE", 5.0)
    one = World(spool_dir, "2031-01-01T12:00Z", monkeypatch)
    for number in range(6):
        (one.folder / f"r{number}.yaml").write_text(DAILY)
    # A folder that was written within the last second is looked at as one that has changed.
    os.utime(one.folder, (1e9, 1e9))
    one.look()
    return one


def edit(many: World, text: str) -> None:
    """Write a file anew in its place, which changes no time of its folder."""
    path = many.folder / "r3.yaml"
    path.write_text(text)
    os.utime(path, (many.now, many.now))


def kinds(many: World) -> set[str]:
    """What the rule says that is edited here."""
    plans = many.scheduler._plans
    assert plans is not None
    return {plans.rules["r3"].trigger.words}


def test_a_file_that_is_edited_in_its_place_is_found_after_some_seconds(many: World) -> None:
    before = kinds(many)
    edit(many, HOURLY)
    many.go(1)
    assert kinds(many) == before
    many.go(9)
    assert kinds(many) != before


def test_an_event_has_all_files_looked_at_at_once(many: World) -> None:
    before = kinds(many)
    edit(many, HOURLY)
    many.scheduler.look_again()
    many.go(1)
    assert kinds(many) != before


def test_a_file_that_is_moved_into_place_is_found_at_the_next_look(many: World) -> None:
    before = kinds(many)
    scratch = many.folder.parent / "scratch"
    scratch.write_text(HOURLY)
    scratch.rename(many.folder / "r3.yaml")
    many.go(1)
    assert kinds(many) != before


def test_a_file_that_is_not_whole_yet_is_looked_at_each_second(many: World) -> None:
    before = kinds(many)
    with (many.folder / "r3.yaml").open("w") as file:
        file.write(HOURLY[:20])
        file.flush()
        many.scheduler.look_again()
        many.go(1)
        assert kinds(many) == before
        file.write(HOURLY[20:])
    many.go(1)
    assert kinds(many) != before
