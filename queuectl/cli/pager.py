"""Show long output on a terminal in a pager. Output to a pipe never goes through one."""

from __future__ import annotations

import io
import os
import shlex
import shutil
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from queuectl.cli import render

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

_LESS = "FRX"
"""Options of less: exit if all fits on the screen, show colours, keep the text on the screen at the end."""


def chosen() -> str | None:
    """The command line of the pager to use; None for no pager."""
    if not render.is_terminal(sys.stdin) or os.environ.get("TERM") == "dumb":
        return None
    wanted = os.environ.get("PAGER")
    if wanted is None:
        wanted = next((name for name in ("less", "more") if shutil.which(name)), "")
    return None if wanted.strip() in {"", "cat"} else wanted


@contextmanager
def paged() -> Iterator[None]:
    """Send what is printed on the terminal through the pager, if there is one."""
    wanted = chosen()
    pager = _start(wanted) if wanted else None
    if pager is None or pager.stdin is None:
        yield
        return
    screen, styled = sys.stdout, render.styled
    to_pager = _ToPager(pager.stdin, encoding=screen.encoding, errors="backslashreplace")
    render.buffer_notes()
    sys.stdout, render.styled = to_pager, styled and os.path.basename(shlex.split(wanted or "x")[0]) == "less"
    try:
        yield
        with suppress(BrokenPipeError):  # the user has left the pager
            to_pager.flush()
    except BrokenPipeError:
        return
    finally:
        sys.stdout, render.styled = screen, styled
        with suppress(BrokenPipeError):
            to_pager.close()
        _wait_for(pager)
        render.print_buffered_notes()


class _ToPager(io.TextIOWrapper):
    """A pipe to the pager, which shows the text to a person."""

    def isatty(self) -> bool:
        """True: print tables and colours as on a terminal."""
        return True


def _start(command: str) -> subprocess.Popen[bytes] | None:
    """Start the pager; None if there is no such program."""
    import subprocess

    env = {**os.environ, "LESS": os.environ.get("LESS", _LESS)}
    try:
        return subprocess.Popen(shlex.split(command), stdin=subprocess.PIPE, env=env)
    except (OSError, ValueError) as error:
        render.note(f"note: no pager: PAGER={command}: {error}")
        return None


def _wait_for(pager: subprocess.Popen[bytes]) -> None:
    """Wait until the user leaves the pager. Ctrl+C is meant for the pager, which handles it itself."""
    while True:
        try:
            pager.wait()
            return
        except KeyboardInterrupt:
            continue
