"""The registry of workers: each one's name, lock and record, in data/workers/.

- worker-0.lock: locked as long as the worker lives; never deleted
- worker-0.json: its record: which process it is, for people and for signals
- worker-0.stop: "graceful" or "force", meant for exactly that process (see commands)
- worker-0.cancel: the jobs that somebody wants ended, and which run of each (see commands)
- worker-0.run: the run lock, which the job's own processes hold too (see run_lock)
- worker-0.out, worker-0.err: what the running job prints
- worker-0.log: the log of a background worker
- slurm.running, slurm.waiting: where the jobs of an engine run, and why the others wait there (see dispatched)
- stop-all: the last stop of all workers, for those that were still starting (see commands)

`registration` writes these files.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from contextlib import suppress

from queuectl.control import run_lock
from queuectl.errors import WorkerError
from queuectl.fast_start import fast_json
from queuectl.fast_start.dataclass import dataclass
from queuectl.job import times
from queuectl.layout import ENGINES, INDEX_SCHEMA, is_engine, is_job_name, number_in
from queuectl.system import safe_open
from queuectl.system.locks import is_folder_locked, is_locked
from queuectl.system.process import ProcessIdentity, is_surely_gone

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from queuectl.layout import Layout

_OWN_FILES = ("lock", "json", "stop", "cancel", "run", "out", "err", "log", "log.1", "reserve")
READ_LIMIT = 1 << 20
"""Bytes. A record and a note have some hundred: a larger file is not one of ours."""

PROBE_PATIENCE = 0.15
"""Seconds. `is_locked` itself holds a lock for some microseconds: a lock that is free after this time was only probed."""

STARTING = "starting"
"""The mode of a worker that has a name and no record of its own yet."""

SCHEMA = "index_schema"
"""The key of a record that says which tables the worker's index has. Versions before 0.1.0 do not write it."""

PROGRAM = "program"
"""The mode of a worker inside somebody's own program."""


@dataclass(frozen=True, slots=True)
class ClaimedJob:
    """A job that a worker runs, and since when, in epoch seconds; None: it is about to start."""

    id: str
    since: float | None


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """What is known of a worker. Moments are epoch seconds.

    Attributes:
        pid: its process; 0 while it is starting.
        jobs: those that it runs, the oldest run first; if none has started, one that it has claimed.
        concurrency: how many it may run at once.
        job_id, job_since: the first of `jobs`, and since when; None: it has none, or is about to start it.
        stopping: somebody has asked it to stop.
        polling, paused, settings: why it gets no events, starts no job, or keeps old settings; None when all is well.
        pause_seen: the mark of the pause that it has noticed.
        queues_seen: the marks of the pauses of queues that it has noticed.
        rules: why it could not queue a job of a rule yet; None when all is well.
        queues, not_queues: the queues that it serves, if not all, and those that it does not serve.
        engine: of a dispatcher: how many of its jobs run and wait there, and why, in words; None: there are none.
        handed: of a dispatcher: how many jobs are there.
        troubles: of a dispatcher: what is wrong, a sentence for each.
        elsewhere: it runs in another container, where its pid is another one than here.
    """

    name: str
    pid: int
    started_at: float
    mode: str
    jobs: tuple[ClaimedJob, ...]
    stopping: bool
    polling: str | None
    paused: str | None = None
    settings: str | None = None
    pause_seen: str | None = None
    elsewhere: bool = False
    concurrency: int = 1
    queues_seen: str | None = None
    queues: tuple[str, ...] = ()
    not_queues: tuple[str, ...] = ()
    rules: str | None = None
    engine: str | None = None
    handed: int = 0
    troubles: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """What it is: a worker or a dispatcher, whose jobs run elsewhere, so that `jobs` has none of them."""
        return "dispatcher" if is_engine(self.name) else "worker"

    def serves(self, queue: str) -> bool:
        """Return whether it runs jobs of this queue."""
        return queue not in self.not_queues and (not self.queues or queue in self.queues)

    @property
    def job_id(self) -> str | None:
        """The job whose run is the oldest."""
        return self.jobs[0].id if self.jobs else None

    @property
    def free(self) -> int:
        """How many more jobs it can start now."""
        return 0 if self.stopping else max(0, self.concurrency - len(self.jobs))

    @property
    def job_since(self) -> float | None:
        """When that run started."""
        return self.jobs[0].since if self.jobs else None


def unusable_files(layout: Layout, name: str) -> list[tuple[str, os.stat_result]]:
    """Return what has the name of one of a worker's files or folders and is something else: paths with their status.

    No worker can use that name: it would wait at a FIFO for ever, and cannot write into a folder.
    """
    found = []
    paths = [layout.worker_file(name, kind) for kind in _OWN_FILES]
    for path in (*paths, layout.claims(name)):
        with suppress(OSError):
            status = os.lstat(path)
            fits = stat.S_ISDIR if path == layout.claims(name) else stat.S_ISREG
            if not fits(status.st_mode):
                found.append((path, status))
    return found


def is_in_use(layout: Layout, name: str) -> bool:
    """Whether the previous owner of a name, or a process that it started, is still alive.

    Another worker takes its job back when that process has ended.
    """
    if is_folder_locked(layout.claims(name)):
        return True
    return bool(_claimed_jobs(layout, name)) and run_lock.is_under_way(layout, name)


def orphaned_runs(layout: Layout) -> list[tuple[str, str]]:
    """Return the workers that died while a run of theirs goes on, each with the ids of its jobs, which wait for the end."""
    return [
        (name, job.id)
        for name in worker_names(layout)
        if is_in_use(layout, name) and not _is_process_running(layout, name)
        for job in _claimed_jobs(layout, name) or [ClaimedJob("", None)]
    ]


def of_another_version(layout: Layout) -> list[str]:
    """Return the names of living workers whose index has other tables than ours.

    Both versions would make the index anew in turn, and an older worker starts jobs before those for which they wait.
    """
    return [
        name
        for name in worker_names(layout)
        if (record := read_record(layout, name)).get(SCHEMA) != INDEX_SCHEMA
        and record.get("mode", STARTING) != STARTING
        and _is_lock_held(layout, name)
        and _is_process_running(layout, name)
    ]


def refuse_another_version(layout: Layout) -> None:
    """Make sure that no worker of another version is there.

    Raises:
        WorkerError: there is one.
    """
    others = of_another_version(layout)
    if others:
        names = " ".join(others)
        raise WorkerError(
            f"cannot work beside {names}, of another version of queuectl: both would make the index anew in turn",
            hint=f"queuectl worker stop {names}",
        )


def _is_process_running(layout: Layout, name: str) -> bool:
    """Whether the worker's process may live. Its lock does not tell: another worker may hold it to take the job back.

    Of a process in another container only the lock tells something.
    """
    identity = identity_of(layout, name)
    if identity is None:
        return False
    return identity.is_running() if identity.is_visible else is_locked(layout.worker_file(name, "lock"))


def identity_of(layout: Layout, name: str) -> ProcessIdentity | None:
    """Return the process that owns a name according to the record; None when there is no record."""
    return ProcessIdentity.of(read_record(layout, name))


def read_record(layout: Layout, name: str) -> dict[str, Any]:
    """Return the record of a worker; {} when there is none, or it is damaged."""
    return read_json(layout.worker_file(name, "json"))


def parent_of(layout: Layout, name: str) -> ProcessIdentity | None:
    """Return the process that watches over a worker, `worker start --foreground`; None when there is none."""
    record = read_record(layout, name)
    parent = record.get("parent")
    if not isinstance(parent, list) or len(parent) != 2:
        return None
    return ProcessIdentity.of({**record, "pid": parent[0], "process_started": parent[1]})


def read_json(path: str, limit: int = READ_LIMIT) -> dict[str, Any]:
    """Return the JSON object in a file; {} when there is none. Whatever has that name is read with care.

    Args:
        limit: bytes; a longer file is none of ours.
    """
    try:
        found = fast_json.loads(safe_open.read_regular(path, limit)[0])
    except (OSError, safe_open.NotReadable, fast_json.JSONDecodeError):
        return {}
    return found if isinstance(found, dict) else {}


def live_workers(layout: Layout) -> list[WorkerInfo]:
    """Return the workers that hold their lock, ordered by number, and then the dispatchers.

    A name whose lock cannot be asked for, because somebody put a folder there, has no worker.
    """
    names = [name for name in worker_names(layout) if _is_lock_held(layout, name)]
    # The lock may be held by somebody who only probes it, or who recovers the jobs of a dead worker.
    doubtful = {name for name in names if may_be_probed(layout, name)}
    if doubtful:
        time.sleep(PROBE_PATIENCE)
    return [
        worker_info(layout, name) for name in names if name not in doubtful or _is_lock_held(layout, name)
    ]


def _is_lock_held(layout: Layout, name: str) -> bool:
    try:
        return is_locked(layout.worker_file(name, "lock"))
    except OSError as error:
        if error.errno in (errno.EISDIR, errno.ELOOP):
            return False
        raise


def may_be_probed(layout: Layout, name: str) -> bool:
    """Whether no process of a worker can be seen that would hold its lock."""
    identity = identity_of(layout, name)
    return identity is None or not identity.is_visible or is_surely_gone(identity.pid)


def worker_names(layout: Layout) -> list[str]:
    """Return every name that ever had a lock file: those of workers by number, then those of dispatchers."""
    try:
        entries = os.listdir(layout.workers)
    except OSError:
        return []
    numbers = (number_in(entry, "worker-", ".lock") for entry in entries)
    workers = [f"worker-{number}" for number in sorted(number for number in numbers if number is not None)]
    return workers + [engine for engine in ENGINES if f"{engine}.lock" in entries]


def claimed_for(layout: Layout, engine: str) -> list[str]:
    """Return the ids of the jobs that are out on an engine, whether its dispatcher lives or not."""
    try:
        names = os.listdir(layout.claims(engine))
    except OSError:
        return []
    return [name.removesuffix(".json") for name in sorted(names) if is_job_name(name)]


def worker_info(layout: Layout, name: str) -> WorkerInfo:
    """Return what the files of a worker say, whether it lives or not."""
    record = read_record(layout, name)
    identity = ProcessIdentity.of(record)
    return WorkerInfo(
        name=name,
        pid=identity.pid if identity else 0,
        started_at=_moment(record.get("started_at")),
        mode=_text(record.get("mode")) or STARTING,
        jobs=_claimed_jobs(layout, name),
        stopping=os.path.exists(layout.worker_file(name, "stop")),
        polling=_text(record.get("polling")),
        settings=_text(record.get("settings")),
        rules=_text(record.get("rules")),
        paused=_text(record.get("paused")) or _text(record.get("lingering")),
        pause_seen=_text(record.get("pause_seen")),
        queues_seen=_text(record.get("queues_seen")),
        queues=tuple((_text(record.get("queues")) or "").split()),
        not_queues=tuple((_text(record.get("not_queues")) or "").split()),
        engine=_text(record.get("engine")),
        handed=handed if type(handed := record.get("handed")) is int else 0,
        troubles=tuple((_text(record.get("troubles")) or "").splitlines()),
        elsewhere=identity is not None and not identity.is_visible,
        concurrency=concurrency if type(concurrency := record.get("concurrency")) is int else 1,
    )


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _moment(value: object) -> float:
    """Read a moment in a record that anybody may have written; 0 if it is none."""
    try:
        return times.parse_moment(value)
    except ValueError:
        return 0.0


def _claimed_jobs(layout: Layout, name: str) -> tuple[ClaimedJob, ...]:
    """The jobs that a worker runs; if none has started, one that it has claimed. A dispatcher may have 100,000: none."""
    if is_engine(name):
        return ()
    with suppress(OSError):
        found = [
            entry[: -len(".json")]
            for entry in os.listdir(layout.claims(name))
            if entry.endswith(".json") and not entry.startswith(".")
        ]
        runs = run_lock.read_all(layout, name) if found else None
        # The file of a slot that is free now may name an earlier run of the same job.
        known = sorted(runs.records, key=lambda one: one.started_at) if runs else []
        started = {one.job_id: one.started_at for one in known}
        running = [ClaimedJob(job_id, started[job_id]) for job_id in found if job_id in started]
        return tuple(sorted(running, key=lambda job: job.since or 0.0)) or (
            (ClaimedJob(found[0], None),) if found else ()
        )
    return ()
