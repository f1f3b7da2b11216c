"""Whether a spool is there, and whether this process may write into it when it only has to read.

Reading changes nothing in a spool of another user: its owner could have put links there, through which root would write
into any file of the machine. Reading also creates nothing where no spool is: a mistyped --spool must not become one.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress

from queuectl.errors import SpoolError
from queuectl.system import safe_open

TYPE_CHECKING = False
if TYPE_CHECKING:
    from queuectl.layout import Layout
    from queuectl.storage.transitions import Storage

MADE = "note: made a new spool: {}"
"""What a command says that has made a spool; its name may be mistyped."""

NONE = "there is no spool at {}; the first job or worker makes it"
"""What a command says that reads where no spool is."""


def must_not_write(layout: Layout) -> bool:
    """Return whether a command that reads must leave the spool as it is, and keep the index in memory.

    So it is if the spool belongs to another user, is not there, or cannot be written by this user.

    Raises:
        SpoolError: a folder of another user's spool is a link.
    """
    if safe_open.other_owner(layout.root) is not None:
        from queuectl.control import permissions

        permissions.refuse_links(layout)
        return True
    if not layout.exists():
        return True
    folder = layout.data if os.path.isdir(layout.data) else layout.root
    return not os.access(folder, os.W_OK, effective_ids=os.access in os.supports_effective_ids)


def prepare(storage: Storage) -> None:
    """Prepare to make the index agree with the folders, before something is read.

    Where this process must not write, the index is in memory, and nothing is created, moved or deleted.

    Raises:
        SpoolError: a folder of another user's spool is a link, or the spool is not a folder.
    """
    layout = storage.layout
    _refuse_no_folder(layout)
    only_reads = must_not_write(layout)
    if not only_reads:
        with suppress(SpoolError):  # a folder that is missing and cannot be made counts as empty
            layout.create()
    if only_reads != storage.read_only:
        storage.index.use_file(":memory:" if only_reads else layout.index)
        storage.read_only = only_reads
    storage.owner = safe_open.other_owner(layout.root)


def _refuse_no_folder(layout: Layout) -> None:
    try:
        if stat.S_ISDIR(os.stat(layout.root).st_mode):
            return
    except FileNotFoundError:
        return
    except OSError as error:
        raise SpoolError.from_os("use", layout.root, error) from None
    raise SpoolError(f"cannot use {layout.root}: not a folder")


def refuse_others(layout: Layout, words: str = "enqueue …") -> None:
    """Refuse to change another user's spool.

    Args:
        words: the command that the hint shows.

    Raises:
        SpoolError: it belongs to another user.
    """
    if safe_open.other_owner(layout.root) is not None:
        from queuectl.control import permissions

        permissions.refuse_others(layout, words)


def make(layout: Layout, words: str = "enqueue …") -> None:
    """Create the folders that are missing, for a command that changes the spool.

    Raises:
        SpoolError: it belongs to another user, or a folder cannot be created.
    """
    refuse_others(layout, words)
    layout.create()


def refuse_unwritable(storage: Storage) -> None:
    """Refuse to change a spool that this process can only read.

    Raises:
        SpoolError: it cannot be written.
    """
    if storage.read_only and storage.layout.exists():
        raise SpoolError(f"{storage.layout.root} cannot be written by this user, or its disk is read-only")
