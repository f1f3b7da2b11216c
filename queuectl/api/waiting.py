"""Wait for jobs to end: short looks at two folders, and a longer one when they have changed.

A look is two `stat`. It comes every 20 ms at first and four times a second after half a minute, so that a wait of hours
costs nothing that could be measured, and no descriptor of inotify, of which a user has few.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from queuectl._dataclasses import dataclass
from queuectl.control import pause, registry
from queuectl.errors import StillUnderWay
from queuectl.storage import locate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from queuectl.api.queries import Queries
    from queuectl.index.row import Row

OVER = ("completed", "dead")
"""The states that no job leaves by itself."""

_CODES = {"Timeout exceeded": 124, "Cannot start": 127}
"""Exit codes for what ended otherwise than by its command: those of timeout(1) and of a shell."""

_SHORTEST, _LONGEST = 0.02, 0.25
_PART = 0.01
"""Seconds between two looks, and how that grows: by a hundredth of the time waited."""

_WHOLE = 2.0
"""Seconds after which a look goes to the index in any case: a waiting job that is deleted changes neither folder."""

_SHARE = 20.0
"""A look at thousands of jobs is followed by a rest of so many times as long."""

_YOUNG = 50_000_000
"""Nanoseconds: a folder changed since may change again without its time telling."""

_SURELY = 0.3
"""Seconds for which a job must not be found to count as removed: one that is just being moved is seen nowhere."""

_AROUND = 10.0
"""Seconds between looks at what may keep the jobs from running."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a job ended.

    Attributes:
        state: completed, dead, or removed: somebody deleted it.
        exit_code: of its last run; None if that had none.
        last_error: why it is dead.
    """

    id: str
    state: str
    exit_code: int | None = None
    last_error: str | None = None

    @property
    def code(self) -> int:
        """What a program exits with that stands for the job: as the command did.

        124 if its time limit ended it, 127 if it could not be started, 1 if it has no exit code.
        """
        if self.state == "completed":
            return 0
        for beginning, code in _CODES.items():
            if (self.last_error or "").startswith(beginning):
                return code
        return (self.exit_code or 1) & 0xFF or 1


class Waiting:
    """One wait for some jobs.

    Args:
        ids: the jobs.
        success: give up as soon as one of them cannot succeed any more.
        tell: called with each job as it ends.
        obstacle: called with a line about what keeps them from running, once each.
        beat: called after every look.
    """

    def __init__(
        self,
        spool: Queries,
        ids: Iterable[str],
        *,
        success: bool = False,
        tell: Callable[[Ended], None] = lambda _: None,
        obstacle: Callable[[str], None] = lambda _: None,
        beat: Callable[[], None] = lambda: None,
    ) -> None:
        self._spool = spool
        self._left = dict.fromkeys(ids)
        self._success = success
        self._tell, self._obstacle, self._beat = tell, obstacle, beat
        self._ended: list[Ended] = []
        self._missing: dict[str, float] = {}
        self._stamp: object = None
        self._whole_at = self._around_at = 0.0
        self._told: set[str] = set()
        self._cost = 0.0

    @property
    def ended(self) -> list[Ended]:
        """Those that have ended, in that order."""
        return self._ended

    def run(self, timeout: float | None = None) -> list[Ended]:
        """Wait for all of them.

        Args:
            timeout: seconds; None waits as long as it takes.

        Raises:
            JobNotFound: there is no such job to begin with.
            StillUnderWay: some have not ended in that time.
        """
        self._spool.refresh()
        for job_id in self._left:
            self._spool._find(job_id)
        began = time.monotonic()
        while not self._look():
            waited = time.monotonic() - began
            if timeout is not None and waited >= timeout:
                raise StillUnderWay(self._late(), list(self._left), hint="queuectl list")
            pause = max(_SHORTEST, min(_LONGEST, waited * _PART), self._cost * _SHARE)
            time.sleep(pause if timeout is None else min(pause, max(0.0, timeout - waited)))
        return self._ended

    def _late(self) -> str:
        first, *more = self._left
        others = f" and {len(more)} more have" if more else " has"
        return f"{first}{others} not ended in that time"

    def _look(self) -> bool:
        """Whether the wait is over."""
        now = time.monotonic()
        stamp = self._folders()
        if stamp is None or stamp != self._stamp or now >= self._whole_at:
            self._look_closely(now)
            self._stamp = stamp
            self._whole_at = 0.0 if self._missing else now + _WHOLE
            self._cost = time.monotonic() - now
        over = not self._left or (self._success and any(one.state != "completed" for one in self._ended))
        if not over and now >= self._around_at:
            self._around_at = now + _AROUND
            self._look_around()
        self._beat()
        return over

    def _folders(self) -> object:
        """What changes when a job ends; None when that cannot be told."""
        layout = self._spool.layout
        try:
            found = [os.stat(path) for path in (layout.done, layout.dead)]
        except OSError:
            return None
        young = time.time_ns() - _YOUNG
        if any(one.st_mtime_ns > young for one in found):
            return None
        return [(one.st_mtime_ns, one.st_ino) for one in found]

    def _look_closely(self, now: float) -> None:
        spool = self._spool
        spool.refresh()
        rows = spool._ask(lambda: spool._index.states(list(self._left)))
        for job_id in list(self._left):
            state = rows.get(job_id)
            if state in OVER:
                row = spool._ask(lambda: spool._index.get(job_id))  # noqa: B023 (asked at once)
                self._end(_ended(job_id, row))
            elif state is not None or locate.state_of(spool._storage, job_id) is not None:
                self._missing.pop(job_id, None)
            elif now - self._missing.setdefault(job_id, now) >= _SURELY:
                self._end(Ended(job_id, "removed"))

    def _end(self, one: Ended) -> None:
        del self._left[one.id]
        self._missing.pop(one.id, None)
        self._ended.append(one)
        self._tell(one)

    def _look_around(self) -> None:
        found = hindrance(self._spool, list(self._left))
        if found and found not in self._told:
            self._told.add(found)
            self._obstacle(found)


def _ended(job_id: str, row: Row | None) -> Ended:
    if row is None or row.state not in OVER:
        return Ended(job_id, "removed")
    return Ended(job_id, row.state, row.exit_code, row.last_error)


def hindrance(spool: Queries, ids: list[str]) -> str | None:
    """What keeps all of these jobs from running, unless somebody does something; in a line with a hint."""
    if found := pause.read(spool.layout):
        return f"{found.sentence}: queuectl resume"
    if not registry.live_workers(spool.layout):
        return "no worker runs: queuectl worker start"
    rows = [spool._index.get(job_id) for job_id in ids[:100]]
    if len(ids) <= len(rows) and all(row is not None and row.held for row in rows):
        return (
            f"{ids[0]} is held: queuectl release {ids[0]}"
            if len(ids) == 1
            else "all are held: queuectl release"
        )
    return None
