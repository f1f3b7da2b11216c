"""Jobs that wait for jobs, by the folders: whether a claimed job may start, or what its parents have decided.

The index lets a job go when it thinks that its conditions are met. The folders decide: after the claim the file of each parent
is looked for. So a job never starts because an index was wrong or old.
"""

from __future__ import annotations

import os
from contextlib import suppress

from queuectl import fast_json
from queuectl.errors import NeverStarts, SpoolError
from queuectl.index import waits
from queuectl.job import conditions
from queuectl.job import record as jobs
from queuectl.job.conditions import Verdict
from queuectl.job.fields import BATCH
from queuectl.layout import DEAD, DONE
from queuectl.storage import locate
from queuectl.system import files, safe_open

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from queuectl.job.conditions import Condition
    from queuectl.job.record import Job
    from queuectl.storage.transitions import Storage

RING_STEPS = 1000
"""Jobs that are looked at when a ring is searched for: whoever enqueues must not wait for a search of a hundred thousand."""


def judge(storage: Storage, job: Job) -> tuple[int, Condition | None]:
    """Judge all conditions of a claimed job by the folders, and mend the index where it was wrong.

    Returns:
        the verdict, and the condition that decides. MET: the job may start. WAIT: it must be put back. DECIDED: it must not
        run, see `what_follows`.
    """
    verdict = Verdict.MET
    for one in conditions.of_job(job):
        found = _judge(storage, one)
        if found == Verdict.DECIDED:
            return found, one
        if found == Verdict.WAIT:
            verdict = found
    return verdict, None


def _judge(storage: Storage, one: Condition) -> int:
    if one.batch is not None:
        return one.judge_batch(*storage.index.batch_counts(one.batch))
    return one.judge(_end_of(storage, one.parent))


def _end_of(storage: Storage, job_id: str) -> str | None:
    """Return completed or dead if a job is over, by its file; else None, and then the index is told so."""
    if named := _named_end(storage, job_id):
        return named[0]
    row, layout = storage.index.get(job_id), storage.layout
    if row is None or row.place not in (DONE, DEAD):
        return None
    if os.path.lexists(os.path.join(layout.root, row.place, row.name)):
        return row.state
    storage.index.drop_if_at(job_id, row.place, row.name)
    return None


def _named_end(storage: Storage, job_id: str) -> tuple[str, str] | None:
    """Return how a job has ended, and its file, if that has the name of the job."""
    layout = storage.layout
    for state, folder in (("completed", layout.done), ("dead", layout.dead)):
        path = f"{folder}{os.sep}{job_id}.json"
        if os.path.lexists(path):
            return state, path
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
    lines = ["\t".join(_described(storage, parent)) for parent in parents]
    try:
        files.replace(path, "".join(f"{line}\n" for line in lines).encode())
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


def _described(storage: Storage, job_id: str) -> tuple[str, str, str, str]:
    """Describe a parent. The worker does nothing else meanwhile, and there may be ten thousand, so most ask no index."""
    state, record = _named_end(storage, job_id) or ("", "")
    if not state:
        state = _end_of(storage, job_id) or ""
        row = storage.index.get(job_id)
        record = os.path.join(storage.layout.root, row.place, row.name) if row else ""
    out = ""
    with suppress(safe_open.NotReadable, OSError):
        runs = _runs_in(safe_open.read_regular(record, jobs.READ_LIMIT)[0])
        path = storage.layout.log_file(job_id, runs, "out")
        out = path if os.path.exists(path) else ""
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

    Raises:
        NeverStarts: with the jobs on the way.
    """
    if ring := find_ring(storage, job):
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
