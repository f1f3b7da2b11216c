"""Whether anything has changed since the last whole look: what an idle worker asks each second.

A whole look is a few hundred steps in two dozen rooms, most of them cold after a second of sleep: 0.7 ms. All that it
finds out shows in the times, owners and modes of a few dozen folders and files. While those are as they were, so is
the rest.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from queuectl.layout import Layout

SETTLED = 2_000_000_000
"""Nanoseconds: a change later than that after the one before it leaves another time, whatever clock the files have."""


class Stillness:
    """The state of a spool as its folders show it.

    Args:
        above: folders above the spool, in which others may work; only who owns them and who may write counts.
        within: the spool's own folders, and files that decide something.
    """

    def __init__(self, layout: Layout, above: Sequence[str], within: Sequence[str]) -> None:
        self._layout = layout
        self._above = tuple(above)
        self._within = (*within, f"{layout.index}-wal")
        self._claims: tuple[str, ...] = ()
        self._known: list[object] | None = None
        self._since = time.monotonic()
        self._newest = 0

    def remember(self) -> None:
        """Take note of how it is now. Call it before the whole look: what changes meanwhile is to be looked at again."""
        before, self._known = self._known, None
        with suppress(OSError):
            names = os.listdir(self._layout.processing)
            self._claims = tuple(self._layout.claims(name) for name in sorted(names))
            self._known = self._look()
        if self._known is None or self._known != before:
            self._since = time.monotonic()

    @property
    def lasted(self) -> float:
        """Seconds since the first of the times in a row at which it was remembered to be as it is now."""
        return time.monotonic() - self._since

    def holds(self) -> bool:
        """Whether all is as it was when it was last remembered, and had been so for long enough to tell."""
        if self._known is None or self._look() != self._known:
            return False
        return self._newest + SETTLED < time.time_ns()

    def _look(self) -> list[object]:
        """One loop and nothing else, as this is all that an idle worker does."""
        seen: list[object] = []
        note, stat = seen.append, os.stat
        newest = 0
        for path in self._within + self._claims:
            try:
                found = stat(path)
            except OSError:
                note(None)
                continue
            mtime, ctime = found.st_mtime_ns, found.st_ctime_ns
            seen += (mtime, ctime, found.st_ino)
            newest = max(newest, mtime, ctime)
        for path in self._above:
            try:
                found = stat(path)
            except OSError:
                note(None)
                continue
            seen += (found.st_mode, found.st_uid, found.st_ino)
        self._newest = newest
        return seen
