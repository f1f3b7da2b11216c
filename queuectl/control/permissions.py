"""Check who can write into a spool: a person who can write there can run commands as the worker's user."""

from __future__ import annotations

import os
import stat
import sys
from contextlib import suppress

from queuectl.errors import SpoolError, WorkerError
from queuectl.system import host, safe_open

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from queuectl.layout import Layout


def refuse_unsafe(layout: Layout) -> None:
    """Refuse a spool into which other users can put jobs, as sshd's StrictModes does for keys.

    Raises:
        WorkerError: somebody can, through a folder of the spool or one above it.
        SpoolError: a folder is missing or cannot be read.
    """
    if sys.platform == "win32":
        return  # access is not in the mode there, but in access control lists; the README says so
    found = list(unsafe(layout))
    if found:
        owner = other_owner(layout)
        hint = as_owner(layout, owner, "worker start") if owner else _fix(found)
        raise WorkerError(_summary(found), hint=hint)


def _summary(found: list[tuple[str, str, str]]) -> str:
    path, problem, _ = found[0]
    more = f" (and so for {len(found) - 1} more)" if len(found) > 1 else ""
    return f"{path} {problem}, who could run commands as you{more}"


def refuse_others(layout: Layout, words: str = "enqueue …") -> None:
    """Refuse to change the spool of another user.

    That user's workers could not read the files that root writes. Also, the owner could replace a file by a link, and
    root would then change a file outside the spool.

    Args:
        words: the command that the hint shows.

    Raises:
        SpoolError: the spool belongs to another user.
    """
    owner = other_owner(layout)
    if owner:
        raise SpoolError(
            f"{layout.root} is the spool of {owner}, and only {owner} may change it",
            hint=as_owner(layout, owner, words),
        )


def other_owner(layout: Layout) -> str | None:
    """Return the name of the spool's owner if that is neither this user nor root; else None."""
    uid = safe_open.other_owner(layout.root)
    return None if uid is None else host.user_name(uid)


def refuse_links(layout: Layout) -> None:
    """Refuse a spool of another user in which a folder is a link: it could lead to any folder of the machine.

    Raises:
        SpoolError: a folder is a link, or something else than a folder.
    """
    more = layout.queues, layout.permits, layout.rules, layout.rule_notes, layout.rules_untold
    for path in (*_folders(layout), *more):
        if os.path.lexists(path) and (os.path.islink(path) or not os.path.isdir(path)):
            raise SpoolError(f"{path} is a link or a file in the spool of another user, and is not followed")


def as_owner(layout: Layout, owner: str, words: str) -> str:
    """Return the command line with which root runs a queuectl command as the owner of the spool."""
    from shlex import quote

    who = f"'#{owner}'" if owner.isdigit() else quote(owner)
    return f"sudo -u {who} queuectl --spool {quote(layout.root)} {words}"


class PermissionCheck:
    """A worker's cheap check, once a second, whether other users can write into its spool now.

    Attributes:
        above: the folders above the spool.
        within: the folders and files of the spool that are checked, beside the workers' folders.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        parents = [*_ancestors(layout.root), *_ancestors(os.path.realpath(layout.root))]
        self.above = tuple(dict.fromkeys(parents))
        self.within = (layout.root, *_folders(layout), *_contents(layout))

    def look(self) -> str | None:
        """Return what lets others write, with the command that fixes it; None when nothing does.

        Raises:
            SpoolError: a folder cannot be read.
        """
        if sys.platform == "win32" or not (self._looks_open() and (found := list(unsafe(self._layout)))):
            return None
        return f"{_summary(found)}; {_fix(found)}"

    def _looks_open(self) -> bool:
        """Whether the full check is needed. This one takes some microseconds for each folder."""
        trusted = (0, os.geteuid())
        claims: list[str] = []
        with suppress(OSError, SpoolError):
            claims = _folders_in(self._layout.processing)
        for path in (*self.above, *self.within, *claims):
            try:
                status = os.stat(path)
            except OSError:
                continue  # deleted meanwhile: it is made again, or the full check reports it elsewhere
            if status.st_uid not in trusted:
                return True
            if status.st_mode & safe_open.OTHERS_WRITE and not (
                status.st_mode & stat.S_ISVTX and path in self.above
            ):
                return True
        return False


def _fix(found: list[tuple[str, str, str]]) -> str:
    """One command line that fixes all of it."""
    from shlex import quote

    commands: dict[str, list[str]] = {}
    for path, _, command in found:
        commands.setdefault(command, []).append(quote(path))
    return " && ".join(f"{command} {' '.join(paths)}" for command, paths in commands.items())


def unsafe(layout: Layout) -> Iterator[tuple[str, str, str]]:
    """Yield what lets other users write: the path, what is wrong, and the command that fixes it, without the path.

    Raises:
        SpoolError: a folder cannot be read.
    """
    for path in (layout.root, *_folders(layout)):
        yield from _check(path, _stat(path))
    folders = layout.permits, layout.rule_notes, layout.rules_untold
    for path in (*_folders_in(layout.processing), *folders, *_contents(layout)):
        with suppress(FileNotFoundError):
            yield from _check(path, os.stat(path))
    yield from unsafe_parents(layout.root)


def unsafe_parents(path: str) -> Iterator[tuple[str, str, str]]:
    """Yield what lets other users replace this folder by another: folders above it, and links on its path.

    Raises:
        SpoolError: one of them cannot be read.
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
        status = _stat(folder)
        # In a sticky folder such as /tmp only the owner of an entry can rename or delete it.
        yield from _check(folder, status, is_sticky=bool(status.st_mode & stat.S_ISVTX))


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


def _contents(layout: Layout) -> tuple[str, ...]:
    """Return what decides which jobs are run, how many at once, and from which users they are accepted.

    Each may be missing: a spool of an earlier version has no folder for queues before its owner uses it.
    """
    return layout.queues, layout.rules, layout.config_yaml, layout.config_json, layout.index


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


def _stat(path: str) -> os.stat_result:
    try:
        return os.stat(path)
    except OSError as error:
        raise SpoolError.from_os("look at", path, error) from None


def _check(path: str, status: os.stat_result, *, is_sticky: bool = False) -> Iterator[tuple[str, str, str]]:
    if safe_open.has_other_owner(status):
        yield path, f"belongs to another user (uid {status.st_uid})", f"sudo chown {_me()}"
    if not is_sticky and status.st_mode & safe_open.OTHERS_WRITE:
        yield path, "can be written by others", "chmod go-w"


def _me() -> str:
    return str(os.geteuid()) if sys.platform != "win32" else ""
