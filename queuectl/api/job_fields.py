"""The fields of a job as arguments of Python calls: their types for editors and type checkers, and what else is taken.

A program has moments, spans, paths and sets, and a job file has text, numbers and lists.
"""

from __future__ import annotations

import os
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypedDict

from queuectl.errors import UnknownField
from queuectl.job.changes import CHANGEABLE
from queuectl.job.near_names import ENQUEUE_ONLY, near_field
from queuectl.job.record import KNOWN, PRODUCER_FIELDS, Job

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from typing import TypeAlias

    Command: TypeAlias = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
    Moment: TypeAlias = str | float | date
    Span: TypeAlias = str | float | timedelta
    Parents: TypeAlias = str | Job | Iterable[str | Job]

NAMES = frozenset({*PRODUCER_FIELDS, *ENQUEUE_ONLY} - {"command"})
"""The keywords of `enqueue` and `check`."""

_MOMENTS = ("run_at", "expires_at")
_SPANS = ("timeout", "max_backoff", *ENQUEUE_ONLY)
_LISTS = ("tags", "retry_on", "give_up_on")
_PARENTS = ("after", "after_any", "after_failure")


class _ChangeableFields(TypedDict, total=False):
    """The keywords that `enqueue`, `set` and `retry` share."""

    priority: int | None
    run_at: Moment | None
    timeout: Span | None
    max_retries: int | None
    backoff_base: float | None
    cwd: str | os.PathLike[str] | None
    env: Mapping[str, str | os.PathLike[str]] | None
    on_crash: str | None
    max_backoff: Span | None
    jitter: float | None
    retry_on: Collection[int] | None
    give_up_on: Collection[int] | None
    expires_at: Moment | None
    tags: Collection[str] | None
    hold: bool | None
    unique: str | None
    if_exists: str | None
    queue: str | None
    needs: Mapping[str, int] | None
    after: Parents | None
    after_any: Parents | None
    after_failure: Parents | None
    if_blocked: str | None
    batch: str | None


class JobFields(_ChangeableFields, total=False):
    """The keywords of `enqueue` and `check`. None means not given. `queuectl guide fields` explains each field.

    A moment is a datetime (without a zone: local time), a date, text, or epoch seconds. A span is a timedelta, seconds,
    or text like "10m".
    """

    id: str | None
    delay: Span | None
    expires_in: Span | None


class JobChanges(_ChangeableFields, total=False):
    """The keywords of `set` and `retry`. None removes a field, so that the setting applies."""

    command: Command


def refuse_unknown(call: str, names: Iterable[str], known: Collection[str]) -> None:
    """Check the keywords of a call.

    Raises:
        UnknownField: one of them is none of the known names. Otherwise a mistyped field would have no effect.
    """
    for name in names:
        if name not in known:
            near = near_field(name)
            meant = f"; did you mean {near}?" if near in known else ""
            raise UnknownField(f"{call}() got an unexpected keyword argument {name!r}{meant}")


CHANGES = frozenset(
    {*CHANGEABLE, *KNOWN, "tags+", "tags-", *(f"{name}{sign}" for name in _PARENTS for sign in "+-")}
)
"""The keywords of `set` and `retry`, and the fields that cannot be changed: an error of their own says so."""


def as_in_a_file(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return fields as a job file has them. What no file can hold stays as it is, and the check of the field refuses it."""
    return {name: _plain(name.rstrip("+-"), value) for name, value in fields.items()}


def _plain(name: str, value: Any) -> Any:
    if name == "command":
        return _command(value)
    if name in _MOMENTS and isinstance(value, date):
        # The second of two equal hours in autumn is known by `fold`, which text does not show.
        second = isinstance(value, datetime) and value.tzinfo is None and value.fold
        return (value.astimezone() if second else value).isoformat()  # type: ignore[attr-defined]  # a datetime
    if name in _SPANS and isinstance(value, timedelta):
        return value.total_seconds()
    if name in _LISTS and isinstance(value, set | frozenset):
        # Sorted, so that the same program writes the same file each time. Mixed types have no order, and are refused.
        return sorted(value) if len({type(one) for one in value}) == 1 else list(value)
    if name in _LISTS and isinstance(value, tuple):
        return list(value)
    if name in _PARENTS and value is not None:
        parents = (value,) if isinstance(value, str | Job) or not hasattr(value, "__iter__") else value
        return [one.id if isinstance(one, Job) else one for one in parents]
    if name == "env" and hasattr(value, "items"):
        return {key: _path_text(text) for key, text in value.items()}
    return _path_text(value) if name == "cwd" else value


def _command(value: Any) -> Any:
    if isinstance(value, os.PathLike):
        return [_path_text(value)]  # the program with this path; blanks in it would be blanks for a shell
    if isinstance(value, list | tuple):
        return [_path_text(part) for part in value]
    return value


def _path_text(value: Any) -> Any:
    return os.fspath(value) if isinstance(value, os.PathLike) else value
