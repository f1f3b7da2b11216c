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
from gate import STARTED, drop_blocked, names, release, started, worker_in_thread, worker_process

from queuectl import Spool, Worker
from queuectl.control import commands, run_lock
from queuectl.executor.local import LocalRunner
from queuectl.job import times
from queuectl.storage import claim
from queuectl.storage import settle as settling
from queuectl.worker import prefetch, settle_batch

import support
from support import finished, load, wait_until

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
    refused = threading.Event()
    real = settling.settle_all

    def refuse(*args: Any, **options: Any) -> Any:
        if not refused.is_set():
            raise OSError(28, "no space left on device")
        return real(*args, **options)

    monkeypatch.setattr(settle_batch, "settle_all", refuse)
    drop_blocked(spool_dir, "long")
    said: list[str] = []
    with worker_in_thread(spool_dir, 3, say=said.append):
        wait_until(lambda: started(home))
        (running,) = support.processes_of(spool_dir)[:1]
        support.drop(spool_dir, "ended", command="true")
        wait_until(lambda: any(line.startswith("cannot record the outcome of ended") for line in said))
        commands.request_cancel(Spool(spool_dir).layout, "worker-0", {"long": 1})
        wait_until(lambda: not lives(running.pid), 5)
        refused.set()
        wait_until(lambda: finished(spool_dir, "long", "ended"))
    assert load(spool_dir / "dead" / "long.json")["last_error"] == "Cancelled"
