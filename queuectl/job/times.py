"""Reads and writes times and durations as text. Inside queuectl, times are epoch seconds (float)."""

from __future__ import annotations

import time
from functools import lru_cache

TYPE_CHECKING = False
if TYPE_CHECKING:
    from datetime import datetime

_UNITS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
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


def parse_moment(value: object) -> float:
    """Read ISO 8601 text (without an offset: local time) or epoch seconds, and return epoch seconds.

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
            moment = _parse_text(text)
        except (ValueError, OverflowError, OSError):
            raise ValueError(
                f"{_short(value)} is not a time: write it like 2026-12-31T18:00:00Z, or as epoch seconds"
            ) from None
    else:
        moment = _as_float(value)
    if not 0 <= moment <= LATEST:
        raise ValueError(f"{_short(value)} is outside the years 1970 to 9999")
    return round(moment, 6)


def micros_of(text: str) -> int:
    """Read a time as queuectl writes it, and return microseconds: faster than parse_moment, for very many files.

    Raises:
        ValueError: it is written in another way.
    """
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


def _parse_text(text: str) -> float:
    import re

    if re.fullmatch(r"[0-9]+(\.[0-9]+)?", text, re.ASCII) and not re.fullmatch(r"[0-9]{8}", text, re.ASCII):
        return float(text)
    when = _at(text)
    return (when if when.tzinfo is not None else when.astimezone()).timestamp()


@lru_cache(maxsize=8)
def _from_ours(text: str) -> float:
    """Read a time as queuectl writes it. Cached: a file has two or three times, and most of them are equal."""
    return _at(text).timestamp()


def _at(text: str) -> datetime:
    from datetime import datetime

    return datetime.fromisoformat(text)


def parse_duration(value: object) -> float:
    """Read a duration, as a number or as text with a unit (30, "30s", "10m", "2h", "7d"), and return seconds.

    Raises:
        ValueError: with the reason in plain words.
    """
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError("must be a number of seconds, or text like 30s, 10m, 2h, 7d")
    if isinstance(value, str):
        import re

        found = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*(ms|s|m|h|d|w|)\s*", value, re.ASCII)
        if not found:
            raise ValueError(f"{_short(value)} is not a duration: write seconds, or 30s, 10m, 2h, 7d")
        seconds = _as_float(found[1]) * _UNITS[found[2]]
    else:
        seconds = _as_float(value)
    if seconds < 0:
        raise ValueError(f"must not be negative, not {_short(value)}")
    if seconds > LATEST:
        # A JSON number may have 300 digits; an integer of more than 64 bits could not be written back.
        raise ValueError(f"{_short(value)} is too long a time")
    return seconds


def _as_float(value: str | float) -> float:
    try:
        number = float(value)
    except (ValueError, OverflowError):
        raise ValueError(f"{_short(value)} is too large a number") from None
    if not abs(number) < _INFINITY:
        raise ValueError("must be a finite number")
    return number


def _short(value: object) -> str:
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
