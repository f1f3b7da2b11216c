"""The queues of a spool as people see them: their limits, how full they are, and why a job of theirs does not start."""

from __future__ import annotations

import time
from difflib import get_close_matches
from typing import TYPE_CHECKING

from queuectl._dataclasses import dataclass, field
from queuectl.config import resources
from queuectl.config.queues import DEFAULT, Queues
from queuectl.control import pause, registry
from queuectl.control.start_rate import StartRate
from queuectl.errors import SpoolError
from queuectl.index import lanes, queue_counts
from queuectl.index.queue_counts import LaneCount
from queuectl.job.times import micros

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

    from queuectl.api.spool_base import SpoolBase
    from queuectl.config.queues import QueueSettings
    from queuectl.config.settings import Settings
    from queuectl.control.pause import Pause
    from queuectl.control.registry import WorkerInfo


@dataclass(slots=True)
class Queue:
    """One queue of a spool. Times are in seconds.

    Attributes:
        waiting, running, dead: how many of its jobs are in these states now; waiting are those in pending/.
        limit: the most jobs that run at a time; None: no limit.
        rate: the most starts in a span, as text like 100/1h; None: no limit.
        starts: how many started within the last span; None without a rate.
        paused: since when it is paused, and why; None if it is not.
        oldest: for how long the first of the jobs that could run has waited; None if there is none.
        defaults: the values that its jobs get for fields which they leave out.
        fault: what is wrong with its file; None if nothing is.
        served: whether a living worker serves it.
    """

    name: str
    waiting: int = 0
    running: int = 0
    dead: int = 0
    limit: int | None = None
    rate: str | None = None
    starts: int | None = None
    paused: Pause | None = None
    oldest: float | None = None
    defaults: Mapping[str, Any] = field(default_factory=dict)
    fault: str | None = None
    served: bool = False

    @property
    def is_full(self) -> bool:
        """Whether as many of its jobs run as may."""
        return self.limit is not None and self.running >= self.limit


class QueueView:
    """A look at all queues of a spool at one moment.

    Args:
        spool: its index agrees with the folders.
        settings: of the spool.
    """

    def __init__(self, spool: SpoolBase, settings: Settings) -> None:
        self._layout = spool.layout
        self.queues = Queues(spool.layout)
        self.now = micros(time.time())
        self.lanes: dict[str | None, LaneCount] = spool._ask(
            lambda: queue_counts.by_lane(spool._index, self.now)
        )
        self.counts = queue_counts.by_queue(self.lanes)
        self._resources = settings.resources
        self._workers: list[WorkerInfo] | None = None
        self._starts: dict[str, int | None] = {}

    @property
    def workers(self) -> list[WorkerInfo]:
        """The living workers."""
        if self._workers is None:
            self._workers = registry.live_workers(self._layout)
        return self._workers

    def names(self) -> list[str]:
        """Return the queues that have jobs which are not completed, a file, or a pause; sorted."""
        return sorted({*self.counts, *self.queues.names(), *self.queues.paused()})

    def one(self, name: str) -> Queue:
        """Return one queue, also one that nobody has named yet."""
        settings, count = self.queues.get(name), self.counts.get(name) or LaneCount()
        return Queue(
            name=name,
            waiting=count.waiting,
            running=count.running,
            dead=count.states.get("dead", 0),
            limit=settings.limit,
            rate=None if settings.rate is None else str(settings.rate),
            starts=self.starts(settings),
            paused=pause.read(self._layout, name) if self.queues.is_paused(name) else None,
            oldest=None if count.since is None else max(0.0, (self.now - count.since) / 1e6),
            defaults=settings.defaults,
            fault=self.queues.faults().get(name),
            served=self.is_served(name),
        )

    def all(self) -> list[Queue]:
        """Return all queues that are known, by name."""
        return [self.one(name) for name in self.names()]

    def starts(self, settings: QueueSettings) -> int | None:
        """Return how many jobs of a queue started within the last span of its rate; None without a rate."""
        if settings.rate is None:
            return None
        if settings.name not in self._starts:
            ring = StartRate(
                self._layout.start_times(settings.name), settings.rate.starts, settings.rate.span
            )
            try:
                self._starts[settings.name] = ring.count(self.now)
            except SpoolError:
                self._starts[settings.name] = None
        return self._starts[settings.name]

    def is_served(self, name: str) -> bool:
        """Return whether a living worker serves a queue."""
        return any(worker.serves(name) for worker in self.workers if not worker.stopping)

    def why_closed(self, lane: str | None) -> str | None:
        """Return why no job of a lane starts now; None if nothing is known that keeps it from starting."""
        if lane is None and not self._has_limits:
            return None
        name, needs = lanes.parts_of(lane)
        settings, count = self.queues.get(name), self.counts.get(name) or LaneCount()
        if self.queues.is_paused(name):
            return f"{name} is paused"
        if self.queues.is_closed(name):
            return f"the file of {name} is not valid"
        if settings.limit is not None and count.running >= settings.limit:
            return f"{name} is full ({count.running} of {settings.limit})"
        starts = self.starts(settings)
        if settings.rate is not None and starts is not None and starts >= settings.rate.starts:
            return f"{name} has started {starts} of {settings.rate}"
        return self._lacks(needs)

    @property
    def _has_limits(self) -> bool:
        return bool(self.queues.names() or self.queues.paused())

    def _lacks(self, needs: Mapping[str, int]) -> str | None:
        if not needs:
            return None
        if fact := resources.shortage(needs, self._resources):
            return fact
        for name, amount in needs.items():
            free = self._resources[name] - self.used(name)
            if free < amount:
                return f"it needs {amount} {name}, and {max(0, free)} of {self._resources[name]} is free"
        return None

    def used(self, resource: str) -> int:
        """Return how many units of a resource running jobs hold."""
        return sum(
            count.running * lanes.parts_of(lane)[1].get(resource, 0) for lane, count in self.lanes.items()
        )

    def shortages(self) -> dict[str, int]:
        """Return why jobs can never start with the resources that there are, and how many wait so."""
        found: dict[str, int] = {}
        for lane, count in self.lanes.items():
            fact = resources.shortage(lanes.parts_of(lane)[1], self._resources)
            if fact and count.waiting:
                found[fact] = found.get(fact, 0) + count.waiting
        return found


def unknown(spool: SpoolBase, names: Iterable[str]) -> list[str]:
    """Return a sentence for each of these queues that no job and no file has: it may be mistyped."""
    told = []
    view: QueueView | None = None
    for name in names:
        spool._look()
        view = view or QueueView(spool, spool.settings())
        known = view.names()
        if name in known or name == DEFAULT:
            continue
        if spool._ask(lambda name=name: queue_counts.has_jobs_of(spool._index, name)):  # type: ignore[misc]  # bound at once
            continue
        near = get_close_matches(name, known, n=1)
        meant = f"; is {near[0]} meant?" if near else ""
        told.append(f"no job and no file of queues/ has the queue {name}{meant}")
    return told


def notes(view: QueueView) -> list[str]:
    """Return what keeps jobs of queues from running, one line each, for `status` and `doctor`."""
    found = [f"{fault}; {_effect(view, name)}" for name, fault in view.queues.faults().items()]
    for queue in view.all():
        if queue.paused is not None:
            found.append(
                f"{queue.paused.sentence}; its jobs start after: queuectl resume --queue {queue.name}"
            )
        elif queue.is_full and queue.oldest is not None and queue.oldest >= LONG_FULL:
            waited = _hours(queue.oldest)
            found.append(
                f"queue {queue.name} is full ({queue.running} of {queue.limit}), and its first job has waited for {waited}"
            )
        if queue.waiting and view.workers and not queue.served:
            jobs = "1 job waits" if queue.waiting == 1 else f"{queue.waiting} jobs wait"
            found.append(f"queue {queue.name} is served by no living worker, and {jobs} in it")
    for fact, number in view.shortages().items():
        jobs = "1 job waits" if number == 1 else f"{number} jobs wait"
        found.append(f"{jobs} for more than there is: {fact}")
    return found


LONG_FULL = 3600.0
"""Seconds that the first job of a full queue has waited when `status` says so."""


def _effect(view: QueueView, name: str) -> str:
    # This process has not seen the file valid. Workers that have go on with the values from before.
    going = " unless they have seen it valid" if view.workers else ""
    return f"workers start no job of the queue {name}{going}"


def _hours(seconds: float) -> str:
    minutes = int(seconds // 60)
    return f"{minutes // 60}h{minutes % 60:02}m"


def in_use(spool: SpoolBase) -> bool:
    """Return whether a queue or a resource is used at all: else there is nothing to say, and nothing to count."""
    queues = Queues(spool.layout)
    if queues.names() or queues.paused():
        return True
    return any(lane is not None for lane in spool._ask(spool._index.ready_lanes))


def some(view: QueueView, names: Sequence[str]) -> list[Queue]:
    """Return these queues."""
    return [view.one(name) for name in names]
