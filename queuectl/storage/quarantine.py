"""Where a repair puts what cannot stay: nothing is deleted, each file keeps its bytes and gets a note beside it."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from queuectl.job import times
from queuectl.system import files

if TYPE_CHECKING:
    from queuectl.layout import Layout

FOLDER = "aside"


def folder(layout: Layout) -> str:
    """The folder, in data/: no worker and no scan looks into it."""
    return os.path.join(layout.data, FOLDER)


def put(layout: Layout, path: str, why: str, *, inode: int, now: float) -> str | None:
    """Move a file (or a folder) of the spool aside; returns the name it got, None if it is another one by now.

    Args:
        inode: of what was judged. A file that has taken its place since then was not.
        now: epoch seconds, for the note.

    Raises:
        OSError: the disk refused; the file is where it was.
    """
    with suppress(FileExistsError):
        os.mkdir(folder(layout), 0o700)
    try:
        if os.lstat(path).st_ino != inode:
            return None
        name = files.move_to_free_name(path, folder(layout), os.path.basename(path))
    except FileNotFoundError:
        return None
    # The new name first: dying between the two, the file is in both places rather than in none.
    files.sync_folder(folder(layout))
    files.sync_folder(os.path.dirname(path))
    note = f"{times.iso(now)}  was {os.path.relpath(path, layout.root)}\n{why}\n"
    with suppress(OSError):
        files.write_new(
            os.path.join(folder(layout), f"{name}.note"), note.encode(errors="backslashreplace"), sync=False
        )
    return name
