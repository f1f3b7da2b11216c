"""What is wrong with a file that is no job, and where: the line and the column, for whoever mends it."""

from __future__ import annotations

import re

from queuectl._dataclasses import dataclass
from queuectl.errors import InvalidJob
from queuectl.job import json_position
from queuectl.job import record as jobs

_PLACE = re.compile(r" \((line \d+(, column \d+)?(, where the file ends)?|byte \d+)\)$")
_SHOWN = 160


@dataclass(frozen=True, slots=True)
class Fault:
    """Why bytes are no job.

    Attributes:
        reason: in plain words, with the field in front if one is at fault.
        at: line and column, both from 1; None where it is not known.
        text: that line, or the part of a long one around the column.
        column: where in `text` the column is, from 1.
    """

    reason: str
    at: tuple[int, int] | None = None
    text: str = ""
    column: int = 1

    def drawn(self) -> list[str]:
        """The line with its number, and a mark below the column."""
        if self.at is None:
            return []
        number = str(self.at[0])
        return [f"{number} | {self.text}", f"{' ' * len(number)} | {' ' * (self.column - 1)}^"]


def fault(data: bytes) -> Fault | None:
    """Say what keeps a file's bytes from being a job; None if nothing does."""
    try:
        jobs.parse(data)
    except InvalidJob as error:
        return _placed(data, error)
    return None


def _placed(data: bytes, error: InvalidJob) -> Fault:
    text = data.decode("utf-8-sig", "replace")
    at = error.at or (json_position.of_field(text, error.field) if error.field else None) or _not_utf8(data)
    reason = _PLACE.sub("", error.message)
    if at is None:
        return Fault(reason)
    lines = text.splitlines()
    line = lines[at[0] - 1].expandtabs(1) if at[0] <= len(lines) else ""
    start = max(0, at[1] - _SHOWN // 2) if len(line) > _SHOWN else 0
    return Fault(reason, at, line[start : start + _SHOWN], at[1] - start)


def _not_utf8(data: bytes) -> tuple[int, int] | None:
    try:
        data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start]
        return before.count(b"\n") + 1, len(before) - before.rfind(b"\n")
    return None
