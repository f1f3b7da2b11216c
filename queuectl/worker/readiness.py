"""Whether a worker may begin another job: nobody has paused the spool, it is nobody else's, the disk has room."""

from __future__ import annotations

from typing import TYPE_CHECKING

from queuectl.system.host import disk_shortage

if TYPE_CHECKING:
    from collections.abc import Callable


class Room:
    """Watches whether somebody has paused the spool, who can write there, and the free space of its filesystem.

    A disk that fills up under a running job loses work; a spool that others can write to runs what they like.

    Args:
        tell: called with the reason when work has to pause (None when it goes on), and with a line about it.
        danger: says who else can write there.
        paused: says that somebody has paused the spool, and why.

    Attributes:
        lacking: why nothing may be started now, or None.
    """

    def __init__(
        self,
        path: str,
        tell: Callable[[str | None, str], None],
        danger: Callable[[], str | None] = lambda: None,
        paused: Callable[[], str | None] = lambda: None,
    ) -> None:
        self.lacking: str | None = None
        self._path = path
        self._tell = tell
        self._danger = danger
        self._paused = paused
        self._over = _ROOM_AGAIN
        self._floor = 0

    @property
    def by_hand(self) -> bool:
        """Whether it is a person who wants nothing to be started."""
        return self.lacking is not None and self._over == _RESUMED

    @property
    def at_rest(self) -> bool:
        """Whether a look would find nothing new, unless others have got at the spool or somebody has paused it."""
        return not (self.lacking or disk_shortage(self._path, self._floor))

    def look(self, floor: int) -> None:
        """Look again; floor is in bytes, 0 for none.

        Raises:
            OSError: the filesystem cannot be asked.
        """
        self._floor = floor
        before, over = self.lacking, self._over
        self.lacking, self._over = self._find(floor)
        # How many bytes are free is news only when it begins or ends to matter.
        changed = self._over != over or (self._over != _ROOM_AGAIN and self.lacking != before)
        if self.lacking and (not before or changed):
            self._tell(self.lacking, f"pausing: {self.lacking}")
        elif before and not self.lacking:
            self._tell(None, f"going on: {over}")

    def _find(self, floor: int) -> tuple[str | None, str]:
        """What stands in the way, and what is said when it does no longer."""
        if paused := self._paused():
            return paused, _RESUMED
        if danger := self._danger():
            return danger, "nobody else can write to the spool now"
        return disk_shortage(self._path, floor), _ROOM_AGAIN


_RESUMED = "the spool is no longer paused"
_ROOM_AGAIN = "there is room again"
