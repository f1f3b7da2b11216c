"""Jobs that run on a cluster, from their claim to their settlement: between the spool's files and `engine.tracker`.

It is the part of a dispatcher that moves job files, as `job_run` and `settle_batch` are of a worker. What is to be done
with packs it orders from the tracker, which is in another thread, and it records what that reports. It holds no state
worth saving: the claims are in the dispatcher's folder, and the packs in the shared one. A crash between any two steps
is mended by `adopt`.
"""

from __future__ import annotations

import os
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING

from queuectl.config.settings import JobDefaults
from queuectl.control import commands, run_lock
from queuectl.engine import endings, wishes
from queuectl.engine.endings import Interrupted, NotBegun
from queuectl.engine.handed import Back, Ended, Lost, has_begun
from queuectl.engine.packs import Order as Attempt
from queuectl.engine.wishes import Candidate
from queuectl.errors import QueuectlError
from queuectl.executor.base import prepare
from queuectl.index import lanes
from queuectl.job import outcome as outcomes
from queuectl.job.outcome import Outcome
from queuectl.storage import dead_letters, recovery
from queuectl.storage.claim import release
from queuectl.storage.settle import settle_all
from queuectl.system import files
from queuectl.worker import maintenance, share, source_files, told_of_others

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from queuectl.config.settings import Settings
    from queuectl.engine.base import Shape
    from queuectl.engine.handed import Event, Key
    from queuectl.engine.tracker import Tracker
    from queuectl.index.row import Row
    from queuectl.job.record import Job
    from queuectl.rules.job_rules import JobRules
    from queuectl.storage.transitions import Claim, Storage
    from queuectl.worker.share import Order

AT_ONCE = 64
"""Outcomes that are recorded together."""


class Handover:
    """The claims of one dispatcher, and what becomes of them.

    Args:
        post: gives an order to the tracker. The events that it returns must be given to `settle`.
        name: the dispatcher's, in its registration.
        shape_of: what a job wants of a node.
        say: takes a line for the log.
        rules: knows the rules about jobs; None: there are no jobs that tell of others.
        over: is told the id of each job that is no claim any more, and whether it has begun.

    Attributes:
        cancelled_there: jobs that somebody has cancelled in the engine; see `engine.pace`.
        ended: how many attempts have come to an end.
        is_forced: what is ended now is put back, as its dispatcher was told to stop by force.
    """

    def __init__(
        self,
        storage: Storage,
        settings: Callable[[], Settings],
        post: Callable[[Order], None],
        name: str,
        say: Callable[[str], None],
        *,
        shape_of: Callable[[Job], Shape] = lambda job: wishes.shape(job.needs or {}),
        rules: JobRules | None = None,
        over: Callable[[str, bool], None] = lambda *_: None,
    ) -> None:
        self._storage, self._layout = storage, storage.layout
        self._settings, self._post, self._name, self._say = settings, post, name, say
        self._shape_of, self._rules, self._over = shape_of, rules, over
        self._claims: dict[Key, Claim] = {}
        self._wanted_ended: set[Key] = set()
        self._expired: set[Key] = set()
        self._packs = self.cancelled_there = self.ended = 0
        self.is_forced = False
        self.in_queue: Counter[str] = Counter()

    @property
    def jobs(self) -> int:
        """How many jobs are claimed."""
        return len(self._claims)

    def of_queues(self, names: Collection[str]) -> set[Key]:
        """Return the claimed jobs of these queues."""
        return {key for key, claim in self._claims.items() if lanes.queue_of(claim.row.lane) in names}

    # -- begin -----------------------------------------------------------------------------------------------------

    def adopt(self) -> None:
        """Take over what an earlier dispatcher has left. The caller has the lock of the name.

        Raises:
            OSError, sqlite3.Error: a disk or the index refused.
        """
        for claim in recovery.claims_left(self._storage, self._name, self._say):
            self._take(claim)
        keys, say = list(self._claims), self._say

        def adopt(tracker: Tracker, now: float) -> Sequence[Event]:
            unknown = tracker.adopt(keys, now)
            for reason in tracker.unreadable.values():
                say(f"left alone: {reason}; what may be in it stays claimed until it is deleted")
            return [Back(key) for key in unknown]

        self._post(adopt)

    # -- hand over -------------------------------------------------------------------------------------------------

    def hand(
        self,
        claims: Sequence[Claim],
        slots: int,
        *,
        pack: int,
        short: float,
        most: int = 1 << 20,
        ready: int = 0,
    ) -> int:
        """Hand claimed jobs over, in their order; return in how many packs.

        Args:
            slots: runners that can be at work at once.
            pack: the most short jobs in one pack.
            short: seconds; a job with no longer time limit is a short one.
            most: the most packs. Jobs beyond them are put back.
            ready: how many jobs wait, with these: a pack is large if many do.

        Raises:
            OSError, sqlite3.Error: a disk or the index refused. What is claimed stays claimed.
        """
        candidates = []
        for number, claim in enumerate(claims):
            job = claim.job
            if job.needs_settings:
                JobDefaults(self._layout, self._settings()).fill_in(job)
            if self._ends_without_run(claim):
                continue
            try:
                alone = claim.row.unique_key is not None or job.on_crash == "dead"
                candidates.append(Candidate(number, self._shape_of(job), job.timeout or 0, alone))
            except ValueError as error:
                self._bury(claim, str(error))
                continue
        divided = wishes.packs(candidates, slots=slots, most=pack, short=short, ready=ready)
        for part in divided[most:]:
            for one in part:
                self._release(claims[one.number])
        divided = divided[:most]
        if not divided:
            return 0
        self._date([claims[one.number] for part in divided for one in part])
        # A claim of which the engine may know must survive a power cut: else its job would be sent again as another run.
        for folder in (self._layout.claims(self._name), self._layout.processing, self._layout.pending):
            files.sync_folder(folder)
        for part in divided:
            self._hand_pack(
                [claims[one.number] for one in part], part[0].shape, [one.timeout for one in part]
            )
        return len(divided)

    def _hand_pack(self, claims: Sequence[Claim], shape: Shape, timeouts: Sequence[float]) -> None:
        orders = [self._order(claim) for claim in claims]
        for claim in claims:
            self._take(claim)
        self._packs += 1
        name = f"{files.token()[:8]}-{self._packs}"
        minutes = wishes.minutes(timeouts, self._settings().kill_grace)
        priority = max(claim.job.priority or 0 for claim in claims)

        def hand(tracker: Tracker, now: float) -> Sequence[Event]:
            tracker.hand(name, orders, shape, now, minutes=minutes, priority=priority)
            return ()

        self._post(hand)

    def _ends_without_run(self, claim: Claim) -> bool:
        """Settle a job that must not run after all: it has expired, has nothing to tell, or what it waited for decides so."""
        job, storage = claim.job, self._storage
        if claim.decides is not None:
            maintenance.settle_decided(storage, claim, claim.decides, None, self._say)
        elif (why := told_of_others.why_not_needed(storage, self._rules, job)) is not None:
            maintenance.settle_without_run(storage, claim, why, None, self._say)
        elif job.expired(storage.now()):
            maintenance.give_up_expired(storage, claim, self._say)
        else:
            return False
        self._over(claim.row.id, False)
        return True

    def _take(self, claim: Claim) -> None:
        self._claims[_key(claim.job)] = claim
        self.in_queue[lanes.queue_of(claim.row.lane)] += 1

    def _release(self, claim: Claim) -> None:
        with suppress(FileNotFoundError):  # somebody has taken its file away
            release(self._storage, claim)
        self._over(claim.row.id, False)

    def _date(self, claims: Sequence[Claim]) -> None:
        """Write into the files of dropped jobs when they were accepted: by that the next dispatcher knows their runs again."""
        undated = {os.path.basename(claim.path): claim for claim in claims if claim.digest is not None}
        replaced = files.replace_existing(
            self._layout.claims(self._name), {name: claim.job.to_bytes() for name, claim in undated.items()}
        )
        for name in replaced:
            undated[name].ours, undated[name].inode = True, os.lstat(undated[name].path).st_ino

    def _order(self, claim: Claim) -> Attempt:
        job = claim.job
        if job.source is not None:
            source_files.fetch(job, self._say)
        marks = run_lock.marks(self._layout, job, self._name)
        claim.run = marks["QUEUECTL_RUN"]
        job.worker = self._name
        variables, others = told_of_others.find_for_cluster(self._storage, self._rules, claim, self._name)
        attempt = prepare(self._layout, job, marks, self._settings(), {}, None, parents=variables)
        env = dict(attempt.env)
        return Attempt(_key(job), attempt.command, attempt.cwd, env, attempt.timeout, others)

    # -- follow ----------------------------------------------------------------------------------------------------

    def settle(self, events: Sequence[Event]) -> None:
        """Record what has ended.

        Raises:
            OSError, sqlite3.Error: a disk or the index refused. What is not recorded is told again after `adopt`.
        """
        for at in range(0, len(events), AT_ONCE):
            self._settle(events[at : at + AT_ONCE])

    def cancel(self, runs: Mapping[str, int]) -> None:
        """End these runs, and bury the jobs that have not begun. What was asked for before is not asked for again.

        Args:
            runs: the number of the run, by the id of the job.
        """
        wanted = {
            key
            for key, claim in self._claims.items()
            if runs.get(key[0]) == claim.job.next_run and key not in self._wanted_ended
        }
        if wanted:
            self._wanted_ended |= wanted
            self._post(lambda tracker, _: tracker.cancel(sorted(wanted)))

    def end_all(self) -> None:
        """Put back what has not begun, and end what runs: it is put back too, uncharged."""
        self.is_forced = True
        keys = sorted(self._claims)
        self._post(lambda tracker, _: tracker.take_back())
        self._post(lambda tracker, _: tracker.cancel(keys))

    def drop_taken(self) -> None:
        """Have the runs ended whose claimed files somebody has taken away. Their ends are recorded nowhere.

        Raises:
            OSError: the folder of the claims cannot be read.
        """
        there = set(os.listdir(self._layout.claims(self._name)))
        taken = {key for key, claim in self._claims.items() if os.path.basename(claim.path) not in there}
        if not taken:
            return
        for key in sorted(taken):
            self._say(f"{key[0]} was taken away while it was out; its run is ended, and not recorded")
            self._let_go(key)

        def drop(tracker: Tracker, _: float) -> Sequence[Event]:
            tracker.drop(sorted(taken))
            return ()

        self._post(drop)

    def give_up_expired(self) -> None:
        """Take back the jobs that have expired while they waited there. Claimed again, they are recorded as expired."""
        now = self._storage.now()
        late = {key for key, claim in self._claims.items() if claim.job.expired(now)} - self._expired
        if late:
            self._expired |= late
            self._post(lambda tracker, _: tracker.take_back(late))

    def clear(self) -> None:
        """Have the packs deleted whose outcomes are recorded, when all of these are on the disk.

        Raises:
            OSError: the disk refused, and the packs stay.
        """
        files.sync_filesystem(self._layout.root)

        def clear(tracker: Tracker, _: float) -> Sequence[Event]:
            tracker.clear(tracker.over())
            return ()

        self._post(clear)

    # -- record ----------------------------------------------------------------------------------------------------

    def _settle(self, events: Sequence[Event]) -> None:
        events = self._without_output_there(events)
        if not events:
            return
        ended: list[tuple[Event, Claim]] = []
        for event in events:
            claim = self._claims.get(event.key)
            if claim is None:
                continue
            if self._record(claim, event):
                ended.append((event, claim))
                continue
            self._release(claim)
            self._let_go(event.key)
        for claim in self._settle_all([claim for _, claim in ended]):
            self._say(f"{claim.job.id} was taken away while it ran; its outcome is not recorded")
        for event, claim in ended:
            self._tell(claim)
            self._over(claim.row.id, has_begun(event))
            self._let_go(event.key)
        self.ended += len(ended)
        keys = [event.key for event in events]

        def note(tracker: Tracker, _: float) -> Sequence[Event]:
            for key in keys:
                tracker.settled(key)
            return ()

        self._post(note)

    def _without_output_there(self, events: Sequence[Event]) -> Sequence[Event]:
        """Have the output of runs copied by the thread of the share; return the events that do not wait for that.

        The others come back from that order.
        """
        printed = share.with_output(events, self._claims)
        if printed:
            limit = self._settings().output_limit
            self._post(lambda *_: share.fetch_output(self._layout, printed, limit, self._say))
        keys = {event.key for event, _ in printed}
        return [event for event in events if event.key not in keys]

    def _settle_all(self, claims: Sequence[Claim]) -> list[Claim]:
        """Settle claims; return those whose files are gone."""
        if not claims:
            return []
        runs = {claim.job.id: claim.job.runs for claim in claims}

        def obey_late_cancels(rows: Sequence[Row]) -> None:
            # Cancelled while its failure was recorded: it must not be tried again.
            for row in rows:
                if commands.is_cancel_requested(self._layout, self._name, row.id, runs.get(row.id, 0)):
                    with suppress(QueuectlError):  # the person has moved it already
                        dead_letters.bury(self._storage, row, outcomes.CANCELLED)

        return settle_all(self._storage, claims, put_back=obey_late_cancels)

    def _tell(self, claim: Claim) -> None:
        """Log what became of a job, and move the file that a rule has taken for it."""
        job = claim.job
        if not claim.settled:
            return
        self._say(f"{claim.state} {job.id}" + (f": {job.last_error}" if job.last_error else ""))
        if job.source is not None:
            source_files.follow(job, claim.state, self._say)

    def _let_go(self, key: Key) -> None:
        claim = self._claims.pop(key)
        self.in_queue[lanes.queue_of(claim.row.lane)] -= 1
        self._wanted_ended.discard(key)
        self._expired.discard(key)

    def _record(self, claim: Claim, event: Event) -> bool:
        """Write into a job what became of its run; False: it goes back as it was."""
        job, now = claim.job, self._storage.now()
        stopped = not self._is_unwanted(claim)
        if isinstance(event, Ended):
            found = endings.meaning(
                event, in_shell=isinstance(job.command, str), timeout=job.timeout or 0, stopped=stopped
            )
        elif isinstance(event, Lost):
            found = endings.loss(event)
            if event.runner:
                job.worker = f"{self._name}/{endings.node_of(event.runner)}"
        elif isinstance(event, Back):
            found = NotBegun(outcomes.CANCELLED, is_cancelled=event.is_cancelled and not stopped)
        else:
            _give_up(claim, event.reason, self._name, now)
            return True
        if isinstance(found, NotBegun):
            if found.is_cancelled:
                _give_up(claim, found.reason, self._name, now)
            return found.is_cancelled
        if isinstance(event, Ended):
            self._note_run(job, event, found)
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

    def _is_unwanted(self, claim: Claim) -> bool:
        """Whether somebody has cancelled this run.

        Else it was ended by a forced stop, also of an earlier dispatcher, or as its file was away for a while.
        """
        job = claim.job
        return _key(job) in self._wanted_ended or commands.is_cancel_requested(
            self._layout, self._name, job.id or "", job.next_run
        )

    def _note_run(self, job: Job, event: Ended, found: Outcome | Interrupted) -> None:
        """Note where and since when it ran, and how much it has printed."""
        record = event.record
        # The clock of a node may be another one: a run has not begun before the job was made, nor in the future.
        job.started_at = max(job.created_at or 0.0, min(record.started, self._storage.now() - record.seconds))
        job.worker = f"{self._name}/{record.node}"
        if event.printed is not None and isinstance(found, Outcome):
            found.printed = event.printed

    def _bury(self, claim: Claim, reason: str) -> None:
        _give_up(claim, reason, self._name, self._storage.now())
        settle_all(self._storage, [claim])
        self._over(claim.row.id, False)
        self._say(f"dead {claim.job.id}: {reason}")


def _key(job: Job) -> Key:
    return job.id or "", job.run_mark(job.next_run)


def _give_up(claim: Claim, reason: str, name: str, now: float) -> None:
    """Have a job buried that has not run."""
    job = claim.job
    job.worker, job.last_error, job.finished_at, job.next_retry_at = name, reason, now, None
    claim.state = "dead"
