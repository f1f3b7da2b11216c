"""What a worker sees to now and then beside its jobs: the index's health, leftovers, colleagues that are gone.

Nothing here is urgent, and all of it is cheap: together some microseconds a second.
"""

from __future__ import annotations

import math
import os
import sqlite3
import stat
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from queuectl.errors import QueuectlError
from queuectl.index.index import Index
from queuectl.layout import PENDING
from queuectl.storage import claims, expiry, recovery
from queuectl.storage import scratch as lot
from queuectl.storage.retention import Retention
from queuectl.system import files, safe_open

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from queuectl.config.settings import Settings
    from queuectl.layout import Layout
    from queuectl.storage.mover import Mover

EVERY = 5.0
"""Seconds between looks at colleagues that are gone, and at an index that could not be kept in its file."""

LONGEST = 300.0
"""Seconds between such looks at the index when it goes on to be refused: each success costs a look at every folder."""

DOUBT = 600.0
"""Seconds after which pending/ is compared with the index though nothing seems to have changed, by one worker of all:
whatever made the index lose a job, it begins after that time at the latest."""

AT_ONCE = 10.0
"""Colleagues with something in hand that a worker looks at each second, on the average: who has more of them looks less
often, as they look, too."""

SWEEP = 3600.0
"""Seconds between looks for what producers that were killed left in tmp/."""

STALE = 24 * 3600.0
"""Seconds after which such a leftover goes: nobody takes a day between writing a job's file and queueing it."""

SLICE = 0.05
"""Seconds of a look that go into compressing logs: a hundredth of the time."""

CHECKED = 64 << 20
"""Bytes up to which the index is checked when a worker starts, a tenth of a second for that many."""


class Chores:
    """The chores of one worker.

    Args:
        say: takes a line about what was done.
        say_once: the same, about what may be found again and again.
    """

    def __init__(self, mover: Mover, say: Callable[[str], None], say_once: Callable[[str], None]) -> None:
        self._layout, self._index, self._now = mover.layout, mover.index, mover.now
        self._mover, self._say, self._say_once = mover, say, say_once
        self._retention = Retention(mover, say)
        self._next = self._next_sweep = 0.0
        self._patience = EVERY
        self._next_return = 0.0
        self._packing: Iterator[None] | None = None
        self._glance = claims.Glance(self._layout)
        self._claimants: list[str] = []
        self._next_claims = 0.0

    def take_back(self, settings: Settings, mine: str, *, empty_handed: bool) -> None:
        """Free what workers that are gone had in hand.

        Args:
            mine: the worker's own name.
            empty_handed: it has no job in hand: what lies in its folder is an earlier holder's.

        Raises:
            OSError, sqlite3.Error: the disk or the index refused.
        """
        if (began := time.monotonic()) < self._next_claims:
            return
        self._claimants = self._glance.busy(self._now())
        self._next_claims = began + len(self._claimants) / AT_ONCE
        given = self._layout, self._mover, settings
        recovery.abandoned(*given, self._say_once, mine=mine, busy=self._claimants)
        if empty_handed and mine in self._claimants:
            recovery.leftovers(*given, mine, self._say_once)

    @property
    def at_rest(self) -> bool:
        """Whether nothing is due, and no colleague had anything in hand when that was last looked at."""
        return not self._claimants and time.monotonic() < self._next

    def quiet_for(self) -> float:
        """Seconds until something is due that should not be late by half a minute.

        Raises:
            sqlite3.Error: the index refused.
        """
        if self._packing is not None:
            return 0.0
        expiry = self._index.next_expiry()
        return math.inf if expiry is None else expiry / 1e6 - self._now()

    def begin(self, after: float | None) -> None:
        """See that the index may be believed.

        Args:
            after: when the last holder of our name started, if it died, in epoch seconds.

        Raises:
            sqlite3.Error: the index refused.
        """
        if after is not None and self._index.usable:
            recovery.mistrust(self._index, after)
        self._check_index()

    def _check_index(self) -> None:
        """Have an index made anew whose file is damaged; damage in a part that is seldom read shows only so."""
        index = self._index
        with suppress(OSError):
            if not index.usable or os.stat(index.path).st_size > CHECKED:
                return
            try:
                [answer] = index.db.execute("PRAGMA quick_check(1)").fetchone()
            except sqlite3.DatabaseError as error:
                answer = str(error)
            if answer != "ok":
                index.broken = f"database disk image is malformed: {' '.join(answer.split())}"
                self._say("the index is damaged and will be rebuilt")

    def look(self, *, mine: str, settings: Settings) -> None:
        """Do what is due.

        Args:
            mine: the worker's own name.
            settings: those in force.

        Raises:
            OSError, sqlite3.Error: the disk or the index refused; the rest is done another time.
        """
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + EVERY
        if now >= self._next_sweep:
            self._next_sweep = now + SWEEP
            sweep(self._layout, self._now())
        self._return_to_file(now)
        if self._index.usable:
            recovery.bygone(self._layout, self._index, mine=mine)
            self._doubt()
            self._mover.keys.look_again()
            self._pack_logs(settings.compress_logs)
            over = expiry.sweep(self._mover, self._say)
            if not (self._retention.look(settings) and over):
                self._next = now

    def _return_to_file(self, now: float) -> None:
        """Go back to an index in its file, once it can be kept there again."""
        if self._index.path == self._layout.index:
            self._patience = EVERY
        elif now >= self._next_return:
            if self._can_be_kept():
                self._index.use_file(self._layout.index)
                self._say("the index is kept in its file again")
            self._next_return = now + self._patience
            self._patience = min(self._patience * 2, LONGEST)

    def _can_be_kept(self) -> bool:
        scratch = os.path.join(self._layout.data, files.temporary_name())
        probe = Index(self._layout.index, self._layout.root, self._index.boot)
        try:
            files.write_new(scratch, bytes(1 << 16), sync=True)
            os.unlink(scratch)
            probe.open()
            with probe.write():
                pass
        except (OSError, sqlite3.Error, QueuectlError):
            return False
        finally:
            probe.close()
        return True

    def _doubt(self) -> None:
        known = self._index.meta("doubted") is not None
        if self._is_our_turn("doubted", DOUBT) and known:
            with self._index.write():
                self._index.mark_stale(PENDING)

    def _is_our_turn(self, what: str, every: float) -> bool:
        """Whether no worker has done it for so many seconds; then it is for us to do."""
        index, now = self._index, self._now()
        last = index.meta(what)
        if last is not None and 0 <= now - last < every:
            return False
        with index.write():
            index.db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (what, now))
        return True

    def _pack_logs(self, age: float | None) -> None:
        """Compress some of the logs that are old enough; a large heap of them is spread over many looks."""
        if age is None:
            self._packing = None
            return
        from queuectl.storage import job_logs

        steps, self._packing = self._packing, None
        if steps is None and self._is_our_turn("packed logs", SWEEP):
            steps = job_logs.pack(self._layout, self._now() - age)
        # Only what ended well goes on: trouble with the disk ends it, for this time.
        if steps is not None and not job_logs.go_on(steps, SLICE):
            self._packing = steps


def sweep(layout: Layout, now: float) -> None:
    """Delete what killed producers left in tmp/ a day ago or more; never what is not surely a file of theirs.

    Raises:
        OSError: the folder cannot be read.
    """
    with os.scandir(layout.tmp) as entries:
        for entry in entries:
            is_lot = lot.is_lot(entry.name)
            if is_lot or files.is_temporary_name(entry.name):
                with suppress(OSError):
                    status = entry.stat(follow_symlinks=False)
                    touched = max(status.st_mtime, status.st_ctime)
                    fits = stat.S_ISDIR if is_lot else stat.S_ISREG
                    if (
                        fits(status.st_mode)
                        and not safe_open.has_other_owner(status)
                        and now - touched > STALE
                    ):
                        (lot.delete if is_lot else os.unlink)(entry.path)
