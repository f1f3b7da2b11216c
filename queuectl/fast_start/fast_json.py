"""orjson, imported at its first use, and whole.

`fast_json.loads` and the others are those of orjson. A Ctrl+C in the middle of `import orjson` would end the program
with a segmentation fault: its first lines are C code which takes for certain that `datetime` and others can be imported
(seen with orjson 3.11). So the signal waits for these few milliseconds. Later uses find a plain name of this module,
which is faster than an `import` in the function.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType

    from orjson import OPT_APPEND_NEWLINE, OPT_INDENT_2, JSONDecodeError, dumps, loads

__all__ = ["OPT_APPEND_NEWLINE", "OPT_INDENT_2", "JSONDecodeError", "dumps", "loads"]


def __getattr__(name: str) -> object:
    """Find a name of orjson when it is used for the first time.

    Raises:
        AttributeError: this module has no such name.
    """
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_whole(), name)
    globals()[name] = value
    return value


def import_whole() -> ModuleType:
    """Import orjson while no Ctrl+C can interrupt the import. Windows cannot hold signals back: there one may."""
    if sys.platform == "win32":
        import orjson

        return orjson
    import signal

    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        import orjson
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return orjson
