"""A dispatcher dies just before the n-th step of a story, for n = 1, 2, 3 and so on until the story gets through.

A program of its own, since it forks: python dispatch_points.py STORY FOLDER. The dispatcher is the real one on a real
spool. Its cluster is the engine that lies, in simulated time, and goes on when the dispatcher dies. Steps are changes of the
file system, in the spool and in the shared folder, single writes, syncs, and commits of the index. After each death a
dispatcher that knows nothing works all of it off; one line of JSON a death tells what was found then.
"""

from __future__ import annotations

import base64
import json
import os
import pickle
import random
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import sweeps
from crash_points import DIED, in_child, tell, watch_steps
from lying_engine import Cluster

from queuectl import Spool
from queuectl.control import commands, pause
from queuectl.engine.base import Answer, Parcel
from queuectl.engine.verdict import Limits
from queuectl.fast_start import fast_json
from queuectl.layout import Layout
from queuectl.storage import power_loss  # noqa: F401  # loaded before the first death, or it would be one
from queuectl.system import files
from queuectl.worker import dispatch_check, dispatcher, preload, share

MOST = 3000
POINTS = 24
"""Deaths in one story with a stride of 1, unless all steps are tried: each costs a second."""

LIMITS = Limits(beat=10, fence=60, grace=5)
_real_time = time.monotonic


class Connected(Cluster):
    """The cluster as the loop of a dispatcher sees it. All monotonic clocks here show its time.

    Attributes:
        skew: seconds by which that is ahead.
        refuses: it takes no pack.
        seconds: that pass in one round of the dispatcher.
    """

    def __init__(self, malice: int) -> None:
        super().__init__(random.Random(18), LIMITS)
        self.malice, self.skew, self.seconds = malice, 0.0, 2.0
        self.refuses = False
        self.trouble, self.answered_at = "", 0.0
        self.is_at_work = False

    def send(self, parcel: Parcel) -> None:
        """Take it, or refuse it."""
        if self.refuses:
            self.answers[parcel.name] = Answer.REFUSED, "Invalid partition name specified"
        else:
            super().send(parcel)

    def ask(self) -> None:
        """It has said what it has to say."""

    def close(self, patience: float = 0.0) -> None:
        """It goes on."""

    def clock(self) -> float:
        """Its time."""
        return _real_time() + self.skew

    def step(self, seconds: float) -> None:
        """Let time pass. What happens on the nodes is no step of the dispatcher."""
        self.is_at_work = True
        self.skew += seconds
        self.now = self.answered_at = self.clock()
        super().step(0)
        self.is_at_work = False


class Stepped(dispatcher.Dispatcher):
    """A dispatcher whose share works in the main thread, between two rounds, in which the time of the cluster passes."""

    def __init__(self, spool: Path, cluster: Connected, orders: Orders, **options: Any) -> None:
        super().__init__(
            spool, connect=lambda *_: cluster, may_be_root=True, beat=LIMITS.beat, say=_said.append, **options
        )
        self.cluster, self._given = cluster, orders
        self.round = 0

    def _wait(self) -> None:
        self.round += 1
        self.cluster.step(self.cluster.seconds)
        for _ in range(20):
            if self.share is not None and self.share.fault is None:
                self.share.turn()
        for order in self._given.pop(self.round, ()):
            self.cluster.is_at_work = True  # another process gives it
            order(self)
            self.cluster.is_at_work = False
        self._wake_up.set()
        super()._wait()
        if self.round > 400:
            raise AssertionError(f"it has come to no end: {_said[-5:]}")


Orders = dict[int, list[Callable[[Stepped], object]]]
_said: list[str] = []


@dataclass
class Story:
    """What is there before, what others do meanwhile, and how it may end.

    Attributes:
        queue: queues the jobs.
        orders: makes what others do, by the round of the dispatcher's loop after which they do it.
        cluster: prepares it.
        before: what happens before the first step that counts, if anything.
        drains: the dispatcher leaves when nothing is left.
        runs: how often the jobs may have run, all together.
        malice: 1: the cluster lies.
        config: further settings.
        jobs: their ids.
    """

    queue: Callable[[Path], None]
    orders: Callable[[], Orders] = dict
    cluster: Callable[[Connected], None] = lambda _: None
    before: Callable[[Path, Connected], None] | None = None
    drains: bool = True
    runs: tuple[int, int] = (5, 5)
    malice: int = 0
    config: str = ""
    jobs: list[str] = field(default_factory=lambda: ["a", "b", "c", "d", "e"])


def main(name: str, folder: Path) -> None:
    """Tell a story again and again."""
    fast_json.import_whole()
    preload.load_all(with_rules=False)
    setattr(dispatch_check, "COMMANDS", ())  # noqa: B010  # it is imported there from another module
    story = STORIES[name]
    for number in range(1, MOST) if sweeps.FULL else [*_some_steps(name, folder / "rehearsal"), MOST]:
        home = folder / str(number)
        cluster = _prepare(story, home)
        code, said = in_child(partial(_die_at, number, story, home, cluster))
        where, _, state = said.partition("CLUSTER ")
        report: dict[str, Any] = {"number": number, "code": code, "said": where}
        if state:
            cluster = pickle.loads(base64.b64decode(state))  # noqa: S301  # what our own child has written
            finish, told = in_child(partial(_finish, home, cluster))
            report |= {"finish": finish, "told": told}
        print(json.dumps(report), flush=True)
        shutil.rmtree(home)
        if code != DIED:
            return


def _some_steps(name: str, home: Path) -> list[int]:
    """The numbers of some steps that concern claims, packs, or outcomes: others in each story."""
    code, said = in_child(partial(_die_at, MOST, STORIES[name], home, _prepare(STORIES[name], home), tell))
    assert code == 0, said[-500:]
    steps = said.partition("CLUSTER ")[0].splitlines()
    wanted = [
        number
        for number, step in enumerate(steps, 1)
        if any(
            place in step
            for place in ("share/", "processing/slurm/", "spool/done/", "spool/dead/", "spool/pending/")
        )
    ]
    stride = max(1, len(wanted) // POINTS) * sweeps.STRIDE
    return wanted[(sweeps.SEED + list(STORIES).index(name)) % stride :: stride]


def _prepare(story: Story, home: Path) -> Connected:
    spool, place = home / "spool", home / "share"
    home.mkdir(parents=True)
    place.mkdir(mode=0o700)
    Layout(spool).create()
    text = f"engine: slurm\nslurm_dir: {place}\nslurm_fence: 60\nkill_grace: 5\n{story.config}"
    Path(Layout(spool).config_yaml).write_text(text)
    code, said = in_child(partial(story.queue, spool))
    assert code == 0, said
    cluster = Connected(story.malice)
    story.cluster(cluster)
    if story.before is None:
        return cluster
    code, said = in_child(partial(_before, story.before, home, cluster))
    assert code == DIED, said
    made: Connected = pickle.loads(base64.b64decode(said.partition("CLUSTER ")[2]))  # noqa: S301  # our own child's
    return made


def _take_over(cluster: Connected) -> None:
    """Have this process live in the time of a cluster."""
    time.monotonic = cluster.clock
    share.Share.start = lambda self: None  # type: ignore[method-assign]  # noqa: ARG005
    kept = share.Share.__init__
    share.Share.__init__ = lambda self, *parts: kept(self, *parts, clock=cluster.clock)  # type: ignore[method-assign, misc]


def _die(cluster: Connected, what: str) -> None:
    tell(f"{what}\nCLUSTER {base64.b64encode(pickle.dumps(cluster)).decode()}")
    os._exit(DIED)


def _before(act: Callable[[Path, Connected], None], home: Path, cluster: Connected) -> None:
    _take_over(cluster)
    act(home, cluster)
    _die(cluster, "")


def _die_at(
    number: int, story: Story, home: Path, cluster: Connected, note: Callable[[str], None] = lambda _: None
) -> None:
    left = number

    def step(what: str) -> None:
        nonlocal left
        if cluster.is_at_work:
            return
        left -= 1
        what = what.replace(f"{home}/", "")
        if left == 0:
            _die(cluster, what)
        note(what)

    _take_over(cluster)
    _watch_writes(str(home), step)
    watch_steps(str(home), step)
    Stepped(home / "spool", cluster, story.orders(), drain=story.drains).run()
    cluster.is_at_work = True
    tell(
        f"\nCLUSTER {base64.b64encode(pickle.dumps(cluster)).decode()}"
    )  # what the story leaves is judged, too


def _watch_writes(inside: str, step: Callable[[str], None]) -> None:
    """Have this called before each single write and sync in a folder, too."""
    for module, name in (
        (os, "write"),
        (os, "fsync"),
        (os, "fdatasync"),
        (os, "ftruncate"),
        (files, "_syncfs"),
    ):
        kept = getattr(module, name)

        def call(fd: int, *args: Any, kept: Any = kept, name: str = name) -> Any:
            path = os.readlink(f"/proc/self/fd/{fd}")
            if path.startswith(inside):
                step(f"{name} {path}")
            return kept(fd, *args)

        setattr(module, name, call)


def _finish(home: Path, cluster: Connected) -> None:
    """Let a dispatcher that knows nothing work all of it off, and tell what is there then."""
    spool = home / "spool"
    cluster.malice, cluster.holds, cluster.is_still, cluster.refuses = 0, False, False, False
    _take_over(cluster)
    pause.end(Layout(spool))
    Stepped(spool, cluster, {}, drain=True).run()
    if list((home / "share").glob("*/*/pack.json")):
        # A drain does not wait for the fence of a dead runner, whose job has gone on already. Whoever stays clears its pack.
        Stepped(spool, cluster, {60: [_stop()]}).run()
    found: dict[str, Any] = {"ends": {}, "torn": [], "said": _said}
    for path in sorted(spool.rglob("*.json")):
        place = path.parent.relative_to(spool).as_posix()
        if place.startswith(("data", "tmp")) or place == ".":
            continue
        record = json.loads(path.read_bytes())
        past = [entry["outcome"] for entry in record.get("history", [])]
        found["ends"].setdefault(path.stem, []).append([place, past])
    found["begun"] = Counter(key[0] for key in cluster.begun.elements())
    found["moved"] = [key[0] for key in cluster.moved]
    found["packs"] = [path.name for path in (home / "share").glob("*/*") if path.is_dir()]
    found["claims"] = [path.name for path in (spool / "processing").glob("*/*") if path.suffix == ".json"]
    found["counts"] = Spool(spool).counts()
    tell(json.dumps(found))


# -- stories -----------------------------------------------------------------------------------------------------------


def _queue(spool: Path) -> None:
    """Short jobs that share a pack, one that is alone, and a dropped file, which does not say when it was made."""
    for job_id in ("a", "b", "c"):
        Spool(spool).enqueue("true", id=job_id, timeout=10, max_retries=0)
    Spool(spool).enqueue("true", id="d", timeout=900, max_retries=0)
    dropped = {"id": "e", "command": "true", "max_retries": 0, "timeout": 10}
    Path(Layout(spool).pending, "e.json").write_text(json.dumps(dropped))


def _stop(*, force: bool = False) -> Callable[[Stepped], None]:
    return lambda one: one.flags.stop(force=force)


def _cancel(*ids: str) -> Callable[[Stepped], None]:
    return lambda one: commands.request_cancel(one.layout, "slurm", dict.fromkeys(ids, 1))


def _take_away(one: Stepped) -> None:
    """Somebody moves a job that is out back to pending/ by hand."""
    path = Path(one.layout.claims("slurm"), "b.json")
    one.cluster.moved |= {key for key in one.cluster.begun if key[0] == "b"}
    if path.exists():
        path.rename(Path(one.layout.pending, "b.json"))


def _set(**states: bool) -> Callable[[Any], None]:
    def change(one: Any) -> None:
        cluster = getattr(one, "cluster", one)
        for name, value in states.items():
            setattr(cluster, name, value)

    return change


def _kill_runners(one: Stepped) -> None:
    for runner in one.cluster.runners:
        runner.dead, runner.runs = True, None


def _left_amid(home: Path, cluster: Connected) -> None:
    """An earlier dispatcher has died: one job is over, others run or wait there, and one outcome is recorded twice."""
    spool = home / "spool"
    cluster.holds = True
    claims = Path(Layout(spool).claims("slurm"))
    kept: dict[str, bytes] = {}

    def keep(_: Stepped) -> None:
        kept.update((path.name, path.read_bytes()) for path in claims.glob("a.json"))
        cluster.holds = False

    def restore(_: Stepped) -> None:
        for name, data in kept.items():
            if not (claims / name).exists():
                (claims / name).write_bytes(data)
        _die(cluster, "")

    Stepped(spool, cluster, {4: [keep], 5: [_set(holds=True)], 7: [restore]}).run()


STORIES = {
    "run": Story(_queue),
    "taken back": Story(_queue, lambda: {6: [_stop()]}, _set(is_still=True), drains=False),
    "paused": Story(
        _queue,
        lambda: {
            5: [lambda one: pause.begin(one.layout)],
            9: [lambda one: pause.end(one.layout), _set(is_still=False)],
        },
        _set(is_still=True),
    ),
    "cancelled": Story(
        _queue,
        lambda: {5: [_cancel("a", "c", "d")], 9: [_set(holds=False)]},
        _set(holds=True),
        runs=(0, 5),
    ),
    "forced": Story(_queue, lambda: {5: [_stop(force=True)]}, _set(holds=True), runs=(5, 10), drains=False),
    "refused": Story(_queue, dict, _set(refuses=True), runs=(0, 5)),
    "lost": Story(
        _queue, lambda: {5: [_kill_runners], 9: [_set(holds=False)]}, _set(holds=True), runs=(5, 10)
    ),
    "adopted": Story(_queue, lambda: {4: [_set(holds=False)]}, before=_left_amid),
    "moved by hand": Story(
        _queue, lambda: {5: [_take_away], 9: [_set(holds=False)]}, _set(holds=True), runs=(5, 6)
    ),
    "lied to": Story(_queue, lambda: {9: [_set(malice=False)]}, malice=1, runs=(0, 9)),
}

if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
