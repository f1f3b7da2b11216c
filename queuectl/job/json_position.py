"""Where in a text something stands, in lines and columns, for whoever has to mend it."""

from __future__ import annotations

import json
import re

_BETWEEN = re.compile(r"[ \t\r\n]*[{,:]?[ \t\r\n]*")
_take = json.JSONDecoder().raw_decode


def line_and_column(text: str, offset: int) -> tuple[int, int]:
    """The place of a character, both numbers from 1."""
    return text.count("\n", 0, offset) + 1, offset - text.rfind("\n", 0, offset)


def of_field(text: str, field: str) -> tuple[int, int] | None:
    """Where the value of a field stands in the JSON of a job; None when it is not there.

    Of a field that stands twice it is the later one.
    """
    found = None
    at = _past(text, 0)
    try:
        while text[at] == '"':
            name, at = _take(text, at)
            at = _past(text, at)
            found = at if name == field else found
            at = _past(text, _take(text, at)[1])
    except (ValueError, IndexError, RecursionError):
        # What follows cannot be read; what came before stands where it stands.
        return None if found is None else line_and_column(text, found)
    return None if found is None else line_and_column(text, found)


def _past(text: str, at: int) -> int:
    """The place behind blanks and one mark."""
    found = _BETWEEN.match(text, at)
    return found.end() if found else at
