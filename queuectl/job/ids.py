"""Ids of jobs: their grammar, and new ones that nobody else draws."""

from __future__ import annotations

import os
import time
from functools import lru_cache

_FIVE_BITS = b"0123456789abcdefghjkmnpqrstvwxyz" * 8
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
_DEVICES = frozenset(
    ["con", "prn", "aux", "nul", *(f"{kind}{n}" for kind in ("com", "lpt") for n in range(10))]
)


def is_id(text: str) -> bool:
    """Whether text can be an id: 1-64 of A-Z a-z 0-9 . _ -, first a letter or digit; not a Windows device name."""
    return (
        0 < len(text) <= 64
        and not text.strip(_LETTERS + "._-")
        and text[0] in _LETTERS
        and text[-1] != "."
        and text.partition(".")[0].lower() not in _DEVICES
    )


def new_id(now: float, end: str = "") -> str:
    """An id that sorts by time and that nobody else draws: the second in UTC and 40 random bits, or this end."""
    return f"{_second(int(now))}-{end or _drawn(1)}"


def ends(many: int) -> list[str]:
    """Random ends for the ids of a long list, in ascending order.

    Ids that ascend lie side by side in the index; each in a place of its own makes a row cost twice as much.
    """
    drawn = _drawn(many)
    return sorted({drawn[at : at + 8] for at in range(0, len(drawn), 8)})


def _drawn(many: int) -> str:
    return os.urandom(8 * many).translate(_FIVE_BITS).decode()


@lru_cache(maxsize=1)
def _second(whole: int) -> str:
    return time.strftime("%Y%m%dT%H%M%S", time.gmtime(whole))
