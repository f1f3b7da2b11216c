"""The record: a job's fields, and JSON both ways."""

from __future__ import annotations

import sys
from operator import attrgetter

from queuectl._dataclasses import dataclass, field
from queuectl.errors import InvalidJob
from queuectl.job import times
from queuectl.job.fields import CHECKS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from queuectl.config.settings import Settings

SIZE_LIMIT = 1 << 20
"""Bytes a new job file may have. A job is a command and a few fields; megabytes are a mistake or an attack."""

READ_LIMIT = 8 << 20
"""Bytes that a job of that size may have grown to, with its output and the history of its attempts."""

FIRST_RUNS, LAST_RUNS = 5, 95
"""How many entries of a history are kept: without a bound, a job that is tried for ever outgrows READ_LIMIT."""

DEFAULTED = ("priority", "timeout", "max_retries", "backoff_base", "max_backoff")
"""The fields that every accepted job has: the settings decide what the producer leaves open."""

OPTIONAL = ("jitter", "retry_on", "give_up_on")
"""The fields that an accepted job has if the producer or the settings say something of them."""


@dataclass(slots=True)
class Job:
    """One job, as its file says it. Moments are epoch seconds, durations seconds; None means not given.

    The first group is the producer's, the second is written by queuectl. Fields that queuectl does not know
    are kept in `extra` and written back. `skipped` and `replaced` stand in no file: they tell what became of a job with
    a unique key that was enqueued.
    """

    id: str | None = None
    command: str | list[str] = ""
    priority: int | None = None
    run_at: float | None = None
    timeout: float | None = None
    max_retries: int | None = None
    backoff_base: float | None = None
    cwd: str | None = None
    env: dict[str, str] | None = None
    on_crash: str | None = None
    max_backoff: float | None = None
    jitter: float | None = None
    retry_on: list[int] | None = None
    give_up_on: list[int] | None = None
    expires_at: float | None = None
    tags: list[str] | None = None
    hold: bool = False
    unique: str | None = None
    if_exists: str | None = None

    state: str = "pending"
    attempts: int = 0
    created_at: float | None = None
    updated_at: float | None = None
    started_at: float | None = None
    finished_at: float | None = None
    next_retry_at: float | None = None
    duration: float | None = None
    exit_code: int | None = None
    last_error: str | None = None
    output: str | None = None
    worker: str | None = None
    crashes: int = 0
    history_left_out: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)

    extra: dict[str, Any] = field(default_factory=dict)
    skipped: bool = False
    replaced: list[str] = field(default_factory=list)

    @property
    def shown_command(self) -> str:
        """The command as one line of text; a list is quoted as a shell would want it."""
        if isinstance(self.command, str):
            return self.command
        import shlex

        return shlex.join(self.command)

    @property
    def runs_allowed(self) -> int:
        """How many times the command may run in all: max_retries, and 0 means 1."""
        return max(1, self.max_retries or 0)

    @property
    def runs(self) -> int:
        """How often it has run in its whole life, however it ended; the history keeps the first and the last."""
        return len(self.history) + self.history_left_out

    @property
    def next_run(self) -> int:
        """The number of the run that is under way, or comes next; counted from 1 over the job's whole life."""
        return len(self.history) + self.history_left_out + 1

    def run_mark(self, run: int) -> str:
        """Return what distinguishes a run from all others: its number and the job's creation time in microseconds.

        A job that was deleted and enqueued again under the same id is another job.
        """
        return f"{run}.{times.micros(self.created_at or 0)}"

    def add_run(self, entry: dict[str, Any]) -> None:
        """Add a run to the history, and leave one out of its middle when it has grown long."""
        self.history.append(entry)
        surplus = len(self.history) - FIRST_RUNS - LAST_RUNS
        if surplus > 0:
            del self.history[FIRST_RUNS : FIRST_RUNS + surplus]
            self.history_left_out += surplus

    def numbered_history(self) -> list[tuple[int, dict[str, Any]]]:
        """Each entry of the history with the number of its run."""
        left_out = self.history_left_out
        return [
            (place if place <= FIRST_RUNS else place + left_out, entry)
            for place, entry in enumerate(self.history, 1)
        ]

    @property
    def due_at(self) -> float | None:
        """The moment before which it must not start: its retry time if it failed, else its run_at."""
        return self.next_retry_at if self.next_retry_at is not None else self.run_at

    @property
    def waiting_state(self) -> str:
        """The state in which it lies in pending/: failed when an attempt failed and the next has its moment."""
        return "failed" if self.attempts and self.next_retry_at is not None else "pending"

    def accept(self, settings: Settings) -> None:
        """Copy the settings in force onto the fields that the producer left out, so that later changes pass it by."""
        for name in (*DEFAULTED, *OPTIONAL):
            if getattr(self, name) is None:
                setattr(self, name, getattr(settings, name))

    @property
    def leaves_open(self) -> bool:
        """Whether a field that the settings decide has not been decided yet."""
        return None in _defaulted(self)

    def continues(self, earlier: Job) -> bool:
        """Whether this is a later copy of the very same job: it knows of all its runs, and of more.

        A stranger's file that has the id by chance, or a backup, is not one. A job whose command a person has edited
        since is: the moment of its making tells it from others better.
        """
        if self.runs <= earlier.runs:
            return False
        known = dict(self.numbered_history())
        if any(known.get(run, entry) != entry for run, entry in earlier.numbered_history()):
            return False
        made = earlier.created_at
        if made is None:
            return self.command == earlier.command
        return self.created_at is not None and abs(self.created_at - made) < 1e-3

    def expired(self, now: float) -> bool:
        """Whether it is not worth starting any more at this moment."""
        return self.expires_at is not None and now > self.expires_at

    def renew(self, put_back: float) -> None:
        """Make it new again after a person put it back: fresh attempts, the history kept.

        Args:
            put_back: when that was. What had expired by then was put back to run all the same.
        """
        if self.expired(put_back):
            self.expires_at = None
        self.state = "pending"
        self.attempts = self.crashes = 0
        self.next_retry_at = self.last_error = self.exit_code = None
        self.started_at = self.finished_at = self.duration = self.output = self.worker = None

    def to_dict(self) -> dict[str, Any]:
        """The fields as they stand in the file: moments as text, nothing that is None."""
        record: dict[str, Any] = {}
        for name, value in zip(_NAMES, _values(self), strict=True):
            if value is None or (name in _BLANK_IS_DEFAULT and not value):
                continue
            record[name] = times.iso(value) if name in _MOMENTS else value
        record.update(self.extra)
        return record

    def to_bytes(self) -> bytes:
        """The file's content: indented JSON in UTF-8 with a newline at the end."""
        record = self.to_dict()
        if "orjson" not in sys.modules and (text := _plain_json(record)):
            return text.encode()
        import orjson

        return orjson.dumps(record, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def _plain_json(record: Mapping[Any, Any]) -> str | None:
    """The same without orjson, which takes longer to load than a job to enqueue; None for what is not plain."""
    lines = []
    for name, value in record.items():
        if type(name) is not str or not name.isidentifier():
            return None
        if type(value) is str and value.isprintable():
            shown = '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
        elif type(value) is int and -(2**63) <= value < 2**63:
            shown = str(value)
        else:
            return None
        lines.append(f'  "{name}": {shown}')
    return "{\n" + ",\n".join(lines) + "\n}\n"


BESIDE = ("extra", "skipped", "replaced")
"""What is no field of its own in a file."""

_NAMES = tuple(name for name in Job.__match_args__ if name not in BESIDE)
_values = attrgetter(*_NAMES)
_defaulted = attrgetter(*DEFAULTED)
_MOMENTS = frozenset(
    {"run_at", "created_at", "updated_at", "started_at", "finished_at", "next_retry_at", "expires_at"}
)
_BLANK_IS_DEFAULT = frozenset({"crashes", "history_left_out", "history", "hold"})
KNOWN = frozenset(_NAMES)
"""All fields that queuectl knows."""

PRODUCER_FIELDS = _NAMES[: _NAMES.index("state")]
"""The fields that are the producer's to write."""


def parse(data: bytes) -> Job:
    """Read a job from a file's bytes.

    Raises:
        InvalidJob: with the field, and the reason in plain words.
    """
    from queuectl.job.strict_json import load_object

    return from_mapping(load_object(data))


def parse_own(data: bytes) -> Job:
    """Read a job whose bytes queuectl itself wrote and nobody has touched since: what was checked is not checked again.

    Raises:
        InvalidJob: they are no job all the same.
    """
    import orjson

    try:
        record = orjson.loads(data)
        job = Job()
        for name, value in record.items():
            if name in _MOMENTS:
                setattr(job, name, times.parse_moment(value))
            elif name in KNOWN:
                setattr(job, name, value)
            else:
                job.extra[name] = value
    except (ValueError, AttributeError) as error:
        raise InvalidJob(str(error)) from None
    return job


def from_mapping(record: Mapping[str, Any]) -> Job:
    """Build a job from decoded JSON or YAML, checking every known field; null means not given.

    Raises:
        InvalidJob: the first field that is wrong, and why.
    """
    job = Job()
    for name, value in record.items():
        check = CHECKS.get(name)
        if check is None:
            job.extra[name] = value
        elif value is not None:
            try:
                setattr(job, name, check(value))
            except ValueError as error:
                raise InvalidJob(str(error), field=name) from None
    if not job.command:
        raise InvalidJob("missing: it says what to run", field="command")
    return job
