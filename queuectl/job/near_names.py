"""Names that are nearly those of fields: somebody has mistyped one."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

from queuectl.job.record import KNOWN, PRODUCER_FIELDS

if TYPE_CHECKING:
    from collections.abc import Iterable

ENQUEUE_ONLY = ("delay", "expires_in")
"""Fields that `enqueue` turns into others. In a dropped file they have no effect."""

_OTHER_WORDS = {"cmd": "command", "retries": "max_retries", "directory": "cwd", "environment": "env"}


def _flat(name: str) -> str:
    return name.replace("_", "").replace("-", "").lower()


_FIELDS = {_flat(name): name for name in (*PRODUCER_FIELDS, *ENQUEUE_ONLY)}


def near_field(name: str) -> str | None:
    """Return the field that is most likely meant by a name that is no field, as max_retry or maxRetries; None: a name of its own."""
    flat = _flat(name)
    if flat in _OTHER_WORDS:
        return _OTHER_WORDS[flat]
    near = get_close_matches(flat, _FIELDS, n=1, cutoff=0.75)
    return _FIELDS[near[0]] if near else None


def near_misses(names: Iterable[str]) -> list[str]:
    """Return a sentence for each of these names that is most likely a mistyped field."""
    unknown = [name for name in names if name not in KNOWN and name not in ENQUEUE_ONLY]
    return [
        f"{name!r} is kept but has no effect; did you mean {near}?"
        for name in unknown
        if (near := near_field(name))
    ]
