"""Quarantine: a repair moves files that cannot stay to data/aside/. Each keeps its bytes and gets a note beside it."""

from __future__ import annotations

import os
from contextlib import suppress

from queuectl.job import times
from queuectl.system import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from queuectl.layout import Layout

FOLDER = "aside"


def folder(layout: Layout) -> str:
    """Return the path of the folder. No worker and no scan reads it."""
    return os.path.join(layout.data, FOLDER)


def put(layout: Layout, path: str, why: str, *, inode: int, now: float) -> str | None:
    """Move a file or folder of the spool into quarantine, with a note that says where it was and why.

    Args:
        inode: the inode of the file that was examined. Another file that has taken its name since is left alone.
        now: epoch seconds, for the note.

    Returns:
        the name that it got, or None if it is gone or is another one.

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
    # Sync the new name first: after a power cut between the two, the file is in both folders rather than in none.
    files.sync_folder(folder(layout))
    files.sync_folder(os.path.dirname(path))
    note = f"{times.iso(now)}  was {os.path.relpath(path, layout.root)}\n{why}\n"
    with suppress(OSError):
        files.write_new(
            os.path.join(folder(layout), f"{name}.note"), note.encode(errors="backslashreplace"), sync=False
        )
    return name
