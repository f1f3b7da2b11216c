"""Rules that watch a folder, under a clock that the tests set: each file once, and never a half one."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import pytest
from rules.folder_world import Watched

from queuectl.errors import KeyTaken, SpoolFull
from queuectl.rules import job_queueing, watched_folder
from queuectl.system import files, mounts

from support import load

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def one(spool_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Watched:
    return Watched(spool_dir, monkeypatch)


def test_each_file_makes_one_job_with_its_name_filled_in(one: Watched, spool_dir: Path) -> None:
    one.rule()
    path = one.drop("a b.pdf")
    [job_id] = one.go(1)

    job = load(spool_dir / "pending" / f"{job_id}.json")
    assert job_id.startswith("scans.file-")
    assert job["command"] == f"cat '{path}'"
    assert (job["source"], job["rule"], job["cwd"]) == (str(path), "scans", str(one.scans))
    one.go(60)
    one.anew()
    assert one.go(60) == [job_id]


def test_a_job_that_was_queued_and_not_noted_is_found_by_its_id(one: Watched, spool_dir: Path) -> None:
    one.rule()
    one.drop("a.pdf")
    before = one.go(1)
    (spool_dir / "data" / "rules" / "scans.seen").unlink()

    one.anew()
    assert one.go(60) == before


def test_jobs_are_on_the_disk_before_they_have_a_name_in_pending(
    one: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a power cut an empty file under the id of a job would say for ever that the file has been taken."""
    order: list[str] = []

    def watched(name: str) -> None:
        original = getattr(files, name)

        def call(*args: Any, **how: Any) -> Any:
            order.append(name)
            return original(*args, **how)

        monkeypatch.setattr(files, name, call)

    for name in ("sync_files", "sync_filesystem", "publish", "sync_folder"):
        watched(name)
    one.rule()
    for name in "abc":
        one.drop(name)
    assert len(one.go(1)) == 3

    assert [name for name in order if name != "sync_filesystem"] == [
        "sync_files", "publish", "publish", "publish", "sync_folder"
    ]  # fmt: skip


def test_files_of_one_unique_key_are_taken_one_after_the_other(one: Watched) -> None:
    one.rule(job="job: {command: 'cat {}', unique: one}")
    for name in ("a", "b", "c"):
        one.drop(name)
    taken = []
    for _ in range(3):
        [job_id] = one.go(60)
        taken += one.names()
        one.end(job_id)
        (one.folder.parent / "done" / f"{job_id}.json").unlink()
    assert sorted(taken) == ["a", "b", "c"]
    assert one.go(60) == []


def test_a_file_whose_job_was_purged_is_not_taken_again_before_the_list_is_deleted(
    one: Watched, spool_dir: Path
) -> None:
    one.rule()
    one.drop("a.pdf")
    [job_id] = one.go(1)
    one.end(job_id)
    (spool_dir / "done" / f"{job_id}.json").unlink()

    assert one.go(60) == []
    one.anew()
    assert one.go(60) == []
    (spool_dir / "data" / "rules" / "scans.seen").unlink()
    assert one.go(60) == [job_id]


def test_renaming_and_changing_the_mode_make_no_new_job_but_touching_and_replacing_do(one: Watched) -> None:
    one.rule()
    path = one.drop("a.pdf")
    one.go(1)

    path.chmod(0o600)
    path.rename(one.scans / "b.pdf")
    assert len(one.go(60)) == 1
    os.utime(one.scans / "b.pdf", ns=(1, 10**18))
    assert len(one.go(60)) == 2
    one.drop("b.pdf", "another text")
    assert len(one.go(60)) == 3


def test_a_folder_that_is_mounted_again_with_other_inodes_makes_nothing_twice(
    one: Watched, tmp_path: Path
) -> None:
    one.rule()
    for number in range(3):
        one.drop(f"{number}.pdf")
    assert len(one.go(1)) == 3

    one.scans.rename(tmp_path / "away")
    one.scans.mkdir()
    assert len(one.go(60)) == 3
    one.scans.rmdir()
    one.go(60)
    assert any("is not there" in line for line in one.said)
    one.scans.mkdir()
    for path in sorted((tmp_path / "away").iterdir(), reverse=True):
        (one.scans / path.name).write_bytes(path.read_bytes())
        os.utime(one.scans / path.name, ns=(1, path.stat().st_mtime_ns))
    assert len(one.go(60)) == 3


def test_the_list_of_files_forgets_what_is_gone_but_not_what_is_not_mounted(
    one: Watched, spool_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from queuectl.rules import seen_files

    monkeypatch.setattr(seen_files, "_FEW", 4)
    seen = spool_dir / "data" / "rules" / "scans.seen"
    one.rule()
    paths = [one.drop(f"{number}.pdf") for number in range(8)]
    one.go(1)

    one.scans.rename(tmp_path / "away")
    one.scans.mkdir()
    one.go(60)
    one.go(60)
    assert seen.read_text().count(".pdf") == 8
    one.scans.rmdir()
    (tmp_path / "away").rename(one.scans)
    for path in paths[:6]:
        path.unlink()
    one.go(60)
    one.go(60)
    assert seen.read_text().count(".pdf") == 2
    one.anew()
    assert len(one.go(60)) == 8


def real_time(one: Watched) -> None:
    one.now = time.time()


def test_a_file_is_taken_only_after_it_has_been_unchanged_for_the_settle_time(one: Watched) -> None:
    one.rule("settle: 10s")
    real_time(one)
    path = one.drop("a.pdf")
    assert one.go(1, look=False) == []
    one.scheduler.look()
    assert one.ids() == []

    one.now += 8
    one.ticks += 8
    one.scheduler.look()
    assert one.ids() == []
    one.now += 3
    one.ticks += 3
    one.scheduler.look()
    assert len(one.ids()) == 1
    assert path.exists()


def test_where_the_clock_of_the_files_is_wrong_two_looks_decide(one: Watched) -> None:
    """As from a camera whose clock is fast, or after this machine's was set back."""
    one.rule("settle: 10s")
    path = one.drop("a.pdf")
    os.utime(path, (time.time(), one.now + 86400))
    one.scheduler.look()
    one.ticks += 9
    one.scheduler.look()
    assert one.ids() == []
    os.utime(path, (time.time(), one.now + 86401))
    one.ticks += 9
    one.scheduler.look()
    assert one.ids() == []
    one.ticks += 11
    one.scheduler.look()
    assert len(one.ids()) == 1


def test_a_file_that_is_open_for_writing_is_not_taken_however_long_its_writer_pauses(one: Watched) -> None:
    one.rule("settle: 0")
    with (one.scans / "a.pdf").open("w") as file:
        file.write("half")
        file.flush()
        for _ in range(5):
            assert one.go(30) == []
        assert one.scheduler.due_in() > 10  # it is not looked at each second for ever
        file.write("whole")
    assert len(one.go(31)) == 1


def test_an_empty_file_waits_until_it_has_data(one: Watched) -> None:
    one.rule()
    path = one.drop("a.pdf", "")
    assert one.go(3600) == []
    path.write_text("data")
    assert len(one.go(31)) == 1


def test_a_file_waits_for_its_companion_however_long_and_whichever_comes_first(one: Watched) -> None:
    one.rule("companion: '{name}.done'")
    one.drop("a.pdf")
    one.drop("b.pdf.done", "")
    assert one.go(86400) == []
    one.drop("a.pdf.done", "")
    one.go(2)
    assert one.names() == ["a.pdf"]
    one.drop("b.pdf")
    one.go(2)
    assert one.names() == ["a.pdf", "b.pdf"]


def test_links_and_pipes_and_folders_and_names_that_are_no_text_are_left_alone(one: Watched) -> None:
    one.rule("recursive: true")
    (one.scans / "link.pdf").symlink_to("/etc/passwd")
    (one.scans / "linked").symlink_to("/etc")
    (one.scans / ".hidden").mkdir()
    (one.scans / ".hidden" / "a.pdf").write_text("x")
    os.mkfifo(one.scans / "pipe.pdf")
    with open(os.fsencode(one.scans) + b"/\xff.pdf", "w") as file:
        file.write("x")
    one.drop("below/b.pdf")
    os.link(one.drop("c.pdf"), one.scans / "d.pdf")

    one.go(3600)
    assert one.names() == ["b.pdf", "c.pdf"]  # c and d are one file


def test_of_very_many_files_only_so_many_wait_at_once_and_all_are_taken(one: Watched) -> None:
    one.rule("at_most: 5")
    for number in range(12):
        one.drop(f"{number:02}.pdf")
    waited = []
    for _ in range(4):
        one.go(1)
        waited.append(len(os.listdir(one.folder.parent / "pending")))
        one.end_all()
        one.ids()
    assert waited == [5, 5, 2, 0]
    assert len(one.names()) == 12


def test_a_draining_worker_stays_for_the_files_that_at_most_has_left(one: Watched) -> None:
    one.rule("at_most: 2")
    for number in range(5):
        one.drop(f"{number}.pdf")
    assert len(one.go(1)) == 2
    assert not one.scheduler.has_work  # their jobs may be some that it cannot run
    one.end_all()
    one.ids()
    assert one.scheduler.has_work
    assert len(one.go(1)) == 4


def test_a_look_at_a_huge_folder_is_done_in_slices(one: Watched) -> None:
    one.rule("at_most: 1")
    for number in range(300):
        (one.scans / f"{number}.pdf").write_text("x")
    step = iter(range(10**6))
    one.scheduler._monotonic = lambda: 5000 + next(step) * 0.06
    looks = 0
    while not one.ids():
        one.scheduler.look()
        looks += 1
        assert one.scheduler.has_work or one.ids()
    assert looks > 4


def test_a_remote_folder_is_looked_at_at_each_poll_and_decided_by_two_looks(
    one: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mounts, "hanging_points", lambda: {str(one.scans)})
    one.rule("poll: 10s")
    one.go(1)
    one.drop("a.pdf")
    taken = []
    for _ in range(14):
        one.go(1, look=False)
        one.scheduler.look()
        taken.append(len(one.ids()))
    assert taken == [0] * 11 + [1] * 3  # the poll after ten seconds, and two seconds later it is unchanged
    assert one.scheduler.watched == []


def test_a_paused_rule_takes_nothing_and_afterwards_everything(one: Watched) -> None:
    one.rule()
    one.pause("scans")
    one.drop("a.pdf")
    assert one.go(60) == []
    one.resume("scans")
    assert len(one.go(2)) == 1


def test_a_file_waits_while_an_earlier_job_has_its_unique_key(one: Watched) -> None:
    one.rule(job="job: {command: 'cat {}', unique: scans}")
    one.drop("a.pdf")
    one.drop("b.pdf")
    [first] = one.go(1)
    assert one.go(60) == [first]
    one.end(first)
    assert len(one.go(31)) == 2


def test_several_jobs_of_one_file_wait_for_each_other(one: Watched, spool_dir: Path) -> None:
    one.rule(job="jobs: [{id: a, command: 'ocr {}'}, {id: b, command: mail, after: a}]")
    one.drop("a.pdf")
    first, second = one.go(1)
    assert load(spool_dir / "pending" / f"{second}.json")["after"] == [first]
    assert one.go(60) == [first, second]


# -- source: move and delete -------------------------------------------------------------------------------------------


def test_with_move_the_file_follows_its_job(one: Watched) -> None:
    one.rule("source: move, companion: '{name}.ok'")
    for name in ("a.pdf", "b.pdf"):
        one.drop(f"{name}.ok", "")
        one.drop(name)
    one.go(1)
    assert one.tree() == ["taken/ID/a.pdf", "taken/ID/a.pdf.ok", "taken/ID/b.pdf", "taken/ID/b.pdf.ok"]

    by_name = {
        os.path.basename(load(path)["source"]): path.stem
        for path in (one.folder.parent / "pending").iterdir()
    }
    one.end(by_name["a.pdf"])
    one.end(by_name["b.pdf"], "dead")
    one.go(60)
    assert one.tree() == ["done/a.pdf", "done/a.pdf.ok", "failed/ID/b.pdf", "failed/ID/b.pdf.ok"]
    assert sorted(os.listdir(one.scans / "taken")) == []


def test_with_delete_the_file_is_deleted_when_its_job_is_done_and_kept_when_it_is_dead(one: Watched) -> None:
    one.rule("source: delete")
    one.drop("a.pdf")
    [first] = one.go(1)
    one.end(first)
    one.drop("b.pdf")
    one.go(60)
    one.end(next(iter(os.listdir(one.folder.parent / "pending"))).removesuffix(".json"), "dead")
    one.go(60)
    assert one.tree() == ["failed/ID/b.pdf"]


def test_two_files_of_one_name_are_two_jobs_and_both_are_kept(one: Watched) -> None:
    one.rule("source: move, recursive: true")
    one.drop("a.pdf", "one")
    one.drop("sub/a.pdf", "three")
    one.go(1)
    one.drop("a.pdf", "two")
    assert len(one.go(2)) == 3
    one.end_all()
    one.go(60)
    assert one.tree() == ["done/a-2.pdf", "done/a.pdf", "done/sub/a.pdf"]


def test_of_two_files_of_one_name_in_one_second_the_last_is_taken(one: Watched) -> None:
    """Trap 5. With leave the first one was never complete."""
    one.rule()
    real_time(one)
    for text in ("one", "the last"):
        one.drop("a.pdf", text)
        one.scheduler.look()
        one.go(1, look=False)
    one.go(3, look=False)
    one.scheduler.look()
    one.scheduler.look()
    [job_id] = one.ids()
    one.end(job_id)
    one.go(60)
    assert one.ids() == [job_id]
    assert (one.scans / "a.pdf").read_text() == "the last"


def test_a_file_that_was_taken_before_a_crash_is_queued_at_the_next_look(one: Watched) -> None:
    one.rule("source: move")
    one.drop("a.pdf")
    [job_id] = one.go(1)
    (one.folder.parent / "pending" / f"{job_id}.json").unlink()
    (one.folder.parent / "data" / "rules" / "scans.seen").unlink()
    (one.scans / "taken" / "scans.file-emptyfghijklm").mkdir()
    assert one.go(60) == [job_id]
    assert os.listdir(one.scans / "taken") == [job_id]


def test_a_file_whose_job_somebody_deleted_goes_to_failed_and_makes_no_new_job(one: Watched) -> None:
    one.rule("source: move")
    one.drop("a.pdf")
    [job_id] = one.go(1)
    (one.folder.parent / "pending" / f"{job_id}.json").unlink()
    one.go(60)
    one.go(60)
    assert one.tree() == ["failed/ID/a.pdf"]
    assert one.ids() == []


def test_a_file_from_failed_that_is_dropped_again_is_a_new_job(one: Watched) -> None:
    one.rule("source: move")
    one.drop("a.pdf")
    [first] = one.go(1)
    one.end(first, "dead")
    one.go(60)
    (one.scans / "failed" / first / "a.pdf").rename(one.scans / "a.pdf")
    assert len(one.go(60)) == 2


def test_a_link_in_place_of_the_folder_for_taken_files_leads_nothing_away(
    one: Watched, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (one.scans / "taken").symlink_to(tmp_path / "elsewhere")
    one.rule("source: move")
    path = one.drop("a.pdf")
    assert one.go(60) == []
    assert path.exists()
    assert os.listdir(tmp_path / "elsewhere") == []
    assert any("cannot be moved" in line for line in one.said)


def test_a_file_that_is_replaced_while_it_is_taken_is_judged_itself(
    one: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    one.rule("source: move, settle: 0")
    one.drop("a.pdf", "old")
    from queuectl.rules import claimed_files

    take = claimed_files.take
    files: list[Any] = []

    def replace_first(moved: Any, companion: str | None) -> None:
        if not files:
            files.append((one.scans / "a.pdf").open("w"))  # a writer begins just now
        take(moved, companion)

    monkeypatch.setattr(claimed_files, "take", replace_first)
    assert one.go(1) == []
    assert one.tree() == ["a.pdf"]
    files[0].write("new")
    files[0].close()
    assert len(one.go(2)) == 1


@pytest.mark.parametrize("source", ["leave", "move"])
def test_a_file_of_which_no_job_can_be_made_keeps_no_other_one_waiting(one: Watched, source: str) -> None:
    one.rule(f"source: {source}", "job: {command: 'cat {}', unique: '{name}'}")
    one.drop("x" * 240)
    one.drop("b.pdf")
    for _ in range(3):
        one.go(60)
    assert one.names() == ["b.pdf"]
    assert (
        one.tree() == [["b.pdf", "x" * 240], ["failed/ID/" + "x" * 240, "taken/ID/b.pdf"]][source == "move"]
    )


def test_while_jobs_are_refused_no_more_files_are_taken_out_of_the_folder(
    one: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watched_folder, "_AT_ONCE", 2)
    one.rule("source: move")
    finish = job_queueing.FileBatch.finish

    def refuse(batch: job_queueing.FileBatch) -> dict[str, KeyTaken]:
        if batch._jobs:
            raise SpoolFull("the disk is full")
        return {}

    monkeypatch.setattr(job_queueing.FileBatch, "finish", refuse)
    for number in range(6):
        one.drop(f"{number}.pdf")
    for _ in range(12):
        one.go(2, look=False)
        one.scheduler.look()
    assert len([name for name in one.tree() if name.startswith("taken")]) == 2
    assert [line for line in one.said if "full" in line] == ["rule scans: the disk is full"]
    monkeypatch.setattr(job_queueing.FileBatch, "finish", finish)
    for _ in range(4):
        one.go(31)
    assert one.names() == [f"{number}.pdf" for number in range(6)]
