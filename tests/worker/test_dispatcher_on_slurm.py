"""A dispatcher as a process of its own, on a real Slurm: what a user starts, stops, kills and sees.

Install `slurmctld slurmd slurm-client munge`. `QUEUECTL_MUST_SLURM=1` makes it fail without them.
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import real_slurm

from queuectl import Spool
from queuectl.layout import Layout

import support
from support import end_all, load, processes_of, run_cli, wait_until, where_is

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Slurm runs on Linux")

PROGRAM = Path(__file__).parent.parent / "as_dispatcher.py"
LONGEST = 60
"""Seconds until a test gives up: nodes of a busy machine need some for a job of milliseconds."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with real_slurm.started(tmp_path_factory.mktemp("c")) as folder:
        yield folder


@pytest.fixture
def home(cluster: Path, spool_dir: Path, tmp_path: Path) -> Iterator[Path]:
    """A folder for what jobs write; all jobs of the spool run on the cluster."""
    assert cluster.is_dir()
    share = tmp_path / "share"
    share.mkdir(mode=0o700)
    Layout(spool_dir).create()
    text = f"engine: slurm\nslurm_dir: {share}\nkill_grace: 0.5\n"
    support.drop_bytes(spool_dir, "config.yaml", text.encode(), folder=".")
    yield tmp_path
    subprocess.run(["scancel", "--me"], check=False, timeout=30)
    end_all(processes_of(tmp_path))


@pytest.fixture
def start(home: Path, spool_dir: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts dispatchers; those that are left at the end are killed."""
    made: list[subprocess.Popen[bytes]] = []

    def start(*words: str) -> subprocess.Popen[bytes]:
        with (home / "log").open("ab") as log:
            made.append(
                subprocess.Popen(
                    [sys.executable, PROGRAM, "worker", "start", "--engine", "slurm", "--foreground", *words],
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            )
        return made[-1]

    yield start
    for one in made:
        one.kill()
        one.wait(10)


def typed(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, PROGRAM, *words], capture_output=True, text=True, check=False, timeout=LONGEST
    )


def log(home: Path) -> str:
    return (home / "log").read_text()


def record(spool_dir: Path, job_id: str) -> dict[str, Any]:
    [place] = where_is(spool_dir, job_id)
    return load(spool_dir / place / f"{job_id}.json")


def ledger(home: Path) -> Counter[str]:
    path = home / "ledger"
    return Counter(path.read_text().split() if path.exists() else ())


def has_grown(home: Path, before: int, most: int) -> bool:
    return before < ledger(home).total() or ledger(home).total() == most


def packs_in(home: Path) -> list[Path]:
    return [path for place in (home / "share").iterdir() for path in place.iterdir() if path.is_dir()]


def test_jobs_run_on_the_nodes_and_come_back(
    start: Callable[..., subprocess.Popen[bytes]], home: Path, spool_dir: Path
) -> None:
    """With output and exit code; one that runs over its time; and what Slurm never takes is dead with its reason."""
    spool = Spool(spool_dir)
    spool.enqueue("echo out; echo err >&2; exit 3", id="bad", max_retries=0)
    spool.enqueue("echo early; sleep 600", id="long", timeout=1, max_retries=0)
    for number in range(30):
        spool.enqueue(f"echo {number} >> {home}/ledger", id=f"s{number}", timeout=10)
    support.drop_bytes(spool_dir, "nowhere.yaml", b"partition: nowhere\n", folder="queues")
    spool.enqueue("true", id="refused", queue="nowhere")
    dispatcher = start("--drain")
    assert dispatcher.wait(LONGEST) == 0, log(home)
    assert ledger(home) == Counter(map(str, range(30)))
    bad, late, refused = (record(spool_dir, job_id) for job_id in ("bad", "long", "refused"))
    assert (bad["exit_code"], bad["last_error"], bad["output"]) == (3, "Exit code 3", "out\nerr\n")
    assert (late["last_error"], late["output"]) == ("Timeout exceeded (1s)", "early\n")
    assert "partition" in refused["last_error"].lower()
    assert spool.counts() == {"pending": 0, "processing": 0, "completed": 30, "failed": 0, "dead": 3}
    assert packs_in(home) == []


def test_a_user_stops_it_and_the_next_one_goes_on(
    start: Callable[..., subprocess.Popen[bytes]], home: Path, spool_dir: Path
) -> None:
    """The command tells what runs on; nothing begins meanwhile; with --force all of it is ended and put back."""
    spool = Spool(spool_dir)
    for number in range(14):  # the cluster has twelve processors
        spool.enqueue(
            f"echo {number} >> {home}/ledger; while [ ! -e {home}/go ]; do sleep 0.05; done",
            id=f"j{number}",
            timeout=0,
        )
    dispatcher = start()
    wait_until(lambda: ledger(home).total() == 12, LONGEST, lambda: log(home))
    stopped = run_cli("worker", "stop", expect=0)
    assert dispatcher.wait(LONGEST) == 0
    assert stopped.stdout == "Stopped 1 worker(s)\n"
    assert (
        "12 jobs run on slurm; their outcomes are collected by the next: queuectl worker start --engine slurm"
        in stopped.stderr
    )
    assert spool.counts() == {"pending": 2, "processing": 12, "completed": 0, "failed": 0, "dead": 0}
    notes = run_cli("status").stderr
    assert "12 jobs are out on slurm, and no dispatcher runs that collects what becomes of them" in notes
    assert "2 jobs wait for slurm, and no dispatcher runs: queuectl worker start --engine slurm" in notes
    start()
    wanted = "slurm: 12 run, 2 wait there"
    wait_until(lambda: wanted in run_cli("status").stdout, LONGEST, lambda: log(home))
    first = next(iter(ledger(home)))
    assert Spool(spool_dir).cancel(f"j{first}", timeout=LONGEST)
    forced = run_cli("worker", "stop", "--force", "--timeout", "60", expect=0, timeout=90)
    assert "run on slurm" not in forced.stderr
    assert spool.counts() == {"pending": 13, "processing": 0, "completed": 0, "failed": 0, "dead": 1}
    assert all(
        "attempts" not in load(path) or load(path)["attempts"] == 0
        for path in (spool_dir / "pending").glob("*.json")
    )


def test_it_is_started_in_the_background_once(home: Path, spool_dir: Path) -> None:
    """With the handshake of a worker; a second start names the first, and a stop of local workers does not concern it."""
    began = typed("worker", "start", "--engine", "slurm")
    try:
        assert (began.returncode, began.stdout.partition("\n")[0][:20]) == (0, "[slurm] started PID=")
        again = typed("worker", "start", "--engine", "slurm")
        pid = began.stdout.partition("PID=")[2].partition("\n")[0]
        assert (again.returncode, again.stdout) == (1, "")
        assert f"error: slurm has a dispatcher already (PID {pid})" in again.stderr
        assert typed("worker", "start", "--engine", "slurm", "--count", "2").returncode == 2
        assert run_cli("worker", "stop", "--engine", "local", expect=0).stdout == "No workers to stop\n"
        Spool(spool_dir).enqueue(f"echo a >> {home}/ledger", id="a")
        wait_until(lambda: where_is(spool_dir, "a") == ["done"], LONGEST)
        assert "[slurm] completed a" in run_cli("worker", "logs", "slurm").stdout
    finally:
        stopped = run_cli("worker", "stop", "--engine", "slurm", expect=0)
    assert (stopped.stdout, stopped.stderr) == ("Stopped 1 worker(s)\n", "")
    assert run_cli("worker", "list").stdout == ""


def kill_controller(cluster: Path) -> None:
    """Slurm's own crash: nodes that ran something may be out of service after it."""
    for order in ("ctld-kill", "ctld-start"):
        subprocess.run([real_slurm.CLUSTER, order, cluster], check=True, timeout=LONGEST)

    def answers() -> bool:
        return not subprocess.run(["scontrol", "ping"], capture_output=True, check=False).returncode

    wait_until(answers, LONGEST)


def has_ended(dispatcher: subprocess.Popen[bytes], cluster: Path) -> bool:
    """Whether it has; meanwhile the cluster's admin says of each node that it is well."""
    time.sleep(1)
    subprocess.run([real_slurm.CLUSTER, "resume", cluster], check=True, capture_output=True, timeout=LONGEST)
    return dispatcher.poll() is not None


@pytest.mark.parametrize(
    ("number", "kills", "controller_too"),
    [(150, 4, False), pytest.param(500, 6, True, marks=[pytest.mark.slow, pytest.mark.timeout(300)])],
    ids=["150", "500, and the controller, too"],
)
def test_many_jobs_and_a_dispatcher_that_is_killed_again_and_again(
    start: Callable[..., subprocess.Popen[bytes]],
    cluster: Path,
    home: Path,
    spool_dir: Path,
    number: int,
    kills: int,
    controller_too: bool,
) -> None:
    """Each job runs once, has one entry in its history, and nothing is left on the share."""
    draw = random.Random(18)
    Spool(spool_dir).enqueue_many(
        {"command": f"echo {one} >> {home}/ledger; sleep 0.{one % 3}", "id": f"j{one}", "timeout": 30}
        for one in range(number)
    )
    for kill in range(kills):
        dispatcher = start()
        before = ledger(home).total()
        wait_until(partial(has_grown, home, before, number), LONGEST, lambda: log(home))
        time.sleep(draw.uniform(0, 0.5))
        dispatcher.send_signal(signal.SIGKILL)
        dispatcher.wait(10)
        if controller_too and kill % 2:
            kill_controller(cluster)
        if ledger(home).total() == number:
            break
    last = start("--drain")
    if controller_too:
        wait_until(partial(has_ended, last, cluster), 3 * LONGEST, lambda: log(home))
    assert last.wait(2 * LONGEST) == 0, log(home)
    assert ledger(home) == Counter(map(str, range(number)))
    assert Spool(spool_dir).counts()["completed"] == number
    histories = Counter(len(load(path)["history"]) for path in (spool_dir / "done").glob("*.json"))
    assert histories == {1: number}
    assert packs_in(home) == []
