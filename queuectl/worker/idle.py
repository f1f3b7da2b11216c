"""How an idle worker sleeps: a second at a time while it is news that nothing changes, then until the kernel tells.

A second at a time costs ten of them half a percent of a core. What rings no bell at all (room on the disk, a moment
that comes, what a filesystem does not tell of) bounds a long sleep.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from queuectl.system import inotify
from queuectl.system.host import mount_of
from queuectl.worker.idle_check import Stillness

if TYPE_CHECKING:
    from collections.abc import Callable

    from queuectl.control.permissions import PermissionCheck
    from queuectl.layout import Layout
    from queuectl.system.watcher import Bell, FolderWatch
    from queuectl.worker.health import Readiness
    from queuectl.worker.maintenance import Maintenance
    from queuectl.worker.scan_scheduler import ScanScheduler

TICK = 1.0
"""Seconds between looks at what rings no bell: notes left for us, dead colleagues, settings, a silent watch."""

CALM = 6.0
"""Seconds for which nothing must have changed before a long sleep: the chores have been looked at since."""

LONGEST = 30.0
"""Seconds until a whole look, whatever the kernel tells. A clock that was set is noticed by then, too."""

DEAF = 600.0
"""Seconds without long sleeps after something had changed of which the kernel had not told."""


class Rest:
    """The sleep of one worker.

    Args:
        safe: says what lies above the spool, and what belongs to it.
        bell: what ends a sleep.
        watch: what rings it.
        lookout, chores, room: they know whether there is something to look at.

    Attributes:
        still: what a whole look would find, as the folders show it.
        is_asked: somebody must be asked every second whether the worker is to leave.
        told_by: a descriptor that becomes readable when the worker is to leave.
    """

    def __init__(
        self,
        layout: Layout,
        safe: PermissionCheck,
        bell: Bell,
        watch: FolderWatch,
        lookout: ScanScheduler,
        chores: Maintenance,
        room: Readiness,
    ) -> None:
        self.still = Stillness(layout, safe.above, safe.within)
        self.is_asked = False
        self.told_by: int | None = None
        self._root, self._bell, self._watch = layout.root, bell, watch
        self._lookout, self._chores, self._room = lookout, chores, room
        self._paths = _paths(layout, safe)
        self._deaf_until = 0.0

    def doze(self, left: Callable[[], float], stirs: Callable[[], bool]) -> bool | None:
        """Sleep on while nothing has changed that a whole look would find.

        Args:
            left: seconds until a job is due.
            stirs: whether there is an order to be looked at.

        Returns:
            True when something rang, False when a whole look is due, None when that was so from the first.
        """
        dozed = None
        while self._is_quiet(stirs) and (seconds := left()) > 0:
            longest = self._longest()
            if longest > 0 and (rang := self._sleep(min(longest, seconds), stirs)) is not None:
                return rang
            if self._bell.wait(min(TICK, seconds)):
                return True
            dozed = False
        return dozed

    def _is_quiet(self, stirs: Callable[[], bool]) -> bool:
        quiet = self._lookout.at_rest and self._chores.at_rest and self._room.at_rest
        return quiet and self.still.holds() and not stirs()

    def _longest(self) -> float:
        """Seconds that a sleep may last; none where a look each second is the only way."""
        if self.is_asked or self.still.lasted < CALM or time.monotonic() < self._deaf_until:
            return 0.0
        mount = mount_of(self._root)
        if mount is None or mount.is_remote:
            return 0.0  # of what is done on another machine nothing is told here
        return min(LONGEST, self._chores.quiet_for())

    def _sleep(self, seconds: float, stirs: Callable[[], bool]) -> bool | None:
        """Sleep until the kernel tells of a change, as `doze`; None where it cannot."""
        watch = self._watch
        if not watch.widen(self._paths):
            return None
        try:
            # Armed first, then looked: what changes from here on rings the bell.
            if not self._is_quiet(stirs):
                return False
            if not self._bell.wait(seconds, self.told_by):
                if not self.still.holds():
                    self._deaf_until = time.monotonic() + DEAF
                return False
            # A job alone can be started at once; all else is for a whole look, as is the room that nobody watched.
            return bool(watch.heard) and not watch.stirred and self._room.at_rest
        finally:
            watch.narrow()


def _paths(layout: Layout, safe: PermissionCheck) -> list[tuple[str, int]]:
    """What is listened to, and for what. Each claim leaves pending/, so nobody listens to the workers' folders."""
    around = inotify.SELF | inotify.DONT_FOLLOW
    # A job is written there first; to wake for that would be too soon.
    kinds = {layout.tmp: inotify.SELF, layout.pending: inotify.NAMES}
    inside = [(path, kinds.get(path, inotify.CONTENT)) for path in safe.within]
    return [*inside, *((path, around) for path in (*safe.above, layout.root))]
