"""The thread of a dispatcher that does everything in the folder shared with the nodes.

While its file server is away, a call there may hang for ever, as a hard-mounted share lets it. Claims and settlements go
on meanwhile: they are done by the main thread, which gives orders to this one and takes its reports. The main thread
reads nothing there, not even the output of a run that has ended: it must notice a pause, and be able to stop.
"""

from __future__ import annotations

import queue
import threading
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from queuectl.engine.handed import Ended, Lost
from queuectl.engine.summary import Summary, summarize
from queuectl.errors import QueuectlError
from queuectl.storage import job_logs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from queuectl.engine.handed import Event, Key
    from queuectl.engine.tracker import Tracker
    from queuectl.job.record import Job
    from queuectl.layout import Layout
    from queuectl.storage.transitions import Claim

    Order = Callable[[Tracker, float], Sequence[Event]]
    """What is to be done there, at a moment of the monotonic clock; it returns the ends of attempts that it finds."""

    Then = Callable[[], None] | None

SHORTEST_PAUSE, SHARE_OF_TIME, LONGEST_PAUSE = 0.05, 50, 2.0
"""Between two looks at all packs: seconds, how many times as long as the last one took, and the seconds that this is at most.
So looking in vain takes a fiftieth of the time, while a look takes less than 40 ms. After a look that has
found ends the pause is as long as the look: on a busy machine it may take seconds, and the last ends would come late."""

IDLE_PAUSE, FIRST_PAUSE = 1.0, 0.1
"""Seconds between two looks while no pack is out: only the engine's answers are read. Before its first answer nothing is handed
over: a dispatcher began two seconds late."""

CHECK_EVERY = 1.0
"""Seconds between two checks that nobody else can write there."""


@dataclass(frozen=True, slots=True)
class Report:
    """What an order, or a look, has come to.

    Attributes:
        events: the ends of attempts.
        then: what is to be done when these are recorded.
    """

    events: Sequence[Event]
    then: Callable[[], None] | None = None


class Share:
    """The shared folder, at a distance. Its methods never wait for it.

    Args:
        make: opens it, and returns what follows the packs there.
        check: returns why nothing may be handed over there, as others can write to it; None: nothing is wrong.
        wake: called by the thread when there is a report.
        clock: a monotonic one, in seconds.

    Attributes:
        summary: what is out, by the last look; None: it was not opened yet.
        full: what the engine has said when it took no more; whoever has read it empties it.
        danger: why nothing may be handed over there; None: nothing is wrong.
        fault: why this has ended; the jobs are found again by another one. None: it goes on.
        busy_since: since when the present call lasts, by the clock; None: there is none.
    """

    def __init__(
        self,
        make: Callable[[], Tracker],
        check: Callable[[], str | None],
        wake: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._make, self._check, self._wake, self._clock = make, check, wake, clock
        self._tracker: Tracker | None = None
        self._orders: queue.SimpleQueue[tuple[Order, Then] | None] = queue.SimpleQueue()
        self._reports: queue.SimpleQueue[Report] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._given = self._done = 0
        self._next_look = self._next_check = float("-inf")
        self._is_closed = self._is_over = False
        self.summary: Summary | None = None
        self.full = ""
        self.danger: str | None = None
        self.fault: Exception | None = None
        self.busy_since: float | None = None

    def start(self) -> None:
        """Begin. The thread is a daemon: a call that hangs keeps no process from leaving."""
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    # -- for the main thread ---------------------------------------------------------------------------------------

    def post(self, order: Order, then: Then = None) -> None:
        """Have something done, behind all that was ordered before.

        Args:
            then: called by the main thread, when it has recorded what the order has found.
        """
        self._given += 1
        self._orders.put((order, then))

    @property
    def is_up_to_date(self) -> bool:
        """Whether it was opened, all orders are carried out, and `summary` knows of them."""
        return self.summary is not None and self._done == self._given

    @property
    def has_reports(self) -> bool:
        """Whether there are reports that nobody has taken."""
        return not self._reports.empty()

    def reports(self) -> list[Report]:
        """Return the reports since the last call, in order."""
        return [self._reports.get() for _ in range(self._reports.qsize())]

    def close(self) -> None:
        """Begin nothing more. A call that lasts is not waited for."""
        self._is_closed = True
        self._orders.put(None)

    @property
    def has_ended(self) -> bool:
        """Whether nothing more is done there."""
        return self._thread is None or self._is_over

    def end(self, patience: float) -> bool:
        """Close it, and wait for its end; whether it has come."""
        self.close()
        if self._thread is not None:
            self._thread.join(patience)
        return self.has_ended

    # -- the thread ------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        # What was ordered and not done is found by whoever opens it anew.
        try:
            while not (self._is_closed or self.fault):
                self.turn(self._next_look - self._clock())
        finally:
            self._is_over = True
            self._wake()  # else the main thread would open it anew a second late

    def turn(self, wait: float = 0.0) -> None:
        """Carry out the next order, and look at all packs if that is due.

        Args:
            wait: seconds to wait for an order.
        """
        try:
            given = self._orders.get(wait > 0, wait) if wait > 0 else self._orders.get_nowait()
            if given is None:
                return
        except queue.Empty:
            given = None
        self.busy_since = self._clock()
        try:
            self._work(given)
        except Exception as fault:  # the main thread raises what is no fault of the share
            self.fault = fault
        finally:
            self.busy_since = None

    def _work(self, given: tuple[Order, Then] | None) -> None:
        if self._tracker is None:
            self._tracker = self._make()
        now = self._clock()
        if now >= self._next_check:
            self.danger = self._check()
            self._next_check = now + CHECK_EVERY
        if given is not None:
            order, then = given
            was_idle = self._tracker.packs == 0
            self._report(order(self._tracker, now), then)
            if was_idle and self._tracker.packs:
                self._next_look = now + SHORTEST_PAUSE  # an end would be seen up to IDLE_PAUSE late
        is_last = self._orders.empty()
        if now >= self._next_look:
            self._look(self._tracker)
        elif given is not None and is_last:
            self.summary = summarize(self._tracker)
        if given is not None:
            self._done += 1
            if is_last:
                self._wake()

    def _look(self, tracker: Tracker) -> None:
        began = self._clock()
        events = tracker.tick(began)
        self._report(events)
        if tracker.has_changed or self.summary is None:
            tracker.has_changed = False
            has_waited = self.summary is None or self.summary.idle is None
            self.summary = summarize(tracker)
            if has_waited and self.summary.idle is not None:
                self._wake()  # now something may be handed over
        self.full, tracker.full = tracker.full or self.full, ""
        now = self._clock()
        pause = min(LONGEST_PAUSE, (1 if events else SHARE_OF_TIME) * (now - began))
        idle_pause = FIRST_PAUSE if tracker.idle is None else IDLE_PAUSE
        self._next_look = now + (max(SHORTEST_PAUSE, pause) if tracker.packs else idle_pause)

    def _report(self, events: Sequence[Event], then: Then = None) -> None:
        if events or then:
            self._reports.put(Report(events, then))
            self._wake()


def is_fault_of_the_share(fault: Exception) -> bool:
    """Whether it may be over later: the share, or its place in the settings, refused. Any other one is a fault of queuectl."""
    return isinstance(fault, OSError | QueuectlError)


def with_output(events: Iterable[Event], claims: Mapping[Key, Claim]) -> list[tuple[Ended | Lost, Job]]:
    """Return the ends of runs whose output lies in the share, of claimed jobs, each with its job."""
    return [
        (event, claims[event.key].job)
        for event in events
        if isinstance(event, Ended | Lost) and event.output is not None and event.key in claims
    ]


def fetch_output(
    layout: Layout, printed: Iterable[tuple[Ended | Lost, Job]], limit: int, say: Callable[[str], None]
) -> Sequence[Event]:
    """Copy the output of runs, and return their ends with the bytes that were copied.

    Args:
        limit: bytes of each stream that the job's record repeats.
        say: takes a line for each output that cannot be kept. Its run is recorded all the same.
    """
    fetched: list[Event] = []
    for event, job in printed:
        sizes = None
        try:
            sizes = job_logs.copy_output(layout, job, event.output or (), limit=limit)
        except OSError as error:
            say(f"cannot keep the output of {job.id}: {(error.strerror or str(error)).lower()}")
        fetched.append(replace(event, output=None, printed=sizes))
    return fetched
