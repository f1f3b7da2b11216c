"""The run locks of a worker and their files: which run was started last, and which ended runs are not settled yet.

Each slot of a worker has one. It is written before a run starts in that slot. After a worker's death the files tell what
became of each job in the worker's folder: it runs, it has ended (and how), or it never began. The processes of a run
inherit the lock on its file.
"""

from __future__ import annotations

import os
from contextlib import suppress

from queuectl.errors import SpoolError
from queuectl.fast_start.dataclass import dataclass, field
from queuectl.job import times
from queuectl.layout import number_in, slot_name
from queuectl.system import files, safe_open
from queuectl.system.host import boot_id
from queuectl.system.locks import Lock, is_locked
from queuectl.system.process import Session

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from queuectl.job.record import Job
    from queuectl.layout import Layout

SPOOL_ID = "QUEUECTL_SPOOL_ID"
"""The variable with the identity of the spool. Its path is none: a link or a second mount gives it another one."""

_SLOT_OF_ENDED = 999_999
"""The number of a slot in which nothing is ever run: its run file has only the runs that have ended (see `note_ended`)."""

_READ_LIMIT = 1 << 20
"""Bytes. The file has a line for each of some dozen runs."""


@dataclass(frozen=True, slots=True)
class EndedRun:
    """A run that has ended with success. Moments are epoch seconds, the duration is in seconds."""

    started_at: float
    finished_at: float
    duration: float


@dataclass(frozen=True, slots=True)
class RunRecord:
    """The content of a run file.

    Attributes:
        slot: the name of the slot whose file it is.
        job_id, run: the run that was started last; `run` is its mark, QUEUECTL_RUN (see Job.run_mark).
        boot: the machine's boot id at that time; "" in files of an older queuectl.
        ended: the runs that ended before it and are not settled yet, by job id and mark.
        session: the session of the run that was started last; None if the worker died just before it noted that.
        started_at: when it was started, in epoch seconds.
    """

    slot: str
    job_id: str
    run: str
    boot: str = ""
    ended: Mapping[tuple[str, str], EndedRun] = field(default_factory=dict)
    session: Session | None = None
    started_at: float = 0.0

    def living_session(self) -> Session | None:
        """Return the session of the run, if a process of it is alive."""
        session = self.session
        return session if session and self.boot == boot_id() and session.has_living() else None

    def is_last(self, job_id: str | None, number: int) -> bool:
        """Whether the run that was started last is this run of this job."""
        return self.job_id == job_id and self.run.partition(".")[0] == str(number)

    def names(self, job_id: str | None, number: int) -> bool:
        """Whether this run of this job was started, by its number: an index that was rebuilt may give it another mark."""
        ended = (run.partition(".")[0] for known, run in self.ended if known == job_id)
        return self.is_last(job_id, number) or str(number) in ended

    def is_current(self, job: Job) -> bool:
        """Whether the run that was started last is the next run of this job, so that the job runs or has just ended."""
        return self.job_id == job.id and _is_next_run(self.run, job)

    def ended_run(self, job: Job) -> EndedRun | None:
        """The next run of this job, if it has ended and is not settled yet."""
        for (job_id, run), one in self.ended.items():
            if job_id == job.id and _is_next_run(run, job):
                return one
        return None


@dataclass(frozen=True, slots=True)
class WorkerRuns:
    """What the run files of a worker say together.

    Attributes:
        records: one for each slot that has been used.
        is_whole: False if the file of a slot could not be read: it may name any job.
    """

    records: tuple[RunRecord, ...]
    is_whole: bool = True

    def never_began(self, job: Job, boot: str) -> bool:
        """Whether the next run of a job in the worker's folder was not started.

        False if a file was written before the last restart: its last change may have been lost, so it may not name the
        job that was started last.
        """
        return self.is_whole and all(
            one.boot == boot and not one.names(job.id, job.next_run) for one in self.records
        )

    def current(self, job: Job) -> RunRecord | None:
        """Return the record of the slot in which the job runs, or has just ended."""
        return next((one for one in self.records if one.is_current(job)), None)

    def ended_run(self, job: Job) -> EndedRun | None:
        """The next run of this job, if it has ended and is not settled yet."""
        return next((ended for one in self.records if (ended := one.ended_run(job))), None)

    @property
    def ended(self) -> dict[tuple[str, str], EndedRun]:
        """All runs that have ended and are not settled, by job id and mark."""
        return {key: ended for one in self.records for key, ended in one.ended.items()}


def _is_next_run(mark: str, job: Job) -> bool:
    """Whether a mark is that of a job's next run. A dropped file may not say when its job was created."""
    if job.created_at is None:
        return mark.partition(".")[0] == str(job.next_run)
    return mark == job.run_mark(job.next_run)


def marks(layout: Layout, job: Job, worker: str) -> dict[str, str]:
    """Return the environment variables by which the processes of a job's next run are recognized."""
    return {
        "QUEUECTL_SPOOL": layout.root,
        SPOOL_ID: layout.identity,
        "QUEUECTL_JOB_ID": job.id or "",
        "QUEUECTL_WORKER": worker,
        "QUEUECTL_RUN": job.run_mark(job.next_run),
    }


def acquire(
    layout: Layout,
    slot: str,
    job_id: str,
    run: str,
    boot: str,
    ended: Sequence[str] = (),
    *,
    started_at: float | None = None,
) -> Lock:
    """Take the run lock of a slot, and write down which run starts next and which have ended.

    If a background child of an earlier run still holds the lock, a new file is made. Then the next run does not
    wait for that child, and the child is not taken for one of its processes.

    Args:
        run: the mark of the run.
        boot: the machine's boot id.
        ended: for each run that has ended and is not settled, a line made by `line`.
        started_at: when the run starts, in epoch seconds.

    Raises:
        SpoolError: the file cannot be opened or written.
    """
    path = layout.worker_file(slot, "run")
    try:
        lock = Lock.acquire(path)
        if lock is None:
            os.unlink(path)
        return _write(lock, path, _text(job_id, run, boot, ended, started_at))
    except OSError as error:
        raise SpoolError.from_os("take the lock", path, error) from None


def note_ended(layout: Layout, worker: str, boot: str, ended: Sequence[str]) -> None:
    """Write down which runs have ended that a worker could not record: it may leave before it can, or be killed.

    The file is none in which a run was started. Other runs may go on, and their files are all that tells the next worker
    that these jobs had begun: it would start them again beside their first run.

    Args:
        boot, ended: as for `acquire`.

    Raises:
        SpoolError: the file cannot be written.
    """
    if ended:
        job_id, run, *_ = ended[-1].split()
        path = layout.worker_file(slot_name(worker, _SLOT_OF_ENDED), "run")
        try:
            _write(None, path, _text(job_id, run, boot, ended)).release()
        except OSError as error:
            raise SpoolError.from_os("write", path, error) from None


def forget_ended(layout: Layout, worker: str) -> None:
    """Delete what `note_ended` has written: all of it is recorded."""
    with suppress(OSError):
        os.unlink(layout.worker_file(slot_name(worker, _SLOT_OF_ENDED), "run"))


def _text(job_id: str, run: str, boot: str, ended: Sequence[str], started_at: float | None = None) -> bytes:
    # The number of lines is written, because the rest of an earlier, longer text may follow them in the file.
    start = "" if started_at is None else f" {started_at!r}"
    return f"{job_id} {run} {boot} {len(ended)}{start}\n{''.join(ended)}".encode()


def _write(lock: Lock | None, path: str, text: bytes) -> Lock:
    """Write a run file under its lock, which is taken if it is not held yet.

    Raises:
        OSError: the file cannot be opened or written.
        SpoolError: another process holds the lock.
    """
    lock = lock or Lock.acquire(path, patience=1.0)
    if lock is None:
        raise SpoolError(f"cannot take the lock {path}: another process holds it")
    try:
        files.write_all(lock.fd, text)
    except BaseException:
        lock.release()
        raise
    return lock


def note_session(lock: Lock, run: str, session: Session | None) -> None:
    """Write down the session of the run that was just started, behind the text of `acquire`.

    A process that clears its environment and closes its descriptors stays in its session.

    Args:
        session: None where there are no sessions.
    """
    if session is not None:
        # A full disk refuses this. The run goes on, and has its other marks.
        with suppress(OSError):
            text = f"session {run} {session.leader} {session.noted!r} {session.namespace}\n"
            files.write_all(lock.fd, text.encode())


def is_under_way(layout: Layout, worker: str) -> bool:
    """Whether a run of a worker is alive: a process holds its lock, or is in its session.

    Raises:
        OSError: a lock file cannot be opened.
    """
    return any(
        is_locked(layout.worker_file(slot, "run"))
        or ((known := read(layout, slot)) is not None and known.living_session() is not None)
        for slot in slots(layout, worker)
    )


def line(job: Job, run: str, finished_at: float, duration: float) -> str:
    """Return the line of a run that has ended: its job, its mark, its start and end, and how long it took."""
    return f"{job.id} {run} {job.started_at!r} {finished_at!r} {duration!r}\n"


def slots(layout: Layout, worker: str) -> list[str]:
    """Return the names of the slots of a worker that have a run file, in order."""
    try:
        names = os.listdir(layout.workers)
    except OSError:
        return []
    numbers = (number_in(name, f"{worker}.", ".run") for name in names)
    return [
        *([worker] if f"{worker}.run" in names else []),
        *(slot_name(worker, number) for number in sorted(found for found in numbers if found is not None)),
    ]


def read_all(layout: Layout, worker: str) -> WorkerRuns | None:
    """Return what the run files of a worker say; None when it never ran anything, or none of them can be read."""
    found = [read(layout, slot) for slot in slots(layout, worker)]
    records = tuple(filter(None, found))
    return WorkerRuns(records, is_whole=len(records) == len(found)) if records else None


_last_seen: dict[str, str] = {}
"""By spool, the slot in which the job ran that was asked about last. It is a hint: the file of the slot is read each time."""


def read_for(layout: Layout, worker: str, job: Job) -> WorkerRuns | None:
    """Return what the run files of a worker say about one job; as `read_all`, but of one file only if that is enough.

    Whoever follows an output asks ten times a second, and a worker may have five hundred slots.
    """
    slot = _last_seen.get(layout.root, "")
    if slot == worker or slot.startswith(f"{worker}."):
        known = read(layout, slot)
        if known is not None and known.is_current(job):
            return WorkerRuns((known,), is_whole=False)
    runs = read_all(layout, worker)
    current = runs.current(job) if runs else None
    if current is not None:
        _last_seen[layout.root] = current.slot
    return runs


def forget_slots(layout: Layout, worker: str) -> None:
    """Delete the files of the slots of a dead worker that holds no job any more. Its first slot keeps them.

    Otherwise a file from before the last restart would for ever say that nobody knows which jobs have begun.
    """
    for slot in slots(layout, worker):
        for kind in ("run", "out", "err", "after") if slot != worker else ():
            with suppress(OSError):
                os.unlink(layout.worker_file(slot, kind))


def read(layout: Layout, slot: str) -> RunRecord | None:
    """Return the content of the run file of a slot; None when nothing was run in it, or the file was deleted."""
    try:
        data, status = safe_open.read_regular(layout.worker_file(slot, "run"), _READ_LIMIT)
        first, *lines = data.decode().split("\n")
        job_id, run, *more = first.split()
    except (OSError, ValueError, safe_open.NotReadable):
        return None
    started_at = min(max(0.0, status.st_mtime), times.LATEST)  # enough for the file of an older queuectl
    try:
        boot, number, *start = more
        started_at = _moment(start[0]) if start else started_at
        ended = dict(_parsed(lines[at]) for at in range(int(number)))
        session = _session(lines[max(0, int(number)) :], run)
    except (ValueError, IndexError):
        # From an older queuectl, or damaged. Without a boot id, `never_began` is False for every job.
        return RunRecord(slot, job_id, run, started_at=started_at)
    return RunRecord(slot, job_id, run, boot, ended, session, started_at)


def _session(rest: list[str], run: str) -> Session | None:
    """Read the line of `note_session`; None for the rest of an earlier text, and for a line without its end."""
    words = rest[0].split() if len(rest) > 1 else []
    if len(words) != 5 or words[:2] != ["session", run]:
        return None
    return Session(int(words[2]), times.finite(words[3]), words[4])


def _parsed(text: str) -> tuple[tuple[str, str], EndedRun]:
    job_id, run, started_at, finished_at, duration = text.split()
    took = times.within_years(times.finite(duration), duration)
    return (job_id, run), EndedRun(_moment(started_at), _moment(finished_at), took)


def _moment(text: str) -> float:
    """Read a moment in a file that anybody may have written.

    Raises:
        ValueError: it is none. Recorded in a job, or shown in a list, it would end a worker or a command.
    """
    moment = float(text)
    times.within_years(moment, text)
    return moment
