"""Run the command line with a terminal in front of it."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import time
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path


class Seen(NamedTuple):
    """What a person saw: the bytes, the text without its colours, and the exit code."""

    raw: bytes
    text: str
    code: int


def on_terminal(
    *args: str,
    typed: str = "",
    width: int = 120,
    timeout: float = 40,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> Seen:
    """Run `queuectl ARGS` on a pseudo terminal, type something, and return what it wrote to either stream.

    Without colours and without a pager, unless env says otherwise.
    """
    ours, theirs = pty.openpty()
    shape = {"COLUMNS": str(width), "LINES": "50", "TERM": "xterm", "NO_COLOR": "1", "PAGER": "cat"}
    process = subprocess.Popen(
        [sys.executable, "-m", "queuectl", *args],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, **shape, **(env or {})},
        cwd=cwd,
    )
    os.close(theirs)
    try:
        if typed:
            os.write(ours, typed.encode())
        raw = _read_all(ours, time.monotonic() + timeout)
        code = process.wait(timeout)
    finally:
        os.close(ours)
        if process.poll() is None:
            process.kill()
            process.wait()
    text = re.sub(r"\x1b\[[0-9;]*m", "", raw.decode(errors="replace")).replace("\r\n", "\n")
    return Seen(raw, text, code)


def _read_all(fd: int, end: float) -> bytes:
    """Read until the other side is closed, which Linux tells as an input/output error."""
    parts = []
    while time.monotonic() < end:
        if not select.select([fd], [], [], 0.1)[0]:
            continue
        try:
            data = os.read(fd, 65536)
        except OSError:
            break
        if not data:
            break
        parts.append(data)
    return b"".join(parts)


IN_A_TERMINAL = (
    "import fcntl, os, signal, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0);"
    "signal.signal(signal.SIGHUP, signal.SIG_DFL);"  # who runs the tests may be deaf to it
    "os.execvp(sys.argv[1], sys.argv[1:])"
)


def in_a_terminal(command: str) -> tuple[subprocess.Popen[bytes], int]:
    """Run a shell command in a terminal of its own; closing the descriptor hangs up."""
    master, slave = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", IN_A_TERMINAL, "sh", "-c", command],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
    )
    os.close(slave)
    return process, master


def typed_into(shell: list[str], before: str, lines: Iterable[str], timeout: float = 60) -> list[str]:
    """Type lines into a shell with a terminal, and return what each of them has written: the line that begins with <.

    Args:
        before: a command that is typed first.
    """
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", IN_A_TERMINAL, *shell],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        env={**os.environ, "TERM": "dumb", "PS1": "> ", "COLUMNS": "200"},
    )
    os.close(theirs)
    end = time.monotonic() + timeout
    try:
        _read_line(ours, f"{before}; printf '<%s>\\n' ready\n", end)
        return [_read_line(ours, f"{line}\n", end) for line in lines]
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def _read_line(fd: int, typed: str, end: float) -> str:
    """Type something, and return the first whole line that begins with <."""
    os.write(fd, typed.encode())
    text = b""
    while (found := re.search(rb"\n(<.*)\r\n", text)) is None:
        assert time.monotonic() < end, text
        if select.select([fd], [], [], 0.1)[0]:
            text += os.read(fd, 65536)
    return found[1].decode()
