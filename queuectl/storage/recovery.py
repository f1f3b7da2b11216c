"""Abandoned claims: what a dead worker had in hand goes back, once nothing of the old run is alive.

Proof of death is the lock: whoever gets the lock of a worker's name may touch its folder, and nobody else. A copy
that a crash in mid-settle left behind is void when the later state is there. Of several in one folder, the run file
tells which were over, which one ran, and which had not begun.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from queuectl.control import commands, registry, run_lock
from queuectl.errors import InvalidJob
from queuectl.index.row import Row, accept_as_indexed
from queuectl.job import outcome as outcomes
from queuectl.job import record as jobs
from queuectl.job.outcome import Ending, Outcome
from queuectl.job.times import micros
from queuectl.layout import DEAD, DONE, PENDING, PROCESSING
from queuectl.storage import claims, job_logs
from queuectl.storage.mover import Claim
from queuectl.storage.power_loss import is_settled, sweep
from queuectl.system import files, safe_open
from queuectl.system.locks import Lock, is_folder_locked, is_locked
from queuectl.system.process_tree import terminate_lock_holders, terminate_tree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from queuectl.config.settings import Settings
    from queuectl.index.index import Index
    from queuectl.job.record import Job
    from queuectl.layout import Layout
    from queuectl.storage.mover import Mover

_GRACE = 0.5
"""Seconds between TERM and KILL for a run whose worker is dead: its outcome cannot be recorded any more."""


def abandoned(
    layout: Layout,
    mover: Mover,
    settings: Settings,
    say: Callable[[str], None],
    *,
    mine: str | None = None,
    busy: Iterable[str] | None = None,
) -> int:
    """Take back the claims of workers that are gone; returns how many jobs were freed.

    Args:
        mine: the caller's own name; its folder is its own business.
        busy: the workers that may have something in hand, if that is known.
    """
    freed = 0
    for worker in claims.by_worker(layout) if busy is None else busy:
        if worker != mine:
            lock = Lock.acquire(layout.worker_file(worker, "lock"))
            if lock is not None:
                try:
                    if is_folder_locked(layout.claims(worker)):
                        continue  # it lives, and only its lock file was deleted
                    freed += leftovers(layout, mover, settings, worker, say)
                    sweep(layout, worker, mover.index.boot)
                    _tidy(layout, mover.index, worker)
                finally:
                    lock.release()
    return freed


def bygone(layout: Layout, index: Index, *, mine: str) -> None:
    """Deal with workers that died with nothing in hand.

    Raises:
        OSError, sqlite3.Error: a lock cannot be asked for, or the index refused.
    """
    for worker in registry.worker_names(layout):
        if worker == mine or not os.path.exists(layout.worker_file(worker, "json")):
            continue
        lock = Lock.acquire(layout.worker_file(worker, "lock"))
        if lock is not None:
            try:
                if not is_folder_locked(layout.claims(worker)) and not claims.of(layout, worker):
                    # What it held would bring back, after the next boot, a job that is deleted until then.
                    sweep(layout, worker, index.boot)
                    _tidy(layout, index, worker)
            finally:
                lock.release()


def mistrust(index: Index, began: float | None) -> None:
    """Have all folders scanned if the index was made anew while a worker lived that died: its last moves may have been
    told to the file before, and somebody may have vouched for the folders over them.

    Args:
        began: when that worker started, in epoch seconds; None if nobody knows.

    Raises:
        sqlite3.Error: the index refused.
    """
    made = index.meta("made")
    if began is None or made is None or made >= began - 1:
        with index.write():
            for place in (PENDING, DONE, DEAD):
                index.mark_stale(place)


def _tidy(layout: Layout, index: Index, worker: str) -> None:
    """Take down the name plate of a worker that is gone, once the index has heard of it."""
    if not index.usable or claims.of(layout, worker):
        return
    mistrust(index, registry.worker_info(layout, worker).started_at)
    folder = layout.claims(worker)
    with suppress(OSError):
        for name in filter(files.is_temporary_name, os.listdir(folder)):
            os.unlink(os.path.join(folder, name))
        os.rmdir(folder)
    # Whatever becomes of its folder: as long as the plate is there, each look at it has all folders scanned.
    with suppress(OSError):
        os.unlink(layout.worker_file(worker, "json"))


def leftovers(
    layout: Layout, mover: Mover, settings: Settings, worker: str, say: Callable[[str], None]
) -> int:
    """Free the jobs in the folder of a worker whose lock the caller holds; returns how many."""
    freed = 0
    folder = layout.claims(worker)
    for name in claims.of(layout, worker):
        try:
            freed += _free(layout, mover, settings, worker, os.path.join(folder, name), say)
        except OSError as error:
            # One file that cannot be dealt with must not keep the others from being freed.
            say(f"cannot take back {name} of {worker}: {(error.strerror or str(error)).lower()}")
    if not claims.of(layout, worker):
        commands.delete_cancel(layout, worker)
    return freed


def _free(
    layout: Layout, mover: Mover, settings: Settings, worker: str, path: str, say: Callable[[str], None]
) -> bool:
    job_id = os.path.basename(path)[: -len(".json")]
    try:
        data, status = safe_open.read_regular(path, jobs.READ_LIMIT)
        if safe_open.has_other_owner(status):
            raise safe_open.NotReadable(f"belongs to another user (uid {status.st_uid})")
        job = jobs.parse(data)
    except (safe_open.NotReadable, InvalidJob) as error:
        mover.bury_file(path, job_id, f"{error} (found in the folder of {worker}, which is gone)")
        return True
    job.id, is_dated = job_id, job.created_at is not None
    if is_settled(layout, job, but=path):
        files.sync_filesystem(layout.root)  # the later copy may not be on the disk yet
        os.unlink(path)
        return False
    known = run_lock.read(layout, worker)
    if not end_run(layout, job, worker, known):
        say(f"cannot take back {job_id}: processes of its run are still alive")
        return False
    row = mover.index.get(job_id) if mover.index.usable else None
    if row is None:
        arrived = micros(os.stat(path).st_ctime)
        place = f"{PROCESSING}/{worker}"
        row = Row(id=job_id, state="processing", place=place, name=f"{job_id}.json", arrived=arrived)
    if job.state in ("completed", "dead"):
        job.renew(row.arrived / 1e6)
    accept_as_indexed(job, row)
    claim = Claim(job, path, row)
    never_began = bool(known and known.never_began(job_id, mover.index.boot))
    over = _run_over(known, job, path, is_dated=is_dated)
    if not over and commands.is_cancel_requested(layout, worker, job_id, job.next_run):
        if not never_began:
            job_logs.keep_output(layout, job, worker, None, limit=settings.output_limit)
        outcomes.record_cancel(job, worker, now=mover.now(), ran=not never_began)
        mover.settle(claim, "dead")
        say(f"dead {job_id}: {job.last_error}; {worker}, which ran it, is gone")
        return True
    if never_began:
        mover.release(claim)
        say(f"put back {job_id}: {worker} had not begun it")
        return True
    job.fill_in(settings)
    state, line = _outcome(layout, mover, settings, worker, job, over)
    mover.settle(claim, state)
    say(line)
    return True


def _run_over(
    known: run_lock.RunRecord | None, job: Job, path: str, *, is_dated: bool
) -> run_lock.EndedRun | None:
    """How the run of a claimed job ended, if its worker has written that down.

    Args:
        is_dated: its file says when the job was made. Else that stood in the index alone, and with another index its
            run has another mark: then the number of the run counts, if that began after the claim.
    """
    if known is None:
        return None
    number = job.next_run
    over = known.ended.get((job.id or "", job.run_mark(number)))
    if over is None and not is_dated:
        claimed_at = os.stat(path).st_ctime
        for (job_id, run), one in known.ended.items():
            if job_id == job.id and run.partition(".")[0] == str(number) and claimed_at <= one.started_at:
                return one
    return over


def _outcome(
    layout: Layout,
    mover: Mover,
    settings: Settings,
    worker: str,
    job: Job,
    over: run_lock.EndedRun | None,
) -> tuple[str, str]:
    """Write into a job what became of its run; returns its new state, and what to say."""
    if over:
        job.worker, job.started_at = worker, over.started_at
        job_logs.recall_output(layout, job, limit=settings.output_limit)
        outcome = Outcome(Ending.SUCCEEDED, 0, None, over.duration)
        state = outcomes.record(job, outcome, now=over.finished_at, default_timeout=settings.timeout)
        return state, f"{state} {job.id}: {worker} had run it, and died before it was put away"
    job_logs.keep_output(layout, job, worker, None, limit=settings.output_limit)
    state = outcomes.record_crash(job, worker, now=mover.now(), limit=settings.crash_limit)
    return state, f"took back {job.id}: {job.last_error}"


def end_run(layout: Layout, job: Job, worker: str, signed: run_lock.RunRecord | None) -> bool:
    """End what is left of the run of a dead worker; True when nothing of it is alive.

    A process that has cleared its environment is not found by its marks, but it still holds the run lock.
    """
    lock = layout.worker_file(worker, "run")
    marks = run_lock.marks(layout, job, worker)
    if signed is not None:
        # The lock of another run: this one had not begun, and whoever holds the lock may go on with it.
        if signed.job_id != job.id or signed.run.partition(".")[0] != str(job.next_run):
            return True
        marks["QUEUECTL_RUN"] = signed.run
    return (
        terminate_tree(marks, None, _GRACE) and terminate_lock_holders(lock, _GRACE) and not is_locked(lock)
    )
