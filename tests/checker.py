"""One answer to the question whether a spool has kept its promises, for every test that does something bad to it."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from queuectl import Spool
from queuectl.api import listing
from queuectl.doctor import doctor, index_check
from queuectl.doctor.finding import Case
from queuectl.index.row import RENEWED
from queuectl.job import record as jobs
from queuectl.layout import DEAD, DONE, PENDING, PROCESSING, Layout

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from queuectl.index.row import Row

STATE_OF = {
    PENDING: ("pending", "failed"),
    PROCESSING: ("processing",),
    DONE: ("completed",),
    DEAD: ("dead",),
}
_MIRRORED = (
    "id", "state", "place", "name", "priority", "attempts", "max_retries", "created_at", "updated_at", "run_at",
    "next_retry_at", "command", "exit_code", "last_error", "inode", "mtime", "size",
)  # fmt: skip


def assert_spool_sane(
    root: str | Path,
    *,
    acknowledged: Iterable[str] = (),
    runs: Iterable[str] = (),
    again: Collection[str] = (),
    unrecorded: int = 0,
    allow: Collection[str] = (),
    background: bool = False,
) -> None:
    """See that a spool is as it has to be after whatever was done to it, workers running or not.

    Args:
        acknowledged: ids of jobs that were reported as queued, and that nobody has deleted since.
        runs: the id of each run that began, as the jobs' own commands wrote them down.
        again: ids that a person has sent back after their end.
        unrecorded: runs of each job that may have left no entry in its history; a power cut takes a run's claim along.
        allow: kinds of the doctor's findings that this test provokes and leaves in place.
        background: jobs of this test leave processes running on purpose.

    Raises:
        AssertionError: with everything that is wrong, a line each.
    """
    root = Path(root)
    spool = Spool(root)
    spool.refresh()
    wrong = [f"doctor: {one.kind}: {one.fact}" for one in _findings(root, allow, background=background)]
    found: list[str] = []
    # What moves while it is looked at is looked at once more.
    for last in (False, False, True):
        found = [
            *_places(root, set(acknowledged)),
            *_mirror(spool),
            *_histories(root, runs, again, unrecorded),
        ]
        if not found or last:
            break
        time.sleep(0.2)
        spool.refresh()
    wrong += found
    assert not wrong, "the spool is not sane:\n  " + "\n  ".join(wrong)


def _findings(root: Path, allow: Collection[str], *, background: bool) -> list[doctor.Finding]:
    found = doctor.examine(Layout(root))
    return [
        one
        for one in found
        if one.kind not in allow and (not one.harmless or (one.kind == "process" and not background))
    ]


def _files(root: Path) -> Iterator[tuple[str, Path]]:
    """Every job file with the folder that says its state, read by nothing of queuectl's."""
    for place in (PENDING, DONE, DEAD):
        for path in sorted((root / place).glob("*.json")):
            yield place, path
    for path in sorted((root / PROCESSING).glob("*/*.json")):
        yield PROCESSING, path


def _record(path: Path) -> dict[str, Any] | None:
    try:
        record = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) and record.get("command") else None


def _places(root: Path, acknowledged: set[str]) -> Iterator[str]:
    """Each id in one place, each file a job or a dead letter with its reason, no acknowledged id missing."""
    seen: dict[str, list[str]] = {}
    for place, path in _files(root):
        shown = path.relative_to(root).as_posix()
        record = _record(path)
        explained = place == DEAD and path.with_name(path.name + ".reason").exists()
        if record is None and not explained and path.exists():
            yield f"{shown} is no job, and nothing explains it"
        if not explained:
            seen.setdefault(str((record or {}).get("id") or path.stem), []).append(shown)
    for job_id, places in seen.items():
        if len(places) > 1:
            yield f"{job_id} lies in {' and '.join(places)}"
    for job_id in sorted(acknowledged - set(seen)):
        yield f"{job_id} was acknowledged and is lost"


def _mirror(spool: Spool) -> Iterator[str]:
    """What the commands say is what lies in the folders, and what an index made anew would say."""
    rows = listing.select(spool)
    counts = spool.counts()
    listed = Counter(row.state for row in rows)
    if any(counts[state] != listed[state] for state in counts):
        yield f"status says {counts}, list says {dict(listed)}"
    fresh = index_check.fresh_index(Case(spool.layout, time.time, lambda _: None))
    try:
        anew = {(row.place, row.name): row for row in fresh.list(None, None)}
    finally:
        fresh.close()
    used = {(row.place, row.name): row for row in rows}
    for key in sorted(used.keys() | anew.keys()):
        if key not in anew or key not in used:
            yield f"{'/'.join(key)} is {'missing from' if key in anew else 'only in'} the index"
        else:
            yield from _differences(used[key], anew[key])


def _differences(used: Row, anew: Row) -> Iterator[str]:
    # What was settled when a job was accepted holds, whatever the settings say by now.
    settled = json.loads(used.settings or "{}")
    for name in (name for name in _MIRRORED if name not in settled):
        here, there = getattr(used, name), getattr(anew, name)
        if f'"{name}":' in (used.settings or ""):
            continue  # settled when the job was accepted, whatever the settings are today
        if RENEWED in (used.settings or "") and name in {
            "state",
            "attempts",
            "next_retry_at",
            "exit_code",
            "last_error",
        }:
            continue  # it was given up by hand and put back, which the index alone can know
        # A file that gives no time of its making has that of its arrival, and one that is edited keeps its place.
        if here != there and not (name in ("created_at", "updated_at") and used.state != "completed"):
            yield f"{used.place}/{used.name}: the index says {name} {here!r}, the folders {there!r}"
    orders = [place for place in (used.ready_key, used.due, used.behind) if place is not None]
    # A job that waits for others has a place once they are over, as the index made anew says.
    wanted = any(place is not None for place in (anew.ready_key, anew.due, anew.behind))
    if used.state in ("pending", "failed") and len(orders) != (
        not anew.held if used.conditions is None else wanted
    ):
        yield f"{used.place}/{used.name} waits for nothing: it would never start"
    if used.state not in STATE_OF[used.place.partition("/")[0]]:
        yield f"{used.place}/{used.name} is listed as {used.state}"


def _histories(root: Path, runs: Iterable[str], again: Collection[str], unrecorded: int) -> Iterator[str]:
    """No run that nobody wrote down, none after a good end, none counted twice."""
    started = Counter(runs)
    for place, path in _files(root):
        record = _record(path)
        if record is None:
            continue
        job_id = str(record.get("id") or path.stem)
        history = record.get("history") or []
        outcomes = [entry.get("outcome") for entry in history]
        if job_id not in again and "succeeded" in outcomes[:-1]:
            yield f"{job_id} had succeeded and was run again: {outcomes}"
        left_out = record.get("history_left_out", 0)
        numbers = [*range(1, min(len(history), jobs.FIRST_RUNS) + 1)]
        numbers += range(jobs.FIRST_RUNS + left_out + 1, len(history) + left_out + 1)
        if [entry.get("run") for entry in history] != numbers:
            yield f"{job_id} has runs {[entry.get('run') for entry in history]}, {left_out} left out"
        allowed = len(history) + left_out + (place == PROCESSING) + unrecorded
        if started[job_id] > allowed:
            yield f"{job_id} was started {started[job_id]} times, and its history knows of {len(history)}"
        if place == DONE and (not outcomes or outcomes[-1] != "succeeded") and job_id in started:
            yield f"{job_id} lies in done/ and did not succeed: {outcomes}"
