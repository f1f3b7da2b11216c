"""From a long list to jobs that can be queued: what one of them made serves all that say the same.

Most lists are a thousand times the same few fields with another command. To check, settle and write out all of them
for each job takes three times as long as what they do not share.
"""

from __future__ import annotations

import marshal
import os
import time
from contextlib import suppress
from itertools import islice

import orjson

from queuectl.errors import DuplicateId, QueuectlError
from queuectl.index.row import row_of, values_like, values_of
from queuectl.job import record as jobs
from queuectl.job import times
from queuectl.job.fields import CHECKS, id_endings, new_id
from queuectl.job.times import micros
from queuectl.layout import PENDING
from queuectl.storage.prepare import Prepared, prepare
from queuectl.system.files import FileStat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any, Self

    from queuectl.config.settings import Settings

_SHARED = frozenset(jobs.PRODUCER_FIELDS) - {
    *("id", "command"),
    *("run_at", "expires_at", "hold", "unique", "if_exists"),
}
"""Fields that make the same of every job, whenever it comes and whoever came before."""

_id, _command = CHECKS["id"], CHECKS["command"]

_FROM = 20
"""Jobs of a list before the first is made after another one: a short list does not load what that takes."""

_MOST = 100
"""Kinds to remember. A list that has more has as many as jobs."""

_FIRST_DRAWN = 50
"""Ends of ids that are drawn at once at first; then twice as many each time, as nobody knows how long the list is."""

_LONGEST = 4096
"""Bytes of a file, or of a command, that is looked at in this way: far from the most that a file may have."""


def prepare_batch(
    source: Iterator[Mapping[str, Any]],
    common: Mapping[str, Any],
    settings: Settings,
    size: int,
) -> tuple[list[Prepared], Exception | None]:
    """Make the next jobs of a long list.

    Args:
        common: fields that all of them get, over their own.
        size: how many at the most.

    Returns:
        the jobs, and the trouble that ended the batch early: those before it are good.
    """
    batch: list[Prepared] = []
    given: set[str] = set()
    kinds = Kinds(settings)
    try:
        for record in islice(source, size):
            full = {**record, **common} if common else record
            made = kinds.prepare(full) if len(batch) >= _FROM else prepare(full, settings)
            while not made.chosen and made.id in given:
                made = prepare(full, settings)
            if made.id in given:
                raise DuplicateId(made.id, "pending")
            given.add(made.id)
            batch.append(made)
    except QueuectlError as error:
        return batch, error
    return batch, None


class Kinds:
    """The kinds of jobs of one list.

    Args:
        settings: those in force.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._known: dict[bytes, tuple[bytes, list[Any]]] = {}
        self._ends: list[str] = []
        self._drawn = _FIRST_DRAWN
        self._moment = _Moment()

    def prepare(self, record: Mapping[str, Any]) -> Prepared:
        """Make one job, as `prepare` does.

        Raises:
            InvalidJob: a field is wrong, and why.
        """
        if record.get("cwd") in (None, ""):
            with suppress(FileNotFoundError):
                record = {**record, "cwd": os.getcwd()}
        shared = dict(record)
        job_id, command = shared.pop("id", None), shared.pop("command", None)
        end = self._end() if job_id is None else ""
        try:
            # It tells 1 from True and 1.0, and refuses what is not of one of Python's own plain types.
            told = marshal.dumps(shared, 2)
        except ValueError:
            return prepare(record, self._settings, end)
        kind = self._known.get(told)
        if kind is not None and (like := self._made_like(kind, job_id, command, end)):
            return like
        made = prepare(record, self._settings, end)
        plain = len(made.data) <= _LONGEST and shared.keys() <= _SHARED
        # Where a relative folder lies is asked for each job: the caller may have gone elsewhere.
        if plain and len(self._known) < _MOST and os.path.isabs(shared.get("cwd", "")):
            self._learn(told, made)
        return made

    def _end(self) -> str:
        if not self._ends:
            self._ends = id_endings(self._drawn)[::-1]
            self._drawn *= 2
        return self._ends.pop()

    def _made_like(
        self, kind: tuple[bytes, list[Any]], job_id: object, command: object, end: str
    ) -> Prepared | None:
        """The job, or None where a closer look has to say what is wrong with it."""
        rest, values = kind
        when = self._moment.now()
        try:
            words: str | list[str] = _command(command)
            made_id: str = new_id(when.seconds, end) if job_id is None else _id(job_id)
            head = _head(made_id, words)
        except (ValueError, TypeError):
            return None
        if len(head) > _LONGEST:
            return None
        line = words if isinstance(words, str) else jobs.Job(command=words).shown_command
        row = values_like(values, made_id, line, when.micros, when.micros)
        return Prepared(made_id, b"".join((head, rest, when.tail)), job_id is not None, None, row)

    def _learn(self, told: bytes, made: Prepared) -> None:
        job = made.job
        head, tail = _head(made.id, job.command), _tail(job.created_at or 0)
        if made.data.startswith(head) and made.data.endswith(tail):
            row = row_of(job, PENDING, "", FileStat(0, 0, 0), state="pending", arrived=0, now=0)
            row.ours = 1
            self._known[told] = made.data[len(head) : -len(tail)], list(values_of(row))


class _Moment:
    """The present, in all ways in which a job says it; the same for jobs that are made within a millisecond."""

    __slots__ = ("micros", "seconds", "tail")

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> Self:
        now = time.time()
        if not 0 <= now - self.seconds < 0.001:
            self.seconds, self.micros, self.tail = now, micros(now), _tail(now)
        return self


def _tail(moment: float) -> bytes:
    """How the file of a job ends that was made at this moment."""
    text = times.iso(moment).encode()
    return b'  "created_at": "%b",\n  "updated_at": "%b"\n}\n' % (text, text)


def _head(job_id: str, command: object) -> bytes:
    """How the file of a job begins that has more fields than these."""
    return orjson.dumps({"id": job_id, "command": command}, option=orjson.OPT_INDENT_2)[:-2] + b",\n"
