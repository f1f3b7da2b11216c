"""Functions of Linux's C library that Python does not offer. ctypes is loaded at the first call: that takes 2 ms."""

from __future__ import annotations

import errno

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_found: dict[str, Any] = {}


def call(name: str, types: str, *arguments: Any) -> int:
    """Call a C function that returns an int; a function that the library lacks fails with ENOSYS.

    Args:
        types: the ctypes names of its argument types, separated by spaces.
    """
    return int((_found.get(name) or _look_up(name, types))(*arguments))


def last_error() -> int:
    """The errno of the last call that failed."""
    import ctypes

    return ctypes.get_errno()


def _look_up(name: str, types: str) -> Any:
    import ctypes

    function = getattr(ctypes.CDLL(None, use_errno=True), name, None)
    if function is None:
        return _missing
    function.argtypes = [getattr(ctypes, one) for one in types.split()]
    function.restype = ctypes.c_int
    return _found.setdefault(name, function)


def _missing(*_: Any) -> int:
    import ctypes

    ctypes.set_errno(errno.ENOSYS)
    return -1
