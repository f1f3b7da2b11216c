"""Ends the wait of a worker when a permit is given back for which one of its lanes waits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from queuectl.system import watcher

if TYPE_CHECKING:
    from queuectl.system.watcher import FolderWatch
    from queuectl.worker.limits import Limits


class PermitWatch:
    """Watches the folder of permits while a lane waits for one, and not otherwise: a permit is given back for each job.

    Args:
        folder: of the permits.
        watch: the worker's.
        limits: knows whether a lane waits, and is told when a permit was given back.
    """

    def __init__(self, folder: str, watch: FolderWatch, limits: Limits) -> None:
        self._folder, self._watch, self._limits = folder, watch, limits
        self._is_on = False

    def begin(self) -> bool:
        """Watch if a lane waits. Call it before a wait.

        Returns:
            whether the lanes have to be tried again before the wait: a permit may have been given back before the watch.
        """
        if not self._limits.is_full:
            self._end()
            return False
        if self._is_on:
            return False
        # Where there is no such event, the lanes are tried again each second.
        self._is_on = self._watch.add([(self._folder, watcher.ATTRIB | watcher.CLOSE_WRITE)])
        if self._is_on:
            self._limits.reopen()
        return self._is_on

    def note_events(self) -> None:
        """Try the lanes again if a permit was given back. Call it after a wait."""
        if self._is_on and self._watch.has_other_events:
            self._limits.reopen()
            self._end()

    def _end(self) -> None:
        if self._is_on:
            self._is_on = False
            self._watch.remove_added()
