"""Files that say what one before them said, but for id, command and moment: their rows are made after its row.

A hundred thousand jobs handed over at once are a hundred thousand times the same few fields. To check and settle those
once halves the time that each takes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from queuectl.index.row import COLUMNS, set_file, values_like
from queuectl.job import strict_json
from queuectl.job.ids import is_id
from queuectl.job.times import micros_of
from queuectl.system import files, safe_open

if TYPE_CHECKING:
    import os
    from collections.abc import Container

_PLAIN = frozenset(
    {
        *(
            "command",
            "id",
            "priority",
            "timeout",
            "max_retries",
            "backoff_base",
            "max_backoff",
            "cwd",
            "on_crash",
        ),
        *("state", "attempts", "created_at", "updated_at"),
    }
)
"""Fields that make nothing of a row but what the same value made of another."""

_LONGEST = 4096
"""Bytes of a file that is looked at in this way."""

_MOST = 100
"""Kinds of files to remember."""

_READY, _STATE = COLUMNS.index("ready_key"), COLUMNS.index("state")


class Alike:
    """The kinds of files in pending/ that were read before, under one set of settings."""

    def __init__(self) -> None:
        self._rows: dict[Any, list[Any]] = {}
        self._kind: Any = None

    def forget(self) -> None:
        """Other settings hold: what was made under the old ones is no example any more."""
        self._rows.clear()

    def row(
        self, name: str, data: bytes, status: os.stat_result, now: int, left_dead: Container[str]
    ) -> tuple[Any, ...] | None:
        """The row of a file like one before; None for all others, which are to be looked at closely.

        Args:
            now: the present in microseconds.
            left_dead: ids of jobs that were given up, which are more than their files.
        """
        self._kind = None
        if len(data) > _LONGEST or safe_open.has_other_owner(status):
            return None
        record = strict_json.load_plain(data)
        if record is None or not record.keys() <= _PLAIN:
            return None
        stem = name[: -len(".json")]
        command = record.pop("command", None)
        if record.pop("id", stem) != stem or stem in left_dead or not is_id(stem):
            return None
        if type(command) is not str or not command.strip() or "\0" in command:
            return None
        made_at, changed_at = record.pop("created_at", None), record.pop("updated_at", None)
        try:
            created = None if made_at is None else micros_of(made_at)
            updated = (
                None if changed_at is None else created if changed_at == made_at else micros_of(changed_at)
            )
        except (ValueError, TypeError):
            return None
        values = tuple(record.values())
        # 1 and True are equal, and only one of them is a priority.
        self._kind = tuple(record), values, tuple(map(type, values)), created is None, updated is None
        try:
            like = self._rows.get(self._kind)
        except TypeError:  # a list, where none can be
            self._kind = None
            return None
        if like is None:
            return None
        arrived = min(status.st_ctime_ns // 1000, now)
        made = values_like(like, stem, command, arrived if created is None else created, updated)
        set_file(made, arrived, files.fingerprint(status))
        return tuple(made)

    @property
    def says_when(self) -> bool:
        """Whether the file that was looked at last says itself when it was made."""
        return self._kind is not None and not self._kind[3]

    def learn(self, values: tuple[Any, ...]) -> None:
        """Remember the row that was made of the file which `row` has just passed over, if it may serve as an example."""
        if self._kind is not None and values[_STATE] == "pending" and values[_READY] is not None:
            if len(self._rows) >= _MOST:
                self._rows.clear()
            self._rows[self._kind] = list(values)
