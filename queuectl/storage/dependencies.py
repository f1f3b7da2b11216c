"""Jobs that wait for jobs, by the folders: whether a claimed job may start, or what its parents have decided.

The index lets a job go when it thinks that its conditions are met. The folders decide: after the claim the file of each parent
is looked for. So a job never starts because an index was wrong or old. Which jobs a batch has, only the index tells; the files
of those that it takes for ended are looked for if somebody has changed done/ or dead/ by hand.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress

from queuectl.errors import NeverStarts, SpoolError
from queuectl.fast_start import fast_json
from queuectl.index import waits
from queuectl.job import conditions
from queuectl.job import record as jobs
from queuectl.job.conditions import Verdict
from queuectl.job.fields import BATCH, STATES
from queuectl.job.times import micros
from queuectl.layout import DEAD, DONE
from queuectl.storage import locate
from queuectl.system import files, safe_open

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from queuectl.job.conditions import Condition
    from queuectl.job.record import Job
    from queuectl.storage.transitions import Storage

RING_STEPS = 1000
"""Jobs that are looked at when a ring is searched for: whoever enqueues must not wait for a search of a hundred thousand."""

_MANY = 200
"""From so many parents on a folder is read whole, if it has no more than `_SPARSE` files for each of them. To ask for 10,000
files one by one took 90 ms, in which the worker does nothing else."""

_SPARSE = 10


class _Folders:
    """Which files are in done/ and dead/, for many questions.

    Args:
        number: how many will be asked.
    """

    def __init__(self, storage: Storage, number: int) -> None:
        layout = storage.layout
        self._paths = {DONE: layout.done, DEAD: layout.dead}
        self._names = {
            place: _names_in(storage, path, number, states)
            for (place, path), states in zip(self._paths.items(), (("completed",), ("dead",)), strict=True)
        }

    def has(self, place: str, name: str) -> bool:
        names = self._names.get(place)
        return os.path.lexists(self.path(place, name)) if names is None else name in names

    def path(self, place: str, name: str) -> str:
        return f"{self._paths[place]}{os.sep}{name}"

    def named_end(self, job_id: str) -> tuple[str, str] | None:
        """Return how a job has ended, and its file, if that has the name of the job."""
        name = f"{job_id}.json"
        if self.has(DONE, name):
            return "completed", self.path(DONE, name)
        return ("dead", self.path(DEAD, name)) if self.has(DEAD, name) else None


class _Outputs:
    """Which jobs have output, for many questions.

    Args:
        number: how many will be asked.
    """

    def __init__(self, storage: Storage, number: int) -> None:
        self._layout = storage.layout
        self._names = _names_in(storage, storage.layout.logs, number, STATES)
        out = (name for name in self._names or () if name.endswith(".out"))
        self._jobs = frozenset(name.rsplit(".", 2)[0] for name in out)

    def may_be_of(self, job_id: str) -> bool:
        """Whether a run of the job may have left output: it has not to be asked which run was the last else."""
        return self._names is None or job_id in self._jobs

    def of_run(self, job_id: str, run: int) -> str:
        """Return the file with the stdout of a run; "" if there is none."""
        path = self._layout.log_file(job_id, run, "out")
        names = self._names
        is_there = os.path.exists(path) if names is None else os.path.basename(path) in names
        return path if is_there else ""


def _names_in(storage: Storage, folder: str, number: int, states: Sequence[str]) -> frozenset[str] | None:
    """Return the names in a folder if it is worth it for so many questions, else None.

    Args:
        states: the folder has files of jobs in these.
    """
    if number < _MANY:
        return None
    counts = storage.index.counts()
    if sum(counts[state] for state in states) > _SPARSE * number:
        return None
    with suppress(OSError):
        return frozenset(os.listdir(folder))
    return None


def judge(storage: Storage, job: Job) -> tuple[int, Condition | None]:
    """Judge all conditions of a claimed job by the folders, and mend the index where it was wrong.

    Returns:
        the verdict, and the condition that decides. MET: the job may start. WAIT: it must be put back. DECIDED: it must not
        run, see `what_follows`.
    """
    verdict = Verdict.MET
    every = [*conditions.of_job(job)]
    folders = _Folders(storage, len(every))
    for one in every:
        found = _judge(storage, one, folders)
        if found == Verdict.DECIDED:
            return found, one
        if found == Verdict.WAIT:
            verdict = found
    return verdict, None


def _judge(storage: Storage, one: Condition, folders: _Folders) -> int:
    if one.batch is None:
        return one.judge(_end_of(storage, one.parent, folders))
    index, now = storage.index, time.time_ns()
    verdict = one.judge_batch(*index.batch_counts(one.batch))
    if verdict != Verdict.WAIT and not (index.agrees(DONE, now) and index.agrees(DEAD, now)):
        _mend_members(storage, one.batch)
        verdict = one.judge_batch(*index.batch_counts(one.batch))
    return verdict


def _mend_members(storage: Storage, batch: str) -> None:
    """Tell the index which of the ended jobs of a batch are over no more: somebody has put them back or deleted them."""
    members = waits.ended_members(storage.index, batch)
    folders = _Folders(storage, len(members))
    for job_id, place, name in members:
        if not folders.has(place, name):
            if os.path.lexists(f"{storage.layout.pending}{os.sep}{job_id}.json"):
                storage.index.mark_put_back(job_id, place, name, micros(storage.now()))
            else:
                storage.index.drop_if_at(job_id, place, name)


def _end_of(storage: Storage, job_id: str, folders: _Folders) -> str | None:
    """Return completed or dead if a job is over, by its file; else None, and then the index is told so."""
    if named := folders.named_end(job_id):
        return named[0]
    row = storage.index.get(job_id)
    if row is None or row.place not in (DONE, DEAD):
        return None
    if folders.has(row.place, row.name):
        return row.state
    storage.index.drop_if_at(job_id, row.place, row.name)
    return None


def what_follows(one: Condition) -> tuple[str, str]:
    """Return what a condition has decided about a job that must not run: its state, and why."""
    if one.kind == "after":
        return "dead", f"Parent {_name(one)} is dead"
    return "completed", f"{_name(one)} succeeded"


def _name(one: Condition) -> str:
    return f"job {one.parent}" if one.batch is None else f"batch {one.batch}"


def describe(storage: Storage, job: Job, path: str) -> dict[str, str]:
    """Write the list of a job's parents into a file, and return the variables by which the job finds it.

    A line has the id, the state, the path of the record, and that of the stdout or nothing, with tabs between. Ten thousand ids
    would be too long for a variable.

    Raises:
        SpoolError: the file cannot be written.
    """
    parents = [*_parents(storage, job)]
    folders, outputs = _Folders(storage, len(parents)), _Outputs(storage, len(parents))
    lines = ["\t".join(_described(storage, parent, folders, outputs)) for parent in parents]
    try:
        # Only this run reads it, and no run outlives a power cut. Two waits for the disk took longer than the run of `true`.
        files.write_afresh(path, "".join(f"{line}\n" for line in lines).encode())
    except OSError as error:
        raise SpoolError.from_os("write", path, error) from None
    found = {"QUEUECTL_AFTER": path}
    if len(lines) == 1:
        found["QUEUECTL_AFTER_OUT"] = lines[0].rpartition("\t")[2]
    return found


def _parents(storage: Storage, job: Job) -> Iterator[str]:
    for one in conditions.of_job(job):
        if one.batch is None:
            yield one.parent
        else:
            yield from storage.index.members_of(one.batch)


def _described(
    storage: Storage, job_id: str, folders: _Folders, outputs: _Outputs
) -> tuple[str, str, str, str]:
    """Describe a parent. The worker does nothing else meanwhile, and there may be ten thousand, so most ask no index."""
    state, record = folders.named_end(job_id) or ("", "")
    if not state:
        state = _end_of(storage, job_id, folders) or ""
        row = storage.index.get(job_id)
        record = os.path.join(storage.layout.root, row.place, row.name) if row else ""
    out = ""
    if outputs.may_be_of(job_id):
        # Only the record tells which run was the last.
        with suppress(safe_open.NotReadable, OSError):
            runs = _runs_in(safe_open.read_regular(record, jobs.READ_LIMIT)[0])
            out = outputs.of_run(job_id, runs)
    return job_id, state, record, out


def _runs_in(data: bytes) -> int:
    """Return how many times the job in this file has run, as `Job.runs` does, in a tenth of the time; 0 if it does not tell."""
    try:
        record = fast_json.loads(data)
        history, left_out = record.get("history") or [], record.get("history_left_out") or 0
    except (ValueError, AttributeError):
        return 0
    return len(history) + left_out if type(history) is list and type(left_out) is int else 0


def refuse_unknown(storage: Storage, job: Job, before: Job | None = None) -> None:
    """Refuse a job that names another one which does not exist.

    Args:
        before: the job as it was. What it named already may be missing: a dropped file may name a job that has not come yet.

    Raises:
        NeverStarts: with the name.
    """
    known = set() if before is None else {one.parent for one in conditions.of_job(before)}
    for one in conditions.of_job(job):
        if one.batch is None and one.parent not in known and locate.state_of(storage, one.parent) is None:
            raise unknown(one.parent)


def unknown(parent: str) -> NeverStarts:
    """Return the error for a job that is named and does not exist."""
    return NeverStarts(f"no job is called {parent}, so this could never start", hint="queuectl list")


def refuse_ring(storage: Storage, job: Job) -> None:
    """Refuse a job that would wait for itself through others.

    A damaged index must not keep a job out. It is made anew by the next scan, and the doctor finds a ring.

    Raises:
        NeverStarts: with the jobs on the way.
    """
    import sqlite3

    try:
        ring = find_ring(storage, job)
    except sqlite3.Error as error:
        storage.index.broken = str(error)
        return
    if ring:
        raise NeverStarts(f"{job.id} waits for itself: {', '.join(ring)}")


def find_ring(storage: Storage, job: Job) -> list[str]:
    """Return the jobs and batches through which a job would wait for itself, from the job to the job; empty if there are none.

    Only a job that others wait for can close a ring, or one of a batch that others wait for.
    """
    index, came_from = storage.index, {one.parent: job.id for one in conditions.of_job(job)}
    mine = f"{BATCH}{job.batch}" if job.batch else ""
    ends = [job.id]
    if mine and mine not in came_from:  # no job counts in a batch that it waits for
        ends.append(mine)
    if not any(index.is_waited_for(end) for end in ends):
        return []
    line = [*came_from]
    for name in line:
        if name in ends:
            return [*_way(came_from, name, job.id)]
        if len(came_from) > RING_STEPS:
            return []
        for above in waits.above(index, name, RING_STEPS):
            if above not in came_from:
                came_from[above] = name
                line.append(above)
    return []


def _way(came_from: dict[str, str], end: str, start: str) -> Iterator[str]:
    way = [end] if end != start else []
    at = end
    while (at := came_from[at]) != start:
        way.append(at)
    yield from (start, *reversed(way), start)
