"""Settle claimed jobs: the file with the outcome in it is renamed into done/, pending/ or dead/."""

from __future__ import annotations

import os
import stat
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

from queuectl.errors import FULL
from queuectl.index.row import Row, row_of
from queuectl.job.times import micros
from queuectl.layout import DEAD, PENDING
from queuectl.storage import quarantine
from queuectl.storage.transitions import check
from queuectl.system import files

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from queuectl.job.record import Job
    from queuectl.storage.file_pool import FilePool
    from queuectl.storage.transitions import Claim, Storage


def settle(
    storage: Storage, claim: Claim, state: str, pool: FilePool | None = None, *, at_once: bool = False
) -> bool:
    """Settle one claim, as `settle_all`; return False if its file was taken away."""
    claim.state = state
    return not settle_all(storage, [claim], pool, at_once=at_once)


def settle_all(
    storage: Storage,
    claims: Sequence[Claim],
    pool: FilePool | None = None,
    *,
    at_once: bool = False,
    then: Callable[[], None] | None = None,
    put_back: Callable[[Sequence[Row]], None] | None = None,
) -> list[Claim]:
    """Record outcomes and move the jobs out of processing/. `claim.job` and `claim.state` hold the outcome.

    Args:
        pool: the worker's recycled files. With it, the claimed file is kept until the outcome has been synced;
            without it, this call waits for the disk and deletes the file.
        at_once: wait for the disk even with a pool.
        then: called within the index's transaction after the jobs are settled, so that the next claims can share it.
        put_back: called within it with the rows of the jobs that wait again, before another worker can claim them.

    Returns:
        the claims whose file is gone: somebody took it away, and the outcome comes too late.

    Raises:
        OSError: the disk refused. Claims that are not `settled` are still claimed; settling them can be tried again.
    """
    for claim in claims:
        check("settle", claim.job.id or "", "processing", claim.state)
    if storage.before_end is not None:
        storage.before_end([(one.job, one.state) for one in claims if _ends_now(one)])
    # A claim that already passed its commit point is left out, or a second attempt would make a second file.
    gone = _commit(storage, [claim for claim in claims if not claim.settled], pool, then, put_back)
    for claim in claims:
        if claim.replaced_by:
            _set_aside(storage, claim)
        elif claim.settled:
            with suppress(FileNotFoundError):
                if not (pool and not at_once and pool.keep(claim.path, claim.job.id or "", ours=claim.ours)):
                    _delete_claimed(storage, claim, all_synced=pool is not None)
    return gone


def _ends_now(claim: Claim) -> bool:
    return claim.state in ("completed", "dead") and not claim.settled


def _delete_claimed(storage: Storage, claim: Claim, *, all_synced: bool) -> None:
    """Delete a claimed file, after a sync: until then it is the only copy that a power cut cannot take."""
    folder = storage.layout.folder(claim.state)
    if all_synced:
        files.sync_filesystem(folder)
    else:
        files.sync_folder(folder)
    os.unlink(claim.path)


def _set_aside(storage: Storage, claim: Claim) -> None:
    """Put what a run left under the name of its job's file into quarantine: a folder, a link or the like."""
    why = f"was put under the name of the file of job {claim.job.id} while that job ran"
    quarantine.put(storage.layout, claim.path, why, inode=claim.replaced_by, now=storage.now())
    claim.replaced_by = 0


def _commit(
    storage: Storage,
    claims: Sequence[Claim],
    pool: FilePool | None,
    then: Callable[[], None] | None,
    put_back: Callable[[Sequence[Row]], None] | None,
) -> list[Claim]:
    written: deque[tuple[Claim, str, os.stat_result]] = deque()
    gone: list[Claim] = []
    rows: list[Row] = []
    refused: OSError | None = None
    places = tuple({os.path.basename(storage.layout.folder(claim.state)): None for claim in claims})
    try:
        written.extend((claim, *_write_outcome(storage, claim, pool)) for claim in claims)
        with storage.index.moving(*places) as moving:
            while written and refused is None:
                try:
                    row = _move_out(storage, *written[0])
                    if row is None:
                        gone.append(written[0][0])
                    else:
                        rows.append(row)
                    written.popleft()
                except OSError as error:
                    refused = error  # the index must still learn of the files that were moved before
            if PENDING not in places:
                moving.end()
            storage.index.mark_ended(rows)
            if put_back and PENDING in places:
                put_back([row for row in rows if row.place == PENDING])
            # The claimed file of a job that is retried at once is still there, and a claim of the job would meet it: the
            # index would forget the job, and all of pending/ would be read again.
            if then and not refused and PENDING not in places:
                then()
        if refused:
            raise refused
    finally:
        for _, scratch, _ in written:
            with suppress(OSError):
                os.unlink(scratch)
    return gone


def _write_outcome(storage: Storage, claim: Claim, pool: FilePool | None) -> tuple[str, os.stat_result]:
    """Write an outcome into a scratch file; return its path and status."""
    job = claim.job
    job.state = claim.state
    job.updated_at = storage.now()
    try:
        return _write(storage, job, pool)
    except OSError as error:
        if error.errno not in FULL or not job.output:
            raise
        # An outcome without its output is better than none: without an outcome the command would run again.
        job.output = f"[left out, as the disk is full; the whole: queuectl logs {job.id}]"
        return _write(storage, job, pool)


def _write(storage: Storage, job: Job, pool: FilePool | None) -> tuple[str, os.stat_result]:
    if pool:
        return pool.write(job.to_bytes())
    scratch = os.path.join(storage.layout.tmp, files.temporary_name())
    files.write_new(scratch, job.to_bytes(), sync=True)
    return scratch, os.stat(scratch)


def _move_out(storage: Storage, claim: Claim, scratch: str, status: os.stat_result) -> Row | None:
    """Commit an outcome: give its file its name. Return the row, or None if the claimed file was taken away."""
    try:
        left = os.lstat(claim.path)
    except FileNotFoundError:
        os.unlink(scratch)
        return None
    # The job may have replaced its own file, or somebody may have linked it: then it is not overwritten later.
    claim.ours = claim.ours and left.st_ino == claim.inode and left.st_nlink == 1
    job, folder = claim.job, storage.layout.folder(claim.state)
    place = os.path.basename(folder)
    name = files.move_to_free_name(scratch, folder, f"{job.id}.json")
    claim.settled = True
    if not stat.S_ISREG(left.st_mode):
        claim.replaced_by = left.st_ino
    if place == DEAD:
        with suppress(OSError):  # of a file of that name that was deleted by hand
            os.unlink(os.path.join(folder, f"{name}.reason"))
    now = micros(job.updated_at or 0)
    row = row_of(job, place, name, status, state=claim.state, arrived=claim.row.arrived, now=now)
    row.ours = 1
    row.seq = claim.row.seq
    return row
