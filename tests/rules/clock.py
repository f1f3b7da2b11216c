"""A spool with rules under a clock that the test sets: no test of these waits for a minute to pass."""

from __future__ import annotations

import os
from datetime import datetime
from typing import TYPE_CHECKING

from queuectl import Spool
from queuectl.config.settings import Settings
from queuectl.rules import rule_book, rule_note
from queuectl.rules.scheduler import RuleScheduler

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pytest

    from queuectl.rules.rule_note import Note


def at(text: str) -> int:
    """Epoch seconds."""
    return int(datetime.fromisoformat(text).timestamp())


class World:
    """One spool, its clock, and one scheduler.

    Attributes:
        now, ticks: the wall clock and the monotonic one, in seconds.
        danger: why nothing may be queued.
    """

    def __init__(self, spool_dir: Path, now: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.ticks = float(at(now)), 1000.0
        self._changes = 0
        self.danger: str | None = None
        self.said: list[str] = []
        self.spool = Spool(spool_dir)
        self.spool.layout.create()
        self.storage = self.spool._storage
        self.storage.now = lambda: self.now
        self.folder = spool_dir / "rules"
        self.arrives: float = self.now
        monkeypatch.setattr(rule_book, "_change_time", lambda _: self.arrives)
        self.scheduler = self.anew()

    def anew(self) -> RuleScheduler:
        """Another worker, which knows only what is on the disk."""
        if hasattr(self, "scheduler"):
            self.scheduler.close()
        self.scheduler = RuleScheduler(
            self.storage, Settings, lambda: self.danger, self.said.append, lambda: self.ticks
        )
        return self.scheduler

    def write(self, name: str, when: str, job: str = "job: {command: 'true'}") -> None:
        """Drop a rule now."""
        self.arrives = self.now
        scratch = self.folder / ".new"
        scratch.write_text(f"when: {when}\n{job}\n")
        # Not just now: a young file is read at each look, and so follows whatever else has changed.
        os.utime(scratch, ns=(0, 10**18 + self._changes))
        os.rename(scratch, self.folder / f"{name}.yaml")
        self._stamp()

    def pause(self, name: str) -> None:
        """Pause a rule as a person does."""
        (self.folder / f"{name}.paused").touch()
        self._stamp()

    def resume(self, name: str) -> None:
        """End the pause."""
        (self.folder / f"{name}.paused").unlink()
        self._stamp()

    def _stamp(self) -> None:
        self._changes += 1
        os.utime(self.folder, ns=(0, int(self.now) * 10**9 + self._changes))

    def go(self, moment: str | float, *, look: bool = True) -> list[str]:
        """Set the clock, or let seconds pass, and look; returns the ids of all jobs in order."""
        before = self.now
        self.now = float(at(moment)) if isinstance(moment, str) else self.now + moment
        self.ticks += max(1.0, self.now - before)
        if look:
            self.look()
        return self.ids()

    def look(self) -> None:
        """Look until nothing is left to do, as a worker does."""
        for _ in range(100):
            self.scheduler.look()
            if not self.scheduler.has_work:
                return
        raise AssertionError("it never ends")

    def ids(self) -> list[str]:
        """The ids of all jobs, in order."""
        return sorted(job.id for job in self.spool.list())

    def end(self, job_id: str, state: str = "done") -> None:
        """Let a waiting job end, as a person does who moves its file."""
        path = self.folder.parent
        os.rename(path / "pending" / f"{job_id}.json", path / state / f"{job_id}.json")

    def end_all(self) -> None:
        """Let all waiting jobs end well."""
        for name in os.listdir(self.folder.parent / "pending"):
            self.end(name.removesuffix(".json"))

    def note(self, name: str) -> Note:
        """What is noted of a rule."""
        found = rule_note.read(self.spool.layout, name)
        assert found is not None
        return found


def one_tick(one: World) -> Callable[[], float]:
    """A clock on which time passes with each look at it."""

    def tick() -> float:
        one.ticks += 0.02
        return one.ticks

    return tick
