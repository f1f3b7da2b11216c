"""Permits: kernel locks that keep a limit, whatever becomes of workers."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from queuectl.control.permits import Permit, Permits
from queuectl.system import locks
from queuectl.system.locks import Lock, is_held

import support

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def permits(tmp_path: Path) -> Permits:
    """The permits of an empty spool; the folder is made when it is needed."""
    return Permits(str(tmp_path / "data" / "queues"))


def taken(permits: Permits, limit: int | None = None, **needs: int) -> Permit:
    """Take a permit, and insist on it."""
    permit = permits.take("mail", limit, needs, {"gpu": 2, "memory": 8})
    assert isinstance(permit, Permit)
    return permit


def test_not_more_than_the_limit_are_given(permits: Permits) -> None:
    """The third job of a queue with limit 2 waits, and gets the place that becomes free."""
    first, second = taken(permits, 2), taken(permits, 2)
    assert (first.place, second.place) == (0, 1)
    assert permits.take("mail", 2, {}, {}) == ""
    assert isinstance(permits.take("news", 2, {}, {}), Permit)

    first.release()
    assert taken(permits, 2).place == 0


def test_each_unit_of_a_resource_has_one_job(permits: Permits) -> None:
    """Two jobs that compute on the same GPU at once run out of its memory."""
    first, second = taken(permits, gpu=1), taken(permits, gpu=1)
    assert (first.units, second.units) == ({"gpu": (0,)}, {"gpu": (1,)})
    assert permits.take("mail", None, {"gpu": 1}, {"gpu": 2}) == "gpu"


def test_all_that_is_needed_is_taken_or_nothing(permits: Permits) -> None:
    """A job that keeps one resource while it waits for another would keep it from a job that could run."""
    other = taken(permits, memory=8)
    assert permits.take("mail", 1, {"gpu": 2, "memory": 1}, {"gpu": 2, "memory": 8}) == "memory"

    assert taken(permits, 1, gpu=2).units == {"gpu": (0, 1)}
    other.release()


def test_two_that_need_the_same_things_never_wait_for_each_other(permits: Permits) -> None:
    """Each takes in the same order, and keeps nothing: one of them gets both in the end."""
    both, there = {"a": 1, "b": 1}, {"a": 1, "b": 1}
    ended = []

    def run() -> None:
        for _ in range(200):
            while not isinstance(permit := permits.take("q", None, both, there), Permit):
                assert permit in both
            permit.release()
        ended.append(True)

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert ended == [True] * 3


@pytest.mark.parametrize("resources", [{}, {"gpu": 1}])
def test_what_is_not_there_is_never_given(permits: Permits, resources: dict[str, int]) -> None:
    """A job that needs two GPUs of a machine with one must not start with one."""
    assert permits.take("q", None, {"gpu": 2}, resources) == "gpu"
    assert permits.take("q", None, {"gpu": 1}, {"gpu": 1}) != "gpu"


def test_after_a_lower_limit_none_is_given_until_few_are_left(permits: Permits) -> None:
    """Four run as the limit becomes 2. The fifth job must not start when the first of them ends."""
    four = [taken(permits, 4) for _ in range(4)]
    four.pop(0).release()
    assert permits.take("mail", 2, {}, {}) == ""
    four.pop(0).release()
    assert permits.take("mail", 2, {}, {}) == ""
    four.pop(0).release()
    assert taken(permits, 2).place == 0


def test_files_of_a_lowered_limit_are_asked_for_once(
    permits: Permits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit was 1,000 and is 2. Each claim asked for all the files that were left: 32 ms."""
    for permit in [taken(permits, 60) for _ in range(60)]:
        permit.release()
    taken(permits, 2)
    asked: list[str] = []

    def ask(path: str) -> bool:
        asked.append(path)
        return is_held(path)

    monkeypatch.setattr("queuectl.control.permits.is_held", ask)
    assert taken(permits, 2).place == 1
    assert len(asked) < 6
    assert sorted(os.listdir(tmp_path / "data" / "queues")) == ["mail.0", "mail.1"]


def test_no_file_below_one_that_is_taken_is_deleted(permits: Permits, tmp_path: Path) -> None:
    """Numbers are counted up to the first that has no file: one behind a gap would not be counted."""
    six = [taken(permits, 6) for _ in range(6)]
    for place in (0, 1, 2, 4, 5):
        six[place].release()
    assert taken(permits, 2).place == 0
    assert permits.take("mail", 2, {}, {}) == ""
    assert sorted(os.listdir(tmp_path / "data" / "queues")) == [f"mail.{number}" for number in range(4)]


def test_no_gap_is_left_before_a_file_that_is_made_meanwhile(
    permits: Permits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker with the old limit has seen number 2, and takes number 3 in the instant in which number 2 is deleted."""
    three = [taken(permits, 3) for _ in range(3)]
    for permit in three:
        permit.release()
    unlink, others = os.unlink, []

    def late(path: str) -> None:
        others.append(Lock.acquire(str(tmp_path / "data" / "queues" / "mail.3")))
        unlink(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", late)
        first = taken(permits, 2)
    assert others[0] is not None
    assert permits.take("mail", 2, {}, {}) == ""
    first.release()


def test_a_number_behind_a_gap_is_given_to_nobody(
    permits: Permits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker with the old limit finds number 3 free. Then one with the new limit deletes the files from 2 on."""
    four = [taken(permits, 4) for _ in range(4)]
    four[3].release()
    acquire = permits._acquire

    def late(path: str) -> Lock | None:
        monkeypatch.setattr(permits, "_acquire", acquire)
        for permit in four[:3]:
            permit.release()
        taken(Permits(str(tmp_path / "data" / "queues")), 2)
        return acquire(path)

    monkeypatch.setattr(permits, "_acquire", late)
    assert taken(permits, 4).place == 1
    assert permits.take("mail", 2, {}, {}) == ""


def test_a_file_that_is_deleted_before_it_is_locked_is_no_permit(
    permits: Permits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody else would see that lock. The file was opened, and another worker deleted it then."""
    three = [taken(permits, 3) for _ in range(3)]
    three[2].release()
    take = locks._take

    def late(fd: int) -> bool:
        monkeypatch.setattr(locks, "_take", take)
        os.unlink(tmp_path / "data" / "queues" / "mail.2")
        return take(fd)

    monkeypatch.setattr(locks, "_take", late)
    third = taken(permits, 3)
    assert permits.take("mail", 3, {}, {}) == ""
    third.release()


def test_one_that_was_taken_between_look_and_lock_counts(
    permits: Permits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit is now 2, and the fourth place is still taken: there is room for one. Two workers see that at once."""
    four = [taken(permits, 4) for _ in range(4)]
    for permit in four[:3]:
        permit.release()
    lock = permits._lock
    others: list[Lock | None] = []

    def late(found: Any) -> Permit | None:
        if not others:
            others.append(Lock.acquire(str(tmp_path / "data" / "queues" / "mail.1")))
        return lock(found)

    monkeypatch.setattr(permits, "_lock", late)
    assert permits.take("mail", 2, {}, {}) == ""
    assert others[0] is not None


def test_nothing_is_kept_if_a_part_is_taken_between_look_and_lock(
    permits: Permits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The look said that all of it is free."""
    other = taken(permits, memory=8)
    with monkeypatch.context() as patch:
        patch.setattr("queuectl.control.permits.is_held", lambda _: False)
        assert isinstance(permits.take("q", 1, {"gpu": 2, "memory": 1}, {"gpu": 2, "memory": 8}), str)
    assert taken(permits, 1, gpu=2).units == {"gpu": (0, 1)}
    other.release()


def test_a_killed_holder_gives_back_and_its_job_does_not(permits: Permits, tmp_path: Path) -> None:
    """A worker that is killed frees its permit only when the processes of its job have ended, too."""
    code = f"""import subprocess, sys, time
from queuectl.control.permits import Permits
permit = Permits({str(tmp_path / "data" / "queues")!r}).take("mail", 1, {{}}, {{}})
job = subprocess.Popen(["sleep", "60"], pass_fds=permit.descriptors, stdout=subprocess.DEVNULL)
print(job.pid, flush=True)
time.sleep(60)"""
    worker = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert worker.stdout is not None
    job = int(worker.stdout.readline())
    worker.kill()
    worker.communicate()
    try:
        assert permits.take("mail", 1, {}, {}) == ""
    finally:
        os.kill(job, 9)
    support.wait_until(lambda: isinstance(permits.take("mail", 1, {}, {}), Permit))


def test_what_a_job_leaves_in_the_background_holds_nothing_up(permits: Permits) -> None:
    """A job starts a daemon and ends. Its permit is free, although the daemon has the file open."""
    permit = taken(permits, 1)
    with subprocess.Popen(["sleep", "60"], pass_fds=permit.descriptors) as daemon:
        try:
            permit.release()
            assert taken(permits, 1).place == 0
        finally:
            daemon.kill()
