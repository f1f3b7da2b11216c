"""Which waiting jobs a worker may start now: the limits and rates of queues, resources, paused queues, and the worker's own queues.

The queues whose jobs an engine runs are served by its dispatcher alone (`worker.feed`).

All jobs of a lane have the same limits. A lane is open, or it is closed: its queue is paused or not served, or a permit is
missing. The next job is the first one of the open lanes. So no job is claimed only to be put back, and jobs that wait for a
full queue cost the others nothing.

A job that runs holds a permit (see `control.permits`). A worker takes it before the claim. While it runs one short job after
the other, each takes over the permit of the one before.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from functools import cached_property
from typing import TYPE_CHECKING

from queuectl.config.queues import Queues, engine_of
from queuectl.control.permits import Permit, Permits
from queuectl.control.start_rate import StartRate
from queuectl.errors import SpoolError
from queuectl.index import lanes
from queuectl.index.row import order_of
from queuectl.job.times import micros
from queuectl.layout import LOCAL
from queuectl.system import open_files

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from queuectl.config.queues import QueueChoice
    from queuectl.config.settings import Settings
    from queuectl.index.row import Row
    from queuectl.storage.transitions import Storage

Start = tuple[StartRate, int]
"""A start that counts for a queue with a rate: the starts of the queue, and its moment in microseconds."""

LOOK_AGAIN = 1.0
"""Seconds after which a closed lane is tried again at the latest. Mostly an event comes first: see `Permit.release`."""

RATE_AGAIN = 10.0
"""Seconds after which a queue whose rate is used up is tried again at the latest, although its next start is hours away.
Another worker may give a start back, and the clock may be set."""

PASSED_OVER = 300.0
"""Seconds for which a job that lacks a resource is passed by jobs behind it. Then that resource is kept for it.

Kept for it from the start, resources lie idle: a machine in use at 94 % falls to 83 %. Passed for ever, a large job waits
without end. Both were simulated, with four units, small jobs, and a large one each minute.
"""


class Limits:
    """The limits that one worker keeps.

    Args:
        storage: its index knows the waiting jobs.
        settings: returns the current settings of the spool.
        choice: which queues the worker serves.
        say: takes a line for the log.
        clock: a monotonic one, in seconds.
    """

    def __init__(
        self,
        storage: Storage,
        settings: Callable[[], Settings],
        choice: QueueChoice,
        say: Callable[[str], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._storage, self._index = storage, storage.index
        self._settings, self._choice, self._say, self._clock = settings, choice, say, clock
        self._permits = Permits(storage.layout.permits)
        self._spare: dict[str | None, list[Permit]] = {}
        self._starts: dict[str, Start] = {}
        self._full: dict[str | None, float] = {}
        self._too_fast: dict[str, float] = {}
        self._passed: dict[str | None, tuple[int, float]] = {}
        self._served: dict[str, int] = {}
        self._faults: dict[str | None, str] = {}
        self._number = 0
        self._resources: Mapping[str, int] = {}

    @cached_property
    def _queues(self) -> Queues:
        """The settings of the queues. Read at the first question, when the spool has been checked."""
        return Queues(self._storage.layout, self._say)

    # -- which come next -------------------------------------------------------------------------------------------

    def ready(self, limit: int) -> list[Row]:
        """Return the jobs of open lanes that can run now, in the order in which they start, at most `limit`."""
        heads = [head for head in self._index.ready_heads() if self.is_open(head[0])]
        in_turns = len(heads) > 1 and self._settings().between_queues == "turns"
        # What is kept for a job may leave out those that came first.
        wanted = len(heads) if self._passed else limit
        names = lanes.with_first(heads, wanted, self._served if in_turns else None)
        rows = [self._index.ready_in(lane, limit) for lane in names]
        if self._passed and rows:
            rows = self._keep_for_passed(rows)
        if in_turns and len(rows) > 1:
            return lanes.by_turns(rows, limit, self._served)
        return lanes.by_age(rows, limit) if rows else []

    def is_open(self, lane: str | None) -> bool:
        """Return whether jobs of a lane may start now, as far as is known."""
        if not self._is_served(lane):
            return False
        if self._full or self._too_fast:
            rate_until = self._too_fast.get(lanes.queue_of(lane), 0.0)
            return max(self._full.get(lane, 0.0), rate_until) <= self._clock()
        return True

    def has_ready(self) -> bool:
        """Return whether a job of an open lane can run now."""
        return any(map(self.is_open, self._index.ready_lanes())) and (not self._passed or bool(self.ready(1)))

    def has_work(self, *, later: bool) -> bool:
        """Return whether something is left to do for a draining worker.

        Args:
            later: count jobs, too, that run, that will run by themselves, or that wait for a permit; not those of paused
                queues, nor those that need more than there is: they wait for a person.
        """
        if not later:
            return self.has_ready()
        return self._index.has_work(later=True) and any(
            self._is_served(lane) and self._has_enough_for(lane) for lane in self._index.lanes_with_work()
        )

    def opens_at(self) -> float:
        """The monotonic moment at which a closed lane has to be tried again although no event comes."""
        now = self._clock()
        self._full = {lane: until for lane, until in self._full.items() if until > now}
        self._too_fast = {queue: until for queue, until in self._too_fast.items() if until > now}
        return min((*self._full.values(), *self._too_fast.values()), default=math.inf)

    @property
    def has_spare(self) -> bool:
        """Whether it holds a permit, or has noted a start, for a job that has not started."""
        return bool(self._spare or self._starts)

    @property
    def is_full(self) -> bool:
        """Whether a lane waits until a permit is given back."""
        return bool(self._full)

    def reopen(self) -> None:
        """Try all lanes again that wait for a permit: one was given back."""
        self._full.clear()

    def look(self) -> None:
        """Read changed settings of queues. Call it before the first claim, and once a second."""
        resources = self._settings().resources
        if self._queues.refresh() or resources != self._resources:
            self._resources = resources
            self._full.clear()
            self._too_fast.clear()

    def report(self, note: Callable[[str, str | None], None]) -> None:
        """Report for others which queues are served, and which of their pauses have been noticed.

        Args:
            note: puts a text into the worker's record.
        """
        note("queues", " ".join(sorted(self._choice.only)) or None)
        note("not_queues", " ".join(sorted(self._choice.without)) or None)
        note("queues_seen", self._queues.pauses_seen())

    def _is_served(self, lane: str | None) -> bool:
        queue = lanes.queue_of(lane)
        # The jobs of an engine are its dispatcher's: claimed by a worker, they would run on this machine.
        return (
            self._choice.serves(queue)
            and engine_of(queue, self._queues, self._settings()) == LOCAL
            and not self._queues.is_closed(queue)
        )

    def _has_enough_for(self, lane: str | None) -> bool:
        """Whether there is as much of each resource as a job of a lane needs, free or not."""
        there = self._settings().resources
        return all(number <= there.get(name, 0) for name, number in lanes.parts_of(lane)[1].items())

    def _keep_for_passed(self, rows: list[list[Row]]) -> list[list[Row]]:
        """Leave out jobs that need what is kept for a job before them, which was passed over for long enough."""
        kept: list[tuple[Row, frozenset[str]]] = []
        for lane, (seq, since) in list(self._passed.items()):
            first = next(iter(self._index.ready_in(lane, 1)), None)
            if first is None or first.seq != seq:
                del self._passed[lane]
            elif (
                self._clock() - since >= PASSED_OVER and self._is_served(lane) and self._has_enough_for(lane)
            ):
                kept.append((first, frozenset(lanes.parts_of(lane)[1])))
        if not kept:
            return rows
        keeper, names = min(kept, key=lambda one: order_of(one[0]))
        left = (
            [
                row
                for row in lane
                if row.lane == keeper.lane
                or order_of(row) < order_of(keeper)
                or names.isdisjoint(lanes.parts_of(row.lane)[1])
            ]
            for lane in rows
        )
        return [lane for lane in left if lane]

    # -- permits ---------------------------------------------------------------------------------------------------

    def admit(self, rows: Iterable[Row], room: int) -> list[Row]:
        """Take the permits with which jobs can be claimed; return those that can. Lanes without one are closed now.

        Args:
            room: so many of them start at once, each with a permit of its own. Those behind them start when others have
                ended, and take over their permits.
        """
        admitted: list[Row] = []
        used: dict[str | None, int] = {}
        for row in rows:
            if not self.is_open(row.lane):
                continue
            queue, needs = lanes.parts_of(row.lane)
            settings = self._queues.get(queue)
            if settings.limit is None and settings.rate is None and not needs:
                admitted.append(row)
                continue
            if settings.rate is not None and admitted:
                break  # it is claimed alone: each start is noted, and the next may have to wait
            spare = len(self._spare.get(row.lane, ()))
            taken = used.get(row.lane, 0)
            may_follow = len(admitted) >= room and taken > 0
            if not (may_follow or taken < spare or self._take_spare(row, used)):
                continue
            if settings.rate is not None and not self._note_start(row):
                continue
            used[row.lane] = taken + 1
            self._faults.pop(row.lane, None)
            admitted.append(row)
            if settings.rate is not None:
                break
        return admitted

    def _take_spare(self, row: Row, used: Mapping[str | None, int] | None = None) -> bool:
        """Take a permit that is no job's yet, or close the lane.

        Args:
            used: of the spare permits, how many are wanted by lane; the others are given back if that may help. They are
                those of jobs that have just ended: one of another lane would keep the first job in order waiting.
        """
        queue, needs = lanes.parts_of(row.lane)
        wanted = queue, self._queues.get(queue).limit, needs, self._settings().resources
        try:
            if needs:  # else the job would get its units, and then no file for its output, again and again
                open_files.require_free(sum(needs.values()) + open_files.FOR_A_WORKER)
            permit = self._permits.take(*wanted)
            if not isinstance(permit, Permit) and used is not None and self._release_spare(used):
                permit = self._permits.take(*wanted)
        except OSError as error:
            self._note_fault(row.lane, str(SpoolError.from_os("lock", str(error.filename), error)))
            return False
        except SpoolError as error:
            self._note_fault(row.lane, f"cannot take what a job of the lane {row.lane} needs: {error}")
            return False
        now = self._clock()
        if isinstance(permit, Permit):
            self._spare.setdefault(row.lane, []).append(permit)
            self._passed.pop(row.lane, None)
            return True
        self._full[row.lane] = now + LOOK_AGAIN
        if not permit:
            # What it needs is of no use to it while its queue is full, and of use to others.
            self._passed.pop(row.lane, None)
        elif self._passed.get(row.lane, (None, 0.0))[0] != row.seq:
            self._passed[row.lane] = row.seq or 0, now
        return False

    def _note_start(self, row: Row) -> bool:
        """Note a start of a queue with a rate, or close the queue until the next one is allowed."""
        queue = lanes.queue_of(row.lane)
        rate = self._queues.get(queue).rate
        if rate is None:
            return True
        now = micros(self._storage.now())
        starts = StartRate(self._storage.layout.start_times(queue), rate.starts, rate.span)
        try:
            next_at = starts.take(now)
        except SpoolError as error:
            self._note_fault(row.lane, str(error))
            return False
        if next_at:
            self._too_fast[queue] = self._clock() + min((next_at - now) / 1e6, RATE_AGAIN)
            return False
        self._starts[row.id] = starts, now
        return True

    def can_start(self, row: Row) -> bool:
        """Return whether there is a permit for a claimed job, and its queue is not paused; if not, it must be put back."""
        queue, needs = lanes.parts_of(row.lane)
        settings = self._queues.get(queue)
        if self._queues.is_closed(queue):
            return False
        if settings.rate is not None and row.id not in self._starts and not self._note_start(row):
            return False
        if settings.limit is None and not needs:
            return True
        return bool(self._spare.get(row.lane)) or self._take_spare(row)

    def start(self, row: Row) -> Permit | None:
        """Return the permit of a job that starts; None if it needs none. Call it after `can_start`, and `started` after it."""
        lane = row.lane
        queue = lanes.queue_of(lane)
        self._number += 1
        self._served[queue] = self._number
        spare = self._spare.get(lane)
        if not spare:
            return None
        permit = spare.pop()
        if not spare:
            del self._spare[lane]
        return permit

    def started(self, row: Row) -> Start | None:
        """Note that a job has started, and return the start that counts for its queue, if that has a rate.

        One that could not be started, or has expired, costs its queue no start.
        """
        return self._starts.pop(row.id, None)

    def take_back(self, start: Start | None) -> None:
        """Take a start back: the system has refused it after all.

        Raises:
            SpoolError: the starts of the queue cannot be written.
        """
        if start is not None:
            starts, moment = start
            self._too_fast.clear()
            starts.give_back(moment)

    def end(self, lane: str | None, permit: Permit, *, reuse: bool) -> None:
        """Take back the permit of a job that has ended, for the next one of its lane.

        Args:
            reuse: False if processes of the job go on in the background: they would hold the permit of the next job.
        """
        self._full.clear()
        queue = lanes.queue_of(lane)
        limit = self._queues.get(queue).limit
        try:
            keep = reuse and self._permits.may_keep(permit, queue, limit, self._settings().resources)
        except OSError:
            keep = False
        if keep:
            self._spare.setdefault(lane, []).append(permit)
        else:
            permit.release()

    def give_back_unused(self, claimed: Collection[Row]) -> None:
        """Give back what no claimed job waits for.

        Args:
            claimed: the jobs that have not started.

        Raises:
            SpoolError: the starts of a queue cannot be written.
        """
        if self._spare and self._release_spare(Counter(row.lane for row in claimed)):
            self._full.clear()
        if self._starts:
            ids = {row.id for row in claimed}
            for job_id in [job_id for job_id in self._starts if job_id not in ids]:
                self.take_back(self._starts.pop(job_id))

    def _release_spare(self, wanted: Mapping[str | None, int]) -> bool:
        """Give back the permits of ended jobs but so many of each lane; returns whether there was one."""
        released = False
        for lane, spare in list(self._spare.items()):
            while len(spare) > wanted.get(lane, 0):
                spare.pop().release()
                released = True
            if not spare:
                del self._spare[lane]
        return released

    def _note_fault(self, lane: str | None, fault: str) -> None:
        """Close a lane, as its files cannot be used. That must keep no job of another lane waiting, nor end the worker."""
        self._full[lane] = self._clock() + LOOK_AGAIN
        if self._faults.get(lane) != fault:
            self._faults[lane] = fault
            self._say(fault)
