"""Workers as processes: they start or say why not, outlive terminals, and can be stopped from anywhere."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from terminal import in_a_terminal

from queuectl import Spool
from queuectl.control import commands
from queuectl.control.registration import Registration, Reservation
from queuectl.errors import WorkerError
from queuectl.layout import Layout
from queuectl.worker import pool, stopping
from queuectl.worker.pool import Starter
from queuectl.worker.program import WorkerOptions

from support import (
    drop,
    finished,
    load,
    no_thread_to_have,
    processes_of,
    read_only,
    run_cli,
    wait_until,
    where_is,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Cli = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="commands are written for sh, signals are sent"
)

UNTIL_GO = 'touch "$HOME/begun"; while [ ! -e "$HOME/go" ]; do sleep 0.05; done; echo over'
QUEUECTL = [sys.executable, "-u", "-m", "queuectl"]


def pids(started: subprocess.CompletedProcess[str]) -> dict[str, int]:
    """The workers that `worker start` named, and their numbers."""
    return {name: int(pid) for name, pid in re.findall(r"\[(worker-\d+)\] started PID=(\d+)", started.stdout)}


def is_alive(pid: int) -> bool:
    """Whether this number is a running process; a zombie is not."""
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def living(spool_dir: Path) -> dict[str, int]:
    return {worker.name: worker.pid for worker in Spool(spool_dir).workers()}


def begin_long_job(spool_dir: Path, **fields: Any) -> Path:
    """Queue a job that runs until the file is made whose path is returned."""
    Spool(spool_dir).enqueue(UNTIL_GO, **{"id": "long", "timeout": 0, **fields})
    return spool_dir.parent / "home" / "go"


def wait_for_begin(spool_dir: Path) -> None:
    wait_until((spool_dir.parent / "home" / "begun").exists)


def foreground(*args: str, **options: Any) -> subprocess.Popen[str]:
    """A worker in a terminal's foreground: its process group is what Ctrl+C reaches."""
    return subprocess.Popen(
        [*QUEUECTL, "worker", "start", "--foreground", *args],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        **options,
    )


def press_ctrl_c(process: subprocess.Popen[str]) -> None:
    os.killpg(process.pid, signal.SIGINT)


# -- starting and stopping ---------------------------------------------------------------------------------------------


def test_start_stop_and_list_agree_from_different_folders(
    spool_dir: Path, tmp_path: Path, workers: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing depends on the current folder or on the terminal."""
    monkeypatch.delenv("QUEUECTL_SPOOL")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    started = run_cli("--spool", "spool", "worker", "start", "--count", "2", cwd=tmp_path, expect=0)
    assert living(spool_dir) == pids(started)
    listed = run_cli("worker", "list", "--spool", "../spool", cwd=elsewhere, expect=0).stdout
    assert all(f"PID={pid}" in listed for pid in pids(started).values())
    stopped = run_cli("worker", "stop", cwd="/", env={"QUEUECTL_SPOOL": str(spool_dir)}, expect=0)
    assert stopped.stdout == "Stopped 2 worker(s)\n"
    wait_until(lambda: not any(is_alive(pid) for pid in pids(started).values()))
    assert not list(tmp_path.glob("*.pid"))
    assert not list(elsewhere.iterdir())


def test_start_says_what_the_contract_says(spool_dir: Path, workers: Cli) -> None:
    """One line a worker, the number of them, and their PIDs; each of them is ready when the command returns."""
    started = workers(3)
    team = pids(started)
    assert list(team) == ["worker-0", "worker-1", "worker-2"]
    assert started.stdout.splitlines()[-2:] == ["Started 3 worker(s)", f"Worker PIDs: {list(team.values())}"]
    assert living(spool_dir) == team


@pytest.mark.parametrize("count", ["0", "-1", "many", "1.5"])
def test_a_count_that_is_none_is_refused(cli: Cli, count: str) -> None:
    """A count below one, or one that is not a number, is a usage error, and nothing is started."""
    refused = cli("worker", "start", "--count", count, expect=2)
    assert "count" in refused.stderr


def test_stop_waits_for_the_job_in_hand_and_takes_no_other(spool_dir: Path, workers: Cli) -> None:
    """A stop while a job runs: the job is completed, the next one keeps waiting, and the command names the busy worker."""
    go = begin_long_job(spool_dir)
    workers(1)
    wait_for_begin(spool_dir)
    Spool(spool_dir).enqueue("true", id="next")
    stopping = subprocess.Popen(
        [*QUEUECTL, "worker", "stop"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert stopping.stderr
    assert "long" in stopping.stderr.readline()
    assert stopping.poll() is None
    go.touch()
    out, _ = stopping.communicate(timeout=20)
    assert (out, stopping.returncode) == ("Stopped 1 worker(s)\n", 0)
    assert where_is(spool_dir, "long") == ["done"]
    assert where_is(spool_dir, "next") == ["pending"]
    assert load(spool_dir / "pending" / "next.json").get("attempts", 0) == 0


def test_a_stop_is_not_undone_by_the_next_start(spool_dir: Path, cli: Cli, workers: Cli) -> None:
    """Stop while busy, start again at once: the old worker leaves after its job, the new one stays."""
    go = begin_long_job(spool_dir)
    old = pids(workers(1))
    wait_for_begin(spool_dir)
    told = cli("worker", "stop", "--timeout", "0", expect=1)
    assert "still running" in told.stderr
    new = pids(workers(1))
    assert not set(old) & set(new)
    assert living(spool_dir) == old | new
    go.touch()
    wait_until(lambda: living(spool_dir) == new)
    assert where_is(spool_dir, "long") == ["done"]
    Spool(spool_dir).enqueue("true", id="next")
    wait_until(lambda: finished(spool_dir, "next"))


def test_one_stop_ends_the_workers_of_two_starts(spool_dir: Path, cli: Cli, workers: Cli) -> None:
    """A second start adds workers and overwrites nothing: all four are known, and one stop is for all."""
    team = pids(workers(2)) | pids(workers(2))
    assert len(team) == 4
    assert living(spool_dir) == team
    assert json.loads(cli("status", "--json").stdout)["workers"] == 4
    assert cli("worker", "stop", expect=0).stdout == "Stopped 4 worker(s)\n"
    assert living(spool_dir) == {}


def test_names_stay_unique_when_one_in_the_middle_dies(spool_dir: Path, workers: Cli) -> None:
    """Kill the second of three and start one: no two workers have the same name."""
    team = pids(workers(3))
    os.kill(team["worker-1"], signal.SIGKILL)
    wait_until(lambda: "worker-1" not in living(spool_dir))
    fresh = pids(workers(1))
    assert fresh.keys() == {"worker-1"}
    assert living(spool_dir) == team | fresh


@pytest.mark.parametrize("lie", ["its number", "its whole identity"])
def test_another_process_in_a_worker_record_is_left_alone(
    spool_dir: Path, cli: Cli, workers: Cli, lie: str
) -> None:
    """An old record that names an unrelated process does not prevent a start, and that process is neither counted nor signalled."""
    from queuectl.system.host import boot_id
    from queuectl.system.process import start_time

    workers(1)
    cli("worker", "stop", expect=0)
    stranger = subprocess.Popen(["sleep", "60"])
    try:
        started = start_time(stranger.pid) if lie == "its whole identity" else 1.0
        record = {"name": "worker-0", "pid": stranger.pid, "process_started": started, "boot_id": boot_id()}
        path = spool_dir / "data" / "workers" / "worker-0.json"
        path.write_text(json.dumps({**record, "started_at": "2026-01-01T00:00:00Z", "mode": "background"}))
        assert living(spool_dir) == {}
        assert cli("worker", "stop", expect=0).stdout == "No workers to stop\n"
        assert pids(workers(1)).keys() == {"worker-0"}
        assert cli("worker", "stop", "--force", expect=0).stdout == "Stopped 1 worker(s)\n"
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_stop_without_workers_is_no_error(spool_dir: Path, cli: Cli) -> None:
    """Even where there is no spool yet, and twice."""
    for _ in range(2):
        stopped = cli("worker", "stop", expect=0)
        assert (stopped.stdout, stopped.stderr) == ("No workers to stop\n", "")


def test_stops_at_the_same_time_get_along(spool_dir: Path, workers: Cli) -> None:
    """Three stops at once all end well, and no worker is left."""
    workers(3)
    stops = [subprocess.Popen([*QUEUECTL, "worker", "stop"], stdout=subprocess.DEVNULL) for _ in range(3)]
    assert [stop.wait(30) for stop in stops] == [0, 0, 0]
    assert living(spool_dir) == {}


def test_a_stop_amid_a_start_leaves_no_half_worker(spool_dir: Path, cli: Cli, workers: Cli) -> None:
    """A stop while workers are starting: each of them either leaves in good order or keeps running."""
    starting = subprocess.Popen(
        [*QUEUECTL, "worker", "start", "--count", "3"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until(lambda: Spool(spool_dir).workers() or starting.poll() is not None)
    stopped = cli("worker", "stop", expect=0)
    out, complaint = starting.communicate(timeout=30)
    assert (starting.returncode, complaint) == (0, ""), complaint
    assert len(re.findall("started PID", out)) == 3
    left = living(spool_dir)
    assert len(left) <= 3 - int(re.sub(r"\D", "", stopped.stdout) or 0)
    cli("worker", "stop", expect=0)
    assert living(spool_dir) == {}


def test_force_ends_the_tree_and_puts_the_job_back_uncharged(spool_dir: Path, cli: Cli, workers: Cli) -> None:
    """`stop --force`: every process of the job is gone, the job waits as before, and runs again later."""
    ids = spool_dir.parent / "ids"
    command = f'echo $$ >> {ids}; [ -e "$HOME/go" ] && exit 0; sleep 60 & echo $! >> {ids}; touch "$HOME/begun"; wait'
    Spool(spool_dir).enqueue(command, id="job1", max_retries=1)
    workers(1)
    wait_for_begin(spool_dir)
    began = time.monotonic()
    assert cli("worker", "stop", "--force", expect=0).stdout == "Stopped 1 worker(s)\n"
    assert time.monotonic() - began < 5
    assert not any(is_alive(int(pid)) for pid in ids.read_text().split())
    record = load(spool_dir / "pending" / "job1.json")
    assert record["attempts"] == 0
    assert [entry["outcome"] for entry in record["history"]] == ["stopped"]
    (spool_dir.parent / "home" / "go").touch()
    workers(1)
    wait_until(lambda: finished(spool_dir, "job1"))
    assert load(spool_dir / "done" / "job1.json")["attempts"] == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_a_background_worker_gracefully(spool_dir: Path, workers: Cli, number: int) -> None:
    """kill, and the machine's shutdown, let the running job finish."""
    go = begin_long_job(spool_dir)
    team = pids(workers(1))
    wait_for_begin(spool_dir)
    os.kill(team["worker-0"], number)
    os.kill(team["worker-0"], number)
    time.sleep(0.3)
    go.touch()
    wait_until(lambda: living(spool_dir) == {})
    assert where_is(spool_dir, "long") == ["done"]


# -- in the foreground -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 3])
def test_ctrl_c_lets_the_job_finish(spool_dir: Path, count: int) -> None:
    """Ctrl+C reaches the whole foreground group, and yet the job ends by itself and the exit code is 0."""
    go = begin_long_job(spool_dir)
    worker = foreground("--count", str(count))
    wait_for_begin(spool_dir)
    wait_until(lambda: len(living(spool_dir)) == count)
    press_ctrl_c(worker)
    time.sleep(0.3)
    assert worker.poll() is None
    go.touch()
    out, _ = worker.communicate(timeout=20)
    assert worker.returncode == 0, out
    record = load(spool_dir / "done" / "long.json")
    assert (record["attempts"], record["exit_code"], record["output"]) == (1, 0, "over\n")
    assert "executing job long" in out
    assert "completed long" in out
    assert living(spool_dir) == {}


@pytest.mark.parametrize("count", [1, 2])
def test_a_second_ctrl_c_forces(spool_dir: Path, count: int) -> None:
    """The second Ctrl+C ends the job and puts it back, uncharged."""
    begin_long_job(spool_dir)
    worker = foreground("--count", str(count))
    wait_for_begin(spool_dir)
    press_ctrl_c(worker)
    time.sleep(0.3)
    press_ctrl_c(worker)
    out, _ = worker.communicate(timeout=20)
    assert worker.returncode == 0, out
    assert load(spool_dir / "pending" / "long.json")["attempts"] == 0
    assert not processes_of(spool_dir)


def test_three_in_the_foreground_share_one_terminal(spool_dir: Path) -> None:
    """`--foreground --count 3` shows the lines of three workers, whole, and leaves when drained."""
    ids = [Spool(spool_dir).enqueue("sleep 0.2").id or "" for _ in range(9)]
    worker = foreground("--count", "3", "--drain")
    out, _ = worker.communicate(timeout=30)
    assert worker.returncode == 0, out
    assert finished(spool_dir, *ids)
    assert set(re.findall(r"^\[(worker-\d)\] completed ", out, re.MULTILINE)) >= {"worker-0", "worker-1"}
    assert sorted(re.findall(r"completed (\S+)$", out, re.MULTILINE)) == sorted(ids)


def test_workers_in_the_foreground_leave_with_their_terminal(spool_dir: Path) -> None:
    """The process in the terminal is killed: its workers finish their jobs and leave, and nothing keeps running."""
    go = begin_long_job(spool_dir)
    worker = foreground("--count", "2")
    wait_for_begin(spool_dir)
    wait_until(lambda: len(living(spool_dir)) == 2)
    worker.kill()
    worker.wait()
    wait_until(lambda: len(living(spool_dir)) == 1)
    go.touch()
    worker.communicate(timeout=20)
    wait_until(lambda: living(spool_dir) == {})
    assert where_is(spool_dir, "long") == ["done"]


def test_background_workers_outlive_the_terminal(spool_dir: Path, workers: Cli) -> None:
    """The terminal in which workers were started is closed: they go on, and their jobs too."""
    go = begin_long_job(spool_dir)
    shell, terminal = in_a_terminal(f"{' '.join(QUEUECTL)} worker start --count 2; touch $HOME/up; sleep 60")
    wait_for_begin(spool_dir)
    wait_until((spool_dir.parent / "home" / "up").exists)
    team = living(spool_dir)
    os.close(terminal)
    shell.wait(10)
    time.sleep(0.3)
    assert living(spool_dir) == team
    go.touch()
    wait_until(lambda: finished(spool_dir, "long"))
    assert where_is(spool_dir, "long") == ["done"]


@pytest.mark.parametrize("count", [1, 2])
def test_a_foreground_worker_whose_terminal_closes_finishes_its_job(spool_dir: Path, count: int) -> None:
    """A hang-up is a graceful stop: the job finishes although nothing can be printed any more."""
    go = begin_long_job(spool_dir)
    command = f"exec {' '.join(QUEUECTL)} worker start --foreground --count {count}"
    worker, terminal = in_a_terminal(command)
    wait_for_begin(spool_dir)
    os.close(terminal)
    time.sleep(0.3)
    go.touch()
    worker.wait(20)
    assert where_is(spool_dir, "long") == ["done"]
    assert living(spool_dir) == {}


# -- draining ----------------------------------------------------------------------------------------------------------


def test_drain_leaves_when_nothing_is_left_to_do_now(spool_dir: Path) -> None:
    """Retries and schedules are left for the next time; with --wait-retries they are run first."""
    spool = Spool(spool_dir)
    spool.enqueue("exit 1", id="failing", max_retries=2, backoff_base=600)
    spool.enqueue("true", id="later", delay=600)
    spool.enqueue("true", id="much-later", delay=3600)
    drop(spool_dir, "dropped", command="true")
    out, _ = foreground("--drain").communicate(timeout=20)
    assert finished(spool_dir, "dropped"), out
    assert load(spool_dir / "pending" / "failing.json")["attempts"] == 1
    assert where_is(spool_dir, "later") == ["pending"]
    spool.forget("much-later")
    for job_id, moment in (("failing", "next_retry_at"), ("later", "run_at")):
        record = load(spool_dir / "pending" / f"{job_id}.json")
        soon = datetime.fromtimestamp(time.time() + 0.5, UTC).isoformat()
        drop(spool_dir, job_id, **{**record, moment: soon})
    out, _ = foreground("--drain", "--wait-retries").communicate(timeout=20)
    assert where_is(spool_dir, "failing") == ["dead"], out
    assert where_is(spool_dir, "later") == ["done"]


def test_drain_in_the_background_leaves_by_itself(spool_dir: Path, workers: Cli) -> None:
    """For cron: two workers are started, do what is there, and are gone without a stop."""
    ids = [Spool(spool_dir).enqueue("true").id or "" for _ in range(5)]
    workers(2, "--drain")
    wait_until(lambda: not processes_of(spool_dir))
    assert finished(spool_dir, *ids)
    assert not [path for path in (spool_dir / "data" / "workers").iterdir() if path.suffix == ".json"]


# -- faults ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["/proc/nowhere/spool", "file/spool"])
@pytest.mark.parametrize("mode", ["background", "foreground"])
def test_a_spool_that_cannot_be_made_is_an_error(cli: Cli, tmp_path: Path, where: str, mode: str) -> None:
    """`worker start` where nothing can be written: not 0, a reason that names the place, nothing left running."""
    (tmp_path / "file").write_text("")
    flags = ["--foreground"] if mode == "foreground" else []
    refused = cli("--spool", tmp_path / where, "worker", "start", *flags)
    assert refused.returncode in (1, 3)
    assert refused.stdout == ""
    assert f"{tmp_path / where}".startswith(refused.stderr.split(": ")[1].rpartition(" ")[2])
    assert "Traceback" not in refused.stderr


def test_a_read_only_spool_is_an_error_at_the_start(spool_dir: Path, cli: Cli) -> None:
    """Reported by the command that starts, not found later in a log."""
    Spool(spool_dir).enqueue("true", id="job1")
    with read_only(spool_dir):
        refused = cli("worker", "start", "--count", "2", expect=1)
    assert "read-only" in refused.stderr.lower() or "permission" in refused.stderr.lower()
    assert "Started" not in refused.stdout
    assert where_is(spool_dir, "job1") == ["pending"]
    assert not processes_of(spool_dir)


def test_a_spool_that_is_read_only_for_a_moment_loses_nothing(spool_dir: Path, workers: Cli) -> None:
    """The disk refuses while a job ends and others wait: the worker lives, and all jobs are done once."""
    spool = Spool(spool_dir)
    go = begin_long_job(spool_dir)
    spool.enqueue("echo >> $HOME/ran", id="next", max_retries=1)
    team = pids(workers(1))
    wait_for_begin(spool_dir)
    log = spool_dir / "data" / "workers" / "worker-0.log"
    with read_only(spool_dir):
        go.touch()
        wait_until(lambda: "cannot record" in log.read_text(), message=log.read_text)
        time.sleep(1.5)
    wait_until(lambda: finished(spool_dir, "long", "next"), message=log.read_text)
    assert living(spool_dir) == team
    for job_id in ("long", "next"):
        record = load(spool_dir / "done" / f"{job_id}.json")
        assert (record["attempts"], len(record["history"])) == (1, 1)
    assert log.read_text().count("cannot record") == 1


def test_an_idle_worker_outlives_a_read_only_moment(spool_dir: Path, workers: Cli) -> None:
    """Nothing can be claimed meanwhile, and nothing is charged; afterwards the waiting job runs."""
    team = pids(workers(1))
    Spool(spool_dir).enqueue("true", id="first")
    wait_until(lambda: finished(spool_dir, "first"))
    log = spool_dir / "data" / "workers" / "worker-0.log"
    moved = spool_dir / "pending" / "job1.json"
    with read_only(spool_dir / "processing"):
        moved.write_text('{"command": "true", "max_retries": 1}')
        wait_until(lambda: "disk error" in log.read_text(), message=log.read_text)
        assert where_is(spool_dir, "job1") == ["pending"]
    wait_until(lambda: finished(spool_dir, "job1"), message=log.read_text)
    assert load(spool_dir / "done" / "job1.json")["attempts"] == 1
    assert living(spool_dir) == team


@pytest.mark.parametrize("place", ["", "pending", "data/workers"])
def test_a_spool_that_others_can_write_is_refused(spool_dir: Path, cli: Cli, place: str) -> None:
    """Who can write into the spool can run commands as the worker's user: no worker starts on such a one."""
    Spool(spool_dir).enqueue("true", id="job1")
    (spool_dir / place).chmod(0o777)
    for flags in ([], ["--foreground", "--drain"]):
        refused = cli("worker", "start", *flags, expect=1)
        assert "written by others" in refused.stderr
        assert "chmod" in refused.stderr
    assert where_is(spool_dir, "job1") == ["pending"]


def test_the_log_can_be_read(spool_dir: Path, cli: Cli, workers: Cli) -> None:
    """What background workers did stands in their log, with the time, and `worker logs` shows it."""
    Spool(spool_dir).enqueue("echo hi; exit 3", id="job1", max_retries=1)
    workers(1)
    wait_until(lambda: finished(spool_dir, "job1"))
    cli("worker", "stop", expect=0)
    shown = cli("worker", "logs", expect=0).stdout
    stamp = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ \[worker-0\] "
    assert re.search(rf"^{stamp}started PID=\d+$", shown, re.MULTILINE)
    assert re.search(rf"^{stamp}executing job job1: echo hi; exit 3$", shown, re.MULTILINE)
    assert re.search(rf"^{stamp}dead job1: Exit code 3$", shown, re.MULTILINE)
    assert re.search(rf"^{stamp}stopped after 1 attempt", shown, re.MULTILINE)


def links_of(pid: int) -> list[str]:
    """What a process has open."""
    found = []
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            found.append(os.readlink(f"/proc/{pid}/fd/{fd}"))
    return found


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc")
def test_a_job_inherits_nothing_of_its_worker(spool_dir: Path, workers: Cli) -> None:
    """Jobs inherit no lock, index, watch or socket of the worker except the run lock, and their input is empty."""
    command = 'for fd in /proc/self/fd/*; do echo "$(basename $fd) $(readlink $fd)"; done; cat'
    secret = os.open(spool_dir.parent, os.O_RDONLY)
    # Like a descriptor that a shell redirected. The number must be free, or another test's descriptor would be closed.
    handed_on = fcntl.fcntl(secret, fcntl.F_DUPFD, 57)
    worker = foreground(pass_fds=(handed_on,))
    os.close(handed_on)
    os.close(secret)
    Spool(spool_dir).enqueue("true", id="before")
    wait_until(lambda: finished(spool_dir, "before"))
    wait_until(lambda: any("inotify" in link for link in links_of(worker.pid)))
    spool = Spool(spool_dir)
    for number in range(2):
        spool.enqueue(command, id=f"job{number}", timeout=5)
    wait_until(lambda: finished(spool_dir, "job0", "job1"))
    press_ctrl_c(worker)
    worker.communicate(timeout=20)
    for number in range(2):
        lines = load(spool_dir / "done" / f"job{number}.json")["output"].splitlines()
        links = dict(line.split(" ", 1) for line in lines if " " in line)
        of_spool = {link for link in links.values() if str(spool_dir) in link}
        kept = {f"{spool_dir}/data/workers/worker-0.{kind}" for kind in ("out", "err", "run")}
        assert of_spool <= kept, links
        assert links["0"] == "/dev/null"
        assert str(handed_on) not in links
        assert not [
            link for link in links.values() if "socket" in link or "inotify" in link or "pidfd" in link
        ]


# -- ends that come too early ------------------------------------------------------------------------------------------


def test_a_worker_whose_starter_died_works_all_the_same(spool_dir: Path, cli: Cli, workers: Cli) -> None:
    """`worker start` may be killed before the worker answers. The worker runs although nobody reads its answer."""
    Spool(spool_dir).enqueue("echo hi", id="job")
    read, write = os.pipe()
    process = subprocess.Popen(
        [*QUEUECTL, "worker", "run", "--mode", "background"],
        stdin=subprocess.DEVNULL,
        stdout=write,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    os.close(write)
    os.close(read)
    wait_until(lambda: finished(spool_dir, "job"))
    assert living(spool_dir) == {"worker-0": process.pid}
    assert "Traceback" not in cli("worker", "logs", expect=0).stdout
    cli("worker", "stop", expect=0)
    assert process.wait(5) == 0


@pytest.mark.parametrize("force", [False, True], ids=["graceful", "force"])
def test_a_stopped_worker_is_gone_when_stop_returns(
    spool_dir: Path, workers: Cli, cli: Cli, force: bool
) -> None:
    """It waits until the process has ended, so that people can then unmount the disk or upgrade Python."""
    for _ in range(3):
        numbers = pids(workers(3))
        cli("worker", "stop", *["--force"] * force, expect=0)
        assert not [pid for pid in numbers.values() if is_alive(pid)]


def test_stop_waits_for_the_process_and_not_for_its_name(spool_dir: Path) -> None:
    """A worker that has given its name back and has not ended yet is still reported as busy."""
    layout = Layout(spool_dir)
    layout.create()
    code = (
        "import sys, time; from queuectl.layout import Layout; from queuectl.control.registration import Registration;"
        "registration = Registration.acquire(Layout(sys.argv[1])); registration.announce('background'); print('here', flush=True);"
        "import signal; signal.signal(signal.SIGTERM, lambda *_: None); signal.pause(); registration.release();"
        "print('left', flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(spool_dir)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin
    assert process.stdout
    try:
        assert process.stdout.readline() == "here\n"
        done = stopping.stop(layout, force=False, timeout=1, report=lambda _: None)
        assert process.stdout.readline() == "left\n"
        assert (done.ended, [info.name for info in done.busy]) == (0, ["worker-0"])
    finally:
        process.communicate("")


def test_a_worker_that_was_still_starting_is_asked_to_stop_once(
    spool_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It got a note and a signal twenty times a second, each with two waits for the disk, until its job had ended."""
    layout = Layout(spool_dir)
    layout.create()
    place = Reservation(layout)
    asked: list[str] = []

    def ask(_layout: Layout, name: str, *, force: bool) -> bool:
        asked.append(f"{name} {force}")
        return True

    monkeypatch.setattr(commands, "request_stop", ask)
    starts = threading.Timer(0.2, lambda: registration.announce("background"))
    registration = Registration(layout, place.name, place._lock)
    starts.start()

    done = stopping.stop(layout, force=False, timeout=1, report=lambda _: None, names=["worker-0"])

    starts.join()
    registration.release()
    assert (done.ended, [info.name for info in done.busy]) == (0, ["worker-0"])
    assert asked == ["worker-0 False"]


def test_names_for_many_workers_are_taken_without_a_wait_for_each(
    spool_dir: Path, workers: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A held lock might only be probed, which takes an instant. Waiting at each one, 64 workers took five minutes to start."""
    workers(3)
    starter = Starter(Layout(spool_dir), "background", WorkerOptions(), time.time())
    pauses: list[float] = []
    monkeypatch.setattr("queuectl.system.locks.time.sleep", pauses.append)
    places = starter.reserve_all(20)
    try:
        assert [place.name for place in places if place] == [f"worker-{number}" for number in range(3, 23)]
        assert pauses == []
    finally:
        for place in places:
            if place:
                place.give_back()


def test_a_start_that_cannot_be_limited_in_time_leaves_nothing(spool_dir: Path) -> None:
    """At the limit of processes `worker start` ended with a traceback, and left a worker that nobody had told of."""
    with no_thread_to_have(), pytest.raises(WorkerError, match=r"did not start: .*start new thread"):
        pool.start(Spool(spool_dir).layout, 1, WorkerOptions())
    assert living(spool_dir) == {}
    assert processes_of(spool_dir) == []
