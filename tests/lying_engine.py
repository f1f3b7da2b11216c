"""An engine that lies, and runners on nodes that freeze and die: real packs, simulated time."""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from queuectl.engine.base import Answer, News, Parcel, Poll, Row

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable

    from queuectl.engine.verdict import Limits

Key = tuple[str, str]


@dataclass(eq=False)
class FakeRunner:
    """A runner of the cluster, which keeps the rules of the script for nodes and does nothing else right."""

    cluster: Cluster
    folder: Path
    name: str
    beats: int = 0
    beaten_at: float = -1.0
    frozen: bool = False
    dead: bool = False
    at: int = 0
    runs: tuple[int, Key] | None = None

    def step(self) -> None:
        """Do what a runner does in a moment."""
        draw, now, limits = self.cluster.draw, self.cluster.now, self.cluster.limits
        if draw.random() < self.cluster.malice * 0.02:
            self.frozen = not self.frozen
        if draw.random() < self.cluster.malice * 0.02:
            self.dead, self.runs = True, None  # the guard ends the command with it
        if self.runs and now - self.beaten_at > limits.fence:
            self.runs = None  # the guard keeps the fence, also when a frozen node wakes
        if self.dead or (self.frozen and self.cluster.malice):
            return
        try:
            self._beat(now)
            if now - self.beaten_at <= limits.fence / 2:
                self._work()
        except FileNotFoundError:
            self.dead, self.runs = True, None  # the pack is deleted

    def _beat(self, now: float) -> None:
        if not self.beats:
            (self.folder / f"by.{self.name}").write_bytes(b"{}")
        if now - self.beaten_at >= self.cluster.limits.beat or not self.beats:
            self.beats, self.beaten_at = self.beats + 1, now
            (self.folder / f"beat.{self.name}").write_text(f"{self.beats}\n")

    def _work(self) -> None:
        if self.runs is not None:
            number, key = self.runs
            if (self.folder / f"cancel.{number}").exists():
                self._end(number, key, "cancelled", -15)
            elif not self.cluster.holds and self.cluster.draw.random() < 0.2 + (not self.cluster.malice):
                self._end(number, key, "exited", self.cluster.draw.choice((0, 0, 3)))
            return
        jobs = json.loads((self.folder / "pack.json").read_bytes())["jobs"]
        while self.at < len(jobs):
            number, self.at = self.at, self.at + 1
            try:
                os.link(self.folder / f"by.{self.name}", self.folder / f"claim.{number}")
            except FileExistsError:
                continue
            self.runs = number, tuple(jobs[number]["key"])
            self.cluster.begins(self.runs[1])
            return
        (self.folder / f"left.{self.name}").touch()
        self.dead = True

    def _end(self, number: int, key: Key, how: str, code: int) -> None:
        record: dict[str, Any] = {
            "n": number,
            "key": key,
            "how": how,
            "code": code,
            "why": "",
            "ran": True,
            "node": "n1",
        }
        record |= {"started": 1.0, "ended": 2.0, "seconds": 1.0, "out": 0, "err": 0}
        with (self.folder / f"exits.{self.name}").open("a") as file:
            file.write(json.dumps(record) + "\n")
        self.runs = None


class Cluster:
    """A cluster behind an engine. With malice it says whatever it likes, and starts as many runners as it likes.

    Attributes:
        malice: 1: it lies; 0: it has become honest.
        begun: how often each run was begun.
        moved: those whose jobs somebody has moved by hand while they ran, so that they may be begun again.
        is_still: no runner is started.
        holds: commands do not end by themselves.
    """

    def __init__(self, draw: random.Random, limits: Limits) -> None:
        self.draw, self.limits, self.now, self.malice = draw, limits, 0.0, 1
        self.runners: list[FakeRunner] = []
        self.waiting: list[tuple[float, Parcel]] = []
        self.parcels: dict[str, Parcel] = {}
        self.answers: dict[str, tuple[Answer, str]] = {}
        self.begun: Counter[Key] = Counter()
        self.moved: set[Key] = set()
        self.is_still = self.holds = False

    # -- what the dispatcher calls ---------------------------------------------------------------------------------

    def send(self, parcel: Parcel) -> None:
        """Start no runner, one or two, now or later, and say something else."""
        self.parcels[parcel.name] = parcel
        copies = self.draw.choice((0, 1, 1, 2)) if self.malice else 1
        for _ in range(copies):
            self.waiting.append((self.now + (self.draw.choice((0, 5, 40)) if self.malice else 0), parcel))
        answers = [*[Answer.ACCEPTED, Answer.UNKNOWN] * 7, Answer.FULL, Answer.REFUSED]
        self.answers[parcel.name] = (
            self.draw.choice(answers) if self.malice else Answer.ACCEPTED,
            "no such partition",
        )

    def news(self) -> News:
        """Answer, or not."""
        answers, self.answers = self.answers, {}
        if self.malice and self.draw.random() < 0.3:
            return News(answers)
        return News(
            answers,
            Poll(self.now, {name: self._rows(name) for name in self.parcels}, self.draw.choice((0, 0, 4))),
        )

    def cancel(self, packs: Iterable[str]) -> None:
        """Forget what waits, or do not listen."""
        gone = set(packs)
        if not self.malice or self.draw.random() < 0.5:
            self.waiting = [one for one in self.waiting if one[1].name not in gone]

    def nudge(self, packs: Iterable[str]) -> None:
        """A signal: runners look at each step anyway."""

    def _rows(self, name: str) -> list[Row]:
        if self.malice:
            states = self.draw.choice(
                ((), ("PENDING",), ("RUNNING",), ("NODE_FAIL",), ("COMPLETED", "CANCELLED"))
            )
        else:
            queued = any(parcel.name == name for _, parcel in self.waiting)
            alive = any(one.folder.name == name and not one.dead for one in self.runners)
            states = ("RUNNING",) if queued or alive else ()
        return [Row("7", state, "", is_live=state in ("PENDING", "RUNNING")) for state in states]

    # -- what happens there ----------------------------------------------------------------------------------------

    def begins(self, key: Key) -> None:
        """A command is started: the promise of all this is that it never has company."""
        self.begun[key] += 1
        assert self.begun[key] == 1 or key in self.moved, f"{key} was begun twice"
        company = [one.runs for one in self.runners if one.runs and one.runs[1][0] == key[0] and not one.dead]
        assert company == [(company[0][0], key)], f"{company} of one job at once"

    def step(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds
        for moment, parcel in self.waiting.copy():
            if moment <= self.now and not self.is_still:
                self.waiting.remove((moment, parcel))
                if Path(parcel.folder).is_dir():
                    self.runners.append(FakeRunner(self, Path(parcel.folder), f"n1.7.{len(self.runners)}"))
        for one in self.runners:
            one.step()
