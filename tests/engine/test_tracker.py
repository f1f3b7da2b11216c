"""The dispatcher's attempts under an engine that lies and deaths at any moment: each runs once and ends once."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lying_engine import Cluster

from queuectl.engine.base import Answer, News, Parcel, Poll, Row, Shape
from queuectl.engine.handed import Back, Ended, Lost, Refused
from queuectl.engine.packs import Look, Order, Pack
from queuectl.engine.tracker import HELPERS_A_POLL, Tracker
from queuectl.engine.verdict import Limits
from queuectl.system import files

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from queuectl.engine.handed import Event, Key

LIMITS = Limits(beat=10, fence=60, grace=5)
JOBS = 8


class Dispatcher:
    """What the real one does with events, in memory: jobs that wait, are claimed, or have ended."""

    def __init__(self, root: Path, cluster: Cluster, jobs: int) -> None:
        self.root, self.cluster = root, cluster
        self.runs = {f"job{n}": 1 for n in range(jobs)}
        self.waiting = sorted(self.runs)
        self.claimed: dict[Key, str] = {}
        self.ends: dict[str, str] = {}
        self.kinds: set[type] = set()
        self.packs = 0
        self.dead = False
        self.start()

    def start(self) -> None:
        """A new process begins: all that it knows is in files."""
        self.tracker = Tracker(str(self.root), "node.py", self.cluster, LIMITS, 0)
        for key in self.tracker.adopt(self.claimed, self.cluster.now):
            self.put_back(key)

    def put_back(self, key: Key) -> None:
        """The job waits again, as it was."""
        self.waiting.append(self.claimed.pop(key))

    def feed(self, most: int) -> None:
        """Claim some jobs and hand them over. With malice the process may die before, in, or after it."""
        part, self.waiting = self.waiting[:most], self.waiting[most:]
        keys: list[Key] = [(job, f"{self.runs[job]}.1") for job in part]
        self.claimed.update(zip(keys, part, strict=True))
        if not part or self.dies():
            return
        self.packs += 1
        orders = [Order(key, "true", "/", {}, 1) for key in keys]
        self.tracker.hand(f"p{self.packs}", orders, Shape(), self.cluster.now)

    def dies(self) -> bool:
        """Whether the process dies just now."""
        self.dead = self.dead or (self.cluster.malice > 0 and self.cluster.draw.random() < 0.02)
        return self.dead

    def settle(self, events: list[Event]) -> None:
        """Record what the events say."""
        for event in events:
            self.kinds.add(type(event))
            if self.dies():
                return
            job = self.claimed.pop(event.key, "")
            if not job:  # taken away meanwhile: there is nothing to record it in
                self.tracker.settled(event.key)
                continue
            if isinstance(event, Ended):
                if event.record.code:
                    self.again(job)
                else:
                    assert job not in self.ends
                    self.ends[job] = "done"
            elif isinstance(event, Refused) or (isinstance(event, Back) and event.is_cancelled):
                assert job not in self.ends
                self.ends[job] = "dead"
            elif isinstance(event, Lost):
                self.again(job)
            else:
                self.waiting.append(job)
            if self.dies():
                return  # recorded, and the pack does not know it
            self.tracker.settled(event.key)

    def again(self, job: str) -> None:
        """A run is recorded, and the job waits for the next one."""
        self.runs[job] += 1
        self.waiting.append(job)

    def step(self) -> None:
        """One round of its loop."""
        draw = self.cluster.draw
        if self.cluster.malice and draw.random() < 0.05:
            self.settle(self.tracker.take_back())
        if not self.dead and self.cluster.malice and draw.random() < 0.05 and self.claimed:
            self.settle(self.tracker.cancel([draw.choice(sorted(self.claimed))]))
        if not self.dead and self.cluster.malice and draw.random() < 0.03 and self.claimed:
            key = draw.choice(sorted(self.claimed))
            self.cluster.moved.add(key)  # somebody moves its file back to pending/ by hand
            self.put_back(key)
            if draw.random() < 0.5:
                self.tracker.drop([key])
        if not self.dead:
            self.feed(draw.choice((0, 1, 3)))
        if not self.dead:
            self.settle(self.tracker.tick(self.cluster.now))
        if not self.dead:
            self.tracker.clear(self.tracker.over())
        if self.dead:
            self.dead = False
            self.start()


@pytest.fixture
def no_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is synced: no power cut is tried here, and thousands of syncs take minutes."""
    monkeypatch.setattr(files, "sync_file", lambda _: None)
    monkeypatch.setattr(files, "sync_folder", lambda _: None)


def play(root: Path, seed: int, rounds: int) -> tuple[Dispatcher, Cluster]:
    """Let an engine lie for some rounds, and then become honest: everything must come to its end."""
    root.mkdir()
    cluster = Cluster(random.Random(seed), LIMITS)
    dispatcher = Dispatcher(root, cluster, JOBS)
    for _ in range(rounds):
        cluster.step(cluster.draw.choice((1, 4, 4, 12)))
        dispatcher.step()
    cluster.malice = 0
    for _ in range(400):
        if len(dispatcher.ends) == JOBS and not list(root.iterdir()):
            break
        cluster.step(4)
        dispatcher.step()
    return dispatcher, cluster


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(min_value=0))
def test_each_job_runs_once_at_a_time_and_ends_once(
    no_disk: None, tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    """Accepted and denied, run twice, forgotten, resent, cancelled, taken back; nodes freeze; dispatchers die."""
    root = tmp_path_factory.mktemp("share") / "spool"
    dispatcher, _ = play(root, seed, 90)
    assert set(dispatcher.ends) == set(dispatcher.runs)
    assert list(root.iterdir()) == []
    assert dispatcher.claimed == {}


def test_the_schedules_come_to_each_kind_of_end(no_disk: None, tmp_path: Path) -> None:
    """Otherwise the test above would prove little."""
    kinds: set[type] = set()
    seeds = iter(range(40))
    while kinds != {Ended, Lost, Back, Refused}:
        seed = next(seeds)
        kinds |= play(tmp_path / str(seed), seed, 90)[0].kinds


# -- one case after the other ------------------------------------------------------------------------------------------


class Told:
    """An engine that does nothing and says what a test puts into its mouth."""

    def __init__(self) -> None:
        self.sent: list[Parcel] = []
        self.cancelled: list[str] = []
        self.nudged: list[str] = []
        self.says = News()

    def send(self, parcel: Parcel) -> None:
        """Take note."""
        self.sent.append(parcel)

    def news(self) -> News:
        """Say it once."""
        said, self.says = self.says, News()
        return said

    def cancel(self, packs: Iterable[str]) -> None:
        """Take note."""
        self.cancelled += packs

    def nudge(self, packs: Iterable[str]) -> None:
        """Take note."""
        self.nudged += packs


A, B, C = ("a", "1.7"), ("b", "1.8"), ("c", "1.9")
WIDE = Shape(cpus=4, memory=512, gpus="a100:2", partition="gpu", options=("--qos=low",))


def orders(*keys: Key) -> list[Order]:
    return [Order(key, "true", "/", {}, 60) for key in keys]


@pytest.fixture
def engine(no_disk: None) -> Told:
    return Told()


@pytest.fixture
def tracker(tmp_path: Path, engine: Told) -> Tracker:
    return again(tmp_path, engine)


def again(share: Path, engine: Told) -> Tracker:
    """A new process: it knows what the share tells it."""
    return Tracker(str(share), "node.py", engine, LIMITS, 0)


def runner(folder: Path, *numbers: int, beat: str = "1", name: str = "n1.7.8") -> None:
    """A runner is there, and has begun these attempts."""
    by = folder / f"by.{name}"
    by.touch()
    (folder / f"beat.{name}").write_text(beat)
    for number in numbers:
        os.link(by, folder / f"claim.{number}")


def test_a_pack_goes_to_the_engine_as_its_jobs_want_it(
    tracker: Tracker, engine: Told, tmp_path: Path
) -> None:
    """And once more with the same wishes, also by the next dispatcher."""
    tracker.hand("p1", orders(A, B), WIDE, 0, minutes=5, priority=3)
    assert engine.sent == [Parcel("p1", str(tmp_path / "p1"), "node.py", WIDE, 5, 3)]

    tracker = again(tmp_path, engine)
    assert tracker.adopt([A, B], 100) == []
    for moment in (101, 131):
        engine.says = News(poll=Poll(moment, {}))
        assert tracker.tick(moment) == []
    assert engine.sent == [Parcel("p1", str(tmp_path / "p1"), "node.py", WIDE, 5, 3)] * 2


def test_what_nobody_was_told_of_goes_back(tracker: Tracker, engine: Told, tmp_path: Path) -> None:
    """A dispatcher died after its claims, or while it made the pack: nobody can have begun them."""
    (tmp_path / "p1").mkdir()
    (tmp_path / "p1" / "by.dispatcher").touch()
    assert tracker.adopt([A, B], 0) == [A, B]
    assert list(tmp_path.iterdir()) == []


def test_a_job_that_somebody_moves_back_by_hand_is_not_sent_twice(
    tracker: Tracker, engine: Told, tmp_path: Path
) -> None:
    """Its run goes on there: it is followed to its end, and not begun beside itself."""
    tracker.hand("p1", orders(A), Shape(), 0)
    runner(tmp_path / "p1", 0)
    tracker.drop([A])
    assert (tmp_path / "p1" / "cancel.0").exists()
    assert engine.nudged == ["p1"]
    assert tracker.over() == []

    tracker.hand("p2", orders(A, B), Shape(), 1)

    assert [
        len(json.loads((tmp_path / one.name / "pack.json").read_text())["jobs"]) for one in engine.sent
    ] == [1, 1]
    assert tracker.tick(1) == []
    assert [type(event) for moment in range(2, 120) for event in tracker.tick(moment)] == [Lost]


def test_the_next_dispatcher_does_not_send_it_twice_either(
    tracker: Tracker, engine: Told, tmp_path: Path
) -> None:
    """The job is not among the claims, and its run is: the pack stays until that is over."""
    tracker.hand("p1", orders(A), Shape(), 0)
    runner(tmp_path / "p1", 0)
    tracker = again(tmp_path, engine)
    assert tracker.adopt([], 0) == []
    tracker.tick(1)
    assert tracker.over() == []
    tracker.hand("p2", orders(A), Shape(), 1)
    assert len(engine.sent) == 1


def test_what_was_taken_back_is_told_of_once_although_it_was_sent_anew(
    tracker: Tracker, engine: Told, tmp_path: Path
) -> None:
    """Told again of the new pack, it would put a job back that is just being run."""
    tracker.hand("p1", orders(A), Shape(), 0)
    assert tracker.take_back() == [Back(A)]
    assert engine.cancelled == ["p1"]
    tracker = again(tmp_path, engine)
    assert tracker.adopt([A], 0) == []
    tracker.hand("p2", orders(A), Shape(), 1)
    assert tracker.tick(1) == []

    tracker = again(tmp_path, engine)
    assert tracker.adopt([A], 0) == []
    runner(tmp_path / "p2", 0)
    assert tracker.tick(1) == []
    assert tracker.over() == ["p1"]


def test_a_refusal_buries_what_has_not_begun(tracker: Tracker, engine: Told, tmp_path: Path) -> None:
    """With the engine's words. What a runner has begun goes on, whatever the engine says."""
    tracker.hand("p1", orders(A, B), Shape(), 0)
    tracker.hand("p2", orders(("c", "1.9")), Shape(), 0)
    runner(tmp_path / "p2", 0)
    refused = Answer.REFUSED, "Invalid partition name specified"
    engine.says = News({"p1": refused, "p2": refused})
    assert tracker.tick(1) == [Refused(A, refused[1]), Refused(B, refused[1])]
    assert tracker.tick(2) == []


def test_an_engine_that_is_full_for_long_buries_nothing(tracker: Tracker, engine: Told) -> None:
    """It is asked again and again."""
    tracker.hand("p1", orders(A), Shape(), 0)
    for moment in range(1, 1200, 10):
        full = {"p1": (Answer.FULL, "temporarily unable")} if engine.sent else {}
        engine.sent.clear()
        engine.says = News(full, Poll(moment, {}))
        assert tracker.tick(moment) == []
    assert tracker.full == "temporarily unable"


def test_what_no_node_ever_begins_is_given_up_with_a_reason(tracker: Tracker, engine: Told) -> None:
    """After five sends, each followed by half a minute in which the engine knew nothing of it."""
    tracker.hand("p1", orders(A), Shape(), 0)
    events = []
    for moment in range(1, 400, 5):
        engine.says = News(poll=Poll(moment, {"p1": [Row("7", "FAILED", "NonZeroExitCode", is_live=False)]}))
        events += tracker.tick(moment)
    assert events == [
        Refused(A, "no node has begun it, although it was sent 5 times: FAILED (NonZeroExitCode)")
    ]
    assert len(engine.sent) == 5


def test_an_answer_from_before_a_send_says_nothing_of_it(tracker: Tracker, engine: Told) -> None:
    """A slow answer, asked for when the engine could not know the pack yet, must not have it sent again."""
    tracker.hand("p1", orders(A), Shape(), 100)
    for asked_at in (40, 99, 100, 110, 139):
        engine.says = News(poll=Poll(asked_at, {}))
        assert tracker.tick(150) == []
    assert len(engine.sent) == 1
    engine.says = News(poll=Poll(140, {}))
    tracker.tick(151)
    assert len(engine.sent) == 2


@pytest.mark.parametrize(
    ("change", "helpers"),
    [
        ({}, 1),
        ({"idle": 0}, 0),
        ({"state": "PENDING"}, 0),
        ({"begun": 4}, 0),
        ({"left": True}, 0),
        ({"cpus": 9}, 0),
    ],
    ids=str,
)
def test_a_pack_gets_help_while_processors_are_idle(
    tracker: Tracker, engine: Told, tmp_path: Path, change: dict[str, Any], helpers: int
) -> None:
    """One more runner an answer: unless one waits already, nothing is left, or the processors are too few."""
    keys = [(f"j{number}", "1.7") for number in range(4)]
    tracker.hand("p1", orders(*keys), Shape(cpus=change.get("cpus", 1)), 0)
    runner(tmp_path / "p1", *range(change.get("begun", 1)))
    if change.get("left"):
        (tmp_path / "p1" / "left.n1.7.8").touch()
    state = change.get("state", "RUNNING")
    engine.says = News(poll=Poll(1, {"p1": [Row("7", state, "", is_live=True)]}, change.get("idle", 8)))
    tracker.tick(1)
    tracker.tick(2)
    assert len(engine.sent) == 1 + helpers


def test_an_answer_brings_only_some_helpers(tracker: Tracker, engine: Told, tmp_path: Path) -> None:
    """Idle processors may be taken by others meanwhile."""
    names = [f"p{number}" for number in range(6)]
    for name in names:
        tracker.hand(name, orders((name, "1.7"), (f"{name}b", "1.7")), Shape(), 0)
        runner(tmp_path / name, 0)
    engine.says = News(poll=Poll(1, {name: [Row("7", "RUNNING", "", is_live=True)] for name in names}, 3))
    tracker.tick(1)
    assert len(engine.sent) == 6 + 3
    engine.says = News(poll=Poll(2, {name: [Row("7", "RUNNING", "", is_live=True)] for name in names}, 99))
    tracker.tick(2)
    assert len(engine.sent) == 6 + 3 + HELPERS_A_POLL


def test_an_engine_that_is_away_gives_nothing_up(tracker: Tracker, engine: Told) -> None:
    """The time between two answers counts only when both say the same."""
    tracker.hand("p1", orders(A), Shape(), 0)
    engine.says = News(poll=Poll(1, {}))
    assert [event for moment in range(1, 5000, 10) for event in tracker.tick(moment)] == []
    assert len(engine.sent) == 1


def is_away(pack: Pack) -> Look:
    raise OSError(errno.EIO, "Input/output error", pack.folder)


def test_a_share_that_is_away_gives_nothing_up(
    tracker: Tracker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For an hour nothing is read; after it the runner is as alive as before."""
    tracker.hand("p1", orders(A), Shape(), 0)
    runner(tmp_path / "p1", 0)
    tracker.tick(0)
    with monkeypatch.context() as away:
        away.setattr(Pack, "look", is_away)
        assert [event for moment in range(1, 3600) for event in tracker.tick(moment)] == []
    assert [event for moment in range(3600, 3650) for event in tracker.tick(moment)] == []
    assert [type(event) for moment in range(3650, 3800) for event in tracker.tick(moment)] == [Lost]


def test_a_deleted_pack_is_lost_after_the_fence(tracker: Tracker, engine: Told, tmp_path: Path) -> None:
    """Its runners can write no beat there, so they end what they run; and a pause does not wait for it."""
    tracker.hand("p1", orders(A), Shape(), 0)
    shutil.rmtree(tmp_path / "p1")
    assert [event for moment in range(1, int(LIMITS.give_up)) for event in tracker.tick(moment)] == []
    assert tracker.take_back() == []
    [event] = [event for moment in range(int(LIMITS.give_up), 130) for event in tracker.tick(moment)]
    assert isinstance(event, Lost)
    tracker.settled(A)
    tracker.clear(tracker.over())
    assert tracker.packs == 0


def test_a_share_that_is_not_mounted_is_no_deleted_pack(
    tracker: Tracker, engine: Told, tmp_path: Path
) -> None:
    """The nodes still have theirs, and what was not taken back may begin there: so nothing is lost, and a pause must wait."""
    tracker.hand("p1", orders(A), Shape(), 0)
    away = tmp_path.with_name(f"{tmp_path.name}-away")
    tmp_path.rename(away)
    try:
        assert [event for moment in range(1, 300) for event in tracker.tick(moment)] == []
        with pytest.raises(FileNotFoundError):
            tracker.take_back()
    finally:
        away.rename(tmp_path)
    assert [event.key for event in tracker.take_back()] == [A]


def test_a_claim_of_nobody_is_given_up_after_the_fence(tracker: Tracker, tmp_path: Path) -> None:
    """A file with the name of a claim keeps all runners from beginning it, and no beat tells of it."""
    tracker.hand("p1", orders(A), Shape(), 0)
    (tmp_path / "p1" / "claim.0").touch()
    assert [event for moment in range(1, int(LIMITS.give_up)) for event in tracker.tick(moment)] == []
    assert [type(event) for moment in range(int(LIMITS.give_up), 130) for event in tracker.tick(moment)] == [
        Lost
    ]


@pytest.mark.parametrize("word", ["PREEMPTED", ""])
def test_the_engine_is_asked_why_it_has_ended_a_runner(
    tracker: Tracker, engine: Told, tmp_path: Path, word: str
) -> None:
    """Its limit of time is a failure, and a job that goes before is none: so its word is waited for, but not for ever."""
    tracker.hand("p1", orders(A), Shape(), 0)
    runner(tmp_path / "p1", 0)
    record = {
        "n": 0,
        "key": A,
        "how": "terminated",
        "code": -15,
        "why": "",
        "ran": True,
        "node": "n1",
        "started": 1,
    }
    record |= {"ended": 2, "seconds": 1, "out": 0, "err": 0}
    (tmp_path / "p1" / "exits.n1.7.8").write_text(json.dumps(record) + "\n")
    engine.says = News(
        poll=Poll(1, {"p1": [Row("7", "RUNNING", "", is_live=True), Row("8", "PENDING", "", is_live=True)]})
    )
    assert tracker.tick(1) == tracker.tick(59) == []
    rows = [Row("7", word, "", is_live=False), Row("8", "PENDING", "", is_live=True)] if word else []
    engine.says = News(poll=Poll(60, {"p1": rows}))
    events = tracker.tick(60)
    assert events == tracker.tick(60) == [] or word
    [event] = events or tracker.tick(62)
    assert isinstance(event, Ended)
    assert (event.row.state if event.row else "") == word


@pytest.mark.parametrize(
    "said", ["slurmstepd: error: Detected 1 oom_kill event in StepId=7.batch.", "all is well"]
)
def test_a_kill_for_memory_is_told_from_another_one(tracker: Tracker, tmp_path: Path, said: str) -> None:
    """Slurm's own log of the pack has it while the runner goes on."""
    tracker.hand("p1", orders(A), Shape(), 0)
    runner(tmp_path / "p1", 0)
    record = {
        "n": 0,
        "key": A,
        "how": "signalled",
        "code": -9,
        "why": "",
        "ran": True,
        "node": "n1",
        "started": 1,
    }
    record |= {"ended": 2, "seconds": 1, "out": 0, "err": 0}
    (tmp_path / "p1" / "exits.n1.7.8").write_text(json.dumps(record) + "\n")
    (tmp_path / "p1" / "slurm.log").write_text(said)
    [event] = tracker.tick(1)
    assert isinstance(event, Ended)
    assert event.no_memory == ("oom_kill" in said)


def test_a_pack_of_another_version_is_left_alone(tracker: Tracker, tmp_path: Path) -> None:
    """It is named, and what lies in it is not touched."""
    (tmp_path / "p1").mkdir()
    (tmp_path / "p1" / "pack.json").write_text(
        '{"v": 2, "sent_as": {}, "jobs": [], "beat": 1, "fence": 1, "grace": 1}'
    )
    assert tracker.adopt([A], 0) == []  # it may be in there, and run
    assert "has version 2" in tracker.unreadable["p1"]
    assert (tmp_path / "p1" / "pack.json").exists()


def test_a_pack_that_has_lost_its_plan_is_not_taken_for_one_that_was_never_sent(
    tracker: Tracker, tmp_path: Path
) -> None:
    """Old files on a share may be deleted by themselves. A node may be at work there, so nothing is sent again."""
    (tmp_path / "half").mkdir()
    (tmp_path / "p1").mkdir()
    (tmp_path / "p1" / "beat.n2.7.1").write_text("1\n")
    assert tracker.adopt([A], 0) == []
    assert tracker.unreadable == {"p1": f"pack.json of {tmp_path}/p1 is gone, and nodes have been at work"}
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["p1"]


def test_what_may_have_been_in_a_pack_that_somebody_deletes_is_lost_after_the_fence(
    tracker: Tracker, tmp_path: Path
) -> None:
    """A node that was at work there ends its command only then. A share that is away is no deleted pack."""
    (tmp_path / "p1").mkdir()
    (tmp_path / "p1" / "pack.json").write_text("no plan")
    (tmp_path / "p1" / "beat.n2.7.1").write_text("1\n")
    assert tracker.adopt([A, B], 0) == []
    tracker.drop([B])
    shutil.move(tmp_path / "p1", tmp_path / ".elsewhere")
    assert tracker.tick(0) == []
    tmp_path.rename(tmp_path.with_name("away"))
    events = [event for moment in range(1, 90) for event in tracker.tick(moment)]
    tmp_path.with_name("away").rename(tmp_path)
    assert events == []
    found = {moment: tracker.tick(moment) for moment in range(90, 200)}
    [(at, [event])] = [(moment, events) for moment, events in found.items() if events]
    assert isinstance(event, Lost)
    assert (event.key, event.runner, event.output) == (A, "", None)
    assert at - 90 > LIMITS.fence + LIMITS.grace
    assert tracker.doubtful == frozenset()


def test_a_pack_that_has_lost_our_note_can_be_taken_back_all_the_same(
    tracker: Tracker, engine: Told, tmp_path: Path
) -> None:
    """Else no pause would ever be heeded. What was taken back with the old note counts as begun until the fence is over."""
    tracker.hand("p1", orders(A, B, C), Shape(), 0)
    runner(tmp_path / "p1", 0)
    assert tracker.take_back([B]) == [Back(B)]
    (tmp_path / "p1" / "by.dispatcher").unlink()
    assert tracker.take_back() == [Back(C)]
    assert [os.path.exists(tmp_path / "p1" / f"claim.{number}") for number in range(3)] == [True] * 3

    (tmp_path / "p1" / "by.dispatcher").unlink()
    tracker = again(tmp_path, engine)
    assert tracker.adopt([A, B, C], 0) == []
    lost: dict[Key, int] = {}
    for moment in range(1, 130):
        (tmp_path / "p1" / "beat.n1.7.8").write_text(f"{moment}\n")
        lost |= {event.key: moment for event in tracker.tick(moment) if isinstance(event, Lost)}
    assert sorted(lost) == [B, C]
    assert min(lost.values()) > LIMITS.fence


def record_of(number: int, key: Key) -> str:
    """The line of a runner about a run that has ended well."""
    record: dict[str, Any] = {"n": number, "key": key, "how": "exited", "code": 0, "why": "", "ran": True}
    record |= {"node": "n1", "started": 1, "ended": 2, "seconds": 1, "out": 0, "err": 0}
    return json.dumps(record) + "\n"


def test_a_quiet_pack_costs_little_and_its_ends_are_seen_at_once(
    tracker: Tracker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two hundred of them took a twentieth of a processor. Its beats count all the same, and what is told changes only with it."""
    tracker.hand("p1", orders(A, B), Shape(), 0)
    runner(tmp_path / "p1", 0)
    (tmp_path / "p1" / "exits.n1.7.8").touch()
    looks, look = [0], Pack.look

    def counted(pack: Pack) -> Look:
        looks[0] += 1
        return look(pack)

    monkeypatch.setattr(Pack, "look", counted)
    for tenth in range(1000, 1050):
        tracker.tick(tenth / 10)
    looks[0], tracker.has_changed = 0, False
    for tenth in range(1050, 2000):
        (tmp_path / "p1" / "beat.n1.7.8").write_text(f"{tenth}\n")
        assert tracker.tick(tenth / 10) == []
    assert 95 / 4 <= looks[0] <= 95 / 2 + 1
    assert not tracker.has_changed
    with (tmp_path / "p1" / "exits.n1.7.8").open("a") as file:
        file.write(record_of(0, A))
    assert [event.key for event in tracker.tick(200.0)] == [A]
    assert tracker.has_changed


def test_what_changes_in_the_moment_of_the_last_change_is_seen(tracker: Tracker, tmp_path: Path) -> None:
    """The times of files may be as coarse as two seconds: the folder looks as it did when it was looked into."""
    tracker.hand("p1", orders(A, B), Shape(), 0)
    runner(tmp_path / "p1", 0)
    os.utime(tmp_path / "p1", (1, 1))
    assert tracker.tick(100.0) == []
    (tmp_path / "p1" / "exits.n1.7.9").write_text(record_of(1, B))
    runner(tmp_path / "p1", 1, name="n1.7.9")
    os.utime(tmp_path / "p1", (1, 1))
    assert [event.key for event in tracker.tick(100.1)] == [B]


def test_a_runner_that_has_left_is_not_cancelled(tracker: Tracker, engine: Told, tmp_path: Path) -> None:
    """The engine has not heard of its end yet. One that waits there still would take a place to find nothing."""
    for name, key in (("p1", A), ("p2", B)):
        tracker.hand(name, orders(key), Shape(), 0)
        runner(tmp_path / name, 0)
        (tmp_path / name / "exits.n1.7.8").write_text(record_of(0, key))
        (tmp_path / name / "left.n1.7.8").touch()
    running, waits = Row("7", "RUNNING", "", is_live=True), Row("9", "PENDING", "", is_live=True)
    engine.says = News(poll=Poll(1, {"p1": [running], "p2": [running, waits]}))
    for event in tracker.tick(1):
        tracker.settled(event.key)
    tracker.clear(tracker.over())
    assert (tracker.packs, engine.cancelled) == (0, ["p2"])


# -- as NFS clients behave ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.ESTALE, errno.EIO, errno.ETIMEDOUT])
def test_a_file_server_that_refuses_gives_nothing_up(
    tracker: Tracker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """After a restart it may say of each folder that its handle is stale. That is no deleted pack, and no silent runner."""
    tracker.hand("p1", orders(A, B), Shape(), 0)
    runner(tmp_path / "p1", 0)
    assert tracker.tick(1) == []

    def refuse(path: str, *_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number), path)

    with monkeypatch.context() as away:
        away.setattr(os, "scandir", refuse)
        away.setattr(os, "open", refuse)
        assert [event for moment in range(2, 400, 4) for event in tracker.tick(moment)] == []
    (tmp_path / "p1" / "exits.n1.7.8").write_text(record_of(0, A))
    assert [type(event) for event in tracker.tick(400)] == [Ended]


def test_a_claim_that_the_client_does_not_show_yet_is_not_taken_back(
    tracker: Tracker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It remembers a folder for up to a minute. The link, which the server makes, says that somebody was sooner."""
    tracker.hand("p1", orders(A, B), Shape(), 0)
    old = Pack(str(tmp_path / "p1"), (A, B), LIMITS).look()
    runner(tmp_path / "p1", 0)
    monkeypatch.setattr(Pack, "look", lambda _: old)
    assert tracker.take_back() == [Back(B)]
    assert tracker.cancel([A]) == []


def test_a_file_that_somebody_reads_stays_under_another_name_and_keeps_no_place(
    tracker: Tracker, engine: Told, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`logs -f` may be reading it: the client renames it instead of deleting it, and the folder stays as long."""
    tracker.hand("p1", orders(A), Shape(), 0)
    tracker.settled(A)
    unlink = os.unlink

    def rename(path: str) -> None:
        if path.endswith("pack.json"):
            os.rename(path, os.path.join(os.path.dirname(path), ".nfs0001"))
        elif ".nfs" not in path:
            unlink(path)

    with monkeypatch.context() as open_elsewhere:
        open_elsewhere.setattr(os, "unlink", rename)
        tracker.clear(tracker.over())
        assert tracker.packs == 0
        tracker.clear([])
        assert [path.name for path in tmp_path.iterdir()] == [".gone.p1"]
    tracker.clear([])
    assert list(tmp_path.iterdir()) == []
