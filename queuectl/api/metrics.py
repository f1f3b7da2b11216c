"""The state of a spool as metrics in Prometheus' text format.

Every value is computed from the spool as it is now, so all of them are gauges: a deleted job is not counted any more, and
no counter is kept beside the files.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, generate_latest, write_to_textfile
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily

from queuectl.api import engines, queues, spool_rule
from queuectl.control import dispatched, pause, registry
from queuectl.errors import SpoolError
from queuectl.index import queue_counts, waits
from queuectl.index.queue_counts import COUNTED
from queuectl.layout import ENGINES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from prometheus_client.core import Metric

    from queuectl.api.rules import Rule
    from queuectl.api.spool_base import SpoolBase
    from queuectl.control.registry import WorkerInfo
    from queuectl.index.index import Index
    from queuectl.layout import Layout
    from queuectl.storage.queue_state import QueueView

_EARLIEST = """SELECT min(moment) FROM (
 SELECT min(ready_key + 60000000 * priority) AS moment FROM jobs WHERE ready_key IS NOT NULL
 UNION ALL SELECT min(due) FROM jobs WHERE due IS NOT NULL)"""


class Collected:
    """A collector for prometheus_client that returns metrics which are collected already."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = list(families)

    def collect(self) -> Iterable[Metric]:
        """The metrics."""
        return self._families


def text(families: Iterable[Metric]) -> str:
    """Return metrics in the format that Prometheus reads."""
    return generate_latest(_registry(families)).decode()


def write(families: Iterable[Metric], path: str) -> None:
    """Write metrics into a file for node_exporter's textfile collector, which never reads an incomplete file.

    Raises:
        SpoolError: it cannot be written.
    """
    try:
        write_to_textfile(path, _registry(families))
    except OSError as error:
        raise SpoolError.from_os("write", path, error) from None


def _registry(families: Iterable[Metric]) -> CollectorRegistry:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Collected(families))
    return registry


def of_jobs(index: Index, now: float, closed: int = 0) -> Iterator[Metric]:
    """Yield the metrics of jobs, from the index.

    Args:
        now: epoch seconds.
        closed: how many ready jobs a limit of their queue, or its pause, keeps from starting.
    """
    db, counts = index.db, index.counts()

    def one(query: str) -> int:
        found = db.execute(query).fetchone()[0]
        return found or 0

    yield _labelled("queuectl_jobs", "Jobs that are in the spool now, by state.", "state", counts)
    ready = one("SELECT count(*) FROM jobs WHERE ready_key IS NOT NULL")
    ready += one(f"SELECT count(*) FROM jobs WHERE due <= {now * 1e6:.0f}")
    later = f"SELECT count(*) FROM jobs WHERE due > {now * 1e6:.0f} AND state ="
    scheduled, retried = one(f"{later} 'pending'"), one(f"{later} 'failed'")
    behind = one("SELECT count(*) FROM jobs WHERE behind IS NOT NULL")
    children, blocked = waits.count(index)
    held = counts["pending"] + counts["failed"] - ready - scheduled - retried - behind - children
    by_cause = {
        "worker": max(0, ready - closed),
        "queue": closed,
        "run_at": scheduled,
        "retry": retried,
        "unique": behind,
        "jobs": children - blocked,
        "repair": blocked,
        "release": max(0, held),
    }
    words = (
        "Waiting jobs, by what they wait for: a worker, a limit of their queue or its pause, their run_at, their next"
        " retry, the end of the job that has their unique key, the end of other jobs, the repair of a dead job for which"
        " they wait, a release from hold."
    )
    yield _labelled("queuectl_jobs_waiting", words, "for", by_cause)
    waited = now - one(_EARLIEST) / 1e6 if ready else 0.0
    words = "For how long the job that could run now and has waited longest has waited; 0 if none does."
    yield _single("queuectl_jobs_oldest_waiting_seconds", words, max(0.0, waited))
    dead = "SELECT exit_code, count(*) FROM jobs WHERE state = 'dead' GROUP BY 1"
    codes = (
        {"" if code is None else str(code): jobs for code, jobs in db.execute(dead)} if counts["dead"] else {}
    )
    words = "Dead jobs that are in the spool now, by the exit code of the last attempt; empty where there is none."
    yield _labelled("queuectl_jobs_dead", words, "exit_code", codes)
    size, last = one("SELECT sum(bytes) FROM counts"), _last_end(index)
    words = "When the last attempt of a job that is in the spool now ended, since the epoch; 0 if none did."
    yield _single("queuectl_jobs_last_end_timestamp_seconds", words, last / 1e6)
    yield _single("queuectl_job_files_bytes", "Size of all job files together, without their logs.", size)


def _last_end(index: Index) -> int:
    """Return when the last attempt of any job ended, in microseconds; 0 if none did."""
    ended = [row.finished_at for row in index.last_ended(1)]
    if None in ended:  # it was given up, and perhaps never ran
        ended = [index.db.execute("SELECT max(finished_at) FROM jobs NOT INDEXED").fetchone()[0]]
    running = index.db.execute("SELECT max(finished_at) FROM jobs WHERE state = 'processing'").fetchone()
    return max((moment for moment in (*ended, *running) if moment is not None), default=0)


def of_queues(view: QueueView, names: Sequence[str] = ()) -> Iterator[Metric]:
    """Yield the metrics of queues. A queue without a limit has none in queuectl_queue_limit.

    Args:
        names: only of these queues, also of one that has no jobs; none: of all that are known.
    """
    queues = [view.one(name) for name in names] or view.all()
    words = "Jobs that are in a queue now, by state; completed jobs are not counted."
    jobs = GaugeMetricFamily("queuectl_queue_jobs", words, labels=["queue", "state"])
    for queue in queues:
        count = view.counts.get(queue.name)
        for state in COUNTED:
            jobs.add_metric([queue.name, state], count.states.get(state, 0) if count else 0)
    yield jobs
    limits = {queue.name: queue.limit for queue in queues if queue.limit is not None}
    yield _labelled("queuectl_queue_limit", "How many jobs of a queue run at a time.", "queue", limits)
    paused = {queue.name: int(queue.paused is not None) for queue in queues}
    yield _labelled("queuectl_queue_paused", "1 while a queue is paused, else 0.", "queue", paused)


def of_rules(rules: Sequence[Rule], untold: Mapping[str, int]) -> Iterator[Metric]:
    """Yield the metrics of rules. One that is never due again has no next moment, and a new one no last one.

    Args:
        untold: how many jobs of each rule about jobs are dead.
    """
    dead = {rule.name: untold.get(rule.name, 0) for rule in rules if rule.kind == "job"}
    yield _labelled(
        "queuectl_rule_untold",
        "Dead jobs of a rule about jobs: notifications that could not be sent.",
        "rule",
        dead,
    )
    coming = {rule.name: moments[0] for rule in rules if (moments := rule.next())}
    words = "When a rule is due next."
    yield _labelled("queuectl_rule_next_timestamp_seconds", words, "rule", coming)
    last = {rule.name: rule.queued[-1] for rule in rules if rule.queued}
    words = "The last moment for which a rule has queued jobs."
    yield _labelled("queuectl_rule_last_timestamp_seconds", words, "rule", last)
    broken = {rule.name: int(rule.problem is not None) for rule in rules}
    yield _labelled(
        "queuectl_rule_broken",
        "1 while a rule, or the folder that it watches, cannot be used, else 0.",
        "rule",
        broken,
    )
    skipped = {rule.name: rule.skipped for rule in rules}
    words = "Moments of a rule that passed without a job: missed, or in the way of an earlier job."
    yield _labelled("queuectl_rule_skipped", words, "rule", skipped)


def of_workers(workers: Sequence[WorkerInfo], now: float) -> Iterator[Metric]:
    """Yield the metrics of living workers.

    Args:
        now: epoch seconds.
    """
    activities = [_activity(one) for one in workers]
    states = {name: activities.count(name) for name in ("busy", "idle", "paused", "stopping")}
    yield _labelled("queuectl_workers", "Living workers, by what they do.", "state", states)
    used, slots = sum(len(one.jobs) for one in workers), sum(one.concurrency for one in workers)
    words = "Jobs that living workers can run at once, by whether one runs there."
    yield _labelled("queuectl_slots", words, "state", {"busy": used, "free": max(0, slots - used)})
    longest = max((now - one.job_since for one in workers if one.job_since is not None), default=0.0)
    words = "For how long the job that has run longest has been running; 0 if none runs."
    yield _single("queuectl_jobs_longest_running_seconds", words, max(0.0, longest))


def of_engines(layout: Layout, workers: Sequence[WorkerInfo]) -> Iterator[Metric]:
    """Yield the metrics of engines: what of the spool is out there."""
    alive = {one.name for one in workers}
    words = (
        "Whether the dispatcher of an engine lives: it hands jobs over, and collects what becomes of them."
    )
    yield _labelled("queuectl_dispatcher_up", words, "engine", {one: int(one in alive) for one in ENGINES})
    words = "Jobs that are out on an engine, by what they do there."
    jobs = GaugeMetricFamily("queuectl_engine_jobs", words, labels=["engine", "state"])
    words = "Jobs that wait on an engine, by the first word of its reason."
    waiting = GaugeMetricFamily("queuectl_engine_jobs_waiting", words, labels=["engine", "reason"])
    for engine in ENGINES:
        out = {*registry.claimed_for(layout, engine)}
        running = out & dispatched.read(layout, engine).keys()
        waits = dispatched.read_waiting(layout, engine)
        reasons = Counter(waits[one].reason.partition(",")[0] for one in (out - running) & waits.keys())
        jobs.add_metric([engine, "running"], len(running))
        jobs.add_metric([engine, "waiting"], len(out - running))
        for reason, number in sorted(reasons.items()):
            waiting.add_metric([engine, reason], number)
    yield from (jobs, waiting)


def _activity(worker: WorkerInfo) -> str:
    if worker.job_id is not None:
        return "busy"
    if worker.stopping:
        return "stopping"
    return "paused" if worker.paused else "idle"


def of_place(root: str, index: str, *, paused: bool) -> Iterator[Metric]:
    """Yield the metrics of the spool itself: whether it is paused, and its disk."""
    yield InfoMetricFamily("queuectl", "The queuectl that wrote this.", {"version": _version()})
    yield _single("queuectl_paused", "1 while the spool is paused by hand, else 0.", int(paused))
    yield _single(
        "queuectl_index_bytes", "Size of the index.", os.path.getsize(index) if os.path.exists(index) else 0
    )
    if hasattr(os, "statvfs"):
        with suppress(FileNotFoundError):  # there is no spool yet
            status = os.statvfs(root)
            words = "Space on the spool's disk that its user may fill."
            yield _single("queuectl_free_bytes", words, status.f_bavail * status.f_frsize)


def _version() -> str:
    from importlib.metadata import version

    return version("queuectl")


def _single(name: str, words: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, words, value=value)


def _labelled(name: str, words: str, label: str, values: Mapping[str, int]) -> GaugeMetricFamily:
    made = GaugeMetricFamily(name, words, labels=[label])
    for key, value in values.items():
        made.add_metric([key], value)
    return made


def samples(text: str) -> Iterator[tuple[str, dict[str, str], float]]:
    """Yield the name, the labels and the value of each sample in a text that `text` has returned."""
    from prometheus_client.parser import text_string_to_metric_families

    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            yield sample.name, dict(sample.labels), sample.value


def _of_jobs_and_queues(spool: SpoolBase, now: float) -> list[Metric]:
    if not queues.are_used(spool):
        return [*of_jobs(spool._index, now)]
    view = queues.view_of(spool)
    ready = queue_counts.ready(spool._index)
    closed = sum(number for lane, number in ready.items() if view.why_closed(lane))
    return [*of_jobs(spool._index, now, closed), *of_queues(view)]


def report(spool: SpoolBase, textfile: str | os.PathLike[str] | None, queues_only: Sequence[str] = ()) -> str:
    """Return the state of a spool as text, and write it to a file if one is given; see `Spool.metrics`."""
    now = time.time()
    spool._look()
    families: list[Metric]
    if queues_only:
        families = spool._ask(lambda: [*of_queues(queues.view_of(spool), queues_only)])
    else:
        families = spool._ask(lambda: _of_jobs_and_queues(spool, now))
        alive = registry.live_workers(spool.layout)
        families += of_workers([one for one in alive if one.kind == "worker"], now)
        if engines.are_used(spool):
            families += of_engines(spool.layout, alive)
        if spool_rule.are_there(spool.layout):
            from queuectl.api import rules

            families += of_rules(rules.all_of(spool.layout), rules.untold(spool))
        is_paused = pause.read(spool.layout) is not None
        families += of_place(spool.layout.root, spool.layout.index, paused=is_paused)
    if textfile is not None:
        write(families, os.fspath(textfile))
    return text(families)
