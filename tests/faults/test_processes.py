"""Processes under fire: killed and stopped workers, stubborn jobs, storms of signals, limits of the system, foreign pids."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from queuectl import Spool
from queuectl.layout import Layout
from queuectl.system.process import start_time

from support import drop, drop_bytes, end_workers, finished, load, processes_of, run_cli, wait_until, where_is

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc, and sets limits")
MANY = int(os.environ.get("QUEUECTL_TEST_JOBS", "300"))
"""Jobs in the tests of crowds; reliability.md asks for 5000."""

ROUNDS = int(os.environ.get("QUEUECTL_TEST_ROUNDS", "8"))
"""Workers that are met by a storm of signals."""

LIMITED = 12347
"""A user of whom there are no other processes, so that a limit counts only ours."""


def kill_worker(spool: Path, name: str = "worker-0") -> None:
    (info,) = [one for one in Spool(spool).workers() if one.name == name]
    os.kill(info.pid, signal.SIGKILL)
    wait_until(lambda: name not in [one.name for one in Spool(spool).workers()])


def home_of(spool: Path) -> Path:
    return spool.parent / "home"


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


# -- a worker is killed, and its job is stubborn -------------------------------------------------------------------

FIRST = 'if mkdir $HOME/first 2>/dev/null; then %s; else for p in $(cat $HOME/pids); do grep -sq "^State:.[^Z]" /proc/$p/status && echo $p >> $HOME/beside; done; fi; :'
NOTE = "echo $$ >> $HOME/pids"
CLEARED = (
    "env -i HOME=$HOME " + sys.executable + " -c 'import os, time; os.closerange(0, 256); "
    'os.write(os.open(os.environ["HOME"] + "/pids", 1089), str(os.getpid()).encode() + b"\\n"); time.sleep(60)\''
)
"""Has no environment and no descriptor any more when it notes its pid: only its session tells whose it is."""

JOBS = {
    "plain": f"{NOTE}; exec sleep 60",
    "forking": f"{NOTE}; for i in 1 2 3; do sh -c '{NOTE}; sleep 60; :' & done; wait",
    "setsid": f"{NOTE}; setsid sh -c '{NOTE}; sleep 60; :' & sleep 60",
    "ignores_term": f"trap '' TERM INT HUP; {NOTE}; while :; do sleep 0.05; done",
    "stopped": f"sh -c '{NOTE}; kill -STOP $$; sleep 60' & {NOTE}; kill -STOP $$; sleep 60",
    "no_environment": f"{NOTE}; (env -i HOME=$HOME setsid sh -c '{NOTE}; sleep 60; :' &) ; sleep 60",
    "cleared": f"exec {CLEARED}",
    "cleared_child": f"{NOTE}; {CLEARED} & while kill -0 $PPID; do sleep 0.01; done",
    "ends_with_its_worker": f"{NOTE}; while kill -0 $PPID; do sleep 0.01; done",
}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "concurrency"),
    [*((kind, 1) for kind in JOBS), ("forking", 8), ("no_environment", 64), ("cleared_child", 8)],
    ids=[*JOBS, "forking-8", "no_environment-64", "cleared_child-8"],
)
def test_a_killed_workers_job_runs_again_alone(
    spool_dir: Path, workers: Callable[..., Any], cli: Callable[..., Any], kind: str, concurrency: int
) -> None:
    """Whatever its processes do: the second run begins when nothing of the first one is alive, and no attempt is charged.

    With slots beside it, in which others were started just before and just after.
    """
    beside = ["before", "after"] if concurrency > 1 else []
    for name in beside:
        drop(
            spool_dir,
            name,
            command="[ -e $HOME/first.over ] || sleep 60",
            priority=10 if name == "before" else 1,
            timeout=0,
        )
    if beside:
        cli("config", "set", "concurrency", concurrency, expect=0)
    drop(spool_dir, "job", command=FIRST % JOBS[kind], timeout=0)
    workers(1)
    pids = home_of(spool_dir) / "pids"
    expected = {"forking": 4, "setsid": 2, "stopped": 2, "no_environment": 2, "cleared_child": 2}.get(kind, 1)
    wait_until(lambda: len(lines(pids)) == expected)
    if kind.startswith(
        "cleared"
    ):  # only its session tells whose it is, and that is noted some milliseconds after the start
        run_file = Layout(str(spool_dir)).worker_file("worker-0", "run")
        wait_until(lambda: "\nsession " in Path(run_file).read_text())
    wait_until(lambda: all(where_is(spool_dir, name) == ["processing/worker-0"] for name in beside))
    (home_of(spool_dir) / "first.over").touch()
    kill_worker(spool_dir)
    workers(2)
    wait_until(lambda: finished(spool_dir, "job", *beside), 30)
    record = load(spool_dir / "done" / "job.json")
    assert [entry["outcome"] for entry in record["history"]] == ["interrupted", "succeeded"]
    assert (record["attempts"], record.get("crashes", 0)) == (1, 0)
    assert lines(home_of(spool_dir) / "beside") == []
    assert not [pid for pid in lines(pids) if is_alive(int(pid))]


HIDE = r"""
import array, os, socket, sys, time
mine = [int(fd) for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}")
        and os.readlink(f"/proc/self/fd/{fd}").endswith(".run")]
one, other = socket.socketpair()
one.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", mine))])
for fd in mine:
    os.close(fd)
open(sys.argv[1] + "/hidden", "w").write(str(os.getpid()))
while not os.path.exists(sys.argv[1] + "/go"):
    time.sleep(0.02)
"""
"""Keeps the run lock where no list of open files shows it: in a message on its way."""


def test_a_run_that_cannot_be_found_is_waited_for(
    spool_dir: Path, workers: Callable[..., Any], cli: Callable[..., Any], tmp_path: Path
) -> None:
    """Only the run lock tells of it. The job waits, other jobs run, logs and `status` say why; it goes on by itself."""
    (tmp_path / "hide.py").write_text(HIDE)
    hide = f"(env -i setsid {sys.executable} {tmp_path}/hide.py $HOME &) ; {NOTE}; sleep 60"
    drop(spool_dir, "job", command=FIRST % hide, timeout=0)
    workers(1)
    hidden = home_of(spool_dir) / "hidden"
    wait_until(lambda: hidden.exists() and hidden.read_text())
    kill_worker(spool_dir)
    try:
        workers(1)
        drop(spool_dir, "other", command="true")
        wait_until(lambda: finished(spool_dir, "other"), 30)
        wait_until(lambda: "cannot take back job" in cli("worker", "logs").stdout, 30)
        assert "job job of worker-0" in cli("status", expect=0).stderr
        assert where_is(spool_dir, "job") == ["processing/worker-0"]
        assert cli("worker", "logs").stdout.count("cannot take back job") == 1
        assert is_alive(int(hidden.read_text()))
    finally:
        (home_of(spool_dir) / "go").touch()
    wait_until(lambda: finished(spool_dir, "job"), 30)
    assert where_is(spool_dir, "job") == ["done"]
    assert lines(home_of(spool_dir) / "beside") == []
    assert cli("status").stderr == ""


def test_a_stopped_worker_keeps_its_job(spool_dir: Path, workers: Callable[..., Any]) -> None:
    """SIGSTOP is no death: its job runs once, while others work on, and is recorded after CONT."""
    drop(spool_dir, "job", command="echo run >> $HOME/runs; sleep 0.5")
    workers(2)
    wait_until(lambda: lines(home_of(spool_dir) / "runs"))
    (info,) = [one for one in Spool(spool_dir).workers() if one.job_id == "job"]
    os.kill(info.pid, signal.SIGSTOP)
    try:
        for number in range(4):  # each of them a look for dead workers
            drop(spool_dir, f"other{number}", command="sleep 0.5")
        wait_until(lambda: finished(spool_dir, *(f"other{number}" for number in range(4))), 30)
        assert where_is(spool_dir, "job") == [f"processing/{info.name}"]
    finally:
        os.kill(info.pid, signal.SIGCONT)
    wait_until(lambda: finished(spool_dir, "job"))
    assert lines(home_of(spool_dir) / "runs") == ["run"]
    assert load(spool_dir / "done" / "job.json")["attempts"] == 1


def test_two_rescuers_and_ten_workers_run_each_job_once(
    spool_dir: Path, workers: Callable[..., Any], cli: Callable[..., Any]
) -> None:
    """No-op jobs by the hundred; some workers die with theirs, and two come at once to take them back."""
    ids = [f"job{number}" for number in range(MANY)]
    text = "\n".join(json.dumps({"id": one, "command": ["true"]}) for one in ids)
    cli("enqueue", "--file", "-", stdin=text, expect=0)
    for number in range(3):
        drop(
            spool_dir,
            f"held{number}",
            priority=10,
            command=f"echo {number} >> $HOME/held; sleep 60",
            timeout=0,
            on_crash="retry",
        )
    workers(10)
    wait_until(lambda: len(lines(home_of(spool_dir) / "held")) == 3, 30)
    (home_of(spool_dir) / "held").rename(home_of(spool_dir) / "was_held")
    for info in Spool(spool_dir).workers():
        if (info.job_id or "").startswith("held"):
            os.kill(info.pid, signal.SIGKILL)
    rescuers = [
        subprocess.Popen(
            [sys.executable, "-m", "queuectl", "worker", "start", "--foreground", "--drain"],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for _ in range(2)
    ]  # fmt: skip
    wait_until(lambda: len(lines(home_of(spool_dir) / "held")) == 3, 60)
    for number in range(3):
        cli("cancel", f"held{number}", expect=0)
    wait_until(lambda: finished(spool_dir, "held0", "held1", "held2"), 30)
    wait_until(
        lambda: sum(Spool(spool_dir).counts().values()) - Spool(spool_dir).counts()["completed"] == 3, 60
    )
    said = [rescuer.communicate(timeout=60)[0] for rescuer in rescuers]
    cli("worker", "stop", expect=0, timeout=60)
    for one in ids:
        record = load(spool_dir / "done" / f"{one}.json")
        assert [entry["outcome"] for entry in record["history"]] == ["succeeded"], one
    for text in [*said, cli("worker", "logs").stdout]:
        found = re.search(r"Traceback|trouble|cannot|rebuilt", text)
        assert not found, text[max(0, found.start() - 500) : found.end() + 2500]
    assert sorted(lines(home_of(spool_dir) / "held")) == ["0", "1", "2"]


# -- storms --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "concurrency"),
    [(("TERM", "HUP"), 1), (("TERM", "HUP", "INT"), 1), (("TERM", "HUP", "INT"), 8)],
    ids=["TERM-HUP", "TERM-HUP-INT", "TERM-HUP-INT-8"],
)
def test_a_storm_of_signals_loses_no_job_and_leaves_no_child(
    spool_dir: Path, names: tuple[str, ...], concurrency: int
) -> None:
    """While jobs are started as fast as can be: no process without a record, each job in one place, nothing twice.

    A second INT means "at once": it ends a job, which is put back and run again.
    """
    dice = random.Random(seed := random.randrange(10**6))
    numbers = [getattr(signal, f"SIG{name}") for name in names]
    ids = [f"job{number}" for number in range(MANY)]
    Spool(spool_dir).enqueue_many({"id": one, "command": f"echo {one} >> $HOME/runs"} for one in ids)
    several = ["--concurrency", str(concurrency)] * (concurrency > 1)
    command = [sys.executable, "-m", "queuectl", "worker", "start", "--foreground", *several]
    for turn in range(ROUNDS if concurrency == 1 else ROUNDS // 2):
        worker = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert worker.stdout is not None
        assert "started PID" in worker.stdout.readline()
        time.sleep(dice.uniform(0, 0.1))  # not a wait: the moment at which the storm comes
        for _ in range(40):
            worker.send_signal(dice.choice(numbers))
            time.sleep(dice.uniform(0.0003, 0.001))
        said, _ = worker.communicate(timeout=30)
        told = f"seed {seed}, turn {turn}: {said[-2000:]}"
        assert worker.returncode == 0, told
        assert "Traceback" not in said, told
        assert [process for process in processes_of(spool_dir) if is_alive(process.pid)] == [], told
        assert list((spool_dir / "processing").rglob("*.json")) == [], told
        counts = Spool(spool_dir).counts()
        assert sum(counts.values()) == MANY, told
        assert counts["completed"] + counts["pending"] == MANY, told
    run_cli("worker", "start", "--foreground", "--drain", expect=0, timeout=60 + MANY / 10)
    runs = lines(home_of(spool_dir) / "runs")
    assert set(runs) == set(ids)
    if "INT" not in names:
        assert len(runs) == MANY, seed
    assert Spool(spool_dir).counts()["completed"] == MANY


# -- limits --------------------------------------------------------------------------------------------------------


@pytest.fixture
def limited(tmp_path: Path) -> Iterator[tuple[Path, Callable[..., None]]]:
    """A spool and a worker of a user of whom there is nothing else; calling sets limits for that worker."""
    if os.geteuid() != 0:
        pytest.skip("only root can be another user")
    base = tempfile.mkdtemp(dir="/tmp")
    os.chown(base, LIMITED, LIMITED)
    spool = Path(base) / "spool"
    env = {**os.environ, "HOME": base, "QUEUECTL_SPOOL": str(spool)}
    become = ["setpriv", f"--reuid={LIMITED}", f"--regid={LIMITED}", "--clear-groups"]
    command = [*become, sys.executable, "-m", "queuectl"]
    subprocess.run(
        [*command, "config", "set", "min_free_space", "0"], env=env, cwd="/", check=True, capture_output=True
    )
    with (tmp_path / "said").open("w") as said:
        worker = subprocess.Popen(
            [*command, "worker", "start", "--foreground"], env=env, cwd="/", stdout=said, stderr=said
        )

    def limit(**limits: int | str) -> None:
        words = [
            f"--{name}={value}:" for name, value in limits.items()
        ]  # the soft ones, which it may raise again
        subprocess.run([*become, "prlimit", f"--pid={worker.pid}", *words], check=True)

    try:
        wait_until(lambda: [one for one in Spool(spool).workers() if one.pid])
        yield spool, limit
        told = (tmp_path / "said").read_text()
        assert worker.poll() is None, told
        assert "Traceback" not in told
    finally:
        end_workers(spool)
        worker.wait(20)
        shutil.rmtree(base)


EATER = "head -c 1500000000 /dev/zero | tail -n 1 > /dev/null"
"""A line that long is kept whole."""


def drop_as_limited(spool: Path, name: str, **fields: Any) -> None:
    # Readable before it is there: a worker may take it at once.
    path = drop_bytes(spool, f"{name}.json", json.dumps(fields).encode(), "tmp")
    path.chmod(0o644)
    path.rename(spool / "pending" / path.name)


def test_out_of_processes_no_job_is_charged_and_the_worker_says_why_it_waits(
    limited: tuple[Path, Callable[..., None]],
) -> None:
    """RLIMIT_NPROC: it can start nothing, so it pauses; when there is room again each job runs for the first time."""
    spool, limit = limited
    limit(nproc=1)
    for number in range(3):
        drop_as_limited(spool, f"job{number}", command="true", max_retries=1)
    wait_until(lambda: "cannot start a process" in (Spool(spool).workers()[0].paused or ""), 20)
    assert [where_is(spool, f"job{number}") for number in range(3)] == [["pending"]] * 3
    limit(nproc=1000)
    wait_until(lambda: finished(spool, "job0", "job1", "job2"), 20)
    for number in range(3):
        record = load(spool / "done" / f"job{number}.json")
        assert [entry["outcome"] for entry in record["history"]] == ["succeeded"]
    assert Spool(spool).workers()[0].paused is None


def test_out_of_descriptors_nothing_is_lost(limited: tuple[Path, Callable[..., None]]) -> None:
    """RLIMIT_NOFILE: not even a job file can be opened; it goes on by itself when there are some again."""
    spool, limit = limited
    (info,) = Spool(spool).workers()
    for spare in (0, 1, 2, 3, 4, 6, 8):
        open_now = len(os.listdir(f"/proc/{info.pid}/fd"))
        limit(nofile=open_now + spare)
        name = f"job{spare}"
        drop_as_limited(spool, name, command=f"echo {name} >> $HOME/runs", max_retries=50, backoff_base=1)
        time.sleep(0.7)  # not a wait: so long it lacks them
        limit(nofile=1000)
        wait_until(lambda name=name: finished(spool, name), 20)  # type: ignore[misc]
        assert where_is(spool, name) == ["done"]
    runs = lines(spool.parent / "runs")
    assert sorted(runs) == sorted(f"job{spare}" for spare in (0, 1, 2, 3, 4, 6, 8))


def is_idle(process: psutil.Process) -> bool:
    """Whether a worker watches, and takes no more memory than it did a moment ago."""
    before = process.memory_info().vms
    time.sleep(0.3)
    return watches(process) and process.memory_info().vms == before


def watches(process: psutil.Process) -> bool:
    """Whether it holds an inotify instance."""
    folder = f"/proc/{process.pid}/fd"
    with contextlib.suppress(FileNotFoundError):  # closed while we look
        return any("inotify" in os.readlink(f"{folder}/{fd}") for fd in os.listdir(folder))
    return False


def test_out_of_memory_the_attempt_is_recorded_and_the_worker_lives(
    limited: tuple[Path, Callable[..., None]],
) -> None:
    """RLIMIT_AS: of the job, which inherits it, and of the worker; both outcomes are in the record."""
    spool, limit = limited
    (info,) = Spool(spool).workers()
    process = psutil.Process(info.pid)
    wait_until(lambda: is_idle(process))
    limit(**{"as": process.memory_info().vms + (4 << 20)})
    drop_as_limited(spool, "job", command=EATER, max_retries=1)
    wait_until(lambda: finished(spool, "job"), 20)
    record = load(spool / "dead" / "job.json")
    assert record["attempts"] == 1
    assert record["history"][0]["outcome"] in {"failed", "signalled", "not_started"}
    limit(**{"as": "unlimited"})
    drop_as_limited(spool, "fine", command="true")
    wait_until(lambda: finished(spool, "fine"), 20)
    assert where_is(spool, "fine") == ["done"]


# -- pids that belong to somebody else -----------------------------------------------------------------------------


@pytest.fixture
def bystander(spool_dir: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that notes every signal it gets."""
    script = (
        "import signal, sys, time\n"
        "for n in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCONT, signal.SIGUSR1):\n"
        "    signal.signal(n, lambda n, _: open(sys.argv[1], 'a').write(f'{n}\\n'))\n"
        "print('ready', flush=True)\n"
        "while True: time.sleep(60)\n"
    )
    env = {name: value for name, value in os.environ.items() if not name.startswith("QUEUECTL")}
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(spool_dir.parent / "signals")],
        stdout=subprocess.PIPE, env=env, start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    yield process
    assert process.poll() is None
    assert lines(spool_dir.parent / "signals") == []
    process.kill()
    process.wait()
    process.stdout.close()


def _runs_of(spool: Path, job_id: str) -> int:
    """How many runs a job's file tells of; none while it is being moved."""
    try:
        return len(load(spool / where_is(spool, job_id)[0] / f"{job_id}.json").get("history", []))
    except (IndexError, FileNotFoundError):
        return 0


@pytest.mark.parametrize("wrong", ["pid", "pid and start", "pid and boot"])
def test_a_foreign_pid_in_a_workers_record_is_not_signalled(
    spool_dir: Path,
    workers: Callable[..., Any],
    cli: Callable[..., Any],
    bystander: subprocess.Popen[bytes],
    wrong: str,
) -> None:
    """Whether the worker lives or is gone: neither stop nor force, nor cancel, nor a rescue reaches a stranger."""
    workers(1)
    record_path = spool_dir / "data" / "workers" / "worker-0.json"
    genuine = record_path.read_text()
    record = {**json.loads(genuine), "pid": bystander.pid}
    if wrong == "pid and start":
        record["process_started"] = (start_time(bystander.pid) or 0) - 60
    elif wrong == "pid and boot":
        record["process_started"] = start_time(bystander.pid) or 0
        record["boot_id"] = "00000000-0000-0000-0000-000000000000"
    drop(spool_dir, "job", command="sleep 60", timeout=0)
    wait_until(lambda: where_is(spool_dir, "job") == ["processing/worker-0"])
    owner = json.loads(genuine)["pid"]
    os.kill(owner, signal.SIGSTOP)  # or it would write its record again within a second
    record_path.write_text(json.dumps(record))
    for words in (
        ["worker", "stop", "--timeout", "0"],
        ["worker", "stop", "--force", "--timeout", "0"],
        ["worker", "list"],
        ["doctor"],
    ):
        cli(*words)
    record_path.write_text(genuine)
    (spool_dir / "data" / "workers" / "worker-0.stop").unlink(missing_ok=True)
    os.kill(owner, signal.SIGCONT)
    kill_worker(spool_dir)
    record_path.write_text(json.dumps(record))
    cli("cancel", "job")
    cli("worker", "stop", "--force", "--timeout", "0")
    workers(1)
    wait_until(
        lambda: where_is(spool_dir, "job") != ["processing/worker-0"] or len(Spool(spool_dir).workers()) == 1
    )
    wait_until(lambda: _runs_of(spool_dir, "job") == 1)
