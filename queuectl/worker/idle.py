"""How an idle worker waits: for an event, for the next due job, or for a check of everything.

A check of everything (`Upkeep.run`) costs about 1 ms. All that it can find shows in the times, owners and modes of a
few dozen files and folders. While these are unchanged, it is put off; after some seconds without a change the worker
does not even look at them, and sleeps until the kernel reports a change. CPU time of an idle worker in a minute: 75 ms with
a check of everything each second, 36 ms with the snapshot, 6 ms with long sleeps.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from queuectl.system import watcher
from queuectl.system.host import mount_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from queuectl.control.permissions import PermissionCheck
    from queuectl.layout import Layout
    from queuectl.rules.scheduler import RuleScheduler
    from queuectl.system.wake_up import WakeUp
    from queuectl.system.watcher import FolderWatch
    from queuectl.worker.health import Readiness
    from queuectl.worker.maintenance import Maintenance
    from queuectl.worker.scan_scheduler import ScanScheduler

TICK = 1.0
"""Seconds between checks of what causes no event: requests to this worker, dead workers, settings, a broken watch."""

SLEEP_AFTER = 6.0
"""Seconds without a change before a long sleep. The maintenance (every 5 s) has run since the last change then."""

MAX_SLEEP = 30.0
"""Seconds until the next check of everything, with or without events: free disk space causes none, nor does a new
time of the system's clock."""

NO_SLEEP_FOR = 600.0
"""Seconds without long sleeps after a change that the kernel did not report."""

FEW_RULES = 100
"""The files of so many rules are compared each second; of more, before each sleep and each time when all is checked."""

CLOCK_STEP = 2_000_000_000
"""Nanoseconds between two times that differ on every filesystem: FAT counts in steps of 2 s."""


class Snapshot:
    """The times, owners and modes of everything in a spool that an idle worker must react to.

    Args:
        above: folders above the spool. Others may work there, so only owner and mode count.
        within: the spool's own folders, and its settings and index.

    Attributes:
        has_other_rules: a file of a rule has changed.
    """

    def __init__(self, layout: Layout, above: tuple[str, ...], within: tuple[str, ...]) -> None:
        self._layout = layout
        self._above = above
        self._within = (*within, f"{layout.index}-wal")
        self._claims: tuple[str, ...] = ()
        self._queues: tuple[str, ...] = ()
        self._rules: tuple[str, ...] = ()
        self._known: list[object] | None = None
        self._known_rules: list[object] = []
        self.has_other_rules = False
        self._since = time.monotonic()
        self._newest = 0

    def take(self) -> None:
        """Record the present state, before a check of everything: what changes during the check is checked again."""
        before, self._known = self._known, None
        with suppress(OSError):
            names = os.listdir(self._layout.processing)
            self._claims = tuple(self._layout.claims(name) for name in sorted(names))
            # The time of their folder does not show that a file was edited in place.
            self._queues = _files_in(self._layout.queues)
            if (rules := _files_in(self._layout.rules)) != self._rules:
                self._rules, (self._known_rules, _) = rules, _times_of(rules)
            self._known = self._read()
        if self._known is None or self._known != before:
            self._since = time.monotonic()

    @property
    def links(self) -> list[str]:
        """The files of queues that are links: the watch of their folder does not report changes of what they lead to. A link is no rule."""
        return [path for path in self._queues if os.path.islink(path)]

    @property
    def unchanged_for(self) -> float:
        """Seconds since the first of the equal snapshots in a row."""
        return time.monotonic() - self._since

    def is_current(self, *, each_rule: bool = True) -> bool:
        """Whether nothing has changed, and a change just after the snapshot would have left another time.

        Args:
            each_rule: look at the file of each rule, also if there are very many.
        """
        if self._known is None or self._read() != self._known:
            return False
        if (each_rule or len(self._rules) <= FEW_RULES) and not self._are_rules_current():
            return False
        return self._newest + CLOCK_STEP < time.time_ns()

    def _are_rules_current(self) -> bool:
        """Whether no file of a rule has changed since the last call, in which all of them were looked at, or since it was listed."""
        times, newest = _times_of(self._rules)
        if times == self._known_rules and newest + CLOCK_STEP < time.time_ns():
            return True
        self._known_rules, self._since = times, time.monotonic()
        self.has_other_rules = True
        return False

    def _read(self) -> list[object]:
        seen, self._newest = _times_of(self._within + self._claims + self._queues)
        append, stat = seen.append, os.stat
        for path in self._above:
            try:
                found = stat(path)
            except OSError:
                append(None)
                continue
            seen += (found.st_mode, found.st_uid, found.st_ino)
        return seen


def _times_of(paths: tuple[str, ...]) -> tuple[list[object], int]:
    """Return the times and inodes of files, and the newest of the times. Flat: this is nearly all that an idle worker does."""
    seen: list[object] = []
    append, stat = seen.append, os.stat
    newest = 0
    for path in paths:
        try:
            found = stat(path)
        except OSError:
            append(None)
            continue
        mtime, ctime = found.st_mtime_ns, found.st_ctime_ns
        seen += (mtime, ctime, found.st_ino)
        newest = max(newest, mtime, ctime)
    return seen, newest


def _files_in(folder: str) -> tuple[str, ...]:
    try:
        return tuple(os.path.join(folder, name) for name in sorted(os.listdir(folder)))
    except OSError:
        return ()  # a spool of an earlier version has none


class IdleWait:
    """The waits of one worker.

    Args:
        safe: names the folders above the spool, and what belongs to it.
        wake_up: ends a wait.
        watch: reports changes.
        scans, maintenance, readiness, rules: tell whether they have anything to check.

        snapshot: of the time of the last check of everything.

    Attributes:
        must_ask: whether the worker is to leave can only be found out by asking, once a second.
        leave_fd: a descriptor that becomes readable when the worker is to leave, or None.
    """

    def __init__(
        self,
        layout: Layout,
        safe: PermissionCheck,
        wake_up: WakeUp,
        watch: FolderWatch,
        scans: ScanScheduler,
        maintenance: Maintenance,
        readiness: Readiness,
        rules: RuleScheduler,
        snapshot: Snapshot,
    ) -> None:
        self._snapshot = snapshot
        self.must_ask = False
        self.leave_fd: int | None = None
        self._root, self._wake_up, self._watch = layout.root, wake_up, watch
        self._scans, self._maintenance, self._readiness = scans, maintenance, readiness
        self._rules = rules
        self._paths = _watched_paths(layout, safe)
        self._no_sleep_until = 0.0

    def wait(self, seconds_left: Callable[[], float], has_request: Callable[[], bool]) -> bool | None:
        """Wait while there is nothing that a check of everything could find.

        Args:
            seconds_left: seconds until a job is due.
            has_request: whether a signal or the owner of the worker wants something.

        Returns:
            True after an event, False when a check of everything is due, None if it was due from the start.
        """
        waited = None
        while self._is_unchanged(has_request) and (seconds := seconds_left()) > 0:
            longest = self._max_sleep()
            if longest > 0 and (woken := self._sleep(min(longest, seconds), has_request)) is not None:
                return woken
            if self._wake_up.wait(min(TICK, seconds)):
                return True
            waited = False
        return waited

    def _is_unchanged(self, has_request: Callable[[], bool], *, each_rule: bool = False) -> bool:
        quiet = self._scans.nothing_due and self._maintenance.nothing_due and self._readiness.nothing_due
        if not (quiet and self._rules.nothing_due):
            return False
        is_current = self._snapshot.is_current(each_rule=each_rule)
        if self._snapshot.has_other_rules:
            self._snapshot.has_other_rules = False
            self._rules.look_again()
        return is_current and not has_request()

    def _max_sleep(self) -> float:
        """Seconds that a sleep may last; 0 where the worker must look every second."""
        if (
            self.must_ask
            or self._snapshot.unchanged_for < SLEEP_AFTER
            or self._rules.must_ask
            or time.monotonic() < self._no_sleep_until
        ):
            return 0.0
        mount = mount_of(self._root)
        if mount is None or mount.is_remote:
            return 0.0  # the kernel does not report what another machine does
        return min(MAX_SLEEP, self._maintenance.seconds_to_next())

    def _sleep(self, seconds: float, has_request: Callable[[], bool]) -> bool | None:
        """Sleep until the kernel reports a change. Returns what `wait` does; None where it cannot report all."""
        watch = self._watch
        more = [(path, watcher.CONTENT) for path in self._snapshot.links]
        more += [(path, watcher.FOR_RULES) for path in self._rules.watched]
        # Nothing else tells that the worker which follows the rules has died. Nobody queues their jobs then.
        if (lock := self._rules.lock_of_another) is not None:
            more.append((lock, watcher.CLOSE_WRITE))
        if not watch.add([*self._paths, *more]):
            return None
        try:
            # Watch first, then look: from here on each change is reported.
            if not self._is_unchanged(has_request, each_rule=True):
                return False
            if not self._wake_up.wait(seconds, self.leave_fd):
                if not self._snapshot.is_current():
                    self._no_sleep_until = time.monotonic() + NO_SLEEP_FOR
                return False
            if watch.has_other_events:
                self._rules.look_again()
            # Only a new file can be started without a check of everything. Nothing has reported a full disk.
            return bool(watch.names) and not watch.has_other_events and self._readiness.nothing_due
        finally:
            watch.remove_added()


def _watched_paths(layout: Layout, safe: PermissionCheck) -> list[tuple[str, int]]:
    """Each path with the kinds of events that count. A claim changes pending/, so claim folders need no watch."""
    above = watcher.SELF | watcher.DONT_FOLLOW
    # Producers write their files in tmp/ first; waking up for that would be too early.
    kinds = {layout.tmp: watcher.SELF, layout.pending: watcher.NAMES}
    inside = [(path, kinds.get(path, watcher.CONTENT)) for path in safe.within]
    return [*inside, *((path, above) for path in (*safe.above, layout.root))]
