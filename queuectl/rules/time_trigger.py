"""Reads the `when:` of a rule with a time: cron, every or at, and what goes with it. Pure."""

from __future__ import annotations

from datetime import datetime, tzinfo
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from queuectl.fast_start.dataclass import dataclass
from queuectl.job import times
from queuectl.rules import occurrences, when_fields
from queuectl.rules.occurrences import At, Cron, Every, Within
from queuectl.rules.rule import Wrong

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from queuectl.rules.occurrences import Schedule

KINDS = ("cron", "every", "at")
"""The keys of `when` that say that a rule has a time."""

MISSED = ("once", "skip", "all")
OVERLAP = ("skip", "queue", "replace", "allow")
KEYS = ("timezone", "missed", "grace", "overlap", "jitter", "from", "until")
"""What may stand beside one of KINDS."""

GRACE = 60.0
"""Seconds that a moment may be late with `missed: skip`, if the rule says nothing else."""

MOST_MOMENTS = 10_000
"""The most moments of `at`."""


@dataclass(frozen=True, slots=True)
class TimeTrigger:
    """When a rule is due.

    Attributes:
        timezone: None: the machine's.
        missed: what is done with moments at which no worker lived: once, skip or all.
        grace: seconds that a moment may be late with `skip`.
        overlap: what is done while an earlier job of the rule is not over: skip, queue, replace or allow.
        jitter: the longest delay in seconds.
        tell: returns what it says. Working that out takes as long as all the rest, and workers never ask.
    """

    schedule: Schedule
    timezone: tzinfo | None
    missed: str
    grace: float
    overlap: str
    jitter: float
    tell: Callable[[], str]

    @property
    def words(self) -> str:
        """What it says, as an English sentence without its end."""
        told = self.tell()
        return told if self.timezone is None else f"{told} ({self.timezone})"

    @property
    def follows_machine(self) -> bool:
        """Whether the moments depend on the time zone of the machine."""
        inner = self.schedule.schedule if isinstance(self.schedule, Within) else self.schedule
        return isinstance(inner, Cron) and self.timezone is None


def read(when: Mapping[str, Any], kind: str) -> TimeTrigger:
    """Read `when` of a rule.

    Args:
        kind: the one of KINDS that it has.

    Raises:
        Wrong: a value is wrong, or not known.
    """
    when_fields.refuse_unknown(when, kind, KEYS)
    zone = when_fields.value_of(when, "timezone", read_zone)
    first, last = (
        when_fields.value_of(when, name, lambda value: _moment(value, zone), default=None)
        for name in ("from", "until")
    )
    if first is not None and last is not None and last < first:
        raise Wrong(("when", "until"), "lies before from")
    schedule, tell = _schedule(when, kind, zone, first)
    if first is not None or last is not None:
        schedule = Within(schedule, first, last)
    return TimeTrigger(
        schedule=schedule,
        timezone=zone,
        missed=when_fields.value_of(when, "missed", _one_of(MISSED), default="once"),
        grace=when_fields.value_of(when, "grace", times.parse_duration, default=GRACE),
        overlap=when_fields.value_of(when, "overlap", _one_of(OVERLAP), default="skip"),
        jitter=when_fields.value_of(when, "jitter", times.parse_duration, default=0.0),
        tell=tell,
    )


def read_zone(value: object) -> tzinfo:
    """Return a time zone by its name, like Europe/Berlin.

    Raises:
        ValueError: there is none of this name; the message suggests one.
    """
    from zoneinfo import ZoneInfo, available_timezones

    if not isinstance(value, str):
        raise ValueError("must be the name of a zone, like Europe/Berlin")
    try:
        return ZoneInfo(value)
    except (ValueError, OSError, KeyError):  # a folder of zones, a path that leads out of them, no such zone
        known = sorted(available_timezones())
    if not known:
        raise ValueError("no zone is known here; is tzdata installed? pip install tzdata")
    same = [name for name in known if name.rpartition("/")[2].lower() == value.lower()]
    near = (same or get_close_matches(value, known, n=1) or [""])[0]
    meant = f"; is {near} meant?" if near else "; write it like Europe/Berlin (is tzdata installed?)"
    raise ValueError(f"no zone is called {times.short(value)[1:-1]}{meant}")


def _one_of(words: tuple[str, ...]) -> Callable[[object], str]:
    def check(value: object) -> str:
        if value not in words:
            raise ValueError(f"must be {', '.join(words[:-1])} or {words[-1]}")
        return str(value)

    return check


def _moment(value: object, zone: tzinfo | None) -> int:
    """Read a moment. Without an offset it is one of the rule's zone."""
    if times.without_zone(value):
        local = datetime.fromisoformat(str(value).strip())
        return int(
            times.within_years(local.replace(tzinfo=zone or occurrences.of_machine()).timestamp(), value)
        )
    return int(times.parse_moment(value))


def _schedule(
    when: Mapping[str, Any], kind: str, zone: tzinfo | None, first: int | None
) -> tuple[Schedule, Callable[[], str]]:
    value = when[kind]
    if kind == "every":
        span = when_fields.value_of(when, kind, when_fields.whole_span)
        return Every(span, first or 0), lambda: f"every {in_words(span)}"
    if kind == "at":
        moments = sorted({_element("at", number, one, zone) for number, one in _listed("at", value)})
        return At(tuple(moments)), lambda: f"at {len(moments)} moment{'s' if len(moments) > 1 else ''}"
    expressions = [_expression(number, one) for number, one in _listed("cron", value)]
    return Cron(tuple(expressions), zone), lambda: " and ".join(map(occurrences.cron_in_words, expressions))


def _listed(kind: str, value: object) -> list[tuple[int | None, object]]:
    """Return the values of a list with their numbers, or one value without a number."""
    if not isinstance(value, list):
        return [(None, value)]
    if not value:
        raise Wrong(("when", kind), "is an empty list")
    if len(value) > MOST_MOMENTS:
        raise Wrong(("when", kind), f"has more than {MOST_MOMENTS} values")
    return [*enumerate(value)]


def _path(kind: str, number: int | None) -> tuple[str | int, ...]:
    return ("when", kind) if number is None else ("when", kind, number)


def _element(kind: str, number: int | None, value: object, zone: tzinfo | None) -> int:
    try:
        return _moment(value, zone)
    except ValueError as error:
        raise Wrong(_path(kind, number), str(error)) from None


def _expression(number: int | None, value: object) -> str:
    try:
        return occurrences.checked_cron(value)
    except ValueError as error:
        raise Wrong(_path("cron", number), str(error)) from None


def in_words(span: int) -> str:
    """Return a span of whole seconds in words: minute, 90 seconds."""
    for unit, size in (("week", 604800), ("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1)):
        if span % size == 0:
            number = span // size
            return unit if number == 1 else f"{number} {unit}s"
    raise AssertionError(span)
