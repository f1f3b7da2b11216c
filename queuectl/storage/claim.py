"""Claim waiting jobs: one rename each, into the worker's folder; then read the file, for that is what runs."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from queuectl.errors import InvalidJob, SpoolError
from queuectl.index.row import Row, accept_as_indexed, conditions_of, lane_of, row_of
from queuectl.job import record as jobs
from queuectl.job.conditions import Verdict
from queuectl.job.times import micros
from queuectl.layout import PENDING, PROCESSING
from queuectl.storage import dependencies, unique_keys
from queuectl.storage.transitions import Claim, Storage
from queuectl.system import files, safe_open

if TYPE_CHECKING:
    from collections.abc import Sequence

    from queuectl.job.record import Job


def claim_files(storage: Storage, rows: Sequence[Row], worker: str) -> list[tuple[Row, str]]:
    """Move the files of waiting jobs into a worker's folder; skip those that are gone or that another worker has won.

    Call it within `index.moving()`, and `read_claim` after that: other workers wait for the index meanwhile.

    Args:
        rows: a job with a unique key must come alone.

    Returns:
        each claimed row, and the path where its file is now.
    """
    folder = storage.layout.claims(worker)
    taken, missing, in_hand = [], [], []
    with storage.index.own_change(PENDING):
        for row in rows:
            target = f"{folder}{os.sep}{row.id}.json"
            if row.unique_key is not None and unique_keys.is_blocked(storage, row):
                continue
            try:
                files.move_into_own(f"{storage.layout.pending}{os.sep}{row.name}", target)
            except FileNotFoundError:
                missing.append(row)
                continue
            except FileExistsError:
                in_hand.append(row)
                continue
            if row.unique_key is not None and unique_keys.another_is_claimed(storage, row.unique_key, target):
                files.move_to_free_name(target, storage.layout.pending, row.name)
                continue
            taken.append((row, target))
    storage.index.mark_claimed([row for row, _ in taken], f"{PROCESSING}/{worker}", worker)
    for row in in_hand:  # of a wrong index: the scan finds that the id is taken
        storage.index.drop_if_at(row.id, PENDING, row.name)
        storage.index.mark_stale(PENDING)
    for row in missing:
        if os.path.lexists(f"{storage.layout.pending}{os.sep}{row.name}"):
            os.makedirs(folder, mode=0o700, exist_ok=True)
        else:
            storage.index.drop_if_at(row.id, PENDING, row.name)
    return taken


def read_claim(storage: Storage, row: Row, path: str) -> Claim | None:
    """Read a claimed file. The bytes read here are what runs, even if another process changes the file later.

    Returns:
        None if the file no longer says what the row says; then it has been put back.
    """
    try:
        data, status = safe_open.read_regular(path, jobs.READ_LIMIT)
        safe_open.refuse_untrusted(f"{storage.layout.pending}{os.sep}{row.name}", status)
        ours = bool(row.ours) and (status.st_ino, status.st_nlink) == (row.inode, 1)
        untouched = ours and (status.st_mtime_ns, status.st_size) == (row.mtime, row.size)
        job = jobs.parse_own(data) if untouched else jobs.parse(data)
        digest, inode = None if untouched else _digest(data), status.st_ino
    except (safe_open.NotReadable, InvalidJob, OSError):
        job, ours, digest, inode = None, False, None, 0
    if job is not None:
        job.id = job.id or row.id
        if job.state in ("completed", "dead"):
            job.renew(row.arrived / 1e6)
        accept_as_indexed(job, row)
        if job.id == row.id and not job.hold and job.is_due(storage.now()):
            if (job.unique, lane_of(job), conditions_of(job)) != (row.unique_key, row.lane, row.conditions):
                release(storage, Claim(job, path, row))
                return None
            verdict, decides = Verdict.MET, None
            if row.conditions is not None:
                verdict, decides = dependencies.judge(storage, job)
            if verdict == Verdict.WAIT:
                release(storage, Claim(job, path, row))
                return None
            if (job.priority, job.max_retries) != (row.priority, row.max_retries):
                _index_as_read(storage, job, row, path)
            return Claim(job, path, row, ours, inode, digest=digest, decides=decides)
    # Edited since the index saw it: put it back, so that the intake reads it again.
    _put_back(storage, path, row)
    return None


def _digest(data: bytes) -> str:
    import hashlib

    return hashlib.sha256(data).hexdigest()


def _index_as_read(storage: Storage, job: Job, row: Row, path: str) -> None:
    """Update the row of a claimed job that a person edited in place, so that lists show what runs."""
    folder, name = os.path.split(path)
    job.worker = os.path.basename(folder)
    place, now = f"{PROCESSING}/{job.worker}", micros(storage.now())
    new = row_of(job, place, name, os.stat(path), state="processing", arrived=row.arrived, now=now)
    new.seq, new.settings = row.seq, row.settings
    with storage.index.moving():
        storage.index.put(new)


def _put_back(storage: Storage, path: str, row: Row) -> None:
    with suppress(FileNotFoundError):
        files.move_to_free_name(path, storage.layout.pending, row.name)
    storage.index.drop(row.id)
    if storage.index.usable:
        storage.index.mark_stale(PENDING)


def release(storage: Storage, claim: Claim) -> Row:
    """Put a claimed job back into pending/ unchanged, without counting an attempt; return its new row."""
    with storage.index.moving(PENDING):
        name = files.move_to_free_name(claim.path, storage.layout.pending, claim.row.name)
        status = os.stat(os.path.join(storage.layout.pending, name))
        state = claim.job.waiting_state
        now = micros(storage.now())
        row = row_of(claim.job, PENDING, name, status, state=state, arrived=claim.row.arrived, now=now)
        row.settings = claim.row.settings
        storage.index.put(row)
    return row


def sync_claim(storage: Storage, claim: Claim) -> None:
    """Put the claim itself on the disk, so that after a power cut the job is known to have been started.

    Raises:
        SpoolError: the disk refused; the command must not be started.
    """
    try:
        files.sync_folder(os.path.dirname(claim.path))
        files.sync_folder(storage.layout.processing)
        files.sync_folder(storage.layout.pending)
    except OSError as error:
        raise SpoolError.from_os("sync", claim.path, error) from None


def note_running(storage: Storage, claims: Sequence[Claim]) -> None:
    """Write the state, the worker and the start into claimed files of a worker, for people who open them meanwhile."""
    contents = {}
    for claim in claims:
        claim.job.state = "processing"
        claim.job.begin_run(claim.job.started_at, claim.job.worker or "")
        claim.job.updated_at = storage.now()
        contents[os.path.basename(claim.path)] = claim.job.to_bytes()
    if not contents:
        return
    folder = os.path.dirname(claims[0].path)
    replaced = files.replace_existing(folder, contents)
    for claim in claims:
        if os.path.basename(claim.path) in replaced:
            claim.ours, claim.inode = True, os.lstat(claim.path).st_ino
