"""Who may use a spool: whoever can write into it runs commands as the worker's user."""

from __future__ import annotations

import os
import stat
import sys
from typing import TYPE_CHECKING

from queuectl.errors import SpoolError, WorkerError

if TYPE_CHECKING:
    from queuectl.layout import Layout


def refuse_unsafe(layout: Layout) -> None:
    """See that nobody but the worker's user can put jobs into the spool.

    Raises:
        WorkerError: somebody can.
        SpoolError: a folder is missing or cannot be looked at.
    """
    if sys.platform == "win32":
        return  # access there is a list of rights and not in the mode; the README says so
    for path in (
        layout.root,
        layout.pending,
        layout.processing,
        layout.done,
        layout.dead,
        layout.data,
        layout.workers,
    ):
        try:
            status = os.stat(path)
        except OSError as error:
            raise SpoolError.from_os("look at", path, error) from None
        if status.st_uid not in (0, os.geteuid()):
            raise WorkerError(
                f"{path} belongs to another user (uid {status.st_uid}), who could run commands as you"
            )
        if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise WorkerError(
                f"{path} can be written by others, who could run commands as you", hint=f"chmod go-w {path}"
            )
