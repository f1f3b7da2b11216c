"""The only mover: every way of a job file from one folder to another, with its commit point.

    enqueue   -                      -> pending/      the link of a synced file
    claim     pending/               -> processing/w/ the rename
    settle    processing/w/          -> done/, pending/, dead/   the rename of the file that holds the outcome
    release   processing/w/          -> pending/      the rename, nothing changed
    requeue   dead/                  -> pending/      the rename, by a person
    bury      pending/               -> dead/         the rename
    forget    any but processing/    -> -             the unlink

Dying just before a commit point leaves the job where it was; dying just after leaves at most a copy behind that the
later state makes void (see recover).
"""

from __future__ import annotations

import os
from collections import deque
from contextlib import suppress

from queuectl._dataclasses import dataclass, field
from queuectl.errors import FULL, InvalidJob, SpoolError
from queuectl.index.row import Row, accept_as_indexed, row_of
from queuectl.job import record as jobs
from queuectl.job.times import micros
from queuectl.layout import DEAD, PENDING, PROCESSING
from queuectl.storage.enqueue import EntryMoves
from queuectl.storage.transitions import check
from queuectl.system import files, safe_open

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from queuectl.job.outcome import Outcome
    from queuectl.job.record import Job
    from queuectl.storage.file_pool import Spares


@dataclass(slots=True)
class Claim:
    """A job in a worker's hands: the folder says so, and `job` is what was read after the rename.

    `ours`: queuectl wrote the file, and nobody else has a name for it.
    `run`: the mark of its run; `outcome`, `ended_at`: how that went, and when it was over.
    `state`: the one to settle it in, once the outcome is in the record.
    `is_told`: it has been said that it was started; `lines`: what is to be said when it is settled.
    `digest`: SHA-256 of the bytes that were read, in hex, of a file that somebody else wrote or changed.
    """

    job: Job
    path: str
    row: Row
    ours: bool = False
    settled: bool = False
    digest: str | None = None
    run: str = ""
    outcome: Outcome | None = None
    ended_at: float = 0.0
    state: str = ""
    is_told: bool = False
    lines: list[str] = field(default_factory=list)


class Mover(EntryMoves):
    """Moves the job files of one spool, and tells the index."""

    def claim(self, row: Row, worker: str) -> Claim | None:
        """Take a waiting job and read it; None when it is not to be had, or no longer what the row says."""
        with self.index.moving():
            taken = self.take([row], worker)
        return self.read(*taken[0]) if taken else None

    def take(self, rows: Sequence[Row], worker: str) -> list[tuple[Row, str]]:
        """Take waiting jobs, except for those that another worker won or whose file is gone; returns where they are now.

        Call it inside `index.moving()`, and `read` after: others wait for the index meanwhile. One with a key comes alone.
        """
        folder = self.layout.claims(worker)
        taken, missing = [], []
        with self.index.own_change(PENDING):
            for row in rows:
                target = f"{folder}{os.sep}{row.id}.json"
                if row.unique_key is not None and self.keys.is_barred(row):
                    continue
                try:
                    os.rename(f"{self.layout.pending}{os.sep}{row.name}", target)
                except FileNotFoundError:
                    missing.append(row)
                    continue
                if row.unique_key is not None and self.keys.runs_beside(row.unique_key, target):
                    files.move_to_free_name(target, self.layout.pending, row.name)
                    continue
                taken.append((row, target))
        self.index.mark_claimed([row for row, _ in taken], f"{PROCESSING}/{worker}", worker)
        for row in missing:
            if os.path.lexists(f"{self.layout.pending}{os.sep}{row.name}"):
                os.makedirs(folder, mode=0o700, exist_ok=True)
            else:
                self.index.drop_if_at(row.id, PENDING, row.name)
        return taken

    def read(self, row: Row, path: str) -> Claim | None:
        """Read what was taken; None, and back it goes, when it is no longer what the row says.

        What runs is what is read here, whatever a writer still does to the file.
        """
        try:
            data, status = safe_open.read_regular(path, jobs.READ_LIMIT)
            if safe_open.has_other_owner(status):
                raise safe_open.NotReadable("belongs to another user")
            ours = bool(row.ours) and (status.st_ino, status.st_nlink) == (row.inode, 1)
            untouched = ours and (status.st_mtime_ns, status.st_size) == (row.mtime, row.size)
            job = jobs.parse_own(data) if untouched else jobs.parse(data)
            digest = None if untouched else _digest(data)
        except (safe_open.NotReadable, InvalidJob, OSError):
            job, ours, digest = None, False, None
        if job is not None:
            job.id = job.id or row.id
            if job.state in ("completed", "dead"):
                job.renew(row.arrived / 1e6)
            accept_as_indexed(job, row)
            if job.id == row.id and not job.hold and (job.due_at or 0) <= self.now():
                if job.unique != row.unique_key:
                    self.release(Claim(job, path, row))
                    return None
                if (job.priority, job.max_retries) != (row.priority, row.max_retries):
                    self._tell_edited(job, row, path)
                return Claim(job, path, row, ours, digest=digest)
        # Edited since the index saw it: back it goes, and the intake will look at it anew.
        self._put_back(path, row)
        return None

    def _tell_edited(self, job: Job, row: Row, path: str) -> None:
        """Have the index show a claimed job as it is, not as it was before a person edited it in place."""
        folder, name = os.path.split(path)
        job.worker = os.path.basename(folder)
        place, now = f"{PROCESSING}/{job.worker}", micros(self.now())
        new = row_of(job, place, name, os.stat(path), state="processing", arrived=row.arrived, now=now)
        new.seq, new.settings = row.seq, row.settings
        with self.index.moving():
            self.index.put(new)

    def _put_back(self, path: str, row: Row) -> None:
        with suppress(FileNotFoundError):
            files.move_to_free_name(path, self.layout.pending, row.name)
        self.index.drop(row.id)
        if self.index.usable:
            self.index.mark_stale(PENDING)

    def settle(
        self, claim: Claim, state: str, spares: Spares | None = None, *, at_once: bool = False
    ) -> bool:
        """Record how one went, as `settle_all`; False: it was taken away."""
        claim.state = state
        return not self.settle_all([claim], spares, at_once=at_once)

    def settle_all(
        self,
        claims: Sequence[Claim],
        spares: Spares | None = None,
        *,
        at_once: bool = False,
        then: Callable[[], None] | None = None,
    ) -> list[Claim]:
        """Record how each went and move the jobs out of processing/; `claim.job` and `claim.state` hold the outcome.

        Args:
            spares: the caller's recycled files. With them the claimed file is held until the outcome has been synced;
                without, this waits for the disk and deletes it.
            at_once: wait for the disk in any case.
            then: called in the index's transaction when the jobs are over, so that the next claims can share it.

        Returns:
            those whose claimed file is gone: they were taken away, and this comes too late.

        Raises:
            OSError: the disk refused; those that are not `settled` are still claimed, and settling may be tried again.
        """
        for claim in claims:
            check("settle", claim.job.id or "", "processing", claim.state)
        # Tried again after its commit point, it must not make a second file.
        gone = self._commit([claim for claim in claims if not claim.settled], spares, then)
        for claim in claims:
            if claim.settled:
                with suppress(FileNotFoundError):
                    if not (
                        spares
                        and not at_once
                        and spares.hold(claim.path, claim.job.id or "", ours=claim.ours)
                    ):
                        self._let_go(claim, all_synced=spares is not None)
        return gone

    def _let_go(self, claim: Claim, *, all_synced: bool) -> None:
        """Delete a claimed file: it may go only when the new one cannot be lost any more."""
        folder = self.layout.folder(claim.state)
        if all_synced:
            files.sync_filesystem(folder)
        else:
            files.sync_folder(folder)
        os.unlink(claim.path)

    def _commit(
        self, claims: Sequence[Claim], spares: Spares | None, then: Callable[[], None] | None
    ) -> list[Claim]:
        written: deque[tuple[Claim, str, Any]] = deque()
        gone: list[Claim] = []
        rows: list[Row] = []
        refused: OSError | None = None
        places = tuple({os.path.basename(self.layout.folder(claim.state)): None for claim in claims})
        try:
            written.extend((claim, *self._written(claim, spares)) for claim in claims)
            with self.index.moving(*places):
                while written and refused is None:
                    try:
                        row = self._move_out(*written[0])
                        if row is None:
                            gone.append(written[0][0])
                        else:
                            rows.append(row)
                        written.popleft()
                    except OSError as error:
                        refused = error  # what was moved before is to be told to the index
                self.index.mark_ended(rows)
                # One that is tried again at once would be claimed onto its own claimed file, and set aside with it.
                if then and not refused and PENDING not in places:
                    then()
            if refused:
                raise refused
        finally:
            for _, scratch, _ in written:
                with suppress(OSError):
                    os.unlink(scratch)
        return gone

    def _written(self, claim: Claim, spares: Spares | None) -> tuple[str, os.stat_result]:
        """Write an outcome into a file that nobody sees yet."""
        job = claim.job
        job.state = claim.state
        job.updated_at = self.now()
        try:
            return self._write(job, spares)
        except OSError as error:
            if error.errno not in FULL or not job.output:
                raise
            # An outcome without its output is better than none: the command would run again.
            job.output = f"[left out, as the disk is full; the whole: queuectl logs {job.id}]"
            return self._write(job, spares)

    def _move_out(self, claim: Claim, scratch: str, status: os.stat_result) -> Row | None:
        """The commit point of an outcome; returns its row, or None when the job was taken away."""
        if not os.path.lexists(claim.path):
            os.unlink(scratch)
            return None
        job, folder = claim.job, self.layout.folder(claim.state)
        place = os.path.basename(folder)
        name = files.move_to_free_name(scratch, folder, f"{job.id}.json")
        claim.settled = True
        if place == DEAD:
            with suppress(OSError):  # of a file of that name that was deleted by hand
                os.unlink(os.path.join(folder, f"{name}.reason"))
        now = micros(job.updated_at or 0)
        row = row_of(job, place, name, status, state=claim.state, arrived=claim.row.arrived, now=now)
        row.ours = 1
        row.seq = claim.row.seq
        return row

    def _write(self, job: Job, spares: Spares | None) -> tuple[str, os.stat_result]:
        if spares:
            return spares.write(job.to_bytes())
        scratch = os.path.join(self.layout.tmp, files.temporary_name())
        files.write_new(scratch, job.to_bytes(), sync=True)
        return scratch, os.stat(scratch)

    def make_durable(self, claim: Claim) -> None:
        """Put the claim itself on the disk: after a power cut the job is known to have been started.

        Raises:
            SpoolError: the disk refused; the command must not be started.
        """
        try:
            files.sync_folder(os.path.dirname(claim.path))
            files.sync_folder(self.layout.processing)
            files.sync_folder(self.layout.pending)
        except OSError as error:
            raise SpoolError.from_os("sync", claim.path, error) from None

    def note_running(self, claim: Claim) -> None:
        """Write into a claimed file that it runs, since when and where, for whoever opens it."""
        claim.job.state = "processing"
        claim.job.updated_at = self.now()
        if os.path.lexists(claim.path):
            files.replace(claim.path, claim.job.to_bytes())
            claim.ours = True

    def release(self, claim: Claim) -> Row:
        """Put a claimed job back as it was, uncharged; returns its new row."""
        with self.index.moving(PENDING):
            name = files.move_to_free_name(claim.path, self.layout.pending, claim.row.name)
            status = os.stat(os.path.join(self.layout.pending, name))
            state = claim.job.waiting_state
            now = micros(self.now())
            row = row_of(claim.job, PENDING, name, status, state=state, arrived=claim.row.arrived, now=now)
            row.settings = claim.row.settings
            self.index.put(row)
        return row


def _digest(data: bytes) -> str:
    import hashlib

    return hashlib.sha256(data).hexdigest()
