"""Hundreds of jobs that begin, sleep and end together in one worker: what each of them costs, and what is kept apart."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

import gate
import psutil
import pytest
from gate import (
    BLOCKED,
    STARTED,
    drop_blocked,
    names,
    release,
    started,
    worker_in_thread,
    worker_process,
)

from queuectl import Spool, Worker
from queuectl.config.settings import Settings
from queuectl.control import commands, run_lock
from queuectl.executor.local import LocalRunner
from queuectl.job import times
from queuectl.layout import Layout
from queuectl.storage import recovery
from queuectl.storage import settle as settling
from queuectl.system import files, process_table, process_tree, wake_up
from queuectl.worker import settle_batch, slots

import support
from support import finished, load, wait_until, where_is

if TYPE_CHECKING:
    from pathlib import Path

    from queuectl.executor.base import Attempt, Running
    from queuectl.job.outcome import Outcome

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="commands are written for sh")


@pytest.fixture
def home(spool_dir: Path) -> Path:
    return gate.home_with_gate(spool_dir)


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The moments of the looks at all processes of the machine."""
    found: list[float] = []

    class Counted(process_table.ProcessTable):
        def __init__(self, **options: Any) -> None:
            found.append(time.monotonic())
            super().__init__(**options)

    monkeypatch.setattr(process_table, "ProcessTable", Counted)
    monkeypatch.setattr(process_tree, "ProcessTable", Counted)
    return found


def settings(spool_dir: Path, text: str) -> None:
    Layout(spool_dir).create()
    (spool_dir / "config.yaml").write_text(text)


def outcomes(spool_dir: Path, folder: str, name: str) -> list[str]:
    return [entry["outcome"] for entry in load(spool_dir / folder / f"{name}.json")["history"]]


# -- their ends --------------------------------------------------------------------------------------------------------


def test_a_forced_stop_of_many_shares_its_looks_at_the_machine(
    spool_dir: Path, home: Path, looks: list[float]
) -> None:
    """A look for each job would take a minute with five hundred jobs: `worker stop --force` would kill the worker first."""
    many = 100
    drop_blocked(spool_dir, *names(many))
    with worker_in_thread(spool_dir, many) as worker:
        wait_until(lambda: len(started(home)) == many, 30)
        looks.clear()
        worker.stop(force=True)
        wait_until(
            lambda: {place for name in names(many) for place in where_is(spool_dir, name)} == {"pending"}, 30
        )
    assert len(looks) <= many
    assert {tuple(outcomes(spool_dir, "pending", name)) for name in names(many)} == {("stopped",)}


def test_timeouts_of_many_share_their_looks_at_the_machine(
    spool_dir: Path, home: Path, looks: list[float]
) -> None:
    """They began one after the other, and so they end: each end is looked for once at most, and not twice or more."""
    many = 60
    drop_blocked(spool_dir, *names(many), timeout=1.5)
    with worker_in_thread(spool_dir, many):
        wait_until(lambda: finished(spool_dir, *names(many)), 30)
    assert len(looks) <= many + 15
    assert {tuple(outcomes(spool_dir, "dead", name)) for name in names(many)} == {("timed_out",)}
    assert max(load(spool_dir / "dead" / f"{name}.json")["duration"] for name in names(many)) < 5


def test_children_that_many_leave_behind_are_counted_in_a_few_looks(
    spool_dir: Path, home: Path, looks: list[float]
) -> None:
    many = 40
    for name in names(many):
        support.drop(spool_dir, name, command=f'{STARTED}; sleep 60 & cat "$HOME/gate"', timeout=0)
    with worker_in_thread(spool_dir, many):
        wait_until(lambda: len(started(home)) == many, 30)
        looks.clear()
        release(home, lambda: finished(spool_dir, *names(many)))
    assert len(looks) <= 30
    support.end_all(support.processes_of(spool_dir))


def test_what_ends_while_outcomes_are_recorded_waits_for_a_few_of_them(
    spool_dir: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And each is noted as ended when it ended, in that order."""
    together: list[int] = []
    real = settling.settle_all

    def counted(storage: Any, claims: Any, *args: Any, **options: Any) -> Any:
        together.append(len(claims))
        if not (home / "last.go").exists() and len(claims) > 1:
            (home / "last.go").touch()
            wait_until((home / "last.over").exists)
            time.sleep(0.3)  # the disk is slow
        worker.look_now()
        return real(storage, claims, *args, **options)

    monkeypatch.setattr(settle_batch, "settle_all", counted)
    many = 2 * slots.TOGETHER + 9
    last = 'until [ -e "$HOME/last.go" ]; do sleep 0.01; done; touch "$HOME/last.over"'
    support.drop(spool_dir, "last", command=f"{STARTED}; {last}", timeout=0)
    drop_blocked(spool_dir, *names(many))
    with worker_in_thread(spool_dir, many + 1) as worker:
        wait_until(lambda: len(started(home)) == many + 1, 30)
        release(home, lambda: finished(spool_dir, "last", *names(many)))
        assert worker.jobs_run == many + 1
    assert max(together) <= slots.TOGETHER
    records = [load(spool_dir / "done" / f"{name}.json") for name in (*names(many), "last")]
    for record in records:
        took = times.parse_moment(record["finished_at"]) - times.parse_moment(record["started_at"])
        assert abs(took - record["duration"]) < 0.2
        assert len(record["history"]) == 1


def test_what_an_exception_breaks_off_ends_together(
    spool_dir: Path, home: Path, looks: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All are killed at once, and go back; an end that came before is recorded."""
    settings(spool_dir, "kill_grace: 20\n")
    for name in names(30):
        support.drop(spool_dir, name, command=f'trap "" TERM; {BLOCKED}; sleep 60', timeout=0)

    def fail() -> bool:
        if len(started(home)) < 30:
            return False
        looks.clear()
        raise ZeroDivisionError

    worker = Worker(spool_dir, concurrency=30)
    worker.leave_when(fail)
    began = time.monotonic()
    with pytest.raises(ZeroDivisionError):
        worker.run()

    assert time.monotonic() - began < 15
    assert len(looks) <= 30
    assert {tuple(where_is(spool_dir, name)) for name in names(30)} == {("pending",)}
    assert not support.processes_of(spool_dir)


class _SlowStart(LocalRunner):
    """Each start takes as long as on a machine that is busy."""

    def start(self, attempt: Attempt) -> Running | Outcome:
        time.sleep(0.02)
        return super().start(attempt)


def test_a_timeout_comes_in_time_while_many_are_started(spool_dir: Path, home: Path) -> None:
    support.drop(spool_dir, "short", command=f"{STARTED}; sleep 60", timeout=0.3, max_retries=1, priority=9)
    drop_blocked(spool_dir, *names(100))
    with worker_in_thread(spool_dir, 101, runner=_SlowStart()):
        wait_until(lambda: finished(spool_dir, "short"), 30)
        wait_until(lambda: len(started(home)) == 101, 30)
    assert load(spool_dir / "dead" / "short.json")["duration"] < 1.2


# -- while they run ----------------------------------------------------------------------------------------------------


def test_files_of_many_running_jobs_are_noted_with_two_waits_for_the_disk(
    spool_dir: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With two waits for each, three hundred jobs held up their worker for a second in which nothing else was done."""
    many, waits = 60, 0
    place = spool_dir / "processing" / "worker-0"
    sync_folder = files.sync_folder

    def count(path: str) -> None:
        nonlocal waits
        waits += path == str(place)
        sync_folder(path)

    monkeypatch.setattr(files, "sync_folder", count)
    drop_blocked(spool_dir, *names(many))
    with worker_in_thread(spool_dir, many):
        wait_until(lambda: len(started(home)) == many, 30)
        wait_until(lambda: {load(path).get("state") for path in place.glob("*.json")} == {"processing"}, 30)
        release(home, lambda: finished(spool_dir, *names(many)))
    # They begin one after the other, and the files of those that have run for a quarter of a second are written each second.
    assert 0 < waits < 10
    assert {tuple(outcomes(spool_dir, "done", name)) for name in names(many)} == {("succeeded",)}


def test_sleeping_jobs_wake_their_worker_together(
    spool_dir: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Output limits of silent jobs are looked at in the same moments, twice a second, and timeouts when they are due."""
    waits: list[float] = []
    real = wake_up.WakeUp.wait

    def wait(self: wake_up.WakeUp, *args: Any, **options: Any) -> bool:
        waits.append(time.monotonic())
        return real(self, *args, **options)

    monkeypatch.setattr(wake_up.WakeUp, "wait", wait)
    with worker_in_thread(spool_dir, 40):
        for name in names(40):
            drop_blocked(spool_dir, name, timeout=3600)
            time.sleep(0.02)  # not a wait: each begins at a moment of its own
        wait_until(lambda: len(started(home)) == 40, 30)
        time.sleep(1.5)  # not a wait: the looks at the output become rarer
        waits.clear()
        time.sleep(2)
        assert len(waits) <= 14


def test_who_follows_an_output_reads_the_file_of_its_slot_alone(
    spool_dir: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each look read the files of all slots of the worker."""
    for name in names(20):
        support.drop(spool_dir, name, command=f"echo {name}; {BLOCKED}", timeout=0)
    read: list[str] = []
    real = run_lock.read

    def counted(layout: Layout, slot: str) -> run_lock.RunRecord | None:
        read.append(slot)
        return real(layout, slot)

    monkeypatch.setattr(run_lock, "read", counted)
    with worker_in_thread(spool_dir, 20):
        wait_until(lambda: len(started(home)) == 20)
        spool = Spool(spool_dir)
        for name in names(20):
            assert spool.read_output(name) == f"{name}\n"
            read.clear()
            assert spool.output(name)
            assert len(set(read)) == 1, name


def test_steps_of_the_clock_change_no_timeout_and_no_duration(spool_dir: Path, home: Path) -> None:
    """A day back and a year ahead, while many run."""
    steps = [0.0]
    drop_blocked(spool_dir, *names(8), timeout=3600)
    support.drop(spool_dir, "short", command=BLOCKED, timeout=2, max_retries=1)
    with worker_in_thread(spool_dir, 9, now=lambda: time.time() + steps[-1]) as worker:
        wait_until(lambda: len(started(home)) == 9)
        for step in (-86400.0, 365 * 86400.0, 0.0):
            steps.append(step)
            worker.look_now()
            time.sleep(0.3)  # not a wait: the worker lives with that time
            assert not finished(spool_dir, "job0")
        wait_until(lambda: finished(spool_dir, "short"))
        release(home, lambda: finished(spool_dir, *names(8)))
    assert load(spool_dir / "dead" / "short.json")["duration"] < 4
    for name in names(8):
        assert load(spool_dir / "done" / f"{name}.json")["duration"] < 20
        assert outcomes(spool_dir, "done", name) == ["succeeded"]


@pytest.mark.parametrize("concurrency", [1, 3])
def test_a_slot_hands_nothing_of_its_last_run_to_the_next(
    spool_dir: Path, home: Path, concurrency: int
) -> None:
    """Not its timeout, its output, a late cancel, nor the lock that a child of it still holds."""
    first, second = names(2 * concurrency)[:concurrency], names(2 * concurrency)[concurrency:]
    slot = 'echo $QUEUECTL_SLOT > "$HOME/$QUEUECTL_JOB_ID.slot"'
    leave = f'{slot}; {STARTED}; echo old; sleep 60 & echo $! > "$HOME/$QUEUECTL_JOB_ID.child"; sleep 0.2'
    for name in first:
        support.drop(spool_dir, name, command=leave, timeout=1, priority=9)
    for name in second:
        support.drop(spool_dir, name, command=f"{slot}; {BLOCKED}", timeout=0, max_retries=1)
    with worker_process(spool_dir, "-j", str(concurrency)) as process:
        wait_until(lambda: len(started(home)) == 2 * concurrency)
        commands.request_cancel(Layout(spool_dir), "worker-0", dict.fromkeys(first, 1))
        time.sleep(1.3)  # not a wait: the timeout of the first ones
        assert {(home / f"{name}.slot").read_text() for name in second} == {
            f"{n}\n" for n in range(concurrency)
        }
        assert {tuple(where_is(spool_dir, name)) for name in second} == {("processing/worker-0",)}
        process.kill()
        process.wait()
        children = [psutil.Process(int((home / f"{name}.child").read_text())) for name in first]
        with worker_process(spool_dir, "-j", str(concurrency)):
            wait_until(lambda: sum(started(home).values()) == 3 * concurrency)
            assert all(child.is_running() for child in children), "they belong to jobs that are done"
            release(home, lambda: finished(spool_dir, *second))
    for name in second:
        assert load(spool_dir / "done" / f"{name}.json")["output"] == ""
        assert outcomes(spool_dir, "done", name) == ["interrupted", "succeeded"]
    support.end_all(children)


# -- their worker dies -------------------------------------------------------------------------------------------------


def test_runs_of_a_dead_worker_end_together(spool_dir: Path, home: Path, looks: list[float]) -> None:
    """Each is deaf to TERM. One after the other, they would keep the worker that takes them back from its own jobs."""
    number = 16
    for name in names(number):
        support.drop(spool_dir, name, command=f'trap "" TERM; {BLOCKED}; sleep 60', timeout=0)
    with worker_process(spool_dir, "-j", str(number)) as process:
        wait_until(lambda: len(started(home)) == number, 30)
        process.kill()
        process.wait()
        spool = Spool(spool_dir)
        began = time.monotonic()
        assert recovery.recover_claims(spool._storage, Settings(), lambda _: None) == number
        assert time.monotonic() - began < 5
    assert len(looks) <= 60
    assert {tuple(where_is(spool_dir, name)) for name in names(number)} == {("pending",)}
    assert not support.processes_of(spool_dir)


def test_a_run_that_lingers_holds_up_no_other_of_its_worker(
    spool_dir: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No signal reaches it. The others are taken back, and it alone waits for its end."""
    drop_blocked(spool_dir, *names(6), max_retries=2)
    with worker_process(spool_dir, "-j", "6") as process:
        wait_until(lambda: len(started(home)) == 6)
        for one in support.processes_of(spool_dir):
            if "QUEUECTL_JOB_ID" in one.environ():
                locks = [file.path for file in one.open_files() if file.path.endswith(".run")]
                assert len(locks) == 1, "it has inherited that of its neighbour"
        process.kill()
        process.wait()
        spared = [
            one for one in support.processes_of(spool_dir) if one.environ()["QUEUECTL_JOB_ID"] == "job3"
        ]
        real = process_tree.TreeTermination._send
        monkeypatch.setattr(
            process_tree.TreeTermination,
            "_send",
            staticmethod(lambda several, signal: real([one for one in several if one not in spared], signal)),
        )
        said: list[str] = []
        spool = Spool(spool_dir)
        assert recovery.recover_claims(spool._storage, Settings(), said.append) == 5
        assert "cannot take back job3: processes of its run are still alive" in said
        assert where_is(spool_dir, "job3") == ["processing/worker-0"]
        support.end_all(spared)
        assert recovery.recover_claims(spool._storage, Settings(), said.append) == 1


# -- hundreds ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.skipif(sys.platform != "linux", reason="CPU time is counted as Linux does")
def test_five_hundred_cost_little_and_end_together(spool_dir: Path, home: Path, cli: Any) -> None:
    """They sleep: a cancel is obeyed as soon as with one, and a forced stop ends all of them within its grace time."""
    many = 500
    settings(spool_dir, "kill_grace: 1\n")
    drop_blocked(spool_dir, *names(many), timeout=3600)
    with worker_process(spool_dir, "-j", str(many)) as process:
        wait_until(lambda: len(started(home)) == many, 120)
        worker = psutil.Process(Spool(spool_dir).workers()[0].pid)
        time.sleep(2)  # not a wait: the looks at the output become rarer
        assert support.cpu_in(worker, 3) < 0.3
        began = time.monotonic()
        assert Spool(spool_dir).cancel("job77") == "cancelled"
        assert time.monotonic() - began < 2
        began = time.monotonic()
        cli("worker", "stop", "--force", expect=0)
        process.wait(20)
        assert time.monotonic() - began < 9
    left = [name for name in names(many) if name != "job77"]
    assert {tuple(where_is(spool_dir, name)) for name in left} == {("pending",)}
    assert {tuple(outcomes(spool_dir, "pending", name)) for name in left} == {("stopped",)}


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_two_hundred_of_a_dead_worker_are_taken_back_together(spool_dir: Path, home: Path) -> None:
    """Each runs once more, and none beside its old run."""
    many = 200
    drop_blocked(spool_dir, *names(many))
    with worker_process(spool_dir, "-j", str(many)) as process:
        wait_until(lambda: len(started(home)) == many, 120)
        process.kill()
        process.wait()
        began = time.monotonic()
        with worker_process(spool_dir, "-j", str(many)):
            wait_until(lambda: sum(started(home).values()) == 2 * many, 120)
            assert time.monotonic() - began < 60
            release(home, lambda: finished(spool_dir, *names(many)))
    assert {tuple(outcomes(spool_dir, "done", name)) for name in names(many)} == {
        ("interrupted", "succeeded")
    }
