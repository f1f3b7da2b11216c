"""What a worker has in hand: jobs it has claimed and not begun, and runs that are over and not put away yet.

The bookkeeping of a short job finds the processor's caches full of what its command left there, and costs two to three
times what it costs in a row. So while jobs take a few milliseconds and many wait, a worker claims several at once, runs them
one after the other, and puts their outcomes away together: one transaction, and one round through the code. Each start
writes down which runs are over (see run_file), so a worker that is killed loses none of them.

A job that takes longer ends this at once: what has not begun goes back, and others may have it.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

from queuectl.control import registry, run_lock
from queuectl.errors import QueuectlError
from queuectl.job.outcome import Ending
from queuectl.job.times import micros
from queuectl.worker import attempt

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from queuectl.config.reload import InForce
    from queuectl.index.row import Row
    from queuectl.storage.file_pool import Spares
    from queuectl.storage.mover import Claim, Mover
    from queuectl.worker.readiness import Room
    from queuectl.worker.scan_scheduler import Lookout

SPELL = 0.025
"""Seconds of work that a worker claims at a time, by what jobs took of late."""

MOST = 16
"""Jobs that it claims at a time."""

LONG = 0.005
"""Seconds after which a job counts as long, and what is claimed beside it goes back."""

SHARE = 4
"""A worker claims at most one of so many waiting jobs beyond its first: the last of them are for all workers."""

ALONE = 100
"""Claims of single jobs after one that must not run twice: where there is one, there are more."""


class Hand:
    """The jobs in one worker's hands.

    Args:
        mover: whose index says what comes next.
        worker: the worker's name.
        lookout, room: told of a claim, and asked whether there may be one.
        in_force: knows the settings.
        say: takes what happens.
        clock: a monotonic one, in seconds.

    Attributes:
        ready: claimed and read, in order; nothing of them has been started.
        over: ended, and not put away.
        told: what the run file says of them.
    """

    def __init__(
        self,
        mover: Mover,
        worker: str,
        lookout: Lookout,
        room: Room,
        in_force: InForce,
        say: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.ready: deque[Claim] = deque()
        self.over: list[Claim] = []
        self.told: list[str] = []
        self._mover, self._index, self._worker = mover, mover.index, worker
        self._lookout, self._room, self._clock = lookout, room, clock
        self._in_force, self._say = in_force, say
        self._unread: deque[tuple[Row, str]] = deque()
        self._size, self._begun, self._since = 1, 0, clock()
        self._alone = 0
        self._one_by_one = False

    def __bool__(self) -> bool:
        return bool(self.ready or self.over or self._unread)

    # -- claiming --------------------------------------------------------------------------------------------------

    def claim(self) -> None:
        """Take the first jobs in order, as far as there are any, and read them.

        Raises:
            OSError, sqlite3.Error: the disk or the index refused.
        """
        while not self.ready:
            if not self._unread:
                with self._index.moving():
                    self.take()
            if not self._unread:
                return
            self.read()

    def take(self) -> None:
        """Move the first jobs in order to us, within a transaction: no two workers reach for the same file."""
        self._index.mark_due_ready(micros(self._mover.now()))
        while not (self._room.lacking or self._unread) and self._index.usable:
            rows = self._first_in_order()
            if not rows:
                return
            self._lookout.moved()
            self._unread.extend(self._mover.take(rows, self._worker))

    def read(self) -> None:
        """Read what was taken, outside of the transaction: others wait for the index meanwhile.

        Raises:
            OSError, sqlite3.Error: the disk or the index refused; what has not been read yet can be so later, and the
                one that was being read is found in our folder when the hand is empty.
        """
        while self._unread:
            claim = self._mover.read(*self._unread.popleft())
            if claim is not None:
                self.ready.append(claim)
        if len(self.ready) > 1:
            self._part()

    def _first_in_order(self) -> list[Row]:
        number = self._next_size()
        if number > 1:
            number = max(1, min(number, self._index.count_ready(number * SHARE) // SHARE))
        rows = self._index.ready(number)
        # Whether one with a unique key may run is decided for it alone.
        keyed = next((place for place, row in enumerate(rows) if row.unique_key is not None), len(rows))
        return rows[: max(1, keyed)]

    def _next_size(self) -> int:
        """How many to claim: twice as many as the last time, within a spell of work, while jobs are short."""
        now = self._clock()
        pace = (now - self._since) / self._begun if self._begun else LONG
        self._since, self._begun = now, 0
        self._alone = max(0, self._alone - 1)
        small = self._alone or not 0 < pace < LONG
        self._size = 1 if small else max(1, min(2 * self._size, MOST, int(SPELL / pace)))
        return self._size

    def _part(self) -> None:
        """See that a job which must not run twice is claimed alone: after a power cut, what is claimed has begun."""
        for place, claim in enumerate(self.ready):
            if claim.job.on_crash == "dead":
                self.give_back(but=max(1, place))
                self._alone = ALONE
                return

    def next(self) -> Claim:
        """Begin the first of those that are ready."""
        self._begun += 1
        return self.ready.popleft()

    def let_pass(self) -> None:
        """Claim what now comes before those that are ready, too.

        Raises:
            OSError, sqlite3.Error: the disk or the index refused.
        """
        first, mine = self._index.suggest(), self.ready[0].row
        if first is None or (first.ready_key, first.seq) > (mine.ready_key, mine.seq):
            return
        with self._index.moving():
            taken = self._mover.take([first], self._worker)
        self.ready.extendleft(claim for one in taken if (claim := self._mover.read(*one)))
        self._part()

    def give_back(self, *, but: int = 0) -> None:
        """Put back what has not begun, as it was, except for the first so many.

        Raises:
            OSError, sqlite3.Error: the disk or the index refused; what could not be put back is still in hand.
        """
        self._size = 1
        while self._unread:
            self.read()
        while len(self.ready) > but:
            if os.path.lexists(self.ready[-1].path):  # or somebody took it away
                self._mover.release(self.ready[-1])
            self.ready.pop()

    # -- putting away ----------------------------------------------------------------------------------------------

    def may_wait(self, claim: Claim) -> bool:
        """Whether an outcome may be put away with those of the jobs that are ready: a plain success, and not for long."""
        outcome = claim.outcome
        return (
            bool(self.ready)
            and outcome is not None
            and outcome.ending == Ending.SUCCEEDED
            and not outcome.leftovers
            and claim.row.unique_key is None
            and claim.job.on_crash != "dead"
            and self._clock() - self._since < 2 * SPELL
        )

    def lay_aside(self, claim: Claim) -> None:
        """Keep an outcome until it is put away with others."""
        self.over.append(claim)
        duration = claim.outcome.duration if claim.outcome else 0.0
        self.told.append(run_lock.line(claim.job, claim.run, claim.ended_at, duration))

    def put_all_away(
        self, spares: Spares | None, patience: Callable[[], bool], then: Callable[[], None] | None = None
    ) -> None:
        """Record what is over, however long the disk refuses: an outcome lost is a job run twice.

        Args:
            patience: called after a refusal to wait a while; says whether to go on trying.
            then: as for `put_away`.
        """
        told = False
        while self.over:
            try:
                self.put_away(spares, then)
            except (sqlite3.Error, MemoryError, OSError) as error:
                if not isinstance(error, OSError):
                    self._index.broken = str(error) or "no memory"
                elif isinstance(error, FileNotFoundError) and self._make_folders():
                    continue
                if self.over and not told:
                    reason = (getattr(error, "strerror", None) or str(error) or "no memory").lower()
                    self._say(f"cannot record the outcome of {self.over[0].job.id} yet: {reason}")
                    told = True
                if self.over and not patience():
                    return

    def _make_folders(self) -> bool:
        """Make the spool's folders again if somebody deleted one; False when none was missing, or none can be made."""
        layout = self._mover.layout
        if all(os.path.isdir(path) for path in (layout.pending, layout.done, layout.dead, layout.tmp)):
            return False
        with suppress(QueuectlError):
            layout.create()
            return True
        return False

    def put_away(self, spares: Spares | None, then: Callable[[], None] | None = None) -> None:
        """Record outcomes: of all that are over, or of the first where all together were refused.

        Args:
            then: called within the transaction in which the last of them is recorded.

        Raises:
            OSError, sqlite3.Error: the disk or the index refused; call it again for what is still over.
        """
        if not self.over:
            return
        part = self.over[:1] if self._one_by_one else self.over[:]
        once = any(claim.job.on_crash == "dead" for claim in part)
        is_last = len(part) == len(self.over)
        for claim in part:
            if not claim.state:
                attempt.write_up(claim, self._in_force.settings)
        try:
            self._mover.settle_all(part, spares, at_once=once, then=then if is_last else None)
        except OSError:
            self._one_by_one = True
            raise
        except (sqlite3.Error, MemoryError):
            # The next look at the folders puts the index right.
            self._tell([claim for claim in self.over if claim.settled])
            self.over = [claim for claim in self.over if not claim.settled]
            raise
        del self.over[: len(part)]
        if not self.over:
            self._one_by_one = False
            self.told.clear()
        self._tell(part)
        self._heed_cancels(part)

    def _heed_cancels(self, part: Sequence[Claim]) -> None:
        """Give up what somebody wanted ended while its failure was being recorded, so that it is not tried again.

        Asked after the outcome is in its folder: a note comes before that, or its writer finds the job there.
        """
        layout, worker = self._mover.layout, self._worker
        for claim in part:
            job_id = claim.job.id or ""
            if claim.state not in ("completed", "dead") and registry.is_cancelled(
                layout, worker, job_id, claim.job.runs
            ):
                row = self._index.get(job_id) if self._index.usable else None
                with suppress(QueuectlError):  # its writer has done so, or somebody else has taken it
                    if row is not None:
                        self._mover.bury(row, "Cancelled")

    def _tell(self, claims: Sequence[Claim]) -> None:
        """Say what became of them in one go: a call for each line would cost a short job more than its claim."""
        lines = []
        for claim in claims:
            if not claim.settled:
                claim.lines[-1:] = [
                    f"{claim.job.id} was taken away while it ran; its outcome is not recorded"
                ]
            lines += claim.lines
        if lines:
            self._say("\n".join(lines))
