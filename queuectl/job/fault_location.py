"""What keeps a file from being a job, and where: the line and the column, for whoever corrects the file."""

from __future__ import annotations

import json
import re

from queuectl.errors import InvalidJob
from queuectl.fast_start.dataclass import dataclass
from queuectl.job import record as jobs

_PLACE = re.compile(r" \((line \d+(, column \d+)?(, where the file ends)?|byte \d+)\)$")
_SHOWN = 160
"""Characters of a long line that are shown around the column."""

_BETWEEN = re.compile(r"[ \t\r\n]*[{,:]?[ \t\r\n]*")
_read_value = json.JSONDecoder().raw_decode


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a file is not a job.

    Attributes:
        reason: in plain words, after the name of the field if it is about one.
        at: line and column, both from 1; None if unknown.
        text: that line, or the part of a long one around the column.
        column: the column within `text`, from 1.
    """

    reason: str
    at: tuple[int, int] | None = None
    text: str = ""
    column: int = 1

    def marked_line(self) -> list[str]:
        """Return two lines of text: the line with its number, and a mark below the column; none if `at` is unknown."""
        if self.at is None:
            return []
        number = str(self.at[0])
        return [f"{number} | {self.text}", f"{' ' * len(number)} | {' ' * (self.column - 1)}^"]


def find_fault(data: bytes) -> Fault | None:
    """Return what keeps a file's content from being a job; None if it is one."""
    try:
        jobs.parse(data)
    except InvalidJob as error:
        return _locate(data, error)
    return None


def _locate(data: bytes, error: InvalidJob) -> Fault:
    text = data.decode("utf-8-sig", "replace")
    at = error.at or (find_field(text, error.field) if error.field else None) or _first_bad_byte(data)
    reason = _PLACE.sub("", error.message)
    if at is None:
        return Fault(reason)
    lines = text.splitlines()
    line = lines[at[0] - 1].expandtabs(1) if at[0] <= len(lines) else ""
    start = max(0, at[1] - _SHOWN // 2) if len(line) > _SHOWN else 0
    return Fault(reason, at, line[start : start + _SHOWN], at[1] - start)


def _first_bad_byte(data: bytes) -> tuple[int, int] | None:
    try:
        data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start]
        return before.count(b"\n") + 1, len(before) - before.rfind(b"\n")
    return None


def find_field(text: str, field: str) -> tuple[int, int] | None:
    """Return line and column, both from 1, of the value of a field in the JSON text of a job; None if it is not there.

    If a field appears twice, the later one is meant. The text after it may be invalid.
    """
    found = None
    at = _skip_separator(text, 0)
    try:
        while text[at] == '"':
            name, at = _read_value(text, at)
            at = _skip_separator(text, at)
            found = at if name == field else found
            at = _skip_separator(text, _read_value(text, at)[1])
    except (ValueError, IndexError, RecursionError):
        pass  # the rest cannot be read; what was found before it is right
    return None if found is None else (text.count("\n", 0, found) + 1, found - text.rfind("\n", 0, found))


def _skip_separator(text: str, at: int) -> int:
    """Return the offset after white space and at most one of { , :."""
    found = _BETWEEN.match(text, at)
    return found.end() if found else at
