"""Which files a rule has taken already: `data/rules/NAME.seen`, a line each, written behind the job.

It needs no sync. After a power cut its end may be missing: then the ids of the jobs show that they were queued.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from queuectl.fast_start import fast_json
from queuectl.system import files

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from queuectl.rules.folder_look import Found

_FEW = 1000
"""Lines that are never worth a new file."""

_LINES = [str], [str, int, int, int, int, int]
"""The types in a line: of `claim`, and of `line`."""


class SeenFiles:
    """The files that one rule has taken.

    A file is known if its size and time are those of a line, and its name or its inode, too: some file systems give other
    inodes after they were mounted anew, and a file may be renamed.

    Args:
        path: of the file with the lines.

    Attributes:
        claims: the ids of jobs for which a file was moved.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.claims: set[str] = set()
        self._known: set[int] = set()
        self._lines = 0
        self._identity: tuple[int, int] | None = None
        self._read()

    def _read(self) -> None:
        self._known.clear()
        self.claims.clear()
        self._lines, self._identity = 0, self._on_disk()
        for line in _lines(self.path):
            self._note(line)

    def _on_disk(self) -> tuple[int, int] | None:
        try:
            status = os.lstat(self.path)
        except OSError:
            return None
        return status.st_dev, status.st_ino

    def refresh(self) -> None:
        """Read the lines again if somebody has deleted or replaced the file."""
        if self._on_disk() != self._identity:
            self._read()

    def knows(self, one: Found) -> bool:
        """Whether a file was taken already."""
        what = one.size, one.modified
        return hash((*what, one.inode)) in self._known or hash((*what, one.below)) in self._known

    def add(self, lines: Sequence[list[Any]]) -> None:
        """Write lines, see `line` and `claim`.

        Raises:
            OSError: the disk refused.
        """
        os.makedirs(os.path.dirname(self.path), mode=0o700, exist_ok=True)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | files.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0)
        fd = os.open(self.path, flags, 0o600)
        try:
            # A crash may have left half a line: each of ours begins in a new one.
            files.write_all(fd, b"\n" + b"\n".join(map(fast_json.dumps, lines)) + b"\n")
        finally:
            os.close(fd)
        self._identity = self._on_disk()
        for line in lines:
            self._note(line)

    def _note(self, line: list[Any]) -> None:
        self._lines += 1
        if len(line) == 1:
            self.claims.add(line[0])
            return
        below, inode, size, modified = line[:4]
        self._known.add(hash((size, modified, inode)))
        self._known.add(hash((size, modified, below)))

    def may_forget(self, present: int | None) -> bool:
        """Whether half of the lines are about files that are gone.

        Args:
            present: how many were there at the last look; None: there was none.
        """
        return present is not None and self._lines >= _FEW and self._lines >= 2 * present

    def forget_gone(
        self,
        present: Sequence[Found],
        passed_over: set[str],
        folders: set[tuple[int, int]],
        claims: Iterable[str],
    ) -> None:
        """Write the file anew without what is gone, once half of it is.

        Lines from a folder that was not looked at stay: it may not be mounted now, and its files come back.

        Args:
            present: the known files that are there.
            passed_over: the paths of others that are there. The rule does not mean their names now, but may do so again.
            folders: device and inode of the folders in which they were looked for.
            claims: the ids of the jobs whose files still lie in a folder of theirs.

        Raises:
            OSError: the disk refused; the old file is still there.
        """
        claimed = self.claims & set(claims)
        kept = [
            one
            for one in _lines(self.path)
            if len(one) > 1 and ((one[4], one[5]) not in folders or one[0] in passed_over)
        ]
        kept += [[one] for one in claimed]
        kept += [line(one) for one in present]
        if self._lines < 2 * len(kept):
            return
        scratch = os.path.join(os.path.dirname(self.path), files.temporary_name())
        files.write_new(scratch, b"".join(fast_json.dumps(one) + b"\n" for one in kept), sync=True)
        files.rename_over(scratch, self.path)
        self._read()


def line(one: Found) -> list[Any]:
    """Return the line about a file that was left where it is."""
    return [one.below, one.inode, one.size, one.modified, *one.folder]


def claim(job_id: str) -> list[Any]:
    """Return the line about a file that was moved."""
    return [job_id]


def _lines(path: str) -> Iterable[list[Any]]:
    """Yield the lines that can be read."""
    try:
        with open(path, "rb") as file:
            for text in file:
                try:
                    found = fast_json.loads(text)
                except ValueError:
                    continue
                if _is_line(found):
                    yield found
    except OSError:
        return


def _is_line(found: Any) -> bool:
    return isinstance(found, list) and [*map(type, found)] in _LINES
