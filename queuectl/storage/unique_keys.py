"""Unique keys: of the jobs that wait or run, which have one, who may come in beside them, and who may start.

A producer asks under a kernel lock, with the index made to agree with the folders, so that of two who ask at once one
comes second. Whether a job may start is seen in the workers' folders, after its claim: of two with one key that were
claimed at once, each would see the other. The index only spares the looking.

A job that has begun has its key until it is over: while it runs, and while it waits for its next attempt. Those that
have not begun wait in the usual order.
"""

from __future__ import annotations

import os
import time
from contextlib import contextmanager, suppress

from queuectl.errors import InvalidJob, KeyTaken, QueuectlError, SpoolError
from queuectl.index.row import is_file_of
from queuectl.job import record as jobs
from queuectl.job.fields import WAITING
from queuectl.job.times import micros
from queuectl.system import safe_open

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from queuectl.index.row import Row
    from queuectl.job.record import Job
    from queuectl.storage.operator_moves import HandMoves
    from queuectl.storage.prepare import Prepared

_PATIENCE = 60.0
"""Seconds to wait for other producers with keys. Each holds the lock for some milliseconds."""

_FEW = 20

REPLACED = "Replaced by job "
"""How the last error of a job begins that a newer one with its key has superseded."""


class UniqueKeys:
    """The unique keys of one spool.

    Args:
        mover: whose jobs they are.
    """

    def __init__(self, mover: HandMoves) -> None:
        self._mover = mover
        self._layout, self._index = mover.layout, mover.index
        self._deciding = False

    # -- for producers ---------------------------------------------------------------------------------------------

    @contextmanager
    def deciding(self) -> Iterator[None]:
        """Let nobody else decide meanwhile, and see the folders as they are.

        Raises:
            SpoolError: the lock or the folders cannot be had.
        """
        if self._deciding:
            yield
            return
        from queuectl.system.locks import Lock

        self._mover.refresh()  # here, too: it may take long, and others wait for the lock
        path = os.path.join(self._layout.data, "unique.lock")
        try:
            lock = Lock.acquire(path, patience=_PATIENCE)
        except OSError as error:
            raise SpoolError.from_os("lock", path, error) from None
        if lock is None:
            raise SpoolError(f"other processes have been deciding about unique keys for {_PATIENCE:g} s")
        self._deciding = True
        try:
            self._mover.refresh()
            yield
        finally:
            self._deciding = False
            self._leave_trace()
            lock.release()

    def _leave_trace(self) -> None:
        """See that the next to decide looks into pending/ itself if the index they share has not heard of our job.

        Where the time of files moves in ticks, the folder's own would not show a second change within one.
        """
        if not self._index.usable or self._index.path == ":memory:":
            now = time.time_ns()
            with suppress(OSError):
                os.utime(self._layout.pending, ns=(now, now))

    def admit(self, made: Prepared) -> None:
        """See whether a job may be queued; notes in it which jobs it supersedes.

        Raises:
            KeyTaken: another job has its key, and it is to be skipped then.
        """
        job = made.job
        if job.if_exists == "replace":
            made.supersedes = list(self.of(job.unique or "", *WAITING))
        else:
            for row in self.of(job.unique or ""):
                raise KeyTaken(job.unique or "", row.id, row.state)

    def supersede(self, batch: Iterable[Prepared]) -> None:
        """Give up the waiting jobs whose place these have taken. Only now: dying in between loses none of them."""
        for made in batch:
            for row in made.supersedes:
                if self._give_up(row, made.job):
                    made.job.replaced.append(row.id)

    def judge_drop(self, job: Job, arrived: int) -> str | None:
        """Decide about a file that somebody dropped; returns the reason when it is to be skipped.

        Args:
            arrived: when it landed, in microseconds. Of who came after it, it is not to be judged: when the index is
                made anew, all that wait are seen for the first time.
        """

        def came_first(row: Row) -> bool:
            return (row.created_at or row.arrived) <= arrived

        if job.if_exists == "replace":
            for row in filter(came_first, list(self.of(job.unique or "", *WAITING))):
                self._give_up(row, job)
        elif job.if_exists != "queue":
            for row in filter(came_first, self.of(job.unique or "")):
                return f"{KeyTaken(job.unique or '', row.id, row.state)}, and if_exists is skip"
        return None

    def _give_up(self, row: Row, job: Job) -> bool:
        """Take a waiting job out of the way; False when it was claimed meanwhile: then it runs to its end.

        What never ran and was handed over by enqueue has nothing to tell, and would ring the alarm for dead jobs. What
        a stranger wrote is not deleted.
        """
        with suppress(QueuectlError, OSError, safe_open.NotReadable):
            path = os.path.join(self._layout.root, row.place, row.name)
            old = jobs.parse(safe_open.read_regular(path, jobs.READ_LIMIT)[0])
            if old.created_at is not None and not (old.runs or old.attempts):
                return self._mover.forget(row, unchanged=True)
            self._mover.bury(row, f"{REPLACED}{job.id}")
            return True
        return False

    def of(self, key: str, *states: str) -> Iterator[Row]:
        """The jobs with this key in these states, by their files. Call it within `deciding`.

        Args:
            states: default: those in which a job waits or runs.
        """
        if not self._index.usable:
            self._mover.refresh()  # deleted or damaged just now
        if not self._index.usable:
            return
        for state in states or ("processing", "failed", "pending"):
            # Mostly the first one settles it, and thousands may wait.
            few = self._index.with_key(key, state, limit=_FEW)
            yield from filter(self._has_it, few)
            if len(few) == _FEW:
                seen = {row.id for row in few}
                more = (row for row in self._index.with_key(key, state) if row.id not in seen)
                yield from filter(self._has_it, more)

    def _has_it(self, row: Row) -> bool:
        path = os.path.join(self._layout.root, row.place, row.name)
        now = self._mover.now()
        try:
            status = os.lstat(path)
            if not is_file_of(row, status):
                found = jobs.parse(safe_open.read_regular(path, jobs.READ_LIMIT)[0])
                waits = row.state != "processing"
                return found.unique == row.unique_key and not (waits and found.expired(now))
        except FileNotFoundError:
            return self._mover.state_of(row.id) in ("pending", "processing")  # claimed just now
        except (OSError, safe_open.NotReadable, InvalidJob):
            return False
        # Without a worker that gives it up, one that has expired would keep all others out for ever.
        return row.state == "processing" or row.expires is None or row.expires >= micros(now)

    # -- for workers -----------------------------------------------------------------------------------------------

    def is_barred(self, row: Row) -> bool:
        """Whether another job of the key has begun, so that this one has to wait; then no worker tries it again."""
        key = row.unique_key or ""
        for other in self._index.with_key(key, "processing"):
            if os.path.lexists(os.path.join(self._layout.root, other.place, other.name)):
                self._index.put_behind(key)
                return True
            self._index.drop_if_at(other.id, other.place, other.name)
        if row.state == "pending" and self._index.has_begun(key, row.seq or 0):
            self._index.put_behind(key, pending_only=True)
            return True
        return False

    def runs_beside(self, key: str, mine: str) -> bool:
        """Whether another job of this key is in a worker's hands, by the folders alone.

        Args:
            mine: the path of the one that was claimed to be run.
        """
        from queuectl.storage import claims, power_loss

        for worker, names in claims.by_worker(self._layout).items():
            for name in names:
                path = f"{self._layout.claims(worker)}{os.sep}{name}"
                if path == mine:
                    continue
                with suppress(OSError, safe_open.NotReadable, InvalidJob):
                    data = safe_open.read_regular(path, jobs.READ_LIMIT)[0]
                    if b"\\" not in data and key.encode() not in data:
                        continue  # nothing is escaped, so it cannot have the key
                    job = jobs.parse(data)
                    job.id = name.removesuffix(".json")
                    # Of one that has just ended, the claimed file may lie there yet.
                    if job.unique == key and not power_loss.is_settled(self._layout, job, but=path):
                        self._index.put_behind(key)
                        return True
        return False

    def look_again(self) -> None:
        """Let those that wait behind a job try again that is gone without a word: its file was deleted by hand.

        Raises:
            sqlite3.Error: the index refused.
        """
        for key in self._index.keys_with_waiting():
            with self._index.write():
                for row in self._index.with_key(key, "processing"):
                    if not os.path.lexists(os.path.join(self._layout.root, row.place, row.name)):
                        self._index.drop_if_at(row.id, row.place, row.name)
                self._index.release_next(key)
