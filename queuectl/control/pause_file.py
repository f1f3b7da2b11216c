"""A paused spool: a file called `paused` in its root. While it lies there no worker starts a job.

Anybody may make and remove it, with `touch` and `rm` as well; what is written in it is the reason.
"""

from __future__ import annotations

import os
from contextlib import suppress

from queuectl._dataclasses import dataclass
from queuectl.errors import SpoolError
from queuectl.job import times
from queuectl.job.redact import one_line
from queuectl.system import files, safe_open

TYPE_CHECKING = False
if TYPE_CHECKING:
    from queuectl.layout import Layout

BY_HAND = "by hand"
"""How the reason begins that a worker gives for starting nothing, when it is this file."""

REASON_LENGTH = 200
"""Characters of the reason that are shown."""


@dataclass(frozen=True, slots=True)
class Pause:
    """That a spool is paused.

    Attributes:
        since: epoch seconds.
        reason: what stands in the file, on one line; may be empty.
        mark: tells the file from one that was there before.
    """

    since: float
    reason: str
    mark: str = ""

    @property
    def told(self) -> str:
        """As a worker tells it: by hand, and why."""
        return f"{BY_HAND}: {self.reason}" if self.reason else BY_HAND

    @property
    def sentence(self) -> str:
        """As a person is told of it: since when, and why."""
        text = f"the spool is paused since {times.local(self.since)}"
        return f"{text}: {self.reason}" if self.reason else text


def read(layout: Layout) -> Pause | None:
    """Look whether a spool is paused. Whatever is called like the marker counts, a folder or a broken link too.

    Raises:
        OSError: nobody can tell.
    """
    try:
        status = os.lstat(layout.paused)
    except FileNotFoundError:
        return None
    text = ""
    with suppress(safe_open.NotReadable, OSError):
        text = safe_open.read_regular(layout.paused, 1 << 16)[0].decode(errors="replace")
    reason = one_line(" ".join(text.split()))
    if len(reason) > REASON_LENGTH:
        reason = f"{reason[:REASON_LENGTH]}…"
    return Pause(status.st_mtime, reason, f"{status.st_ino}.{status.st_ctime_ns}")


class Watch:
    """Asked once a second by a worker.

    Attributes:
        seen: the mark of what was found; None if nothing was.
    """

    def __init__(self, layout: Layout) -> None:
        self.seen: str | None = None
        self._layout = layout

    def look(self) -> str | None:
        """Why nothing may be started, if the spool is paused."""
        found = read(self._layout)
        self.seen = found.mark if found else None
        return found.told if found else None


def begin(layout: Layout, reason: str = "") -> Pause:
    """Pause a spool; one that is paused keeps its reason, unless another is given.

    Raises:
        SpoolError: the file cannot be written.
    """
    try:
        found = read(layout)
        if found is None or reason:
            files.replace(layout.paused, f"{reason}\n".encode() if reason else b"")
            found = read(layout)
    except OSError as error:
        raise SpoolError.from_os("write", layout.paused, error) from None
    return found or Pause(0.0, reason)


def end(layout: Layout) -> bool:
    """Let a spool go on; False when it was not paused.

    Raises:
        SpoolError: the file cannot be removed.
    """
    try:
        files.delete(layout.paused)
        files.sync_folder(layout.root)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise SpoolError.from_os("remove", layout.paused, error) from None
    return True
