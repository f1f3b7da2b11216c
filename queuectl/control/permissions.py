"""Who may use a spool: whoever can write into it runs commands as the worker's user."""

from __future__ import annotations

import os
import shlex
import stat
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from queuectl.errors import SpoolError, WorkerError
from queuectl.system import host, safe_open

if TYPE_CHECKING:
    from collections.abc import Iterator

    from queuectl.layout import Layout


_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


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
        owner = owner_other_than_root(layout)
        hint = as_owner(layout, owner, "worker start") if owner else _mending(found)
        raise WorkerError(_told(found), hint=hint)


def _told(found: list[tuple[str, str, str]]) -> str:
    path, problem, _ = found[0]
    more = f" (and so for {len(found) - 1} more)" if len(found) > 1 else ""
    return f"{path} {problem}, who could run commands as you{more}"


def refuse_root(layout: Layout) -> None:
    """See that root hands no jobs to another user's workers: they could not read root's files.

    Raises:
        SpoolError: this is root, and the spool is somebody else's.
    """
    owner = owner_other_than_root(layout)
    if owner:
        raise SpoolError(
            f"{layout.root} is the spool of {owner}, whose workers cannot read what root writes",
            hint=as_owner(layout, owner, "enqueue …"),
        )


def owner_other_than_root(layout: Layout) -> str | None:
    """Whose spool this is, asked by root about a spool that is not root's own; else None."""
    if sys.platform == "win32" or os.geteuid() != 0:
        return None
    try:
        uid = os.stat(layout.root).st_uid
    except OSError:
        return None
    return host.user_name(uid) if uid else None


def as_owner(layout: Layout, owner: str, words: str) -> str:
    """The command line with which root does something in the spool of another user, as that user."""
    who = f"'#{owner}'" if owner.isdigit() else shlex.quote(owner)
    return f"sudo -u {who} queuectl --spool {shlex.quote(layout.root)} {words}"


class Watch:
    """Looks again and again, cheaply, whether a spool has been opened to others since its worker began.

    Attributes:
        above, within: what is looked at, beside the workers' folders: what lies above the spool, and what is its own.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        way = [*_ancestors(layout.root), *_ancestors(os.path.realpath(layout.root))]
        self.above = tuple(dict.fromkeys(way))
        self.within = (layout.root, *_folders(layout), layout.config_yaml, layout.config_json, layout.index)

    def look(self) -> str | None:
        """What lets others in, with the command that mends it; None when nothing does.

        Raises:
            SpoolError: a folder cannot be looked at.
        """
        if sys.platform == "win32" or not (self._is_open() and (found := list(unsafe(self._layout)))):
            return None
        return f"{_told(found)}; {_mending(found)}"

    def _is_open(self) -> bool:
        """Whether a closer look is due; this one takes some microseconds a folder, once a second."""
        trusted = (0, os.geteuid())
        claims: list[str] = []
        with suppress(OSError, SpoolError):
            claims = _folders_in(self._layout.processing)
        for path in (*self.above, *self.within, *claims):
            try:
                status = os.stat(path)
            except OSError:
                continue  # deleted under us: made again, or the business of others
            if status.st_uid not in trusted:
                return True
            if status.st_mode & _OTHERS_WRITE and not (status.st_mode & stat.S_ISVTX and path in self.above):
                return True
        return False


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
    for path in (layout.root, *_folders(layout)):
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
        if os.path.islink(folder) and safe_open.has_other_owner(os.lstat(folder)):
            yield (
                folder,
                f"is a link of another user (uid {os.lstat(folder).st_uid})",
                "sudo chown -h " + _me(),
            )
    for folder in above:
        status = _look(folder)
        # Nobody but its owner can rename or delete what belongs to others in a sticky folder such as /tmp.
        yield from _judge(folder, status, may_write=bool(status.st_mode & stat.S_ISVTX))


def _folders(layout: Layout) -> tuple[str, ...]:
    return (
        layout.pending,
        layout.processing,
        layout.done,
        layout.dead,
        layout.logs,
        layout.tmp,
        layout.data,
        layout.workers,
    )


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
    if safe_open.has_other_owner(status):
        yield path, f"belongs to another user (uid {status.st_uid})", f"sudo chown {_me()}"
    if not may_write and status.st_mode & _OTHERS_WRITE:
        yield path, "can be written by others", "chmod go-w"


def _me() -> str:
    return str(os.geteuid()) if sys.platform != "win32" else ""
