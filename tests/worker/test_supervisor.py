"""Several workers of one terminal or service: none is left alone, none is lost silently, and all can be stopped."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from queuectl import Spool
from queuectl.control import commands, registry
from queuectl.control.launch import Launch
from queuectl.layout import Layout
from queuectl.system.process import ProcessIdentity, clock_of_starts, start_time
from queuectl.worker import stopping

from support import finished, processes_of, run_cli, wait_until, where_is

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Cli = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="commands are written for sh, signals are sent"
)

QUEUECTL = [sys.executable, "-u", "-m", "queuectl"]


@pytest.fixture
def foreground() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """`worker start --foreground ARGS`, ended after the test."""
    made: list[subprocess.Popen[str]] = []

    def start(*args: str, program: list[str] = QUEUECTL, **options: Any) -> subprocess.Popen[str]:
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, **options}
        words = [*program, "worker", "start", "--foreground", *args]
        made.append(subprocess.Popen(words, text=True, start_new_session=True, **options))
        return made[-1]

    yield start
    for process in made:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=20)


def names(spool_dir: Path) -> list[str]:
    return [worker.name for worker in Spool(spool_dir).workers()]


def ready(spool_dir: Path, count: int) -> list[registry.WorkerInfo]:
    """The workers, once there are so many and none of them is just starting."""

    def look() -> list[registry.WorkerInfo]:
        found = Spool(spool_dir).workers()
        return found if len(found) == count and all(w.mode != registry.STARTING for w in found) else []

    return wait_until(look)


def be_worker(spool_dir: Path, launch: Launch, mode: str = "foreground") -> subprocess.CompletedProcess[str]:
    """A worker that drains the spool, started as this says."""
    words = ["worker", "run", "--drain", "--mode", mode, "--launch", launch.to_text()]
    return run_cli("--spool", spool_dir, *words, expect=0)


# -- stops that come early ---------------------------------------------------------------------------------------------


def test_a_worker_that_leaves_between_the_look_and_the_question_counts_as_stopped(
    spool_dir: Path, foreground: Callable[..., subprocess.Popen[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has read the note to all workers in that moment. `Stopped 3` of four was told now and then."""
    foreground("--count", "2")
    ready(spool_dir, 2)
    request = commands.request_stop

    def late(layout: Layout, name: str, *, force: bool) -> bool:
        request(layout, name, force=force)
        wait_until(lambda: name not in names(spool_dir))
        return request(layout, name, force=force)

    monkeypatch.setattr(commands, "request_stop", late)
    done = stopping.stop(Layout(spool_dir), force=False, timeout=20, report=lambda _: None)
    assert done.ended == 2


def test_stop_ends_and_counts_workers_that_are_still_starting(
    spool_dir: Path, cli: Cli, foreground: Callable[..., subprocess.Popen[str]]
) -> None:
    """A deploy script would otherwise believe that all are gone, while most of them begin to take jobs."""
    Spool(spool_dir)
    parent = foreground("--count", "4")
    wait_until(lambda: len(names(spool_dir)) == 4)

    assert cli("worker", "stop", expect=0).stdout == "Stopped 4 worker(s)\n"
    assert parent.wait(10) == 0
    assert processes_of(spool_dir) == []


def test_a_worker_that_leaves_as_soon_as_it_reads_the_note_counts_as_stopped(
    spool_dir: Path, foreground: Callable[..., subprocess.Popen[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has just started, and is gone before it is asked by its name. `Stopped 2` of four leaves the question of the rest."""
    Spool(spool_dir)
    foreground("--count", "2")
    wait_until(lambda: len(names(spool_dir)) == 2)
    request = commands.request_stop_of_all

    def slowly(layout: Layout, asked_at: float | None = None) -> None:
        request(layout, asked_at)
        for name in list(names(spool_dir)):
            commands.request_stop(layout, name, force=False)
        wait_until(lambda: not registry.live_workers(layout))

    monkeypatch.setattr(commands, "request_stop_of_all", slowly)
    done = stopping.stop(Layout(spool_dir), force=False, timeout=20, report=lambda _: None)
    assert done.ended == 2


def test_worker_whose_start_was_asked_for_before_a_stop_takes_no_job(spool_dir: Path) -> None:
    """Python may still be loading when `worker stop` looks: nothing of that worker can be seen then."""
    Spool(spool_dir).enqueue("true", id="job")
    asked_at = clock_of_starts() - 1
    commands.request_stop_of_all(Layout(spool_dir))

    be_worker(spool_dir, Launch(asked_at))
    assert where_is(spool_dir, "job") == ["pending"]

    be_worker(spool_dir, Launch(clock_of_starts() + 1))
    assert where_is(spool_dir, "job") == ["done"]


def test_script_that_stops_workers_and_becomes_one_works(spool_dir: Path) -> None:
    """`exec` keeps the process, so that by its number and start it is older than the stop."""
    Spool(spool_dir).enqueue("true", id="job")
    queuectl = f"'{sys.executable}' -m queuectl"
    script = f"{queuectl} worker stop; exec {queuectl} worker start --foreground --drain"

    subprocess.run(["sh", "-c", script], check=True, timeout=30)

    assert where_is(spool_dir, "job") == ["done"]


def held(*words: str) -> str:
    """Python code that is a command of queuectl whose Python still loads, until it gets a line."""
    return f"import sys; sys.stdin.readline(); from queuectl import cli; sys.exit(cli.main({list(words)!r}))"


TYPED = {"stop": held("worker", "stop"), "start": held("worker", "start", "--foreground", "--drain")}


@pytest.mark.parametrize(("first", "state"), [("stop", "done"), ("start", "pending")])
def test_the_command_that_was_typed_last_holds(spool_dir: Path, first: str, state: str) -> None:
    """`worker stop` loads Python for a third of a second. A start that was typed meanwhile was refused as an older one."""
    Spool(spool_dir).enqueue("true", id="job")
    processes: dict[str, subprocess.Popen[str]] = {}
    for name in sorted(TYPED, key=lambda name: name != first):
        made = subprocess.Popen([sys.executable, "-c", TYPED[name]], stdin=subprocess.PIPE, text=True)
        wait_until(lambda pid=made.pid: clock_of_starts() > (start_time(pid) or 0.0))  # type: ignore[misc]
        processes[name] = made

    for name in ("stop", "start"):  # in this order they begin to act
        processes[name].communicate("\n", timeout=20)

    assert where_is(spool_dir, "job") == [state]


def test_a_script_that_starts_workers_and_becomes_the_stop_stops_them(spool_dir: Path) -> None:
    """By `exec` the stop is the older process, although it was asked for later."""
    Spool(spool_dir).enqueue("true", id="job")
    script = 'exec 3<&0; sleep 0.05; "$0" -c "$1" <&3 & exec "$0" -m queuectl worker stop < /dev/null'
    words = ["sh", "-c", script, sys.executable, TYPED["start"]]
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, process_group=0
    ) as process:
        process.wait(20)
        process.communicate("\n", timeout=20)

    assert where_is(spool_dir, "job") == ["pending"]


def test_child_without_its_parent_takes_no_job(spool_dir: Path) -> None:
    """The parent may be killed before the child has begun to watch it: nobody would ever stop that worker."""
    Spool(spool_dir).enqueue("true", id="job")
    me = ProcessIdentity.mine()
    gone = ProcessIdentity(me.pid, me.started - 60, me.boot)

    be_worker(spool_dir, Launch(clock_of_starts(), parent=gone), "child")

    assert where_is(spool_dir, "job") == ["pending"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_amid_the_start_leaves_no_worker(
    spool_dir: Path, foreground: Callable[..., subprocess.Popen[str]], number: int
) -> None:
    """Ctrl+C just after the start: the children are in sessions of their own and do not get it themselves."""
    Spool(spool_dir)
    parent = foreground("--count", "3")
    wait_until(lambda: names(spool_dir))
    parent.send_signal(number)

    out, _ = parent.communicate(timeout=20)
    assert parent.returncode == 0, out
    assert processes_of(spool_dir) == []
    assert [path for path in (spool_dir / "data" / "workers").iterdir() if path.suffix == ".json"] == []


@pytest.mark.parametrize("count", ["1", "2"])
def test_workers_of_a_program_that_has_blocked_signals_obey_them(
    spool_dir: Path, foreground: Callable[..., subprocess.Popen[str]], count: str
) -> None:
    """A blocked signal is handed down; TERM from a service manager would not be heard."""
    blocked = "import signal, os, sys; signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals()); "
    parent = foreground(
        "--count",
        count,
        program=[sys.executable, "-c", blocked + "os.execv(sys.argv[1], sys.argv[1:])", *QUEUECTL],
    )
    ready(spool_dir, int(count))
    parent.send_signal(signal.SIGTERM)

    out, _ = parent.communicate(timeout=20)
    assert parent.returncode == 0, out
    assert processes_of(spool_dir) == []


def test_stop_by_name_leaves_the_others(spool_dir: Path, cli: Cli, workers: Cli) -> None:
    """Only the named one leaves; a name that no worker has is refused, and then nobody is stopped."""
    workers(2)

    refused = cli("worker", "stop", "worker-0", "worker-9", expect=1)
    assert refused.stderr.startswith("error: no worker 'worker-9' is running\n")
    assert names(spool_dir) == ["worker-0", "worker-1"]

    assert cli("worker", "stop", "worker-0", expect=0).stdout == "Stopped 1 worker(s)\n"
    assert names(spool_dir) == ["worker-1"]


# -- deaths ------------------------------------------------------------------------------------------------------------


def test_worker_that_is_killed_is_replaced_and_mentioned(
    spool_dir: Path, foreground: Callable[..., subprocess.Popen[str]]
) -> None:
    """Under a service nobody looks: a week later all but one would be gone."""
    parent = foreground("--count", "2")
    first, second = ready(spool_dir, 2)
    os.kill(first.pid, signal.SIGKILL)

    wait_until(lambda: first.pid not in {w.pid for w in Spool(spool_dir).workers()})
    again = ready(spool_dir, 2)
    assert second.pid in {worker.pid for worker in again}
    parent.terminate()
    out, _ = parent.communicate(timeout=20)
    assert parent.returncode == 0, out
    assert f"PID={first.pid} was killed by signal 9 (SIGKILL); another one is started\n" in out


def test_supervisor_that_cannot_keep_its_workers_leaves_with_a_failure(
    spool_dir: Path, foreground: Callable[..., subprocess.Popen[str]]
) -> None:
    """A service manager sees only the parent. It must not look healthy when its workers die again and again."""
    code = "from queuectl.worker import supervisor; supervisor.MAX_EARLY_ENDS = 1; import sys; from queuectl.cli import main; sys.exit(main())"
    parent = foreground("--count", "2", program=[sys.executable, "-c", code])
    os.kill(ready(spool_dir, 2)[0].pid, signal.SIGKILL)

    out, _ = parent.communicate(timeout=20)
    assert parent.returncode == 1
    assert "all workers are stopped" in out
    assert processes_of(spool_dir) == []


def test_worker_that_was_stopped_is_not_replaced(
    spool_dir: Path, cli: Cli, foreground: Callable[..., subprocess.Popen[str]]
) -> None:
    """A person has stopped it by name: the other one goes on alone."""
    parent = foreground("--count", "2")
    ready(spool_dir, 2)
    cli("worker", "stop", "worker-1", expect=0)

    assert names(spool_dir) == ["worker-0"]
    cli("worker", "stop", expect=0)
    out, _ = parent.communicate(timeout=20)
    assert (parent.returncode, "another one" in out) == (0, False)


# -- what a worker waits for -------------------------------------------------------------------------------------------


def test_output_that_nobody_reads_holds_no_job_up(
    spool_dir: Path, foreground: Callable[..., subprocess.Popen[str]]
) -> None:
    """A full pipe, Ctrl+S or a stalled ssh connection stopped all work. What was told is complete once it is read."""
    ids = [Spool(spool_dir).enqueue(f": {'x' * 900}", id=f"job{n}").id or "" for n in range(12)]
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4096)
    worker = foreground("--drain", stdout=write)
    os.close(write)
    wait_until(lambda: finished(spool_dir, *ids))

    with open(read, encoding="utf-8") as file:
        out = file.read()
    assert worker.wait(10) == 0
    assert [job_id for job_id in ids if f"] completed {job_id}\n" in out] == ids


def test_forced_stop_ends_a_worker_that_is_suspended(spool_dir: Path, cli: Cli, workers: Cli) -> None:
    """Ctrl+Z, or a debugger: TERM alone waits until somebody wakes it up."""
    Spool(spool_dir).enqueue("sleep 60", id="long", timeout=0)
    workers(1)
    wait_until(lambda: where_is(spool_dir, "long") == ["processing/worker-0"])
    os.kill(Spool(spool_dir).workers()[0].pid, signal.SIGSTOP)

    assert cli("worker", "stop", "--force", expect=0).stdout == "Stopped 1 worker(s)\n"
    assert where_is(spool_dir, "long") == ["pending"]


def test_forced_stop_kills_a_worker_that_does_not_obey(
    spool_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may hang in a system call. Its job goes back, and no process of the job is left."""
    monkeypatch.setattr(stopping, "FORCE_PATIENCE", 0.3)
    monkeypatch.setattr(stopping, "UNKILLABLE", 0.0)
    spool = Spool(spool_dir)
    spool.enqueue("sleep 60", id="long", timeout=0)
    code = (
        "import sys; from queuectl.worker import signals; from queuectl import Worker;"
        "signals.StopFlags.look = lambda self: None; worker = Worker(sys.argv[1], mode='background');"
        "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); worker.run()"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(spool_dir)])
    try:
        wait_until(lambda: where_is(spool_dir, "long") == ["processing/worker-0"])
        wait_until(
            lambda: any("sleep" in one.name() for one in psutil.Process(process.pid).children(recursive=True))
        )
        done = stopping.stop(Layout(spool_dir), force=True, timeout=15, report=lambda _: None)
    finally:
        process.kill()
        process.wait()
    assert (done.ended, done.busy) == (1, [])
    assert where_is(spool_dir, "long") == ["pending"]
    assert json.loads((spool_dir / "pending" / "long.json").read_text()).get("attempts", 0) == 0
    assert processes_of(spool_dir) == []
