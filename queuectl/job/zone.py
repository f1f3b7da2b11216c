"""The time zone of the machine, which does not depend on who asks: TZ may differ from one process to the next."""

from __future__ import annotations

import os
from datetime import UTC, tzinfo
from functools import lru_cache

TYPE_CHECKING = False
if TYPE_CHECKING:
    from datetime import datetime

LOCALTIME = "/etc/localtime"
"""The zone of the machine on Linux, macOS and BSD, in the format of the time zone database."""


HAS_FILE = os.name != "nt"
"""Whether the machine's zone is in that file. Windows has its own way, which no variable like TZ changes."""

_ZONES = ("/usr/share/zoneinfo", "/usr/lib/zoneinfo", "/usr/share/lib/zoneinfo", "/etc/zoneinfo")
"""Where systems have the time zone database."""

_NAME = r"(<[A-Za-z0-9+-]{3,}>|[A-Za-z]{3,})"
_OFFSET = r"[+-]?\d{1,2}(:\d{1,2}){0,2}"
_POSIX = f"{_NAME}{_OFFSET}({_NAME}({_OFFSET})?(,.*)?)?"
"""A zone that is written out, as in CET-1CEST,M3.5.0,M10.5.0/3."""


def timestamp(when: datetime) -> float:
    """Return the epoch seconds of a time without a zone, by the clock on the machine's wall.

    Of an hour that comes twice, the first is meant. A time in an hour that is left out is as much later (PEP 495).
    """
    if when.tzinfo is not None or not HAS_FILE:
        return when.timestamp()
    return when.replace(tzinfo=of_machine()).timestamp()


def fault_of_variable() -> str | None:
    """Return the value of TZ if it names no zone: the C library then means UTC and says nothing. None if all is well."""
    text = os.environ.get("TZ", "")
    name = text.removeprefix(":")
    if not (name and HAS_FILE):
        return None
    import re

    if re.fullmatch(_POSIX, name):
        return None
    folders = [os.environ.get("TZDIR", ""), *_ZONES]
    known = any(os.path.isfile(os.path.join(folder, name)) for folder in folders if folder)
    return None if known else text


def of_machine() -> tzinfo:
    """Return the zone of the machine; UTC if it has none, as the C library does."""
    try:
        status = os.stat(LOCALTIME)
    except OSError:
        return UTC
    # A worker may live for months: a zone that was changed meanwhile has to be read again.
    return _read(LOCALTIME, status.st_dev, status.st_ino, status.st_mtime_ns)


@lru_cache(maxsize=2)
def _read(path: str, *_stamp: int) -> tzinfo:
    from zoneinfo import ZoneInfo

    try:
        with open(path, "rb") as file:
            return ZoneInfo.from_file(file)
    except (OSError, ValueError):
        return UTC
