"""What must hold at any moment, and what must hold in the end."""

from __future__ import annotations

import os
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import psutil
from checker import assert_spool_sane

from queuectl import Filter, Spool

import support
from . import hooks, rules
from .world import Violation

if TYPE_CHECKING:
    from collections.abc import Callable

    from .killer import Killer
    from .world import World

PATIENCE = 20.0
"""Seconds in which the workers must have put right what a death in mid-move left behind."""

ALLOWED = ("orphan log", "process")
"""Findings of the doctor that the soak's own deletions and background jobs bring about."""


class Checker:
    """Looks at one soak again and again."""

    def __init__(self, world: World, killer: Killer) -> None:
        self._world, self._killer = world, killer
        self._reported: dict[str, int] = {}
        self._logs: dict[str, tuple[int, int]] = {}

    def look(self) -> None:
        """Look while everybody works; actors pause, workers do not.

        Raises:
            Violation: a promise is broken.
        """
        with self._world.quiet():
            self._killer.calm()
            self._no_overlap()
            self._none_again()
            self._after_parents()
            self._worker_logs()
            self._lasting(self._lost, "lost")
            self._lasting(self._doubled, "in two places")
            hooks.note(self._world)
            there = self._world.places()
            begun = self._begun()
            self._reported = {job_id: begun[job_id] for job_id, places in there.items() if places == ["done"]}
        self._world.counts["looks at work under way"] += 1

    def stand_still(self) -> None:
        """Stop the workers and look closely, jobs waiting and all; starting them again is left to the killer.

        Raises:
            Violation: a promise is broken.
        """
        with self._world.quiet():
            self._killer.calm()
            self._stop()
            left = ("processing/*/*.json", "data/workers/*.held.*", "data/workers/*.spare.*")
            if any(list(self._world.spool.glob(pattern)) for pattern in left):
                # The last worker was killed by its job: nobody is left to clear up after it, so a person does.
                self._world.cli("doctor", "--repair")
                self._world.counts["repairs by the doctor"] += 1
            self._sane()
        self._world.counts["looks at a spool at rest"] += 1

    def finish(self, patience: float) -> None:
        """Let the workers do all that is left, and look for the last time; every actor has left.

        Args:
            patience: seconds in which fewer have to be left than ever before.

        Raises:
            Violation: a promise is broken.
        """
        self._killer.calm()
        rules.end(self._world)
        self._world.cli("worker", "start", "--count", "2", may_fail=False)
        end, least = time.monotonic() + patience, -1
        spool = Spool(self._world.spool)
        while left := self._left(spool):
            if least < 0 or left < least:  # slow is no fault: what kills its workers holds two up for seconds
                end, least = time.monotonic() + patience, left
            if time.monotonic() > end:
                raise Violation(
                    f"jobs that nobody runs to their end: {spool.counts()}; {hooks.untold(self._world)}"
                )
            self._give_up_blocked(spool)
            if not spool.workers():
                self._world.cli("worker", "start", "--count", "2", may_fail=False)
            time.sleep(0.3)
        self._stop()
        self._no_overlap()
        self._after_parents()
        self._worker_logs()
        rules.check(self._world)
        hooks.check(self._world)
        self._sane()
        self._ended_well()
        self._nothing_alive()

    def _left(self, spool: Spool) -> int:
        """Return how many jobs have not ended, or else how many ends are not told yet."""
        going = ("pending", "failed", "processing")
        return sum(spool.counts()[state] for state in going) or len(hooks.untold(self._world))

    def _stop(self) -> None:
        done = self._world.cli("worker", "stop", may_fail=True)
        support.wait_until(
            lambda: not Spool(self._world.spool).workers(), 60, f"workers to stop: {done.stdout}"
        )

    # -- one promise each ------------------------------------------------------------------------------------------

    def _begun(self) -> Counter[str]:
        return Counter(stamp.job_id for stamp in self._world.stamps() if stamp.what == "start")

    def _no_overlap(self) -> None:
        stamps = self._world.stamps()
        for stamp in stamps:
            if stamp.what == "overlap":
                told = [one for one in stamps if one.job_id == stamp.job_id]
                raise Violation(f"two runs of {stamp.job_id} overlap: {told}")

    def _may_come_again(self, job_id: str) -> bool:
        """Whether it is a hook that was cleared away: the next end of its job has one of the same id."""
        return job_id in self._world.deleted and job_id.startswith(hooks.PREFIXES)

    def _none_again(self) -> None:
        """No job that was seen in done/ has begun again by itself."""
        begun = self._begun()
        for job_id, number in self._reported.items():
            if (
                begun[job_id] > number
                and job_id not in self._world.again
                and not self._may_come_again(job_id)
            ):
                raise Violation(f"{job_id} had been reported as completed and was run again")

    def _after_parents(self) -> None:
        """No job has begun before all its parents had succeeded, unless a person has moved one of them."""
        succeeded: set[str] = set()
        for stamp in self._world.stamps():
            if stamp.what == "end-0":
                succeeded.add(stamp.job_id)
            elif stamp.what == "start":
                early = {*self._world.parents.get(stamp.job_id, ())} - succeeded - self._world.again
                if early:
                    raise Violation(f"{stamp.job_id} has begun before its parents {sorted(early)}")

    def _give_up_blocked(self, spool: Spool) -> None:
        """Cancel what waits for a parent that failed, or that somebody has deleted: nobody will mend it."""
        blocked = [job.id for job in spool.list(where=Filter(blocked=True))]
        if blocked:
            self._world.again |= {*blocked}
            self._world.cli("cancel", *blocked)
            self._world.counts["given up, as a parent failed or was deleted"] += len(blocked)

    def _lost(self) -> list[str]:
        there = self._world.places()
        return [job_id for job_id in self._world.acked if job_id not in there]

    def _doubled(self) -> list[str]:
        return [f"{job_id} in {places}" for job_id, places in self._world.places().items() if len(places) > 1]

    @staticmethod
    def _lasting(look: Callable[[], list[str]], what: str) -> None:
        """What lasts is a fault; what is seen once may be in the middle of a move."""
        end = time.monotonic() + PATIENCE
        left = set(look())
        while left:
            if time.monotonic() > end:
                raise Violation(f"{what}: {sorted(left)}")
            time.sleep(0.2)
            left &= set(look())

    def _worker_logs(self) -> None:
        for path in (self._world.spool / "data" / "workers").glob("*.log*"):
            text = path.read_text(encoding="utf-8", errors="replace")
            if "Traceback" in text:
                raise Violation(f"a worker crashed: {text[text.index('Traceback') :][:3000]}")

    def _sane(self) -> None:
        started = [stamp.job_id for stamp in self._world.stamps() if stamp.what == "start"]
        runs = [job_id for job_id in started if not self._may_come_again(job_id)]
        try:
            assert_spool_sane(
                self._world.spool,
                acknowledged=self._world.acked,
                runs=runs,
                again=self._world.again,
                allow=ALLOWED,
                background=True,
            )
        except AssertionError as error:
            raise Violation(str(error)) from None
        for path in (self._world.spool / "dead").glob("*.reason"):
            if not path.name.startswith("rubbish-"):
                raise Violation(f"{path.name}: {path.read_text(encoding='utf-8')}")

    def _ended_well(self) -> None:
        """Each kind of job has come to the end that is its own, unless somebody meddled with it."""
        for place in ("done", "dead"):
            for path in (self._world.spool / place).glob("*.json"):
                kind = self._world.acked.get(path.stem)
                if kind is not None and path.stem not in self._world.again:
                    job = support.load(path)
                    self._world.counts[f"{kind} in {place}"] += 1
                    if wrong := _unlike(kind, place, job):
                        raise Violation(f"{path.stem} in {place}: {wrong}: {job}")

    def _nothing_alive(self) -> None:
        def alive() -> list[Any]:
            mine = str(self._world.outside)
            found = [one.as_dict(["pid", "cmdline"]) for one in support.processes_of(self._world.spool)]
            for process in psutil.process_iter(["pid", "cmdline", "status"]):
                words = process.info["cmdline"] or []
                if process.pid != os.getpid() and any(word == mine for word in words):
                    found.append(process.info)
            return found

        support.wait_until(lambda: not alive(), 15, lambda: f"the end of {alive()}")


def _unlike(kind: str, place: str, job: dict[str, Any]) -> str:
    """What is odd about the end of a job that nobody meddled with, or nothing."""
    outcomes = [entry["outcome"] for entry in job.get("history", [])]
    charged = [one for one in outcomes if one not in ("interrupted", "stopped")]
    if job.get("attempts", 0) != len(charged):
        return f"{job.get('attempts')} attempts charged, {len(charged)} made"
    crashed = outcomes[-3:] == ["interrupted"] * 3
    given_up = "cancelled" in outcomes or job.get("last_error") == "Cancelled"
    if place == "done" and kind in ("fail", "killer"):
        return "it cannot have succeeded"
    if place == "dead" and not crashed and not given_up:
        if kind == "fail" and len(charged) != job["max_retries"]:
            return "it has attempts left"
        if kind in ("ok", "background", "flood", "escape") and "timed_out" not in charged:
            return "it cannot have failed"
    return ""
