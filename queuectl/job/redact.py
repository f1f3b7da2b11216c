"""What may be shown of a job: values that look secret are masked, and text from strangers stays on its line."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

MASK = "***"
_SECRET = re.compile(
    r"pass|pwd|secret|token|key|cred|auth(?!ors?(?![a-z]))|private|cookie|session_?id|signature|bearer",
    re.IGNORECASE,
)
_IN_ADDRESS = re.compile(r"(?<=://)([^\s/:@]*):[^\s/@]+(?=@)")  # https://user:password@host


def one_line(text: str) -> str:
    """The text on one line that can do a terminal no harm."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def is_secret(name: str) -> bool:
    """Whether the name of a variable or a field says that its value is nobody's business."""
    return bool(_SECRET.search(name))


def masked_env(env: Mapping[str, str]) -> dict[str, str]:
    """The variables of a job as they may be shown; the job's file keeps them as they are."""
    return {name: _masked_text(name, value) for name, value in env.items()}


def masked(record: Mapping[str, Any], own: frozenset[str] = frozenset()) -> dict[str, Any]:
    """A job's fields as they may be shown.

    Args:
        own: fields of queuectl's own, which hold no secrets save `env`.
    """
    return {
        name: masked_env(value)
        if name == "env" and isinstance(value, dict)
        else value
        if name in own
        else _masked_value(name, value)
        for name, value in record.items()
    }


def _masked_value(name: str, value: Any) -> Any:
    """A field that queuectl does not know: a tool's own, which may be nested."""
    if isinstance(value, dict):
        return {inner: _masked_value(f"{name}.{inner}", part) for inner, part in value.items()}
    if isinstance(value, list):
        return [_masked_value(name, part) for part in value]
    if isinstance(value, bool) or value is None:
        return value
    return _masked_text(name, value) if isinstance(value, str) else MASK if is_secret(name) else value


def _masked_text(name: str, value: str) -> str:
    if value and is_secret(name):
        return MASK
    return _IN_ADDRESS.sub(rf"\1:{MASK}", value)
