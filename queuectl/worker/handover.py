"""Jobs that run on a cluster, from their claim to their settlement: between the spool's files and `engine.tracker`.

It is the part of a dispatcher that moves job files, as `job_run` and `settle_batch` are of a worker. It holds no state
worth saving: the claims are in the dispatcher's folder, and the packs in the shared one. A crash between any two steps
is mended by `adopt`.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from queuectl.config.settings import JobDefaults
from queuectl.control import run_lock
from queuectl.engine import endings, wishes
from queuectl.engine.endings import Interrupted, NotBegun
from queuectl.engine.handed import Back, Ended, Lost
from queuectl.engine.packs import Order
from queuectl.engine.wishes import Candidate
from queuectl.executor.base import prepare
from queuectl.job import outcome as outcomes
from queuectl.job.outcome import Outcome
from queuectl.storage import job_logs, recovery
from queuectl.storage.claim import release
from queuectl.storage.settle import settle_all
from queuectl.system import files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from queuectl.config.settings import Settings
    from queuectl.engine.base import Shape
    from queuectl.engine.handed import Event, Key
    from queuectl.engine.tracker import Tracker
    from queuectl.job.record import Job
    from queuectl.storage.file_pool import FilePool
    from queuectl.storage.transitions import Claim, Storage

AT_ONCE = 64
"""Outcomes that are recorded together."""


class Handover:
    """The claims of one dispatcher, and what becomes of them.

    Args:
        name: the dispatcher's, in its registration.
        shape_of: what a job wants of a node.
        pool: recycled files; None: each outcome waits for the disk.
        say: takes a line for the log.

    Attributes:
        cancelled_there: jobs that somebody has cancelled in the engine; see `engine.pace`.
    """

    def __init__(
        self,
        storage: Storage,
        settings: Callable[[], Settings],
        tracker: Tracker,
        name: str,
        say: Callable[[str], None],
        *,
        shape_of: Callable[[Job], Shape] = lambda job: wishes.shape(job.needs or {}),
        pool: FilePool | None = None,
    ) -> None:
        self._storage, self._layout = storage, storage.layout
        self._settings, self._tracker, self._name, self._say = settings, tracker, name, say
        self._shape_of, self._pool = shape_of, pool
        self._claims: dict[Key, Claim] = {}
        self._packs = self.cancelled_there = 0

    @property
    def jobs(self) -> int:
        """How many jobs are claimed."""
        return len(self._claims)

    # -- begin -----------------------------------------------------------------------------------------------------

    def adopt(self, now: float) -> None:
        """Take over what an earlier dispatcher has left. The caller has the lock of the name.

        Args:
            now: the monotonic clock.

        Raises:
            OSError, sqlite3.Error: a disk, the share or the index refused.
        """
        for claim in recovery.claims_left(self._storage, self._name, self._say):
            self._claims[_key(claim.job)] = claim
        unknown, odd = self._tracker.adopt(self._claims, now)
        for line in odd:
            self._say(f"left alone: {line}")
        self._settle([Back(key) for key in unknown])

    # -- hand over -------------------------------------------------------------------------------------------------

    def hand(self, claims: Sequence[Claim], slots: int, now: float, *, pack: int, short: float) -> None:
        """Hand claimed jobs over, in their order.

        Args:
            slots: runners that can be at work at once.
            pack: the most short jobs in one pack.
            short: seconds; a job with no longer time limit is a short one.

        Raises:
            OSError, sqlite3.Error: a disk, the share or the index refused. What is claimed stays claimed.
        """
        candidates = []
        for number, claim in enumerate(claims):
            job = claim.job
            if job.needs_settings:
                JobDefaults(self._layout, self._settings()).fill_in(job)
            try:
                alone = claim.row.unique_key is not None or job.on_crash == "dead"
                candidates.append(Candidate(number, self._shape_of(job), job.timeout or 0, alone))
            except ValueError as error:
                self._bury(claim, str(error))
                continue
            self._claims[_key(job)] = claim
        self._date([claims[one.number] for one in candidates])
        # A claim of which the engine may know must survive a power cut: else its job would be sent again as another run.
        for folder in (self._layout.claims(self._name), self._layout.processing, self._layout.pending):
            files.sync_folder(folder)
        for part in wishes.packs(candidates, slots=slots, most=pack, short=short):
            chosen = [claims[one.number] for one in part]
            self._packs += 1
            self._tracker.hand(
                f"{files.token()[:8]}-{self._packs}",
                [self._order(claim) for claim in chosen],
                part[0].shape,
                now,
                minutes=wishes.minutes([one.timeout for one in part], self._settings().kill_grace),
                priority=max(claim.job.priority or 0 for claim in chosen),
            )

    def _date(self, claims: Sequence[Claim]) -> None:
        """Write into the files of dropped jobs when they were accepted: by that the next dispatcher knows their runs again."""
        undated = {os.path.basename(claim.path): claim for claim in claims if claim.digest is not None}
        replaced = files.replace_existing(
            self._layout.claims(self._name), {name: claim.job.to_bytes() for name, claim in undated.items()}
        )
        for name in replaced:
            undated[name].ours, undated[name].inode = True, os.lstat(undated[name].path).st_ino

    def _order(self, claim: Claim) -> Order:
        job = claim.job
        marks = run_lock.marks(self._layout, job, self._name)
        claim.run = marks["QUEUECTL_RUN"]
        job.worker = self._name
        attempt = prepare(self._layout, job, marks, self._settings(), {}, None)
        return Order(_key(job), attempt.command, attempt.cwd, dict(attempt.env), attempt.timeout)

    # -- follow ----------------------------------------------------------------------------------------------------

    def look(self, now: float) -> int:
        """Record what has ended; return how many jobs that were.

        Raises:
            OSError, sqlite3.Error: a disk, the share or the index refused. What is not recorded is told again after `adopt`.
        """
        events = self._tracker.tick(now)
        for at in range(0, len(events), AT_ONCE):
            self._settle(events[at : at + AT_ONCE])
        return len(events)

    def take_back(self) -> int:
        """Put back what has not begun, for a pause or a stop; return how many jobs that were.

        Raises:
            OSError, sqlite3.Error: a disk, the share or the index refused.
        """
        events = self._tracker.take_back()
        self._settle(events)
        return len(events)

    def cancel(self, ids: Iterable[str]) -> None:
        """End the runs of these jobs, and bury those that have not begun.

        Raises:
            OSError, sqlite3.Error: a disk, the share or the index refused.
        """
        wanted = set(ids)
        self._settle(self._tracker.cancel([key for key in self._claims if key[0] in wanted]))

    def clear(self) -> None:
        """Delete the packs whose outcomes are recorded, when all of these are on the disk.

        Raises:
            OSError: the disk refused, and the packs stay.
        """
        over = self._tracker.over()
        if over:
            files.sync_filesystem(self._layout.root)
            self._tracker.clear(over)

    # -- record ----------------------------------------------------------------------------------------------------

    def _settle(self, events: Sequence[Event]) -> None:
        ended: list[tuple[Key, Claim]] = []
        for event in events:
            claim = self._claims.get(event.key)
            if claim is None:
                self._tracker.settled(event.key)
                continue
            if self._record(claim, event):
                ended.append((event.key, claim))
                continue
            with suppress(FileNotFoundError):  # somebody has taken its file away
                release(self._storage, claim)
            self._forget(event.key)
        if not ended:
            return
        for claim in settle_all(self._storage, [claim for _, claim in ended], self._pool):
            self._say(f"{claim.job.id} was taken away while it ran; its outcome is not recorded")
        for key, claim in ended:
            if claim.settled:
                self._say(
                    f"{claim.state} {claim.job.id}"
                    + (f": {claim.job.last_error}" if claim.job.last_error else "")
                )
            self._forget(key)

    def _forget(self, key: Key) -> None:
        del self._claims[key]
        self._tracker.settled(key)

    def _record(self, claim: Claim, event: Event) -> bool:
        """Write into a job what became of its run; False: it goes back as it was."""
        job, now = claim.job, self._storage.now()
        if isinstance(event, Ended):
            found = endings.meaning(event, in_shell=isinstance(job.command, str), timeout=job.timeout or 0)
        elif isinstance(event, Lost):
            found = endings.loss(event)
        elif isinstance(event, Back):
            found = NotBegun(outcomes.CANCELLED, is_cancelled=event.is_cancelled)
        else:
            _give_up(claim, event.reason, self._name, now)
            return True
        if isinstance(found, NotBegun):
            if found.is_cancelled:
                _give_up(claim, found.reason, self._name, now)
            return found.is_cancelled
        if isinstance(event, Ended):
            self._take_output(job, event, found)
        if isinstance(found, Interrupted):
            limit = self._settings().crash_limit
            claim.state = outcomes.record_crash(
                job, job.worker or self._name, found.error, now=now, limit=limit
            )
        else:
            claim.outcome, claim.ended_at = found, min(now, (job.started_at or now) + found.duration)
            claim.state = outcomes.record(job, found, now=claim.ended_at, digest=claim.digest)
            self.cancelled_there += found.error == endings.CANCELLED_THERE
        return True

    def _take_output(self, job: Job, event: Ended, found: Outcome | Interrupted) -> None:
        """Note where and since when it ran, and copy what it has printed."""
        record = event.record
        # The clock of a node may be another one: a run has not begun before the job was made, nor in the future.
        job.started_at = max(job.created_at or 0.0, min(record.started, self._storage.now() - record.seconds))
        job.worker = f"{self._name}/{record.node}"
        try:
            sizes = job_logs.copy_output(self._layout, job, event.output, limit=self._settings().output_limit)
        except OSError as error:
            self._say(f"cannot keep the output of {job.id}: {(error.strerror or str(error)).lower()}")
        else:
            if isinstance(found, Outcome):
                found.printed = sizes

    def _bury(self, claim: Claim, reason: str) -> None:
        _give_up(claim, reason, self._name, self._storage.now())
        settle_all(self._storage, [claim], self._pool)
        self._say(f"dead {claim.job.id}: {reason}")


def _key(job: Job) -> Key:
    return job.id or "", job.run_mark(job.next_run)


def _give_up(claim: Claim, reason: str, name: str, now: float) -> None:
    """Have a job buried that has not run."""
    job = claim.job
    job.worker, job.last_error, job.finished_at, job.next_retry_at = name, reason, now, None
    claim.state = "dead"
