"""What a worker moves and deletes in a watched folder, while others write there: only the files that it took."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
from rules.folder_world import Watched

from queuectl.job.record import parse
from queuectl.rules import claimed_files, watched_folder
from queuectl.rules.file_claims import FileClaims
from queuectl.worker import source_files

from support import drain, where_is

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def one(spool_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Watched:
    return Watched(spool_dir, monkeypatch)


def test_what_a_command_writes_beside_a_file_that_is_deleted_is_kept(one: Watched) -> None:
    one.rule("source: delete, companion: '{stem}.ok'")
    for name in ("a", "b"):
        one.drop(f"{name}.ok", "")
        one.drop(f"{name}.pdf")
    jobs = one.go(1)
    for job_id in jobs:
        (one.scans / "delete-when-done" / job_id / "out.txt").write_text("the result")
        one.end(job_id)
    job = parse((one.folder.parent / "done" / f"{jobs[0]}.json").read_bytes())
    source_files.follow(job, "completed", one.said.append)
    # Only its file is deleted: the worker does not know which other one is the companion.
    assert len(one.tree()) == 5
    one.go(60)
    assert one.tree() == ["done/out-2.txt", "done/out.txt"]


def test_no_file_goes_whose_job_has_ended_after_the_disk_was_told_to_keep_the_ends(
    one: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The look was in its middle then. A power cut of the spool's disk could take this end, and the file is on another disk."""
    one.rule("source: move")
    for name in ("a", "b"):
        one.drop(f"{name}.pdf")
    first, second = sorted(one.go(1))
    one.end(first)
    homes, keep = claimed_files.homes, FileClaims._keep_ends
    monkeypatch.setattr(claimed_files, "homes", lambda *where: sorted(homes(*where)))
    monkeypatch.setattr(FileClaims, "_waiting", lambda _: set())
    ended: list[str] = []

    def keep_and_end(claims: FileClaims) -> None:
        keep(claims)
        if not ended:
            ended.append(second)
            one.end(second)

    monkeypatch.setattr(FileClaims, "_keep_ends", keep_and_end)
    one.go(60, look=False)
    one.scheduler.look()
    assert ended == [second]
    assert os.listdir(one.scans / "taken") == [second]
    one.go(60)
    assert os.listdir(one.scans / "taken") == []


@pytest.mark.parametrize("source", ["move", "delete"])
def test_the_disk_has_the_end_of_a_job_before_its_file_goes(
    one: Watched, spool_dir: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    """A power cut could take the end alone. Then the job would run again, and without its file."""
    one.rule(f"source: {source}", job="job: {command: 'test -s {}'}")
    one.drop("a.pdf")
    [job_id] = one.go(1)
    finish, kept = claimed_files.finish, []

    def look(*args: Any) -> None:
        # The claimed file is held for as long as the disk does not have the outcome.
        kept.append(not list(spool_dir.glob(f"data/workers/*.held.*/{job_id}*")))
        finish(*args)

    monkeypatch.setattr(claimed_files, "finish", look)
    drain(spool_dir, now=lambda: one.now)

    assert kept == [True]
    assert where_is(spool_dir, job_id) == ["done"]


@pytest.mark.parametrize("source", ["move", "delete"])
@pytest.mark.parametrize("swapped", ["the folder of the job", "the folder above", "the folder in it", "done"])
def test_a_link_that_somebody_puts_in_the_way_leads_to_no_file_of_the_worker(
    one: Watched, tmp_path: Path, source: str, swapped: str
) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    one.rule(f"source: {source}, recursive: true")
    one.drop("sub/a.pdf")
    [job_id] = one.go(1)
    home = one.scans / claimed_files.FOLDER_OF[source] / job_id
    path = {"the folder of the job": home, "the folder above": home.parent, "the folder in it": home / "sub"}
    target = path.get(swapped)
    if target is None:
        (one.scans / "done").mkdir()
        (one.scans / "done" / "sub").symlink_to(precious)
    else:
        inner = precious / os.path.relpath(home / "sub", target)
        inner.mkdir(parents=True, exist_ok=True)
        (inner / "a.pdf").write_text("mine")
        target.rename(tmp_path / "away")
        target.symlink_to(precious)
    before = sorted(precious.rglob("*"))
    one.end(job_id)
    job = parse((one.folder.parent / "done" / f"{job_id}.json").read_bytes())
    source_files.follow(job, "completed", one.said.append)
    one.go(60)
    assert sorted(precious.rglob("*")) == before


def test_a_folder_that_became_a_link_after_the_look_lends_no_file_of_the_worker(
    one: Watched, tmp_path: Path
) -> None:
    path = one.drop("sub/a.pdf")
    path.parent.rename(tmp_path / "precious")
    path.parent.symlink_to(tmp_path / "precious")
    taken = claimed_files.ClaimedFile(str(one.scans), "taken", "scans.file-x", "sub/a.pdf")
    with pytest.raises(NotADirectoryError):
        claimed_files.take(taken, None)
    assert (tmp_path / "precious" / "a.pdf").exists()


def test_a_file_that_the_same_rule_of_another_spool_has_taken_makes_no_second_job(
    one: Watched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one.rule("source: move")
    one.drop("a.pdf")
    assert len(one.go(1)) == 1
    (tmp_path / "two").mkdir()
    other = Watched(tmp_path / "two" / "spool", monkeypatch)
    other.scans = one.scans
    other.rule("source: move")
    for _ in range(3):
        other.go(60)
        one.go(60)
    assert other.ids() == []
    assert one.tree() == ["taken/ID/a.pdf"]


def test_while_a_job_has_the_unique_key_few_files_are_taken_out_of_the_folder(
    one: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watched_folder, "_AT_ONCE", 2)
    one.rule("source: move", "job: {command: 'cat {}', unique: one at a time}")
    for number in range(5):
        one.drop(f"{number}.pdf")
    one.go(1)
    for _ in range(3):
        one.go(5)
    assert [name for name in one.tree() if name.startswith("taken")] == ["taken/ID/0.pdf", "taken/ID/1.pdf"]
    for _ in range(10):
        one.end_all()
        one.ids()
        one.go(2)  # soon, and not only with the next look at the whole folder
    assert len(one.ids()) == 5
    one.go(60)
    assert one.tree() == [f"done/{number}.pdf" for number in range(5)]
