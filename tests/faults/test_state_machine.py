"""Whatever is done to a spool, in whatever order: every job lies in one place, and the commands say which.

Workers, people with `mv`, commands that die half way, clocks that jump and indexes that vanish take turns on one
spool. A plain dictionary says what should have come of it. Everything happens in this process: a death is an
exception at a chosen call to the file system, after which the dead one makes no more calls.

QUEUECTL_STATE_EXAMPLES and QUEUECTL_STATE_STEPS make it as long as one likes. `python tests/replay_states.py LOG` plays a
failure once more.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import sqlite3
import sys
import tempfile
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum
from functools import wraps
from itertools import count
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from queuectl import Spool, Worker
from queuectl.api import enqueue, listing, spool_base
from queuectl.errors import DuplicateId, MoveError, SpoolError
from queuectl.job.outcome import Ending, Outcome
from queuectl.job.times import micros
from queuectl.storage import orphaned_runs
from queuectl.storage import recovery as recover
from queuectl.storage.claim import note_running
from queuectl.storage.file_pool import FilePool
from queuectl.system import file_times, files
from queuectl.worker import maintenance, prefetch
from queuectl.worker import worker as worker_module
from queuectl.worker.prefetch import Prefetch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from queuectl.control.permits import Permit
    from queuectl.storage.transitions import Claim

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="files are moved while they are open")

EXAMPLES = int(os.environ.get("QUEUECTL_STATE_EXAMPLES", "45"))
STEPS = int(os.environ.get("QUEUECTL_STATE_STEPS", "40"))
CRASH_LIMIT = 3
PLACES = 1
"""The limit of the queue `mail`."""
KINDS = ("after", "after_any", "after_failure")
OUTCOMES = {
    "success": (Ending.SUCCEEDED, 0),
    "failure": (Ending.FAILED, 3),
    "signal": (Ending.SIGNALLED, 137),
    "timeout": (Ending.TIMED_OUT, None),
    "not started": (Ending.NOT_STARTED, None),
    "stopped": (Ending.STOPPED, None),
    "cancelled": (Ending.CANCELLED, None),
}
JUMPS = (1.0, 5.0, 70.0, 3600.0, 400 * 86400.0, -1.0, -70.0, -3600.0, -400 * 86400.0)
TURNS = [
    name
    for name, often in {
        "enqueue": 4, "drop": 2, "drop_some": 3, "drop_rubbish": 1, "claim": 5, "settle": 6, "note_running": 2, "start_worker": 1,
        "kill_worker": 2, "recover": 2, "stop_worker": 1, "sync": 1, "move_by_hand": 3, "delete_by_hand": 1,
        "edit_by_hand": 2, "move_odd_back": 1, "requeue": 2, "cancel": 1, "forget": 1, "reindex": 1, "clock_jumps": 2,
        "index_breaks": 2, "index_goes_back": 2, "reboot": 1, "look_away": 2, "hold": 2, "set_field": 2, "pause": 1,
        "pause_queue": 1,
    }.items()
    for _ in range(often)
]  # fmt: skip
HANDS = {
    "drop",
    "drop_some",
    "drop_rubbish",
    "move_by_hand",
    "delete_by_hand",
    "edit_by_hand",
    "move_odd_back",
}
ANY = st.integers(0, 10**6)
FUSE = st.none() | st.integers(0, 45)


class DiedError(BaseException):
    """The process was killed just before a call to the file system."""


class Fuse:
    """Kills whoever makes the n-th call to the file system while it burns, and keeps it dead."""

    _CALLS = (
        "rename",
        "replace",
        "unlink",
        "link",
        "open",
        "write",
        "mkdir",
        "rmdir",
        "ftruncate",
        "utime",
        "chmod",
    )

    def __init__(self) -> None:
        self._real = {name: getattr(os, name) for name in self._CALLS}
        self._renameat2 = files._renameat2
        self._thread = threading.get_ident()

    @contextmanager
    def burning(self, calls: int | None) -> Iterator[None]:
        """Let so many calls pass; None: all of them."""
        if calls is None:
            yield
            return
        left = calls

        def guard(real: Callable[..., Any]) -> Callable[..., Any]:
            def call(*args: Any, **options: Any) -> Any:
                nonlocal left
                if threading.get_ident() == self._thread:
                    left -= 1
                    if left < 0:
                        raise DiedError
                return real(*args, **options)

            return call

        for name, real in self._real.items():
            setattr(os, name, guard(real))
        files._renameat2 = guard(self._renameat2)
        try:
            yield
        finally:
            for name, real in self._real.items():
                setattr(os, name, real)
            files._renameat2 = self._renameat2


class CommandEnd(Enum):
    """Why a command has no answer."""

    DIED = "it died on its way"
    REFUSED = "it refused"


@dataclass
class Known:
    """What must be true of one job file: where it lies, and what stands in it."""

    tag: str
    id: str
    place: str
    name: str
    command: str
    priority: int
    max_retries: int
    state: str = "pending"
    attempts: int = 0
    crashes: int = 0
    runs: int = 0
    due: float | None = None
    retry: float | None = None
    by_shorter_wait: float = math.inf
    """When it may be started after the clock was set back: no retry waits longer than its own wait from then."""
    held: bool = False
    limited: bool = False
    """Whether it has a timeout of its own. A run that ends at the built-in one is not repeated."""
    queue: str | None = None
    waits: dict[str, Any] = field(default_factory=dict)
    """What its file says of jobs and batches: after, after_any, after_failure, if_blocked, batch."""
    void: str | None = None
    """The worker's folder in which a crash in mid-settle has left a copy that no longer holds."""

    @property
    def is_fresh(self) -> bool:
        """Whether it was sent back by hand after its end, and begins anew."""
        return self.state in {"completed", "dead"}

    @property
    def shown(self) -> str:
        """The state that the commands must tell."""
        if self.place == "pending":
            return "failed" if self.attempts and self.retry is not None and not self.is_fresh else "pending"
        return {"done": "completed", "dead": "dead"}.get(self.place, "processing")

    def begin(self) -> None:
        """Forget the attempts of an earlier life, as the next to write the file will."""
        if self.is_fresh:
            self.attempts = self.crashes = 0
            self.retry = None

    @property
    def parents(self) -> list[tuple[str, str]]:
        """The jobs and batches for which it waits, each with the field that names it."""
        return [(kind, parent) for kind in KINDS for parent in self.waits.get(kind, ())]

    @property
    def member_of(self) -> str | None:
        """The batch in which it counts, like batch:parts. It does not in one for which it waits itself."""
        name = f"batch:{self.waits['batch']}" if "batch" in self.waits else None
        return None if any(parent == name for _, parent in self.parents) else name

    @property
    def waits_until(self) -> float:
        """The moment before which nobody may start it."""
        retry = None if self.is_fresh else self.retry
        return retry if retry is not None else self.due or 0.0


def waits_in(record: dict[str, Any]) -> dict[str, Any]:
    """What a job file says of jobs and batches."""
    return {name: record[name] for name in (*KINDS, "if_blocked", "batch") if record.get(name)}


def tag_of(claim: Claim) -> str:
    assert claim.job.tags
    return claim.job.tags[0]


class Copy:
    """One file on the disk, read without any of queuectl's code."""

    def __init__(self, place: str, path: str) -> None:
        self.place, self.name, self.path = place, os.path.basename(path), path
        with open(path, "rb") as file:
            data = file.read()
        try:
            self.record: dict[str, Any] = json.loads(data)
        except ValueError:
            self.record = {"tags": [data.decode().rpartition(" ")[2]]}
        self.tag: str = self.record["tags"][0]


def _told(step: Callable[..., None]) -> Callable[..., None]:
    """Have a failure tell the steps before it. Of one that depends on the moment hypothesis prints none."""

    @wraps(step)
    def told(machine: Machine, **given: Any) -> None:
        try:
            step(machine, **given)
        except Exception as error:
            error.add_note("\n".join(machine.story))
            raise

    return told


class Machine(RuleBasedStateMachine):
    """Everybody who touches a spool, and the model."""

    def __init__(self) -> None:
        super().__init__()
        self.root = self.spool = Path("/nowhere")
        self.door: Spool
        self.clock = 1_800_000_000.0
        self.boot = "boot-0"
        self.jobs: dict[str, Known] = {}
        self.odd: dict[str, str] = {}
        """Files that are no job, or a job whose id is taken, by tag; and the id that they ask for, or nothing."""
        self.workers: dict[str, Worker] = {}
        self.claims: dict[str, list[Claim]] = {}
        """What each worker runs."""
        self.hand: dict[str, str] = {}
        """The names that jobs had before a worker claimed them together with others, by tag."""
        self.permits: dict[str, tuple[str | None, Permit | None]] = {}
        """What the runs hold of limits, by tag: the lane, and the permit."""
        self.slots = 1
        """How many jobs a worker runs at once."""
        self.aside: dict[str, list[Known]] = {}
        """Jobs that are over and not put away, by worker."""
        self.noted: set[str] = set()
        """The jobs whose files say that they run, by tag."""
        self.backup: Path | None = None
        self.blind = 0
        self.steps = 0
        self.story: list[str] = []
        self.draw = Random(0)
        self.coarse = False
        self._numbers = count()
        self._fuse = Fuse()
        self._undo = self._rig()

    def _rig(self) -> pytest.MonkeyPatch:
        """One clock for all, no waiting for the disk, and no search for processes that cannot be there."""
        patch = pytest.MonkeyPatch()
        patch.setattr(enqueue, "time", SimpleNamespace(time=self._now))
        patch.setattr(spool_base, "boot_id", lambda: self.boot)
        patch.setattr(worker_module, "boot_id", lambda: self.boot)
        patch.setattr(os, "fsync", lambda _: None)
        patch.setattr(files, "sync_filesystem", lambda _: None)
        patch.setattr(orphaned_runs, "end_runs", lambda _layout, jobs, *_: [None] * len(jobs))
        patch.setattr(prefetch, "WAITING_SHARE", 1)
        patch.setattr(Prefetch, "_next_size", lambda _: self.draw.randint(1, 4))
        return patch

    def _now(self) -> float:
        return self.clock

    def _new_door(self) -> Spool:
        door = Spool(self.spool)
        door._storage.now = self._now
        return door

    def _door(self, fresh: object) -> Spool:
        """The long-lived one of a program, or one like a command's, used once."""
        if fresh and (not isinstance(fresh, int) or fresh % 2):
            return self._new_door()
        return self.door

    def teardown(self) -> None:
        """Let go of everything, and delete the spool."""
        for name in list(self.workers):
            self._kill(name)
        self._undo.undo()
        if self.spool.exists():
            self.door._index.close()
            shutil.rmtree(self.root)

    # -- the disk --------------------------------------------------------------------------------------------------

    def _disk(self) -> dict[str, list[Copy]]:
        found: dict[str, list[Copy]] = {}
        places = ["pending", "done", "dead"]
        with suppress(FileNotFoundError):
            places += [f"processing/{name}" for name in os.listdir(self.spool / "processing")]
        for place in places:
            with suppress(FileNotFoundError):
                for name in os.listdir(self.spool / place):
                    if name.endswith(".json"):
                        copy = Copy(place, str(self.spool / place / name))
                        found.setdefault(copy.tag, []).append(copy)
        return found

    def _reload(self, known: Known, copy: Copy) -> None:
        record = copy.record
        known.place, known.name = copy.place, copy.name
        known.state = record.get("state", "pending")
        known.attempts, known.crashes = record.get("attempts", 0), record.get("crashes", 0)
        known.runs = len(record.get("history", []))
        known.priority, known.held = record["priority"], record.get("hold", False)
        known.retry = _moment(record.get("next_retry_at"))
        known.queue = record.get("queue")
        known.waits = waits_in(record)

    def _resolve(self, touched: set[str], *, dead: str = "", may_vanish: bool = False) -> None:
        """After a death: what it was about may have happened or not, but not half; nothing else may have changed."""
        disk = self._disk()
        for tag, known in list(self.jobs.items()):
            copies = disk.get(tag, [])
            if not copies and tag in touched and may_vanish:
                del self.jobs[tag]
                continue
            if len(copies) == 2:
                copies.sort(key=lambda copy: len(copy.record.get("history", [])))
                void, copy = copies
                assert void.place.startswith("processing/"), f"two of {known}"
                assert void.place.partition("/")[2] not in self.workers
                known.void = void.place
            else:
                [copy] = copies
                if known.void and copy.place != known.void:
                    known.void = None
            taken = bool(dead) and known.place == "pending" and copy.place == f"processing/{dead}"
            if tag in touched or taken:
                self._reload(known, copy)

    def _take_up_odd(self) -> None:
        """A file whose id was taken when it was dropped may have become a job, if the id was freed before a scan."""
        if not any(self.odd.values()):
            return
        for tag, copies in self._disk().items():
            free = self.odd.get(tag) and self._owner_of(self.odd[tag]) is None
            if free and copies[0].place != "dead":
                self._adopt(copies[0])

    def _adopt(self, copy: Copy) -> None:
        record = copy.record
        job_id = self.odd.pop(copy.tag)
        known = Known(
            copy.tag,
            job_id,
            copy.place,
            copy.name,
            record["command"],
            record["priority"],
            record["max_retries"],
            limited="timeout" in record,
        )
        self._reload(known, copy)
        self.jobs[copy.tag] = known

    # -- choosing --------------------------------------------------------------------------------------------------

    def _pick(self, n: int, *places: str, void: bool = True) -> Known | None:
        fitting = [
            known
            for known in self.jobs.values()
            if known.place.partition("/")[0] in places and (void or known.void is None)
        ]
        return fitting[n % len(fitting)] if fitting else None

    def _worker(self, n: int, fits: Callable[[int], bool] = lambda _: True) -> str | None:
        """A worker; `fits` is asked with the number of jobs that it runs."""
        names = sorted(name for name in self.workers if fits(len(self.claims.get(name, ()))))
        return names[n % len(names)] if names else None

    def _busy(self, n: int) -> str | None:
        """A worker with a job in hand, if one is to be had."""
        if not any(self.claims.values()):
            self.claim(n, None)
        return self._worker(n, lambda running: running > 0)

    def _tag(self) -> str:
        return f"t{next(self._numbers)}"

    def _verdict(self, known: Known) -> str:
        """What the folders say of its conditions: it must wait, it may start, or it goes to done/ or dead/ without a run."""
        verdicts = [self._verdict_of(kind, parent, known) for kind, parent in known.parents]
        decided = [verdict for verdict in verdicts if verdict in {"done", "dead"}]
        return decided[0] if decided else "wait" if "wait" in verdicts else "start"

    def _verdict_of(self, kind: str, parent: str, known: Known) -> str:
        found = [one for one in self.jobs.values() if parent in {one.id, one.member_of}]
        done, dead = (sum(one.place == place for one in found) for place in ("done", "dead"))
        if kind == "after" and dead and known.waits.get("if_blocked") == "dead":
            return "dead"
        if not found or done + dead < len(found) or (kind == "after" and dead):
            return "wait"
        return "done" if kind == "after_failure" and not dead else "start"

    def _some_waits(self, job_id: str) -> dict[str, Any]:
        """A batch, and jobs and batches for which a new job of this id may wait: none that waits for it, also through others."""
        some: dict[str, Any] = {}
        if self.draw.random() < 0.4:
            some["batch"] = self.draw.choice(("x", "y"))
        if self.draw.random() < 0.4:
            return some
        mine = f"batch:{some.get('batch')}"
        names = [*(one.id for one in self.jobs.values()), "batch:x", "batch:y"]
        fitting = [name for name in names if not {job_id, mine} & self._waits_for(name)]
        if "batch" in some and job_id not in self._waits_for(mine):
            fitting.append(mine)  # it does not count in that batch then
        for parent in self.draw.sample(fitting, min(len(fitting), self.draw.randint(1, 2))):
            some.setdefault(self.draw.choice(KINDS), []).append(parent)
        if "after" in some and self.draw.random() < 0.4:
            some["if_blocked"] = "dead"
        return some

    def _waits_for(self, name: str) -> set[str]:
        """This job or batch, and all those for which it waits, in turn; also such as are gone and may come again."""
        found: set[str] = set()
        left = [name]
        while left:
            one = left.pop()
            if one not in found:
                found.add(one)
                for known in self.jobs.values():
                    if known.id == one:
                        left += [parent for _, parent in known.parents]
                    if known.member_of == one:
                        left.append(known.id)
        return found

    def _owner_of(self, job_id: str) -> Known | None:
        return next((known for known in self.jobs.values() if known.id == job_id), None)

    # -- producers -------------------------------------------------------------------------------------------------

    @initialize(memory=st.sampled_from([True, True, False]), slots=st.sampled_from([1, 4]), n=ANY)
    def first_look(self, memory: bool, slots: int, n: int) -> None:
        """The spool is made by the first command; on a disk that is quick, or on one that uses inodes again. It has some jobs."""
        self.slots = slots
        self.story.append(f".first_look(memory={memory}, slots={slots}, n={n})")
        quick = "/dev/shm" if memory and os.path.isdir("/dev/shm") else None
        self.root = Path(tempfile.mkdtemp(prefix="queuectl-states-", dir=quick))
        self.spool = self.root / "spool"
        self.spool.mkdir(mode=0o700)
        (self.spool / "config.yaml").write_text("settle_time: 0\nmin_free_space: 0\n")
        self.door = self._new_door()
        self.door.layout.create()
        (self.spool / "queues" / "mail.yaml").write_text(f"limit: {PLACES}\n")
        self.coarse = not file_times.has_fine_times(str(self.root))
        assert sum(self.door.counts().values()) == 0
        self.draw = Random(n)
        self.drop_some(n, None)

    @rule(what=st.sampled_from(TURNS), n=ANY, fuse=FUSE)
    @_told
    def turn(self, what: str, n: int, fuse: int | None) -> None:
        """Somebody does something; what exactly follows from n.

        One rule for all of it: of many, hypothesis leaves out half in each example, and little comes of the rest.
        """
        self.draw = Random(n)
        self.story.append(f".turn(fuse={fuse}, n={n}, what='{what}')")
        getattr(self, what)(n, fuse)
        if self.coarse and (fuse is not None or what in HANDS):
            # There a change in the tick of the last look leaves no trace for 25 ms (see file_times.YOUNG): known, and slow to wait for.
            for place in ("pending", "done", "dead"):
                os.utime(self.spool / place, ns=(time.time_ns(), time.time_ns()))

    def enqueue(self, n: int, fuse: int | None) -> None:
        """`queuectl enqueue`, which may die at any call."""
        priority, retries = self.draw.randint(1, 10), self.draw.randint(0, 3)
        delay = self.draw.choice([0, 0, 0, 60])
        job_id, tag, door = f"e{n % 6}", self._tag(), self._door(n)
        fields: dict[str, Any] = {"priority": priority, "max_retries": retries, "tags": [tag]}
        if delay:
            fields["run_at"] = self.clock + delay
        if limited := self.draw.random() < 0.5:
            fields["timeout"] = 9
        if queue := self.draw.choice([None, "mail"]):
            fields["queue"] = queue
        fields |= self._some_waits(job_id)
        known = Known(
            tag,
            job_id,
            "pending",
            f"{job_id}.json",
            f"echo {tag}",
            priority,
            retries,
            due=fields.get("run_at"),
            limited=limited,
            queue=queue,
            waits=waits_in(fields),
        )
        taken = self._owner_of(job_id) or next((one for one in self.odd.values() if one == job_id), None)
        try:
            with self._fuse.burning(fuse):
                door.enqueue(f"echo {tag}", id=job_id, **fields)
        except DuplicateId:
            assert taken or any(self.odd.values()), f"{job_id} is free"
            return
        except DiedError:
            self._drop_door(door)
            if self._disk().get(tag):
                assert not self._owner_of(job_id)
                self.jobs[tag] = known
            return
        assert not self._owner_of(job_id)
        self.jobs[tag] = known

    def _command(
        self,
        n: int,
        fuse: int | None,
        known: Known,
        call: Callable[[Spool], Any],
        refused_in: tuple[str, ...] = (),
        *,
        may_vanish: bool = False,
    ) -> Any:
        """Call a command that may die on its way; returns its answer, or why there is none.

        Args:
            refused_in: the folders whose jobs it must refuse; it must not refuse any other.
            may_vanish: the job may be gone if the command dies.
        """
        door = self._door(n)
        try:
            with self._fuse.burning(fuse):
                answer = call(door)
        except DiedError:
            self._drop_door(door)
            self._resolve({known.tag}, may_vanish=may_vanish)
            return CommandEnd.DIED
        except MoveError:
            assert known.place in refused_in
            return CommandEnd.REFUSED
        assert known.place not in refused_in
        return answer

    def _drop_door(self, door: Spool) -> None:
        door._index.close()
        if door is self.door:
            self.door = self._new_door()

    def drop(self, n: int, fuse: int | None) -> None:  # noqa: ARG002 (all turns are called alike)
        """A producer renames a file into pending/; if its id is taken it is no job, or not yet."""
        priority, retries = self.draw.randint(1, 10), self.draw.randint(0, 3)
        says_id = self.draw.random() < 0.5
        tag, job_id = self._tag(), f"d{n % 6}"
        command = f"echo {tag}"
        record: dict[str, Any] = {
            "command": command,
            "priority": priority,
            "max_retries": retries,
            "tags": [tag],
        }
        if limited := self.draw.random() < 0.5:
            record["timeout"] = 9
        if queue := self.draw.choice([None, "mail"]):
            record["queue"] = queue
        taken = self._owner_of(job_id) is not None or job_id in self.odd.values()
        if not taken:  # one that becomes a job later could close a ring by then
            record |= self._some_waits(job_id)
        name = f"{tag}.json" if taken or n % 3 == 0 else f"{job_id}.json"
        if says_id or name != f"{job_id}.json":
            record["id"] = job_id
        self._put(name, json.dumps(record).encode())
        if taken:
            self.odd[tag] = job_id
        else:
            self.jobs[tag] = Known(
                tag,
                job_id,
                "pending",
                name,
                command,
                priority,
                retries,
                limited=limited,
                queue=queue,
                waits=waits_in(record),
            )

    def drop_some(self, n: int, fuse: int | None) -> None:
        """Several at once, so that a worker with several slots has more than the limit allows."""
        for more in range(4):
            self.drop(n + more, fuse)

    def _put(self, name: str, data: bytes) -> None:
        scratch = self.root / "scratch"
        scratch.write_bytes(data)
        scratch.rename(self.spool / "pending" / name)

    def drop_rubbish(self, n: int, fuse: int | None) -> None:  # noqa: ARG002 (all turns are called alike)
        """Half a job."""
        tag = self._tag()
        self._put(f"{tag}.json", f'{{"command": "x {tag}'.encode())
        self.odd[tag] = ""

    # -- hands -----------------------------------------------------------------------------------------------------

    def move_by_hand(self, n: int, fuse: int | None) -> None:  # noqa: ARG002 (all turns are called alike)
        """`mv` from one folder to another."""
        place = self.draw.choice(["pending", "pending", "done", "dead"])
        known = self._pick(n, *({"pending", "done", "dead"} - {place}))
        if known is None or (self.spool / place / known.name).exists():
            return
        if (
            known.place == "dead"
            and place == "pending"
            and known.attempts + known.crashes
            and not known.is_fresh
        ):
            return  # put back after it was given up by hand: only the index knows, if it has seen that; see test_by_hand
        (self.spool / known.place / known.name).rename(self.spool / place / known.name)
        known.place = place

    def delete_by_hand(self, n: int, fuse: int | None) -> None:  # noqa: ARG002 (all turns are called alike)
        """`rm`. Of two copies, one of which a death has made void, only the commands know which is which."""
        known = self._pick(n, "pending", "done", "dead", void=False)
        if known is not None:
            (self.spool / known.place / known.name).unlink()
            del self.jobs[known.tag]

    def edit_by_hand(self, n: int, fuse: int | None) -> None:  # noqa: ARG002 (all turns are called alike)
        """An editor that writes into the file, or one that replaces it."""
        priority, retries = self.draw.randint(1, 10), self.draw.randint(0, 4)
        in_place, other, hold = (self.draw.random() < share for share in (0.5, 0.3, 0.2))
        known = self._pick(n, "pending")
        if known is None:
            return
        path = self.spool / "pending" / known.name
        record = json.loads(path.read_bytes())
        known.priority, known.max_retries = priority, retries
        known.command += " edited" if other else ""
        known.held ^= hold
        record |= {"priority": priority, "max_retries": retries, "command": known.command, "hold": known.held}
        data = json.dumps(record).encode()
        if in_place:
            path.write_bytes(data)
        else:
            self._put(known.name, data)

    def move_odd_back(self, n: int, fuse: int | None) -> None:  # noqa: ARG002 (all turns are called alike)
        """What is no job is put into pending/ again as it is."""
        lying = [
            copies[0] for tag, copies in self._disk().items() if tag in self.odd and copies[0].place == "dead"
        ]
        if lying:
            copy = lying[n % len(lying)]
            os.rename(copy.path, self.spool / "pending" / copy.name)
            self._take_up_odd()

    # -- commands --------------------------------------------------------------------------------------------------

    def requeue(self, n: int, fuse: int | None) -> None:
        """`queuectl dlq retry`."""
        known = self._pick(n, "dead")
        if known is None:
            return
        answer = self._command(n, fuse, known, lambda door: door.retry(known.id))
        if isinstance(answer, CommandEnd):
            return
        known.state, known.attempts, known.crashes, known.retry = "pending", 0, 0, None
        known.place, known.name = "pending", f"{known.id}.json"

    def cancel(self, n: int, fuse: int | None) -> None:
        """`queuectl cancel` of a waiting job; of one that is over it is refused."""
        known = self._pick(n, "pending", "done", "dead")
        if known is None:
            return
        answer = self._command(n, fuse, known, lambda door: door.cancel(known.id), ("done", "dead"))
        if isinstance(answer, CommandEnd):
            return
        known.place, known.name, known.state, known.held = "dead", f"{known.id}.json", "dead", False

    def hold(self, n: int, fuse: int | None) -> None:
        """`queuectl hold` or `release` of a waiting job; of one that is over it is refused."""
        hold = self.draw.random() < 0.5
        known = self._pick(n, "pending", "pending", "done", "dead")
        if known is None:
            return
        call = Spool.hold if hold else Spool.release
        changed = self._command(n, fuse, known, lambda door: call(door, known.id), ("done", "dead"))
        if isinstance(changed, CommandEnd):
            return
        assert changed is (known.held != hold)
        if changed:
            self._rewritten(known)
        known.held = hold

    def _rewritten(self, known: Known) -> None:
        """What was put back by hand begins anew when its file is written."""
        known.begin()
        known.state = "failed" if known.attempts and known.retry is not None else "pending"

    def set_field(self, n: int, fuse: int | None) -> None:
        """`queuectl set` of a waiting or dead job."""
        priority, queue = self.draw.randint(1, 10), self.draw.choice([None, "mail"])
        known = self._pick(n, "pending", "dead", "done")
        if known is None:
            return
        answer = self._command(
            n, fuse, known, lambda door: door.set(known.id, priority=priority, queue=queue), ("done",)
        )
        if isinstance(answer, CommandEnd):
            return
        known.priority, known.queue = priority, queue
        if known.place == "dead":
            known.state = "dead"
        else:
            self._rewritten(known)

    def pause(self, n: int, fuse: int | None) -> None:  # noqa: ARG002 (all turns are called alike)
        """`touch paused`, or `rm paused`."""
        if self._is_paused:
            (self.spool / "paused").unlink()
        else:
            (self.spool / "paused").touch()

    @property
    def _is_paused(self) -> bool:
        return (self.spool / "paused").exists()

    def pause_queue(self, n: int, fuse: int | None) -> None:  # noqa: ARG002 (all turns are called alike)
        """`touch queues/mail.paused`, or `rm` of it."""
        if self._is_closed("mail"):
            (self.spool / "queues" / "mail.paused").unlink()
        else:
            (self.spool / "queues" / "mail.paused").touch()

    def _is_closed(self, queue: str | None) -> bool:
        return queue is not None and (self.spool / "queues" / f"{queue}.paused").exists()

    def forget(self, n: int, fuse: int | None) -> None:
        """`queuectl clear` of one job."""
        known = self._pick(n, "pending", "done", "dead", void=False)
        if known is None or self._is_named(known):
            return  # it is kept while a job that is not over waits for it
        answer = self._command(n, fuse, known, lambda door: door.forget(known.id), may_vanish=True)
        if isinstance(answer, CommandEnd):
            return
        del self.jobs[known.tag]

    def _is_named(self, known: Known) -> bool:
        mine = {known.id, f"batch:{known.waits.get('batch')}"}
        return any(parent in mine for one in self.jobs.values() for _, parent in one.parents)

    def reindex(self, n: int, fuse: int | None) -> None:  # noqa: ARG002 (all turns are called alike)
        """`queuectl reindex`."""
        self._door(n).reindex()

    # -- workers ---------------------------------------------------------------------------------------------------

    def start_worker(self, n: int, fuse: int | None) -> None:  # noqa: ARG002 (all turns are called alike)
        """A worker takes the lowest free name, and what an earlier holder of that name left behind."""
        if len(self.workers) == 3:
            return
        made = Worker(self.spool, now=self._now)
        made.register()
        made._recover()
        made._batch.file_pool = FilePool(made.layout, made.name, self.boot, lambda _: None)
        self._taken_back(lambda worker: worker == made.name)
        self.workers[made.name] = made

    def _taken_back(self, whose: Callable[[str], bool]) -> None:
        for known in self.jobs.values():
            if known.void and whose(known.void.partition("/")[2]):
                known.void = None
            worker = known.place.partition("/")[2]
            if worker and whose(worker):
                known.begin()
                known.crashes += 1
                known.runs += 1
                over = known.crashes >= CRASH_LIMIT
                known.place, known.name = "dead" if over else "pending", f"{known.id}.json"
                known.state = known.place
                known.retry = None

    def claim(self, n: int, fuse: int | None) -> None:  # noqa: ARG002 (all turns are called alike)
        """A worker with free slots takes the next jobs, one or several; if one is due it must get one."""
        if not self.workers:
            self.start_worker(n, None)
        name = self._worker(n, lambda running: running < self.slots)
        while name is not None and self._claims_one(name):
            if len(self.claims.get(name, ())) >= self.slots or self.draw.random() < 0.2:
                return

    def _claims_one(self, name: str) -> bool:
        worker = self.workers[name]
        worker._readiness.look(0)
        worker._limits._queues._folder = None  # two changes within one tick of the clock leave one time
        worker._limits.look()
        worker._limits.reopen()  # as it would be told by an event
        if self._is_paused:
            assert worker._prefetch.ready or worker._claiming.next() is None
            self._put_away(name)
            return False
        claim = None
        for one in self.workers.values():
            one._claiming.give_back_permits()  # as each does in its loop
        for _ in range(5):
            for one in self.workers.values():
                with one._upkeep.barrier:
                    one._scheduler.continue_scan()  # as each does once a second: nobody else can begin one before it ends
            worker._watch.is_edited = True  # as it would be told by an event
            with suppress(sqlite3.Error):
                worker._upkeep._parents.look()  # as once a second
                worker._index.shorten_waits_for_parents(micros(self.clock))  # as in each round
                worker._scheduler.has_work()
            claim = worker._claiming.next()
            if claim is not None:
                break
        self._put_away(name)
        self._given_back(name, claim)
        if claim is None:
            self._take_up_odd()
            late = [
                known
                for known in self.jobs.values()
                if known.place == "pending" and known.waits_until <= self.clock and not known.held
                if not self._is_closed(known.queue) and self._verdict(known) != "wait"
                if known.queue is None or not self._is_full_or_taken()
            ]
            assert not late, f"due, and not to be had: {late}"
            return False
        self._claimed(name, claim)
        assert not self._is_closed(self.jobs[tag_of(claim)].queue), "it begins in a paused queue"
        lane = claim.row.lane
        self.permits[tag_of(claim)] = lane, worker._limits.start(claim.row)
        if claim.decides is not None:
            self._settle_decided(name, claim)
            return True
        worker._limits.started(claim.row)
        self.claims.setdefault(name, []).append(claim)
        running = [self.jobs[tag_of(one)].queue for some in self.claims.values() for one in some]
        assert running.count("mail") <= PLACES, "more than the limit run"
        self.noted.discard(tag_of(claim))
        self._in_hand(name)
        return True

    def _settle_decided(self, name: str, claim: Claim) -> None:
        """One of its conditions has decided what becomes of it, so it does not run."""
        assert claim.decides is not None
        worker, known = self.workers[name], self.jobs[tag_of(claim)]
        pool = worker._batch.file_pool
        maintenance.settle_decided(worker._storage, claim, claim.decides, pool, lambda _: None)
        self._give_permit_back(name, known.tag)
        known.begin()
        known.place = "dead" if claim.decides.kind == "after" else "done"
        known.state = {"done": "completed"}.get(known.place, "dead")
        known.name, known.retry = f"{known.id}.json", None
        self._in_hand(name)

    def _is_full_or_taken(self) -> bool:
        """Whether living workers hold a job of the queue: one that is claimed and has not begun may hold a place, too."""
        held = [known for known in self.jobs.values() if known.place.partition("/")[2] in self.workers]
        return any(known.queue for known in held)

    def _give_permit_back(self, name: str, tag: str) -> None:
        lane, permit = self.permits.pop(tag, (None, None))
        if permit is not None:
            self.workers[name]._limits.end(lane, permit, reuse=True)

    def _put_away(self, name: str) -> None:
        """Before a worker claims anew, it records what it has put off."""
        if not self.workers[name]._batch.finished:
            for one in self.aside.pop(name, []):
                self._settled(one, "success")

    def _in_hand(self, name: str) -> None:
        """What a worker has claimed and not begun."""
        for claim in self.workers[name]._prefetch.ready:
            self._claimed(name, claim)
            self.hand[tag_of(claim)] = claim.row.name

    def _given_back(self, name: str, claim: Claim | None) -> None:
        """What a worker had in hand and has put back, as there is no permit for it now."""
        held = [*self.workers[name]._prefetch.ready, *self.claims.get(name, ()), *([claim] if claim else ())]
        tags = {tag_of(one) for one in held} | {known.tag for known in self.aside.get(name, ())}
        for known in self.jobs.values():
            if known.place == f"processing/{name}" and known.tag not in tags:
                if known.tag in self.hand:
                    known.place, known.name = "pending", self.hand[known.tag]
                else:  # its id was taken until now, so it was no job when it was claimed
                    [copy] = self._disk()[known.tag]
                    known.place, known.name = copy.place, copy.name

    def _claimed(self, name: str, claim: Claim) -> None:
        self._take_up_odd()
        known = self.jobs[tag_of(claim)]
        if known.place != f"processing/{name}":
            assert known.place == "pending"
            assert min(known.waits_until, known.by_shorter_wait) <= self.clock
            assert not known.held
            verdict = self._verdict(known)
            if claim.decides is not None:
                assert verdict == ("dead" if claim.decides.kind == "after" else "done")
            else:
                assert verdict == "start", "it begins before its parents are over"
        assert (claim.job.id, claim.job.priority, claim.job.command) == (
            known.id,
            known.priority,
            known.command,
        )
        known.place, known.name = f"processing/{name}", f"{known.id}.json"

    def note_running(self, n: int, fuse: int | None) -> None:
        """A job that runs for a second is told so in its file."""
        name = self._busy(n)
        if name is None:
            return
        claim = self.draw.choice(self.claims[name])
        if tag_of(claim) in self.noted:
            return
        known = self.jobs[tag_of(claim)]
        try:
            with self._fuse.burning(fuse):
                note_running(self.workers[name]._storage, [claim])
        except DiedError:
            self._kill(name)
            self._resolve({known.tag})
            return
        known.begin()
        known.state = "processing"
        self.noted.add(known.tag)

    def settle(self, n: int, fuse: int | None) -> None:
        """Runs end, their outcomes are recorded, and the next job is claimed; the worker may die at any call of that."""
        recycle = self.draw.random() < 0.8
        name = self._busy(n)
        if name is None:
            return
        worker, running = self.workers[name], self.claims[name]
        self.draw.shuffle(running)
        ended = [running.pop() for _ in range(self.draw.randint(1, len(running)))]
        left = len(worker._prefetch.ready)
        hows = [self._end(name, claim) for claim in ended]
        for claim in ended:
            self._give_permit_back(name, tag_of(claim))
        jobs = [self.jobs[tag_of(claim)] for claim in ended]
        if {*hows} == {"success"} and worker._prefetch.ready and self.draw.random() < 0.5:
            for claim in ended:
                worker._batch.defer(claim)  # it is put away with the next one
            self.aside.setdefault(name, []).extend(jobs)
            return
        spares, worker._batch.file_pool = (
            worker._batch.file_pool,
            worker._batch.file_pool if recycle else None,
        )
        worker._readiness.look(0)
        try:
            with self._fuse.burning(fuse):
                recorded = worker._batch.settle(*ended)
        except DiedError:
            touched = {one.tag for one in (*jobs, *self.aside.pop(name, []))}
            self._kill(name)
            self._resolve(touched, dead=name)
            return
        worker._batch.file_pool = spares
        assert recorded
        for claim, known, how in zip(ended, jobs, hows, strict=True):
            self._settled(known, how)
            assert claim.state == known.state
        for one in self.aside.pop(name, []):
            self._settled(one, "success")
        if worker._prefetch.ready:
            assert not self._is_paused or len(worker._prefetch.ready) == left
        self._in_hand(name)

    def _end(self, name: str, claim: Claim) -> str:
        """Let a run end in some way; returns how."""
        how = self.draw.choice([*OUTCOMES, *["success"] * 4, "failure", "failure"])
        ending, code = OUTCOMES[how]
        claim.job.worker, claim.job.started_at = name, self.clock
        claim.outcome = Outcome(ending, code, None if how == "success" else how, 0.01, 0)
        claim.ended_at = self.clock
        return how

    def _settled(self, known: Known, how: str) -> None:
        known.begin()
        known.runs += 1
        known.retry = None
        known.name = f"{known.id}.json"
        if how == "stopped":
            known.state, known.place = "pending", "pending"
            return
        known.attempts += 1
        known.crashes = 0
        if how == "success":
            known.state, known.place = "completed", "done"
        elif (
            how == "cancelled"
            or known.attempts >= max(1, known.max_retries)
            or (how == "timeout" and not known.limited)
        ):
            known.state, known.place = "dead", "dead"
        else:
            known.state, known.place = "failed", "pending"
            known.retry, known.by_shorter_wait = self.clock + 2**known.attempts, math.inf

    def sync(self, n: int, fuse: int | None) -> None:  # noqa: ARG002 (all turns are called alike)
        """An idle worker has what it settled synced, and its held files become spare ones."""
        name = self._worker(n)
        if name is not None:
            spares = self.workers[name]._batch.file_pool
            assert spares is not None
            spares.flush()
            while spares._under_way:
                spares._collect(wait=True)

    def stop_worker(self, n: int, fuse: int | None) -> None:  # noqa: ARG002 (all turns are called alike)
        """A worker leaves after the job in hand, and puts back what it has not begun."""
        name = self._worker(n, lambda running: running == 0)
        if name is None:
            return
        worker = self.workers.pop(name)
        in_hand = list(worker._prefetch.ready)
        worker._batch.end()
        assert not worker._batch.is_open
        for claim in in_hand:
            known = self.jobs[tag_of(claim)]
            known.place, known.name = "pending", claim.row.name
        for one in self.aside.pop(name, []):
            self._settled(one, "success")
        assert worker._batch.file_pool is not None
        assert worker._registration is not None
        worker._batch.file_pool.close()
        worker._limits.give_back_unused(())
        worker._registration.release()
        worker._index.close()
        worker._watch.stop()
        worker._wake_up.close()

    def kill_worker(self, n: int, fuse: int | None) -> None:  # noqa: ARG002 (all turns are called alike)
        """A worker dies between two calls."""
        name = self._worker(n)
        if name is not None:
            self._kill(name)

    def _kill(self, name: str) -> None:
        worker = self.workers.pop(name)
        for claim in self.claims.pop(name, ()):
            _, permit = self.permits.pop(tag_of(claim), (None, None))
            if permit is not None:
                permit.release()  # its processes have ended: nothing else keeps the lock
        self.aside.pop(name, None)
        with suppress(SpoolError):
            worker._limits.give_back_unused(())
        assert worker._registration is not None
        worker._scheduler.close()
        for lock in (worker._registration._lock, worker._registration._folder):
            if lock is not None:
                lock.release()
        worker._index.close()
        worker._watch.stop()
        worker._wake_up.close()

    def recover(self, n: int, fuse: int | None) -> None:
        """A worker takes back what dead ones had in hand; it may die over that."""
        if not self.workers:
            self.start_worker(n, None)
        name = self._worker(n)
        orphans = {
            known.tag
            for known in self.jobs.values()
            if (known.void or known.place).partition("/")[2] not in {"", *self.workers}
        }
        if name is None:
            return
        worker = self.workers[name]
        try:
            with self._fuse.burning(fuse):
                recover.recover_claims(worker._storage, worker._settings, lambda _: None)
        except DiedError:
            self._kill(name)
            self._resolve(orphans)
            return
        self._taken_back(lambda worker: worker not in self.workers)

    # -- the world -------------------------------------------------------------------------------------------------

    def clock_jumps(self, n: int, fuse: int | None) -> None:  # noqa: ARG002 (all turns are called alike)
        """Forward and back, by a second or a year."""
        seconds = self.draw.choice(JUMPS)
        for known in self.jobs.values():
            if known.waits_until <= self.clock:
                known.by_shorter_wait = (
                    -math.inf
                )  # it was due, and whoever saw that may start it after the jump
        self.clock = min(max(self.clock + seconds, 1.5e9), 2.2e9)
        for known in self.jobs.values():
            wait = 2**known.attempts
            if known.retry is not None and self.clock < known.retry - wait:
                known.by_shorter_wait = min(known.by_shorter_wait, self.clock + wait)

    def index_breaks(self, n: int, fuse: int | None) -> None:  # noqa: ARG002 (all turns are called alike)
        """Somebody cleans up, or the disk goes bad."""
        how = self.draw.choice(["delete", "delete all", "truncate", "empty", "rubbish"])
        part = self.draw.randint(1, 12)
        path = self.spool / "data" / "queuectl.db"
        if not path.exists():
            return
        if how in {"truncate", "empty"}:
            os.truncate(path, path.stat().st_size * part // 13 if how == "truncate" else 0)
        elif how == "rubbish":
            path.write_bytes(os.urandom(4096 * part))
        else:
            for ending in ("", "-wal", "-shm") if how == "delete all" else ("",):
                path.with_name(path.name + ending).unlink(missing_ok=True)

    def index_goes_back(self, n: int, fuse: int | None) -> None:  # noqa: ARG002 (all turns are called alike)
        """A backup of the index is made, and put back later over the one in use, with its journal or without."""
        whole = self.draw.random() < 0.5
        data = self.spool / "data"
        if self.backup is None:
            self.backup = self.root / "backup"
            self.backup.mkdir()
            for path in data.glob("queuectl.db*"):
                shutil.copy2(path, self.backup)
            return
        for path in data.glob("queuectl.db*"):
            if whole or path.suffix == ".db":
                path.unlink()
        for path in self.backup.iterdir():
            if whole or path.suffix == ".db":
                shutil.copy2(path, data)
        shutil.rmtree(self.backup)
        self.backup = None

    def reboot(self, n: int, fuse: int | None) -> None:  # noqa: ARG002 (all turns are called alike)
        """All workers die and the machine starts again, with everything on the disk."""
        if any((self.spool / "data" / "workers").glob("*.held.*")):
            return  # what they vouch for could be a job that somebody has deleted since
        for name in list(self.workers):
            self._kill(name)
        self.boot = f"boot-{next(self._numbers)}"
        self.door._index.close()
        self.door = self._new_door()

    def look_away(self, n: int, fuse: int | None) -> None:  # noqa: ARG002 (all turns are called alike)
        """For some steps nobody asks, so that several things come together."""
        steps = self.draw.randint(2, 6)
        self.blind = steps

    # -- what must hold --------------------------------------------------------------------------------------------

    @invariant()
    @_told
    def each_job_lies_in_its_one_place(self) -> None:
        """The folders, read as they are, are what the model says."""
        self._take_up_odd()
        disk = self._disk()
        for tag, known in self.jobs.items():
            copies = [copy for copy in disk.pop(tag, []) if copy.place != known.void]
            assert [(copy.place, copy.name) for copy in copies] == [(known.place, known.name)], known
            record = copies[0].record
            assert (record["command"], record["priority"]) == (known.command, known.priority)
            assert record.get("attempts", 0) == known.attempts, known
            assert record.get("queue") == known.queue
            assert waits_in(record) == known.waits
            assert len(record.get("history", [])) == known.runs, known
            if known.shown == "failed":
                assert abs((_moment(record.get("next_retry_at")) or 0) - (known.retry or 0)) < 1e-3
        assert set(disk) == set(self.odd)

    @invariant()
    @_told
    def the_commands_tell_the_truth(self) -> None:
        """`status`, `list` and `show` say of each job where it is."""
        self.steps += 1
        self.blind = max(0, self.blind - 1)
        if self.blind:
            return
        door = self._door(self.steps)
        rows = {row.id: row for row in listing.select(door)}
        self._take_up_odd()
        odd = {
            tag
            for tag, copies in self._disk().items()
            if tag in self.odd
            for copy in copies
            if copy.place == "dead"
        }
        assert odd == set(self.odd), "rubbish was left in pending/"
        expected = {known.id: (known.shown, known.place, known.name) for known in self.jobs.values()}
        dead_rows = {row.name: row for row in rows.values() if row.place == "dead"}
        for copies in self._disk().values():
            if copies[0].tag in self.odd:
                row = dead_rows[copies[0].name]
                expected[row.id] = ("dead", "dead", row.name)
                assert row.last_error
        told = {row.id: (row.state, row.place, row.name) for row in rows.values()}
        assert told == expected, f"{told} != {expected}"
        states = [state for state, _, _ in expected.values()]
        assert door.counts() == {state: states.count(state) for state in door.counts()}
        for known in self.jobs.values():
            row = rows[known.id]
            attempts = 0 if known.is_fresh and known.place not in {"done", "dead"} else known.attempts
            assert (row.attempts, row.priority, row.max_retries) == (
                attempts,
                known.priority,
                known.max_retries,
            ), known
            assert row.command == known.command
            if known.shown in {"pending", "failed"}:
                assert row.held == known.held
                places = [place for place in (row.due, row.ready_key) if place is not None]
                assert row.held or len(places) == (self._verdict(known) != "wait"), f"{known} has {places}"
        if self.jobs:
            known = list(self.jobs.values())[self.steps % len(self.jobs)]
            assert door.get(known.id).state == known.shown
        if door is not self.door:
            door._index.close()


def _moment(text: str | None) -> float | None:
    from datetime import datetime

    return None if text is None else datetime.fromisoformat(text).timestamp()


Machine.TestCase.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=STEPS,
    deadline=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)
test_a_spool_is_what_a_plain_dictionary_says = pytest.mark.timeout(900 + EXAMPLES * 5)(Machine.TestCase)
