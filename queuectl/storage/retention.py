"""Retention: delete old jobs that are done or dead, the oldest first, and the logs of each before its record.

A job that has changed since the index saw it stays, and so does a file that is not a valid job. A crash at any moment
leaves complete records, some without their logs; the next call continues from there.
"""

from __future__ import annotations

import heapq
import os
import time
from contextlib import suppress
from itertools import islice

from queuectl.errors import InvalidJob
from queuectl.fast_start.dataclass import dataclass
from queuectl.index.row import is_file_of
from queuectl.job import record as jobs
from queuectl.job import times
from queuectl.job.times import micros
from queuectl.layout import FOLDER_OF
from queuectl.storage import dead_letters, job_logs, locate
from queuectl.storage.growth import size_of
from queuectl.storage.rewriting import job_in
from queuectl.system import safe_open
from queuectl.system.locks import Lock

TYPE_CHECKING = False
if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from queuectl.config.settings import Settings
    from queuectl.index.freshness import OwnChanges
    from queuectl.index.index import Index
    from queuectl.index.row import Row
    from queuectl.layout import Layout
    from queuectl.storage.transitions import Storage

SLICE = 0.1
"""Seconds that a worker spends on it at a time, once a second while there is something to delete."""

KEPT_AT_LEAST = 10.0
"""Seconds that every job is kept. If an outcome were deleted before its worker is finished with it, a crash of the worker
or the machine at that moment would run the job again."""

LOGS_EVERY = 600.0
"""Seconds between scans of logs/, whose files are in no index."""

_OVER = "max(coalesce(updated_at, 0), arrived)"
"""When a job ended, or when it was moved by hand."""

_PAGE = 200
_MOST = 20_000


def limits(keep: int | str | None) -> tuple[float | None, int | None]:
    """Return what a setting means: an age in seconds, or a number of files; the other one is None."""
    if keep is None or isinstance(keep, int):
        return None, keep
    return times.parse_duration(keep), None


@dataclass(slots=True)
class Purged:
    """What was deleted, or would be: jobs by state, log files, and the bytes of both.

    Attributes:
        kept: jobs that `purge` has kept because a job that waits or runs names them, or their batch.
    """

    completed: int = 0
    dead: int = 0
    logs: int = 0
    bytes: int = 0
    kept: int = 0

    @property
    def jobs(self) -> int:
        """The number of jobs, of both states."""
        return self.completed + self.dead

    def add(self, row: Row, logs: int, size: int, *, record: bool) -> None:
        """Count a job, or only its logs."""
        self.logs += logs
        self.bytes += size
        if record and row.state == "completed":
            self.completed += 1
        elif record:
            self.dead += 1


def purge(
    storage: Storage,
    *,
    before: int | None,
    keep: int,
    states: Sequence[str],
    only: Collection[str] | None = None,
    logs_only: bool = False,
    dry_run: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Purged:
    """Delete jobs that are done or dead, or only count them.

    Args:
        before: only jobs that ended before this moment, in microseconds.
        keep: keep this many of the newest jobs of each state; with `only`, of those jobs.
        only: only jobs with one of these ids.
        logs_only: keep the records, and delete only the logs.
        dry_run: only count.
        progress: called with the number of jobs examined so far.

    Raises:
        OSError: a file cannot be deleted.
    """
    found = Purged()
    printed = _printed(storage.layout) if dry_run else {}
    examined = 0
    for state in states:
        chosen = _chosen(storage.index.db, state, before, keep, only)
        for start in range(0, len(chosen), _PAGE):
            page = chosen[start : start + _PAGE]
            if dry_run:
                _count(storage, state, page, found, printed, logs_only=logs_only)
            else:
                _discard_all(storage, state, page, found, logs_only=logs_only)
            examined += _PAGE
            if progress:
                progress(min(examined, len(chosen)))
    return found


def _discard_all(
    storage: Storage, state: str, page: Sequence[int], found: Purged, *, logs_only: bool
) -> None:
    """Delete some jobs in one transaction. With one for each job this takes twice as long."""
    ours = storage.index.own_changes(FOLDER_OF[state])
    with storage.index.moving():
        for row in _discardable(storage, state, page, found):
            discard(storage, row, found, logs_only=logs_only, own_changes=ours)
        ours.note()


def _count(
    storage: Storage,
    state: str,
    page: Sequence[int],
    found: Purged,
    printed: Mapping[str, tuple[int, int]],
    *,
    logs_only: bool,
) -> None:
    """Count some jobs as if they had been deleted.

    Args:
        printed: the log files of each job, and their bytes.
    """
    for row in _discardable(storage, state, page, found):
        if _runs(storage.layout, row) is not None:
            logs, size = printed.get(row.id, (0, 0))
            if logs or not logs_only:
                found.add(row, logs, size + (0 if logs_only else row.size), record=not logs_only)


def _discardable(storage: Storage, state: str, page: Sequence[int], found: Purged) -> Iterator[Row]:
    """Yield the rows of jobs that are still in this state, and of which no worker has a file.

    If a worker that still has a file of the job died, recovery would put that file back once the outcome is gone. A job
    for which another one waits must stay: without its record nobody knows how it ended.
    """
    claimed = {name for names in locate.claimed_by_worker(storage.layout).values() for name in names}
    for row in storage.index.by_seq(page):
        if row.state == state and f"{row.id}.json" not in claimed:
            if storage.index.is_needed(row):
                found.kept += 1
            else:
                yield row


def _chosen(
    db: sqlite3.Connection, state: str, before: int | None, keep: int, only: Collection[str] | None
) -> list[int]:
    """Return the numbers of the jobs that may be deleted, the oldest first."""
    query = f"SELECT seq, id, {_OVER} AS moment FROM jobs WHERE state = ? ORDER BY moment DESC, seq DESC"
    described = (
        (seq, moment) for seq, job_id, moment in db.execute(query, (state,)) if only is None or job_id in only
    )
    # The newest ones are kept of those that the filter describes, not of all.
    chosen = [seq for seq, moment in islice(described, keep, None) if before is None or moment < before]
    return chosen[::-1]


def _printed(layout: Layout) -> Mapping[str, tuple[int, int]]:
    """Return how many log files each job has, and their bytes, from one scan of logs/."""
    found: dict[str, tuple[int, int]] = {}
    with suppress(FileNotFoundError), os.scandir(layout.logs) as entries:
        for entry in entries:
            if job_id := job_logs.job_of(entry.name):
                with suppress(FileNotFoundError):
                    logs, size = found.get(job_id, (0, 0))
                    found[job_id] = logs + 1, size + entry.stat(follow_symlinks=False).st_size
    return found


def _runs(layout: Layout, row: Row) -> int | None:
    """Return how often a job has run; None if its file has changed since the index saw it, or is not a job of ours."""
    try:
        data, status = safe_open.read_regular(os.path.join(layout.root, row.place, row.name), jobs.READ_LIMIT)
        if is_file_of(row, status) and not safe_open.has_other_owner(status):
            return job_in(data, status, row).runs
    except (OSError, safe_open.NotReadable, InvalidJob):
        return None
    return None


def discard(
    storage: Storage,
    row: Row,
    counted: Purged,
    *,
    logs_only: bool = False,
    own_changes: OwnChanges | None = None,
) -> bool:
    """Delete a job, unless it has changed since the index saw it; return True if anything was deleted.

    Args:
        counted: what was deleted is added here.
        logs_only: keep the record.
        own_changes: see dead_letters.forget.

    Raises:
        OSError: a file cannot be deleted.
    """
    runs = _runs(storage.layout, row)
    if runs is None or storage.index.is_needed(row):
        return False
    logs = size = 0
    for path in storage.layout.log_files(row.id, runs):
        with suppress(FileNotFoundError):
            bytes_of = os.lstat(path).st_size
            os.unlink(path)
            logs, size = logs + 1, size + bytes_of
    if logs_only:
        counted.add(row, logs, size, record=False)
        return logs > 0
    gone = dead_letters.forget(storage, row, unchanged=True, own_changes=own_changes)
    counted.add(row, logs, size + (row.size if gone else 0), record=gone)
    return gone


class Retention:
    """Applies the settings keep_done, keep_dead and keep_logs, in slices; one worker of a spool at a time.

    Args:
        say: takes a line about what was deleted.
    """

    def __init__(self, storage: Storage, say: Callable[[str], None]) -> None:
        self._storage, self._say = storage, say
        self._skipped: dict[str, int] = {}
        self._forget_skipped = 0.0
        self._logs: Iterator[None] | None = None
        self._counted = Purged()

    def look(self, settings: Settings) -> bool:
        """Work for one slice; return True when there is nothing left to do for now.

        Raises:
            OSError, sqlite3.Error: the disk or the index refused.
        """
        if settings.keep_done is None and settings.keep_dead is None and settings.keep_logs is None:
            return True
        lock = Lock.acquire(os.path.join(self._storage.layout.data, "retention.lock"))
        if lock is None:
            return True
        until = time.monotonic() + SLICE
        try:
            over = (
                self._trim("completed", settings.keep_done, until)
                and self._trim("dead", settings.keep_dead, until)
                and self._trim_logs(settings.keep_logs, until)
            )
        finally:
            lock.release()
        if over and self._counted != Purged():
            self._say(f"deleted what is not to be kept: {summary(self._counted)}")
            self._counted = Purged()
        return over

    def _trim(self, state: str, keep: int | str | None, until: float) -> bool:
        if keep is None:
            return True
        age, count = limits(keep)
        storage, index = self._storage, self._storage.index
        _add_index_by_age(index, state)
        if time.monotonic() > self._forget_skipped:
            self._skipped, self._forget_skipped = {}, time.monotonic() + LOGS_EVERY
        before = micros(max(0.0, storage.now() - max(age or 0.0, KEPT_AT_LEAST)))
        while True:
            # Jobs that may not be deleted stay first in the order. They are not examined again each time.
            skipped = self._skipped.setdefault(state, 0)
            surplus = _PAGE if count is None else index.counts()[state] - count - skipped
            rows = (
                index.ended_before(state, _OVER, before, min(surplus, _PAGE), skipped) if surplus > 0 else []
            )
            if not rows:
                return True
            for row in rows:
                if not discard(storage, row, self._counted) and index.get(row.id) is not None:
                    self._skipped[state] += 1
                if time.monotonic() > until:
                    return False

    def _trim_logs(self, keep: int | str | None, until: float) -> bool:
        if keep is None:
            return True
        index, now = self._storage.index, self._storage.now()
        if self._logs is None:
            last = index.meta("logs_trimmed")
            if last is not None and 0 <= now - last < LOGS_EVERY:
                return True
            with index.write():
                index.db.execute("INSERT OR REPLACE INTO meta VALUES ('logs_trimmed', ?)", (now,))
            self._logs = self._old_logs(*limits(keep))
        for _ in self._logs:
            if time.monotonic() > until:
                return False
        self._logs = None
        return True

    def _old_logs(self, age: float | None, count: int | None) -> Iterator[None]:
        """Delete logs that are too old or too many; one step for each file examined."""
        layout = self._storage.layout
        if age is not None:
            until = self._storage.now() - age
            for path, touched, size in _log_files(layout):
                if touched < until:
                    self._drop_log(path, size)
                yield
            return
        surplus = sum(1 for _ in _log_files(layout)) - (count or 0)
        oldest: list[tuple[float, str, int]] = []
        for path, touched, size in _log_files(layout) if surplus > 0 else ():
            entry = (-touched, path, size)
            if len(oldest) < min(surplus, _MOST):
                heapq.heappush(oldest, entry)
            elif entry > oldest[0]:
                heapq.heapreplace(oldest, entry)
            yield
        for _, path, size in sorted(oldest, reverse=True):
            self._drop_log(path, size)
            yield

    def _drop_log(self, path: str, size: int) -> None:
        with suppress(FileNotFoundError):
            os.unlink(path)
            self._counted.logs += 1
            self._counted.bytes += size


def _log_files(layout: Layout) -> Iterator[tuple[str, float, int]]:
    """Yield each log file: its path, when it was written, and its bytes."""
    with suppress(FileNotFoundError), os.scandir(layout.logs) as entries:
        for entry in entries:
            if job_logs.job_of(entry.name) and entry.is_file(follow_symlinks=False):
                with suppress(FileNotFoundError):
                    status = entry.stat(follow_symlinks=False)
                    yield entry.path, status.st_mtime, status.st_size


def _add_index_by_age(index: Index, state: str) -> None:
    """Add an SQL index by age. It costs time at the end of each job, so only spools with these settings have it."""
    name = f"jobs_over_{state}"
    if index.db.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (name,)).fetchone() is None:
        with index.write():
            index.db.execute(
                f"CREATE INDEX IF NOT EXISTS {name} ON jobs({_OVER}, seq) WHERE state = '{state}'"
            )


def summary(found: Purged) -> str:
    """Return what was deleted, or would be, as text."""
    parts = [
        f"{number:,} {what}{'' if number == 1 else 's'}"
        for number, what in (
            (found.completed, "done job"),
            (found.dead, "dead job"),
            (found.logs, "log file"),
        )
        if number
    ]
    return f"{' and '.join(parts) or 'nothing'} ({size_of(found.bytes)})"
