"""The moments at which a rule with a time is due: by cron expressions, at equal distances, or one by one. Pure.

The only import of cronsim. Moments are whole epoch seconds.

Cron expressions follow Debian's cron in the nights in which the clock is changed: a fixed time that is left out comes
right after the gap, one that comes twice counts once, and what runs each hour runs in both hours.
"""

from __future__ import annotations

import heapq
import re
from datetime import UTC, datetime, tzinfo
from itertools import islice
from typing import TYPE_CHECKING, Protocol

from cronsim import CronSim, CronSimError

from queuectl.fast_start.dataclass import dataclass
from queuectl.job import zone

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MOST = 1000
"""The most moments that are counted, or caught up."""

_NICKNAMES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_FIELDS = ("minute", "hour", "day-of-month", "month", "day-of-week")
_CHANGE = 3 * 3600
"""Seconds before and after a change of the clock in which a local time may be that of another moment."""

_LAST_SECOND = 253_402_300_799
"""The last second of the year 9999, after which there are no dates."""


class Schedule(Protocol):
    """When something is due."""

    def after(self, moment: int) -> Iterator[int]:
        """Yield the moments later than this one, the earliest first."""

    def before(self, moment: int) -> Iterator[int]:
        """Yield this moment, if it is one of them, and the earlier ones, the latest first."""


def of_machine() -> tzinfo:
    """Return the time zone of the machine as it is now."""
    if zone.HAS_FILE:
        return zone.of_machine()
    return datetime.now().astimezone().tzinfo or UTC


def checked_cron(text: object) -> str:
    """Return a cron expression in the form that `Cron` takes.

    Raises:
        ValueError: it is none, or no day is like that; the reason in plain words.
    """
    if not isinstance(text, str) or not text.strip():
        raise ValueError("must be text like '0 2 * * *': minute hour day month weekday")
    found = _NICKNAMES.get(text.strip().lower(), text)
    parts = found.split()
    if found.lstrip().startswith("@"):
        raise ValueError(f"{found.strip()[:40]} is not known: write {' '.join(_NICKNAMES)}, or '0 2 * * *'")
    if len(parts) != len(_FIELDS):
        has = f"has {len(parts)} field{'' if len(parts) == 1 else 's'}; 5 are wanted: minute hour day month weekday"
        raise ValueError(f"{has}{'. For seconds: every' if len(parts) == 6 else ''}")
    expression = " ".join(parts)
    _refuse_wrong(expression)
    return expression


def _refuse_wrong(expression: str) -> None:
    try:
        next(CronSim(expression, datetime(2024, 1, 1, tzinfo=UTC)))
    except CronSimError as error:
        if _is_impossible_day(expression):
            raise ValueError("no day is like that") from None
        reason = re.sub("^Bad", "bad", str(error))
        raise ValueError(f"{reason} in {expression[:80]!r}") from None
    except StopIteration:
        raise ValueError("no day is like that") from None


def _is_impossible_day(expression: str) -> bool:
    """Whether the day of the month would be right in another month."""
    parts = expression.split()
    parts[3] = "*"
    try:
        CronSim(" ".join(parts), datetime(2024, 1, 1, tzinfo=UTC))
        month = f"* * * {expression.split()[3]} *"
        CronSim(month, datetime(2024, 1, 1, tzinfo=UTC))
    except CronSimError:
        return False
    return True


def cron_in_words(expression: str) -> str:
    """Return what a cron expression says, as an English sentence without its end."""
    text = CronSim(expression, datetime(2024, 1, 1, tzinfo=UTC)).explain()
    return text[:1].lower() + text[1:]


@dataclass(frozen=True, slots=True)
class Cron:
    """By cron expressions in a time zone; a moment that several of them name counts once.

    Attributes:
        expressions: as `checked_cron` returns them.
        timezone: None: the machine's, also after that has changed.
    """

    expressions: tuple[str, ...]
    timezone: tzinfo | None = None

    def after(self, moment: int) -> Iterator[int]:
        """Yield the moments later than this one, the earliest first."""
        local = self._local(moment)
        found = heapq.merge(*(self._moments(one, local, reverse=False) for one in self.expressions))
        last = moment
        for at in found:
            # In the second of two equal hours cronsim begins with the first of them, which has passed.
            if at > last:
                last = at
                yield at

    def before(self, moment: int) -> Iterator[int]:
        """Yield this moment, if it is one of them, and the earlier ones, the latest first."""
        here, later = self._local(moment), self._local(moment + _CHANGE)
        earlier = self._local(max(0, moment - _CHANGE))
        is_near_change = earlier.utcoffset() != later.utcoffset()
        # A fixed time of the first of two equal hours may be later on the clock than the present in the second one.
        local = later if is_near_change else self._local(moment + 1)
        found = heapq.merge(
            *(self._moments(one, local, reverse=True) for one in self.expressions), reverse=True
        )
        last = int(here.timestamp()) + 1
        for at in found:
            if at < last:
                last = at
                yield at

    def _local(self, moment: int) -> datetime:
        return datetime.fromtimestamp(moment, self.timezone or of_machine())

    @staticmethod
    def _moments(expression: str, start: datetime, *, reverse: bool) -> Iterator[int]:
        steps = CronSim(expression, start, reverse=reverse)
        while True:
            try:
                at = int(next(steps).timestamp())
            except (StopIteration, OverflowError, ValueError):
                return  # no such day within 50 years, or the end of the calendar
            if at < 0:
                return
            yield at


@dataclass(frozen=True, slots=True)
class Every:
    """At equal distances of real time, in seconds. The moments lie where they lie, whoever has been restarted since.

    Attributes:
        start: a moment from which the distances are counted. There is none before it.
    """

    span: int
    start: int = 0

    def after(self, moment: int) -> Iterator[int]:
        """Yield the moments later than this one, the earliest first."""
        at = max(self.start, self.start + ((moment - self.start) // self.span + 1) * self.span)
        while at <= _LAST_SECOND:
            yield at
            at += self.span

    def before(self, moment: int) -> Iterator[int]:
        """Yield this moment, if it is one of them, and the earlier ones, the latest first."""
        at = self.start + ((moment - self.start) // self.span) * self.span
        while at >= self.start:
            yield at
            at -= self.span


@dataclass(frozen=True, slots=True)
class At:
    """At some moments, which are in ascending order."""

    moments: tuple[int, ...]

    def after(self, moment: int) -> Iterator[int]:
        """Yield the moments later than this one, the earliest first."""
        return (at for at in self.moments if at > moment)

    def before(self, moment: int) -> Iterator[int]:
        """Yield this moment, if it is one of them, and the earlier ones, the latest first."""
        return (at for at in reversed(self.moments) if at <= moment)


@dataclass(frozen=True, slots=True)
class Within:
    """Those moments of another schedule that lie within a period. Both ends belong to it; None: no end."""

    schedule: Schedule
    first: int | None = None
    last: int | None = None

    def after(self, moment: int) -> Iterator[int]:
        """Yield the moments later than this one, the earliest first."""
        start = moment if self.first is None else max(moment, self.first - 1)
        for at in self.schedule.after(start):
            if self.last is not None and at > self.last:
                return
            yield at

    def before(self, moment: int) -> Iterator[int]:
        """Yield this moment, if it is one of them, and the earlier ones, the latest first."""
        for at in self.schedule.before(moment if self.last is None else min(moment, self.last)):
            if self.first is not None and at < self.first:
                return
            yield at


def between(schedule: Schedule, after: int, until: int) -> list[int]:
    """Return the last moments later than `after` and not later than `until`, in order; at most MOST."""
    found: list[int] = []
    for at in islice(schedule.before(until), MOST):
        if at <= after:
            break
        found.append(at)
    return found[::-1]


def first(moments: Iterable[int]) -> int | None:
    """Return the first of some moments; None if there is none."""
    return next(iter(moments), None)


def text_of(moment: int) -> str:
    """Return an occurrence as it stands in the id of its job: the moment in UTC, like 20310101T010000Z."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y%m%dT%H%M%SZ")


def scheduled_for(moment: int, timezone: tzinfo | None) -> str:
    """Return an occurrence as ISO 8601 with the offset of a zone; None: the machine's."""
    return datetime.fromtimestamp(moment, timezone or of_machine()).isoformat()
