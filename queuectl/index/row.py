"""What the index stores of one job, and how a job becomes a row."""

from __future__ import annotations

from operator import attrgetter

from queuectl.fast_start import fast_json
from queuectl.fast_start.dataclass import dataclass
from queuectl.job.fields import DEFAULT_QUEUE, WAITING
from queuectl.job.times import micros

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Iterable
    from typing import Any

    from queuectl.job.record import Job
    from queuectl.system.files import FileStat, Fingerprint

RENEWED = "renewed"
"""Key among a row's settings: a person moved the job from dead/ back to pending/ after this many runs. Those do not count as attempts."""

BY_HAND = "Given up by hand"
"""The error of a job in dead/ whose file gives no reason: somebody moved it there, or a cancel was interrupted."""

SHOWN = 200
"""Characters of a command or an error that the index stores. The file has the full text."""


@dataclass(slots=True)
class Row:
    """What the index knows of one job. Times are integer microseconds since the epoch.

    The job's file is place/name; `place` is a folder, relative to the spool. `seq` numbers the rows in the order of
    arrival. `ours` is 1 for a file that queuectl itself wrote. `tags` has a blank before and after each tag. `lane` is
    what the jobs have in common that wait for the same limits, see `lane_of`. A waiting job has one of these three, or none
    of them if it is held:

    - `ready_key`: its place in the order;
    - `due`: when it gets a place;
    - `behind`: the ready_key that it gets when no other job has its unique key any more.
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
    lane: str | None = None
    hold: int = 0
    conditions: str | None = None
    batch: str | None = None
    member: str | None = None
    about: str | None = None
    recovered: int | None = None

    @property
    def held(self) -> bool:
        """Whether the job waits until somebody releases it."""
        return self.state in WAITING and bool(self.hold)

    def waited(self, now: int) -> int | None:
        """Return for how many microseconds the job could have run; None if it cannot run yet, or does not wait."""
        if self.ready_key is None:
            # A due job gets its ready_key from a worker, and none may be running.
            return now - self.due if self.due is not None and self.due <= now else None
        return max(0, now - self._eligible(self.ready_key))

    def ready_since(self, now: int) -> int | None:
        """Return since when the job could run but for its unique key, in microseconds; None if it could not yet."""
        key = self.behind if self.ready_key is None else self.ready_key
        if key is not None:
            return self._eligible(key)
        return self.due if self.due is not None and self.due <= now else None

    def _eligible(self, key: int) -> int:
        """Return since when it can run, by its place in the order."""
        return key + _PER_PRIORITY * (self.priority or 5) + (0 if self.about is None else _FIRST)

    def effective(self, now: int) -> float | None:
        """Return its priority plus a point for each minute of waiting (SPEC 4); None if it does not wait."""
        if self.state not in WAITING:
            return None
        return (self.priority or 5) + (self.waited(now) or 0) / _PER_PRIORITY


_PER_PRIORITY = 60_000_000
"""Microseconds of waiting that count as one point of priority."""

_FIRST = 10**16
"""Microseconds (300 years) by which a job that tells of others goes before all other jobs: an alarm behind an aged backlog would
come too late."""

READY_KEY = f"due - {_PER_PRIORITY} * priority - {_FIRST} * (about IS NOT NULL)"
"""In SQL: the `ready_key` of a job that becomes ready at its due moment."""


def eligible_at(key: str) -> str:
    """Return the SQL for the moment since which a job can run, by its place in the order; NULL where that is NULL."""
    return f"{key} + {_PER_PRIORITY} * coalesce(priority, 5) + {_FIRST} * (about IS NOT NULL)"


COLUMNS = Row.__match_args__
"""The columns of the table of jobs, in the order in which rows are read and written."""

values_of = attrgetter(*COLUMNS)
"""Returns a row as the tuple of its columns."""


def ready_key(eligible: int, priority: int, about: str | None = None) -> int:
    """Return a waiting job's place in the order; the smallest goes first.

    Effective priority is priority + waiting / 60 s (SPEC 4). Two waiting jobs age at the same rate, so their order
    never changes, and it is the order of `eligible - 60 s * priority`.

    Args:
        eligible: since when the job can run, in microseconds.
        about: of what it tells; None: it is an ordinary job.
    """
    return eligible - _PER_PRIORITY * priority - (0 if about is None else _FIRST)


order_of = attrgetter("ready_key", "seq")
"""The key by which ready rows are sorted in the order in which they run."""


def lane_of(job: Job) -> str | None:
    """Return a job's lane: its queue, and what it needs of each resource in the order of names, like "train gpu=1".

    All jobs of a lane wait for the same limits: either each of them could start now, or none. None stands for the lane of
    the jobs that name neither a queue nor a resource.
    """
    if job.needs is None and job.queue in (None, DEFAULT_QUEUE):
        return None
    needs = (f"{name}={number}" for name, number in sorted((job.needs or {}).items()))
    return " ".join((job.queue or DEFAULT_QUEUE, *needs))


def conditions_of(job: Job) -> str | None:
    """Return what a job waits for as the index stores it; None if it waits for no job."""
    if not job.has_conditions:
        return None
    from queuectl.index import dependencies

    return dependencies.text_of(job)


def _counts_in(job: Job, conditions: str | None) -> str | None:
    """Return the batch in which a job counts. It does not in one for which it waits itself: that would never be over."""
    if job.batch is None or conditions is None:
        return job.batch
    from queuectl.index import dependencies

    return None if dependencies.waits_for_batch(job, job.batch) else job.batch


def row_of(
    job: Job, place: str, name: str, status: os.stat_result | FileStat, *, state: str, arrived: int, now: int
) -> Row:
    """Return the row of a job whose file is place/name.

    Args:
        status: the file's status; a later change is noticed by it.
        arrived: when it came there, in microseconds. Waiting counts from then, or from its due moment.
        now: the present, in microseconds.
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
        lane=lane_of(job),
        hold=int(job.hold),
        conditions=conditions_of(job),
        batch=job.batch,
        about=job.about,
        recovered=1 if state == "completed" and job.has_recovered else None,
    )
    row.member = _counts_in(job, row.conditions)
    if job.tags:
        row.tags = f" {' '.join(job.tags)} "
    if state == "dead" and not row.last_error:
        row.last_error = BY_HAND
    if state in WAITING and not job.hold:
        moment = job.due_by(now / 1e6)
        due = None if moment is None else micros(moment)
        if due is not None and due > now:
            row.due = due
        else:
            row.ready_key = ready_key(max(arrived, due or 0), job.priority or 5, job.about)
    return row


def last_in_line_first(rows: Iterable[Row]) -> list[Row]:
    """Return rows in the reverse of the order in which workers claim them; those that cannot run yet come first."""
    return sorted(
        rows, key=lambda row: (row.ready_key is None, row.ready_key or 0, row.seq or 0), reverse=True
    )


def is_file_of(row: Row, status: os.stat_result) -> bool:
    """Return whether this is the file from which the row was made, unchanged."""
    return (status.st_ino, status.st_mtime_ns, status.st_size) == (row.inode, row.mtime, row.size)


def invalid_row(job_id: str, name: str, status: os.stat_result, reason: str) -> Row:
    """Return the row of a file in dead/ that is not a valid job."""
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
    """Fill in the fields that the producer left out, with the settings of the time when the job was accepted.

    Raises:
        sqlite3.DatabaseError: the row's settings cannot be read: the index file is damaged.
    """
    if job.created_at is None:
        job.created_at = row.arrived / 1e6
    if row.settings:
        import sqlite3

        try:
            settings = fast_json.loads(row.settings)
            if settings.pop(RENEWED, None) == job.runs:
                job.renew(row.arrived / 1e6)
            for name, value in settings.items():
                if getattr(job, name) is None:
                    job.accept(name, value)
        except (ValueError, TypeError, AttributeError) as error:
            raise sqlite3.DatabaseError(f"malformed: settings of {row.id}: {error}") from None


def state_in(place: str, job: Job) -> str:
    """Return the state of a job in this folder. In pending/ its history decides between pending and failed."""
    if place == "done":
        return "completed"
    if place == "dead":
        return "dead"
    return job.waiting_state


_AT = {name: place for place, name in enumerate(COLUMNS)}
_ID, _NAME, _COMMAND = _AT["id"], _AT["name"], _AT["command"]
_ARRIVED, _READY, _PRIORITY = _AT["arrived"], _AT["ready_key"], _AT["priority"]
_CREATED, _UPDATED = _AT["created_at"], _AT["updated_at"]
_INODE, _MTIME, _SIZE = _AT["inode"], _AT["mtime"], _AT["size"]


def values_like(
    template: list[Any], job_id: str, command: str, created: int, updated: int | None
) -> list[Any]:
    """Return a copy of another job's values with these replaced. `set_file` fills in the rest.

    Args:
        command: as one line.
        created, updated: in microseconds.
    """
    values = template.copy()
    values[_ID], values[_NAME], values[_COMMAND] = job_id, f"{job_id}.json", command[:SHOWN]
    values[_CREATED], values[_UPDATED] = created, updated
    return values


def set_file(values: list[Any], arrived: int, fingerprint: Fingerprint) -> None:
    """Put into a row's values since when its file waits, in microseconds, and the file's inode, mtime (ns) and size."""
    values[_ARRIVED], values[_READY] = arrived, ready_key(arrived, values[_PRIORITY])
    values[_INODE], values[_MTIME], values[_SIZE] = fingerprint
