"""Finds what is wrong with a spool, explains it, and mends what can be mended without destroying anything.

A look changes nothing. A repair never deletes a job, a log or a file that it cannot read: what has to go from where it
lies goes to data/aside/ with a note that says where it was and why. Doing it twice is doing it once.
"""

from __future__ import annotations

import os
import re
import sqlite3
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import orjson

from queuectl.doctor import environment
from queuectl.doctor.finding import Case, Finding
from queuectl.doctor.job_files import Census
from queuectl.errors import InvalidJob, QueuectlError
from queuectl.index.index import Index
from queuectl.index.row import RENEWED, ready_key
from queuectl.intake.reconcile import Intake, mirror_claims
from queuectl.job import record as jobs
from queuectl.job.fields import STATES, WAITING
from queuectl.layout import DEAD, DONE, PENDING, PROCESSING
from queuectl.storage import claims, power_loss, recovery
from queuectl.storage.mover import Mover
from queuectl.system import process_tree, safe_open
from queuectl.system.host import boot_id
from queuectl.system.locks import Lock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from queuectl.index.row import Row
    from queuectl.layout import Layout

__all__ = ["Finding", "examine", "repair"]

_SECOND_LOOK = 0.3
"""Seconds: a worker in the middle of a move, or one just taking its name, is no fault."""

_PASSES = 4
"""Repairs that may follow from one another: a stray becomes a twin, a twin an orphaned log."""

_LEFT = re.compile(r"(worker-[0-9]+)\.(?:held\.[0-9a-f]+|spare)\.[0-9]+", re.ASCII)
_OF_A_LIFE = frozenset({"state", "attempts", "next_retry_at", "exit_code"})
_COMPARED = (
    "state",
    "priority",
    "attempts",
    "max_retries",
    "run_at",
    "next_retry_at",
    "command",
    "exit_code",
)


def examine(layout: Layout, *, now: Callable[[], float] = time.time) -> list[Finding]:
    """Look at a spool without changing anything in it; what comes and goes with work under way is left out.

    Args:
        now: the wall clock in epoch seconds.

    Raises:
        OSError: it cannot be looked at.
    """
    if not os.path.isdir(layout.root):
        return []
    found = _look(Case(layout, now, lambda _: None))
    if not found:
        return found
    time.sleep(_SECOND_LOOK)
    lasting = {(one.kind, one.where) for one in found}
    return [one for one in _look(Case(layout, now, lambda _: None)) if (one.kind, one.where) in lasting]


def repair(
    layout: Layout, *, say: Callable[[str], None] = lambda _: None, now: Callable[[], float] = time.time
) -> list[Finding]:
    """Mend what can be mended; returns what is left.

    Args:
        say: takes a line for each thing done, and for each that the disk refused.

    Raises:
        OSError: the spool cannot be looked at.
    """
    for _ in range(_PASSES):
        left = examine(layout, now=now)
        todo = [one for one in left if one.mend is not None]
        if not todo:
            return left
        for one in todo:
            _mend(one, say)
        _look_anew(Case(layout, now, say))
    return examine(layout, now=now)


def _look_anew(case: Case) -> None:
    """Have every folder scanned, whatever its time says: files were moved behind the index's back."""
    with suppress(sqlite3.Error, QueuectlError):
        case.intake.refresh()
        if case.index.usable:
            with case.index.write():
                for place in (PENDING, DONE, DEAD):
                    case.index.mark_stale(place)
            case.intake.refresh()
    case.index.close()


def _mend(one: Finding, say: Callable[[str], None]) -> None:
    try:
        if one.mend is not None:
            one.mend()
        say(f"{one.where}: {one.cure}")
    except sqlite3.Error as error:
        say(f"cannot mend {one.where}: {error}")
    except QueuectlError as error:
        say(f"cannot mend {one.where}: {error}")
    except OSError as error:
        say(f"cannot mend {one.where}: {(error.strerror or str(error)).lower()}")


def _look(case: Case) -> list[Finding]:
    found = list(environment.examine(case))
    if any(one.kind == "no folder" for one in found):
        return found
    try:
        damage = list(_open(case))
        found += damage
        found += _workers(case)
        census = Census(case)
        found += census.take()
        found += _processes(case)
        if not damage:
            found += [one for one in _drift(case) if one.where not in census.disputed]
    finally:
        case.index.close()
    return found


# -- the index ---------------------------------------------------------------------------------------------------------


def _open(case: Case) -> Iterator[Finding]:
    """Open the index if there is one that is believed; none, and one from before the last boot, is made anew by itself."""
    path = case.layout.index
    if not os.path.exists(path):
        return
    try:
        with _reader(path) as db:
            [answer] = db.execute("PRAGMA quick_check(1)").fetchone()
        if answer != "ok":
            raise sqlite3.DatabaseError(" ".join(answer.split()))
    except sqlite3.OperationalError:
        return  # locked, or on a disk where it cannot even be read: that is told elsewhere
    except sqlite3.DatabaseError as error:
        yield Finding(
            "index", "data/queuectl.db", f"the index data/queuectl.db is damaged: {error}",
            "build it anew", case.intake.rebuild,
        )  # fmt: skip
        return
    with suppress(sqlite3.Error):
        if not case.index.open():
            case.index.close()


class _reader:  # noqa: N801 (used like a function)
    """A connection that writes nothing, closed at the end."""

    def __init__(self, path: str) -> None:
        from urllib.parse import quote

        self._db = sqlite3.connect(f"file:{quote(path)}?mode=ro", uri=True, timeout=5)

    def __enter__(self) -> sqlite3.Connection:
        return self._db

    def __exit__(self, *_: object) -> None:
        self._db.close()


class _Onlooker(Mover):
    """A mover that moves nothing, for an index that is only compared with the one in use."""

    def bury_file(self, path: str, job_id: str, reason: str, **_: object) -> Row | None:  # noqa: ARG002 (the mover's signature)
        """Leave it where it is."""
        return None

    def bury(self, row: Row, reason: str, **_: object) -> None:
        """Likewise."""


def fresh_index(case: Case) -> Index:
    """An index in memory, made out of the folders as they are; nothing is moved for it."""
    layout = case.layout
    index = Index(":memory:", layout.root, boot_id())
    index.open()
    intake = Intake(layout, index, _Onlooker(layout, index, case.now), lambda: case.settings)
    mirror_claims(layout, index, case.now())
    for place in (DONE, DEAD, PENDING):
        for _ in intake.scan(place):
            continue
    return index


def _drift(case: Case) -> Iterator[Finding]:
    """Where the index believes that it agrees with a folder and does not."""
    if not case.index.usable:
        return
    fresh = fresh_index(case)
    try:
        for place in (PENDING, DONE, DEAD):
            yield from _compare(case, fresh, place, case.index.agrees(place, time.time_ns()))
        counted = dict.fromkeys(STATES, 0) | dict(
            case.index.db.execute("SELECT state, count(*) FROM jobs GROUP BY state").fetchall()
        )
        if counted != case.index.counts():
            yield _drifted(
                case, "data/queuectl.db", "the index data/queuectl.db counts jobs that it does not list"
            )
    except sqlite3.OperationalError:
        return  # locked: what it says cannot be had now
    except sqlite3.DatabaseError as error:
        yield _drifted(case, "data/queuectl.db", f"the index data/queuectl.db is damaged: {error}")
    finally:
        fresh.close()


def _compare(case: Case, fresh: Index, place: str, believed: bool) -> Iterator[Finding]:
    """Compare row by row. Which files there are is only for an index to know that believes it does."""
    used = _rows_at(case.index, place)
    real = _rows_at(fresh, place)
    for name in sorted(used.keys() | real.keys()):
        here, there = used.get(name), real.get(name)
        where = f"{place}/{name}"
        if (here is None or there is None) and not believed:
            continue
        if here is None:
            yield _drifted(case, where, f"{where} is missing from the index")
        elif there is None:
            if not os.path.lexists(case.within(place, name)):
                yield _drifted(case, where, f"the index has job {here.id} in {where}, where no file is")
        elif (here.inode, here.mtime, here.size) == (there.inode, there.mtime, there.size):
            settled = orjson.loads(here.settings or "{}")
            compared: Iterable[str] = _COMPARED
            if RENEWED in settled:
                # Given up by hand and put back: a past life that the index alone knows to be over.
                compared = [field for field in _COMPARED if field not in _OF_A_LIFE]
            # What was settled when the job was accepted may differ from today's settings, and holds.
            meant = {field: settled.get(field, getattr(there, field)) for field in compared}
            wrong = [field for field, value in meant.items() if getattr(here, field) != value]
            if here.state in WAITING and not _is_in_order(here):
                wrong.append("order")
            if here.id != there.id and _says_id(case, place, name) not in (None, here.id):
                wrong.append("id")
            if wrong and there.command:
                yield _drifted(case, where, f"the index has another {' and '.join(wrong)} than {where}")


def _is_in_order(row: Row) -> bool:
    """Whether a waiting job's place in the order follows from its priority and its moments."""
    due = row.run_at if row.next_retry_at is None else row.next_retry_at
    if row.due is not None:
        return row.ready_key is None and row.due == due
    place = row.ready_key if row.behind is None else row.behind
    return row.held or place == ready_key(max(row.arrived, due or 0), row.priority or 5)


def _says_id(case: Case, place: str, name: str) -> str | None:
    """The id that stands in a file, unless a reason beside it says why it is not known by that."""
    path = case.within(place, name)
    if os.path.lexists(path + ".reason"):
        return None
    with suppress(OSError, safe_open.NotReadable, InvalidJob):
        return jobs.parse(safe_open.read_regular(path, jobs.READ_LIMIT)[0]).id
    return None


def _rows_at(index: Index, place: str) -> dict[str, Row]:
    names = [name for _, name in index.all_at(place, "", 1 << 30)]
    found: dict[str, Row] = {}
    for start in range(0, len(names), 500):
        found |= index.at(place, names[start : start + 500])
    return found


def _drifted(case: Case, where: str, fact: str) -> Finding:
    return Finding("drift", where, fact, "build the index anew", case.intake.rebuild)


# -- workers -----------------------------------------------------------------------------------------------------------


def _workers(case: Case) -> Iterator[Finding]:
    """What dead workers left: jobs in hand, and files kept until their outcomes were synced."""
    for worker, names in claims.by_worker(case.layout).items():
        if not case.lives(worker):
            for name in names:
                where = f"{PROCESSING}/{worker}/{name}"
                yield Finding(
                    "abandoned", where, f"{where} is in the hands of {worker}, which is not alive",
                    "end what is left of its run and put it back, as any worker does", _TakeBack(case),
                )  # fmt: skip
    for name in sorted(os.listdir(case.layout.workers)):
        found = _LEFT.fullmatch(name)
        if found and not case.lives(found[1]):
            yield Finding(
                "held files", f"data/workers/{name}", f"data/workers/{name} was left by {found[1]}, which is not alive",
                "see that the outcomes are on the disk, then take the copies away", _Sweep(case, found[1]),
            )  # fmt: skip


class _TakeBack:
    """Frees the jobs of dead workers."""

    def __init__(self, case: Case) -> None:
        self._case = case

    def __call__(self) -> None:
        case = self._case
        case.intake.refresh()
        try:
            recovery.abandoned(case.layout, case.mover, case.settings, case.say)
        finally:
            case.index.close()


class _Sweep:
    """Deals with the recycled files of a dead worker: copies of jobs whose outcomes lie elsewhere."""

    def __init__(self, case: Case, worker: str) -> None:
        self._case, self._worker = case, worker

    def __call__(self) -> None:
        layout, boot = self._case.layout, boot_id()
        power_loss.restore(layout, boot)
        lock = Lock.acquire(layout.worker_file(self._worker, "lock"), patience=_SECOND_LOOK)
        if lock is not None:
            try:
                power_loss.sweep(layout, self._worker, boot)
            finally:
                lock.release()


def _processes(case: Case) -> Iterator[Finding]:
    """Processes of runs that no file names: what a job left in the background on purpose, or what should be gone."""
    marks = {"QUEUECTL_SPOOL": case.layout.root}
    for one in process_tree.tree_of(marks):
        environ = one.info["environ"] or {}
        job_id, worker = environ.get("QUEUECTL_JOB_ID"), environ.get("QUEUECTL_WORKER")
        if not (job_id and worker and "QUEUECTL_RUN" in environ):
            continue
        if not os.path.lexists(os.path.join(case.layout.claims(worker), f"{job_id}.json")):
            fact = f"process {one.pid} of job {job_id} lives on, and that run is over"
            cure = f"if it was not meant to stay: kill {one.pid}"
            yield Finding("process", f"process {one.pid}", fact, cure, harmless=True)
