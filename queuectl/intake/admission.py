"""Decides what a file is that was read: which job, or why it is not a valid job."""

from __future__ import annotations

import os
from contextlib import suppress

from queuectl.errors import ConfigError, InvalidJob, NeverStarts
from queuectl.fast_start import fast_json
from queuectl.index.row import RENEWED, accept_as_indexed, invalid_row, is_file_of
from queuectl.intake.dropped_file import reason_beside
from queuectl.job.fields import id_of_file, is_id, new_id
from queuectl.layout import DEAD, PENDING
from queuectl.storage import dead_letters, locate, unique_keys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from queuectl.index.index import Index
    from queuectl.index.row import Row
    from queuectl.intake.dropped_file import DroppedFile
    from queuectl.intake.loader import Loader
    from queuectl.job.record import Job
    from queuectl.layout import Layout
    from queuectl.storage.transitions import Storage

INCOMPLETE = object()
"""The verdict on a file that is still being written."""


class Admission:
    """Admits the files of one spool to the index.

    Attributes:
        left_dead: by id, the rows of files that have left dead/. They may appear in another folder.
        fault: the error that kept a file from being read, or None.
        unchecked: during a rebuild, the ids of jobs of dropped files that wait for others, in the order of arrival. Whether
            they wait for themselves is asked when the index is complete, see `rings`. None at all other times.
        first_new: the number from which on rows were made of files that are taken in just now.
        displaced: names of files of such rows, each of which must give its id to a file that came before it.
    """

    def __init__(self, layout: Layout, index: Index, storage: Storage, loader: Loader) -> None:
        self.layout, self.index, self.storage = layout, index, storage
        self._loader = loader
        self.left_dead: dict[str, Row] = {}
        self.unchecked: list[str] | None = None
        self.first_new = 0
        self.displaced: list[str] = []
        self.fault: OSError | None = None

    def admit(self, place: str, name: str, found: DroppedFile) -> object:
        """Put one file into the index.

        Returns:
            a reason if the file must go to dead/, INCOMPLETE if it cannot be judged yet, else None.
        """
        if found.gone:
            self.fault = found.fault or self.fault
            return INCOMPLETE if found.reason else None
        if found.job is None:
            if place == PENDING:
                return INCOMPLETE if found.incomplete else found.reason
            if place == DEAD and found.status is not None:  # in done/ a file that is not valid is left alone
                reason = reason_beside(os.path.join(self.layout.dead, name), found.status)
                self._put_invalid(name, found, reason or found.reason)
            return None
        job = found.job
        reason = self._assign_id(job, place, name, found.arrived)
        if reason:
            if place == PENDING:
                return reason
            if place == DEAD:
                self._put_invalid(name, found, reason)
            return None
        return self._admit_job(place, name, job, found)

    def _admit_job(self, place: str, name: str, job: Job, found: DroppedFile) -> object:
        """Put a valid job with its id into the index; returns what `admit` does."""
        old = self.index.get(job.id or "")
        # A job put back by hand starts anew. The file of a job that was given up by hand does not say that it was dead;
        # it is recognized as the file that was in dead/.
        dead_row = old if old is not None and old.place == DEAD else self.left_dead.get(job.id or "")
        was_given_up = (
            dead_row is not None and found.status is not None and is_file_of(dead_row, found.status)
        )
        if place == PENDING and (job.state in ("completed", "dead") or was_given_up):
            job.renew(found.arrived / 1e6)
        if place == PENDING and (reason := self._never_starts(job)):
            return reason
        if place == PENDING and old is dead_row is None and _is_new_with_key(job):
            reason, found.arrived = unique_keys.judge_drop(self.storage, job, found.arrived)
            if reason:
                return reason
        edited = old is not None and old.place == place == PENDING and old.name == name
        if old is not None and edited:
            if not old.held:  # an edited job keeps its place in the order; a held one had none
                found.arrived = old.arrived
            accept_as_indexed(job, old)
        try:
            row = self._loader.make_row(place, name, job, found, job.id or "")
        except ConfigError:
            return INCOMPLETE  # it is looked at again: the file of its queue may be valid then
        if place == PENDING and was_given_up:
            settings = {**fast_json.loads(row.settings or "{}"), RENEWED: job.runs}
            row.settings = fast_json.dumps(settings).decode()
        if old is not None and edited:
            row.settings = old.settings or row.settings
        elif old is not None:
            row.seq = self.index.next_seq()
            if old.place == DEAD != place:
                self.delete_reason(old.name)
        self.index.put(row)
        return None

    def _never_starts(self, job: Job) -> str | None:
        """Return a reason if a job waits for itself, alone or through others; it is the last of those that came."""
        if not job.has_conditions:
            return None
        from queuectl.job import conditions
        from queuectl.storage import dependencies

        try:
            conditions.check(job)
            if self.unchecked is not None:
                self.unchecked.append(job.id or "")
            else:
                dependencies.refuse_ring(self.storage, job)
        except (InvalidJob, NeverStarts) as error:
            return error.message
        return None

    def _assign_id(self, job: Job, place: str, name: str, arrived: int) -> str | None:
        """Give the job its id; returns a reason if its id belongs to another job."""
        path = os.path.join(self.layout.root, place, name)
        if not job.id:
            known = self.index.at(place, [name]).get(name)
            job.id = known.id if known else self._free_id(name, path)
            return None
        taken = locate.state_of(self.storage, job.id, but=path)
        if taken == "processing":
            if locate.is_continued(self.layout, job):
                return None
            # If the claim was that of its own earlier copy, it may have been settled meanwhile, and the id is free.
            taken = locate.state_of(self.storage, job.id, but=path)
        if taken == "pending" == place and self._displaces(job.id, name, arrived):
            return None
        return f"duplicate id: {job.id!r} is the id of another job, which is {taken}" if taken else None

    def _displaces(self, job_id: str, name: str, arrived: int) -> bool:
        """Whether a file comes before the one that has its id, where both are taken in just now; then that one must go.

        Most files become rows at once, and those that need a closer look after them. Without this a job that waits for
        others would lose its id to a copy that was dropped later, when the index is made anew.
        """
        row = self.index.get(job_id)
        if row is None or row.place != PENDING or row.ours or row.name == f"{job_id}.json":
            return False
        if (row.seq or 0) < self.first_new or (row.arrived, len(row.name), row.name) < (
            arrived,
            len(name),
            name,
        ):
            return False
        self.index.drop(job_id)
        self.displaced.append(row.name)
        return True

    def _put_invalid(self, name: str, found: DroppedFile, reason: str) -> None:
        status = found.known_status
        known = self.index.at(DEAD, [name]).get(name)
        job_id = known.id if known else self._free_id(name, os.path.join(self.layout.dead, name))
        self.index.put(invalid_row(job_id, name, status, reason))

    def _free_id(self, name: str, path: str) -> str:
        """Return the id after which the file is named, if that is valid and free; else a new one.

        Whoever may only look has an index in memory: a random id would be another one for the next command.
        """
        stem = name.rpartition(".")[0]
        if is_id(stem) and locate.state_of(self.storage, stem, but=path) is None:
            return stem
        with suppress(OSError):
            lasting = id_of_file(name, os.lstat(path))
            if locate.state_of(self.storage, lasting, but=path) is None:
                return lasting
        return new_id(self.storage.now())

    def move_to_dead(self, path: str, reason: str, status: os.stat_result | None) -> None:
        """Move a file that is not a valid job to dead/, with the reason beside it, unless it has changed since."""
        job_id = self._free_id(os.path.basename(path), path)
        if not self.storage.read_only:
            with suppress(OSError):
                dead_letters.bury_file(self.storage, path, job_id, reason, judged=status)
                return
        # It stays in pending/, for example on a read-only disk. The index lists it as dead, with the reason.
        with suppress(OSError):
            row = invalid_row(job_id, os.path.basename(path), os.lstat(path), reason)
            row.place = PENDING
            with self.index.write():
                self.index.put(row)

    def delete_reason(self, name: str) -> None:
        """Delete the .reason file of a file that has left dead/."""
        if self.storage.read_only:
            return
        with suppress(OSError):
            os.unlink(os.path.join(self.layout.dead, f"{name}.reason"))


def _is_new_with_key(job: Job) -> bool:
    """Return whether a job has a unique key and was written by a producer: queuectl sets both times."""
    return job.unique is not None and job.created_at is job.updated_at is None
