"""Slurm by its commands: what is sent, what its words mean, and packs on a real cluster on loopback.

Install `slurmctld slurmd slurm-client munge` for the second half. `QUEUECTL_MUST_SLURM=1` makes it fail without them.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import real_slurm
from real_slurm import CLUSTER

from queuectl.engine import packs, slurm
from queuectl.engine.base import Answer, Parcel, Poll, Row, Shape
from queuectl.engine.endings import meaning
from queuectl.engine.handed import Back, Ended, Refused
from queuectl.engine.packs import Order
from queuectl.engine.slurm import Slurm, arguments, rows_of, understand
from queuectl.engine.tracker import Tracker
from queuectl.engine.verdict import Limits
from queuectl.job.outcome import Ending, Outcome

from support import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from queuectl.engine.handed import Event, Key

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Slurm runs on Linux")

# -- words -------------------------------------------------------------------------------------------------------------


def test_nothing_of_a_job_is_on_the_command_line_but_its_wishes() -> None:
    """No command, no secret, no array: and no requeue, which would run a pack twice."""
    shape = Shape(4, 512, "a100:2", "gpu,batch", ("--qos=low",))
    words = arguments(
        "1f2e", Parcel("p1", "/share/100%/p1", "/share/node.py", shape, 7, 3), ("--qos=high", "--account=lab")
    )
    assert words[0] == "sbatch"
    assert words[-2:] == ["/share/node.py", "/share/100%/p1"]
    assert {
        "--no-requeue",
        "--export=ALL",
        "--job-name=qctl-1f2e-p1",
        "--output=/share/100%%/p1/slurm.log",
    } <= set(words)
    assert {
        "--cpus-per-task=4",
        "--mem=512M",
        "--gres=gpu:a100:2",
        "--partition=gpu,batch",
        "--time=7",
        "--nice=700",
    } <= set(words)
    assert words.index("--qos=low") > words.index("--qos=high")  # the last one wins


def test_a_job_that_wants_nothing_gets_what_the_cluster_gives() -> None:
    """No --time either: a job without a timeout may run as long as its partition lets it."""
    words = " ".join(arguments("1f2e", Parcel("p1", "/share/p1", "/share/node.py"), ()))
    assert not any(option in words for option in ("--mem", "--gres", "--partition", "--time", "--qos"))


def test_what_a_command_has_said_before_its_time_was_up_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its slurm.conf a command tries again for a minute, and says so at once."""
    monkeypatch.setattr(slurm, "_LIMIT", 0.1)
    code, _, said = slurm.run(["/bin/sh", "-c", "echo cannot stat file >&2; exec sleep 30"])
    assert code is None
    assert said.splitlines() == ["/bin/sh has not answered within 0s", "cannot stat file"]


@pytest.mark.parametrize(
    ("ended", "answer", "text"),
    [
        ((0, "4711\n", ""), Answer.ACCEPTED, "4711"),
        ((0, "4711;cluster\n", ""), Answer.ACCEPTED, "4711"),
        ((1, "", "sbatch: error: invalid partition specified: nope\nsbatch: error: Batch job submission failed: Invalid partition name specified\n"), Answer.REFUSED, "Batch job submission failed: Invalid partition name specified"),
        ((1, "", "sbatch: error: Memory specification can not be satisfied\nsbatch: error: Batch job submission failed: Requested node configuration is not available\n"), Answer.REFUSED, "Memory specification can not be satisfied"),
        ((255, "", "sbatch: error: Invalid --time specification\n"), Answer.REFUSED, "Invalid --time specification"),
        ((1, "", "sbatch: error: Batch job submission failed: Job violates accounting/QOS policy (job submit limit)\n"), Answer.FULL, "Batch job submission failed: Job violates accounting/QOS policy (job submit limit)"),
        ((1, "", "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation\n"), Answer.UNKNOWN, "Batch job submission failed: Socket timed out on send/recv operation"),
        ((None, "", "sbatch has not answered within 30s"), Answer.UNKNOWN, "sbatch has not answered within 30s"),
        ((None, "", "Invalid qos, and then nothing more"), Answer.UNKNOWN, "Invalid qos, and then nothing more"),
        ((-9, "", ""), Answer.UNKNOWN, "sbatch has ended with -9"),
        ((1, "", "sbatch: error: \x1b[2J\n"), Answer.UNKNOWN, "\\x1b[2J"),
    ],
)  # fmt: skip
def test_a_failed_sbatch_has_refused_only_when_it_says_so(
    ended: slurm.Run, answer: Answer, text: str
) -> None:
    """Whatever it was, it may have accepted the pack all the same."""
    assert understand(ended) == (answer, text)


def test_only_rows_of_this_spool_are_read() -> None:
    """By the name, whatever their numbers; and a line that is none does no harm."""
    text = """7|PENDING|Resources|qctl-1f2e-p1
8|COMPLETED|None|qctl-1f2e-p1
9|RUNNING|None|qctl-ffff-p1
10|RUNNING|None|train

|||
11|NEW_STATE|(null)|qctl-1f2e-p2
12|NODE_FAIL|a\x1bb|qctl-1f2e-p2
"""
    assert rows_of("1f2e", text) == {
        "p1": [Row("7", "PENDING", "Resources", is_live=True), Row("8", "COMPLETED", "", is_live=False)],
        "p2": [Row("11", "NEW_STATE", "", is_live=True), Row("12", "NODE_FAIL", "a\\x1bb", is_live=False)],
    }


@pytest.mark.parametrize(
    ("ended", "idle"),
    [
        ((0, "2/10/0/12\n", ""), 10), ((0, "2/10/0/12\n0/12/4/16\n", ""), 12), ((0, "", ""), 0), ((1, "2/10/0/12\n", ""), 0),
        ((None, "", "no answer"), 0), ((0, "2/ten/0/12\n1/2\nn/a\n", ""), 0),
    ],
)  # fmt: skip
def test_idle_processors_are_counted_once(ended: slurm.Run, idle: int) -> None:
    """One that is in two partitions is no two; what is no answer is no help."""
    assert slurm.idle_cpus(ended) == idle


def test_no_call_waits_for_a_controller_that_hangs() -> None:
    """It holds squeue for 10 s and scancel for 20 s, and a pause must be heeded meanwhile."""
    wakes = threading.Event()

    def hang(_: Sequence[str]) -> slurm.Run:
        wakes.wait(20)
        return None, "", "no answer"

    engine = Slurm("1f2e", command=hang)
    began = time.monotonic()
    engine.send(Parcel("p1", "/p1", "/node.py"))
    engine.cancel(["p1"])
    engine.nudge(["p1"])
    assert engine.news().answers == {}
    assert time.monotonic() - began < 2
    wakes.set()
    wait_until(lambda: engine.news().answers == {"p1": (Answer.UNKNOWN, "no answer")})
    assert engine.trouble == "no answer"
    engine.close()


def test_orders_for_many_packs_do_not_wait_for_each_other() -> None:
    """After a pause each has a scancel of its own: a dispatcher that leaves waits some seconds for all of them."""
    meet = threading.Barrier(slurm.SENDERS)
    done: list[str] = []

    def command(words: Sequence[str]) -> slurm.Run:
        if words[0] == "scancel":
            meet.wait(20)
            done.append(words[-1])
        return 0, "", ""

    engine = Slurm("1f2e", command=command)
    engine.cancel(f"p{number}" for number in range(2 * slurm.SENDERS))
    engine.close(20)
    assert sorted(done) == sorted(f"--name=qctl-1f2e-p{number}" for number in range(2 * slurm.SENDERS))


@pytest.mark.parametrize(
    ("took", "has_answered", "pause"), [(0.02, True, 5), (3.0, True, 30), (10.0, False, 10), (0.02, False, 5)]
)
def test_a_controller_that_is_back_is_soon_heard(took: float, has_answered: bool, pause: float) -> None:
    """A large queue is not asked all the time. But `status` said for 100 s that one does not answer which did."""
    assert slurm.pause_after(took, has_answered=has_answered) == pause


def test_a_poll_tells_when_it_was_asked() -> None:
    """What was sent while squeue was at work is not in its answer."""
    release, asked = threading.Event(), threading.Event()

    def slow(words: Sequence[str]) -> slurm.Run:
        asked.set()
        release.wait(20)
        return 0, "7|PENDING|Priority|qctl-1f2e-p1\n", ""

    engine = Slurm("1f2e", command=slow)
    assert asked.wait(20)
    later = time.monotonic()
    release.set()
    found: list[Poll] = []

    def has_come() -> bool:
        found.extend(filter(None, [engine.news().poll]))
        return bool(found)

    wait_until(has_come)
    assert found[0].asked_at <= later
    assert found[0].rows == {"p1": [Row("7", "PENDING", "Priority", is_live=True)]}
    engine.close()


# -- a real cluster ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A controller and three nodes; SLURM_CONF names it."""
    with real_slurm.started(tmp_path_factory.mktemp("s")) as folder:
        yield folder


class Desk:
    """A dispatcher of the smallest kind: it hands over, and keeps what it is told."""

    def __init__(self, share: Path) -> None:
        self.share = share
        self.engine = Slurm("0badcafe")
        script = packs.write_script(str(share))
        self.tracker = Tracker(str(share), script, self.engine, Limits(beat=0.5, fence=30, grace=1), 100_000)
        self.events: dict[Key, Event] = {}
        self.packs = 0

    def hand(self, *commands: str, shape: Shape | None = None, timeout: float = 0) -> list[Key]:
        """Hand over a pack of these commands."""
        self.packs += 1
        keys = [(f"p{self.packs}-{n}", "1.7") for n in range(len(commands))]
        orders = [
            Order(key, command, str(self.share), {"WORD": "grün"}, timeout)
            for key, command in zip(keys, commands, strict=True)
        ]
        self.tracker.hand(f"p{self.packs}", orders, shape or Shape(), time.monotonic())
        return keys

    def look(self) -> None:
        """One round."""
        for event in self.tracker.tick(time.monotonic()):
            assert event.key not in self.events, "told twice"
            self.events[event.key] = event

    def wait_for(self, keys: list[Key]) -> list[Event]:
        """Look until all of these have ended."""

        def are_over() -> bool:
            self.look()
            return all(key in self.events for key in keys)

        wait_until(are_over, timeout=30)
        return [self.events[key] for key in keys]

    def clear(self) -> list[Path]:
        """Settle everything and clear the share; what is left of it."""
        for key in self.events:
            self.tracker.settled(key)
        self.tracker.clear(self.tracker.over())
        return [path for path in self.share.iterdir() if path.is_dir()]


@pytest.fixture
def desk(cluster: Path, tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    yield made
    made.engine.close()
    subprocess.run(["scancel", "--me"], check=False, timeout=30)
    wait_until(
        lambda: not subprocess.run(["squeue", "--me", "-h"], capture_output=True, check=True).stdout,
        timeout=20,
    )


def how(event: Event) -> tuple[str, int | None]:
    assert isinstance(event, Ended), event
    return event.record.how, event.record.code


def test_packs_run_on_the_nodes_of_a_real_cluster(desk: Desk) -> None:
    """Exit codes, environment and folder; what cannot be is refused with Slurm's words; and nothing is left."""
    good = desk.hand('echo "$WORD $SLURM_JOB_NAME"; pwd', "exit 7", "no-such-program", "kill -9 $$")
    wrong = desk.hand("true", shape=Shape(partition="nope"))
    events = desk.wait_for(good + wrong)
    assert [how(event) for event in events[:4]] == [
        ("exited", 0),
        ("exited", 7),
        ("exited", 127),
        ("signalled", -9),
    ]
    assert isinstance(events[0], Ended)
    assert events[0].record.node in ("n1", "n2", "n3")
    assert events[0].output is not None
    assert Path(events[0].output[0]).read_text() == f"grün qctl-0badcafe-p1\n{desk.share}\n"
    assert isinstance(events[4], Refused)
    assert events[4].reason.endswith("Invalid partition name specified")
    assert desk.clear() == []


def test_what_waits_is_taken_back_and_what_runs_is_cancelled(desk: Desk) -> None:
    """Slurm has twelve processors: of thirteen packs one waits. A cancel takes less than a beat of ten seconds."""
    running = [desk.hand("touch $SLURM_JOB_ID.on; sleep 60", "true") for _ in range(12)]
    wait_until(lambda: len(list(desk.share.glob("*.on"))) == 12, timeout=20)
    [waiting] = desk.hand("touch never")
    desk.look()
    taken = desk.tracker.take_back()
    assert Back(waiting) in taken
    assert {event.key for event in taken} == {waiting, *(keys[1] for keys in running)}
    assert desk.tracker.cancel([keys[0] for keys in running]) == []
    assert [how(event)[0] for event in desk.wait_for([keys[0] for keys in running])] == ["cancelled"] * 12
    assert not (desk.share / "never").exists()
    desk.events.update({event.key: event for event in taken})
    assert desk.clear() == []


def test_slurm_may_end_a_runner_and_lose_a_node(desk: Desk, cluster: Path) -> None:
    """Its TERM is told from the command's own end; and a node whose slurmd is gone goes on, and its record counts."""
    [ended] = desk.hand("touch a.on; exec sleep 60")
    wait_until((desk.share / "a.on").exists, timeout=20)
    subprocess.run(["scancel", "--me", "--name=qctl-0badcafe-p1"], check=True)
    [event] = desk.wait_for([ended])
    assert how(event)[0] == "terminated"
    found = meaning(event, in_shell=True, timeout=0) if isinstance(event, Ended) else None
    assert isinstance(found, Outcome)
    assert (found.ending, found.error) == (Ending.CANCELLED, "Cancelled in Slurm by scancel")

    [alone] = desk.hand("touch b.on; sleep 1; exit 5")
    wait_until((desk.share / "b.on").exists, timeout=20)
    squeue = ["squeue", "--me", "-h", "-o", "%N", "--name=qctl-0badcafe-p2"]
    node = subprocess.run(squeue, capture_output=True, text=True, check=True).stdout.strip()
    subprocess.run([CLUSTER, "node-kill", cluster, node], check=True)
    try:
        [event] = desk.wait_for([alone])
    finally:
        subprocess.run([CLUSTER, "node-start", cluster, node], check=True)
    assert how(event) == ("exited", 5)
    assert desk.clear() == []


def test_a_dispatcher_that_dies_is_followed_by_one_that_runs_nothing_twice(desk: Desk) -> None:
    """It finds what runs and what waits there."""
    keys = desk.hand(*[f"echo {n} >> ledger; sleep 0.2" for n in range(8)])
    wait_until((desk.share / "ledger").exists, timeout=20)
    desk.engine.close()
    after = Desk(desk.share)
    assert after.tracker.adopt(keys, time.monotonic()) == []
    assert {how(event) for event in after.wait_for(keys)} == {("exited", 0)}
    assert sorted((desk.share / "ledger").read_text().split()) == [str(n) for n in range(8)]
    assert after.clear() == []
    after.engine.close()
