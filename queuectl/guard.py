"""Who may use a spool: whoever can write into it runs commands as the worker's user."""

from __future__ import annotations

import os
import shlex
import stat
import sys
from contextlib import suppress
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
    found = list(unsafe(layout))
    if found:
        path, problem, _ = found[0]
        more = f" (and so for {len(found) - 1} more)" if len(found) > 1 else ""
        raise WorkerError(f"{path} {problem}, who could run commands as you{more}", hint=_mending(found))


def _mending(found: list[tuple[str, str, str]]) -> str:
    """One line that mends all of it."""
    commands: dict[str, list[str]] = {}
    for path, _, command in found:
        commands.setdefault(command, []).append(shlex.quote(path))
    return " && ".join(f"{command} {' '.join(paths)}" for command, paths in commands.items())


def unsafe(layout: Layout) -> Iterator[tuple[str, str, str]]:
    """Everything that lets others in: the path, what is wrong with it, and the command that mends it, without the path.

    Raises:
        SpoolError: a folder cannot be looked at.
    """
    names = (
        layout.pending,
        layout.processing,
        layout.done,
        layout.dead,
        layout.logs,
        layout.tmp,
        layout.data,
        layout.workers,
    )
    for path in (layout.root, *names):
        yield from _judge(path, _look(path))
    # What stands in these decides what is run, or taken from whom.
    for path in (*_folders_in(layout.processing), layout.config_yaml, layout.config_json, layout.index):
        with suppress(FileNotFoundError):
            yield from _judge(path, os.stat(path))
    yield from unsafe_way(layout.root)


def unsafe_way(path: str) -> Iterator[tuple[str, str, str]]:
    """What lets others put another folder in the place of this one: the folders above it, and links on the way.

    Raises:
        SpoolError: one of them cannot be looked at.
    """
    if sys.platform == "win32":
        return
    above = dict.fromkeys([*_ancestors(path), *_ancestors(os.path.realpath(path))])
    for folder in (path, *above):
        if os.path.islink(folder) and files.is_strangers(os.lstat(folder)):
            yield (
                folder,
                f"is a link of another user (uid {os.lstat(folder).st_uid})",
                "sudo chown -h " + _me(),
            )
    for folder in above:
        status = _look(folder)
        # Nobody but its owner can rename or delete what belongs to others in a sticky folder such as /tmp.
        yield from _judge(folder, status, may_write=bool(status.st_mode & stat.S_ISVTX))


def _ancestors(path: str) -> Iterator[str]:
    while (parent := os.path.dirname(path)) != path:
        path = parent
        yield path


def _folders_in(path: str) -> list[str]:
    try:
        with os.scandir(path) as entries:
            return [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError as error:
        raise SpoolError.from_os("read", path, error) from None


def _look(path: str) -> os.stat_result:
    try:
        return os.stat(path)
    except OSError as error:
        raise SpoolError.from_os("look at", path, error) from None


def _judge(path: str, status: os.stat_result, *, may_write: bool = False) -> Iterator[tuple[str, str, str]]:
    if files.is_strangers(status):
        yield path, f"belongs to another user (uid {status.st_uid})", f"sudo chown {_me()}"
    if not may_write and status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        yield path, "can be written by others", "chmod go-w"


def _me() -> str:
    return str(os.geteuid()) if sys.platform != "win32" else ""
