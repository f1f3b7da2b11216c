"""One worker that runs several jobs at once keeps for each of them what it promises for one."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING

import gate
import psutil
import pytest
from gate import (
    BLOCKED,
    STARTED,
    FullDisk,
    drop_blocked,
    names,
    release,
    started,
    worker_in_thread,
    worker_process,
)

from queuectl import Spool, Worker
from queuectl.control import run_lock
from queuectl.job import times
from queuectl.job.record import Job
from queuectl.layout import Layout
from queuectl.worker.scan_scheduler import ScanScheduler

import support
from support import finished, load, wait_until, where_is

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Cli = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="commands are written for sh")


@pytest.fixture
def home(spool_dir: Path) -> Path:
    return gate.home_with_gate(spool_dir)


# -- several at once ---------------------------------------------------------------------------------------------------


def test_as_many_run_at_once_as_wanted_and_no_more(spool_dir: Path, home: Path) -> None:
    """Each in a slot of its own, whose number it knows; `worker list` has all of them."""
    slot = 'echo $QUEUECTL_SLOT > "$HOME/$QUEUECTL_JOB_ID.slot"'
    for name in names(7):
        support.drop(spool_dir, name, command=f"{slot}; {BLOCKED}", timeout=0)
    with worker_in_thread(spool_dir, 5):
        wait_until(lambda: len(started(home)) == 5)
        (info,) = Spool(spool_dir).workers()
        assert (len(info.jobs), info.concurrency) == (5, 5)
        assert {job.id for job in info.jobs} == set(started(home))
        assert all(job.since for job in info.jobs)
        assert Counter(path.read_text() for path in home.glob("*.slot")) == {f"{n}\n": 1 for n in range(5)}
        assert sum(where_is(spool_dir, name) == ["processing/worker-0"] for name in names(7)) == 5


def test_a_slot_that_is_free_gets_a_drop_at_once(spool_dir: Path, home: Path) -> None:
    """While the other runs go on, and nobody waits for the next second."""
    drop_blocked(spool_dir, *names(3))
    with worker_in_thread(spool_dir, 4):
        wait_until(lambda: len(started(home)) == 3)
        for turn in range(5):
            began = time.monotonic()
            support.drop(spool_dir, f"quick{turn}", command="true")
            wait_until(lambda turn=turn: finished(spool_dir, f"quick{turn}"))  # type: ignore[misc]
            assert time.monotonic() - began < 0.9
        assert len(started(home)) == 3


def test_no_job_gets_the_output_of_another_from_its_slot(spool_dir: Path) -> None:
    """Those that print much, little or nothing follow one another in the same slots."""
    for place in range(60):
        command = ("true", f"echo out{place}", f"echo err{place} >&2; exit 1")[place % 3]
        support.drop(spool_dir, f"job{place}", command=command, max_retries=1)

    Worker(spool_dir, drain=True, concurrency=8).run()

    for place in range(60):
        record = load(spool_dir / ("dead" if place % 3 == 2 else "done") / f"job{place}.json")
        assert record["output"] == ("", f"out{place}\n", f"err{place}\n")[place % 3], place
        assert len(record["history"]) == 1


def test_all_that_end_in_one_instant_are_recorded(spool_dir: Path, home: Path) -> None:
    """None is lost, none runs twice, and the slots take the next ones."""
    drop_blocked(spool_dir, *names(40))
    with worker_in_thread(spool_dir, 40):
        wait_until(lambda: len(started(home)) == 40)
        drop_blocked(spool_dir, "after")
        release(home, lambda: finished(spool_dir, *names(40)))
        wait_until(lambda: sum(started(home).values()) >= 41)  # a file is there before its line
    assert set(started(home).values()) == {1}


def test_two_jobs_with_one_key_never_run_side_by_side_in_one_worker(spool_dir: Path) -> None:
    """The key counts across slots."""
    spool = Spool(spool_dir)
    for place in range(6):
        command = 'mkdir "$HOME/alone" && sleep 0.1 && rmdir "$HOME/alone"'
        spool.enqueue(command, id=f"job{place}", unique="one", if_exists="queue", max_retries=1)

    Worker(spool_dir, drain=True, concurrency=6).run()

    assert spool.counts()["completed"] == 6


# -- timeouts, cancels, stops ------------------------------------------------------------------------------------------


def test_a_timeout_and_a_cancel_among_many_hit_only_their_job(spool_dir: Path, home: Path) -> None:
    drop_blocked(spool_dir, *names(12))
    support.drop(spool_dir, "short", command=BLOCKED, timeout=1, max_retries=1)
    with worker_process(spool_dir, "-j", "20"):
        wait_until(lambda: len(started(home)) == 13)
        assert Spool(spool_dir).cancel("job7") == "cancelled"
        wait_until(lambda: finished(spool_dir, "short"))
        assert load(spool_dir / "dead" / "short.json")["duration"] < 3
        assert {name for name in names(12) if where_is(spool_dir, name) == ["dead"]} == {"job7"}


def test_a_forced_stop_ends_all_trees_together(spool_dir: Path, home: Path) -> None:
    """Each is deaf to TERM. One after the other they would take a grace time each."""
    Spool(spool_dir).layout.create()
    (spool_dir / "config.yaml").write_text("kill_grace: 1\n")
    for name in names(15):
        support.drop(spool_dir, name, command=f'trap "" TERM; {BLOCKED}; sleep 60', timeout=0)
    with worker_process(spool_dir, "-j", "15") as process:
        wait_until(lambda: len(started(home)) == 15)
        began = time.monotonic()
        support.run_cli("worker", "stop", "--force", expect=0)
        process.wait(20)
        assert time.monotonic() - began < 8
    assert {tuple(where_is(spool_dir, name)) for name in names(15)} == {("pending",)}
    record = load(spool_dir / "pending" / "job3.json")
    assert [entry["outcome"] for entry in record["history"]] == ["stopped"]
    assert record["attempts"] == 0


def test_a_stop_waits_for_all_runs_and_names_one_that_goes_on(spool_dir: Path, home: Path, cli: Cli) -> None:
    drop_blocked(spool_dir, *names(3))
    support.drop(spool_dir, "quick", command=f"{STARTED}; sleep 0.5")
    with worker_process(spool_dir, "-j", "8") as process:
        wait_until(lambda: len(started(home)) == 4)
        told = cli("worker", "stop", "--timeout", "1", expect=1).stderr
        assert re.search(r"worker-0 \(3/8 jobs, the oldest: job[012] ", told), told
        assert finished(spool_dir, "quick")
        support.drop(spool_dir, "late", command="true")
        release(home, lambda: process.poll() is not None)
        assert process.wait(20) == 0
    assert finished(spool_dir, *names(3))
    assert where_is(spool_dir, "late") == ["pending"]


def test_fewer_jobs_at_once_end_none_that_runs(spool_dir: Path, home: Path, cli: Cli) -> None:
    """The setting is followed within a second, up and down."""
    cli("config", "set", "concurrency", "4", expect=0)
    drop_blocked(spool_dir, *names(8))
    with worker_process(spool_dir):
        wait_until(lambda: len(started(home)) == 4)
        cli("config", "set", "concurrency", "6", expect=0)
        wait_until(lambda: len(started(home)) == 6)
        cli("config", "set", "concurrency", "1", expect=0)
        wait_until(lambda: Spool(spool_dir).workers()[0].concurrency == 1)
        first = set(started(home))
        assert len(Spool(spool_dir).workers()[0].jobs) == 6
        release(home, lambda: finished(spool_dir, *names(8)))
    one, other = sorted(
        (record["started_at"], record["finished_at"])
        for name in set(names(8)) - first
        if (record := load(spool_dir / "done" / f"{name}.json"))
    )
    assert one[1] <= other[0]
    assert set(started(home).values()) == {1}


def test_a_worker_with_more_runs_than_it_may_have_claims_no_job(
    spool_dir: Path, home: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One was claimed in the transaction that recorded an end: it waited for a slot, and no idle worker could take it."""
    monkeypatch.setattr(ScanScheduler, "is_up_to_date", lambda _: True)
    cli("config", "set", "concurrency", "4", expect=0)
    for name in names(4):
        support.drop(spool_dir, name, command=f'{STARTED}; cat "$HOME/{name}.gate"', timeout=0)
        os.mkfifo(home / f"{name}.gate")
    support.drop(spool_dir, "late", command="true", priority=1)
    with worker_in_thread(spool_dir):
        wait_until(lambda: len(started(home)) == 4)
        cli("config", "set", "concurrency", "1", expect=0)
        wait_until(lambda: Spool(spool_dir).workers()[0].concurrency == 1)
        for left, name in zip((3, 2, 1), names(4), strict=False):
            (home / f"{name}.gate").write_text("")
            wait_until(lambda name=name: finished(spool_dir, name))  # type: ignore[misc]
            assert len(list((spool_dir / "processing" / "worker-0").glob("job*.json"))) == left
            assert where_is(spool_dir, "late") == ["pending"]
        (home / "job3.gate").write_text("")
        wait_until(lambda: finished(spool_dir, "late"))


def test_a_pause_lets_runs_end_and_starts_none_in_a_free_slot(spool_dir: Path, home: Path) -> None:
    drop_blocked(spool_dir, *names(2))
    with worker_process(spool_dir, "-j", "4"):
        wait_until(lambda: len(started(home)) == 2)
        assert Spool(spool_dir).pause(patience=15) == []
        support.drop(spool_dir, "late", command="true")
        release(home, lambda: finished(spool_dir, *names(2)))
        assert where_is(spool_dir, "late") == ["pending"]
        Spool(spool_dir).resume()
        wait_until(lambda: finished(spool_dir, "late"))


def test_a_drain_ends_when_the_last_slot_is_empty(spool_dir: Path) -> None:
    for place in range(30):
        support.drop(
            spool_dir, f"job{place}", command=f"sleep 0.0{place % 10}; exit {place % 2}", max_retries=1
        )

    Worker(spool_dir, drain=True, concurrency=7).run()

    counts = Spool(spool_dir).counts()
    assert (counts["completed"], counts["dead"]) == (15, 15)


# -- what goes wrong ---------------------------------------------------------------------------------------------------


def test_after_the_workers_death_each_job_runs_once_more_alone(spool_dir: Path, home: Path) -> None:
    """Those that ran are noted as crashed, those that had not begun are not; no attempt is charged."""
    drop_blocked(spool_dir, *names(12), max_retries=2)
    with worker_process(spool_dir, "-j", "9") as process:
        wait_until(lambda: len(started(home)) == 9)
        first = set(started(home))
        process.kill()
        process.wait()
        running = support.processes_of(spool_dir)
        with worker_process(spool_dir, "-j", "20"):
            wait_until(lambda: sum(started(home).values()) == 9 + 12, 30)
            assert not any(one.is_running() and one.status() != "zombie" for one in running)
            release(home, lambda: finished(spool_dir, *names(12)))
    for name in names(12):
        record = load(spool_dir / "done" / f"{name}.json")
        assert started(home)[name] == 1 + (name in first)
        assert record["attempts"] == 1
        assert [entry["outcome"] for entry in record["history"]][:-1] == ["interrupted"] * (name in first)
        assert name not in first or record["history"][0]["error"] == (
            "worker-0 died while running it and 8 other jobs"
        )


def test_a_job_that_kills_its_worker_takes_no_innocent_job_with_it(spool_dir: Path) -> None:
    """After two such deaths all that ran at both run alone, one at a time, until it is known which one it was."""
    count = 'deaths=$(cat "$HOME/deaths" 2>/dev/null | wc -l)'
    all_run = 'until [ $(cat "$HOME"/*.started | wc -l) -ge $((6 * (deaths + 1))) ]; do sleep 0.02; done'
    kill = 'echo x >> "$HOME/deaths"; kill -9 $PPID; sleep 9'
    killer = f"{count}; {STARTED}; if [ $deaths -ge 2 ]; then sleep 0.3; else {all_run}; fi; {kill}"
    innocent = f"{count}; {STARTED}; [ $deaths -ge 3 ] || sleep 60"
    support.drop(spool_dir, "culprit", command=killer, timeout=0, max_retries=1, priority=9)
    for name in names(5):
        support.drop(spool_dir, name, command=innocent, timeout=0, max_retries=1)
    assert [run_to_the_end(spool_dir) for _ in range(2)] == [False, False]
    support.drop(spool_dir, "fresh", command="sleep 0.5", max_retries=1, priority=10)

    wait_until(lambda: run_to_the_end(spool_dir), 60)

    assert where_is(spool_dir, "culprit") == ["dead"]
    assert len(load(spool_dir / "done" / "fresh.json")["history"]) == 1
    assert finished(spool_dir, *names(5))
    assert all((spool_dir / "done" / f"{name}.json").exists() for name in names(5))


def run_to_the_end(spool_dir: Path) -> bool:
    with worker_process(spool_dir, "-j", "6", "--drain") as process:
        process.wait(30)
    counts = Spool(spool_dir).counts()
    return counts["pending"] + counts["processing"] + counts["failed"] == 0


def test_a_job_that_has_to_run_alone_says_what_it_waits_for(spool_dir: Path, home: Path, cli: Cli) -> None:
    """Else nobody knows why free slots stay free. It is said once."""
    said: list[str] = []
    drop_blocked(spool_dir, "long")
    with worker_in_thread(spool_dir, 3, say=said.append):
        wait_until(lambda: len(started(home)) == 1)
        support.drop(spool_dir, "suspect", command=STARTED, crashes=2)
        support.drop(spool_dir, "late", command=STARTED, priority=1)
        wait_until(lambda: any(line.startswith("cannot start suspect beside other jobs") for line in said))
        assert "2 in a row, so it starts apart from other jobs" in cli("show", "suspect", expect=0).stdout
        release(home, lambda: finished(spool_dir, "long", "suspect", "late"))
    assert sum("cannot start suspect" in line for line in said) == 1
    first, second = (load(spool_dir / "done" / f"{name}.json") for name in ("long", "suspect"))
    assert first["finished_at"] <= second["started_at"]


def test_a_run_that_stops_itself_or_leaves_a_child_holds_up_no_other(spool_dir: Path) -> None:
    support.drop(spool_dir, "stopped", command="kill -STOP $$", timeout=3, max_retries=1, priority=9)
    support.drop(spool_dir, "leaves", command="sleep 4 & true", priority=9)
    for name in names(30):
        support.drop(spool_dir, name, command="true")
    with worker_in_thread(spool_dir, 4):
        began = time.monotonic()
        wait_until(lambda: finished(spool_dir, *names(30), "leaves"))
        assert time.monotonic() - began < 3
        wait_until(lambda: finished(spool_dir, "stopped"))
    support.end_all(support.processes_of(spool_dir))


def test_an_outcome_that_the_disk_refuses_holds_up_no_timeout(
    spool_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A runaway job is ended in its time, although the outcome of another one cannot be recorded yet."""
    disk = FullDisk(monkeypatch)
    support.drop(spool_dir, "ended", command="true", priority=9)
    support.drop(
        spool_dir, "runaway", command="echo $$ > $HOME/pid; exec sleep 60", timeout=1.5, max_retries=1
    )
    pid = spool_dir.parent / "home" / "pid"
    with worker_in_thread(spool_dir, 2) as worker:
        wait_until(lambda: pid.exists() and pid.read_text())
        process = psutil.Process(int(pid.read_text()))
        wait_until(lambda: not process.is_running() or process.status() == "zombie", 10)
        assert not finished(spool_dir, "ended")
        time.sleep(0.8)  # not a wait: so long its end is noted and not recorded
        disk.make_room()
        wait_until(lambda: finished(spool_dir, "ended", "runaway"))
        assert worker.jobs_run == 2
    for place in ("done/ended", "dead/runaway"):
        record = load(spool_dir / f"{place}.json")
        assert len(record["history"]) == 1
        took = times.parse_moment(record["finished_at"]) - times.parse_moment(record["started_at"])
        assert abs(took - record["duration"]) < 0.5, place


def test_another_one_that_reaps_children_costs_only_the_exit_code(spool_dir: Path, home: Path) -> None:
    """A program that embeds the worker calls waitpid(-1)."""
    drop_blocked(spool_dir, "robbed", "other")
    with worker_in_thread(spool_dir, 3):
        wait_until(lambda: len(started(home)) == 2)

        def reap() -> bool:
            with suppress(ChildProcessError):
                os.waitpid(-1, os.WNOHANG)
            return finished(spool_dir, "robbed", "other")

        release(home, reap)
        support.drop(spool_dir, "next", command="true")
        wait_until(lambda: finished(spool_dir, "next"))


def test_a_worker_takes_no_exit_code_of_a_child_that_is_not_its_own(spool_dir: Path) -> None:
    """A program that embeds the worker has children, too. One that asked for any child would answer for theirs."""
    child = subprocess.Popen([sys.executable, "-c", "raise SystemExit(7)"])
    wait_until(lambda: psutil.Process(child.pid).status() == psutil.STATUS_ZOMBIE)
    for number in range(3):
        support.drop(spool_dir, f"job{number}", command="exit 3", max_retries=1)
    support.drain(spool_dir)
    assert [load(spool_dir / f"dead/job{number}.json")["exit_code"] for number in range(3)] == [3] * 3
    assert child.wait(30) == 7


@pytest.mark.skipif(sys.platform != "linux", reason="limits of a process are Linux's")
def test_out_of_descriptors_the_runs_go_on(spool_dir: Path, home: Path) -> None:
    drop_blocked(spool_dir, *names(200))
    with worker_process(spool_dir, "-j", "220") as process:
        wait_until(lambda: len(started(home)) == 200, 30)
        worker = psutil.Process(Spool(spool_dir).workers()[0].pid)
        soft, hard = worker.rlimit(psutil.RLIMIT_NOFILE)
        worker.rlimit(psutil.RLIMIT_NOFILE, (worker.num_fds() + 1, hard))
        drop_blocked(spool_dir, "more", "most")
        time.sleep(0.7)  # not a wait: so long it lacks them
        worker.rlimit(psutil.RLIMIT_NOFILE, (soft, hard))
        wait_until(lambda: len(started(home)) == 202)
        release(home, lambda: finished(spool_dir, *names(200), "more", "most"))
        assert process.is_running()
    assert set(started(home).values()) == {1}


@pytest.mark.skipif(sys.platform != "linux", reason="limits of a process are Linux's")
def test_runs_that_end_give_their_descriptors_to_the_next(spool_dir: Path, home: Path) -> None:
    """There are no others, and none come: nothing waits for some in vain while ended runs hold them."""
    drop_blocked(spool_dir, *names(10))
    with worker_process(spool_dir, "-j", "40"):
        wait_until(lambda: len(started(home)) == 10)
        worker = psutil.Process(Spool(spool_dir).workers()[0].pid)
        time.sleep(0.5)  # not a wait: what is opened for a moment at the start of runs is closed
        worker.rlimit(psutil.RLIMIT_NOFILE, (worker.num_fds(), worker.num_fds()))
        drop_blocked(spool_dir, "more", "most")
        time.sleep(0.5)  # not a wait: so long it tries in vain
        release(home, lambda: finished(spool_dir, *names(10), "more", "most"))
    assert set(started(home).values()) == {1}


def test_more_than_the_open_files_allow_is_refused_with_the_number_that_works(spool_dir: Path) -> None:
    code = "import resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100)); from queuectl.cli import main; sys.exit(main())"
    words = [sys.executable, "-c", code, "worker", "start", "--foreground", "--drain", "-j"]
    refused = subprocess.run([*words, "500"], capture_output=True, text=True, check=False)
    assert refused.returncode == 3
    assert "500 jobs at once need more files than this process may open" in refused.stderr
    number = refused.stderr.split("--concurrency ")[1].split()[0]

    support.drop(spool_dir, "job", command="true")
    subprocess.run([*words, number], capture_output=True, check=True)
    assert finished(spool_dir, "job")


@pytest.mark.skipif(sys.platform != "linux", reason="CPU time is counted as Linux does")
def test_waiting_for_many_costs_no_more_than_waiting_for_one(spool_dir: Path, home: Path) -> None:
    """Timeouts and output limits of sleeping jobs are looked at rarely, and by name only when due."""
    drop_blocked(spool_dir, *names(60), timeout=3600)
    with worker_process(spool_dir, "-j", "64"):
        wait_until(lambda: len(started(home)) == 60, 30)
        worker = psutil.Process(Spool(spool_dir).workers()[0].pid)
        time.sleep(1.5)  # the looks at the output become rarer
        assert support.cpu_in(worker, 3) < 0.25


# -- the run files -----------------------------------------------------------------------------------------------------


def test_a_slot_of_an_earlier_boot_casts_no_doubt_for_ever(spool_dir: Path) -> None:
    """A worker with one slot starts under the name of one that had many: the files of the others are deleted."""
    layout = Layout(spool_dir)
    layout.create()
    for number in range(3):
        run_lock.acquire(
            layout, f"worker-0.{number}" if number else "worker-0", "x", "1.5", "old boot"
        ).release()
    assert len(run_lock.slots(layout, "worker-0")) == 3

    with worker_in_thread(spool_dir):
        wait_until(lambda: run_lock.slots(layout, "worker-0") == ["worker-0"], 5)


@pytest.mark.parametrize("number", [0, 1, 7])
def test_a_damaged_run_file_of_any_slot_proves_nothing(spool_dir: Path, number: int) -> None:
    """A job that no file names may have started in that slot."""
    layout = Layout(spool_dir)
    layout.create()
    for place in (0, 1, 7):
        slot = f"worker-0.{place}" if place else "worker-0"
        run_lock.acquire(layout, slot, f"job{place}", "1.5", "boot").release()
    found = run_lock.read_all(layout, "worker-0")
    assert found
    assert found.never_began(Job(id="other"), "boot")
    assert not found.never_began(Job(id="job7"), "boot")

    (spool_dir / "data" / "workers" / (f"worker-0.{number}.run" if number else "worker-0.run")).write_bytes(
        b"\xff"
    )

    found = run_lock.read_all(layout, "worker-0")
    assert found
    assert not found.never_began(Job(id="other"), "boot")


def test_signals_reach_a_worker_with_many_jobs_once(spool_dir: Path, home: Path) -> None:
    """TERM lets all of them end; a second one changes nothing."""
    drop_blocked(spool_dir, *names(6))
    with worker_process(spool_dir, "-j", "6") as process:
        wait_until(lambda: len(started(home)) == 6)
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGTERM)
        wait_until(lambda: Spool(spool_dir).workers()[0].stopping or True)
        release(home, lambda: process.poll() is not None)
        assert process.wait(20) == 0
    assert finished(spool_dir, *names(6))
