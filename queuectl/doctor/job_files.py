"""Examines every file of a spool: ids in two places, files that are not valid jobs, files that belong to no job.

Of two files with one id, the one whose history contains that of the other and more is valid. Else the later state wins:
done/ and dead/ before processing/ before pending/. Else, within one state, the file that is named after the id, then the
one with fewer runs. The others are moved to data/aside/ with a note, never deleted.
"""

from __future__ import annotations

import os
import re
import stat
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from queuectl.doctor.finding import STALE, Finding
from queuectl.errors import InvalidJob
from queuectl.intake.dropped_file import read_dropped, reason_beside
from queuectl.job import record as jobs
from queuectl.job.fields import new_id
from queuectl.job.times import micros
from queuectl.layout import DEAD, DONE, PENDING, PROCESSING, is_engine, is_job_name, is_misnamed, name_in_dead
from queuectl.storage import dead_letters, locate, quarantine
from queuectl.system import files, safe_open

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from queuectl.doctor.finding import Case
    from queuectl.intake.dropped_file import DroppedFile
    from queuectl.job.record import Job

_RANK = {DONE: 2, DEAD: 2, PROCESSING: 1, PENDING: 0}
_LOG = re.compile(r"(.+)\.[0-9]+\.(?:out|err)(?:\.gz)?")
_PLACEHOLDERS = frozenset(
    {".gitkeep", ".gitignore", ".keep", ".nomedia", ".stfolder", ".stignore", ".directory"}
)


@dataclass(frozen=True, slots=True)
class _Copy:
    """One file that holds a job."""

    place: str
    name: str
    path: str
    inode: int
    job: Job

    @property
    def shown(self) -> str:
        return f"{self.place}/{self.name}"


class JobFiles:
    """Examines the files of one spool.

    Attributes:
        disputed: the files that share an id, as paths in the spool. The index is not compared with them.
    """

    def __init__(self, case: Case) -> None:
        self._case = case
        self._at: dict[str, list[tuple[str, str]]] = {}
        self._known: set[str] = set()
        self.disputed: set[str] = set()

    def examine(self) -> Iterator[Finding]:
        """Examine all files; yields what is wrong with the job files and with those beside them."""
        for place in (PENDING, DONE, DEAD):
            yield from self._state_folder(place)
        yield from self._processing()
        yield from self._duplicates()
        yield from self._logs()
        yield from self._leftovers()

    # -- the state folders -----------------------------------------------------------------------------------------

    def _state_folder(self, place: str) -> Iterator[Finding]:
        names = _names(self._case.path(place))
        there = set(names)
        for name in names:
            if is_job_name(name):
                yield from self._file(place, name, has_reason=place == DEAD and self._has_reason(name))
            elif place == DEAD and name.endswith(".reason") and is_job_name(name.removesuffix(".reason")):
                if name.removesuffix(".reason") not in there:
                    yield self._to_quarantine("orphan reason", DEAD, name, "explains a file that is gone")
            elif not files.is_temporary_name(name):
                yield from self._other_file(place, name)

    def _has_reason(self, name: str) -> bool:
        path = self._case.path(DEAD, name)
        status = _status(path)
        return status is not None and reason_beside(path, status) is not None

    def _file(self, place: str, name: str, *, has_reason: bool) -> Iterator[Finding]:
        self._known.add(name[: -len(".json")])
        path = self._case.path(place, name)
        if place == PENDING:
            case = self._case
            found = read_dropped(
                path, micros(case.now()), case.settings.settle_time, owner=case.storage.owner
            )
            if found.job is not None:
                self._note_place(place, name, found.job)
                return
            if fault := self._fault_of_waiting(path, name, found):
                yield fault
                return
        try:
            job = jobs.parse(safe_open.read_regular(path, jobs.READ_LIMIT)[0])
        except FileNotFoundError:
            return
        except OSError as error:
            fact = f"{place}/{name} cannot be read: {(error.strerror or str(error)).lower()}"
            yield Finding("unreadable", f"{place}/{name}", fact, "check its permissions and the disk")
            return
        except (InvalidJob, safe_open.NotReadable) as error:
            if place == DONE:
                yield Finding(
                    "invalid", f"{place}/{name}", f"{place}/{name} is not a valid job, so nothing lists it: {error}",
                    "move it to dead/ with the reason", partial(_move_to_dead, self._case, path, f"{error} (found in done/)"),
                )  # fmt: skip
            elif place == DEAD and not has_reason:
                yield Finding(
                    "no reason", f"{place}/{name}", f"{place}/{name} is not a valid job, and no reason is beside it: {error}",
                    "write the reason beside it", partial(_write_reason, self._case, path, str(error)),
                )  # fmt: skip
            return
        if not has_reason:  # a file in dead/ with a reason is a rejected file, not the job whose id it holds
            self._note_place(place, name, job)

    def _note_place(self, place: str, name: str, job: Job) -> None:
        job_id = job.id or self._id_by_index(place, name)
        if job_id is not None:
            self._known.add(job_id)
            self._at.setdefault(job_id, []).append((place, name))

    def _fault_of_waiting(self, path: str, name: str, found: DroppedFile) -> Finding | None:
        """Return why a file in pending/ will not run. A command that lists jobs would move it to dead/."""
        case = self._case
        if found.gone or (found.incomplete and safe_open.is_open_for_writing(path)):
            return None
        where = f"{PENDING}/{name}"
        fact = f"{where} is not a valid job, so nothing will run it: {found.reason}"
        if found.incomplete:
            cure = (
                f"wait {case.settings.settle_time:g} s, as somebody may be writing it; then it goes to dead/"
            )
            return Finding("invalid", where, fact, cure)
        fix = partial(_move_to_dead, case, path, found.reason, found.status)
        return Finding("invalid", where, fact, "move it to dead/ with the reason", fix)

    def _id_by_index(self, place: str, name: str) -> str | None:
        """Return the id that the index has for a file that does not hold one."""
        index = self._case.index
        row = index.at(place, [name]).get(name) if index.usable else None
        return row.id if row else None

    def _other_file(self, place: str, name: str) -> Iterator[Finding]:
        with suppress(OSError):
            status = os.lstat(self._case.path(place, name))
            # A temporary file is reported when it is stale. At once: a file in pending/ with a wrong name, and a link
            # among the workers' folders, which nobody makes there for a moment.
            age = self._case.now() - _last_change(status)
            at_once = (place == PENDING and is_misnamed(name)) or (
                place == PROCESSING and stat.S_ISLNK(status.st_mode)
            )
            if name in _PLACEHOLDERS or (age < STALE and not at_once):
                return
            kind = "a file" if stat.S_ISREG(status.st_mode) else safe_open.file_type(status.st_mode)
            yield Finding(
                "foreign", f"{place}/{name}", f"{place}/{files.printable_name(name)} is {kind} whose name cannot be a job's; it is left alone",
                "move it away, or give it a name that ends in .json", harmless=True,
            )  # fmt: skip

    # -- processing/ -----------------------------------------------------------------------------------------------

    def _processing(self) -> Iterator[Finding]:
        for worker in _names(self._case.layout.processing):
            path = self._case.layout.claims(worker)
            if os.path.isdir(path) and not os.path.islink(path):
                for name in _names(path):
                    if is_job_name(name):
                        self._at.setdefault(name[: -len(".json")], []).append(
                            (f"{PROCESSING}/{worker}", name)
                        )
                        self._known.add(name[: -len(".json")])
                    elif not files.is_temporary_name(name):
                        yield from self._other_file(f"{PROCESSING}/{worker}", name)
            elif is_job_name(worker):
                yield Finding(
                    "stray", f"{PROCESSING}/{worker}",
                    f"{PROCESSING}/{worker} is in no worker's folder, so nobody will ever run it",
                    "move it to pending/", partial(_move_to_pending, self._case, path),
                )  # fmt: skip
            else:
                yield from self._other_file(PROCESSING, worker)

    # -- one id, one place -----------------------------------------------------------------------------------------

    def _duplicates(self) -> Iterator[Finding]:
        for job_id, places in self._at.items():
            if len(places) > 1:
                copies = [copy for place, name in places if (copy := self._read(place, name))]
                if len(copies) > 1:
                    yield from self._judge(job_id, copies)

    def _read(self, place: str, name: str) -> _Copy | None:
        path = self._case.path(place, name)
        try:
            data, status = safe_open.read_regular(path, jobs.READ_LIMIT)
            return _Copy(place, name, path, status.st_ino, jobs.parse(data))
        except (OSError, InvalidJob, safe_open.NotReadable):
            return None

    def _judge(self, job_id: str, copies: list[_Copy]) -> Iterator[Finding]:
        winner = copies[0]
        for copy in copies[1:]:
            winner = _valid_one(winner, copy, job_id)
        for copy in copies:
            self.disputed.add(copy.shown)
            if copy is winner:
                continue
            worker = copy.place.partition("/")[2]
            running = copy.place.startswith(PROCESSING) and (is_engine(worker) or self._case.is_alive(worker))
            yield Finding(
                "twin", copy.shown, f"job {job_id} is in {winner.shown} and in {copy.shown}: the first is valid",
                f"wait until {worker} has ended it" if running else f"move {copy.shown} to data/aside/",
                None if running else partial(_quarantine_copy, self._case, job_id, winner, copy),
            )  # fmt: skip

    # -- beside the jobs -------------------------------------------------------------------------------------------

    def _logs(self) -> Iterator[Finding]:
        orphans: dict[str, list[str]] = {}
        for name in _names(self._case.layout.logs):
            found = _LOG.fullmatch(name)
            if found is None:
                yield from self._other_file("logs", name)
            elif found[1] not in self._known:
                orphans.setdefault(found[1], []).append(name)
        for job_id, names in orphans.items():
            logs = f"logs/{names[0]}" if len(names) == 1 else f"logs/{names[0]} and {len(names) - 1} more"
            paths = [self._case.path("logs", name) for name in names]
            yield Finding(
                "orphan log", job_id, f"{logs} of job {job_id}, which is gone",
                "move its logs to data/aside/", self._fix_by_quarantine(paths, f"no job {job_id}"),
            )  # fmt: skip

    def _leftovers(self) -> Iterator[Finding]:
        claims = [f"{PROCESSING}/{worker}" for worker in _names(self._case.layout.processing)]
        for place in ("tmp", PENDING, DONE, DEAD, "data", "data/workers", *claims):
            for name in _names(self._case.path(place)):
                if (place == "tmp" or files.is_temporary_name(name)) and name not in _PLACEHOLDERS:
                    with suppress(OSError):
                        age = self._case.now() - _last_change(os.lstat(self._case.path(place, name)))
                        if age > STALE:
                            why = f"was left unfinished {age / 3600:.0f} h ago and never queued"
                            yield self._to_quarantine("leftover", place, name, why)

    def _to_quarantine(self, kind: str, place: str, name: str, why: str) -> Finding:
        fix = self._fix_by_quarantine([self._case.path(place, name)], why)
        return Finding(kind, f"{place}/{name}", f"{place}/{name} {why}", "move it to data/aside/", fix)

    def _fix_by_quarantine(self, paths: list[str], why: str) -> Callable[[], None]:
        """Return a fix that moves these files, as they are now, to data/aside/."""
        inodes = {path: status.st_ino for path in paths if (status := _status(path))}
        return partial(_quarantine, self._case, inodes, why)


def _names(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def _last_change(status: os.stat_result) -> float:
    """Return the later one of the two times of change, in epoch seconds."""
    return max(status.st_mtime, status.st_ctime)


def _valid_one(one: _Copy, other: _Copy, job_id: str) -> _Copy:
    """Return the valid one of two copies with one id."""
    if locate.is_later(one.job, other.job, other.path):
        return one
    if locate.is_later(other.job, one.job, one.path):
        return other

    def rank_of(copy: _Copy) -> tuple[int, bool, int, float]:
        rank = _RANK[copy.place.partition("/")[0]]
        runs, moment = copy.job.runs, copy.job.updated_at or 0.0
        # In done/ and dead/: the outcome that was reached last. Twice in one folder: the copy with fewer runs.
        return rank, copy.name == f"{job_id}.json", runs if one.place != other.place else -runs, moment

    return max((one, other), key=rank_of)


# -- fixes -------------------------------------------------------------------------------------------------------------


def _quarantine(case: Case, inodes: dict[str, int], why: str) -> None:
    """Move files to data/aside/, unless they have been replaced meanwhile."""
    for path, inode in inodes.items():
        quarantine.put(case.layout, path, why, inode=inode, now=case.now())


def _quarantine_copy(case: Case, job_id: str, winner: _Copy, loser: _Copy) -> None:
    """Move a copy that is not valid to data/aside/, if the valid one is still there."""
    status = _status(winner.path)
    if status is not None and status.st_ino == winner.inode:
        why = f"another copy of job {job_id}, which is in {winner.shown}"
        quarantine.put(case.layout, loser.path, why, inode=loser.inode, now=case.now())


def _move_to_dead(case: Case, path: str, reason: str, judged: os.stat_result | None = None) -> None:
    """Move a file that is not a valid job to dead/, with the reason beside it."""
    dead_letters.bury_file(case.storage, path, new_id(case.now()), reason, judged=judged)


def _write_reason(case: Case, path: str, reason: str) -> None:
    """Write the missing reason beside a file in dead/."""
    if not os.path.lexists(path):
        return
    name = os.path.basename(path)
    if (
        shorter := name_in_dead(name)
    ) != name:  # with .reason behind it, the name would be too long for the disk
        name = files.move_to_free_name(path, case.layout.dead, shorter)
    files.replace(case.path(DEAD, f"{name}.reason"), f"{reason}\n".encode(errors="backslashreplace"))


def _move_to_pending(case: Case, path: str) -> None:
    """Move a file from outside of all state folders to pending/, where the next scan checks it."""
    with suppress(FileNotFoundError):
        files.move_to_free_name(path, case.layout.pending, os.path.basename(path))
        files.sync_folder(case.layout.pending)


def _status(path: str) -> os.stat_result | None:
    with suppress(OSError):
        return os.lstat(path)
    return None
