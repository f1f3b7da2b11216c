"""The current settings of a worker: read again when the file changes; the last valid ones while it is not valid."""

from __future__ import annotations

from typing import TYPE_CHECKING

from queuectl.config import keys, settings
from queuectl.config.stamp import is_being_written, stamps
from queuectl.errors import QueuectlError

if TYPE_CHECKING:
    from collections.abc import Callable

    from queuectl.config.settings import Settings
    from queuectl.layout import Layout


class CurrentSettings:
    """Settings that follow their file; they do not change while the file cannot be read or has a bad value.

    Args:
        say: called with a line about each change.
        note: called with what is wrong with the file, and with None when it is valid again.
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
        """Read the file for the first time, when a worker starts.

        Raises:
            QueuectlError: the file is not valid; there are no earlier settings to keep.
        """
        self._stamp = stamps(self._layout)
        self.settings, warnings = settings.load(self._layout)
        for warning in warnings:
            self._say(warning)
        return self.settings

    def read_again(self) -> None:
        """Have the next `check` read the file, changed or not, and report it. Safe in a signal handler."""
        self._wanted = True

    def check(self) -> Settings:
        """Return the current settings, read again if the file has changed."""
        stamp = stamps(self._layout)
        if (stamp == self._stamp and not self._wanted) or is_being_written(*stamp):
            return self.settings
        wanted, self._wanted = self._wanted, False
        before = self.settings
        try:
            self.read()
        except QueuectlError as error:
            self._report_fault(str(error), again=wanted)
        else:
            self._report_changes(before, again=wanted)
        return self.settings

    def _report_fault(self, fault: str, *, again: bool) -> None:
        if again or fault != self._fault:
            self._say(f"{fault}; the settings from before stay in force")
        self._fault = fault
        self._stamp = (
            None  # try again: the stamp does not change when the disk works again or the file's mode changes
        )
        self._note(fault)

    def _report_changes(self, before: Settings, *, again: bool) -> None:
        changes = [
            f"{name} = {keys.as_text(now)} (was {keys.as_text(was)})"
            for name in keys.KEYS
            if (now := getattr(self.settings, name)) != (was := getattr(before, name))
        ]
        if changes:
            self._say(f"settings: {', '.join(changes)}")
        elif again or self._fault:
            self._say("settings read again: they are as before")
        self._fault = None
        self._note(None)
