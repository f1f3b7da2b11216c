"""The list of the files that a rule has taken forgets those that are gone, and no others."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
from rules.folder_world import Watched

from queuectl.rules import folder_survey, seen_files
from queuectl.rules.file_trigger import FileTrigger

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def one(spool_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Watched:
    """A folder of which four files were taken, and six others that are gone: the next look but one may forget them."""
    monkeypatch.setattr(seen_files, "_FEW", 6)
    one = Watched(spool_dir, monkeypatch)
    one.rule("recursive: true")
    gone = [one.drop(f"gone/{number}.pdf", "x" * number) for number in range(1, 7)]
    for name in ("a.pdf", "b.pdf", "sub/c.pdf", "sub/d.pdf"):
        one.drop(name, f"text of {name}")
    assert len(one.go(1)) == 10
    for path in gone:
        path.unlink()
    # Only the list knows them now.
    for job_id in one.ids():
        (spool_dir / "pending" / f"{job_id}.json").unlink()
    return one


def _forgets(one: Watched) -> set[str]:
    for _ in range(3):
        one.go(60)
    text = (one.folder.parent / "data" / "rules" / "scans.seen").read_text()
    assert "gone" not in text
    return {os.path.basename(path) for path in one.scans.rglob("*.pdf") if path.name not in text}


def test_the_files_of_a_folder_that_could_not_be_read_for_a_while_are_not_taken_again(
    one: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    scandir = os.scandir

    def refuse(path: Any) -> Iterator[os.DirEntry[str]]:
        if str(path).endswith("sub"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert _forgets(one) == set()
    found = folder_survey.survey(FileTrigger(str(one.scans), recursive=True), one.spool.layout, "scans")
    assert found.waits == [("sub", "the folder cannot be read: permission denied")]
    monkeypatch.setattr(os, "scandir", scandir)
    one.anew()
    assert one.go(60) == []


def test_the_files_whose_names_a_rule_did_not_mean_for_a_while_are_not_taken_again(one: Watched) -> None:
    one.rule("recursive: true, match: '[ab].pdf'")
    assert _forgets(one) == set()
    one.rule("recursive: true")
    assert one.go(60) == []
