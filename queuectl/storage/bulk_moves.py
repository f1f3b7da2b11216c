"""Move many jobs by a person's order: give up waiting ones, and send dead or completed ones back to pending/.

Each list is moved in one transaction of the index, so that no worker claims the next job while the others still wait.
The disk is waited for once for the list, and never within the transaction: workers wait for that. One job that refuses
does not stop the others.
"""

from __future__ import annotations

import os
from contextlib import suppress

from queuectl._dataclasses import dataclass
from queuectl.errors import InvalidJob, MoveError, QueuectlError, SpoolError
from queuectl.index.row import row_of
from queuectl.job import record as jobs
from queuectl.job.times import micros
from queuectl.layout import DEAD, DONE, PENDING
from queuectl.storage import locate
from queuectl.storage.transitions import check
from queuectl.system import files, safe_open

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Any

    from queuectl.index.row import Row
    from queuectl.job.record import Job
    from queuectl.storage.transitions import Storage

AT_ONCE = 2000
"""Jobs moved in one transaction. Workers wait for it, about 0.2 ms for each job."""


@dataclass(slots=True)
class _Change:
    """A job on its way: its row before the move, the job as it will be, and the file that will hold it.

    Attributes:
        path: where its file is.
        mark: the fingerprint of that file.
        scratch: the new file; empty until it is written.
        name: the name of its file in pending/, once it is there.
    """

    row: Row
    job: Job
    path: str
    mark: files.Fingerprint
    scratch: str = ""
    name: str = ""


# -- give up ---------------------------------------------------------------------------------------------------------------


def bury_all(
    storage: Storage, rows: Sequence[Row], reason: str, *, if_still: Callable[[Job], bool] = lambda _: True
) -> dict[str, QueuectlError]:
    """Move waiting jobs to dead/. When this returns, the moves survive a power cut.

    Args:
        rows: the last one in the line should come first: workers claim from the other end.
        if_still: given a job as its file says it now; returns whether the reason still applies.

    Returns:
        the jobs that were not moved, by id, and why: MoveError: it does not wait, a worker has just claimed it, or the
        reason does not apply any more. InvalidJob: its file is not a valid job any more. SpoolError: the disk refused.
        Each of them is where it was.
    """
    refused: dict[str, QueuectlError] = {}
    for start in range(0, 0 if storage.read_only else len(rows), AT_ONCE):
        moved = []
        with storage.index.moving(DEAD):
            for row in rows[start : start + AT_ONCE]:
                with _refusals(refused, "give up", row):
                    moved.append(_move_to_dead(storage, row, reason, if_still))
        _write_reasons(storage, moved, refused)
    return refused


def _move_to_dead(storage: Storage, row: Row, reason: str, if_still: Callable[[Job], bool]) -> _Change:
    check("bury", row.id, row.state, "dead")
    source = os.path.join(storage.layout.pending, row.name)
    # Without `own_change`, each buried job would cause another scan of pending/. It covers only the rename: during
    # slower work the index would miss a file dropped then.
    with storage.index.own_change(PENDING):
        name = files.move_to_free_name(source, storage.layout.dead, f"{row.id}.json")
    target = os.path.join(storage.layout.dead, name)
    try:
        data, status = safe_open.read_regular(target, jobs.READ_LIMIT)
        job = jobs.parse(data)
        if not if_still(job):
            raise just_moved(row)
    except (OSError, safe_open.NotReadable, InvalidJob, MoveError):
        # A refusal means that nothing was done: the job waits again.
        files.move_to_free_name(target, storage.layout.pending, row.name)
        raise
    job.id, job.state, job.last_error = row.id, "dead", reason
    job.hold = False  # or it would still be held after a requeue
    job.updated_at = storage.now()
    _index_buried(storage, row, job, name, status)
    return _Change(row, job, target, files.fingerprint(status))


def _index_buried(storage: Storage, row: Row, job: Job, name: str, status: os.stat_result) -> None:
    now = micros(storage.now())
    storage.index.put(row_of(job, DEAD, name, status, state="dead", arrived=row.arrived, now=now))


def _write_reasons(storage: Storage, moved: Sequence[_Change], refused: dict[str, QueuectlError]) -> None:
    """Write the reasons into the files of jobs that are in dead/. Where the disk refuses, the jobs wait again."""
    try:
        _write_scratch(storage, moved)
    except OSError as error:
        for change in moved:
            refused[change.row.id] = SpoolError.from_os("give up", change.path, error)
        _move_back(storage, moved)
        return
    with storage.index.moving(DEAD):
        for change in moved:
            with suppress(OSError):  # somebody has moved it on meanwhile
                if files.fingerprint(os.lstat(change.path)) == change.mark:
                    files.rename_over(change.scratch, change.path)
                    name, status = os.path.basename(change.path), os.lstat(change.path)
                    _index_buried(storage, change.row, change.job, name, status)
    _end(storage, moved, refused, "give up", DEAD)


def _move_back(storage: Storage, moved: Sequence[_Change]) -> None:
    with storage.index.moving(DEAD, PENDING):
        for change in moved:
            with suppress(OSError):
                if files.fingerprint(os.lstat(change.path)) == change.mark:
                    name = files.move_to_free_name(change.path, storage.layout.pending, change.row.name)
                    change.row.name = name
                    storage.index.put(change.row)


# -- send back -------------------------------------------------------------------------------------------------------------


def requeue_all(
    storage: Storage, rows: Sequence[Row], changes: Mapping[str, Any]
) -> tuple[dict[str, Job], dict[str, QueuectlError]]:
    """Move dead and completed jobs back to pending/ with fresh attempts; their histories stay.

    Args:
        changes: fields to change in each of them, by name.

    Returns:
        the jobs by their old ids, and those that were not moved, with the reason. MoveError: it is neither dead nor
        completed, or somebody has just moved it. InvalidJob: the file is not a valid job, or a change is wrong.
        DuplicateId: the file is a valid job now, but another job has its id. SpoolError: the disk refused.
    """
    refused: dict[str, QueuectlError] = {}
    moved: dict[str, Job] = {}
    for start in range(0, len(rows), AT_ONCE):
        ready = []
        for row in rows[start : start + AT_ONCE]:
            with _refusals(refused, "move back", row):
                ready.append(renewed(storage, row, changes))
        moved.update(_send_back(storage, ready, refused))
    return {job_id: job for job_id, job in moved.items() if job_id not in refused}, refused


def renewed(storage: Storage, row: Row, changes: Mapping[str, Any]) -> _Change:
    """Return a dead or completed job as it will be in pending/. Nothing is written.

    Raises:
        MoveError, InvalidJob, DuplicateId: it cannot be sent back.
        safe_open.NotReadable, OSError: its file cannot be read.
    """
    from queuectl.job.changes import changed

    check("requeue", row.id, row.state, "pending")
    source = os.path.join(storage.layout.root, row.place, row.name)
    data, status = read_own(source)
    job = changed(data, changes)
    job.id = job.id or row.id
    if job.id != row.id:
        locate.refuse_taken(storage, job.id)
    job.renew(storage.now())  # an expired job may run again
    job.check_expiry()
    job.updated_at = storage.now()
    return _Change(row, job, source, files.fingerprint(status))


def _send_back(
    storage: Storage, ready: Sequence[_Change], refused: dict[str, QueuectlError]
) -> dict[str, Job]:
    try:
        _write_scratch(storage, ready)
    except OSError as error:
        for change in ready:
            refused[change.row.id] = SpoolError.from_os("move back", change.path, error)
        return {}
    moved = {}
    # In one transaction, or two processes that requeue a job at once would make two jobs of it.
    with storage.index.moving(DEAD, DONE):
        for change in ready:
            with _refusals(refused, "move back", change.row):
                _move_to_pending(storage, change)
                moved[change.row.id] = change.job
    _end(storage, ready, refused, "move back", PENDING, *sorted({change.row.place for change in ready}))
    for change in ready:
        if change.name:
            with suppress(OSError):
                os.unlink(change.path + ".reason")
    return moved


def _move_to_pending(storage: Storage, change: _Change) -> None:
    row, job = change.row, change.job
    if files.fingerprint(os.lstat(change.path)) != change.mark:
        raise just_moved(row)
    if job.id != row.id:
        locate.refuse_taken(storage, job.id or "")
    # First changed in place, then moved, so that there are never two files.
    files.rename_over(change.scratch, change.path)
    with storage.index.own_change(PENDING):
        change.name = files.move_to_free_name(change.path, storage.layout.pending, f"{job.id}.json")
    _index_requeued(storage, change)


def _index_requeued(storage: Storage, change: _Change) -> None:
    row, job, index = change.row, change.job, storage.index
    now = micros(storage.now())
    status = os.stat(os.path.join(storage.layout.pending, change.name))
    new = row_of(job, PENDING, change.name, status, state="pending", arrived=now, now=now)
    if index.usable:
        new.seq = index.next_seq()
    if row.id != job.id:
        index.drop(row.id)
    if job.needs_settings:
        # It was buried before the settings were copied onto it. The intake does that, as for any dropped file.
        index.drop(new.id)
        if index.usable:
            index.mark_stale(PENDING)
        return
    index.put(new)


# -- common ----------------------------------------------------------------------------------------------------------------


class _refusals:  # noqa: N801 (used as a function, like contextlib.suppress)
    """Keep a refusal of one job among the others, in words, and go on with the next job."""

    def __init__(self, refused: dict[str, QueuectlError], what: str, row: Row) -> None:
        self._refused, self._what, self._row = refused, what, row

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> bool:
        known = in_words(self._what, self._row, error)
        if known is not None:
            self._refused[self._row.id] = known
        return known is not None


def in_words(what: str, row: Row, error: BaseException | None) -> QueuectlError | None:
    """Return an error of the disk or of the file as an error of this program; None for any other error.

    Args:
        what: what could not be done, as in "cannot move back …".
    """
    if isinstance(error, QueuectlError):
        return error
    if isinstance(error, safe_open.NotReadable):
        return InvalidJob(str(error))
    if isinstance(error, FileNotFoundError):
        return just_moved(row)
    if isinstance(error, OSError):
        return SpoolError.from_os(what, os.path.join(row.place, row.name), error)
    return None


def just_moved(row: Row) -> MoveError:
    """Return the refusal of a move that came too late."""
    return MoveError(f"job {row.id!r} has just been taken or moved", hint=f"queuectl show {row.id}")


def read_own(path: str) -> tuple[bytes, os.stat_result]:
    """Return the content of a job file that belongs to this user.

    Raises:
        safe_open.NotReadable: it is not a regular file, or another user owns it or may write it.
        OSError: it is gone, or cannot be read.
    """
    data, status = safe_open.read_regular(path, jobs.READ_LIMIT)
    # Rewritten by queuectl it would belong to this user alone, and run.
    safe_open.refuse_untrusted(path, status)
    return data, status


def _write_scratch(storage: Storage, changes: Sequence[_Change]) -> None:
    """Write the new files, and wait once until they are on the disk.

    Raises:
        OSError: the disk refused; none is left.
    """
    try:
        for change in changes:
            path = os.path.join(storage.layout.tmp, files.temporary_name())
            files.write_new(path, change.job.to_bytes(), sync=len(changes) == 1)
            change.scratch = path
        if len(changes) > 1:
            files.sync_files(storage.layout.tmp, [change.scratch for change in changes])
    except BaseException:
        _delete_scratch(changes)
        raise


def _delete_scratch(changes: Sequence[_Change]) -> None:
    for path in _scratch_left(changes):
        with suppress(OSError):
            os.unlink(path)


def _scratch_left(changes: Sequence[_Change]) -> Iterator[str]:
    return (change.scratch for change in changes if change.scratch)


def _end(
    storage: Storage, changes: Sequence[_Change], refused: dict[str, QueuectlError], what: str, *places: str
) -> None:
    """Put the new names on the disk, and delete the scratch files that were not used."""
    _delete_scratch(changes)
    try:
        for place in places if changes else ():
            files.sync_folder(os.path.join(storage.layout.root, place))
    except OSError as error:
        for change in changes:
            refused.setdefault(change.row.id, SpoolError.from_os(what, change.path, error))
