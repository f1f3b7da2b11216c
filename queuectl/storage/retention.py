"""What is kept of jobs that are over, and of what they printed; the oldest goes first, its logs before its record.

A job that has changed since the index saw it stays, and so does what cannot be read as a job. Dying at any moment leaves
whole records, some of them without their logs; the next time goes on from there.
"""

from __future__ import annotations

import heapq
import os
import re
import time
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from queuectl.errors import InvalidJob
from queuectl.index.row import is_file_of
from queuectl.job import record as jobs
from queuectl.job import times
from queuectl.job.times import micros
from queuectl.system import safe_open
from queuectl.system.locks import Lock

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from queuectl.config.settings import Settings
    from queuectl.index.index import Index
    from queuectl.index.row import Row
    from queuectl.layout import Layout
    from queuectl.storage.mover import Mover

SLICE = 0.1
"""Seconds that a worker gives to it at a time, once a second while there is something to delete."""

REST = 10.0
"""Seconds that every job is kept: were its outcome gone before its worker is done with it, a crash of the worker or the
machine just then would have it run again."""

LOGS_EVERY = 600.0
"""Seconds between looks at all of logs/, whose names no index has."""

LARGE = 100_000
"""Files in a folder, and"""
LARGE_BYTES = 1 << 30
"""bytes, from which on `status` says that nothing deletes them."""

_OVER = "max(coalesce(updated_at, 0), arrived)"
"""When a job was over; of one that was moved by hand, when that was."""

_PAGE = 200
_SOME = 1000
_MOST = 20_000
_LOG = re.compile(r"(.+)\.[0-9]+\.(?:out|err)(?:\.[a-z0-9]+)?", re.ASCII)


def limits(keep: int | str | None) -> tuple[float | None, int | None]:
    """What a setting means: an age in seconds, or a number of files; at most one of them."""
    if keep is None or isinstance(keep, int):
        return None, keep
    return times.parse_duration(keep), None


@dataclass(slots=True)
class Purged:
    """What was deleted, or would be: jobs by state, files of output, and the bytes of both."""

    completed: int = 0
    dead: int = 0
    logs: int = 0
    bytes: int = 0

    @property
    def jobs(self) -> int:
        """Jobs in all."""
        return self.completed + self.dead

    def add(self, row: Row, logs: int, size: int, *, record: bool) -> None:
        """Count a job, or only what it printed."""
        self.logs += logs
        self.bytes += size
        if record and row.state == "completed":
            self.completed += 1
        elif record:
            self.dead += 1


def purge(
    mover: Mover,
    *,
    before: int | None,
    keep: int,
    states: Sequence[str],
    only: Collection[str] | None = None,
    logs_only: bool = False,
    dry_run: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Purged:
    """Delete jobs that are over, or say what would be deleted.

    Args:
        before: only those that were over before this moment, in microseconds.
        keep: not the newest so many of each state.
        only: only jobs with one of these ids.
        logs_only: keep the records, and delete what the jobs printed.
        progress: called with the number of jobs looked at so far.

    Raises:
        OSError: a file cannot be deleted.
    """
    found = Purged()
    printed = _printed(mover.layout) if dry_run else {}
    looked = 0
    for state in states:
        chosen = _chosen(mover.index.db, state, before, keep)
        for start in range(0, len(chosen), _PAGE):
            for row in mover.index.by_seq(chosen[start : start + _PAGE]):
                if row.state != state or (only is not None and row.id not in only):
                    continue
                if not dry_run:
                    discard(mover, row, found, logs_only=logs_only)
                elif _runs(mover.layout, row) is not None:
                    logs, size = printed.get(row.id, (0, 0))
                    if logs or not logs_only:
                        found.add(row, logs, size + (0 if logs_only else row.size), record=not logs_only)
            looked += _PAGE
            if progress:
                progress(min(looked, len(chosen)))
    return found


def _chosen(db: sqlite3.Connection, state: str, before: int | None, keep: int) -> list[int]:
    """The numbers of the jobs that may go, the oldest first."""
    query = f"""SELECT seq FROM (SELECT seq, {_OVER} AS moment FROM jobs WHERE state = ?
        ORDER BY moment DESC, seq DESC LIMIT -1 OFFSET ?) WHERE moment < ? ORDER BY moment, seq"""
    return [seq for (seq,) in db.execute(query, (state, keep, (1 << 62) if before is None else before))]


def _printed(layout: Layout) -> Mapping[str, tuple[int, int]]:
    """How many files of output each job has, and their bytes: one look at the folder, however many jobs there are."""
    found: dict[str, tuple[int, int]] = {}
    with os.scandir(layout.logs) as entries:
        for entry in entries:
            if name := _LOG.fullmatch(entry.name):
                with suppress(FileNotFoundError):
                    logs, size = found.get(name[1], (0, 0))
                    found[name[1]] = logs + 1, size + entry.stat(follow_symlinks=False).st_size
    return found


def _runs(layout: Layout, row: Row) -> int | None:
    """How often a job has run; None if its file is not what the index saw, or no job of ours."""
    try:
        data, status = safe_open.read_regular(os.path.join(layout.root, row.place, row.name), jobs.READ_LIMIT)
        if is_file_of(row, status) and not safe_open.has_other_owner(status):
            return jobs.parse(data).runs
    except (OSError, safe_open.NotReadable, InvalidJob):
        return None
    return None


def discard(mover: Mover, row: Row, counted: Purged, *, logs_only: bool = False) -> bool:
    """Delete a job that is over, unless it has changed since the index saw it; True if anything was deleted.

    Raises:
        OSError: a file cannot be deleted.
    """
    runs = _runs(mover.layout, row)
    if runs is None:
        return False
    logs = size = 0
    for path in mover.layout.log_files(row.id, runs):
        with suppress(FileNotFoundError):
            bytes_of = os.lstat(path).st_size
            os.unlink(path)
            logs, size = logs + 1, size + bytes_of
    if logs_only:
        counted.add(row, logs, size, record=False)
        return logs > 0
    gone = mover.forget(row, unchanged=True)
    counted.add(row, logs, size + (row.size if gone else 0), record=gone)
    return gone


class Retention:
    """A worker's part in keeping to the settings: a slice of work now and then, by one worker at a time.

    Args:
        say: takes a line about what was deleted.
    """

    def __init__(self, mover: Mover, say: Callable[[str], None]) -> None:
        self._mover, self._say = mover, say
        self._passed: dict[str, int] = {}
        self._forget_passed = 0.0
        self._logs: Iterator[None] | None = None
        self._counted = Purged()

    def look(self, settings: Settings) -> bool:
        """Go on for a slice; True when there is nothing left to do for now.

        Raises:
            OSError, sqlite3.Error: the disk or the index refused.
        """
        if settings.keep_done is None and settings.keep_dead is None and settings.keep_logs is None:
            return True
        lock = Lock.acquire(os.path.join(self._mover.layout.data, "retention.lock"))
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
            self._say(f"deleted what is not to be kept: {told(self._counted)}")
            self._counted = Purged()
        return over

    def _trim(self, state: str, keep: int | str | None, until: float) -> bool:
        if keep is None:
            return True
        age, count = limits(keep)
        mover, index = self._mover, self._mover.index
        _make_order(index, state)
        if time.monotonic() > self._forget_passed:
            self._passed, self._forget_passed = {}, time.monotonic() + LOGS_EVERY
        before = micros(max(0.0, mover.now() - max(age or 0.0, REST)))
        while True:
            # What may not go stands in front of the others for ever; it is not looked at again each time.
            passed = self._passed.setdefault(state, 0)
            surplus = _PAGE if count is None else index.counts()[state] - count - passed
            rows = (
                index.ended_before(state, _OVER, before, min(surplus, _PAGE), passed) if surplus > 0 else []
            )
            if not rows:
                return True
            for row in rows:
                if not discard(mover, row, self._counted) and index.get(row.id) is not None:
                    self._passed[state] += 1
                if time.monotonic() > until:
                    return False

    def _trim_logs(self, keep: int | str | None, until: float) -> bool:
        if keep is None:
            return True
        index, now = self._mover.index, self._mover.now()
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
        """Delete output that is too old, or too much; a step for each file looked at."""
        layout = self._mover.layout
        if age is not None:
            until = self._mover.now() - age
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
    """Each file of output in logs/: its path, when it was written, its bytes."""
    with os.scandir(layout.logs) as entries:
        for entry in entries:
            if _LOG.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                with suppress(FileNotFoundError):
                    status = entry.stat(follow_symlinks=False)
                    yield entry.path, status.st_mtime, status.st_size


def _make_order(index: Index, state: str) -> None:
    """An index of what is over by its age: only who has something deleted pays for it at each job's end."""
    name = f"jobs_over_{state}"
    if index.db.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (name,)).fetchone() is None:
        with index.write():
            index.db.execute(
                f"CREATE INDEX IF NOT EXISTS {name} ON jobs({_OVER}, seq) WHERE state = '{state}'"
            )


def told(found: Purged) -> str:
    """What was deleted, or would be, as people read it."""
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


def size_of(number: float) -> str:
    """Bytes as people read them."""
    for unit in ("bytes", "KB", "MB", "GB"):
        if number < 1000 or unit == "GB":
            break
        number /= 1000
    return f"{number:.0f} {unit}" if unit == "bytes" else f"{number:.1f} {unit}"


def growth(layout: Layout, index: Index, settings: Settings) -> list[str]:
    """What has grown large and is kept for ever, for `status`: cheap looks, so the bytes are an estimate.

    Raises:
        OSError, sqlite3.Error: a folder or the index cannot be read.
    """
    found = []
    counts = index.counts()
    for state, folder, keep in (
        ("completed", "done", settings.keep_done),
        ("dead", "dead", settings.keep_dead),
    ):
        query = "SELECT avg(size) FROM (SELECT size FROM jobs WHERE state = ? ORDER BY seq DESC LIMIT ?)"
        size = (index.db.execute(query, (state, _SOME)).fetchone()[0] or 0) * counts[state]
        if keep is None and (counts[state] > LARGE or size > LARGE_BYTES):
            found.append(_grown(folder, f"{counts[state]:,} jobs, about {size_of(size)}", f"keep_{folder}"))
    if settings.keep_logs is None:
        with os.scandir(layout.logs) as entries:
            sizes = [entry.stat(follow_symlinks=False).st_size for entry in islice(entries, _SOME)]
            number = len(sizes) + sum(1 for _ in islice(entries, LARGE))
        size = sum(sizes) / max(1, len(sizes)) * number
        if number > LARGE or size > LARGE_BYTES:
            many = f"over {LARGE:,}" if number > LARGE else f"{number:,}"
            found.append(_grown("logs", f"{many} files, about {size_of(size)} or more", "keep_logs"))
    return found


def _grown(folder: str, what: str, key: str) -> str:
    return f"{folder}/ holds {what}, and nothing is ever deleted there: queuectl config set {key} 30d"
