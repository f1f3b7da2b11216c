"""The file of one queue, `queues/NAME.yaml`: its limits, and the defaults that its jobs get; read with care, and changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from queuectl.config import cluster, file, keys
from queuectl.errors import ConfigError
from queuectl.fast_start.dataclass import dataclass, field
from queuectl.job import times
from queuectl.job.record import DEFAULTED, OPTIONAL

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from queuectl.layout import Layout

MOST_AT_A_TIME = 1000
"""The largest limit."""

MOST_STARTS = 10_000
"""The most starts of a rate. Each is remembered for the span."""

_LONGEST_REASON = 300
"""Characters. A reason shows the wrong value, which may be as long as the file."""

_WRITTEN_LIKE = "write it like 100/1h: so many starts in any such span"
_SPANS = (("w", 604800), ("d", 86400), ("h", 3600), ("m", 60), ("s", 1))


@dataclass(frozen=True, slots=True)
class Rate:
    """At most so many starts in any span of so many seconds."""

    starts: int
    span: float

    def __str__(self) -> str:
        """Return the rate as in a file: 100/1h."""
        unit, size = next(
            ((unit, size) for unit, size in _SPANS if self.span % size == 0),
            ("ms", 0.001) if self.span < 1 else ("s", 1),
        )
        return f"{self.starts}/{self.span / size:g}{unit}"


@dataclass(frozen=True, slots=True)
class QueueSettings:
    """The settings of one queue. A queue without a file has no limits and no defaults of its own.

    Attributes:
        limit: the most jobs that run at a time; None: no limit.
        rate: the most starts in a span; None: no limit.
        defaults: the values that its jobs get for fields which they leave out, by the name of the field.
        engine: where its jobs run; None: where the settings of the spool say.
        partition: the part of the cluster in which its jobs run; None: the cluster's default.
        options: those for sbatch, besides the ones of the settings; None: no others.
    """

    name: str
    limit: int | None = None
    rate: Rate | None = None
    defaults: Mapping[str, Any] = field(default_factory=dict)
    engine: str | None = None
    partition: str | None = None
    options: list[str] | None = None

    @property
    def placement(self) -> dict[str, Any]:
        """What is set of engine, partition and options, by key."""
        given = {name: getattr(self, name) for name in PLACEMENT}
        return {name: value for name, value in given.items() if value is not None}

    def as_dict(self) -> dict[str, Any]:
        """Return what is set, by key, as in the file; the rate is text."""
        own = {"limit": self.limit, "rate": None if self.rate is None else str(self.rate)}
        return {
            name: value
            for name, value in {**own, **self.placement, **self.defaults}.items()
            if value is not None
        }


PLACEMENT: Mapping[str, Callable[[object], Any]] = {
    "engine": cluster.engine,
    "partition": cluster.partition,
    "options": cluster.options,
}
"""The keys that say where the jobs of a queue run, with their checks."""

JOB_KEYS = (*DEFAULTED, *OPTIONAL)
"""The fields of jobs for which a queue can have a default."""

KEYS = ("limit", "rate", *PLACEMENT, *JOB_KEYS)
"""What a file of a queue can set."""


def parse_rate(value: object) -> Rate:
    """Read a rate like 100/1h.

    Raises:
        ValueError: it is none; the reason in plain words.
    """
    starts, slash, span = value.partition("/") if isinstance(value, str) else ("", "", "")
    starts, span = starts.strip(), span.strip()
    if not slash or not (starts.isascii() and starts.isdigit() and len(starts) < 10) or not span:
        raise ValueError(_WRITTEN_LIKE)
    try:
        seconds = times.parse_duration(span)
    except ValueError:
        raise ValueError(_WRITTEN_LIKE) from None
    if not 1 <= int(starts) <= MOST_STARTS:
        raise ValueError(f"must be 1 to {MOST_STARTS} starts, not {int(starts)}")
    if seconds <= 0:
        raise ValueError("the span must be longer than 0")
    return Rate(int(starts), int(seconds) if seconds.is_integer() else seconds)


def _limit(queue: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"must be a whole number from 1 to {MOST_AT_A_TIME}, not {times.short(value)}")
    if value == 0:
        raise ValueError(f"must be 1 to {MOST_AT_A_TIME}; to stop it: queuectl pause --queue {queue}")
    if not 1 <= value <= MOST_AT_A_TIME:
        raise ValueError(f"must be 1 to {MOST_AT_A_TIME}, not {times.short(value)}")
    return value


def check(queue: str, key: str, value: object) -> Any:
    """Check the value of one key, and return the converted one; None if it is not set.

    Raises:
        ValueError: with the reason in plain words.
    """
    if value is None or (key not in DEFAULTED and isinstance(value, str) and value.strip().lower() == "none"):
        return None
    if key in PLACEMENT:
        return PLACEMENT[key](value)
    # A few lines of YAML can hold a list that is larger than the memory when it is written out in a message.
    if isinstance(value, dict) or (
        isinstance(value, list) and not all(isinstance(one, int) for one in value)
    ):
        raise ValueError("must be a plain value, not a list or a map")
    if key == "limit":
        return _limit(queue, value)
    return parse_rate(value) if key == "rate" else keys.KEYS[key].check(value)


def key_named(text: str) -> str:
    """Return a key from any spelling of it.

    Raises:
        ValueError: a queue has no such key; the message suggests a similar one.
    """
    name = file.key_of(text)
    if name not in KEYS:
        raise ValueError(f"unknown key {times.short(text)}{keys.nearest(name, KEYS)}")
    return name


def load(layout: Layout, queue: str) -> QueueSettings:
    """Read the file of a queue.

    A wrong key is an error here: with `limti: 2` the queue would have no limit.

    Raises:
        ConfigError: the file cannot be read or parsed, or something in it is wrong; with the file, the line and the reason.
    """
    path = layout.queue_file(queue)
    return _parsed(path, file.read(path), queue)


def _parsed(path: str, text: str, queue: str) -> QueueSettings:
    found: dict[str, Any] = {}
    for entry in file.entries(path, text):
        where = file.place(path, entry.line)
        try:
            key = key_named(entry.name)
        except ValueError as error:
            raise ConfigError(f"{where}: {error}", hint="queuectl guide queues") from None
        if key in found:
            raise ConfigError(f"{where}: {key} stands twice", hint="queuectl guide queues")
        try:
            found[key] = check(queue, key, entry.value)
        except ValueError as error:
            reason = str(error)[:_LONGEST_REASON]
            raise ConfigError(f"{where}: {key}: {reason}", hint="queuectl guide queues") from None
    limit, rate = found.pop("limit", None), found.pop("rate", None)
    place = {name: found.pop(name, None) for name in PLACEMENT}
    given = {name: value for name, value in found.items() if value is not None}
    return QueueSettings(queue, limit, rate, given, **place)


def change(layout: Layout, queue: str, changes: Mapping[str, object]) -> QueueSettings:
    """Change keys in the file of a queue; comments and the order of lines are kept. Without a file, one is made.

    Nothing is written if the file would not be valid then.

    Args:
        changes: the new value of each key, as typed or as in a file; None removes the key.

    Returns:
        the settings of the queue as they are now.

    Raises:
        ConfigError: an unknown key, a wrong value, or a file that cannot be read or changed.
        SpoolError: the disk refused.
    """
    from queuectl.config.change import as_written, change_file, typed_value

    written: dict[str, object] = {}
    for name, value in changes.items():
        try:
            key = key_named(name)
        except ValueError as error:
            raise keys.mistyped(str(error), hint="queuectl guide queues") from None
        try:
            is_typed = isinstance(value, str) and key not in ("retry_on", "give_up_on", *PLACEMENT)
            typed = typed_value(value) if is_typed else value  # type: ignore[arg-type]  # text, if it is typed
            made = check(queue, key, typed)
        except ValueError as error:
            raise keys.mistyped(f"{key}: {error}") from None
        written[key] = (
            made if made is None else str(made) if isinstance(made, Rate) else as_written(typed, made)
        )
    layout.create()
    path = layout.queue_file(queue)
    change_file(layout, path, written, lambda text: _parsed(path, text, queue))
    return load(layout, queue)
