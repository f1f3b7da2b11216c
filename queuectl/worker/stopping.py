"""Stop workers from any terminal, and wait for them."""

from __future__ import annotations

import signal
import sys
import time
from typing import TYPE_CHECKING

from queuectl.config import settings
from queuectl.config.settings import Settings
from queuectl.control import commands, own_job, permissions, registry
from queuectl.errors import ConfigError, WorkerError
from queuectl.fast_start.dataclass import dataclass, field
from queuectl.index.index import Index
from queuectl.intake.reconcile import Intake
from queuectl.layout import is_engine
from queuectl.rules.job_rules import JobRules
from queuectl.storage import recovery
from queuectl.storage.transitions import Storage
from queuectl.system.host import boot_id
from queuectl.system.locks import is_locked
from queuectl.system.process_tree import UNKILLABLE
from queuectl.worker import dispatch_stop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from queuectl.control.own_job import OwnJob
    from queuectl.control.registry import WorkerInfo
    from queuectl.layout import Layout
    from queuectl.system.process import ProcessIdentity

FORCE_PATIENCE = 5.0
"""Seconds that a worker gets to obey a forced stop, besides the time that it takes to end its job. Then it is killed."""

_POLL = 0.05
_REPORT_EVERY = 2.0


@dataclass(frozen=True, slots=True)
class Stopped:
    """What a stop has done.

    Attributes:
        ended: how many workers have ended.
        busy: those that were asked and have not ended.
        own: the job that this command belongs to, whose worker is not waited for; None when there is none.
        left_on: how many jobs go on, by the engine whose dispatcher has ended.
    """

    ended: int
    busy: list[WorkerInfo]
    own: OwnJob | None
    left_on: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class _Asked:
    """A worker that was asked to stop.

    Attributes:
        process: its process, which ends a moment after it has given its name back; None if it is not known yet.
        parent: the process that watches over it and ends after it.
        kill_at: when it is killed, on the monotonic clock; None for never.
    """

    info: WorkerInfo
    process: ProcessIdentity | None
    parent: ProcessIdentity | None
    kill_at: float | None
    was_killed: bool = False


def stop(
    layout: Layout,
    *,
    force: bool,
    timeout: float,
    report: Callable[[list[WorkerInfo]], None],
    names: Sequence[str] = (),
    asked_at: float | None = None,
) -> Stopped:
    """Stop workers, and wait for them.

    Args:
        force: end their jobs, which are put back uncharged. A worker that does not obey is killed, and its jobs are
            taken back.
        timeout: seconds to wait.
        report: called every two seconds with the workers that are still running a job.
        names: which workers; none for all of the spool, including those that are just starting.
        asked_at: when the command was started, see commands.request_stop_of_all.

    Raises:
        WorkerError: a name is no worker's, or the stop would end the job that this command belongs to.
        SpoolError: a note cannot be written.
    """
    permissions.refuse_others(layout, "worker stop")
    own = own_job.find(layout)
    if own is not None and names and own.worker not in names:
        own = None
    if own is not None and force:
        raise WorkerError(
            f"this command belongs to job {own.job_id}, which --force would end, so nothing was stopped",
            hint="queuectl worker stop lets the job finish",
        )
    asked = _ask(layout, names, force=force, asked_at=asked_at)
    waited = [one for one in asked if own is None or one.info.name != own.worker]
    left = _wait(
        layout, waited, force=force, timeout=timeout, report=report, is_all=not names and own is None
    )
    _take_back(layout, [one.info.name for one in waited if one.was_killed])
    busy = _current(layout, left)
    gone = {one.info.name for one in waited} - {one.name for one in busy}
    on_engines = {name: len(registry.claimed_for(layout, name)) for name in sorted(filter(is_engine, gone))}
    left_on = {name: number for name, number in on_engines.items() if number}
    return Stopped(len(waited) - len(left), busy, own, left_on)


def patience(layout: Layout) -> float:
    """Return the seconds after which a worker that runs a job has not obeyed a forced stop."""
    return FORCE_PATIENCE + UNKILLABLE + _settings(layout).kill_grace


def forced_patience(layout: Layout) -> float:
    """Return the seconds that a forced stop of a dispatcher may take; 0 if none is running."""
    has_dispatcher = any(is_engine(info.name) for info in registry.live_workers(layout))
    # And then, if it does not obey, it is killed, and its name is free a moment later.
    return patience(layout) + dispatch_stop.FORCE_PATIENCE + 1 if has_dispatcher else 0.0


def _ask(layout: Layout, names: Sequence[str], *, force: bool, asked_at: float | None) -> list[_Asked]:
    alive = registry.live_workers(layout)
    unknown = [name for name in names if name not in {info.name for info in alive}]
    if unknown:
        raise WorkerError(f"no worker {unknown[0]!r} is running", hint="queuectl worker list")
    asked = []
    if not names:
        before = [(info, *_processes(layout, info)) for info in alive]
        # First the note, then the look: whoever takes a name after this look reads the note.
        commands.request_stop_of_all(layout, asked_at)
        alive = registry.live_workers(layout)
        # Some that were just starting have read the note and left by now: they were stopped as well.
        there = {info.name for info in alive}
        asked += [_Asked(*one, None) for one in before if one[0].name not in there]
    for info in alive:
        if names and info.name not in names:
            continue
        process, parent = _processes(layout, info)
        is_asked = info.mode == registry.STARTING or commands.request_stop(layout, info.name, force=force)
        # Without names: one that has left since that look has read the note.
        if is_asked or not (names or is_locked(layout.worker_file(info.name, "lock"))):
            one = _Asked(info, process, parent, None)
            if force:
                _force(layout, one)
            asked.append(one)
    return asked


def _processes(layout: Layout, info: WorkerInfo) -> tuple[ProcessIdentity | None, ProcessIdentity | None]:
    """Return the process of a worker and the one that watches over it. The record is deleted when the worker leaves."""
    return registry.identity_of(layout, info.name), registry.parent_of(layout, info.name)


def _force(layout: Layout, asked: _Asked) -> None:
    """Wake up a worker that somebody has suspended, and set when it is killed."""
    # The process of a worker in somebody's own program is not ours to kill.
    if asked.info.mode != registry.PROGRAM and sys.platform != "win32":
        if asked.process is not None:
            asked.process.send(signal.SIGCONT)
        delay = FORCE_PATIENCE if asked.info.job_id is None else patience(layout)
        if is_engine(asked.info.name):
            # Without the controller, a runner sees the order to end a job at its next beat.
            delay = patience(layout) + dispatch_stop.FORCE_PATIENCE
        asked.kill_at = time.monotonic() + delay


def _wait(
    layout: Layout,
    asked: list[_Asked],
    *,
    force: bool,
    timeout: float,
    report: Callable[[list[WorkerInfo]], None],
    is_all: bool,
) -> list[_Asked]:
    """Wait until the workers, and with all of them the processes that watch over them, have ended; return the rest."""
    began = time.monotonic()
    report_at = began + _REPORT_EVERY
    parents = {one.parent for one in asked if one.parent is not None and is_all}
    while True:
        left = [one for one in asked if not _is_gone(layout, one, force=force)]
        now = time.monotonic()
        if not (left or any(parent.is_running() for parent in parents)) or now - began >= timeout:
            return left
        for one in left:
            _kill_if_due(one, now)
        if left and now >= report_at:
            report_at += _REPORT_EVERY
            report(_current(layout, left))
        time.sleep(_POLL)


def _kill_if_due(asked: _Asked, now: float) -> None:
    if asked.kill_at is not None and now >= asked.kill_at and asked.process is not None:
        asked.was_killed |= asked.process.send(signal.SIGKILL)


def _is_gone(layout: Layout, asked: _Asked, *, force: bool) -> bool:
    info = asked.info
    if is_locked(layout.worker_file(info.name, "lock")):
        present = registry.worker_info(layout, info.name)
        if info.mode == registry.STARTING and present.mode != registry.STARTING:
            # It had its lock but no record when we asked first: only now it can be asked, once.
            asked.process = registry.identity_of(layout, info.name)
            if commands.request_stop(layout, info.name, force=force):
                asked.info = present
                if force:
                    _force(layout, asked)
            return False
        if info.pid in (present.pid, 0):
            return False
    # A worker inside another program ends before that program does.
    return info.mode == registry.PROGRAM or asked.process is None or not asked.process.is_running()


def _current(layout: Layout, left: list[_Asked]) -> list[WorkerInfo]:
    """What is known of these workers now. One that has given its name back, and has not ended, would look like a new one."""
    found = []
    for one in left:
        info = registry.worker_info(layout, one.info.name)
        if info.mode == registry.STARTING and one.info.mode != registry.STARTING:
            was = one.info
            info = registry.WorkerInfo(was.name, was.pid, was.started_at, was.mode, (), True, None)
        found.append(info)
    return found


def _settings(layout: Layout) -> Settings:
    """The settings; the built-in ones when the file is not valid. A wrong setting must not keep workers from stopping."""
    try:
        return settings.load(layout)[0]
    except ConfigError:
        return Settings()


def _take_back(layout: Layout, workers: Iterable[str]) -> None:
    """Take back the jobs of workers that had to be killed."""
    names = list(workers)
    if not names:
        return
    known = _settings(layout)
    index = Index(layout.index, layout.root, boot_id())
    storage = Storage(layout, index, time.time)
    try:
        Intake(layout, index, storage, lambda: known).refresh()
        storage.before_end = JobRules(storage, lambda: known).before_end
        recovery.recover_claims(storage, known, lambda _: None, busy=names)
    finally:
        index.close()
