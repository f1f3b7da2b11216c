"""A worker inside a program: what its callbacks raise, Ctrl+C, and a spool that is replaced under it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from queuectl import Spool, Worker
from queuectl.executor.local import LocalRunner

import support

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="commands are written for sh")


class Failed(Exception):
    """What only these tests raise."""


def test_a_say_that_raises_touches_no_job(spool_dir: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Each line is refused. The jobs run once all the same, and the program's log has the fault once."""

    def say(_: str) -> None:
        raise Failed("no terminal")

    for name in ("one", "two"):
        support.drop(spool_dir, name, command="echo run >> $HOME/runs", on_crash="dead")

    Worker(spool_dir, drain=True, say=say).run()

    for name in ("one", "two"):
        record = support.load(spool_dir / "done" / f"{name}.json")
        assert [entry["outcome"] for entry in record["history"]] == ["succeeded"]
    assert len(caplog.records) == 1
    assert "no terminal" in caplog.text


@pytest.mark.parametrize("error", [Failed, SystemExit, ImportError])
def test_an_exception_ends_the_job_and_puts_it_back_uncharged(
    spool_dir: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    """Whatever a worker is left by: nothing of the job runs unattended, and the job has not lost an attempt."""
    support.drop(spool_dir, "job1", command="echo $$ > $HOME/pid; sleep 60 & wait", on_crash="dead")
    worker = Worker(spool_dir, drain=True)
    pid = spool_dir.parent / "home" / "pid"

    def fail() -> bool:
        if pid.exists() and pid.read_text():
            raise error("in the middle")
        return False

    worker.leave_when(fail)
    monkeypatch.setattr("queuectl.worker.idle.TICK", 0.05)

    with pytest.raises(error):
        worker.run()

    assert support.processes_of(spool_dir) == []
    record = support.load(spool_dir / "pending" / "job1.json")
    assert (record["attempts"], record["history"][0]["outcome"]) == (0, "stopped")
    assert Spool(spool_dir).workers() == []


def test_an_interrupt_in_the_middle_of_a_start_leaves_nothing_running(
    spool_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command has been started and its pid is not known yet: it is found as that of a dead worker."""
    support.drop(spool_dir, "job1", command="sleep 60", on_crash="dead")
    monkeypatch.setattr("queuectl.executor.local.open_pidfd", _raise_interrupt)
    monkeypatch.chdir("/")

    with pytest.raises(KeyboardInterrupt):
        Worker(spool_dir, drain=True, runner=LocalRunner(may_chdir=True)).run()
    os.waitpid(-1, os.WNOHANG)

    assert support.processes_of(spool_dir) == []
    assert support.where_is(spool_dir, "job1") == ["pending"]
    assert support.load(spool_dir / "pending" / "job1.json").get("attempts", 0) == 0


def _raise_interrupt(_: int) -> None:
    raise KeyboardInterrupt


RUN = """
import sys
from queuectl import Worker
try:
    Worker(sys.argv[1]).run()
except KeyboardInterrupt:
    print("interrupted")
"""


def test_ctrl_c_ends_the_job_and_reaches_the_program(spool_dir: Path) -> None:
    """The program gets its KeyboardInterrupt when the job is back in the queue and its processes are gone."""
    started = spool_dir.parent / "home" / "started"
    support.drop(spool_dir, "job1", command="touch $HOME/started; sleep 60 & wait", on_crash="dead")
    program = subprocess.Popen([sys.executable, "-c", RUN, spool_dir], stdout=subprocess.PIPE, text=True)
    support.wait_until(started.exists)

    program.send_signal(signal.SIGINT)
    told, _ = program.communicate(timeout=30)

    assert told == "interrupted\n"
    assert support.processes_of(spool_dir) == []
    record = support.load(spool_dir / "pending" / "job1.json")
    assert (record["attempts"], record["history"][0]["outcome"]) == (0, "stopped")


@pytest.mark.parametrize("way", ["renamed", "deleted", "replaced"])
def test_a_worker_leaves_when_another_spool_lies_at_its_path(
    spool_dir: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """It ends its own run, and touches neither the jobs nor the workers of the new spool, which has the same names."""
    monkeypatch.setattr("queuectl.worker.idle.TICK", 0.05)
    support.drop(spool_dir, "job1", command="echo old >> $HOME/runs; sleep 60")
    runs = spool_dir.parent / "home" / "runs"
    theirs = {"processing/worker-0/job1.json": '{"command": "true"}', "data/workers/worker-0.json": "{}"}
    said: list[str] = []
    old = Worker(spool_dir, say=said.append)
    thread = threading.Thread(target=old.run)
    thread.start()
    try:
        support.wait_until(runs.exists)
        new = spool_dir.with_name("new")
        if way == "replaced":
            Spool(new).refresh()
            for name, text in theirs.items():
                (new / name).parent.mkdir(exist_ok=True)
                (new / name).write_text(text)
        before = spool_dir.rename(spool_dir.with_name("before"))
        if way == "replaced":
            new.rename(spool_dir)  # at once: a worker that sees nothing at its path leaves for that reason
        if way != "renamed":
            subprocess.run(["rm", "-rf", before], check=True)
        thread.join(20)
        assert not thread.is_alive()
    finally:
        old.stop(force=True)
        thread.join(20)
    assert f"{spool_dir} was removed or replaced; this worker leaves" in said
    assert runs.read_text() == "old\n"
    support.wait_until(lambda: support.processes_of(spool_dir) == [])
    if way == "replaced":
        assert {name: (spool_dir / name).read_text() for name in theirs} == theirs
    else:
        assert not spool_dir.exists()
