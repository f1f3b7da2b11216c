"""Which jobs are selected: by state, tag, time, command, exit code, worker, error; and in which order."""

from __future__ import annotations

import time

from queuectl.fast_start.dataclass import dataclass
from queuectl.index.row import SHOWN
from queuectl.job.fields import DEFAULT_QUEUE, state_of
from queuectl.job.times import parse_duration, parse_moment
from queuectl.layout import ENGINES, LOCAL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import date, timedelta
    from typing import Any, TypeAlias

    Moment: TypeAlias = float | str | date | timedelta | None

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

_REVERSED_WHOLLY = frozenset({"finished", "next"})
"""With a leading -, also equal jobs are the other way round, as in pages. In other orders the older of them stays the first."""


@dataclass(frozen=True, slots=True)
class Filter:
    """Selects jobs. A job must match every field that is given.

    One state, tag or exit code need not be in a tuple. Wrong values raise ValueError.

    Attributes:
        states: the job is in one of these; "done" means completed.
        tags: the job has all of these.
        since, until: last changed at or after, and before this time: epoch seconds, a datetime, or text. A timedelta, or
            text like "2h" or "yesterday", counts back from now. Afterwards they are epoch seconds.
        command: part of the command; upper and lower case are the same, as `str.casefold` says.
        exit_codes: the last exit code is one of these.
        worker: the worker that runs the job, or ran it last.
        held: True for jobs that wait for a release, False for all others.
        reason: part of the last error, compared like `command`: why a job is dead, or why it failed.
        batch: the job belongs to this batch.
        rule: a rule has made the job: its id is NAME. and more.
        blocked: whether the job starts only once somebody has mended a job for which it waits.
        queues: the job is in one of these queues; jobs that name none are in "default".
        engines: the job runs, or has run last, on one of these: "local", or the name of an engine; one that waits, or has
            never run: its queue has its jobs run there.
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
    queues: tuple[str, ...] = ()
    batch: str | None = None
    blocked: bool | None = None
    rule: str | None = None
    engines: tuple[str, ...] = ()

    if TYPE_CHECKING:

        def __init__(  # what is taken; `__post_init__` makes the types above of it
            self,
            states: Collection[str] = (),
            tags: Collection[str] = (),
            since: Moment = None,
            until: Moment = None,
            command: str | None = None,
            exit_codes: Collection[int] | int = (),
            worker: str | None = None,
            held: bool | None = None,
            reason: str | None = None,
            sort: str = "arrived",
            limit: int | None = None,
            queues: Collection[str] = (),
            batch: str | None = None,
            blocked: bool | None = None,
            rule: str | None = None,
            engines: Collection[str] = (),
        ) -> None: ...

    def __post_init__(self) -> None:
        for name, value in (
            ("states", _states(self.states)),
            ("tags", _several(self.tags, str)),
            ("queues", _several(self.queues, str)),
            ("engines", _engines(self.engines)),
            ("exit_codes", _several(self.exit_codes, int)),
            ("since", _moment(self.since)),
            ("until", _moment(self.until)),
        ):
            object.__setattr__(self, name, value)
        if self.limit is not None and self.limit < 0:
            raise ValueError(f"limit must be 0 or more, not {self.limit}")
        self.order()

    @property
    def is_open(self) -> bool:
        """Whether every job is selected."""
        return self == Filter(sort=self.sort, limit=self.limit)

    @property
    def is_about_states(self) -> bool:
        """Whether a job is selected by its state alone, if at all."""
        return self == Filter(states=self.states, sort=self.sort, limit=self.limit)

    @property
    def without_limit(self) -> Filter:
        """The same filter without a limit."""
        return self._but(limit=None)

    @property
    def without_since(self) -> Filter:
        """The same filter without `since`."""
        return self._but(since=None)

    @property
    def without_period(self) -> Filter:
        """The same filter without `since` and `until`."""
        return self._but(since=None, until=None)

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
            add(f"state IN ({_marks(self.states)})", *self.states)
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
        if self.queues:
            add(
                f"({' OR '.join(map(_in_queue, self.queues))})",
                *(value for name in self.queues for value in _lanes(name)),
            )
        if self.engines:
            from queuectl.index.queue_counts import ENGINE

            add(f"{ENGINE} IN ({_marks(self.engines)})", *self.engines)
        if self.batch is not None:
            add("batch = ?", self.batch)
        if self.rule is not None:
            # No name of a rule has a dot in it, and / is the character after the dot.
            add("id > ? AND id < ?", f"{self.rule}.", f"{self.rule}/")
        if self.blocked is not None:
            from queuectl.index.dependencies import BLOCKED

            add(f"{'' if self.blocked else 'NOT '}seq IN ({BLOCKED})")
        if self.held is not None:
            held = "state IN ('pending', 'failed') AND hold"
            add(held if self.held else f"NOT ({held})")
        return " AND ".join(parts) or "1", values

    def order(self, *, without_index: bool = False) -> str:
        """Return the order in SQL.

        Args:
            without_index: SQLite must sort the rows that match, and not read an index in this order.

        Raises:
            ValueError: `sort` is unknown.
        """
        name = self.sort.removeprefix("-")
        if name not in SORTS:
            raise ValueError(f"{self.sort!r} is not one of {', '.join(SORTS)}")
        way = " DESC" if self.sort.startswith("-") else ""
        mark = "+" if without_index else ""
        last = f"seq{way}" if name in _REVERSED_WHOLLY else "seq"
        return ", ".join([*(f"{mark}{key}{way}" for key in SORTS[name]), last])


def _in_queue(queue: str) -> str:
    # The lane of the jobs that name neither a queue nor a resource is NULL.
    plain = " OR lane IS NULL" if queue == DEFAULT_QUEUE else ""
    return f"(lane = ? OR (lane > ? AND lane < ?){plain})"


def _lanes(queue: str) -> tuple[str, str, str]:
    """Return the lane of a queue without needs, and bounds between which its others are: "mail gpu=1"."""
    return queue, f"{queue} ", f"{queue}!"


def _several(value: Any, kind: type) -> tuple[Any, ...]:
    """Return one value or several as a tuple.

    Raises:
        ValueError: one of them is of another kind.
    """
    found = (value,) if isinstance(value, kind) else tuple(value)
    for one in found:
        if not isinstance(one, kind) or isinstance(one, bool):
            raise ValueError(f"{one!r} is not {'text' if kind is str else 'a whole number'}")
    return found


def _states(value: Any) -> tuple[str, ...]:
    found = (state_of(state) for state in _several(value, str))
    return tuple(state for state in found if state)


def _engines(value: Any) -> tuple[str, ...]:
    found = _several(value, str)
    for one in found:
        if one not in (LOCAL, *ENGINES):
            raise ValueError(f"{one!r} is not one of {', '.join((LOCAL, *ENGINES))}")
    return found


def _moment(value: Any) -> float | None:
    """Return a time as epoch seconds; a span counts back from now."""
    if value is None or type(value) is float:
        return value
    if hasattr(value, "total_seconds"):
        return time.time() - parse_duration(value.total_seconds())
    if isinstance(value, str):
        from queuectl.job import spoken_times

        return spoken_times.read_moment(value, time.time(), past=True)
    return parse_moment(value.isoformat() if hasattr(value, "isoformat") else value)


def _marks(values: Collection[object]) -> str:
    return ", ".join("?" * len(values))
