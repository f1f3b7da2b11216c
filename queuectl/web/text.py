"""How values become text on a page: lengths of time, moments, and marks for characters that would deceive a reader."""

from __future__ import annotations

import re
import time
import unicodedata
from typing import TYPE_CHECKING

from queuectl.job import times

if TYPE_CHECKING:
    from collections.abc import Callable

_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[ -/]*[0-~])")
_HALF_ESCAPE = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*|\][^\x07\x1b]{0,200})?$")

STATES = {
    "pending": ("◌", "waiting"),
    "processing": ("●", "running"),
    "failed": ("↻", "failed"),
    "completed": ("✔", "done"),
    "dead": ("✖", "dead"),
    "held": ("‖", "held"),
}
"""The mark and the word of each state: a colour alone tells nothing to many readers."""


class Exact(str):
    """A text that goes into a field of a form as it is, and comes back from there: no character of it is replaced."""

    __slots__ = ()


def marked(text: str) -> str:
    """Return a text in which each character that cannot be seen, or that reverses others, is written as its number."""
    return text if text.isprintable() else text.translate(_marks)


class _Marks(dict[int, str]):
    """What stands for each character. Asking each of 64 KiB of output whether it can be seen took 40 ms."""

    def __missing__(self, code: int) -> str:
        shown = _mark(chr(code))
        if code < _KEPT_BELOW:  # else an output with every character that there is would stay in memory
            self[code] = shown
        return shown


_KEPT_BELOW = 0x3000
_marks = _Marks()


def _mark(character: str) -> str:
    if character.isprintable() or character in "\n\t" or unicodedata.category(character) == "Zs":
        return character
    if "\udc80" <= character <= "\udcff":
        return "\ufffd"
    return repr(character)[1:-1]


def plain_output(text: str) -> str:
    """Return the output of a job for a page: colours are taken out, and marks stand for what cannot be seen."""
    return marked(_ESCAPES.sub("", text).replace("\r\n", "\n").replace("\r", "\n"))


def half_escape(data: bytes) -> int:
    """Return how many bytes at the end are the beginning of a colour, whose rest has not been written yet."""
    found = _HALF_ESCAPE.search(data[-256:])
    return len(found.group()) if found else 0


def ago(seconds: float) -> str:
    """Return a length of time in its two largest units: 12s, 3m 4s, 2h 5m, 4d 1h."""
    return times.ago(seconds)


def span(seconds: float | None) -> str:
    """Return a length of time that may be short: 12ms, 3.4s, 3m 4s; a dash if it is not known."""
    return "–" if seconds is None else times.span(seconds)


def number(value: int) -> str:
    """Return a number with thin spaces between its thousands."""
    return f"{value:,}".replace(",", "\u202f")


def size(value: int) -> str:
    """Return a number of bytes in words."""
    for unit, length in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if value >= length:
            return f"{value / length:.1f} {unit}"
    return f"{value} bytes" if value != 1 else "1 byte"


def count(value: int, noun: str) -> str:
    """Return a number and its noun: 1 job, 2 jobs."""
    return f"{number(value)} {noun}" if value == 1 else f"{number(value)} {noun}s"


def local(moment: float) -> str:
    """Return a moment in the server's time zone, as the command line shows it."""
    return times.local(moment)


def distance(moment: float, clock: Callable[[], float] = time.time, *, after: str = "") -> str:
    """Return how far away a moment is: `3m 4s`, or `in 3m 4s`. `after` follows a past one, as in `3m 4s ago`."""
    away = moment - clock()
    return f"in {ago(away)}" if away > 0.999 else f"{ago(-away)}{after}"


def cut(text: str, length: int = 120) -> str:
    """Return the beginning of a text, for one cell of a list."""
    lines = text.split("\n", 3)
    first = " ".join(lines[:3])
    return first if len(first) <= length and len(lines) <= 3 else f"{first[: length - 1]}…"
