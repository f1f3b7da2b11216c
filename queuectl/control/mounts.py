"""Check that files can be renamed between all folders of a spool: every move of a job is one rename.

A folder that is a mount of its own refuses each rename, also if the same disk is mounted there (`docker -v …/done`). A
worker would run jobs and could never record them.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress

from queuectl.control import permissions
from queuectl.errors import WorkerError
from queuectl.layout import FOLDERS, PROCESSING
from queuectl.system import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from queuectl.layout import Layout

HINT = "unmount it, or move the whole spool there"

_SO = ", so no file can be renamed into or out of it"

FOR_GOOD = frozenset({errno.EXDEV, errno.EROFS})
"""Errors of a rename or a write that trying again does not end."""


def obstacles(layout: Layout) -> Iterator[tuple[str, str]]:
    """Yield each folder into which no file of the spool can be renamed, and the sentence that says so.

    Nothing is changed: what is renamed does not exist. Linux refuses a rename between two mounts, or on a read-only one,
    before it looks for the file.
    """
    with suppress(OSError):
        home = os.stat(layout.root).st_dev
        for name in _names(layout):
            path = os.path.join(layout.root, name)
            with suppress(FileNotFoundError):
                is_elsewhere = os.stat(path).st_dev != home
                code = errno.EXDEV if is_elsewhere else files.refused_rename(layout.root, path)
                if code == errno.EXDEV:
                    yield name, f"{name}/ is on another filesystem than the spool, or a mount of its own{_SO}"
                elif code == errno.EROFS:
                    yield name, f"{name}/ is on a read-only filesystem{_SO}"
                    return  # mostly it is the same one for all


def obstacle(layout: Layout) -> str | None:
    """Return the first sentence of `obstacles`, with what to do; None if there is none."""
    for _, fact in obstacles(layout):
        return f"{fact}; {HINT}"
    return None


def make_ready(layout: Layout) -> None:
    """Make the folders that are missing, and refuse a spool whose jobs must not run, or could never be recorded.

    Raises:
        WorkerError: others can put jobs there, or a folder is a mount of its own or read-only.
        SpoolError: a folder cannot be made or read.
    """
    if not permissions.other_owner(layout):
        layout.create()
    permissions.refuse_unsafe(layout)
    for _, fact in obstacles(layout):
        raise WorkerError(f"cannot run jobs of {layout.root}: {fact}", hint=HINT)


def danger(layout: Layout, safe: permissions.PermissionCheck) -> Callable[[], str | None]:
    """Return what a worker asks once a second: why no job may start, or None."""
    return lambda: safe.look() or obstacle(layout)


def _names(layout: Layout) -> list[str]:
    claims: list[str] = []
    with suppress(OSError), os.scandir(layout.processing) as entries:
        claims = [f"{PROCESSING}/{entry.name}" for entry in entries if entry.is_dir()]
    return [*FOLDERS, *claims]
