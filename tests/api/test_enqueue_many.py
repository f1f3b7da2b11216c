"""A long list of jobs is written on two cores and queued batch by batch, and nobody can tell but by the clock."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest

import queuectl.api.spool_enqueue
from queuectl import DuplicateId, InvalidJob, Spool, SpoolError
from queuectl.api import listing
from queuectl.system import files, fork

from support import drain, drop

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
FEW = 5


@pytest.fixture(params=[True, False], ids=["two cores", "one core"])
def small_batches(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Batches of five, written by a copy of the process or by the process itself."""
    monkeypatch.setattr(queuectl.api.spool_enqueue, "BATCH", FEW)
    monkeypatch.setattr(fork, "MIN_ITEMS", FEW)
    monkeypatch.setattr(fork, "_can_fork", lambda: request.param)
    return bool(request.param)


def jobs(number: int) -> Iterator[dict[str, Any]]:
    return ({"id": f"j{n}", "command": f"echo {n}"} for n in range(number))


def leftovers(spool_dir: Path) -> list[str]:
    return sorted(path.name for path in (spool_dir / "tmp").iterdir())


def test_who_moves_the_files_of_a_batch_is_not_in_the_way_of_who_writes_the_next(
    small_batches: bool, spool_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel locks the folder in which a file is made, and that out of which one is moved: each batch has its own."""
    folders: list[str] = []
    publish = files.publish

    def note(scratch: str, target: str, **how: bool) -> None:
        folders.append(os.path.dirname(scratch))
        publish(scratch, target, **how)

    monkeypatch.setattr(files, "publish", note)
    Spool(spool_dir).enqueue_many(jobs(2 * FEW + 1))

    assert [folders.count(folder) for folder in dict.fromkeys(folders)] == [FEW, FEW, 1]
    assert folders[-1] == str(spool_dir / "tmp")


def test_the_temporary_names_of_a_batch_are_gone_soon_after_it(small_batches: bool, spool_dir: Path) -> None:
    """The copy that writes a later batch deletes them. A job with two names is not known as ours by a worker."""
    seen: list[int] = []

    def look(_: int) -> None:
        seen.append(len(leftovers(spool_dir)))

    Spool(spool_dir).enqueue_many(jobs(10 * FEW + 1), progress=look)

    assert len(seen) == 11
    assert max(seen) <= 3
    assert leftovers(spool_dir) == []
    assert {path.stat().st_nlink for path in (spool_dir / "pending").iterdir()} == {1}


@pytest.mark.parametrize("end", ["a wrong job", "a taken id", "nobody takes the rest"])
def test_no_temporary_name_is_left_when_a_list_ends_early(
    small_batches: bool, spool_dir: Path, end: str
) -> None:
    """Whatever ends it, and whether the next batch is under way already or not."""
    spool = Spool(spool_dir)
    listed: list[dict[str, Any]] = [*jobs(6 * FEW)]
    if end == "a taken id":
        spool.enqueue("true", id="j17")
    elif end == "a wrong job":
        listed[17] = {"command": "true", "priority": 99}

    stream = spool.enqueue_stream(listed)
    taken = [next(stream) for _ in range(12)]
    if end == "nobody takes the rest":
        del stream
    else:
        with pytest.raises((InvalidJob, DuplicateId)):
            taken.extend(stream)

    assert taken[:12] == [f"j{n}" for n in range(12)]
    assert leftovers(spool_dir) == []
    assert {path.stat().st_nlink for path in (spool_dir / "pending").iterdir()} == {1}


def test_one_by_one_they_are_made_as_in_a_list(spool_dir: Path) -> None:
    """From the 21st on from a template: with the fields of each, and with new settings."""
    spool = Spool(spool_dir)
    made = [spool.enqueue({"command": f"echo {n}", "priority": 1 + n % 3}) for n in range(60)]
    (spool_dir / "config.yaml").write_text("max_retries: 7\n")
    made.append(spool.enqueue("true"))

    assert [(job.command, job.priority) for job in made[:60]] == [(f"echo {n}", 1 + n % 3) for n in range(60)]
    assert [spool.get(job.id).to_bytes() for job in made] == [job.to_bytes() for job in made]
    assert (made[59].max_retries, made[60].max_retries) == (3, 7)


def test_a_forked_process_draws_its_own_ids(spool_dir: Path) -> None:
    """Their random ends are drawn some at a time; two processes with the same ones would refuse each other's jobs."""
    spool = Spool(spool_dir)
    for _ in range(30):
        spool.enqueue("true")
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.write(writing, " ".join(spool.enqueue("true").id for _ in range(40)).encode())
        os._exit(0)
    os.waitpid(child, 0)
    ends = {spool.enqueue("true").id[-8:] for _ in range(40)}  # without the second of their making

    theirs = {job_id[-8:] for job_id in os.read(reading, 10_000).decode().split()}
    os.close(reading)
    os.close(writing)
    assert len(ends) == len(theirs) == 40
    assert not ends & theirs


@pytest.mark.parametrize("number", [0, 1, FEW, FEW + 1, 4 * FEW])
def test_all_are_queued_in_their_order(small_batches: bool, spool_dir: Path, number: int) -> None:
    """Each id is given out once, in the order of the list, and its job is there and runs in that order."""
    spool = Spool(spool_dir)
    ids = spool.enqueue_many(jobs(number))

    assert ids == [f"j{n}" for n in range(number)]
    assert [row.id for row in spool.list()] == ids
    assert leftovers(spool_dir) == []
    drain(spool_dir)
    assert spool.counts()["completed"] == number


def test_what_was_written_by_the_copy_is_known_as_ours(small_batches: bool, spool_dir: Path) -> None:
    """The index tells the files from edited ones: nothing is read twice."""
    spool = Spool(spool_dir)
    spool.refresh()
    spool.enqueue_many(jobs(2 * FEW))
    for row in listing.select(spool):
        status = os.stat(spool_dir / "pending" / row.name)
        assert (row.ours, row.inode, row.mtime, row.size) == (
            1,
            status.st_ino,
            status.st_mtime_ns,
            status.st_size,
        )


def test_a_wrong_job_stops_the_list_and_those_before_it_are_queued(
    small_batches: bool, spool_dir: Path
) -> None:
    """Also when it stands in a batch that is made while the one before is being written."""
    spool = Spool(spool_dir)
    with pytest.raises(InvalidJob, match="priority") as refused:
        spool.enqueue_many([*jobs(FEW + 2), {"command": "x", "priority": 99}, *jobs(1)])

    ids = refused.value.queued
    assert ids == [f"j{n}" for n in range(FEW + 2)]
    assert [row.id for row in spool.list()] == ids
    assert leftovers(spool_dir) == []


def test_a_taken_id_stops_the_list_and_nothing_is_left_behind(small_batches: bool, spool_dir: Path) -> None:
    """What had been written ahead of its turn is deleted again."""
    spool = Spool(spool_dir)
    drop(spool_dir, "j3", command="true")
    with pytest.raises(queuectl.DuplicateId) as refused:
        spool.enqueue_many(jobs(3 * FEW))

    assert refused.value.queued == ["j0", "j1", "j2"]
    assert {row.id for row in spool.list()} == {"j0", "j1", "j2", "j3"}
    assert leftovers(spool_dir) == []


def test_who_stops_asking_leaves_nothing_behind(small_batches: bool, spool_dir: Path) -> None:
    """A list given up half way: what was given out is queued, and no file of the rest stays."""
    asked = Spool(spool_dir).enqueue_stream(jobs(4 * FEW))
    assert next(asked) == "j0"
    asked.close()  # type: ignore[attr-defined]

    assert leftovers(spool_dir) == []
    assert len(Spool(spool_dir).list()) == FEW


def test_what_a_killed_copy_left_half_done_is_done_again(
    spool_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever runs short of memory kills the copy first; its files do not stand in the way."""
    monkeypatch.setattr(queuectl.api.spool_enqueue, "BATCH", FEW)
    monkeypatch.setattr(fork, "MIN_ITEMS", FEW)
    monkeypatch.setattr(fork, "_can_fork", lambda: True)
    here, sync = os.getpid(), files.sync_files

    def sync_or_die(folder: str, paths: list[str]) -> None:
        if os.getpid() != here:
            os.kill(os.getpid(), signal.SIGKILL)
        sync(folder, paths)

    monkeypatch.setattr(files, "sync_files", sync_or_die)

    assert len(Spool(spool_dir).enqueue_many(jobs(2 * FEW))) == 2 * FEW
    assert leftovers(spool_dir) == []
    assert len(Spool(spool_dir).list()) == 2 * FEW


def test_a_disk_that_refuses_is_told_and_queues_nothing(
    small_batches: bool, spool_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error of the copy is met again where it can be told."""

    def refuse(folder: str, paths: list[str]) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(files, "sync_files", refuse)
    with pytest.raises(SpoolError, match="input/output error"):
        Spool(spool_dir).enqueue_many(jobs(2 * FEW))

    assert leftovers(spool_dir) == []
    assert Spool(spool_dir).list() == []


def test_what_a_slow_producer_gave_waits_for_no_more(
    small_batches: bool, spool_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch is queued when it is whole, if the next one will take its time."""
    monkeypatch.setattr(queuectl.api.spool_enqueue, "_SLOW", 0.01)
    spool, seen = Spool(spool_dir), []

    def slow() -> Iterator[dict[str, Any]]:
        for job in jobs(FEW):
            time.sleep(0.01)
            yield job
        seen.append(len(list((spool_dir / "pending").iterdir())))

    spool.enqueue_many(slow())
    assert seen == [FEW]
