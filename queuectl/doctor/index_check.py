"""Compares the index with the folders: is its file intact, and does every row match its job file?"""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from queuectl.control import registry
from queuectl.doctor.finding import Finding
from queuectl.errors import InvalidJob
from queuectl.fast_start import fast_json
from queuectl.index.index import Index
from queuectl.index.row import RENEWED, ready_key
from queuectl.intake.claims import mirror_claims
from queuectl.intake.reconcile import Intake
from queuectl.job import record as jobs
from queuectl.job.fields import STATES, WAITING
from queuectl.layout import DEAD, DONE, PENDING
from queuectl.storage.transitions import Storage
from queuectl.system import safe_open
from queuectl.system.host import boot_id

if TYPE_CHECKING:
    from collections.abc import Iterator

    from queuectl.doctor.finding import Case
    from queuectl.index.row import Row

_COMPARED = (
    *("state", "priority", "attempts", "max_retries"),
    *("run_at", "next_retry_at", "command", "exit_code"),
)
_CHANGED_BY_RENEWAL = frozenset({"state", "attempts", "next_retry_at", "exit_code"})
_PAGE = 500


def open_index(case: Case) -> Iterator[Finding]:
    """Open the case's index if it can be trusted; yields a finding if its file is damaged.

    A missing index and one from before the last boot are no faults: the next command rebuilds them.
    """
    if case.is_of_another_user:
        return  # its owner could have put anything there
    in_use = any(case.is_alive(worker) for worker in registry.worker_names(case.layout))
    try:
        case.index.look(in_use=in_use)
    except sqlite3.OperationalError:
        case.index.close()
        return  # locked, or on a disk from which it cannot be read; other findings report that
    except sqlite3.DatabaseError as error:
        yield Finding(
            "index", "data/queuectl.db", f"the index data/queuectl.db is damaged: {error}",
            "rebuild it", case.intake.rebuild,
        )  # fmt: skip
        case.index.close()


def compare(case: Case) -> Iterator[Finding]:
    """Compare the case's index with one that is built from the folders now."""
    if not case.index.usable:
        return
    fresh = fresh_index(case)
    try:
        for place in (PENDING, DONE, DEAD):
            yield from _compare_folder(case, fresh, place, case.index.agrees(place, time.time_ns()))
        counted = dict.fromkeys(STATES, 0) | dict(
            case.index.db.execute("SELECT state, count(*) FROM jobs GROUP BY state").fetchall()
        )
        if counted != case.index.counts():
            fact = "the index data/queuectl.db counts jobs that it does not list"
            yield _drift(case, "data/queuectl.db", fact)
    except sqlite3.OperationalError:
        return  # locked: it cannot be read now
    except sqlite3.DatabaseError as error:
        yield _drift(case, "data/queuectl.db", f"the index data/queuectl.db is damaged: {error}")
    finally:
        fresh.close()


def fresh_index(case: Case) -> Index:
    """Build an index of the folders in memory, without moving a file."""
    layout = case.layout
    index = Index(":memory:", layout.root, boot_id())
    index.open()
    storage = Storage(layout, index, case.now, read_only=True)
    storage.owner = case.storage.owner
    intake = Intake(layout, index, storage, lambda: case.settings)
    # Rings are looked for in the index of the spool (see `dependencies`), and not for each file.
    intake.loader.refuses_rings = False
    intake.admission.unchecked = []
    mirror_claims(layout, index, case.now(), storage.owner)
    for place in (DONE, DEAD, PENDING):
        for _ in intake.scan(place):
            continue
    return index


def _compare_folder(case: Case, fresh: Index, place: str, trusted: bool) -> Iterator[Finding]:
    """Compare the rows of one folder.

    Args:
        trusted: the index claims to agree with the folder. Otherwise it may lack files, or list missing ones.
    """
    indexed = _rows_at(case.index, place)
    actual = _rows_at(fresh, place)
    for name in sorted(indexed.keys() | actual.keys()):
        row, real = indexed.get(name), actual.get(name)
        where = f"{place}/{name}"
        if (row is None or real is None) and not trusted:
            continue
        if row is None and real is not None and not real.command and place == PENDING:
            continue  # not a valid job, and no worker has looked at it yet
        if row is None:
            yield _drift(case, where, f"{where} is missing from the index")
        elif real is None:
            if not os.path.lexists(case.path(place, name)):
                yield _drift(case, where, f"the index has job {row.id} in {where}, where no file is")
        elif real.command and (wrong := _wrong_fields(case, place, row, real)):
            yield _drift(case, where, f"the index has another {' and '.join(wrong)} than {where}")


def _wrong_fields(case: Case, place: str, row: Row, real: Row) -> list[str]:
    """Return the fields in which a row differs from its file; none if the file has changed since the row was made."""
    if (row.inode, row.mtime, row.size) != (real.inode, real.mtime, real.size):
        return []
    settings = fast_json.loads(row.settings or "{}")
    # A job that was given up and put back by hand has begun anew. Only the index knows that.
    skipped = _CHANGED_BY_RENEWAL if RENEWED in settings else frozenset()
    # The settings of the time when the job was accepted hold. They may differ from those of today.
    expected = {name: settings.get(name, getattr(real, name)) for name in _COMPARED if name not in skipped}
    wrong = [name for name, value in expected.items() if getattr(row, name) != value]
    if row.state in WAITING and not _has_right_order(row, real):
        wrong.append("order")
    if row.id != real.id and _id_in_file(case, place, row.name) not in (None, row.id):
        wrong.append("id")
    return wrong


def _has_right_order(row: Row, real: Row) -> bool:
    """Return whether a waiting job's place in the order follows from its priority and times, and from what it waits for."""
    due = row.run_at if row.next_retry_at is None else row.next_retry_at
    # After the clock was set back, the wait for a retry is shortened in the index alone.
    shortened = row.next_retry_at is not None
    wanted = ready_key(max(row.arrived, due or 0), row.priority or 5, row.about)
    if row.conditions is not None and not row.held:
        # Whether it has a place depends on other jobs, and since when it waits on the last of them to end.
        place, other = _place_of(row), _place_of(real)
        if place is None or other is None:
            return place == other
        return place in (wanted, other) or (shortened and place < max(wanted, other))
    if row.due is not None:
        return row.ready_key is None and (row.due == due or (shortened and row.due < (due or 0)))
    place = row.ready_key if row.behind is None else row.behind
    return row.held or place == wanted or (shortened and place is not None and place < wanted)


def _place_of(row: Row) -> int | None:
    """Return the place in the order that a waiting job has, or will have when it is due; None if it has none."""
    if row.due is not None:
        return ready_key(row.due, row.priority or 5, row.about)
    return row.behind if row.ready_key is None else row.ready_key


def _id_in_file(case: Case, place: str, name: str) -> str | None:
    """Return the id that a file holds; None if a reason beside it says that the file is not that job."""
    path = case.path(place, name)
    if os.path.lexists(path + ".reason"):
        return None
    with suppress(OSError, safe_open.NotReadable, InvalidJob):
        return jobs.parse(safe_open.read_regular(path, jobs.READ_LIMIT)[0]).id
    return None


def _rows_at(index: Index, place: str) -> dict[str, Row]:
    names = [name for _, name in index.all_at(place, "", 1 << 30)]
    found: dict[str, Row] = {}
    for start in range(0, len(names), _PAGE):
        found |= index.at(place, names[start : start + _PAGE])
    return found


def _drift(case: Case, where: str, fact: str) -> Finding:
    return Finding("drift", where, fact, "rebuild the index", case.intake.rebuild)
