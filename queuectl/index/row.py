"""One job as the index knows it, and how a job becomes a row."""

from __future__ import annotations

from queuectl._dataclasses import dataclass
from queuectl.job.fields import WAITING
from queuectl.job.times import micros

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os

    from queuectl.job.record import Job
    from queuectl.system.files import Written

RENEWED = "renewed"
"""Among the settings of a row: the job came back from dead/ by hand, and the attempts of so many runs do not count."""

BY_HAND = "Given up by hand"
"""Why a job lies in dead/ that does not say so itself: somebody moved it there, or a cancel was cut short."""

SHOWN = 200
"""Characters of a command or an error that the index repeats; the file has all of it."""


@dataclass(slots=True)
class Row:
    """What the index knows of one job. Moments are whole microseconds since the epoch.

    `ours` is 1 for a file that queuectl itself wrote. A waiting job has either a `ready_key`, its place in the order,
    or `due`, the moment when it gets one, or `behind`, which will be its ready_key once no other job has its unique
    key, or none of them: then it is held. `tags` has a blank before and after each tag.
    """

    id: str
    state: str
    place: str
    name: str
    seq: int | None = None
    ready_key: int | None = None
    due: int | None = None
    arrived: int = 0
    priority: int | None = None
    attempts: int = 0
    max_retries: int | None = None
    created_at: int | None = None
    updated_at: int | None = None
    run_at: int | None = None
    next_retry_at: int | None = None
    command: str = ""
    worker: str | None = None
    exit_code: int | None = None
    last_error: str | None = None
    inode: int = 0
    mtime: int = 0
    size: int = 0
    settings: str | None = None
    ours: int = 0
    tags: str | None = None
    unique_key: str | None = None
    started_at: int | None = None
    finished_at: int | None = None
    duration: int | None = None
    behind: int | None = None
    expires: int | None = None

    @property
    def held(self) -> bool:
        """Whether it waits for somebody to release it."""
        places = self.ready_key, self.due, self.behind
        return self.state in WAITING and places == (None, None, None)

    def waited(self, now: int) -> int | None:
        """For how many microseconds it could have run; None when it cannot yet, or does not wait."""
        if self.ready_key is None:
            # Due already, and no worker is there to let it into the order.
            return now - self.due if self.due is not None and self.due <= now else None
        return max(0, now - self.ready_key - _OF_A_PRIORITY * (self.priority or 5))

    def effective(self, now: int) -> float | None:
        """Its priority and a point for each minute that it has waited; None when it does not wait (SPEC 4)."""
        if self.state not in WAITING:
            return None
        return (self.priority or 5) + (self.waited(now) or 0) / _OF_A_PRIORITY


_OF_A_PRIORITY = 60_000_000

READY_KEY = f"due - {_OF_A_PRIORITY} * priority"
"""The same as `ready_key`, of a job that has waited since its due moment, for the index."""


def ready_key(eligible: int, priority: int) -> int:
    """A waiting job's place in the order; the smallest goes first.

    priority + waiting / 60 s compares two waiting jobs the same way at every moment, because both age alike. So
    the moment since which a job could run, less 60 s a priority, is the order, and never needs updating (SPEC 4).
    """
    return eligible - _OF_A_PRIORITY * priority


def row_of(
    job: Job, place: str, name: str, status: os.stat_result | Written, *, state: str, arrived: int, now: int
) -> Row:
    """The row of a job whose file is place/name.

    Args:
        status: the file's status, by which a later change is noticed.
        arrived: since when it lies there, in microseconds; waiting counts from then, or from its due moment.
        now: the present in microseconds.
    """
    command = job.command
    row = Row(
        id=job.id or "",
        state=state,
        place=place,
        name=name,
        arrived=arrived,
        priority=job.priority,
        attempts=job.attempts,
        max_retries=job.max_retries,
        created_at=None if job.created_at is None else micros(job.created_at),
        updated_at=None if job.updated_at is None else micros(job.updated_at),
        run_at=None if job.run_at is None else micros(job.run_at),
        next_retry_at=None if job.next_retry_at is None else micros(job.next_retry_at),
        command=command[:SHOWN] if isinstance(command, str) else job.shown_command[:SHOWN],
        worker=job.worker,
        exit_code=job.exit_code,
        last_error=job.last_error and job.last_error[:SHOWN],
        inode=status.st_ino,
        mtime=status.st_mtime_ns,
        size=status.st_size,
        unique_key=job.unique,
        started_at=None if job.started_at is None else micros(job.started_at),
        finished_at=None if job.finished_at is None else micros(job.finished_at),
        duration=None if job.duration is None else round(job.duration * 1e6),
        expires=None if job.expires_at is None else micros(job.expires_at),
    )
    if job.tags:
        row.tags = f" {' '.join(job.tags)} "
    if state == "dead" and not row.last_error:
        row.last_error = BY_HAND
    if state in WAITING and not job.hold:
        due = None if job.due_at is None else micros(job.due_at)
        if due is not None and due > now:
            row.due = due
        else:
            row.ready_key = ready_key(max(arrived, due or 0), job.priority or 5)
    return row


def is_file_of(row: Row, status: os.stat_result) -> bool:
    """Whether this is the very file that the row was made of, unchanged."""
    return (status.st_ino, status.st_mtime_ns, status.st_size) == (row.inode, row.mtime, row.size)


def invalid_row(job_id: str, name: str, status: os.stat_result, reason: str) -> Row:
    """The row of a file in dead/ that is no job."""
    return Row(
        id=job_id,
        state="dead",
        place="dead",
        name=name,
        arrived=status.st_ctime_ns // 1000,
        updated_at=status.st_ctime_ns // 1000,
        last_error=reason,
        inode=status.st_ino,
        mtime=status.st_mtime_ns,
        size=status.st_size,
    )


def accept_as_indexed(job: Job, row: Row) -> None:
    """Fill in what the producer left out as it was settled when the job was accepted, not as it is today.

    Raises:
        sqlite3.DatabaseError: the index's file was damaged, and this is what it shows in.
    """
    if job.created_at is None:
        job.created_at = row.arrived / 1e6
    if row.settings:
        import sqlite3

        import orjson

        try:
            settings = orjson.loads(row.settings)
            if settings.pop(RENEWED, None) == job.runs:
                job.renew(row.arrived / 1e6)
            for name, value in settings.items():
                if getattr(job, name) is None:
                    setattr(job, name, value)
        except (ValueError, TypeError, AttributeError) as error:
            raise sqlite3.DatabaseError(f"malformed: settings of {row.id}: {error}") from None


def state_in(place: str, job: Job) -> str:
    """The folder decides; in pending/ the job's own past decides between pending and failed."""
    if place == "done":
        return "completed"
    if place == "dead":
        return "dead"
    return job.waiting_state
