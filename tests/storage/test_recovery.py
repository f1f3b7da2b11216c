"""A worker dies with a job in hand: the job runs again, never beside its old run, and nothing else suffers."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from queuectl import Spool, Worker
from queuectl.api import removal
from queuectl.doctor import doctor
from queuectl.errors import StillUnderWay
from queuectl.layout import Layout
from queuectl.storage.locate import BusyWorkers

from support import delete_folder, drop, drop_bytes, finished, load, read_only, wait_until, where_is

if TYPE_CHECKING:
    from collections.abc import Callable

    Cli = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="commands are written for sh, workers are killed"
)

LONG_FIRST = 'if mkdir "$HOME/$QUEUECTL_JOB_ID.ran" 2>/dev/null; then sleep 40; fi; echo over'
"""A command that takes long in its first run and no time in any later one."""


def pids(started: subprocess.CompletedProcess[str]) -> dict[str, int]:
    """The workers that `worker start` named, and their numbers."""
    return {name: int(pid) for name, pid in re.findall(r"\[(worker-\d+)\] started PID=(\d+)", started.stdout)}


def kill(pid: int) -> None:
    """End a worker as the kernel does when memory runs out: nothing of it gets to run."""
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)


def wait_for_start(spool_dir: Path, job_id: str) -> str:
    """Wait until the job's first run is under way; the name of its worker."""
    wait_until((spool_dir.parent / "home" / f"{job_id}.ran").exists)
    [place] = where_is(spool_dir, job_id)
    return place.removeprefix("processing/")


def outcomes(spool_dir: Path, job_id: str) -> list[str]:
    [place] = where_is(spool_dir, job_id)
    record = load(spool_dir / place / f"{job_id}.json")
    return [entry["outcome"] for entry in record.get("history", [])]


@pytest.mark.parametrize("way", ["enqueued", "dropped"])
def test_a_surviving_worker_takes_over(spool_dir: Path, workers: Cli, way: str) -> None:
    """A job whose worker is killed is run again by the other one within two seconds, and is charged nothing."""
    if way == "enqueued":
        Spool(spool_dir).enqueue(LONG_FIRST, id="job1", max_retries=1)
    else:
        drop(spool_dir, "job1", command=LONG_FIRST, max_retries=1)
    team = pids(workers(2))
    victim = wait_for_start(spool_dir, "job1")
    kill(team[victim])
    died = time.monotonic()
    wait_until(lambda: finished(spool_dir, "job1"))
    assert time.monotonic() - died < 3
    record = load(spool_dir / "done" / "job1.json")
    assert (record["attempts"], record["output"]) == (1, "over\n")
    assert [entry["outcome"] for entry in record["history"]] == ["interrupted", "succeeded"]
    assert record["worker"] != victim
    assert not list((spool_dir / "processing").rglob("*.json"))
    assert record["created_at"] > "2020"


@pytest.mark.parametrize("after", [0.0, 1.2])
def test_a_new_worker_takes_over_at_once(spool_dir: Path, workers: Cli, after: float) -> None:
    """With no worker left, the next one that is started runs the job at once, dropped with no fields but a command."""
    drop(spool_dir, "job1", command=LONG_FIRST)
    team = pids(workers(1))
    wait_for_start(spool_dir, "job1")
    time.sleep(after)  # the claimed file is written once more after a moment, and has to say the same
    kill(team["worker-0"])
    assert where_is(spool_dir, "job1") == ["processing/worker-0"]
    workers(1)
    began = time.monotonic()
    wait_until(lambda: finished(spool_dir, "job1"))
    assert time.monotonic() - began < 4  # the next round of maintenance comes after 5 s
    assert outcomes(spool_dir, "job1") == ["interrupted", "succeeded"]


def test_recovery_does_not_wait_for_a_busy_survivor(spool_dir: Path, workers: Cli) -> None:
    """The only other worker is busy with a long job: the dead one's job is back in pending/ all the same."""
    spool = Spool(spool_dir)
    spool.enqueue(LONG_FIRST, id="job1")
    team = pids(workers(1))
    wait_for_start(spool_dir, "job1")
    team |= pids(workers(1))
    spool.enqueue(f"touch {spool_dir}/../busy; sleep 3.5; rm {spool_dir}/../busy", id="long")
    wait_until((spool_dir.parent / "busy").exists)
    kill(team["worker-0"])
    wait_until(lambda: where_is(spool_dir, "job1") == ["pending"], 3)
    assert (spool_dir.parent / "busy").exists()
    assert Spool(spool_dir).counts()["pending"] == 1
    wait_until(lambda: finished(spool_dir, "job1", "long"))


BEAT = 'while :; do echo "$TAG $(date +%s.%N)" >> "$LEDGER"; sleep 0.02; done'
"""What a process of a run does to show that it lives."""

HIDINGS = {
    "plain": BEAT,
    "ignores TERM": f"trap '' TERM; {BEAT}",
    "own session": f"setsid sh -c '{BEAT}' & wait",
    "daemon": f"setsid sh -c '{BEAT}' & sleep 60",
    "no marks": f'exec env -i PATH="$PATH" TAG=$TAG LEDGER="$LEDGER" sh -c \'{BEAT}\'',
    "no marks, ignores TERM": f'exec env -i PATH="$PATH" TAG=$TAG LEDGER="$LEDGER" sh -c \'trap "" TERM; {BEAT}\'',
}


@pytest.mark.parametrize("hiding", HIDINGS)
@pytest.mark.parametrize("survivor", [True, False])
def test_the_old_run_is_over_before_the_new_one_begins(
    spool_dir: Path, workers: Cli, hiding: str, survivor: bool
) -> None:
    """Whatever its processes do to stay alive, a job never runs beside its own earlier run."""
    ledger = spool_dir.parent / "ledger"
    once = spool_dir.parent / "once"
    command = f'export TAG=first; if mkdir {once}; then {HIDINGS[hiding]}; fi; TAG=second; echo "$TAG $(date +%s.%N)" >> "$LEDGER"'
    drop(spool_dir, "job1", command=command, env={"LEDGER": str(ledger)})
    team = pids(workers(2 if survivor else 1))
    wait_until(lambda: ledger.exists() and ledger.read_text().count("\n") > 3)
    kill(team[where_is(spool_dir, "job1")[0].removeprefix("processing/")])
    if not survivor:
        workers(1)
    wait_until(lambda: finished(spool_dir, "job1"), message=lambda: outcomes(spool_dir, "job1"))
    beats = [line.split() for line in ledger.read_text().splitlines()]
    [second] = [float(at) for tag, at in beats if tag == "second"]
    assert max(float(at) for tag, at in beats if tag == "first") < second
    size = ledger.stat().st_size
    time.sleep(0.15)
    assert ledger.stat().st_size == size


def test_a_background_child_of_another_job_is_no_reason_to_wait(spool_dir: Path, workers: Cli) -> None:
    """What an earlier job left running on purpose neither holds up the recovery of a later one, nor is it ended."""
    spool = Spool(spool_dir)
    spool.enqueue("sleep 30 >/dev/null 2>&1 & echo $! > $HOME/child", id="parent")
    team = pids(workers(1))
    wait_until(lambda: finished(spool_dir, "parent"))
    child = psutil.Process(int((spool_dir.parent / "home" / "child").read_text()))
    os.kill(team["worker-0"], signal.SIGSTOP)
    spool.enqueue("true", id="job1")
    # Claimed, and its worker died before the run began: the run lock still is that of the other job.
    (spool_dir / "pending" / "job1.json").rename(spool_dir / "processing" / "worker-0" / "job1.json")
    kill(team["worker-0"])
    workers(1)
    wait_until(lambda: finished(spool_dir, "job1"), 5)
    assert child.is_running()
    child.kill()


def test_a_job_that_kills_its_workers_is_given_up(spool_dir: Path, workers: Cli) -> None:
    """After three deaths in a row the job is dead and says so; the worker that is left runs other jobs."""
    spool = Spool(spool_dir)
    spool.enqueue("kill -9 $PPID; sleep 20", id="killer", priority=10)
    spool.enqueue("true", id="other")
    workers(4)
    wait_until(lambda: finished(spool_dir, "killer", "other"), 20)
    record = load(spool_dir / "dead" / "killer.json")
    assert record["last_error"] == "Its worker died 3 times in a row while running it"
    assert record["attempts"] == 0
    assert [entry["outcome"] for entry in record["history"]] == ["interrupted"] * 3
    assert where_is(spool_dir, "other") == ["done"]
    assert len(Spool(spool_dir).workers()) == 1
    spool.enqueue("true", id="afterwards")
    wait_until(lambda: finished(spool_dir, "afterwards"))


def test_a_job_that_kills_itself_does_not_end_its_worker(spool_dir: Path, workers: Cli) -> None:
    """A job that dies by a signal is a failed attempt and nothing more."""
    Spool(spool_dir).enqueue("kill -9 $$", id="job1", max_retries=1)
    team = pids(workers(1))
    wait_until(lambda: finished(spool_dir, "job1"))
    record = load(spool_dir / "dead" / "job1.json")
    assert record["last_error"] == "Killed by signal 9 (SIGKILL)"
    assert [worker.pid for worker in Spool(spool_dir).workers()] == [team["worker-0"]]


def test_deaths_far_apart_do_not_add_up(spool_dir: Path) -> None:
    """Only deaths in a row count: an attempt between them that failed by itself starts the count anew."""
    two = [{"run": n, "attempt": 1, "outcome": "interrupted"} for n in (1, 2)]
    drop(spool_dir, "job1", command="exit 1", max_retries=2, backoff_base=1, crashes=2, history=two)
    Worker(spool_dir, drain=True).run()
    record = load(spool_dir / "pending" / "job1.json")
    assert record.get("crashes", 0) == 0
    assert record["attempts"] == 1


def abandon(spool_dir: Path, worker: str, job_id: str, **fields: Any) -> Path:
    """A claimed file of a worker that is no more."""
    return drop_bytes(
        spool_dir, f"{job_id}.json", json.dumps({"id": job_id, **fields}).encode(), f"processing/{worker}"
    )


def test_an_unreadable_claim_does_not_stop_the_sweep(spool_dir: Path) -> None:
    """What cannot be read among abandoned claims is set aside with a reason, and all others are freed."""
    for number in range(3):
        abandon(spool_dir, f"worker-{number}", f"good{number}", command="true")
    drop_bytes(spool_dir, "a-torn.json", b'{"command": "tr', "processing/worker-1")
    drop_bytes(spool_dir, "b-empty.json", b"", "processing/worker-1")
    (spool_dir / "processing" / "worker-1" / "c-folder.json").mkdir()
    (spool_dir / "processing" / "worker-1" / "d-link.json").symlink_to("/etc/passwd")
    os.mkfifo(spool_dir / "processing" / "worker-1" / "e-fifo.json")
    abandon(spool_dir, "worker-1", "f-odd", command="true", history="none")
    abandon(spool_dir, "some one", "stranger", command="true")
    (spool_dir / "processing" / "no-folder").write_text("a file where folders are")
    Worker(spool_dir, drain=True).run()
    assert finished(spool_dir, "good0", "good1", "good2", "stranger")
    assert not list((spool_dir / "processing").rglob("*.json"))
    for name in ("a-torn", "b-empty", "c-folder", "d-link", "e-fifo", "f-odd"):
        assert os.path.lexists(spool_dir / "dead" / f"{name}.json")
        assert (spool_dir / "dead" / f"{name}.json.reason").read_text().strip()
    assert (spool_dir / "dead" / "a-torn.json").read_bytes() == b'{"command": "tr'
    assert Spool(spool_dir).counts() == {
        "pending": 0,
        "processing": 0,
        "completed": 4,
        "failed": 0,
        "dead": 6,
    }


@pytest.mark.parametrize("by", ["a worker", "doctor", "cancel", "forget"])
def test_nobody_takes_back_the_jobs_of_an_engine(
    spool_dir: Path, by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dispatcher is dead, its jobs run on the cluster: whoever put them back would have them run twice."""
    spool = Spool(spool_dir)
    spool.enqueue("true", id="mine")
    abandon(spool_dir, "slurm", "there", command="true", created_at=1700000000)
    abandon(spool_dir, "worker-3", "here", command="true", created_at=1700000000)
    settled = {"command": "true", "created_at": 1700000000, "state": "completed", "exit_code": 0}
    run = [{"run": 1, "attempt": 1, "worker": "slurm/n1", "outcome": "succeeded"}]
    drop_bytes(spool_dir, "over.json", json.dumps({"id": "over", **settled, "history": run}).encode(), "done")
    abandon(spool_dir, "slurm", "over", command="true", created_at=1700000000)
    before = {path: path.read_bytes() for path in (spool_dir / "processing" / "slurm").iterdir()}

    if by == "a worker":
        Worker(spool_dir, drain=True).run()
        assert finished(spool_dir, "mine", "here")
    elif by == "doctor":
        left = doctor.repair(Layout(spool_dir))
        found = {one.kind: one for one in left}
        assert set(found) == {"no dispatcher", "twin"}
        assert "processing/slurm holds 2 jobs" in found["no dispatcher"].fact
        assert found["twin"].cure == "wait until slurm has ended it"
        assert where_is(spool_dir, "here") == ["pending"]
    elif by == "cancel":
        answers = spool.cancel_many(["there", "here"], timeout=0.6)
        assert answers["here"] == "cancelled"
        assert answers["there"] != "cancelled"
    else:
        monkeypatch.setattr(removal, "_PATIENCE", 0.2)
        with pytest.raises(StillUnderWay, match="over"):
            spool.forget("over")

    assert {path: path.read_bytes() for path in (spool_dir / "processing" / "slurm").iterdir()} == before
    assert "slurm" not in BusyWorkers(Layout(spool_dir)).names(time.time() + 60)


LATER: dict[str, dict[str, Any]] = {
    "done": {"state": "completed", "attempts": 1, "exit_code": 0},
    "dead": {"state": "dead", "attempts": 1, "exit_code": 3, "last_error": "Exit code 3"},
    "pending": {"state": "failed", "attempts": 1, "next_retry_at": 4102444800},
    "processing/worker-5": {"state": "processing", "attempts": 1},
}


@pytest.mark.parametrize("place", ["done", "dead"])
def test_a_copy_is_void_whatever_name_the_outcome_got(spool_dir: Path, place: str) -> None:
    """A stranger's file had the job's own name, so the outcome went beside it."""
    fields = {"command": f"touch {spool_dir.parent}/again", "created_at": 1700000000, "max_retries": 3}
    run = [{"run": 1, "attempt": 1, "worker": "worker-0", "outcome": "failed", "exit_code": 3}]
    drop_bytes(spool_dir, "job1.json", b'{"command": "true", "run_at": 4102444800}', place)
    later = json.dumps({"id": "job1", **fields, **LATER[place], "history": run}).encode()
    path = drop_bytes(spool_dir, "job1-2.json", later, place)
    abandon(spool_dir, "worker-0", "job1", **fields)
    Worker(spool_dir, drain=True).run()

    assert not (spool_dir.parent / "again").exists()
    assert not list((spool_dir / "processing").rglob("*.json"))
    assert path.read_bytes() == later


@pytest.mark.parametrize("place", LATER)
def test_a_copy_left_by_a_crash_is_void(spool_dir: Path, place: str) -> None:
    """A worker died between the rename that settled a job and its tidying: the later state stands, nothing runs."""
    fields = {"command": f"touch {spool_dir.parent}/again", "created_at": 1700000000, "max_retries": 3}
    run = [{"run": 1, "attempt": 1, "worker": "worker-0", "outcome": "failed", "exit_code": 3}]
    later = json.dumps({"id": "job1", **fields, **LATER[place], "history": run}).encode()
    path = drop_bytes(spool_dir, "job1.json", later, place)
    abandon(spool_dir, "worker-0", "job1", **fields)
    counts = Spool(spool_dir).counts()
    assert sum(counts.values()) == 1
    if place.startswith("processing"):
        # The later copy is abandoned as well: one run is due, not two.
        Worker(spool_dir, drain=True).run()
        assert where_is(spool_dir, "job1") == ["done"]
        assert outcomes(spool_dir, "job1") == ["failed", "interrupted", "succeeded"]
        return
    Worker(spool_dir, drain=True).run()
    assert where_is(spool_dir, "job1") == [place]
    assert path.read_bytes() == later
    assert not (spool_dir.parent / "again").exists()
    assert Spool(spool_dir).counts() == counts


@pytest.mark.parametrize("was_left_out", [False, True])
def test_a_copy_of_a_job_that_was_completed_without_a_run_is_void(
    spool_dir: Path, was_left_out: bool
) -> None:
    """Both copies have the same runs. It was put back, and completed once more, beside itself."""
    fields = {"command": "false", "created_at": 1700000000, "after_failure": ["good"]}
    over = {"state": "completed", "not_run": "job good succeeded", "updated_at": 1700000100}
    drop_bytes(spool_dir, "good.json", b'{"command": "true", "state": "completed"}', "done")
    drop_bytes(spool_dir, "job1.json", json.dumps({"id": "job1", **fields, **over}).encode(), "done")
    abandon(
        spool_dir,
        "worker-0",
        "job1",
        **fields,
        **({**over, "updated_at": 1700000050} if was_left_out else {}),
    )

    Worker(spool_dir, drain=True).run()

    assert where_is(spool_dir, "job1") == ["done"]
    assert [path.name for path in spool_dir.rglob("job1*.json")] == ["job1.json"]


@pytest.mark.parametrize("was_retried", [False, True])
def test_a_copy_of_a_job_that_was_buried_without_a_run_is_void(spool_dir: Path, was_retried: bool) -> None:
    """It was cancelled before it began. It was put back, and ran all the same. One that was retried since then must run."""
    fields = {"command": f"touch {spool_dir.parent}/ran", "created_at": 1700000000}
    dead = {"id": "job1", **fields, "state": "dead", "last_error": "Cancelled", "updated_at": 1700000100}
    drop_bytes(spool_dir, "job1.json", json.dumps(dead).encode(), "dead")
    abandon(spool_dir, "worker-0", "job1", **fields, updated_at=1700000200 if was_retried else 1700000000)

    Worker(spool_dir, drain=True).run()

    assert (spool_dir.parent / "ran").exists() == was_retried
    if not was_retried:
        assert [path.parent.name for path in spool_dir.rglob("job1*.json")] == ["dead"]


@pytest.mark.parametrize("place", ["done", "dead", "pending"])
@pytest.mark.parametrize("knows", ["nothing", "another past"])
def test_a_foreign_file_of_the_same_id_frees_nothing(spool_dir: Path, place: str, knows: str) -> None:
    """A stranger's file that happens to have the id of a claimed job does not make that job vanish."""
    past = [{"run": 1, "attempt": 1, "outcome": "succeeded"}] if knows == "another past" else []
    foreign = json.dumps({"id": "job1", "command": "echo foreign", "history": past}).encode()
    drop_bytes(spool_dir, "job1.json", foreign, place)
    abandon(spool_dir, "worker-0", "job1", command=f"touch {spool_dir.parent}/ran", created_at=1700000000)
    for _ in range(2):
        Worker(spool_dir, drain=True).run()
    assert (spool_dir.parent / "ran").exists()
    assert not list((spool_dir / "processing").rglob("*.json"))
    everything = [
        load(path) for folder in ("done", "dead", "pending") for path in (spool_dir / folder).glob("*.json")
    ]
    assert sorted(record["command"].split()[0] for record in everything) == ["echo", "touch"]


def test_a_stopped_worker_is_not_a_dead_one(spool_dir: Path, workers: Cli) -> None:
    """A worker that is stopped for longer than any rescan keeps its job: it lives, whatever the clock says."""
    Spool(spool_dir).enqueue('mkdir "$HOME/job1.ran"; sleep 0.5', id="job1")
    team = pids(workers(2))
    owner = wait_for_start(spool_dir, "job1")
    os.kill(team[owner], signal.SIGSTOP)
    try:
        time.sleep(2.5)
        assert where_is(spool_dir, "job1") == [f"processing/{owner}"]
        assert Spool(spool_dir).counts()["processing"] == 1
    finally:
        os.kill(team[owner], signal.SIGCONT)
    wait_until(lambda: finished(spool_dir, "job1"))
    assert outcomes(spool_dir, "job1") == ["succeeded"]


@pytest.mark.parametrize("late", ["succeeded", "failed"])
def test_a_late_result_changes_nothing(spool_dir: Path, workers: Cli, late: str) -> None:
    """A job taken from a stopped worker by hand and run by another: the first one's result comes too late."""
    end = "exit 0" if late == "succeeded" else "exit 3"
    command = f'if mkdir "$HOME/job1.ran"; then while [ ! -e "$HOME/go" ]; do sleep 0.05; done; {end}; fi; echo second'
    Spool(spool_dir).enqueue(command, id="job1")
    team = pids(workers(2))
    owner = wait_for_start(spool_dir, "job1")
    os.kill(team[owner], signal.SIGSTOP)
    try:
        (spool_dir / "processing" / owner / "job1.json").rename(spool_dir / "pending" / "job1.json")
        wait_until(lambda: where_is(spool_dir, "job1") == ["done"])
        before = (spool_dir / "done" / "job1.json").read_bytes()
        (spool_dir.parent / "home" / "go").touch()
    finally:
        os.kill(team[owner], signal.SIGCONT)
    wait_until(lambda: all(worker.job_id is None for worker in Spool(spool_dir).workers()))
    Spool(spool_dir).enqueue("true", id="next1")
    Spool(spool_dir).enqueue("true", id="next2")
    log = spool_dir / "data" / "workers" / f"{owner}.log"
    wait_until(lambda: "job1 was taken away" in log.read_text(), message=log.read_text)
    wait_until(lambda: finished(spool_dir, "next1", "next2"))
    assert where_is(spool_dir, "job1") == ["done"]
    assert (spool_dir / "done" / "job1.json").read_bytes() == before
    assert not list((spool_dir / "pending").iterdir())
    assert not list((spool_dir / "dead").iterdir())
    assert len(list((spool_dir / "done").iterdir())) == 3


def test_a_dead_worker_is_not_counted_and_not_waited_for(spool_dir: Path, cli: Cli, workers: Cli) -> None:
    """One of two workers is killed: one is listed, and `worker stop` is done as soon as that one is gone."""
    team = pids(workers(2))
    kill(team["worker-0"])
    assert [worker.name for worker in Spool(spool_dir).workers()] == ["worker-1"]
    began = time.monotonic()
    assert cli("worker", "stop", expect=0).stdout == "Stopped 1 worker(s)\n"
    assert time.monotonic() - began < 3


def test_deleting_all_machinery_disturbs_no_running_job(spool_dir: Path, cli: Cli, workers: Cli) -> None:
    """data/ is deleted while workers are busy: no job is taken from them, and they are listed and stopped as before."""
    command = 'echo >> "$HOME/ran"; touch "$HOME/$QUEUECTL_JOB_ID.ran"; while [ ! -e "$HOME/go" ]; do sleep 0.05; done'
    for number in range(2):
        Spool(spool_dir).enqueue(command, id=f"job{number}", timeout=0)
    team = pids(workers(3))
    wait_for_start(spool_dir, "job0")
    wait_for_start(spool_dir, "job1")
    delete_folder(spool_dir / "data")
    newcomer = pids(workers(1))
    wait_until(
        lambda: {worker.pid for worker in Spool(spool_dir).workers()} == {*team.values(), *newcomer.values()}
    )
    time.sleep(1.2)
    assert Spool(spool_dir).counts()["processing"] == 2
    (spool_dir.parent / "home" / "go").touch()
    wait_until(lambda: finished(spool_dir, "job0", "job1"))
    assert [outcomes(spool_dir, f"job{number}") for number in range(2)] == [["succeeded"]] * 2
    assert cli("worker", "stop", expect=0).stdout == "Stopped 4 worker(s)\n"


def test_a_crash_at_the_head_of_the_line_holds_up_nobody(spool_dir: Path, workers: Cli) -> None:
    """The most urgent job loses its worker: the lower ones run, and it runs again, with one worker for all."""
    spool = Spool(spool_dir)
    spool.enqueue(LONG_FIRST, id="first", priority=10)
    ids = [spool.enqueue("true", priority=1).id or "" for _ in range(5)]
    team = pids(workers(1))
    wait_for_start(spool_dir, "first")
    kill(team["worker-0"])
    workers(1)
    wait_until(lambda: finished(spool_dir, "first", *ids))
    assert where_is(spool_dir, "first") == ["done"]


def test_a_claim_that_could_not_be_freed_at_first_is_freed_later(spool_dir: Path, workers: Cli) -> None:
    """A worker that finds its own name's old claim while the disk refuses frees it when the disk is well again."""
    abandon(spool_dir, "worker-0", "job1", command="true")
    code = (
        "import sys; from queuectl import Worker; from queuectl.control import mounts\n"
        "mounts.obstacles = lambda _: ()  # the disk refuses from just after this check on\n"
        "Worker(sys.argv[1], drain=False, say=print).run()"
    )
    with read_only(spool_dir / "tmp"):
        worker = subprocess.Popen(
            [sys.executable, "-u", "-c", code, str(spool_dir)], stdout=subprocess.PIPE, text=True
        )
        assert worker.stdout
        assert "cannot take back job1" in worker.stdout.readline()
    try:
        wait_until(lambda: finished(spool_dir, "job1"), 6)
    finally:
        worker.kill()
        worker.communicate()


def test_a_worker_with_one_short_job_after_another_still_takes_back(spool_dir: Path, workers: Cli) -> None:
    """What is looked at once a second is not put off by each job that begins."""
    door = Spool(spool_dir)
    door.enqueue_many({"command": "true", "priority": 10} for _ in range(3000))
    workers(1)
    # The look of a worker's start is over by then.
    wait_until(lambda: len(list((spool_dir / "done").iterdir())) > 50)
    left = spool_dir / "processing" / "worker-7"
    left.mkdir(mode=0o700)
    (left / "victim.json").write_text('{"command": "true", "priority": 1}')
    wait_until(lambda: not (left / "victim.json").exists(), timeout=30)

    assert len(list((spool_dir / "pending").iterdir())) > 1, "the queue was empty by then"


def test_an_empty_folder_counts_again_once_it_changes(spool_dir: Path) -> None:
    """A worker's folder that was found empty is looked into again as soon as its time is another."""
    layout = Layout(spool_dir)
    layout.create()
    folder = Path(layout.claims("worker-3"))
    folder.mkdir()
    glance = BusyWorkers(layout)
    later = os.stat(folder).st_mtime + 60
    assert glance.names(later) == []
    assert glance.names(later) == []

    (folder / "job.json").write_text("{}")

    assert glance.names(later) == ["worker-3"]


def test_a_folder_that_has_just_changed_is_not_taken_for_empty(spool_dir: Path) -> None:
    """Within a tick of a coarse clock a second change leaves the same time: only an old time vouches for a folder."""
    layout = Layout(spool_dir)
    layout.create()
    folder = Path(layout.claims("worker-3"))
    folder.mkdir()
    glance = BusyWorkers(layout)
    status = os.stat(folder)
    assert glance.names(status.st_mtime + 0.001) == []

    (folder / "job.json").write_text("{}")
    os.utime(folder, ns=(status.st_atime_ns, status.st_mtime_ns))

    assert glance.names(status.st_mtime + 0.002) == ["worker-3"]
