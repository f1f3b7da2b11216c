"""The settings that a worker goes by: the last good ones, whatever becomes of the file."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from queuectl.config import settings
from queuectl.errors import QueuectlError

if TYPE_CHECKING:
    from collections.abc import Callable

    from queuectl.config.settings import Settings
    from queuectl.layout import Layout


_WRITTEN_WITHIN = 1e9


class InForce:
    """Settings that follow their file, and stay as they were while it cannot be read or holds a bad value.

    Args:
        say: takes a line about each change.
        note: told what is wrong with the file, and None when it is good again.
    """

    def __init__(
        self, layout: Layout, say: Callable[[str], None], note: Callable[[str | None], None]
    ) -> None:
        self.settings = settings.Settings()
        self._layout = layout
        self._say, self._note = say, note
        self._stamp: object = None
        self._fault: str | None = None
        self._wanted = False

    def read(self) -> Settings:
        """Read the file, for a worker that starts.

        Raises:
            QueuectlError: what is wrong with it; without settings of its own a worker has nothing to go on with.
        """
        self._stamp = self._layout.config_stamp()
        self.settings, warnings = settings.load(self._layout)
        for warning in warnings:
            self._say(warning)
        return self.settings

    def read_again(self) -> None:
        """Have the next look read the file, changed or not, and say so. Safe in a signal handler."""
        self._wanted = True

    def look(self) -> Settings:
        """The settings in force, read anew if the file has changed."""
        stamp = self._layout.config_stamp()
        if (stamp == self._stamp and not self._wanted) or _is_being_written(stamp):
            return self.settings
        wanted, self._wanted = self._wanted, False
        before = self.settings
        try:
            self.read()
        except QueuectlError as error:
            self._tell_fault(str(error), again=wanted)
        else:
            self._tell_changes(before, again=wanted)
        return self.settings

    def _tell_fault(self, fault: str, *, again: bool) -> None:
        if again or fault != self._fault:
            self._say(f"{fault}; the settings from before stay in force")
        self._fault = fault
        self._stamp = (
            None  # a disk that refused may do so no longer, and a file's rights are not in its stamp
        )
        self._note(fault)

    def _tell_changes(self, before: Settings, *, again: bool) -> None:
        changes = [
            f"{name} = {settings.shown(now)} (was {settings.shown(was)})"
            for name in settings.KEYS
            if (now := getattr(self.settings, name)) != (was := getattr(before, name))
        ]
        if changes:
            self._say(f"settings: {', '.join(changes)}")
        elif again or self._fault:
            self._say("settings read again: they are as before")
        self._fault = None
        self._note(None)


def _is_being_written(stamp: tuple[tuple[int, int, int] | None, ...]) -> bool:
    """Whether a settings file has just been emptied: an editor that writes in place is about to fill it."""
    now = time.time_ns()
    return any(one[2] == 0 and abs(now - one[1]) < _WRITTEN_WITHIN for one in stamp if one)
