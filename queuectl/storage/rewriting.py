"""Write the files of many jobs anew and put them into place: one wait for their bytes, one for their names.

The new files are written and synced first, outside of any transaction. Then each takes its place, in transactions of
the index, so that no worker claims a job in the middle of its change. One job that refuses does not stop the others.
"""

from __future__ import annotations

import os
from contextlib import suppress
from functools import partial

from queuectl.errors import InvalidJob, MoveError, QueuectlError, SpoolError
from queuectl.fast_start.dataclass import dataclass
from queuectl.index.row import is_file_of
from queuectl.job import record as jobs
from queuectl.layout import PENDING
from queuectl.system import files, safe_open

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import TypeVar

    from queuectl.index.freshness import OwnChanges
    from queuectl.index.row import Row
    from queuectl.job.record import Job
    from queuectl.storage.transitions import Storage

    T = TypeVar("T")

AT_ONCE = 2000
"""Jobs changed in one transaction. Workers wait for it, about 0.1 ms for each job."""

SYNCED_AT_ONCE = 20_000
"""Jobs that share the two waits for the disk. Until then there are two files of each of them."""


@dataclass(slots=True)
class Change:
    """A job on its way.

    Attributes:
        row: its row before.
        job: the job as it will be.
        path: where its file is.
        mark: the fingerprint of that file when it was read.
        data: the bytes of the new file.
        scratch, status: the new file and its status, once it is written.
    """

    row: Row
    job: Job
    path: str
    mark: files.Fingerprint
    data: bytes
    scratch: str = ""
    status: os.stat_result | None = None

    def was_changed(self, path: str) -> bool:
        """Return whether the file at this path is another one than the one that was read, or has changed since.

        Raises:
            FileNotFoundError: it is gone.
        """
        return files.fingerprint(os.lstat(path)) != self.mark


def checked(row: Row, job: Job, path: str, status: os.stat_result) -> Change:
    """Return the change of a job that a person changes.

    Raises:
        InvalidJob: it has become too large.
    """
    change = Change(row, job, path, files.fingerprint(status), job.to_bytes())
    jobs.check_size(job, len(change.data))
    return change


class Rewriting:
    """One change of many jobs.

    Args:
        what: what could not be done, as in "cannot move back …".
        too_late: makes the refusal of a job whose file is gone.

    Attributes:
        refused: the jobs that were not changed, by id, and why.
    """

    def __init__(
        self, storage: Storage, what: str, too_late: Callable[[str], MoveError] | None = None
    ) -> None:
        self.storage = storage
        self.refused: dict[str, QueuectlError] = {}
        self._what, self._too_late = what, too_late or just_moved

    def run(
        self,
        rows: Sequence[Row],
        prepare: Callable[[Row], Change | None],
        put: Callable[[Change, OwnChanges], Row | None],
        *,
        moving: Sequence[str] = (),
        synced: Sequence[str],
        at_the_end: bool = False,
    ) -> None:
        """Change these jobs, in this order.

        Args:
            prepare: reads a job and returns it as it will be; None if nothing is to be changed. It writes nothing.
            put: puts the new file into place, within a transaction, and returns the new row. Its second argument wraps
                what it renames in or out of pending/. What it raises must leave the job as it was.
            moving: the folders besides pending/ in which `put` renames files.
            synced: the folders whose names are synced at the end.
            at_the_end: the jobs go to the end of the order of arrival.
        """
        for part in _parts(rows, SYNCED_AT_ONCE):
            ready: list[Change] = []
            for row in part:
                with self.refusals(row):
                    change = prepare(row)
                    ready += [change] if change else []
            if ready:
                self._carry_out(
                    ready, partial(self._put, put=put, moving=moving, at_the_end=at_the_end), synced
                )

    def _carry_out(
        self,
        ready: Sequence[Change],
        put: Callable[[Sequence[Change]], None],
        synced: Sequence[str],
    ) -> None:
        try:
            self._write(ready)
            for part in _parts(ready, AT_ONCE):
                put(part)
            self._sync_names(synced, many=len(ready) > 1)
        except OSError as error:
            for change in ready:
                self.refused.setdefault(change.row.id, SpoolError.from_os(self._what, change.path, error))
        finally:
            for change in ready:
                with suppress(OSError):
                    os.unlink(change.scratch)

    def _write(self, ready: Sequence[Change]) -> None:
        """Write the new files, and wait until they are on the disk."""
        tmp = self.storage.layout.tmp
        for change in ready:
            path = f"{tmp}{os.sep}{files.temporary_name()}"
            change.status = files.write_new(path, change.data, sync=len(ready) == 1)
            change.scratch = path
        if len(ready) > 1:
            files.sync_files(tmp, [change.scratch for change in ready])

    def _put(
        self,
        ready: Sequence[Change],
        *,
        put: Callable[[Change, OwnChanges], Row | None],
        moving: Sequence[str],
        at_the_end: bool,
    ) -> None:
        index = self.storage.index
        rows: list[Row] = []
        ours = index.own_changes(PENDING)
        with index.moving(*moving):
            for change in ready:
                with self.refusals(change.row):
                    row = put(change, ours)
                    rows += [row] if row else []
            ours.note()
            index.put_all(rows, at_the_end=at_the_end)

    def _sync_names(self, places: Sequence[str], *, many: bool) -> None:
        folders = [os.path.join(self.storage.layout.root, place) for place in places]
        if many and len(folders) > 1 and files.HAS_SYNCFS:
            files.sync_filesystem(folders[0])
            return
        for folder in folders:
            files.sync_folder(folder)

    def refusals(self, row: Row) -> _Refusals:
        """Keep a refusal of this job among the others, in words."""
        return _Refusals(self.refused, self._what, row, self._too_late)


def _parts(rows: Sequence[T], most: int) -> Iterator[Sequence[T]]:
    return (rows[start : start + most] for start in range(0, len(rows), most))


class _Refusals:
    """See Rewriting.refusals. A class, because a generator costs more than what it wraps."""

    __slots__ = ("_refused", "_row", "_too_late", "_what")

    def __init__(
        self, refused: dict[str, QueuectlError], what: str, row: Row, too_late: Callable[[str], MoveError]
    ) -> None:
        self._refused, self._what, self._row, self._too_late = refused, what, row, too_late

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> bool:
        known = in_words(self._what, self._row, error, self._too_late) if error else None
        if known is not None:
            self._refused[self._row.id] = known
        return known is not None


def in_words(
    what: str, row: Row, error: BaseException, too_late: Callable[[str], MoveError] | None = None
) -> QueuectlError | None:
    """Return an error of the disk or of the file as an error of this program; None for any other error.

    Args:
        what: what could not be done, as in "cannot move back …".
        too_late: as for Rewriting.
    """
    if isinstance(error, QueuectlError):
        return error
    if isinstance(error, safe_open.NotReadable):
        return InvalidJob(str(error))
    if isinstance(error, FileNotFoundError):
        return (too_late or just_moved)(row.id)
    if isinstance(error, OSError):
        return SpoolError.from_os(what, os.path.join(row.place, row.name), error)
    return None


def just_moved(job_id: str) -> MoveError:
    """Return the refusal of a move that came too late."""
    return MoveError(f"job {job_id!r} has just been taken or moved", hint=f"queuectl show {job_id}")


def just_changed(job_id: str) -> MoveError:
    """Return the refusal of a change that came too late."""
    return MoveError(
        f"job {job_id!r} has just been taken, moved or changed by somebody else; nothing was done to it",
        hint=f"queuectl show {job_id}",
    )


def job_in(data: bytes, status: os.stat_result, row: Row) -> Job:
    """Return the job in a file. What queuectl has written, and nobody has changed since, is not checked again.

    Raises:
        InvalidJob: it is not a valid job.
    """
    is_known = row.ours and status.st_nlink == 1 and is_file_of(row, status)
    return jobs.parse_own(data) if is_known else jobs.parse(data)


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
