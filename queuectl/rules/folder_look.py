"""Looks at a folder that a rule watches: which files it means, and which of these are complete.

A look is done in slices, so that a folder with very many files holds no job up. A file that is not complete is no fault:
it is looked at again, however long that takes.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

from queuectl.config import stamp
from queuectl.fast_start.dataclass import dataclass
from queuectl.layout import is_utf8
from queuectl.rules import claimed_files
from queuectl.rules.file_trigger import is_unfinished
from queuectl.system import safe_open

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from queuectl.config.stamp import Stamp
    from queuectl.rules.file_trigger import FileTrigger

_AT_ONCE = 64
"""Files between two looks at the clock."""

QUIET = "it has changed just now"
"""Why a file is not taken that nobody has open, and that only has to stay as it is for a while."""


@dataclass(slots=True)
class Found:
    """A file that a rule means.

    Attributes:
        below: its path below the folder.
        folder: device and inode of the folder in which it lies.
        inode, size, modified, changed: the times in nanoseconds.
        kind: the word for what it is, if it is no file.
    """

    below: str
    folder: tuple[int, int]
    inode: int
    size: int
    modified: int
    changed: int
    kind: str | None = None

    @property
    def identity(self) -> tuple[int, int, int, int]:
        """What changes when the file does."""
        return self.inode, self.size, self.modified, self.changed


class FolderLook:
    """One look at a folder.

    Args:
        is_known: whether a file has been taken already.
        keeps_known: list those, too; of 100,000 they take 20 MB.

    Attributes:
        found: the files that the rule means and that are not known, in the order of the folder.
        known, number_known: those that are known, and how many they are.
        passed_over: the paths of files whose names the rule does not mean, if `keeps_known`.
        folders: the folders that were looked at, each with its stamp from before that.
        identities: device and inode of each of them that could be read to its end.
        closed: the paths of folders below that cannot be read, each with the reason.
        nameless: how many names are not UTF-8.
        unfinished: how many names are those of unfinished files, without hidden ones.
        problem: why the folder cannot be looked at.
    """

    def __init__(
        self, trigger: FileTrigger, is_known: Callable[[Found], bool], *, keeps_known: bool = False
    ) -> None:
        self._trigger, self._is_known, self._keeps_known = trigger, is_known, keeps_known
        self._is_meant = trigger.chooser()
        self.found: list[Found] = []
        self.known: list[Found] = []
        self.number_known = 0
        self.passed_over: set[str] = set()
        self.closed: list[tuple[str, str]] = []
        self.folders: list[tuple[str, Stamp | None]] = []
        self.identities: set[tuple[int, int]] = set()
        self.nameless = self.unfinished = 0
        self.problem: str | None = None

    def steps(self) -> Iterator[None]:
        """Look, and yield after each few files."""
        left = [""]
        while left:
            below = left.pop()
            path = os.path.join(self._trigger.folder, below) if below else self._trigger.folder
            self.folders.append((path, stamp.of(path)))
            try:
                status = os.stat(path)
                identity = status.st_dev, status.st_ino
                with os.scandir(path) as entries:
                    yield from self._read(entries, below, identity, left)
                self.identities.add(identity)
            except OSError as error:
                if not below:
                    self.problem = _problem(path, error)
                elif not isinstance(error, FileNotFoundError):  # else it is gone
                    reason = (error.strerror or str(error)).lower()
                    self.closed.append((below, f"the folder cannot be read: {reason}"))

    def _read(
        self, entries: Iterator[os.DirEntry[str]], below: str, folder: tuple[int, int], left: list[str]
    ) -> Iterator[None]:
        before = f"{below}{os.sep}" if below else ""
        for number, entry in enumerate(entries, 1):
            if number % _AT_ONCE == 0:
                yield
            name = entry.name
            if not is_utf8(name):
                self.nameless += 1
                continue
            inner = before + name
            try:
                if entry.is_dir(follow_symlinks=False):
                    own = self._trigger.moves and not below and name in claimed_files.FOLDERS
                    if self._trigger.recursive and not (
                        own or is_unfinished(name) or claimed_files.is_home(name)
                    ):
                        left.append(inner)
                elif self._is_meant(name):
                    self._note(_of(inner, folder, entry.stat(follow_symlinks=False)))
                else:
                    self.unfinished += name[0] != "." and is_unfinished(name)
                    if self._keeps_known:
                        self.passed_over.add(inner)
            except FileNotFoundError:
                continue  # gone since the folder was read
        yield

    def _note(self, one: Found) -> None:
        if one.kind is not None or not self._is_known(one):
            self.found.append(one)
            return
        self.number_known += 1
        if self._keeps_known:
            self.known.append(one)


def find(trigger: FileTrigger, below: str) -> Found | None:
    """Look at one file again; None: it is gone.

    Raises:
        OSError: it cannot be looked at now.
    """
    path = os.path.join(trigger.folder, below)
    with suppress(FileNotFoundError, NotADirectoryError):
        folder = os.stat(os.path.dirname(path))
        return _of(below, (folder.st_dev, folder.st_ino), os.lstat(path))
    return None


def _of(below: str, folder: tuple[int, int], status: os.stat_result) -> Found:
    kind = None if stat.S_ISREG(status.st_mode) else safe_open.file_type(status.st_mode)
    changed = max(status.st_mtime_ns, status.st_ctime_ns)
    return Found(below, folder, status.st_ino, status.st_size, status.st_mtime_ns, changed, kind)


def latest_change(changed: int) -> int:
    """Return the last moment, in nanoseconds, at which a file with this time can have changed.

    FAT writes even seconds, and other old file systems whole ones. By such a time a file is up to two seconds older than it is.
    """
    step = next((step for step in (2_000_000_000, 1_000_000_000) if changed % step == 0), 0)
    return changed + step


def _problem(path: str, error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return f"{path} is not there"
    if isinstance(error, NotADirectoryError):
        return f"{path} is no folder"
    return f"{path} cannot be read: {(error.strerror or str(error)).lower()}"


def what_is_missing(one: Found, trigger: FileTrigger, unchanged_for: float | None) -> str | None:
    """Return why a file is not complete, in plain words; None: it is, unless somebody has it open, see `in_use`.

    Args:
        unchanged_for: seconds for which it is known to be as it is; None: it is seen for the first time.
    """
    path = os.path.join(trigger.folder, one.below)
    if one.kind is not None:
        return f"{one.kind}, not a file"
    if one.size == 0:
        return "it is empty"
    if trigger.settle and (unchanged_for is None or unchanged_for < trigger.settle):
        return in_use(path) or QUIET
    companion = trigger.companion_of(os.path.basename(path))
    if companion is not None and not _is_file(os.path.join(os.path.dirname(path), companion)):
        return f"{companion} is not there"
    return None


def _is_file(path: str) -> bool:
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except OSError:
        return False


def in_use(path: str) -> str | None:
    """Return that somebody is writing a file, or that it cannot be read; None: it can be taken now.

    Ask right before it is taken. Not every system can tell that a file is written.
    """
    try:
        fd = os.open(path, safe_open.SAFE_READ)
    except PermissionError:
        return "the worker's user may not read it"
    except OSError as error:
        return f"it cannot be read: {(error.strerror or str(error)).lower()}"
    try:
        safe_open.make_lease_signal_harmless(fd)
        return "a program has it open for writing" if safe_open.any_open_for_writing((fd,)) else None
    finally:
        os.close(fd)
