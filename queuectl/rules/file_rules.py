"""The rules that watch folders, as the worker with the lock of the rules follows them: when it looks, and what it takes.

That a file makes one job does not depend on who looks: either its name, inode, size and time are in the id of the job,
or a rename has taken it out of the folder. Events are hints; a look at the whole folder decides.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

from queuectl.config.settings import JobDefaults
from queuectl.errors import QueuectlError
from queuectl.rules.file_trigger import FileTrigger
from queuectl.rules.watched_folder import WatchedFolder
from queuectl.storage import unique_keys

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from queuectl.config.settings import Settings
    from queuectl.rules.rule import Rule
    from queuectl.storage.transitions import Storage

_AGAIN = 1.0
"""Seconds until something is tried again that could not be done."""


class FileRules:
    """The rules of one spool that watch folders.

    Args:
        settings: returns the settings of the spool.
        say: takes a line for the log.
        monotonic: the monotonic clock.
    """

    def __init__(
        self,
        storage: Storage,
        settings: Callable[[], Settings],
        say: Callable[[str], None],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._storage, self._settings, self._say, self._monotonic = storage, settings, say, monotonic
        self._defaults = JobDefaults(storage.layout, settings())
        self._folders: dict[str, WatchedFolder] = {}
        self._paused: frozenset[str] = frozenset()
        self._told: dict[str, str] = {}
        self._not_before = -math.inf

    def follow(self, rules: Mapping[str, Rule], paused: frozenset[str]) -> None:
        """Watch for these rules, and no others.

        Args:
            rules: all rules that can be used, by name.
            paused: the names of those that are paused.
        """
        self._paused = paused
        before, self._folders = self._folders, {}
        for name, rule in rules.items():
            if isinstance(rule.trigger, FileTrigger):
                known = before.get(name)
                if known is None or known.rule != rule:
                    known = WatchedFolder(rule, rule.trigger, self._storage, self._defaults, self._monotonic)
                self._folders[name] = known

    @property
    def _active(self) -> list[WatchedFolder]:
        return [one for name, one in self._folders.items() if name not in self._paused]

    def is_due(self) -> bool:
        """Whether something is to be looked at, or can be taken, now. It costs a look at the times of the folders."""
        return self._monotonic() >= self._not_before and any(one.is_due() for one in self._active)

    def due_in(self) -> float:
        """Return the seconds until something is due although no folder changes; infinite: nothing is watched."""
        wait = max(0.0, self._not_before - self._monotonic())
        return max(wait, min((one.due_in() for one in self._active), default=math.inf))

    @property
    def has_work(self) -> bool:
        """Whether a draining worker must wait for what is being looked at, or can be taken soon."""
        return self._monotonic() >= self._not_before and any(one.has_work() for one in self._active)

    def look_again(self) -> None:
        """Look at all folders at the next chance, as something may have happened in one of them."""
        for one in self._active:
            one.hint()

    @property
    def watched(self) -> list[str]:
        """The folders in which an event ends the sleep of an idle worker."""
        return [path for one in self._active for path in one.watched]

    @property
    def must_ask(self) -> bool:
        """Whether a folder is not there: nothing reports that it has come back."""
        return any(one.is_away for one in self._active)

    def look(self, until: float) -> None:
        """Look at folders, and queue the jobs of complete files.

        Args:
            until: the monotonic moment at which to stop, and to go on at the next call.

        Raises:
            sqlite3.Error: the index refused.
        """
        self._defaults.refresh(self._settings())
        for one in self._active:
            if not one.is_due():
                continue
            try:
                one.look(until)
                if one.can_take():
                    self._take(one, until)
            except (QueuectlError, OSError) as error:
                self._tell(one.rule.name, str(error))
                self._not_before = self._monotonic() + _AGAIN
            else:
                self._tell(one.rule.name, one.problem)
            if self._monotonic() > until:
                break
        # Each rule has its turn: the one that was looked at last comes last.
        if self._folders:
            name = next(iter(self._folders))
            self._folders[name] = self._folders.pop(name)

    def _take(self, one: WatchedFolder, until: float) -> None:
        has_keys = any(job.get("unique") is not None for job in one.rule.jobs)
        if not has_keys and self._storage.index.usable:
            one.take(until)
            return
        if unique_keys.is_locked(self._storage):
            one.wait_for_lock()  # a worker waits for no producer, as meanwhile it would start no job
            return
        with unique_keys.locked(self._storage):  # once for all: each taking of the lock looks at all folders
            one.take(until)

    def _tell(self, name: str, reason: str | None) -> None:
        """Log a trouble, unless the last one about this rule was the same."""
        if reason is None:
            self._told.pop(name, None)
        elif self._told.get(name) != reason:
            self._told[name] = reason
            self._say(f"rule {name}: {reason}")
