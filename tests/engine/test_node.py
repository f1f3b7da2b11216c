"""What a runner does on a node, without any Slurm: it is the script itself, started as Slurm starts it."""

from __future__ import annotations

import ast
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from faults import must_not_skip

from queuectl.engine import packs, script
from queuectl.engine.guard import clock
from queuectl.engine.node import Beat
from queuectl.engine.packs import DISPATCHER, Order, Pack, Record
from queuectl.engine.verdict import Limits

from support import end_all, processes_of, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="nodes run Linux")

PYTHON = "/usr/bin/python3" if os.path.exists("/usr/bin/python3") else sys.executable
LIMITS = Limits(beat=0.2, fence=30, grace=0.5)
HELD = "until [ -e go ]; do sleep 0.02; done"
"""The end of a command that waits for the test."""


class Node:
    """A share with one pack, and runners at work in it."""

    def __init__(self, share: Path) -> None:
        self.share = share
        self.script = packs.write_script(str(share))
        self.runners: list[subprocess.Popen[bytes]] = []

    def pack(
        self, *commands: str | list[str], limits: Limits = LIMITS, log_limit: int = 0, **fields: Any
    ) -> Pack:
        """Make a pack of these commands."""
        known = {"cwd": str(self.share), "env": {}, "timeout": 0.0, **fields}
        orders = [Order((f"job{n}", f"1.{n}"), command, **known) for n, command in enumerate(commands)]
        return Pack.make(str(self.share / "pack"), orders, limits, log_limit)

    def start(self, pack: Pack, **environment: str) -> subprocess.Popen[bytes]:
        """Start a runner as slurmd does."""
        mine = {"PATH": "/usr/local/bin:/usr/bin:/bin", "SLURM_JOB_ID": "17", "SLURMD_NODENAME": "n1"}
        with (self.share / "slurm.log").open("ab") as log:
            runner = subprocess.Popen(
                [PYTHON, "-IS", self.script, pack.folder], env={**mine, **environment}, stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        self.runners.append(runner)
        return runner

    def run(self, pack: Pack, **environment: str) -> list[Record]:
        """Let one runner do a pack; the records in the order of the attempts."""
        assert self.start(pack, **environment).wait(20) == 0, (self.share / "slurm.log").read_text()
        return sorted(pack.look().records, key=lambda record: record.number)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    """A node; nothing of it outlives the test."""
    made = Node(tmp_path)
    yield made
    for one in made.runners:
        with suppress(ProcessLookupError):
            one.send_signal(signal.SIGCONT)
        one.kill()
        one.wait(5)
    end_all(processes_of(tmp_path))


def begun(pack: Pack, name: str = "began") -> Callable[[], bool]:
    return (Path(pack.folder).parent / name).exists


def gone(pid_file: Path) -> bool:
    """Whether the process that has written its number there is over, collected or not."""
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(int(pid_file.read_text())).status() == psutil.STATUS_ZOMBIE
    return True


# -- what ends how -----------------------------------------------------------------------------------------------------


def test_each_attempt_is_run_once_and_recorded(node: Node) -> None:
    """Good and bad ends, words and shell, output, environment and folder, all as on this machine."""
    pack = node.pack(
        "echo out; echo err >&2; pwd; echo $WORD $SLURM_JOB_ID",
        ["sh", "-c", "exit 7"],
        "kill -SEGV $$",
        ["no-such-program"],
        "cat; echo $0",
        env={"WORD": "grün"},
    )

    records = node.run(pack)

    assert [(one.how, one.code, one.ran) for one in records] == [
        ("exited", 0, True),
        ("exited", 7, True),
        ("signalled", -signal.SIGSEGV, True),
        ("not_started", None, False),
        ("exited", 0, True),
    ]
    assert records[3].why == "no program 'no-such-program' found on n1"
    assert Path(pack.path("0.out")).read_text() == f"out\n{node.share}\ngrün 17\n"
    assert Path(pack.path("0.err")).read_text() == "err\n"
    assert (records[0].out, records[0].err, records[0].node) == (
        len(f"out\n{node.share}\ngrün 17\n".encode()),
        4,
        "n1",
    )
    assert Path(pack.path("0.out")).stat().st_mode & 0o777 == 0o600
    assert all(0 <= one.seconds < 10 and one.started <= one.ended for one in records)
    last = pack.look()
    assert (last.records, len(last.left), len(last.claims)) == ([], 1, 5)


def test_a_folder_that_the_node_does_not_have_is_the_fault_of_the_job(node: Node) -> None:
    """The next attempt of the pack starts all the same."""
    missing, fine = (
        node.pack("true", cwd="/no/such/folder"),
        "the folder /no/such/folder does not exist on n1",
    )
    assert [(one.how, one.why) for one in node.run(missing)] == [("not_started", fine)]


def test_a_deaf_command_ends_at_its_timeout_with_its_children(node: Node) -> None:
    """TERM, the grace time, KILL, to the whole group; and the next attempt is begun after it."""
    pack = node.pack(
        "trap '' TERM; (trap '' TERM; sleep 60) & echo $! > pid; wait; sleep 60",
        "true",
        timeout=0.3,
    )

    first, second = node.run(pack)

    assert (first.how, first.code, second.how) == ("timed_out", -signal.SIGKILL, "exited")
    assert 0.8 <= first.seconds < 5
    assert gone(node.share / "pid")


def test_a_child_has_the_whole_grace_time_when_its_shell_ends_sooner(node: Node) -> None:
    """A shell dies of TERM at once, while the program that it has started is still saving its work."""
    save = "trap 'sleep 0.3; echo saved > saved; exit' TERM; touch began; while :; do sleep 0.05; done"
    pack = node.pack(f'sh -c "{save}"; true', timeout=1.0, limits=Limits(0.2, 30, 8))

    [record] = node.run(pack)

    assert record.how == "timed_out"
    assert (node.share / "saved").exists()
    assert record.seconds < 7


def test_nothing_of_a_run_stays_behind_it(node: Node) -> None:
    """What an attempt leaves in the background would take the place of the next one."""
    pack = node.pack("sleep 60 & echo $! > pid")
    assert [one.how for one in node.run(pack)] == ["exited"]
    wait_until(lambda: gone(node.share / "pid"))


def test_output_is_cut_while_it_is_written(node: Node) -> None:
    """A job that prints for ever must not fill the share."""
    pack = node.pack("yes | head -c 3000000; sleep 0.5", log_limit=1000)
    [record] = node.run(pack)
    text = Path(pack.path("0.out")).read_bytes()
    assert record.how == "exited"
    assert text == (b"y\n" * 500) + b"\n[queuectl: output cut at 1000 bytes]\n"


# -- orders ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["signal", "beat"])
def test_a_running_attempt_is_cancelled(node: Node, way: str) -> None:
    """By USR1 at once; by the file alone, when Slurm's controller is away, with the next beat. The next one goes on."""
    pack = node.pack("touch began; sleep 60", "true", limits=Limits(0.3 if way == "beat" else 30, 60, 0.5))
    runner = node.start(pack)
    wait_until(begun(pack))
    pack.cancel(0)
    asked = time.monotonic()
    if way == "signal":
        runner.send_signal(signal.SIGUSR1)
    assert runner.wait(10) == 0
    assert time.monotonic() - asked < 3
    assert [(one.how, one.ran) for one in pack.look().records] == [("cancelled", True), ("exited", True)]


def test_what_is_cancelled_before_it_begins_is_not_begun(node: Node) -> None:
    """Its record says that nothing ran."""
    pack = node.pack("touch first", "touch second")
    pack.cancel(0)
    assert [(one.how, one.ran, one.code) for one in node.run(pack)] == [
        ("cancelled", False, None),
        ("exited", True, 0),
    ]
    assert not (node.share / "first").exists()


def test_a_pack_that_is_cancelled_is_not_begun_at_all(node: Node) -> None:
    """The dispatcher takes back what nobody has."""
    pack = node.pack("touch first", "touch second")
    pack.cancel()
    assert node.run(pack) == []
    assert pack.look().claims == {}


@pytest.mark.parametrize("to", ["the runner", "all"])
def test_what_slurm_ends_says_so_and_nothing_more_is_begun(node: Node, to: str) -> None:
    """Slurm's TERM reaches the command as well, which may die of it before the runner knows."""
    pack = node.pack("echo $$ > pid; touch began; exec sleep 60", "touch second")
    runner = node.start(pack)
    wait_until(begun(pack))
    if to == "all":
        for child in psutil.Process(runner.pid).children(recursive=True):
            child.terminate()
        wait_until(lambda: gone(node.share / "pid"))
    runner.terminate()
    assert runner.wait(10) == 0
    look = pack.look()
    assert [(one.how, one.ran) for one in look.records] == [("terminated", True)]
    assert (len(look.left), list(look.claims)) == (1, [0])


def test_a_good_end_counts_although_slurm_wanted_another(node: Node) -> None:
    """A command that comes to its end within the grace time must not be run again."""
    pack = node.pack(f"trap '' TERM; touch began; {HELD}; exit 0", limits=Limits(0.2, 30, 20))
    runner = node.start(pack)
    wait_until(begun(pack))
    runner.terminate()
    time.sleep(0.1)  # so that it has heard of it, which cannot be seen
    (node.share / "go").touch()
    runner.wait(15)
    assert [(one.how, one.code) for one in pack.look().records] == [("exited", 0)]


# -- claims ------------------------------------------------------------------------------------------------------------


def test_several_runners_share_a_pack_and_no_attempt_runs_twice(node: Node) -> None:
    """A pack may be sent any number of times: each runner takes what is left."""
    pack = node.pack(*[f"echo {n} >> ledger; sleep 0.03" for n in range(40)])
    runners = [node.start(pack) for _ in range(4)]
    assert [one.wait(20) for one in runners] == [0] * 4
    assert sorted(map(int, (node.share / "ledger").read_text().split())) == list(range(40))
    look = pack.look()
    assert sorted(one.number for one in look.records) == list(range(40))
    assert len(set(look.claims.values())) > 1
    assert set(look.beats) == look.left


def test_what_is_revoked_never_begins(node: Node) -> None:
    """And what has begun cannot be revoked: one link decides."""
    pack = node.pack("touch first", f"touch second; touch began; {HELD}", "touch third")
    assert pack.revoke(0)
    runner = node.start(pack)
    wait_until(begun(pack))
    assert [pack.revoke(number) for number in (0, 1, 2)] == [True, False, True]
    (node.share / "go").touch()
    assert runner.wait(10) == 0
    assert [one.number for one in pack.look().records] == [1]
    assert not (node.share / "first").exists()
    assert not (node.share / "third").exists()


def test_a_claim_counts_although_link_says_that_it_is_there(node: Node) -> None:
    """A link that is sent again over NFS fails although it has been made: the inode tells whose it is."""
    pack = node.pack("true")
    os.link(pack.path(f"by.{DISPATCHER}"), pack.path("claim.0"))
    assert pack.revoke(0)


# -- deaths ------------------------------------------------------------------------------------------------------------


def test_a_command_does_not_outlive_its_killed_runner(node: Node) -> None:
    """The next run of its job would be beside it. The rest of the pack is for another runner."""
    pack = node.pack("echo $$ > pid; touch began; sleep 60", "touch second")
    runner = node.start(pack)
    wait_until(begun(pack))
    runner.kill()
    runner.wait()
    wait_until(lambda: gone(node.share / "pid"))

    assert [one.number for one in node.run(pack)] == [1]
    assert pack.look().claims.keys() == {0, 1}


def test_a_command_that_was_being_started_ends_with_its_runner(node: Node) -> None:
    """A kill between its start and the moment at which the runner knows its number: the guard looks for it."""
    begin = (
        "import os, signal, subprocess, sys; from queuectl.engine.guard import Guard, STARTING;"
        "guard = Guard(b'QUEUECTL_RUNNER=me', 30, 0.2); guard.tell('run', STARTING);"
        "subprocess.Popen(['sh', '-c', 'echo $$ > pid; exec sleep 60'], env={**os.environ, 'QUEUECTL_RUNNER': 'me'}, start_new_session=True)\n"
        # Else the guard may end it before it has written its number.
        "while not (os.path.exists('pid') and os.stat('pid').st_size): pass\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    killed = subprocess.run([sys.executable, "-c", begin], cwd=node.share, env=environment, check=False)
    assert killed.returncode == -signal.SIGKILL
    wait_until(lambda: gone(node.share / "pid"))


def test_a_beat_after_a_sleep_does_not_hide_the_sleep(tmp_path: Path) -> None:
    """The thread of the beats may wake first: an attempt that was given to another node meanwhile must not begin then."""
    told = []

    class Silent:
        def tell(self, word: str, _: float) -> None:
            told.append(word)

    beat = Beat(str(tmp_path / "beat"), 10, 30, Silent())  # type: ignore[arg-type]
    began = clock()
    beat.once()
    assert beat.lapsed_at < began
    beat.at -= 31
    beat.once()
    assert beat.lapsed_at >= began
    assert clock() - beat.at < 10
    assert told == ["beat"] * 3


def is_replaced_by_a_folder(file: Path) -> bool:
    """Put a folder there, unless the runner has just made its file anew."""
    file.unlink(missing_ok=True)
    with suppress(FileExistsError):
        file.mkdir()
        return True
    return False


@pytest.mark.parametrize("frozen", ["with its share", "stopped"])
def test_a_runner_that_cannot_beat_ends_its_command(node: Node, frozen: str) -> None:
    """Before the dispatcher gives it up: the fence is kept by the node, also while the runner itself hangs."""
    pack = node.pack("echo $$ > pid; touch began; sleep 60", limits=Limits(0.1, 2, 0.3))
    runner = node.start(pack)
    wait_until(begun(pack))
    began = time.monotonic()
    if frozen == "stopped":
        runner.send_signal(signal.SIGSTOP)
    else:
        [beat] = Path(pack.folder).glob("beat.*")
        wait_until(lambda: is_replaced_by_a_folder(beat))
    wait_until(lambda: gone(node.share / "pid"))
    assert time.monotonic() - began < 10

    runner.send_signal(signal.SIGCONT)
    assert runner.wait(10) == 0
    assert [one.how for one in pack.look().records] == ["fenced"]


def test_a_runner_killed_at_any_moment_leaves_each_attempt_whole(node: Node) -> None:
    """Killed at each of many moments, runners after it do the rest: once each, and no record is half."""
    pack = node.pack(*[f"echo {n} >> ledger" for n in range(60)])
    for moment in range(12):
        runner = node.start(pack)
        time.sleep(0.03 + moment * 0.005)
        runner.kill()
        runner.wait()
    node.start(pack).wait(20)

    look = pack.look()
    ran = [int(word) for word in (node.share / "ledger").read_text().split()]
    assert len(ran) == len(set(ran)), "an attempt ran twice"
    assert look.claims.keys() == set(range(60))
    recorded = {one.number for one in look.records}
    assert recorded <= set(ran)
    assert len(recorded) >= 60 - 12  # each death may cost the one that was under way


def test_a_runner_begins_nothing_when_its_guard_is_gone(node: Node) -> None:
    """Nobody would end its command any more if it died."""
    pack = node.pack(f"touch began; {HELD}", "touch second")
    runner = node.start(pack)
    wait_until(begun(pack))
    [guard] = [one for one in psutil.Process(runner.pid).children() if one.cmdline()[:1] == [PYTHON]]
    guard.kill()
    wait_until(lambda: not guard.is_running() or guard.status() == psutil.STATUS_ZOMBIE)
    (node.share / "go").touch()
    assert runner.wait(10) == 0
    assert [(one.number, one.how) for one in pack.look().records] == [(0, "exited")]


def test_a_share_that_takes_no_output_costs_the_job_no_attempt(node: Node) -> None:
    """It has not begun, and says so; the runner leaves the others alone."""
    pack = node.pack("touch first", "touch second")
    Path(pack.path("0.out")).mkdir()
    assert [(one.how, one.ran) for one in node.run(pack)] == [("not_begun", False)]
    assert list(pack.look().claims) == [0]


def test_a_share_that_is_full_when_a_command_ends_loses_no_outcome(node: Node) -> None:
    """The record waits for room, the runner beats on, and nothing more is begun before it is written."""
    disk = node.share / "disk"
    disk.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=1m,mode=700", "tmpfs", str(disk)]
    if subprocess.run(words, check=False, capture_output=True).returncode:
        must_not_skip("cannot mount a tmpfs")
    try:
        small = Node(disk)
        small.runners = node.runners
        pack = small.pack(f"echo $$ > pid; touch began; {HELD}", "echo two >> ledger")
        runner = small.start(pack)
        wait_until(begun(pack))
        [records] = Path(pack.folder).glob("exits.*")
        full = disk / "full"
        with suppress(OSError), full.open("wb", buffering=0) as file:
            while True:
                file.write(b"x" * 4096)
        (disk / "go").touch()
        wait_until(lambda: gone(disk / "pid"))
        assert records.stat().st_size == 0
        assert runner.poll() is None

        full.unlink()
        assert runner.wait(20) == 0
        found = sorted((one.number, one.how, one.code) for one in pack.look().records)
        assert found == [(0, "exited", 0), (1, "exited", 0)]
        assert (disk / "ledger").read_text() == "two\n"
    finally:
        end_all(processes_of(disk))
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_a_runner_of_another_version_leaves_a_pack_alone(node: Node) -> None:
    """It could not know what it is told."""
    pack = node.pack("touch first")
    plan = Path(pack.path("pack.json"))
    plan.write_text(json.dumps({**json.loads(plan.read_text()), "v": 99}))
    assert node.start(pack).wait(10) != 0
    assert "version 99" in (node.share / "slurm.log").read_text()
    assert pack.look().claims == {}
    with pytest.raises(ValueError, match="version 99"):
        Pack.found(pack.folder)


@pytest.mark.parametrize(
    "hostile",
    [
        "PYTHONHOME=/nowhere",
        "LANG=C LC_ALL=C",
        "PYTHONPATH=/tmp",
        "LD_LIBRARY_PATH=/nowhere",
        "PATH=/nowhere",
    ],
)
def test_the_environment_of_a_node_does_not_hinder(node: Node, hostile: str) -> None:
    """Conda, an 8-bit locale, a broken PYTHONHOME: the runner needs the system's Python alone."""
    pack = node.pack("echo 'schön'", env={"ÄPFEL": "süß"})
    assert [
        (one.how, one.out) for one in node.run(pack, **dict(word.split("=") for word in hostile.split()))
    ] == [("exited", 7)]


def test_the_script_is_python_of_long_ago() -> None:
    """Clusters have an old system Python: 3.6 must be able to read it, and it must need nothing of ours."""
    tree = ast.parse(script.text(), feature_version=(3, 6))
    imported = {
        name.split(".")[0]
        for one in ast.walk(tree)
        for name in (
            [one.module or ""]
            if isinstance(one, ast.ImportFrom)
            else [alias.name for alias in one.names]
            if isinstance(one, ast.Import)
            else []
        )
    }
    assert imported <= sys.stdlib_module_names - {
        "dataclasses",
        "graphlib",
        "tomllib",
        "zoneinfo",
        "contextvars",
    }
    assert script.text().startswith(b"#!/usr/bin/python3 -IS\n")
    # list[str] and X | None are names for types that Python 3.6 cannot evaluate, outside of quotes.
    for one in ast.walk(tree):
        for note in (getattr(one, "annotation", None), getattr(one, "returns", None)):
            assert not isinstance(note, ast.Subscript | ast.BinOp) or ast.unparse(note) == "Iterator[int]", (
                ast.unparse(one)
            )
