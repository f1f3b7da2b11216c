"""What one slot, one disk or one bad job of a worker must not do to the runs beside it."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gate
import psutil
import pytest
from gate import STARTED, FullDisk, drop_blocked, names, release, started, worker_in_thread, worker_process

from queuectl import Spool, Worker
from queuectl.control import commands, run_lock
from queuectl.executor.local import LocalRunner
from queuectl.job import times
from queuectl.storage import claim
from queuectl.worker import prefetch, settle_batch

import support
from support import finished, load, wait_until, where_is

if TYPE_CHECKING:
    from queuectl.executor.base import Attempt, Running
    from queuectl.job.outcome import Outcome

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="commands are written for sh")


@pytest.fixture
def home(spool_dir: Path) -> Path:
    return gate.home_with_gate(spool_dir)


def lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_note_of_ended_runs_hides_no_run_that_goes_on(spool_dir: Path, home: Path) -> None:
    """The worker leaves before it could record one job, and is killed while another one is being ended.

    The note took the place of the other run's file: the job was started again beside its first run.
    """
    layout = Spool(spool_dir).layout
    layout.create()
    (spool_dir / "config.yaml").write_text("kill_grace: 30\n")
    deaf = (
        f'trap "" TERM; {STARTED}; echo $$ >> "$HOME/pids"; while [ ! -e "$HOME/over" ]; do sleep 0.05; done'
    )
    support.drop(spool_dir, "deaf", command=deaf, timeout=0, max_retries=1)
    with worker_process(spool_dir, "-j", "3") as process:
        wait_until(lambda: started(home))
        (spool_dir / "done").rmdir()
        (spool_dir / "done").touch()
        support.drop(spool_dir, "ended", command=STARTED, max_retries=1)
        wait_until(lambda: "ended" in started(home))
        commands.request_stop(layout, "worker-0", force=True)
        wait_until(lambda: (runs := run_lock.read_all(layout, "worker-0")) and runs.ended)
        process.kill()
        process.wait()
        (spool_dir / "done").unlink()
        (spool_dir / "done").mkdir(0o700)
        with worker_process(spool_dir, "-j", "3"):
            wait_until(lambda: started(home)["deaf"] == 2 and finished(spool_dir, "ended"))
            first, second = (home / "pids").read_text().split()
            assert lives(int(second))
            assert not lives(int(first))
            (home / "over").touch()
            wait_until(lambda: finished(spool_dir, "deaf"))
    assert [one["outcome"] for one in load(spool_dir / "done" / "deaf.json")["history"]] == [
        "interrupted",
        "succeeded",
    ]
    assert started(home)["ended"] == 1
    assert [one["outcome"] for one in load(spool_dir / "done" / "ended.json")["history"]] == ["succeeded"]


# -- starts that are refused -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["out", "run"])
def test_a_file_in_the_way_of_a_slot_stops_no_other_slot(spool_dir: Path, home: Path, kind: str) -> None:
    """All other slots are used, an end is recorded at once, and the log is not flooded."""
    layout = Spool(spool_dir).layout
    layout.create()
    Path(layout.worker_file("worker-0.1", kind)).mkdir()
    said: list[str] = []
    drop_blocked(spool_dir, *names(3))
    with worker_in_thread(spool_dir, 4, say=said.append):
        wait_until(lambda: len(started(home)) == 3, 5)
        support.drop(spool_dir, "late", command="true", max_retries=1)
        time.sleep(1.2)  # not a wait: so long the last free slot refuses
        release(home, lambda: finished(spool_dir, *names(3)))
        wait_until(lambda: finished(spool_dir, "late"))
    assert 2 <= sum(line.startswith("cannot run") for line in said) <= 8
    assert set(started(home).values()) == {1}


def test_a_refused_start_is_tried_again_once_a_second(spool_dir: Path) -> None:
    """Putting the job back wakes the worker. It was started a thousand times a second."""
    in_the_way = Path(Spool(spool_dir).layout.worker_file("worker-0", "out"))
    said: list[str] = []
    with worker_in_thread(spool_dir, say=said.append):
        wait_until(lambda: Spool(spool_dir).workers())
        in_the_way.mkdir()
        support.drop(spool_dir, "job", command="true", max_retries=1)
        wait_until(lambda: any(line.startswith("cannot run job now") for line in said))
        time.sleep(1.5)  # not a wait: so long it tries
        in_the_way.rmdir()
        wait_until(lambda: finished(spool_dir, "job"))
    assert 2 <= sum(line.startswith("cannot run job now") for line in said) <= 5
    assert [one["outcome"] for one in load(spool_dir / "done" / "job.json")["history"]] == ["succeeded"]


class _Slow(LocalRunner):
    """Each start of a program that does not exist takes as long as on a machine that is busy.

    No output limit of the others is looked at, so only the kernel tells that they have ended.
    """

    def start(self, attempt: Attempt) -> Running | Outcome:
        if attempt.command == ["nosuchprog"]:
            time.sleep(0.01)
        return super().start(support.with_fields(attempt, log_limit=0, timeout=0))


def test_jobs_that_end_in_their_start_hold_up_no_end_of_another(spool_dir: Path) -> None:
    """They take no slot, so the worker went on to the next one without a look at those that run."""
    support.drop(spool_dir, "ends", command="sleep 0.3", max_retries=1, priority=10)
    for name in names(150):
        support.drop(spool_dir, name, command=["nosuchprog"], max_retries=1)

    Worker(spool_dir, drain=True, concurrency=2, runner=_Slow()).run()

    record = load(spool_dir / "done" / "ends.json")
    assert times.parse_moment(record["finished_at"]) - times.parse_moment(record["started_at"]) < 0.8
    assert finished(spool_dir, *names(150))


class _SlowToStart(LocalRunner):
    """Each start takes longer than a short job."""

    def start(self, attempt: Attempt) -> Running | Outcome:
        time.sleep(0.01)
        return super().start(attempt)


def test_jobs_for_which_there_is_a_slot_are_not_put_back(
    spool_dir: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each run that was not over at once put back the jobs for the other slots: each job was claimed five times."""
    put_back: list[object] = []
    real = claim.release

    def noted(*args: Any) -> None:
        put_back.append(args)
        real(*args)

    monkeypatch.setattr(prefetch, "release", noted)
    drop_blocked(spool_dir, *names(40))
    with worker_in_thread(spool_dir, 8, runner=_SlowToStart()):
        wait_until(lambda: len(started(home)) == 8)
        assert put_back == []
        release(home, lambda: finished(spool_dir, *names(40)))


# -- outcomes that are refused -----------------------------------------------------------------------------------------


def test_an_outcome_that_the_disk_refuses_holds_up_no_cancel(
    spool_dir: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was obeyed only when the disk took the outcome of another job."""
    disk = FullDisk(monkeypatch)
    drop_blocked(spool_dir, "long")
    said: list[str] = []
    with worker_in_thread(spool_dir, 3, say=said.append):
        wait_until(lambda: started(home))
        (running,) = support.processes_of(spool_dir)[:1]
        support.drop(spool_dir, "ended", command="true")
        wait_until(lambda: any(line.startswith("cannot record the outcome of ended") for line in said))
        commands.request_cancel(Spool(spool_dir).layout, "worker-0", {"long": 1})
        wait_until(lambda: not lives(running.pid), 5)
        disk.make_room()
        wait_until(lambda: finished(spool_dir, "long", "ended"))
    assert load(spool_dir / "dead" / "long.json")["last_error"] == "Cancelled"


def test_an_outcome_that_the_disk_refuses_holds_up_no_start(
    spool_dir: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of the other jobs are recorded at once, also of those that end together with it. It is tried once a second."""
    disk = FullDisk(monkeypatch, "bad")
    drop_blocked(spool_dir, "bad", *names(4))
    said: list[str] = []
    with worker_in_thread(spool_dir, 5, say=said.append) as worker:
        wait_until(lambda: len(started(home)) == 5)
        release(home, lambda: finished(spool_dir, *names(4)))
        began, tries = time.monotonic(), disk.tries
        for turn in range(20):
            support.drop(spool_dir, f"next{turn}", command="true")
            wait_until(lambda turn=turn: finished(spool_dir, f"next{turn}"))  # type: ignore[misc]
        assert where_is(spool_dir, "bad") == ["processing/worker-0"]
        assert disk.tries - tries <= (time.monotonic() - began) + 2
        wait_until(lambda: disk.tries > tries)
        disk.make_room()
        wait_until(lambda: finished(spool_dir, "bad"))
        assert worker.jobs_run == 25
    assert sum(line.startswith("cannot record") for line in said) == 1
    assert load(spool_dir / "done" / "bad.json")["attempts"] == 1
    assert started(home)["bad"] == 1


def test_on_a_disk_that_takes_no_outcome_no_more_jobs_run_than_there_are_slots(
    spool_dir: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of them would run again if the machine went down. A worker that drains waits, and leaves none unrecorded."""
    monkeypatch.setattr("queuectl.worker.idle.TICK", 0.1)
    disk = FullDisk(monkeypatch)
    for name in names(12):
        support.drop(spool_dir, name, command=STARTED)
    worker = Worker(spool_dir, drain=True, concurrency=4)
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        wait_until(lambda: len(started(home)) == 4)
        tries = disk.tries
        wait_until(lambda: disk.tries > tries + 4)  # it has tried all of them again
        assert len(started(home)) == 4
        assert thread.is_alive()
        wait_until(lambda: len([*(spool_dir / "processing" / "worker-0").glob("*.json")]) == 4)
        disk.make_room()
        thread.join(20)
        assert not thread.is_alive()
    finally:
        worker.stop(force=True)
        thread.join(20)
    assert set(started(home).values()) == {1}
    assert finished(spool_dir, *names(12))


@pytest.mark.parametrize("force", [False, True], ids=["stop", "forced stop"])
def test_a_stop_waits_for_the_disk_and_a_forced_one_does_not(
    spool_dir: Path, home: Path, monkeypatch: pytest.MonkeyPatch, force: bool
) -> None:
    """What has ended does not run again in either case."""
    disk = FullDisk(monkeypatch)
    for name in names(2):
        support.drop(spool_dir, name, command=STARTED, max_retries=1)
    worker = Worker(spool_dir, concurrency=3)
    thread = threading.Thread(target=worker.run)
    thread.start()
    wait_until(lambda: len(started(home)) == 2 and disk.tries)
    worker.stop(force=force)
    thread.join(0 if not force else 10)
    assert thread.is_alive() is not force
    disk.make_room()
    thread.join(20)
    assert not thread.is_alive()
    assert finished(spool_dir, *names(2)) is not force
    support.drain(spool_dir)
    for name in names(2):
        record = load(spool_dir / "done" / f"{name}.json")
        assert [one["outcome"] for one in record["history"]] == ["succeeded"]
    assert set(started(home).values()) == {1}


def test_a_worker_killed_while_the_disk_refuses_makes_no_run_again(spool_dir: Path, home: Path) -> None:
    """Which of them have succeeded is written down when an outcome is refused, and forgotten once it is recorded."""
    layout = Spool(spool_dir).layout
    layout.create()
    with worker_process(spool_dir, "-j", "3") as process:
        wait_until(lambda: Spool(spool_dir).workers())
        (spool_dir / "done").rmdir()
        (spool_dir / "done").touch()
        for name in names(2):
            support.drop(spool_dir, name, command=STARTED, max_retries=1)
        wait_until(lambda: (runs := run_lock.read_all(layout, "worker-0")) and len(runs.ended) == 2)
        process.kill()
        process.wait()
    (spool_dir / "done").unlink()
    (spool_dir / "done").mkdir(0o700)
    support.drain(spool_dir)
    for name in names(2):
        record = load(spool_dir / "done" / f"{name}.json")
        assert [one["outcome"] for one in record["history"]] == ["succeeded"]
    assert set(started(home).values()) == {1}


def test_an_exception_that_ends_the_worker_loses_no_outcome_that_the_disk_refuses(
    spool_dir: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has ended is recorded before the program that embeds it gets the exception."""
    monkeypatch.setattr("queuectl.worker.idle.TICK", 0.05)
    monkeypatch.setattr(settle_batch, "FAULT_PAUSE", 0.05)
    disk = FullDisk(monkeypatch)
    support.drop(spool_dir, "ended", command=STARTED, max_retries=1)
    room = threading.Timer(0.3, disk.make_room)

    def fail() -> bool:
        if disk.tries < 2 or room.ident is not None:
            return False
        room.start()
        raise ZeroDivisionError

    worker = Worker(spool_dir, concurrency=3)
    worker.leave_when(fail)
    with pytest.raises(ZeroDivisionError):
        worker.run()

    assert finished(spool_dir, "ended")
    layout = Spool(spool_dir).layout
    assert not (runs := run_lock.read_all(layout, "worker-0")) or not runs.ended
