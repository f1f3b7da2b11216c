"""Where the jobs of a list are: on which engine, under which number there, on which node, and why they wait there."""

from __future__ import annotations

from contextlib import suppress
from functools import cached_property

from queuectl.api import queues
from queuectl.control import dispatched
from queuectl.errors import ConfigError
from queuectl.fast_start.dataclass import dataclass
from queuectl.index import lanes
from queuectl.job.fields import DEFAULT_QUEUE, WAITING
from queuectl.layout import LOCAL, PROCESSING, is_engine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from queuectl.api.spool_base import SpoolBase
    from queuectl.control.dispatched import RunThere, WaitThere
    from queuectl.index.row import Row
    from queuectl.job.record import Job


@dataclass(frozen=True, slots=True)
class Place:
    """Where a job runs, has run last, or will run.

    Attributes:
        engine: local, or the name of an engine.
        engine_id: the engine's own number for it, while it is out there.
        node: on which it runs, or has run last.
        engine_reason: why it waits there, in the engine's words.
    """

    engine: str = LOCAL
    engine_id: str | None = None
    node: str | None = None
    engine_reason: str | None = None

    @property
    def words(self) -> str:
        """The same in a line; "" for a job of this machine."""
        if self.engine == LOCAL:
            return ""
        found = [self.engine]
        found += [f"job {self.engine_id}"] if self.engine_id else []
        found += [f"node {self.node}"] if self.node else []
        return ", ".join(found)


class Places:
    """Where the jobs of a list are. What queues say, and what dispatchers have written, is read once, if a job needs it."""

    def __init__(self, spool: SpoolBase) -> None:
        self._spool = spool
        self._running: dict[str, Mapping[str, RunThere]] = {}
        self._waiting: dict[str, Mapping[str, WaitThere]] = {}

    @cached_property
    def _by_queue(self) -> dict[str, str]:
        return by_queue(self._spool)

    def of_row(self, row: Row) -> Place:
        """Return where a job of the index is."""
        worker = row.place.removeprefix(f"{PROCESSING}/") if row.state == "processing" else row.worker or ""
        return self._of(row.id, row.state, worker, lanes.queue_of(row.lane))

    def by_id(self, rows: Iterable[Row]) -> dict[str, Place]:
        """Return where these jobs are, by their ids; those of this machine are left out."""
        found = {row.id: self.of_row(row) for row in rows}
        return {job_id: place for job_id, place in found.items() if place.engine != LOCAL}

    def of_job(self, job: Job) -> Place:
        """Return where a job is."""
        return self._of(job.id or "", job.state, job.worker or "", job.queue or DEFAULT_QUEUE)

    def _of(self, job_id: str, state: str, worker: str, queue: str) -> Place:
        engine, _, node = worker.partition("/")
        if state == "processing":
            return self._out(engine, job_id) if is_engine(engine) else _HERE
        if state not in WAITING and is_engine(engine):
            return Place(engine, node=node or None)
        if state in WAITING or not worker:
            sent_to = self._by_queue.get(queue, self._by_queue[""])
            return _HERE if sent_to == LOCAL else Place(sent_to)
        return _HERE

    def _out(self, engine: str, job_id: str) -> Place:
        """Return where a job is that its dispatcher has claimed."""
        layout = self._spool.layout
        if engine not in self._running:
            self._running[engine] = dispatched.read(layout, engine)
        if run := self._running[engine].get(job_id):
            return Place(engine, run.number or None, run.node or None)
        if engine not in self._waiting:
            self._waiting[engine] = dispatched.read_waiting(layout, engine)
        wait = self._waiting[engine].get(job_id)
        return Place(engine, wait.number or None, None, wait.reason or None) if wait else Place(engine)


_HERE = Place()


def by_queue(spool: SpoolBase) -> dict[str, str]:
    """Return where the jobs of queues run: an engine or local, by the name of the queue; "" has all others."""
    with suppress(ConfigError):  # `settings_fault` tells of it
        settings = spool.settings()
        found = {"": settings.engine}
        if queues.have_files(spool):
            from queuectl.config.queues import Queues, engine_of

            known = Queues(spool.layout)
            found |= {name: engine_of(name, known, settings) for name in known.names()}
        return found
    return {"": LOCAL}


def tell_index(spool: SpoolBase) -> None:
    """Let the index know where the jobs of queues run, before it is asked for jobs by their engines.

    Call it within the question: a connection that was opened anew does not know it.
    """
    found = by_queue(spool)
    usual = found.pop("")
    spool._index.db.create_function("engine_of", 1, lambda queue: found.get(queue, usual))


def place(spool: SpoolBase, job: Job) -> str:
    """Say where a job of an engine is, or has been; "" for any other job."""
    found = Places(spool).of_job(job)
    if job.state != "processing" or found.node or not found.words:
        return found.words
    return f"{found.words}, waits there" + (f": {found.engine_reason}" if found.engine_reason else "")
