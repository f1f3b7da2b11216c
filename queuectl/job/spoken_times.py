"""Times as people type them: `tomorrow 02:00`, `18:00`, `+1h`, `now`, `yesterday`, `friday 9am`.

Only for what is typed on the command line: it is read once, at that moment. A job file is read many times, so there
`tomorrow` would be another day each day.

No library: those that read such words guess what they do not know, and take longer to import than `enqueue` takes.
"""

from __future__ import annotations

import re
from datetime import date, datetime, timedelta
from datetime import time as clock_time

from queuectl.job import times

_DAYS = {"yesterday": -1, "today": 0, "tomorrow": 1}
_WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_CLOCK = re.compile(r"(?:at )?([0-9]{1,2})(?::([0-9]{2}))?(?::([0-9]{2}))? ?(am|pm)?", re.ASCII)
_NAMED = {"midnight": clock_time(0), "noon": clock_time(12)}
_DAY_AND_CLOCK = re.compile(r"([a-z]+|[0-9]{4}-[0-9]{2}-[0-9]{2})(?:,? (.+))?", re.ASCII)
FORMS = "write it like 18:00, tomorrow 02:00, +1h, or 2026-12-31T18:00"


def read_moment(text: str, now: float, *, past: bool = False) -> float:
    """Read a time as it is typed, by the caller's clock, and return epoch seconds.

    Args:
        now: the present, in epoch seconds.
        past: a time of day, a weekday or a length of time means the last one, as in `--since 18:00` or `--since 2h`;
            else the next one.

    Raises:
        ValueError: with the reason in plain words.
    """
    typed = " ".join(text.lower().split())
    found = _now(typed, now)
    if found is None:
        found = _span(" ".join(text.split()), now, past=past)
    if found is None:
        found = _on_clock(typed, now, past=past)
    if found is not None:
        return times.within_years(found, text)
    try:
        return times.parse_moment(text)
    except ValueError as error:
        if "is not a time" in str(error):
            raise ValueError(f"{times.short(text)} is not a time: {FORMS}") from None
        raise


def _now(typed: str, now: float) -> float | None:
    return now if typed == "now" else None


def _span(typed: str, now: float, *, past: bool) -> float | None:
    """Read +1h, -1h, 1h30m, in 2h, 2h ago; None if it is no length of time. A number alone has no unit."""
    sign = -1 if past else 1
    if typed[:1] in {"+", "-"}:
        sign, typed = (1 if typed[0] == "+" else -1), typed[1:].strip()
    elif typed.lower().startswith("in "):
        sign, typed = 1, typed[3:]
    elif typed.lower().endswith(" ago"):
        sign, typed = -1, typed[:-4]
    elif not re.search(r"[a-zA-Z]", typed):
        return None
    try:
        return now + sign * times.parse_duration(typed)
    except ValueError:
        return None


def _on_clock(typed: str, now: float, *, past: bool) -> float | None:
    """Read a day, a time of day, or both; None if it is neither."""
    today = datetime.fromtimestamp(now).date()
    clock = _clock(typed)
    if clock is not None:
        days = [today + timedelta(days) for days in (-1, 0, 1)]
        return _nearest([moment for day in days for moment in _both(day, clock)], now, past=past)
    match = _DAY_AND_CLOCK.fullmatch(typed)
    if not match:
        return None
    clock = clock_time(0) if match[2] is None else _clock(match[2])
    if clock is None:
        return None
    if match[1] in _DAYS:
        return _both(today + timedelta(_DAYS[match[1]]), clock)[0]
    if match[1][0].isdigit():
        try:
            return _both(date.fromisoformat(match[1]), clock)[0]
        except ValueError:
            return None
    weekday = next((i for i, name in enumerate(_WEEKDAYS) if match[1] in (name, name[:3])), None)
    if weekday is None:
        return None
    first = today + timedelta(weekday - today.weekday())
    return _nearest([_both(first + timedelta(days), clock)[0] for days in (-7, 0, 7)], now, past=past)


def _clock(typed: str) -> clock_time | None:
    """Read 18:00, 6pm, 6:30 pm, noon; None if it is no time of day. A number alone is none: 18 may be anything."""
    if typed.removeprefix("at ") in _NAMED:
        return _NAMED[typed.removeprefix("at ")]
    match = _CLOCK.fullmatch(typed)
    if not match or not (match[2] or match[4]):
        return None
    hour = int(match[1])
    if match[4]:
        if not 1 <= hour <= 12:
            return None
        hour = hour % 12 + (12 if match[4] == "pm" else 0)
    try:
        return clock_time(hour, int(match[2] or 0), int(match[3] or 0))
    except ValueError:
        return None


def _both(day: date, clock: clock_time) -> list[float]:
    """Return the moments at which the caller's clock shows this: two in the hour that comes twice in autumn.

    In the hour that spring leaves out it is as much later, as PEP 495 and cron have it: 02:30 is 03:30.
    """
    shown = datetime.combine(day, clock)
    first, second = shown.timestamp(), shown.replace(fold=1).timestamp()
    return [first, second] if second > first else [first]


def _nearest(moments: list[float], now: float, *, past: bool) -> float:
    if past:
        return max(moment for moment in moments if moment <= now)
    return min(moment for moment in moments if moment >= now)
