"""One file's way into the index: which job it is, or why it is none."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, cast

import orjson

from queuectl.index.row import RENEWED, accept_as_indexed, invalid_row, is_file_of
from queuectl.intake.dropped_file import explanation
from queuectl.job import ids
from queuectl.layout import DEAD, PENDING
from queuectl.storage import claims

if TYPE_CHECKING:
    from queuectl.index.index import Index
    from queuectl.index.row import Row
    from queuectl.intake.dropped_file import Found
    from queuectl.intake.reader import Reader
    from queuectl.job.record import Job
    from queuectl.layout import Layout
    from queuectl.storage.mover import Mover

UNFINISHED = object()
"""What becomes of a file that is still being written: nothing yet."""


class Admission:
    """Judges files that were read, for one spool.

    Attributes:
        left_dead: by id, the rows of files that are gone from dead/ and may turn up elsewhere.
        fault: why a file could not be read.
    """

    def __init__(self, layout: Layout, index: Index, mover: Mover, reader: Reader) -> None:
        self.layout, self.index, self.mover = layout, index, mover
        self._reader = reader
        self.left_dead: dict[str, Row] = {}
        self.fault: OSError | None = None

    def take(self, place: str, name: str, found: Found) -> object:
        """Put one file into the index; returns a reason when it has to be buried, or UNFINISHED."""
        if found.gone:
            self.fault = found.fault or self.fault
            return UNFINISHED if found.reason else None
        if found.job is None:
            if place == PENDING:
                return UNFINISHED if found.may_grow else found.reason
            self._take_invalid(place, name, found)
            return None
        job = found.job
        path = os.path.join(self.layout.root, place, name)
        reason = self._name_it(job, place, name, path)
        if reason:
            if place == PENDING:
                return reason
            self._take_twin(place, name, found, reason)
            return None
        old = self.index.get(job.id or "")
        # Moved back by hand. A job that was given up by hand does not say so itself: its very file lay in dead/.
        lay_dead = old if old is not None and old.place == DEAD else self.left_dead.get(job.id or "")
        was_given_up = (
            lay_dead is not None and found.status is not None and is_file_of(lay_dead, found.status)
        )
        if place == PENDING and (job.state in ("completed", "dead") or was_given_up):
            job.renew(found.arrived / 1e6)
        if place == PENDING and old is lay_dead is None and _is_new_with_key(job):
            reason = self.mover.keys.judge_drop(job, found.arrived)
            if reason:
                return reason
        edited = old is not None and old.place == place == PENDING and old.name == name
        if old is not None and edited:
            if not old.held:  # who changes a job keeps its place in the line; one that was held had none
                found.arrived = old.arrived
            accept_as_indexed(job, old)
        row = self._reader.row(place, name, job, found, job.id or "")
        if place == PENDING and was_given_up:
            settings = {**orjson.loads(row.settings or "{}"), RENEWED: job.runs}
            row.settings = orjson.dumps(settings).decode()
        if old is not None and edited:
            row.settings = old.settings or row.settings
        elif old is not None:
            row.seq = self.index.next_seq()
            if old.place == DEAD != place:
                self.drop_reason(old.name)
        self.index.put(row)
        return None

    def _name_it(self, job: Job, place: str, name: str, path: str) -> str | None:
        """Give the job its id; returns a reason when the id it asks for belongs to another job."""
        stem = name[: -len(".json")]
        if job.id is None:
            known = self.index.at(place, [name]).get(name)
            if known is not None:
                job.id = known.id
            elif ids.is_id(stem) and self.mover.state_of(stem, but=path) is None:
                job.id = stem
            else:
                job.id = ids.new_id(self.mover.now())
            return None
        taken = self.mover.state_of(job.id, but=path)
        if taken == "processing":
            if claims.is_continued(self.layout, job):
                return None
            # The claim of its own earlier copy may have gone between the two looks; no other job is in its way then.
            taken = self.mover.state_of(job.id, but=path)
        return f"duplicate id: {job.id!r} is the id of another job, which is {taken}" if taken else None

    def _take_invalid(self, place: str, name: str, found: Found) -> None:
        """A file in done/ or dead/ that is no job: dead ones are listed with their reason, others are left alone."""
        if place != DEAD or found.status is None:
            return
        path = os.path.join(self.layout.dead, name)
        reason = explanation(path, found.status) or found.reason
        self._put_invalid(name, found, reason)

    def _take_twin(self, place: str, name: str, found: Found, reason: str) -> None:
        if place == DEAD:
            self._put_invalid(name, found, reason)

    def _put_invalid(self, name: str, found: Found, reason: str) -> None:
        status = cast("os.stat_result", found.status)
        known = self.index.at(DEAD, [name]).get(name)
        job_id = known.id if known else self._free_id(name, os.path.join(self.layout.dead, name))
        self.index.put(invalid_row(job_id, name, status, reason))

    def _free_id(self, name: str, path: str) -> str:
        stem = name.rpartition(".")[0]
        if ids.is_id(stem) and self.mover.state_of(stem, but=path) is None:
            return stem
        return ids.new_id(self.mover.now())

    def bury(self, path: str, reason: str, status: os.stat_result | None) -> None:
        """Move a file that cannot be a job to dead/, if it still is what was judged; its reason goes beside it."""
        job_id = self._free_id(os.path.basename(path), path)
        try:
            self.mover.bury_file(path, job_id, reason, judged=status)
        except OSError:
            # It stays where it is: on a read-only disk the next best is to tell the truth about it.
            with suppress(OSError):
                row = invalid_row(job_id, os.path.basename(path), os.lstat(path), reason)
                row.place = PENDING
                with self.index.write():
                    self.index.put(row)

    def drop_reason(self, name: str) -> None:
        """Delete the reason that lay beside a file which has left dead/."""
        with suppress(OSError):
            os.unlink(os.path.join(self.layout.dead, f"{name}.reason"))


def _is_new_with_key(job: Job) -> bool:
    """Whether a file is a producer's that has a unique key, and not what queuectl wrote, or a person put back."""
    return job.unique is not None and job.created_at is job.updated_at is None
