"""Scratch files that are written together, many of them in a folder of their own.

Who makes a file locks its folder in the kernel, and who moves one out of that folder waits for it. In the one tmp/ the
process that queues a batch and its copy that writes the next were in each other's way for a third of their time.
"""

from __future__ import annotations

import os
from contextlib import suppress

from queuectl.system import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_ENDING = ".lot"


class Lot:
    """Names for so many scratch files.

    Args:
        tmp: the folder that they, or their own folder, go into.
        apart: give them a folder of their own, if one can be made: what is wrong with the disk is told by who writes.

    Attributes:
        folder: where they lie.
        paths: one for each.
    """

    def __init__(self, tmp: str, many: int, *, apart: bool) -> None:
        self.folder = tmp
        self._own = False
        if apart:
            folder = f"{tmp}{os.sep}.{files.token()}{_ENDING}"
            with suppress(OSError):
                os.mkdir(folder, 0o700)
                self.folder, self._own = folder, True
        numbers = range(many)
        self.paths = (
            [f"{self.folder}{os.sep}{number}" for number in numbers]
            if self._own
            else [f"{tmp}{os.sep}{files.temporary_name()}" for _ in numbers]
        )

    def end(self, left: Iterable[str]) -> None:
        """Delete the files that were given no other name, and the folder."""
        for path in left:
            with suppress(OSError):
                os.unlink(path)
        if self._own:
            with suppress(OSError):
                os.rmdir(self.folder)


def is_lot(name: str) -> bool:
    """Whether a folder's name is one that a lot has."""
    return name.endswith(_ENDING) and files.is_temporary_name(f"{name[: -len(_ENDING)]}.tmp")


def delete(folder: str) -> None:
    """Delete what a producer that was killed left, and the folder with it if nothing else lies there.

    Raises:
        OSError: something does, or it cannot be deleted.
    """
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.isdecimal() and entry.is_file(follow_symlinks=False):
                os.unlink(entry.path)
    os.rmdir(folder)
