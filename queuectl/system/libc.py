"""Calls of Linux's C library that Python has none for. ctypes is loaded with the first of them, as it takes 2 ms."""

from __future__ import annotations

import errno

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_found: dict[str, Any] = {}


def call(name: str, kinds: str, *arguments: Any) -> int:
    """Call a function that answers with a whole number; where it is missing it fails like any other.

    Args:
        kinds: ctypes' names of the kinds of its arguments.
    """
    return int((_found.get(name) or _look_up(name, kinds))(*arguments))


def last_error() -> int:
    """The errno of the last call that failed."""
    import ctypes

    return ctypes.get_errno()


def _look_up(name: str, kinds: str) -> Any:
    import ctypes

    function = getattr(ctypes.CDLL(None, use_errno=True), name, None)
    if function is None:
        return _missing
    function.argtypes = [getattr(ctypes, kind) for kind in kinds.split()]
    function.restype = ctypes.c_int
    return _found.setdefault(name, function)


def _missing(*_: Any) -> int:
    import ctypes

    ctypes.set_errno(errno.ENOSYS)
    return -1
