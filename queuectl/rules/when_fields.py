"""Reads single fields of the `when:` of a rule, of whatever kind it is. Pure."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from queuectl.job import times
from queuectl.rules.rule import Wrong

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


def refuse_unknown(when: Mapping[str, Any], kind: str, keys: Sequence[str]) -> None:
    """Refuse a key that a rule of this kind does not have.

    Args:
        kind: the key that makes it a rule of this kind.
        keys: what may stand beside that.

    Raises:
        Wrong: there is such a key; the message suggests one.
    """
    for key in when:
        if key != kind and key not in keys:
            near = get_close_matches(key, keys, n=1)
            meant = f"; is {near[0]} meant?" if near else ""
            raise Wrong(("when", key), f"is not known beside {kind}{meant}")


def value_of(when: Mapping[str, Any], name: str, check: Callable[[Any], Any], default: Any = None) -> Any:
    """Return the checked value of a field, or the default if it is left out.

    Args:
        check: returns the value; raises ValueError with the reason if it is wrong.

    Raises:
        Wrong: it is wrong.
    """
    value = when.get(name)
    if value is None:
        return default
    try:
        return check(value)
    except ValueError as error:
        raise Wrong(("when", name), str(error)) from None


def whole_span(value: object) -> int:
    """Return a length of time in whole seconds, at least one.

    Raises:
        ValueError: it is none.
    """
    seconds = times.parse_duration(value)
    if seconds < 1:
        raise ValueError("must be at least 1s")
    if seconds != int(seconds):
        raise ValueError("must be whole seconds")
    return int(seconds)
