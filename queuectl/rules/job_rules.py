"""The part of one process in the rules about jobs. A spool without such rules costs a look at one folder, and nothing is loaded."""

from __future__ import annotations

import os
import re
import time
from typing import TYPE_CHECKING

from queuectl.config import stamp
from queuectl.layout import is_rule_file

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from queuectl.config.settings import Settings
    from queuectl.config.stamp import Stamp
    from queuectl.job.record import Job
    from queuectl.rules.digests import Digests
    from queuectl.rules.hooks import Hooks
    from queuectl.rules.job_trigger import JobTrigger
    from queuectl.rules.rule_book import RuleBook
    from queuectl.storage.transitions import Storage

MAY_BE_ABOUT_JOBS = re.compile(rb"dead|done|recovered|empty|\\")
"""A file without one of these words is no rule about jobs, and is not read further: most rules are about times."""


class JobRules:
    """Follows the rules about jobs in one process, and queues what they want. Every worker does so for the ends that it records.

    Args:
        settings: returns the settings of the spool.
        find_danger: returns why nothing may be queued, as others can write into the spool; None: it may.
        say: takes a line for the log.
    """

    def __init__(
        self,
        storage: Storage,
        settings: Callable[[], Settings],
        find_danger: Callable[[], str | None] = lambda: None,
        say: Callable[[str], None] = lambda _: None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._storage, self._settings = storage, settings
        self._find_danger, self._say, self._monotonic = find_danger, say, monotonic
        self._folder: Stamp | None = None
        self._is_looked_after = False
        self._book: RuleBook | None = None
        self._hooks: Hooks | None = None
        self._digests: Digests | None = None

    def look(self, *, is_keeper: bool) -> None:
        """Follow changed files, and queue what was refused. Call it once a second.

        Args:
            is_keeper: this worker has the lock of the rules, so it alone tells of many ends at once and of what is empty.

        Raises:
            OSError, sqlite3.Error: the disk or the index refused; it is tried again.
        """
        self._is_looked_after = True
        self._read_files()
        book, hooks = self._book, self._hooks
        if book is None or hooks is None:
            return
        if is_keeper:
            hooks.take_over()
        hooks.try_again()
        if not is_keeper:
            self._digests = None
            return
        if self._digests is None:
            from queuectl.rules.digests import Digests

            self._digests = Digests(self._storage, self._settings, self._say)
            self._digests.follow(book)
        if self._digests.are_there and self._find_danger() is None:
            self._digests.look()

    def before_end(self, ended: Sequence[tuple[Job, str]]) -> None:
        """Queue what tells of these ends. See `Storage.before_end`."""
        if not self._is_looked_after:
            self._read_files()
        if self._hooks is not None:
            self._hooks.before_end(ended)

    def _read_files(self) -> None:
        """Read the files that have changed."""
        book = self._book
        if book is None:
            seen = stamp.of(self._storage.layout.rules)
            if seen == self._folder:
                return
            names = [] if seen is None else os.listdir(self._storage.layout.rules)
            self._folder = seen
            if not any(map(is_rule_file, names)):
                return
            book = self._begin()
        if book.refresh() or self._hooks is None:
            self._follow(book)

    def _begin(self) -> RuleBook:
        from queuectl.rules.rule_book import RuleBook

        settle_time = lambda: self._settings().settle_time  # noqa: E731
        self._book = RuleBook(self._storage.layout, settle_time, self._monotonic, MAY_BE_ABOUT_JOBS)
        return self._book

    def _follow(self, book: RuleBook) -> None:
        from queuectl.rules.hooks import Hooks

        self._hooks = self._hooks or Hooks(self._storage, self._settings, self._find_danger, self._say)
        self._hooks.follow(rule for name, rule in book.rules().items() if name not in book.paused)
        if self._digests is not None:
            self._digests.follow(book)

    def trigger_of(self, rule: str) -> JobTrigger | None:
        """Return what a rule is about, as its file says it now; None: it is gone."""
        from queuectl.rules.job_trigger import JobTrigger

        self._read_files()
        known = self._book.files.get(rule) if self._book is not None else None
        trigger = known.rule.trigger if known is not None and known.rule is not None else None
        return trigger if isinstance(trigger, JobTrigger) else None

    def look_again(self) -> None:
        """Look at the files of all rules at the next look."""
        if self._book is not None:
            self._book.look_again()

    @property
    def trouble(self) -> str | None:
        """What could not be queued yet, for `status`; None if nothing is left."""
        parts = (self._hooks, self._digests)
        return next((part.refused for part in parts if part is not None and part.refused), None)

    @property
    def has_news(self) -> bool:
        """Whether something has happened since the last look that a rule may have to tell."""
        return self._digests is not None and self._digests.has_news()

    @property
    def has_work(self) -> bool:
        """Whether this worker must queue something before it may leave for want of work."""
        return self.has_news or (self._hooks is not None and self._hooks.refused is not None)

    @property
    def nothing_due(self) -> bool:
        """Whether a look would find nothing, as long as no file changes."""
        unfinished = self._book is not None and any(one.unfinished for one in self._book.files.values())
        return not unfinished and self.trouble is None
