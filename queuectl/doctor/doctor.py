"""Finds what is wrong with a spool, explains it, and repairs what can be repaired without destroying anything.

An examination changes nothing. A repair never deletes a job, a log or a file that it cannot read: it moves them to
data/aside/ with a note that says where the file was and why it was moved. Repairing twice is the same as repairing once.
"""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from queuectl.control import permissions
from queuectl.doctor import (
    dependencies,
    engines,
    environment,
    hooks,
    index_check,
    queues,
    rules,
    worker_remains,
)
from queuectl.doctor.finding import Case, Finding
from queuectl.doctor.job_files import JobFiles
from queuectl.errors import QueuectlError
from queuectl.layout import DEAD, DONE, FOLDERS, PENDING

if TYPE_CHECKING:
    from collections.abc import Callable

    from queuectl.layout import Layout

__all__ = ["Finding", "examine", "repair"]

_CONFIRM_AFTER = 0.3
"""Seconds after which findings are confirmed: a worker that moves a job, or takes its name, is no fault."""

_PASSES = 4
"""Repairs that can follow from one another: a stray file may become a second copy, and that an orphaned log."""


def examine(layout: Layout, *, now: Callable[[], float] = time.time) -> list[Finding]:
    """Examine a spool without changing it. What disappears within a moment, because work goes on, is no finding.

    Args:
        now: the wall clock, in epoch seconds.

    Raises:
        OSError: the spool cannot be read.
    """
    if not layout.exists():
        return []
    if permissions.other_owner(layout):
        permissions.refuse_links(layout)
    first, in_files = _examine_once(Case(layout, now, lambda _: None))
    if not first:
        return []
    time.sleep(_CONFIRM_AFTER)
    seen = {(one.kind, one.where) for one in first}
    # Nearly all time goes into reading job files: they are read again only if the first look found something in them.
    again, _ = _examine_once(Case(layout, now, lambda _: None), job_files=in_files)
    return [one for one in again if (one.kind, one.where) in seen]


def repair(
    layout: Layout, *, say: Callable[[str], None] = lambda _: None, now: Callable[[], float] = time.time
) -> list[Finding]:
    """Fix what can be fixed; returns the findings that are left.

    Args:
        say: called with a line for each fix, and for each one that failed.
        now: the wall clock, in epoch seconds.

    Raises:
        OSError: the spool cannot be read.
        SpoolError: it belongs to another user.
    """
    permissions.refuse_others(layout, "doctor --repair")
    for _ in range(_PASSES):
        found = examine(layout, now=now)
        repairable = [one for one in found if one.repairable]
        if not repairable:
            return found
        for one in repairable:
            _fix(one, say)
        _rescan(Case(layout, now, say))
    return examine(layout, now=now)


def _examine_once(case: Case, *, job_files: bool = True) -> tuple[list[Finding], bool]:
    """Return what is wrong, and whether something is wrong with job files, or with the index as compared with them.

    Args:
        job_files: read them, too.
    """
    found = list(environment.examine(case))
    if any(one.kind == "no folder" for one in found):
        return found, False
    in_files: list[Finding] = []
    try:
        found += queues.examine(case)
        found += rules.examine(case)
        found += engines.examine(case)
        damage = list(index_check.open_index(case))
        found += damage
        found += worker_remains.examine(case)
        if job_files:
            in_files = _of_job_files(case, compare=not damage)
            found += in_files
        found += worker_remains.processes(case)
        if not damage:
            found += _of_waiting_jobs(case)
    finally:
        case.index.close()
    return [_left_alone(case, one) for one in found], bool(in_files)


def _of_job_files(case: Case, *, compare: bool) -> list[Finding]:
    examined = JobFiles(case)
    found = [*examined.examine()]
    if compare:
        found += [one for one in index_check.compare(case) if one.where not in examined.disputed]
    return found


def _of_waiting_jobs(case: Case) -> list[Finding]:
    """Return what keeps jobs from starting: limits and pauses of queues, and other jobs."""
    if not case.index.usable:
        return []
    with suppress(sqlite3.Error):
        return [*queues.compare(case), *dependencies.compare(case), *hooks.compare(case)]
    return []


def _left_alone(case: Case, one: Finding) -> Finding:
    """Return the finding without its fix if it is about something behind a link: that may belong to somebody else."""
    where = "logs/" if one.kind == "orphan log" else f"{one.where}/"
    for name in FOLDERS:
        if one.fix is not None and where.startswith(f"{name}/") and os.path.islink(case.path(name)):
            return replace(one, fix=None, cure=f"{name}/ is a link, so no repair touches what is there")
    return one


def _fix(one: Finding, say: Callable[[str], None]) -> None:
    try:
        if one.fix is not None:
            one.fix()
        say(f"{one.where}: {one.cure}")
    except (sqlite3.Error, QueuectlError) as error:
        say(f"cannot fix {one.where}: {error}")
    except OSError as error:
        say(f"cannot fix {one.where}: {(error.strerror or str(error)).lower()}")


def _rescan(case: Case) -> None:
    """Scan every folder, whatever its time: the repairs moved files without telling the index."""
    with suppress(sqlite3.Error, QueuectlError):
        case.intake.refresh()
        index = case.storage.index
        if index.usable:
            with index.write():
                for place in (PENDING, DONE, DEAD):
                    index.mark_stale(place)
            case.intake.refresh()
    case.storage.index.close()
