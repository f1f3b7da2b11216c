"""Reads and writes times and durations as text. Inside queuectl, times are epoch seconds (float)."""

from __future__ import annotations

import time
from functools import lru_cache

TYPE_CHECKING = False
if TYPE_CHECKING:
    from datetime import datetime

_BLANK = " \t\n\r\f\v"
_NUMBER = r"[0-9]+(?:\.[0-9]+)?"
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
LONG_UNITS = {
    "ms": ("millisecond", "milliseconds"),
    "s": ("sec", "secs", "second", "seconds"),
    "m": ("min", "mins", "minute", "minutes"),
    "h": ("hr", "hrs", "hour", "hours"),
    "d": ("day", "days"),
    "w": ("week", "weeks"),
}
EARLIEST_NUMBER = 978307200.0  # 2001-01-01: as epoch seconds, smaller numbers are most likely something else
_INFINITY = float("inf")
LATEST = 253402300799.0  # 9999-12-31T23:59:59Z: datetime cannot write later times


@lru_cache(maxsize=8)
def iso(moment: float) -> str:
    """Return epoch seconds as UTC ISO 8601 with exactly six decimals: sorted as text, such times are in order.

    The fraction is computed on its own: after the year 2255, a float cannot hold seconds and microseconds together.
    """
    whole, micros = int(moment), round(moment % 1 * 1e6)
    if micros == 1_000_000:
        whole, micros = whole + 1, 0
    return f"{second(whole)}.{micros:06d}Z"


@lru_cache(maxsize=64)
def second(whole: int) -> str:
    """Return whole epoch seconds as UTC text without the Z. Cached: most times in a job are within the same second."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole))


def local(moment: float) -> str:
    """Return epoch seconds as text in the local time zone, to the second, for tables."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment))


def with_zone(moment: float, *, of_machine: bool = False) -> str:
    """Return epoch seconds as local time with its zone: 2027-03-28 03:30:00 CEST (+02:00), or UTC.

    Args:
        of_machine: in the machine's zone; else in that of this process.
    """
    from datetime import datetime

    from queuectl.job import zone

    when = datetime.fromtimestamp(moment, zone.of_machine() if of_machine and zone.HAS_FILE else None)
    when = when if when.tzinfo else when.astimezone()
    name, offset = when.strftime("%Z"), when.strftime("%z")
    offset = f"{offset[:3]}:{offset[3:5]}"
    shown = f"{when:%Y-%m-%d %H:%M:%S}"
    return (
        f"{shown} UTC"
        if name == "UTC"
        else f"{shown} {name} ({offset})"
        if name.isalpha()
        else f"{shown} {offset}"
    )


def parse_moment(value: object, *, of_machine: bool = False) -> float:
    """Read ISO 8601 text or epoch seconds, and return epoch seconds.

    Args:
        of_machine: text without an offset means the time of the machine's zone; else that of this process, which TZ
            may change. Each reader of a job file has to find the same moment, whatever its TZ.

    Raises:
        ValueError: with the reason in plain words.
    """
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError("must be ISO 8601 text or epoch seconds")
    if isinstance(value, str):
        text = value.strip()
        try:
            if len(text) == 27 and text[26] == "Z":  # most likely written by queuectl
                return _from_ours(text)
            moment = _parse_text(text, of_machine=of_machine)
        except _TooEarly:
            raise
        except (ValueError, OverflowError, OSError):
            raise ValueError(
                f"{short(value)} is not a time: write it like 2026-12-31T18:00:00Z, or as epoch seconds"
            ) from None
    else:
        moment = _number(finite(value), value)
    return within_years(moment, value)


def within_years(moment: float, value: object) -> float:
    """Return a moment, rounded to microseconds.

    Args:
        value: how it was written, for the message.

    Raises:
        ValueError: it is before 1970 or after 9999, so it could not be written.
    """
    if not 0 <= moment <= LATEST:
        raise ValueError(f"{short(value)} is outside the years 1970 to 9999")
    return round(moment, 6)


class _TooEarly(ValueError):
    """A number that somebody most likely did not mean as epoch seconds."""


def _number(moment: float, value: object) -> float:
    """Refuse 1830 or 60: as epoch seconds they are in 1970, and the job would start at once.

    0 is allowed: programs write it for `at once`, and no person means a time of day by it.
    """
    if 0 < moment < EARLIEST_NUMBER:
        raise _TooEarly(
            f"{short(value)} is too small for epoch seconds, it would be in {second(int(moment))[:4]}: "
            "write the time like 2026-12-31T18:30:00Z"
        )
    return moment


def micros_of(text: object) -> int:
    """Read a time as queuectl writes it, and return microseconds: faster than parse_moment, for very many files.

    Raises:
        ValueError: it is written in another way, or is no text.
    """
    # Asked, and not tried: a part of a mapping is a TypeError, and since Python 3.12 a KeyError.
    if not isinstance(text, str):
        raise ValueError("no text")
    fraction = text[20:26]
    if (
        len(text) != 27
        or text[19] != "."
        or text[26] != "Z"
        or not (fraction.isascii() and fraction.isdigit())
    ):
        raise ValueError("not as queuectl writes it")
    return _whole(text[:19]) * 1_000_000 + int(fraction)


@lru_cache(maxsize=64)
def _whole(text: str) -> int:
    """Return the epoch seconds of a UTC time without a fraction. Cached: many files of a list have the same second."""
    return int(_at(f"{text}+00:00").timestamp())


def _parse_text(text: str, *, of_machine: bool) -> float:
    import re

    if re.fullmatch(r"[0-9]+(\.[0-9]+)?", text, re.ASCII) and not re.fullmatch(r"[0-9]{8}", text, re.ASCII):
        return _number(float(text), text)
    when = _at(text)
    if of_machine and when.tzinfo is None:
        from queuectl.job import zone

        return zone.timestamp(when)
    return when.timestamp()  # not astimezone(): that is an hour early in the hour that spring leaves out


def without_zone(value: object) -> bool:
    """Return True if this is the text of a time that has no offset, so that it depends on a zone."""
    try:
        return isinstance(value, str) and not value.strip().isdigit() and _at(value.strip()).tzinfo is None
    except ValueError:
        return False


@lru_cache(maxsize=8)
def _from_ours(text: str) -> float:
    """Read a time as queuectl writes it. Cached: a file has two or three times, and most of them are equal."""
    return _at(text).timestamp()


def _at(text: str) -> datetime:
    from datetime import datetime

    return datetime.fromisoformat(text)


def parse_duration(value: object) -> float:
    """Read a duration, as a number or as text with units (30, "30s", "10m", "1h30m", "2h 5m", "7d"), in seconds.

    Raises:
        ValueError: with the reason in plain words.
    """
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError("must be a number of seconds, or text like 30s, 10m, 2h, 7d")
    seconds = _text_duration(value) if isinstance(value, str) else finite(value)
    if seconds < 0:
        raise ValueError(f"must not be negative, not {short(value)}")
    if seconds > LATEST:
        # A JSON number may have 300 digits; an integer of more than 64 bits could not be written back.
        raise ValueError(f"{short(value)} is too long a time")
    return seconds


def _text_duration(text: str) -> float:
    import re

    bare = text.strip(_BLANK).removeprefix("+").strip(_BLANK)
    if re.fullmatch(_NUMBER, bare, re.ASCII):
        return finite(bare)
    parts = re.findall(rf"({_NUMBER})\s*([A-Za-z]+)", bare, re.ASCII)
    units = [_unit(name) for _, name in parts]
    sizes = [size for size in units if size is not None]
    # Each unit once, and the larger first: 5m 5m, or 5s 2h, is more likely a slip than a sum.
    clear = len(sizes) == len(units) > 0 and sizes == sorted(set(sizes), reverse=True)
    if not clear or not re.fullmatch(rf"(?:{_NUMBER}\s*[A-Za-z]+\s*)+", bare, re.ASCII):
        raise ValueError(f"{short(text)} is not a duration: write seconds, or 30s, 10m, 2h, 7d")
    return sum(finite(amount) * size for (amount, _), size in zip(parts, sizes, strict=True))


def _unit(name: str) -> float | None:
    """Return the seconds of a unit. One letter is lower case: M could be a month, or a size."""
    if name in _UNITS:
        return _UNITS[name]
    return next((_UNITS[unit] for unit, names in LONG_UNITS.items() if name.lower() in names), None)


def finite(value: str | float) -> float:
    """Return a number as a float.

    Raises:
        ValueError: it is infinite, not a number, or too large.
    """
    try:
        number = float(value)
    except (ValueError, OverflowError):
        raise ValueError(f"{short(value)} is too large a number") from None
    if not abs(number) < _INFINITY:
        raise ValueError("must be a finite number")
    return number


def short(value: object) -> str:
    """Return a value as in Python, at most 60 characters of it, for a message."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def seconds(amount: float) -> str:
    """Return seconds as text without a needless fraction: 20 and not 20.0, but 0.5."""
    return f"{amount:g}" if amount < 1e6 else f"{amount:.0f}"


def micros(moment: float) -> int:
    """Return epoch seconds as whole microseconds.

    They are rounded as in the job's file. Otherwise an index that is rebuilt from the files would differ.
    """
    return int(moment) * 1_000_000 + round(moment % 1 * 1e6)


def ago(seconds: float) -> str:
    """Return a length of time, in seconds, in its two largest units: 12s, 3m 4s, 2h 5m, 4d 1h."""
    whole = max(0, int(seconds))
    for size, unit, small, below in ((86400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s")):
        if whole >= size:
            rest = whole % size // small
            return f"{whole // size}{unit} {rest}{below}" if rest else f"{whole // size}{unit}"
    return f"{whole}s"


def span(seconds: float) -> str:
    """Return a length of time, in seconds, that may be short: 12ms, 3.4s, 3m 4s."""
    if seconds < 1:
        return f"{seconds * 1000:.0f}ms"
    return f"{seconds:.1f}s" if seconds < 60 else ago(seconds)
