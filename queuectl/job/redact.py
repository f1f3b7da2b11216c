"""Makes a job safe to display: secrets are masked, and control characters in untrusted text are escaped."""

from __future__ import annotations

from functools import cache

TYPE_CHECKING = False
if TYPE_CHECKING:
    import re
    from collections.abc import Mapping
    from typing import Any

MASK = "***"
_SENSITIVE = (
    r"(?i:pass|pwd|secret|token|key|cred|auth(?!ors?(?![a-z]))|private|cookie|session_?id|signature|bearer)"
)
_IN_ADDRESS = r"(?<=://)([^\s/:@]*):[^\s/@]+(?=@)"  # https://user:password@host


@cache
def _pattern(text: str) -> re.Pattern[str]:
    """Compile a pattern when it is first used. `status` shows no job, and `re` is a tenth of the time that it takes."""
    import re

    return re.compile(text)


def one_line(text: str) -> str:
    """Return the text as one line without control characters, which could harm a terminal."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


REASON_LENGTH = 200
"""Characters of the reason of a pause that are shown."""


def as_reason(text: str) -> str:
    """Return the text of a file that pauses something as it is shown: on one line, and not too long."""
    reason = one_line(" ".join(text.split()))
    return reason if len(reason) <= REASON_LENGTH else f"{reason[:REASON_LENGTH]}…"


def is_secret(name: str) -> bool:
    """Return True if the name of a variable or a field suggests that its value is secret."""
    return bool(_pattern(_SENSITIVE).search(name))


def masked_env(env: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of a job with secrets masked; the job's file keeps the values."""
    return {name: _masked_text(name, value) for name, value in env.items()}


def masked(record: Mapping[str, Any], own: frozenset[str] = frozenset()) -> dict[str, Any]:
    """Return the fields of a job with secrets masked.

    Args:
        own: the names of queuectl's own fields; of these, only `env` may contain secrets.
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
    """Mask a field that queuectl does not know, which another tool has added; it may be nested."""
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
    return _pattern(_IN_ADDRESS).sub(rf"\1:{MASK}", value)
