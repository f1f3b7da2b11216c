"""Standard output that nobody takes any more: a command that changes jobs goes on, and says on stderr what was done."""

from __future__ import annotations

import os
import sys
from contextlib import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO

_keeps_working = False
_lost: OSError | None = None
_done = ""


def keep_working() -> None:
    """From now on a stdout that is closed or full ends only the output, not the work. For commands that change jobs."""
    global _keeps_working
    _keeps_working = True


def lose_output(error: OSError) -> None:
    """Go on without stdout, or raise the error if this command has nothing else to do than to print.

    Raises:
        OSError: the error that was given.
    """
    global _lost
    if not _keeps_working:
        raise error
    if _lost is None:
        _lost = error
    forget(sys.stdout)


def report_done(text: str) -> None:
    """Keep a summary of the work, as in "enqueued job a". It is printed on stderr if stdout is lost."""
    global _done
    _done = text


def reset() -> None:
    """Forget an earlier command of this process."""
    global _keeps_working, _lost, _done
    _keeps_working, _lost, _done = False, None, ""


def summary() -> str | None:
    """Return the line that says what was done, if stdout is lost; else None. A closed pipe alone is no news."""
    if _lost is None or not (_done or not isinstance(_lost, BrokenPipeError)):
        return None
    reason = (getattr(_lost, "strerror", None) or str(_lost)).lower()
    return f"note: cannot write the output: {reason}; {_done or 'the command was carried out'}"


def forget(stream: TextIO) -> None:
    """Point stdout or stderr at /dev/null, so that the flush at exit does not fail a second time."""
    with suppress(OSError, ValueError):
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, stream.fileno())
        os.close(nothing)
