"""The queues of a spool at one moment: their limits, how full they are, and why a job of theirs does not start."""

from __future__ import annotations

import time
from functools import cached_property
from typing import TYPE_CHECKING

from queuectl.config import cluster, queues
from queuectl.config.queues import Queues, engine_of
from queuectl.control import pause, registry
from queuectl.control.start_rate import StartRate
from queuectl.errors import SpoolError
from queuectl.fast_start.dataclass import dataclass, field
from queuectl.index import lanes, queue_counts
from queuectl.index.queue_counts import LaneCount
from queuectl.job.times import micros
from queuectl.layout import LOCAL, is_engine

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from queuectl.config.queues import QueueSettings
    from queuectl.config.settings import Settings
    from queuectl.control.pause import Pause
    from queuectl.control.registry import WorkerInfo
    from queuectl.index.queries import Queries
    from queuectl.layout import Layout


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
        served: whether a living worker, or the dispatcher of its engine, serves it.
        engine: where its jobs run: local, or the name of an engine.
        placement: what its file says of engine, partition and options.
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
    engine: str = LOCAL
    placement: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_full(self) -> bool:
        """Whether as many of its jobs run as may."""
        return self.limit is not None and self.running >= self.limit


class QueueView:
    """A look at all queues of a spool at one moment.

    Args:
        index: agrees with the folders.
        settings: those of the spool.
        queues: the settings of queues, if they have been read.

    Raises:
        ConfigError: the folder of queues cannot be read.
    """

    def __init__(
        self, layout: Layout, index: Queries, settings: Settings, queues: Queues | None = None
    ) -> None:
        self._layout, self._index, self._settings = layout, index, settings
        self._resources = settings.resources
        self.queues = queues or Queues(layout)
        self.now = micros(time.time())
        self._starts: dict[str, int | None] = {}

    @cached_property
    def workers(self) -> list[WorkerInfo]:
        """The living workers."""
        return registry.live_workers(self._layout)

    @cached_property
    def lanes(self) -> dict[str | None, LaneCount]:
        """How many jobs each lane has."""
        return queue_counts.by_lane(self._index, self.now)

    @cached_property
    def counts(self) -> dict[str, LaneCount]:
        """How many jobs each queue has."""
        return queue_counts.by_queue(self.lanes)

    @cached_property
    def _running(self) -> dict[str | None, int]:
        return queue_counts.running(self._index)

    def running_in(self, name: str) -> int:
        """Return how many jobs of a queue run, or are claimed."""
        return sum(number for lane, number in self._running.items() if lanes.queue_of(lane) == name)

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
            engine=self.engine_of(name),
            placement=settings.placement,
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

    def engine_of(self, name: str) -> str:
        """Return where the jobs of a queue run: local, or the name of an engine."""
        return engine_of(name, self.queues, self._settings)

    def is_served(self, name: str) -> bool:
        """Return whether a living worker serves a queue; for a queue of an engine, whether its dispatcher lives."""
        engine = self.engine_of(name)
        return any(
            worker.serves(name) and (worker.name if is_engine(worker.name) else LOCAL) == engine
            for worker in self.workers
            if not worker.stopping
        )

    def why_closed(self, lane: str | None) -> str | None:
        """Return why no job of a lane starts now; None if nothing is known that keeps it from starting."""
        name, needs = lanes.parts_of(lane)
        settings = self.queues.get(name)
        if self.queues.is_paused(name):
            return f"{name} is paused"
        if self.queues.is_closed(name):
            return f"the file of {name} is not valid"
        if settings.limit is not None and (running := self.running_in(name)) >= settings.limit:
            return f"{name} is full ({running} of {settings.limit})"
        starts = self.starts(settings)
        if settings.rate is not None and starts is not None and starts >= settings.rate.starts:
            return f"{name} has started {starts} of {settings.rate}"
        if fact := self.lacks(lane):
            return fact
        if self.engine_of(name) != LOCAL:
            return None
        for name, amount in needs.items():
            free = self._resources[name] - self.used(name)
            if free < amount:
                return f"it needs {amount} {name}, and {max(0, free)} of {self._resources[name]} is free"
        return None

    def lacks(self, lane: str | None) -> str | None:
        """Return why the jobs of a lane can never start, with what they need; None if there is enough."""
        name, needs = lanes.parts_of(lane)
        if self.engine_of(name) == LOCAL:
            return queues.shortage(needs, self._resources)
        try:
            cluster.refuse_needs(needs, self.queues.get(name).options or ())
        except ValueError as error:
            return str(error)
        return None

    def used(self, resource: str) -> int:
        """Return how many units of a resource running jobs hold."""
        return sum(
            number * lanes.parts_of(lane)[1].get(resource, 0) for lane, number in self._running.items()
        )

    def shortages(self) -> dict[str, int]:
        """Return why jobs can never start with the resources that there are, and how many wait so."""
        found: dict[str, int] = {}
        for lane, count in self.lanes.items():
            fact = self.lacks(lane)
            if fact and count.waiting:
                found[fact] = found.get(fact, 0) + count.waiting
        return found


def notes(view: QueueView) -> list[str]:
    """Return what keeps jobs of queues from running, one line each, for `status`."""
    found = [f"{fault}; {_effect(view, name)}" for name, fault in view.queues.faults().items()]
    for queue in view.all():
        found += troubles(view, queue)
    return found + shortage_notes(view)


def troubles(view: QueueView, queue: Queue) -> list[str]:
    """Return what keeps the jobs of one queue from running: a pause, a limit for an hour, no worker that serves it."""
    found = []
    if queue.paused is not None:
        found.append(f"{queue.paused.sentence}; its jobs start after: queuectl resume --queue {queue.name}")
    elif queue.is_full and queue.oldest is not None and queue.oldest >= LONG_FULL:
        full = f"queue {queue.name} is full ({queue.running} of {queue.limit})"
        found.append(f"{full}, and its first job has waited for {_hours(queue.oldest)}")
    if queue.waiting and view.workers and not queue.served and queue.engine == LOCAL:
        found.append(
            f"queue {queue.name} is served by no living worker, and {_jobs_wait(queue.waiting)} in it"
        )
    return found


def shortage_notes(view: QueueView) -> list[str]:
    """Return which jobs need more than there is."""
    return [
        f"{_jobs_wait(number)} for more than there is: {fact}" for fact, number in view.shortages().items()
    ]


def _jobs_wait(number: int) -> str:
    return "1 job waits" if number == 1 else f"{number} jobs wait"


LONG_FULL = 3600.0
"""Seconds that the first job of a full queue has waited when `status` says so."""


def _effect(view: QueueView, name: str) -> str:
    # This process has not seen the file valid. Workers that have go on with the values from before.
    going = " unless they have seen it valid" if view.workers else ""
    return f"workers start no job of the queue {name}{going}"


def _hours(seconds: float) -> str:
    minutes = int(seconds // 60)
    return f"{minutes // 60}h{minutes % 60:02}m"
