"""A cancel, a pause and its end reach a worker at once; only a worker that handles the signal gets it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from queuectl import Spool, Worker
from queuectl.control import commands
from queuectl.layout import Layout

from support import end_workers, finished, load, wait_until, where_is

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no signal to send")

PATIENT = """
import sys
from queuectl.worker import idle, process
from queuectl.layout import Layout
from queuectl.worker.program import WorkerOptions
idle.TICK = 100_000.0
sys.exit(process.be_worker(Layout(sys.argv[1]), "foreground", WorkerOptions()))
"""


@pytest.fixture
def patient(spool_dir: Path) -> Iterator[Spool]:
    """A spool with a worker that looks for notes once a day, unless a signal wakes it."""
    spool = Spool(spool_dir)
    spool.refresh()
    process = subprocess.Popen([sys.executable, "-c", PATIENT, str(spool_dir)])
    try:
        wait_until(spool.workers)
        yield spool
    finally:
        end_workers(spool_dir)
        process.wait()


def test_cancel_ends_a_running_job_at_once(patient: Spool, spool_dir: Path) -> None:
    """A harmful job that is cancelled does not run until the worker's next check."""
    patient.enqueue(["sleep", "100"], id="long", timeout=0)
    wait_until(lambda: where_is(spool_dir, "long") == ["processing/worker-0"])

    assert patient.cancel("long") == "cancelled"
    assert where_is(spool_dir, "long") == ["dead"]


def test_pause_and_its_end_reach_an_idle_worker_at_once(patient: Spool, spool_dir: Path) -> None:
    """`pause` returns when no job can start any more, `resume` when workers go on; neither takes a second."""
    patient.enqueue("true", id="a")
    wait_until(lambda: finished(spool_dir, "a"))

    assert patient.pause(patience=15) == []
    patient.enqueue("true", id="b")
    assert patient.resume()
    wait_until(lambda: finished(spool_dir, "b"))


def test_pause_and_drain_reach_a_busy_worker_at_once(patient: Spool, spool_dir: Path) -> None:
    """The worker reports the pause while its job runs, and starts no other job afterwards."""
    gate = spool_dir.parent / "gate"
    os.mkfifo(gate)
    patient.enqueue(["cat", str(gate)], id="a", timeout=0)
    wait_until(lambda: where_is(spool_dir, "a") == ["processing/worker-0"])
    assert patient.pause(patience=15) == []
    patient.enqueue("true", id="b")
    gate.write_text("")

    patient.drain(timeout=15)
    assert (where_is(spool_dir, "a"), where_is(spool_dir, "b")) == (["done"], ["pending"])


def test_worker_in_a_program_gets_no_signal(spool_dir: Path) -> None:
    """In a user's own program the signal may mean something else, or end it."""
    heard: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, _: heard.append(number))
    worker = Worker(spool_dir)
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        spool = Spool(spool_dir)
        spool.enqueue(["sleep", "100"], id="long", timeout=0)
        wait_until(lambda: where_is(spool_dir, "long") == ["processing/worker-0"])
        spool.cancel("long")
        wait_until(lambda: where_is(spool_dir, "long") == ["dead"])
        spool.pause()
        spool.resume()
    finally:
        worker.stop(force=True)
        thread.join()
        signal.signal(signal.SIGUSR1, before)
    assert heard == []


@pytest.mark.parametrize(
    "record",
    [{"process_started": 1.0}, {"hurries": False}, {}],
    ids=["another process", "an older worker", "mine"],
)
def test_only_the_worker_itself_is_signalled(spool_dir: Path, record: dict[str, object]) -> None:
    """The pid in the record of a dead worker may belong to another process now, and an older worker would die of the signal."""
    layout = Layout(spool_dir)
    layout.create()
    code = (
        "import sys; from queuectl.layout import Layout; from queuectl.control.registration import Registration;"
        "registration = Registration.acquire(Layout(sys.argv[1])); registration.announce('background', handles_wake_signal=True);"
        "print('here', flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(spool_dir)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    assert process.stdout.readline() == "here\n"
    path = Path(layout.worker_file("worker-0", "json"))
    path.write_text(json.dumps(load(path) | record), encoding="utf-8")
    commands.wake(layout)
    process.communicate("")
    assert process.returncode == (0 if record else -signal.SIGUSR1)
