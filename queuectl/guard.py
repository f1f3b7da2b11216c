"""Who may use a spool: whoever can write into it runs commands as the worker's user."""

from __future__ import annotations

import os
import stat
import sys
from typing import TYPE_CHECKING

from queuectl import files
from queuectl.errors import SpoolError, WorkerError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from queuectl.layout import Layout


def refuse_unsafe(layout: Layout) -> None:
    """See that nobody but the worker's user can put jobs into the spool, as sshd's StrictModes does for keys.

    Raises:
        WorkerError: somebody can, through a folder of the spool or one above it.
        SpoolError: a folder is missing or cannot be looked at.
    """
    if sys.platform == "win32":
        return  # access there is a list of rights and not in the mode; the README says so
    for path, problem, hint in unsafe(layout):
        raise WorkerError(f"{path} {problem}, who could run commands as you", hint=hint or None)


def unsafe(layout: Layout) -> Iterator[tuple[str, str, str]]:
    """Everything that lets others in: the path, what is wrong with it, and what would mend it.

    Raises:
        SpoolError: a folder cannot be looked at.
    """
    names = (
        layout.pending,
        layout.processing,
        layout.done,
        layout.dead,
        layout.tmp,
        layout.data,
        layout.workers,
    )
    for path in (layout.root, *names):
        yield from _judge(path, _look(path))
    for path in _ancestors(layout.root):
        status = _look(path)
        # Nobody can rename or delete what belongs to others in a sticky folder such as /tmp.
        if not status.st_mode & stat.S_ISVTX:
            yield from _judge(path, status)


def _ancestors(root: str) -> Iterator[str]:
    path = os.path.realpath(root)
    while (parent := os.path.dirname(path)) != path:
        path = parent
        yield path


def _look(path: str) -> os.stat_result:
    try:
        return os.stat(path)
    except OSError as error:
        raise SpoolError.from_os("look at", path, error) from None


def _judge(path: str, status: os.stat_result) -> Iterator[tuple[str, str, str]]:
    if files.is_strangers(status):
        yield path, f"belongs to another user (uid {status.st_uid})", ""
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        yield path, "can be written by others", f"chmod go-w {path}"
