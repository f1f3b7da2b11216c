"""A pager between long output and a person's eyes; never between two programs."""

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
"""For less: leave when all fits on the screen, let colours through, leave the text behind at the end."""


def chosen() -> str | None:
    """The command line of the pager that the person at the terminal wants, None for none."""
    if not render.is_terminal(sys.stdin) or os.environ.get("TERM") == "dumb":
        return None
    wanted = os.environ.get("PAGER")
    if wanted is None:
        wanted = next((name for name in ("less", "more") if shutil.which(name)), "")
    return None if wanted.strip() in {"", "cat"} else wanted


@contextmanager
def paged() -> Iterator[None]:
    """Let what is printed on the terminal go through the pager; without one it goes as ever."""
    wanted = chosen()
    pager = _start(wanted) if wanted else None
    if pager is None or pager.stdin is None:
        yield
        return
    screen, styled = sys.stdout, render.styled
    ours = _ToPager(pager.stdin, encoding=screen.encoding, errors="backslashreplace")
    render.hold_notes()
    sys.stdout, render.styled = ours, styled and os.path.basename(shlex.split(wanted or "x")[0]) == "less"
    try:
        yield
        with suppress(BrokenPipeError):  # the reader has seen enough
            ours.flush()
    except BrokenPipeError:
        return
    finally:
        sys.stdout, render.styled = screen, styled
        with suppress(BrokenPipeError):
            ours.close()
        _await(pager)
        render.let_notes_go()


class _ToPager(io.TextIOWrapper):
    """A pipe at whose other end a person sits."""

    def isatty(self) -> bool:
        """Tables and colours are wanted as on the terminal."""
        return True


def _start(command: str) -> subprocess.Popen[bytes] | None:
    """Start it as a shell would; None when there is no such program."""
    import subprocess

    env = {**os.environ, "LESS": os.environ.get("LESS", _LESS)}
    try:
        return subprocess.Popen(shlex.split(command), stdin=subprocess.PIPE, env=env)
    except (OSError, ValueError) as error:
        render.note(f"note: no pager: PAGER={command}: {error}")
        return None


def _await(pager: subprocess.Popen[bytes]) -> None:
    """Wait for the reader; Ctrl+C is for the pager, which stays."""
    while True:
        try:
            pager.wait()
            return
        except KeyboardInterrupt:
            continue
