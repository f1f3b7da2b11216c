"""Which worker queues the jobs of rules, and when it looks: the one that has the lock `data/rules.lock`.

The lock only keeps all but one from doing the same work. That each job is queued once follows from its id, see
`queueing`. A spool without rules costs a look at one folder each second, and nothing is loaded.
"""

from __future__ import annotations

import math
import os
import time
from typing import TYPE_CHECKING

from queuectl.config import stamp
from queuectl.errors import WorkerError
from queuectl.layout import is_rule_file
from queuectl.rules.job_rules import JobRules
from queuectl.system import locks

if TYPE_CHECKING:
    from collections.abc import Callable

    from queuectl.config.settings import Settings
    from queuectl.config.stamp import Stamp
    from queuectl.rules.file_rules import FileRules
    from queuectl.rules.plans import Plans
    from queuectl.storage.transitions import Storage

SLICE = 0.05
"""Seconds of a round for rules. Then the worker looks for jobs, and goes on at once."""

PAUSE = 1.0
"""Seconds until something is tried again that could not be queued."""


class RuleScheduler:
    """The part of one worker in the rules of its spool.

    Args:
        settings: returns the settings of the spool.
        find_danger: returns why nothing may be run here, as others can write into the spool; None: it may.
        say: takes a line for the log.
        monotonic: the monotonic clock.

    Attributes:
        are_there: the spool has rules, or has had some since this worker looks after them.
        about_jobs: the rules about jobs, in which every worker has a part.
    """

    def __init__(
        self,
        storage: Storage,
        settings: Callable[[], Settings],
        find_danger: Callable[[], str | None],
        say: Callable[[str], None],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._storage, self._layout = storage, storage.layout
        self._settings, self._find_danger, self._say = settings, find_danger, say
        self._monotonic = monotonic
        self._folder: Stamp | None = None
        self.are_there = False
        self._lock: locks.Lock | None = None
        self._plans: Plans | None = None
        self._files: FileRules | None = None
        self._files_since = -1
        self._not_before = -math.inf
        self.about_jobs = JobRules(storage, settings, find_danger, say, monotonic)

    def look(self) -> None:
        """Do what is due: once a second, and at the moment that `due_in` has named.

        Raises:
            QueuectlError, OSError, sqlite3.Error: the disk or the index refused; it is tried again.
        """
        if not self._are_there() or not self._is_mine():
            return
        until = self._monotonic() + SLICE
        plans = self._plans = self._plans or self._begin()
        plans.look(until)
        files = self._follow_files(plans)
        files_are_due = files is not None and files.is_due()
        if not (plans.is_due() or files_are_due) or self._monotonic() < self._not_before:
            return
        if self._find_danger() is not None:
            self._not_before = self._monotonic() + PAUSE  # the worker has said why it starts nothing
            return
        self._not_before = self._monotonic() + PAUSE
        if plans.is_due():
            plans.queue_due(until)
        if files is not None and files_are_due:
            files.look(until)
        if not plans.failed:
            self._not_before = -math.inf

    def _follow_files(self, plans: Plans) -> FileRules | None:
        """Have the rules that watch folders followed; None: there are none, and nothing is loaded."""
        if plans.changes != self._files_since:
            rules = plans.rules
            if self._files is None and any(rule.kind == "file" for rule in rules.values()):
                from queuectl.rules.file_rules import FileRules

                self._files = FileRules(self._storage, self._settings, self._say, self._monotonic)
            if self._files is not None:
                self._files.follow(rules, plans.paused)
            self._files_since = plans.changes
        return self._files

    def _begin(self) -> Plans:
        try:
            from queuectl.rules.plans import Plans
        except ImportError as missing:
            self.close()  # another worker may have loaded it in time
            raise WorkerError(
                f"a part of queuectl cannot be loaded ({missing}), so this worker follows no rules: start it again"
            ) from None
        return Plans(self._storage, self._settings, self._say, self._monotonic)

    def _are_there(self) -> bool:
        """Whether the spool has rules. The folder is read only when it has changed."""
        seen = stamp.of(self._layout.rules)
        if seen != self._folder:
            try:
                names = [] if seen is None else os.listdir(self._layout.rules)
            except OSError:
                return self.are_there
            self._folder, self.are_there = seen, any(map(is_rule_file, names)) or self._plans is not None
        return self.are_there

    def _is_mine(self) -> bool:
        """Take the lock if no other worker has it. Asking is not an event for the others, see `locks.is_held`."""
        path = self._layout.rules_lock
        if self._lock is not None and not self._lock.is_on(path):
            self.close()  # data/ was deleted: another worker may have the lock of the new file
        if self._lock is None and not locks.is_held(path):
            self._lock = locks.Lock.acquire(path)
        return self._lock is not None

    @property
    def has_lock(self) -> bool:
        """Whether this worker is the one that queues the jobs of rules."""
        return self._lock is not None

    @property
    def nothing_due(self) -> bool:
        """Whether a look would find nothing, as long as no file changes and the moment of `due_in` has not come."""
        if not self.are_there:
            return True
        if not self.about_jobs.nothing_due:
            return False
        if self._plans is None:
            return self._lock is None and locks.is_held(self._layout.rules_lock)
        is_quiet = self._plans.is_complete and not self._plans.must_look
        return is_quiet and (self._files is None or not self._files.is_due())

    @property
    def lock_of_another(self) -> str | None:
        """The path of the lock, if this worker waits for it; None: it has it, or there are no rules."""
        return self._layout.rules_lock if self.are_there and self._lock is None else None

    @property
    def has_work(self) -> bool:
        """Whether this worker must queue something before it may leave for want of work."""
        if self.about_jobs.has_work:
            return True
        plans, files = self._plans, self._files
        if plans is None:
            return False
        if not plans.is_complete:
            return True
        is_due = plans.is_due() or (files is not None and files.has_work)
        return is_due and self._monotonic() >= self._not_before

    def due_in(self) -> float:
        """Return the seconds until the next look finds something to do; infinite: no moment is known."""
        plans = self._plans
        if plans is None:
            return math.inf
        wait = max(0.0, self._not_before - self._monotonic())
        if not plans.is_complete:
            return wait
        at = math.inf if plans.next_at is None else plans.next_at - self._storage.now()
        return max(wait, at if self._files is None else min(at, self._files.due_in()))

    def look_again(self) -> None:
        """Look at all rules and watched folders at the next round: something may have happened to one of them."""
        self.about_jobs.look_again()
        if self._plans is not None:
            self._plans.look_again()
        if self._files is not None:
            self._files.look_again()

    @property
    def watched(self) -> list[str]:
        """The watched folders in which an event ends the sleep of an idle worker."""
        return [] if self._files is None else self._files.watched

    @property
    def must_ask(self) -> bool:
        """Whether something that is waited for causes no event."""
        return self._files is not None and self._files.must_ask

    def close(self) -> None:
        """Let another worker go on."""
        lock, self._lock, self._plans = self._lock, None, None
        self._files, self._files_since = None, -1
        if lock is not None:
            lock.release()
