"""The job record: its fields, reading it from JSON, and writing it as JSON."""

from __future__ import annotations

import sys
from operator import attrgetter

from queuectl.errors import InvalidJob
from queuectl.fast_start import fast_json
from queuectl.fast_start.dataclass import dataclass, field
from queuectl.job import times
from queuectl.job.fields import CHECKS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

SIZE_LIMIT = 1 << 20
"""Bytes that the fields which a producer gives may have, written as queuectl writes them: see `check_size`. A job is a
command and a few fields; more is a mistake or an attack."""

READ_LIMIT = 8 << 20
"""Bytes that such a file may have with everything that queuectl adds: output, history, defaults."""

FIRST_RUNS, LAST_RUNS = 5, 95
"""How many entries of the history are kept. Unlimited, a job with many attempts would exceed READ_LIMIT."""

DEFAULTED = ("priority", "timeout", "max_retries", "backoff_base", "max_backoff")
"""Fields that every job in the queue has: if the producer does not give them, they are copied from the settings."""

OPTIONAL = ("jitter", "retry_on", "give_up_on")
"""Fields that are copied from the settings too, but may be unset there."""


@dataclass(slots=True)
class Job:
    """One job, with the content of its file. Times are epoch seconds, durations seconds; None means not given.

    `id` is empty in a record that was read from a file without an id. A job of a spool always has one.

    The producer writes the fields of the first group, queuectl those of the second. Unknown fields are kept in `extra`
    and written back. `skipped` and `replaced` are in no file: they are results of enqueueing a job with a unique key.
    """

    id: str = ""
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
    queue: str | None = None
    needs: dict[str, int] | None = None
    after: list[str] | None = None
    after_any: list[str] | None = None
    after_failure: list[str] | None = None
    if_blocked: str | None = None
    batch: str | None = None

    state: str = "pending"
    attempts: int = 0
    default_timeout: float | None = None
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
    not_run: str | None = None
    rule: str | None = None
    scheduled_for: str | None = None
    source: str | None = None
    event: str | None = None
    about: str | None = None
    history_left_out: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)

    extra: dict[str, Any] = field(default_factory=dict)
    skipped: bool = False
    replaced: list[str] = field(default_factory=list)

    def __repr__(self) -> str:
        """Show the job without its secrets: programs write this into their logs."""
        from queuectl.job.redact import masked

        long = ("output", "history")
        fields = {name: value for name, value in self.to_dict().items() if name not in long}
        shown = masked(fields, KNOWN) | masked({"command": self.command})
        return f"Job({', '.join(f'{name}={value!r}' for name, value in shown.items())})"

    @property
    def shown_command(self) -> str:
        """The command as text; a list is quoted as for a shell."""
        if isinstance(self.command, str):
            return self.command
        import shlex

        return shlex.join(self.command)

    @property
    def has_conditions(self) -> bool:
        """Whether it waits for the ends of other jobs."""
        return bool(self.after or self.after_any or self.after_failure)

    @property
    def runs_allowed(self) -> int:
        """How many times the command may run in total: max_retries, where 0 means 1."""
        return max(1, self.max_retries or 0)

    @property
    def runs(self) -> int:
        """How many times it has run in its whole life, whatever the results; the history may have fewer entries."""
        return len(self.history) + self.history_left_out

    @property
    def next_run(self) -> int:
        """The number of the run that is under way, or comes next; counted from 1 over the job's whole life."""
        return self.runs + 1

    def run_mark(self, run: int) -> str:
        """Return what distinguishes a run from all others: its number and the job's creation time in microseconds.

        A job that was deleted and enqueued again under the same id is another job.
        """
        return f"{run}.{times.micros(self.created_at or 0)}"

    def add_run(self, entry: dict[str, Any]) -> None:
        """Add a run to the history; a long history loses an entry in its middle."""
        self.history.append(entry)
        surplus = len(self.history) - FIRST_RUNS - LAST_RUNS
        if surplus > 0:
            del self.history[FIRST_RUNS : FIRST_RUNS + surplus]
            self.history_left_out += surplus

    def numbered_history(self) -> list[tuple[int, dict[str, Any]]]:
        """Return the entries of the history, each with the number of its run."""
        left_out = self.history_left_out
        return [
            (place if place <= FIRST_RUNS else place + left_out, entry)
            for place, entry in enumerate(self.history, 1)
        ]

    @property
    def has_recovered(self) -> bool:
        """Whether the last run ended well, and the one before had failed.

        A run that a stop of its worker ended has not failed. Nor has one whose worker died, unless the next one died, too.
        """
        if (
            len(self.history) < 2
            or self.not_run is not None
            or self.history[-1].get("outcome") != "succeeded"
        ):
            return False
        interrupted = 0
        for run in reversed(self.history[:-1]):
            end = run.get("outcome")
            if end == "interrupted":
                interrupted += 1
                if interrupted > 1:
                    return True
            elif end != "stopped":
                return end not in ("succeeded", "cancelled")
        return False

    @property
    def due_at(self) -> float | None:
        """The time before which it must not start: next_retry_at after a failed attempt, else run_at."""
        return self.next_retry_at if self.next_retry_at is not None else self.run_at

    def due_by(self, now: float) -> float | None:
        """The same as `due_at`, but a retry waits no longer than its wait from now, in epoch seconds.

        The last attempt ended in the future if the clock was set back since then. Without this, a job that failed while
        the clock was years ahead would wait for years.
        """
        ended, retry = self.finished_at, self.next_retry_at
        if ended is None or retry is None or not now < ended <= retry:
            return self.due_at
        return now + (retry - ended)

    def is_due(self, now: float) -> bool:
        """Return False if it must not start yet. After the clock was set back, the index knows when it is due."""
        was_set_back = self.finished_at is not None and now < self.finished_at <= (self.next_retry_at or 0)
        return was_set_back or (self.due_at or 0) <= now

    @property
    def waiting_state(self) -> str:
        """The state it has in pending/: failed if an attempt has failed and the next one has its time."""
        return "failed" if self.attempts and self.next_retry_at is not None else "pending"

    def fill_in(self, settings: object) -> None:
        """Copy the settings into the fields that are not given: later changes of the settings do not affect the job.

        Args:
            settings: an object with an attribute for each of DEFAULTED and OPTIONAL.
        """
        for name in (*DEFAULTED, *OPTIONAL):
            if getattr(self, name) is None:
                self.accept(name, getattr(settings, name))

    def accept(self, name: str, value: Any) -> None:
        """Take the value of a setting for a field that is not given, and remember whose limit the timeout is."""
        setattr(self, name, value)
        if name == "timeout":
            self.default_timeout = value

    @property
    def has_default_timeout(self) -> bool:
        """True if nobody has given it a timeout, so that it has the limit of the settings."""
        return self.default_timeout is not None and self.timeout == self.default_timeout

    @property
    def needs_settings(self) -> bool:
        """True if a field of DEFAULTED is not given, so that `fill_in` has to come before the job runs."""
        return None in _defaulted(self)

    def expired(self, now: float) -> bool:
        """Return True if it must not start any more at this time, in epoch seconds."""
        return self.expires_at is not None and now > self.expires_at

    def check_expiry(self) -> None:
        """Check that the job can start at all.

        Raises:
            InvalidJob: it expires before its run_at.
        """
        if self.run_at is not None and self.expired(self.run_at):
            raise InvalidJob("lies before run_at, so it could never start", field="expires_at")

    def renew(self, put_back: float) -> None:
        """Reset the job after somebody has put it back into the queue: no attempts yet, but the history is kept.

        Args:
            put_back: when that was, in epoch seconds. A job that had already expired then is meant to run, so
                expires_at is removed.
        """
        if self.expired(put_back):
            self.expires_at = None
        self.state = "pending"
        self.attempts = self.crashes = 0
        self.next_retry_at = self.last_error = self.exit_code = None
        self.started_at = self.finished_at = self.duration = self.output = self.worker = self.not_run = None

    def begin_run(self, started_at: float | None, worker: str) -> None:
        """Describe the run that is under way, and nothing of the end of the run before, which is in the history.

        Args:
            started_at: in epoch seconds; None: the job is claimed, and has not started.
        """
        self.started_at, self.worker = started_at, worker
        self.finished_at = self.duration = self.exit_code = None
        self.next_retry_at = self.last_error = self.output = None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as in the file: times as text, and without those that are None."""
        record: dict[str, Any] = {}
        for name, value in zip(_NAMES, _values(self), strict=True):
            if value is None or (name in _BLANK_IS_DEFAULT and not value):
                continue
            record[name] = times.iso(value) if name in _MOMENTS else value
        record.update(self.extra)
        return record

    def to_bytes(self) -> bytes:
        """Return the content of the file: indented JSON in UTF-8 with a newline at the end."""
        record = self.to_dict()
        if "orjson" not in sys.modules and (text := _simple_json(record)):
            return text.encode()
        return fast_json.dumps(record, option=fast_json.OPT_INDENT_2 | fast_json.OPT_APPEND_NEWLINE)


def _simple_json(record: Mapping[Any, Any]) -> str | None:
    """Return what orjson would write, or None for values other than printable text and small integers.

    `enqueue TEXT` uses this: importing orjson takes longer than enqueueing a job.
    """
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


NOT_IN_FILE = ("extra", "skipped", "replaced")
"""Attributes of Job that are not fields of a file."""

_NAMES = tuple(name for name in Job.__match_args__ if name not in NOT_IN_FILE)
_values = attrgetter(*_NAMES)
_defaulted = attrgetter(*DEFAULTED)
_MOMENTS = frozenset(
    {"run_at", "created_at", "updated_at", "started_at", "finished_at", "next_retry_at", "expires_at"}
)
_BLANK_IS_DEFAULT = frozenset({"id", "crashes", "history_left_out", "history", "hold"})
FIELDS = _NAMES
"""The names of the fields of a file, in their order."""

KNOWN = frozenset(_NAMES)
"""The names of all fields that queuectl knows."""

PRODUCER_FIELDS = _NAMES[: _NAMES.index("state")]
"""The fields that a producer may give."""


_NOT_MEASURED = frozenset(
    {*_NAMES[_NAMES.index("state") :], *DEFAULTED, *OPTIONAL, "id", "hold", "run_at", "expires_at"}
)
"""Fields that queuectl itself writes or fills in. Each is of limited size, whatever becomes of the job."""


def check_size(job: Job, written: int | None = None) -> None:
    """Refuse a job that is too large.

    Measured are the producer's own fields, as queuectl writes them, and not the text in which they came. So a job that
    was accepted once fits at each later step: when its defaults are filled in, when it is held, after its runs.

    Args:
        written: the bytes of its file as queuectl writes it, if they are known: a small file need not be measured.

    Raises:
        InvalidJob: it is too large.
    """
    if written is not None and written <= SIZE_LIMIT:
        return
    fields = {name: value for name, value in job.to_dict().items() if name not in _NOT_MEASURED}
    size = len(fast_json.dumps(fields, option=fast_json.OPT_INDENT_2))
    if size > SIZE_LIMIT:
        raise InvalidJob(f"too large: {size} bytes, and the limit is {SIZE_LIMIT}")


def parse(data: bytes) -> Job:
    """Read a job from the content of a file.

    Raises:
        InvalidJob: with the field, if one is wrong, and the reason in plain words.
    """
    from queuectl.job.strict_json import load_object

    return from_mapping(load_object(data))


def parse_own(data: bytes) -> Job:
    """Read a job from content that queuectl has written and nobody has changed since; the fields are not checked again.

    Raises:
        InvalidJob: it is not a job.
    """
    try:
        record = fast_json.loads(data)
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
    """Make a job from decoded JSON or YAML, and check every known field; null means not given.

    Raises:
        InvalidJob: with the first wrong field, and the reason in plain words.
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
        meant = [name for name in record if name.strip("_-").lower() in _MEANT_AS_COMMAND]
        slip = f"; {meant[0]!r} is not known, call it command" if meant else ""
        raise InvalidJob(f"missing: it says what to run{slip}", field="command")
    return job


_MEANT_AS_COMMAND = frozenset(
    {"cmd", "command", "commands", "exec", "run", "script", "cmdline", "command_line"}
)
