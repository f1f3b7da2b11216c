"""Which waiting jobs a dispatcher hands over next, and their claim.

It serves the queues of its engine, as workers serve the others (`worker.limits`). Nobody else serves them. So the limit of
such a queue is kept by counting the claims of its one dispatcher: no lock has to be held by processes on other machines.
"""

from __future__ import annotations

import time
from functools import cached_property
from typing import TYPE_CHECKING

from queuectl.config.queues import Queues, engine_of
from queuectl.control.start_rate import StartRate
from queuectl.engine import wishes
from queuectl.errors import SpoolError
from queuectl.index import lanes
from queuectl.job.times import micros
from queuectl.storage.claim import claim_files, read_claim
from queuectl.worker.limits import LOOK_AGAIN, RATE_AGAIN

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from queuectl.config.settings import Settings
    from queuectl.engine.base import Shape
    from queuectl.index.row import Row
    from queuectl.job.record import Job
    from queuectl.storage.transitions import Claim, Storage
    from queuectl.worker.scan_scheduler import ScanScheduler


class Feed:
    """The waiting jobs of one engine.

    Args:
        settings: returns the current settings of the spool.
        engine: its name, which is that of its dispatcher.
        scheduler: is told of each claim.
        in_hand: returns how many jobs of each queue are claimed.
        say: takes a line for the log.
    """

    def __init__(
        self,
        storage: Storage,
        settings: Callable[[], Settings],
        engine: str,
        scheduler: ScanScheduler,
        in_hand: Callable[[], Mapping[str, int]],
        say: Callable[[str], None],
    ) -> None:
        self._storage, self._index, self._settings = storage, storage.index, settings
        self._engine, self._scheduler, self._in_hand, self._say = engine, scheduler, in_hand, say
        self._closed_until: dict[str, float] = {}
        self._served: dict[str, int] = {}
        self._starts: dict[str, tuple[StartRate, int]] = {}
        self._number = 0

    @cached_property
    def queues(self) -> Queues:
        """The settings and pauses of the queues. Read at the first question, when the spool has been checked."""
        return Queues(self._storage.layout, self._say)

    def look(self) -> None:
        """Read changed settings of queues. Call it before the first claim, and once a second."""
        if self.queues.refresh():
            self._closed_until.clear()

    def shape_of(self, job: Job) -> Shape:
        """Return what a job wants of a node.

        Raises:
            ValueError: it wants what a cluster does not have; the reason in plain words.
        """
        queue = self.queues.get(job.queue or lanes.queue_of(None))
        return wishes.shape(job.needs or {}, queue.partition or "", queue.options or ())

    def serves(self, lane: str | None) -> bool:
        """Return whether the jobs of a lane run on this engine, and may be started."""
        queue = lanes.queue_of(lane)
        return engine_of(queue, self.queues, self._settings()) == self._engine and not self.queues.is_closed(
            queue
        )

    def is_open(self, lane: str | None) -> bool:
        """Return whether a job of a lane may be started now."""
        queue = lanes.queue_of(lane)
        return (
            self.serves(lane)
            and self._room(queue) > 0
            and self._closed_until.get(queue, 0.0) <= time.monotonic()
        )

    def has_ready(self) -> bool:
        """Return whether a job can be handed over now, as far as the limits of its queue are concerned."""
        return any(map(self.is_open, self._index.ready_lanes()))

    def has_work(self, *, later: bool) -> bool:
        """Return whether something is left to do for a dispatcher that drains.

        Args:
            later: count jobs, too, that will run by themselves later.
        """
        if not later:
            return self.has_ready()
        return any(map(self.serves, self._index.lanes_with_work()))

    def count_ready(self, most: int) -> int:
        """Return how many jobs can be handed over now, but at most `most`."""
        found = 0
        for lane in filter(self.is_open, self._index.ready_lanes()):
            found += min(self._index.count_ready_in(lane, most), self._room(lanes.queue_of(lane)))
        return min(most, found)

    def opens_in(self) -> float:
        """Seconds until a queue that waits for its rate has to be looked at again."""
        now = time.monotonic()
        self._closed_until = {queue: at for queue, at in self._closed_until.items() if at > now}
        return min((at - now for at in self._closed_until.values()), default=float("inf"))

    def claim(self, limit: int) -> list[Claim]:
        """Claim the first jobs, at most so many, and read them.

        Raises:
            OSError, sqlite3.Error: the disk or the index refused.
        """
        ready, due = self._index.ready_and_due()
        # Without the write lock first: an idle dispatcher would take it each second for nothing.
        if not ready and (due is None or due > self._storage.now() * 1e6):
            return []
        with self._index.moving():
            self._index.mark_due_ready(micros(self._storage.now()))
            rows = [row for row in self._next_rows(limit) if self._may_start(row)]
            if rows:
                self._scheduler.job_claimed()
            taken = claim_files(self._storage, rows, self._engine)
        claims = [claim for one in taken if (claim := read_claim(self._storage, *one)) is not None]
        if self._starts:
            for job_id in {row.id for row in rows} - {claim.row.id for claim in claims}:
                self.over(job_id, has_begun=False)
        return claims

    def over(self, job_id: str, *, has_begun: bool) -> None:
        """A claimed job is no claim any more.

        Args:
            has_begun: it has run; else it costs its queue no start of its rate. Starts that an earlier dispatcher has noted
                are not given back, as nobody knows their moments: its queue begins later than it might, never too much.
        """
        start = self._starts.pop(job_id, None)
        if start is None or has_begun:
            return
        starts, moment = start
        try:
            starts.give_back(moment)
        except SpoolError as error:
            self._say(str(error))
        self._closed_until.clear()

    def _next_rows(self, limit: int) -> list[Row]:
        heads = [head for head in self._index.ready_heads() if self.is_open(head[0])]
        in_turns = len(heads) > 1 and self._settings().between_queues == "turns"
        found = [
            self._index.ready_in(lane, min(limit, self._room(lanes.queue_of(lane))))
            for lane in lanes.with_first(heads, limit, self._served if in_turns else None)
        ]
        if not found:
            return []
        rows = (
            lanes.by_turns(found, limit, self._served)
            if in_turns and len(found) > 1
            else lanes.by_age(found, limit)
        )
        # A job with a unique key is claimed alone: whether it may run is decided for one job at a time.
        keyed = next((place for place, row in enumerate(rows) if row.unique_key is not None), len(rows))
        return self._within_limits(rows[: max(1, keyed)])

    def _within_limits(self, rows: list[Row]) -> list[Row]:
        """Leave out what is too much for the limit of its queue: a queue may have several lanes."""
        room: dict[str, float] = {}
        chosen = []
        for row in rows:
            queue = lanes.queue_of(row.lane)
            room.setdefault(queue, self._room(queue))
            if room[queue] > 0:
                room[queue] -= 1
                chosen.append(row)
        return chosen

    def _room(self, queue: str) -> int:
        limit = self.queues.get(queue).limit
        return 1 << 30 if limit is None else max(0, limit - self._in_hand().get(queue, 0))

    def _may_start(self, row: Row) -> bool:
        """Note a start, if the rate of the queue allows one now."""
        queue = lanes.queue_of(row.lane)
        self._number += 1
        self._served[queue] = self._number
        rate = self.queues.get(queue).rate
        if rate is None:
            return True
        now, clock = micros(self._storage.now()), time.monotonic()
        if self._closed_until.get(queue, 0.0) > clock:
            return False
        starts = StartRate(self._storage.layout.start_times(queue), rate.starts, rate.span)
        try:
            next_at = starts.take(now)
        except SpoolError as error:
            self._say(str(error))
            self._closed_until[queue] = clock + LOOK_AGAIN
            return False
        if next_at:
            self._closed_until[queue] = clock + min((next_at - now) / 1e6, RATE_AGAIN)
        else:
            self._starts[row.id] = starts, now
        return not next_at
