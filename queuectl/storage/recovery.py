"""Recover the claims of dead workers: each job goes back once nothing of its run is alive.

The lock is the proof of death: only a process that gets the lock of a worker's name may touch that worker's folder. A
claimed file whose job lies elsewhere in a later state was left by a crash in the middle of a settle, and is deleted. Of
several claimed files in one folder, the run file tells which runs have ended, which one was running, and which had not
begun.
"""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from queuectl.config.settings import JobDefaults
from queuectl.control import commands, registry, run_lock
from queuectl.errors import InvalidJob
from queuectl.fast_start.dataclass import dataclass
from queuectl.index.row import Row, accept_as_indexed
from queuectl.job import outcome as outcomes
from queuectl.job import record as jobs
from queuectl.job.outcome import Ending, Outcome
from queuectl.job.times import micros
from queuectl.layout import DEAD, DONE, PENDING, PROCESSING, is_engine
from queuectl.storage import dead_letters, job_logs, orphaned_runs
from queuectl.storage.claim import release
from queuectl.storage.locate import claimed_by, claimed_by_worker, is_settled
from queuectl.storage.power_loss import sweep
from queuectl.storage.settle import settle
from queuectl.storage.transitions import Claim
from queuectl.system import files, safe_open
from queuectl.system.locks import Lock, is_folder_locked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from queuectl.config.settings import Settings
    from queuectl.index.index import Index
    from queuectl.job.record import Job
    from queuectl.layout import Layout
    from queuectl.storage.transitions import Storage


def recover_claims(
    storage: Storage,
    settings: Settings,
    say: Callable[[str], None],
    *,
    busy: Iterable[str] | None = None,
) -> int:
    """Take back the claims of workers that are gone; return the number of jobs that were freed.

    Those of a dispatcher are left alone, see `layout.is_engine`.

    Args:
        say: takes a line for each job, and for each worker whose lock cannot be asked for.
        busy: the workers that may have claimed a job, if they are known.
    """
    freed = 0
    layout = storage.layout
    for worker in claimed_by_worker(layout) if busy is None else busy:
        if is_engine(worker):
            continue
        lock = _lock_of_the_dead(layout, worker, say)
        if lock is not None:
            try:
                if is_folder_locked(layout.claims(worker)):
                    continue  # it is alive, and only its lock file was deleted
                freed += recover_worker(storage, settings, worker, say)
                sweep(layout, worker, storage.index.boot)
                _deregister(layout, storage.index, worker)
            finally:
                lock.release()
    return freed


def _lock_of_the_dead(layout: Layout, worker: str, say: Callable[[str], None]) -> Lock | None:
    """Take the lock of a worker's name; None if the worker lives, or if nobody can know that.

    Somebody may have put a folder there, or a file that may not be opened. That must not keep the jobs of other workers
    from being taken back.
    """
    try:
        return Lock.acquire(layout.worker_file(worker, "lock"))
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        say(f"cannot find out whether {worker} is alive: its lock cannot be opened: {reason}")
        return None


def clear_dead_workers(layout: Layout, index: Index, say: Callable[[str], None], *, mine: str) -> None:
    """Remove the traces of workers that died with no job claimed.

    Args:
        say: takes a line for each worker whose lock cannot be asked for.
        mine: the caller's own name.

    Raises:
        OSError, sqlite3.Error: a folder cannot be read, or the index refused.
    """
    for worker in registry.worker_names(layout):
        if worker == mine or not os.path.exists(layout.worker_file(worker, "json")):
            continue
        lock = _lock_of_the_dead(layout, worker, say)
        if lock is not None:
            try:
                if not is_folder_locked(layout.claims(worker)) and not claimed_by(layout, worker):
                    # After the next boot, its held files would bring back a job that is deleted until then.
                    sweep(layout, worker, index.boot)
                    _deregister(layout, index, worker)
            finally:
                lock.release()


def distrust_if_rebuilt(index: Index, began: float | None) -> None:
    """Have all folders scanned if the index was rebuilt while a worker lived that has died.

    Its last moves may have been recorded in the old index file, and another process may have declared the folders
    unchanged since.

    Args:
        began: when that worker started, in epoch seconds; None if it is not known.

    Raises:
        sqlite3.Error: the index refused.
    """
    made = index.meta("made")
    if began is None or made is None or made >= began - 1:
        with index.write():
            for place in (PENDING, DONE, DEAD):
                index.mark_stale(place)


def _deregister(layout: Layout, index: Index, worker: str) -> None:
    """Delete the registration and the folder of a worker that is gone, once the index knows of its last moves."""
    if not index.usable or claimed_by(layout, worker):
        return
    distrust_if_rebuilt(index, registry.worker_info(layout, worker).started_at)
    folder = layout.claims(worker)
    with suppress(OSError):
        for name in filter(files.is_temporary_name, os.listdir(folder)):
            os.unlink(os.path.join(folder, name))
        os.rmdir(folder)
    # Even if the folder stays: while the registration exists, each check of it causes a scan of all folders.
    with suppress(OSError):
        os.unlink(layout.worker_file(worker, "json"))


def recover_worker(storage: Storage, settings: Settings, worker: str, say: Callable[[str], None]) -> int:
    """Free the jobs in the folder of a worker whose lock the caller has; return their number."""
    freed = 0
    layout = storage.layout
    found: list[_Abandoned] = []
    for name in claimed_by(layout, worker):
        path = os.path.join(layout.claims(worker), name)
        with _one_that_is_refused(say, path, worker):
            freed += _examine(storage, worker, path, found)
    if found:
        known = run_lock.read_all(layout, worker)
        lingering = orphaned_runs.end_runs(layout, [one.job for one in found], worker, known)
        others = sum(_was_running(storage, known, one) for one in found) - 1
        for one, reason in zip(found, lingering, strict=True):
            if reason is not None:
                say(f"cannot take back {one.job.id}: {reason}")
                continue
            with _one_that_is_refused(say, one.path, worker):
                _free(storage, settings, worker, one, known, say, others)
                freed += 1
    if not claimed_by(layout, worker):
        commands.delete_cancel(layout, worker)
        run_lock.forget_slots(layout, worker)
    return freed


def claims_left(storage: Storage, worker: str, say: Callable[[str], None]) -> list[Claim]:
    """Return the claims that an earlier process of this name has left, for one whose runs may go on elsewhere.

    The caller has the lock of the name. A claim whose outcome is recorded is deleted: its job would be settled twice.
    What is no job goes to dead/.
    """
    found: list[_Abandoned] = []
    for name in claimed_by(storage.layout, worker):
        path = os.path.join(storage.layout.claims(worker), name)
        with _one_that_is_refused(say, path, worker):
            _examine(storage, worker, path, found)
    return [Claim(one.job, one.path, _row_of_claim(storage, one.job, worker, one.path)) for one in found]


@contextmanager
def _one_that_is_refused(say: Callable[[str], None], path: str, worker: str) -> Iterator[None]:
    """One file that cannot be dealt with must not keep the others from being freed."""
    try:
        yield
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        say(f"cannot take back {os.path.basename(path)} of {worker}: {reason}")


@dataclass(frozen=True, slots=True)
class _Abandoned:
    """A job in the folder of a dead worker, which is nowhere else in a later state.

    Attributes:
        is_dated: its file says when it was created.
    """

    job: Job
    path: str
    is_dated: bool


def _examine(storage: Storage, worker: str, path: str, found: list[_Abandoned]) -> bool:
    """Read a claimed file. A job is added to `found`, unless it was settled already; what is no job goes to dead/.

    Returns:
        whether it was put there.
    """
    layout = storage.layout
    job_id = os.path.basename(path)[: -len(".json")]
    try:
        data, status = safe_open.read_regular(path, jobs.READ_LIMIT)
        safe_open.refuse_untrusted(path, status)
        job = jobs.parse(data)
    except (safe_open.NotReadable, InvalidJob) as error:
        reason = f"{error} (found in the folder of {worker}, which is gone)"
        dead_letters.bury_file(storage, path, job_id, reason)
        return True
    one = _Abandoned(job, path, is_dated=job.created_at is not None)
    job.id = job_id
    if is_settled(layout, job, but=path):
        files.sync_filesystem(layout.root)  # the later copy may not be on the disk yet
        os.unlink(path)
    else:
        found.append(one)
    return False


def _free(
    storage: Storage,
    settings: Settings,
    worker: str,
    one: _Abandoned,
    known: run_lock.WorkerRuns | None,
    say: Callable[[str], None],
    others: int,
) -> None:
    """Free a job of a dead worker; none of the processes of its run is alive.

    Args:
        others: if it was running, how many other jobs its worker ran.
    """
    layout, index, job = storage.layout, storage.index, one.job
    claim = Claim(job, one.path, _row_of_claim(storage, job, worker, one.path))
    never_began = bool(known and known.never_began(job, index.boot))
    over = _run_over(known, job, one.path, is_dated=one.is_dated)
    if not over and commands.is_cancel_requested(layout, worker, job.id or "", job.next_run):
        if not never_began:
            job_logs.keep_output(layout, job, _slot_of(known, job, worker), None, limit=settings.output_limit)
        outcomes.record_cancel(job, worker, now=storage.now(), ran=not never_began)
        settle(storage, claim, "dead")
        say(f"dead {job.id}: {job.last_error}; {worker}, which ran it, is gone")
        return
    if never_began:
        release(storage, claim)
        say(f"put back {job.id}: {worker} had not begun it")
        return
    JobDefaults(layout, settings).fill_in(job)
    state, line = _record(storage, settings, worker, job, over, known, others)
    settle(storage, claim, state)
    say(line)


def _was_running(storage: Storage, known: run_lock.WorkerRuns | None, one: _Abandoned) -> bool:
    """Whether a job of a dead worker was running when it died; False if nobody knows."""
    if known is None or known.never_began(one.job, storage.index.boot):
        return False
    with suppress(OSError):
        return not _run_over(known, one.job, one.path, is_dated=one.is_dated)
    return False  # somebody has moved its file


def _row_of_claim(storage: Storage, job: Job, worker: str, path: str) -> Row:
    """Return the row of a claimed job, or a new one, and give the job what only the row knows."""
    job_id = job.id or ""
    row = storage.index.get(job_id) if storage.index.usable else None
    if row is None:
        arrived = micros(os.stat(path).st_ctime)
        place = f"{PROCESSING}/{worker}"
        row = Row(id=job_id, state="processing", place=place, name=f"{job_id}.json", arrived=arrived)
    if job.state in ("completed", "dead"):
        job.renew(row.arrived / 1e6)
    accept_as_indexed(job, row)
    return row


def _run_over(
    known: run_lock.WorkerRuns | None, job: Job, path: str, *, is_dated: bool
) -> run_lock.EndedRun | None:
    """Return how the run of a claimed job ended, if its worker has written that down.

    Args:
        is_dated: the file says when the job was created. Otherwise only the index knew, and a rebuilt index gives the
            run another mark; then the number of the run decides, if that run began after the claim.
    """
    if known is None:
        return None
    number = job.next_run
    ended = known.ended
    over = ended.get((job.id or "", job.run_mark(number)))
    if over is None and not is_dated:
        claimed_at = os.stat(path).st_ctime
        for (job_id, run), one in ended.items():
            if job_id == job.id and run.partition(".")[0] == str(number) and claimed_at <= one.started_at:
                return one
    return over


def _slot_of(known: run_lock.WorkerRuns | None, job: Job, worker: str) -> str:
    """Return the slot in which the next run of a job was started; the first one if that is not known."""
    current = known.current(job) if known else None
    return current.slot if current else worker


def _record(
    storage: Storage,
    settings: Settings,
    worker: str,
    job: Job,
    over: run_lock.EndedRun | None,
    known: run_lock.WorkerRuns | None,
    others: int,
) -> tuple[str, str]:
    """Record in a job what became of its run; return the job's new state, and a line for the log."""
    layout = storage.layout
    if over:
        job.worker, job.started_at = worker, over.started_at
        job_logs.recall_output(layout, job, limit=settings.output_limit)
        outcome = Outcome(Ending.SUCCEEDED, 0, None, over.duration)
        state = outcomes.record(job, outcome, now=over.finished_at)
        return state, f"{state} {job.id}: {worker} had run it, and died before it was settled"
    job_logs.keep_output(layout, job, _slot_of(known, job, worker), None, limit=settings.output_limit)
    boots = [one.boot for one in known.records if one.is_last(job.id, job.next_run)] if known else []
    restarted = any(boot not in ("", storage.index.boot) for boot in boots)
    more = f" and {others} other job{'s' if others > 1 else ''}" if others > 0 else ""
    error = f"{worker} died while running it{more}"
    limit = settings.crash_limit
    state = outcomes.record_crash(job, worker, error, now=storage.now(), limit=limit, restarted=restarted)
    return state, f"took back {job.id}: {job.last_error}"
