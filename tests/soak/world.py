"""What producers, killer and checker of a soak share: the spool, who is let in when, and what has been promised."""

from __future__ import annotations

import random
import shutil
import threading
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import support

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

FOLDERS = ("pending", "processing", "done", "dead", "pending")
"""The order in which a job goes through them, so that one which moves meanwhile is met; a retry leads back."""


class Violation(Exception):
    """A promise was broken; the text says which."""


class Stamp(NamedTuple):
    """A line that a job wrote: start, overlap, end-CODE or killed-PID."""

    what: str
    job_id: str
    run: str
    moment: float
    pid: int


class World:
    """One soak.

    Args:
        base: a folder of its own.
    """

    def __init__(self, base: Path, seed: int) -> None:
        self.base, self.seed = base, seed
        self.spool = base / "spool"
        self.outside = base / "outside"
        (self.outside / "locks").mkdir(parents=True)
        shutil.copy(Path(__file__).with_name("job.sh"), self.outside)
        self.began = time.monotonic()
        self.acked: dict[str, str] = {}
        self.again: set[str] = set()
        self.parents: dict[str, list[str]] = {}
        """The jobs that must have succeeded before a job begins."""
        self.deleted: set[str] = set()
        """Jobs that a person has deleted, or is deleting."""
        self.ended: dict[str, set[str]] = {}
        """The jobs that were seen in done/ or dead/, with the rules that have to tell of that."""
        self.hooks: dict[str, set[str]] = {}
        """The jobs of rules that were seen, by the job of which they tell."""
        self.counts: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.violations: list[str] = []
        self.over = threading.Event()
        self._gate = threading.Condition()
        self._inside = 0
        self._closed = 0
        self._log = (base / "log").open("a", encoding="utf-8")

    def dice(self, name: str) -> random.Random:
        """The dice of one actor: what it chooses depends on the seed alone, however the others fare."""
        return random.Random(f"{self.seed} {name}")

    def tell(self, line: str) -> None:
        """Write down what was done, and when."""
        with self._gate:
            self._log.write(f"{time.monotonic() - self.began:9.3f} {line}\n")
            self._log.flush()

    def violated(self, what: str) -> None:
        """A promise was broken: write it down, and let the soak end."""
        self.tell(f"VIOLATION {what}")
        self.violations.append(what)
        self.over.set()

    # -- who is let in when ----------------------------------------------------------------------------------------

    @contextmanager
    def busy(self) -> Iterator[None]:
        """One step of an actor; none begins while somebody wants quiet."""
        with self._gate:
            self._gate.wait_for(lambda: not self._closed)
            self._inside += 1
        try:
            yield
        finally:
            with self._gate:
                self._inside -= 1
                self._gate.notify_all()

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """A while in which no actor is at anything; the workers go on."""
        with self._gate:
            self._closed += 1
            self._gate.wait_for(lambda: not self._inside)
        try:
            yield
        finally:
            with self._gate:
                self._closed -= 1
                self._gate.notify_all()

    # -- what was promised -----------------------------------------------------------------------------------------

    def promised(self, job_id: str, kind: str) -> None:
        """A job was acknowledged: from now on it may not be lost."""
        with self._gate:
            self.counts["acknowledged"] += 1
            if job_id not in self.deleted:  # it may be gone before its producer gets to say this
                self.acked[job_id] = kind

    def forgotten(self, job_id: str) -> None:
        """A person deletes it, or will in a moment."""
        with self._gate:
            self.deleted.add(job_id)
            if self.acked.pop(job_id, None):
                self.counts["deleted"] += 1

    # -- looking ---------------------------------------------------------------------------------------------------

    def cli(
        self, *words: str, may_fail: bool = True, stdin: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command as a person would; one that crashes, or says nothing at a refusal, is a broken promise."""
        done = support.run_cli("--spool", self.spool, *words, stdin=stdin, cwd=self.base, timeout=120)
        self.counts["commands"] += 1
        if "Traceback" in done.stderr or done.returncode not in (0, 1, 3, 4):
            self.violated(f"queuectl {' '.join(words)}: exit {done.returncode}: {done.stderr[-3000:]}")
        elif done.returncode:
            self.counts[f"commands refused ({done.returncode})"] += 1
            self.tell(f"refused: queuectl {' '.join(words)[:100]}: {done.stderr.strip()[:300]}")
            if not may_fail or not done.stderr.strip():
                self.violated(f"queuectl {' '.join(words)}: exit {done.returncode}: {done.stderr}")
        return done

    def places(self) -> dict[str, list[str]]:
        """Where each job file lies, by the name of the file."""
        found: dict[str, list[str]] = {}
        for folder in FOLDERS:
            for path in (self.spool / folder).glob("*/*.json" if folder == "processing" else "*.json"):
                place = path.parent.relative_to(self.spool).as_posix()
                known = found.setdefault(path.stem, [])
                if place not in known:
                    known.append(place)
        return found

    def stamps(self) -> list[Stamp]:
        """What the jobs wrote down so far, in the order in which it came to pass."""
        path = self.outside / "stamps"
        if not path.exists():
            return []
        found = []
        for line in path.read_text(encoding="ascii").splitlines():
            what, job_id, run, moment, pid = line.split()
            found.append(Stamp(what, job_id, run, float(moment), int(pid)))
        return found

    def close(self) -> None:
        """No more is written down."""
        self._log.close()
