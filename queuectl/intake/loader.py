"""Reads files that the index does not know and makes rows of them. It uses no index, so a forked copy can do it."""

from __future__ import annotations

import os
from functools import cached_property
from operator import attrgetter

from queuectl.config.settings import JobDefaults, Settings
from queuectl.errors import ConfigError
from queuectl.fast_start import fast_json
from queuectl.index.row import COLUMNS, Row, row_of, set_file, state_in, values_like, values_of
from queuectl.intake.dropped_file import DroppedFile, holds_id, read_dropped, reason_beside
from queuectl.job import record as jobs
from queuectl.job import strict_json
from queuectl.job.fields import is_id
from queuectl.job.times import micros_of
from queuectl.layout import DEAD, PENDING, Layout
from queuectl.system import files, safe_open

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Container, Sequence
    from typing import Any

    from queuectl.job.record import Job

_DEFAULTED = (*jobs.DEFAULTED, *jobs.OPTIONAL)
_defaulted = attrgetter(*_DEFAULTED)
_ARRIVED, _CREATED = COLUMNS.index("arrived"), COLUMNS.index("created_at")
_READY, _STATE = COLUMNS.index("ready_key"), COLUMNS.index("state")
_FILE = slice(COLUMNS.index("inode"), COLUMNS.index("size") + 1)


class Loader:
    """Reads the files of one spool.

    Args:
        root: the spool's folder.

    Attributes:
        owner: see Storage.
        refuses_rings: give no row to a dropped job with conditions, so that it is looked whether it waits for itself.
    """

    def __init__(self, root: str) -> None:
        self.owner: int | None = None
        self.refuses_rings = True
        self._root = root
        self._now = 0
        self._settings = Settings()
        self._defaults = JobDefaults(Layout(root), self._settings)
        self._accepted: dict[tuple[str | None, tuple[str, ...]], str | None] = {}
        self._cache = _RowCache()

    def start(self, now: int, settings: Settings) -> None:
        """Set what holds for the files that are read next.

        Args:
            now: the present, in microseconds.
            settings: the current settings.
        """
        if self._defaults.refresh(settings) or settings != self._settings:
            self._cache.clear()  # its rows were made with other settings
            self._accepted.clear()
        self._now, self._settings = now, settings

    def read(self, place: str, path: str) -> DroppedFile:
        """Read one file of a folder. A file in dead/ with a reason beside it is not a job."""
        found = read_dropped(path, self._now, self._settings.settle_time, owner=self.owner)
        if place == DEAD and found.job is not None and found.status is not None:
            # A rejected duplicate parses as a job. In a new index it would take the id from the job that owns it.
            reason = reason_beside(path, found.status)
            if reason is not None:
                found.job, found.reason = None, reason
        return found

    def load(
        self, place: str, names: Sequence[str], left_dead: Container[str]
    ) -> list[tuple[int, float, int, str, Any]]:
        """Read files of a folder and make rows of those that are valid jobs, which nearly all are.

        Args:
            left_dead: ids of jobs whose file has left dead/: a file with such an id needs a closer look.

        Returns:
            for each file its sort key, in four parts, and the values of its row, or None if it needs a closer look.
            The key gives the order of arrival, as scandir returns names in no order. Files that arrive within one tick
            of the file system's clock, often 4 ms, have the same time: those written by enqueue have a finer one, and
            of the others job2 goes before job10.
        """
        loaded: list[tuple[int, float, int, str, Any]] = []
        for name in names:
            path = f"{self._root}{os.sep}{place}{os.sep}{name}"
            values = self._load_cached(name, path, left_dead) if place == PENDING else None
            if values is not None:
                created = values[_CREATED] / 1e6 if self._cache.has_created_at else 0.0
                loaded.append((values[_ARRIVED], created, len(name), name, values))
                continue
            found = self.read(place, path)
            created = found.job.created_at if found.job is not None else None
            row = self._new_row(place, name, found, left_dead)
            values = None if row is None else values_of(row)
            if values is not None and place == PENDING:
                self._cache.add(values)
            loaded.append((found.arrived, created or 0.0, len(name), name, values))
        return loaded

    def _load_cached(self, name: str, path: str, left_dead: Container[str]) -> tuple[Any, ...] | None:
        try:
            data, status = safe_open.read_regular(path, jobs.READ_LIMIT)
        except (safe_open.NotReadable, OSError):
            return None
        return self._cache.row(name, data, status, self._now, left_dead)

    def _new_row(self, place: str, name: str, found: DroppedFile, left_dead: Container[str]) -> Row | None:
        """Return the row of a job that is certainly new, or None; None, too, if its defaults are not known."""
        job = found.job
        if job is None or found.status is None:
            return None
        job_id = job.id or name[: -len(".json")]
        if not job.id and not is_id(job_id):
            return None
        if place == PENDING and (job.state in ("completed", "dead") or job_id in left_dead):
            return None
        if (
            place == PENDING and job.created_at is job.updated_at is None
        ):  # it was dropped, and not written by queuectl
            if job.unique is not None:
                return None  # its unique key may be taken
            if job.has_conditions and self.refuses_rings:
                return None  # it may wait for itself
        if job_id != name[: -len(".json")] and holds_id(
            f"{self._root}{os.sep}{place}{os.sep}{job_id}.json", job_id
        ):
            return None  # of two new files with one id, the file named after the id is the job
        try:
            return self.make_row(place, name, job, found, job_id)
        except ConfigError:
            return None

    def make_row(self, place: str, name: str, job: Job, found: DroppedFile, job_id: str) -> Row:
        """Return the row of a job that was read from place/name. In pending/, its missing fields get the defaults.

        Raises:
            ConfigError: the defaults are not known, as the file of its queue is not valid and has not been before.
        """
        status = found.known_status
        job.id = job_id
        settings = self._accept(job) if place == PENDING else None
        if job.created_at is None:
            job.created_at = found.arrived / 1e6
        state = state_in(place, job)
        row = row_of(job, place, name, status, state=state, arrived=found.arrived, now=self._now)
        row.settings = settings
        return row

    def _accept(self, job: Job) -> str | None:
        """Fill in the defaults that the job does not set; returns them as JSON, or None.

        The row keeps them, because a later `config set` is for new jobs only (SPEC 4).
        """
        missing = tuple(
            [name for name, value in zip(_DEFAULTED, _defaulted(job), strict=True) if value is None]
        )
        try:
            settings = self._defaults.of(job.queue)
        except ConfigError:
            if job.needs_settings:
                raise
            settings = self._settings  # queuectl wrote the file, so the defaults of its queue are in it
        for name in missing:
            job.accept(name, getattr(settings, name))
        key = job.queue, missing
        if key not in self._accepted:
            values = {name: value for name in missing if (value := getattr(settings, name)) is not None}
            self._accepted[key] = fast_json.dumps(values).decode() if values else None
        return self._accepted[key]


# -- rows made from cached ones ----------------------------------------------------------------------------------------

_CACHED_FIELDS = frozenset({
    "command", "id", "priority", "timeout", "max_retries", "backoff_base", "max_backoff", "cwd", "on_crash", "state",
    "attempts", "default_timeout", "created_at", "updated_at",
})  # fmt: skip
"""A file with other fields is not loaded from the cache: what they put into a row depends on more than their value."""

_CUT = ("id", "command", "created_at", "updated_at")
_VARYING = (
    rb'"(%s)"[ \t\r\n]*:[ \t\r\n]*"([^"\\\x00-\x1f]*(?:\\.[^"\\\x00-\x1f]*)*)"' % "|".join(_CUT).encode()
)
"""A pattern that cuts the texts of these fields out. What is left is the same for jobs with the same other fields, and in a valid file no quote
within a text is taken for its end. So the left part needs to be read and checked once."""

_LONGEST = 4096
"""Bytes of the largest file that is loaded from the cache."""

_MOST_ROWS = 100


class _RowCache:
    """Rows of files in pending/, by the values of their fields.

    A hundred thousand jobs enqueued at once mostly differ in id, command and times only. Checking their other fields
    once halves the time for each of them. Measured: `reindex` of 50,000 jobs takes 1.68 times as long without it. What is left
    of a file without those is compared as bytes: to parse it and compare the values took 3 to 4 us more, of 17.
    """

    def __init__(self) -> None:
        self._rows: dict[Any, list[Any]] = {}
        self._key: Any = None
        self._read: files.Fingerprint | None = None

    @cached_property
    def _split(self) -> Callable[[bytes], list[bytes]]:
        import re  # `status` starts without it

        return re.compile(_VARYING).split

    def clear(self) -> None:
        """Forget all rows."""
        self._rows.clear()

    def row(
        self, name: str, data: bytes, status: os.stat_result, now: int, left_dead: Container[str]
    ) -> tuple[Any, ...] | None:
        """Return the values of the row of a file whose other fields are in the cache; None for all other files.

        Args:
            now: the present, in microseconds.
            left_dead: as for `Loader.load`.
        """
        self._key = None
        if (
            len(data) > _LONGEST
            or safe_open.has_other_owner(status)
            or status.st_mode & safe_open.OTHERS_WRITE
        ):
            return None
        parts = self._split(data)
        names, texts = tuple(parts[1::3]), parts[2::3]
        key = names, tuple(parts[::3])
        cached = self._rows.get(key)
        if cached is None:
            if _is_plain(data, names, texts):
                self._key, self._read = key, files.fingerprint(status)
            return None
        own = dict(zip(names, texts, strict=True))
        stem = name[: -len(".json")]
        if stem in left_dead or not is_id(stem) or own.get(b"id", stem.encode()) != stem.encode():
            return None
        try:
            command = _text(own[b"command"])
            if not command.strip() or "\0" in command:
                return None
            arrived = min(status.st_ctime_ns // 1000, now)
            created = micros_of(own[b"created_at"].decode()) if b"created_at" in own else arrived
            updated = None
            if b"updated_at" in own:
                same = own[b"updated_at"] == own.get(b"created_at")
                updated = created if same else micros_of(own[b"updated_at"].decode())
        except ValueError:
            return None
        self._key = key
        row = values_like(cached, stem, command, created, updated)
        set_file(row, arrived, files.fingerprint(status))
        return tuple(row)

    @property
    def has_created_at(self) -> bool:
        """Whether the file of the last call of `row` has a `created_at`."""
        return self._key is not None and b"created_at" in self._key[0]

    def add(self, values: tuple[Any, ...]) -> None:
        """Add the row of the file for which `row` has just returned None, if it can serve for others.

        The file was read once more for it, and may have been written anew before that.
        """
        if (
            self._key is not None
            and values[_STATE] == "pending"
            and values[_READY] is not None
            and values[_FILE] == self._read
        ):
            if len(self._rows) >= _MOST_ROWS:
                self._rows.clear()
            self._rows[self._key] = list(values)


def _is_plain(data: bytes, names: tuple[bytes, ...], texts: Sequence[bytes]) -> bool:
    """Return whether a file is a job of simple fields, of which exactly those with these names were cut out."""
    record = strict_json.load_simple(data)
    if record is None or b"command" not in names or not record.keys() <= _CACHED_FIELDS:
        return False
    if any(isinstance(value, list | dict) for value in record.values()):
        return False
    try:
        found = {name.decode(): _text(text) for name, text in zip(names, texts, strict=True)}
    except ValueError:
        return False
    return len(found) == len(names) and found == {name: record[name] for name in _CUT if name in record}


def _text(inside: bytes) -> str:
    """Return the text of which these bytes stand between the quotes in JSON.

    Raises:
        ValueError: they are no text.
    """
    if b"\\" not in inside:
        return inside.decode()
    text: str = fast_json.loads(b'"' + inside + b'"')
    return text
