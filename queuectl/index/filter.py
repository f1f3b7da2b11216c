"""Which jobs are selected: by state, tag, time, command, exit code, worker, error; and in which order."""

from __future__ import annotations

from queuectl._dataclasses import dataclass
from queuectl.index.row import SHOWN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

_CHANGED = "coalesce(updated_at, arrived)"

SORTS = {
    "arrived": ("seq",),
    "next": ("ready_key IS NULL", "ready_key", "due IS NULL", "due"),
    "id": ("id",),
    "state": ("state",),
    "priority": ("priority",),
    "attempts": ("attempts",),
    "created": ("coalesce(created_at, arrived)",),
    "updated": (_CHANGED,),
    "started": ("started_at",),
    "finished": ("finished_at",),
    "duration": ("duration",),
    "exit-code": ("exit_code",),
    "worker": ("worker",),
    "command": ("command",),
}
"""What a list can be sorted by: a name, and the index's columns. `next` is the order in which waiting jobs run."""


@dataclass(frozen=True, slots=True)
class Filter:
    """Selects jobs. A job must match every field that is given.

    Attributes:
        states: the job is in one of these; "done" means completed.
        tags: the job has all of these.
        since, until: last changed at or after, and before this time; epoch seconds.
        command: part of the command; upper and lower case are the same, as `str.casefold` says.
        exit_codes: the last exit code is one of these.
        worker: the worker that runs the job, or ran it last.
        held: True for jobs that wait for a release, False for all others.
        reason: part of the last error, compared like `command`: why a job is dead, or why it failed.
        sort: one of SORTS, with a leading - for descending order; default: in the order of arrival.
        limit: select at most so many.
    """

    states: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    since: float | None = None
    until: float | None = None
    command: str | None = None
    exit_codes: tuple[int, ...] = ()
    worker: str | None = None
    held: bool | None = None
    reason: str | None = None
    sort: str = "arrived"
    limit: int | None = None

    @property
    def is_open(self) -> bool:
        """Whether every job is selected."""
        return self == Filter(sort=self.sort, limit=self.limit)

    @property
    def without_limit(self) -> Filter:
        """The same filter without a limit."""
        return self._but(limit=None)

    def of_states(self, *states: str) -> Filter:
        """Return the same filter for jobs in these states."""
        return self._but(states=states)

    def limited_to(self, number: int) -> Filter:
        """Return the same filter with at most this limit."""
        return self._but(limit=number if self.limit is None else min(number, self.limit))

    @property
    def of_held(self) -> Filter:
        """The same filter for held jobs."""
        return self._but(held=True)

    def _but(self, **other: Any) -> Filter:
        given: dict[str, Any] = {name: getattr(self, name) for name in Filter.__match_args__}
        return Filter(**(given | other))

    def conditions(self, *, only_index: bool = False) -> tuple[str, list[Any]]:
        """Return the condition in SQL, and its values.

        Args:
            only_index: compare texts with the part of a command or an error that the index stores. Otherwise every long
                one matches, and the caller compares the full one in the job's file.
        """
        parts: list[str] = []
        values: list[Any] = []

        def add(part: str, *more: Any) -> None:
            parts.append(part)
            values.extend(more)

        if self.states:
            states = ["completed" if state == "done" else state for state in self.states]
            add(f"state IN ({_marks(states)})", *states)
        for tag in self.tags:
            add("instr(tags, ?) > 0", f" {tag} ")
        if self.since is not None:
            add(f"{_CHANGED} >= ?", round(self.since * 1e6))
        if self.until is not None:
            add(f"{_CHANGED} < ?", round(self.until * 1e6))
        for column, text in (("command", self.command), ("last_error", self.reason)):
            if text:
                contains = f"(instr(casefold({column}), ?) > 0 OR length({column}) >= ?)"
                add(contains, text.casefold(), SHOWN + only_index)
        if self.exit_codes:
            add(f"exit_code IN ({_marks(self.exit_codes)})", *self.exit_codes)
        if self.worker is not None:
            add("worker = ?", self.worker)
        if self.held is not None:
            held = "state IN ('pending', 'failed') AND coalesce(ready_key, due, behind) IS NULL"
            add(held if self.held else f"NOT ({held})")
        return " AND ".join(parts) or "1", values

    def order(self) -> str:
        """Return the order in SQL.

        Raises:
            ValueError: `sort` is unknown.
        """
        name = self.sort.removeprefix("-")
        if name not in SORTS:
            raise ValueError(f"{self.sort!r} is not one of {', '.join(SORTS)}")
        way = " DESC" if self.sort.startswith("-") else ""
        return ", ".join([*(f"{key}{way}" for key in SORTS[name]), "seq"])


def _marks(values: Sequence[object]) -> str:
    return ", ".join("?" * len(values))
