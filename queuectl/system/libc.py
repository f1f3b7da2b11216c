"""Functions of Linux's C library that Python does not offer. ctypes is loaded at the first call: that takes 2 ms."""

from __future__ import annotations

import errno

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_found: dict[str, Any] = {}
_quick: dict[str, Any] = {}


def call(name: str, types: str, *arguments: Any) -> int:
    """Call a C function that returns an int; a function that the library lacks fails with ENOSYS.

    Args:
        types: the ctypes names of its argument types, separated by spaces.
    """
    return int((_found.get(name) or _look_up(name, types))(*arguments))


def quick(name: str, types: str, *arguments: Any) -> int:
    """As `call`, for a function that never waits: Python's other threads do not get their turn meanwhile.

    Each turn that is given away and waited for costs more than such a function.
    """
    return int((_quick.get(name) or _look_up(name, types, quick=True))(*arguments))


def last_error() -> int:
    """The errno of the last call that failed."""
    import ctypes

    return ctypes.get_errno()


def _look_up(name: str, types: str, *, quick: bool = False) -> Any:
    import ctypes

    library = (ctypes.PyDLL if quick else ctypes.CDLL)(None, use_errno=True)
    function = getattr(library, name, None)
    if function is None:
        return _missing
    function.argtypes = [getattr(ctypes, one) for one in types.split()]
    function.restype = ctypes.c_int
    return (_quick if quick else _found).setdefault(name, function)


def _missing(*_: Any) -> int:
    import ctypes

    ctypes.set_errno(errno.ENOSYS)
    return -1
