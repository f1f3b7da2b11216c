"""The files of workers: what dead ones have left, what no worker can use, and processes of runs that have ended."""

from __future__ import annotations

import os
import re
import stat
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from queuectl.control import registry, run_lock
from queuectl.doctor.finding import Finding
from queuectl.layout import PERMITS, PROCESSING, is_engine
from queuectl.storage import locate, power_loss, quarantine, recovery
from queuectl.system import process_tree, safe_open
from queuectl.system.host import boot_id
from queuectl.system.locks import Lock
from queuectl.system.process import ProcessIdentity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from queuectl.doctor.finding import Case
    from queuectl.layout import Layout

_LOCK_TIMEOUT = 0.3
"""Seconds to wait for the lock of a worker's name: a new worker may be checking whether it is free."""

_WORKER = re.compile(r"worker-[0-9]{1,6}(?=\.|$)", re.ASCII)
_DELETED = " (deleted)"
"""What Linux puts behind the path of a file that has none any more."""

_FILE_POOL = re.compile(r"(worker-[0-9]+)\.(?:held\.[0-9a-f]+|spare)\.[0-9]+", re.ASCII)


def examine(case: Case) -> Iterator[Finding]:
    """Look for the claims and the recycled files of dead workers."""
    for worker, names in locate.claimed_by_worker(case.layout).items():
        if case.is_alive(worker):
            continue
        if is_engine(worker):
            where = f"{PROCESSING}/{worker}"
            fact = f"{where} holds {len(names)} job{'s' if len(names) > 1 else ''}, and no dispatcher runs that collects them"
            cure = f"queuectl worker start --engine {worker}"
            yield Finding("no dispatcher", where, fact, cure)
        else:
            for name in names:
                where = f"{PROCESSING}/{worker}/{name}"
                yield Finding(
                    "abandoned", where, f"{where} is claimed by {worker}, which is not alive",
                    "end what is left of its run and put it back, as any worker does", partial(_take_back, case),
                )  # fmt: skip
    for worker in registry.of_another_version(case.layout):
        fact = f"{worker} is of another version of queuectl; it makes the index anew whenever this version has done so"
        cure = f"queuectl worker stop {worker}, then start it again"
        yield Finding("other version", f"data/workers/{worker}.json", fact, cure)
    yield from _kept_locks(case)
    yield from _odd_files(case)
    for name in sorted(os.listdir(case.layout.workers)):
        found = _FILE_POOL.fullmatch(name)
        if found and not case.is_alive(found[1]):
            yield Finding(
                "held files", f"data/workers/{name}", f"data/workers/{name} was left by {found[1]}, which is not alive",
                "make sure that the outcomes are on the disk, then delete the copies", partial(_sweep, case.layout, found[1]),
            )  # fmt: skip


def _kept_locks(case: Case) -> Iterator[Finding]:
    """Look for workers that are gone while another process holds their lock, so that they count as alive.

    A child that Python makes closes its copy of the lock. One that a library makes in C keeps it.
    """
    for worker in registry.worker_names(case.layout):
        identity = registry.identity_of(case.layout, worker)
        if identity is None or not identity.is_visible or not identity.is_gone() or not case.is_alive(worker):
            continue
        lock = case.layout.worker_file(worker, "lock")
        holders = [one.pid for one in process_tree.lock_holders([lock]).get(lock, ())]
        if holders:
            pids = " ".join(map(str, holders))
            fact = f"{worker} has ended (pid {identity.pid}), but its lock is held by a process that it started: {pids}"
            cure = f"its jobs are taken back when that process has ended: kill {pids}"
            yield Finding("kept lock", f"data/workers/{worker}.lock", fact, cure)


def _odd_files(case: Case) -> Iterator[Finding]:
    """Look for folders, links, FIFOs where a worker's files should be, and for records that are none."""
    layout = case.layout
    found = [_WORKER.match(name) for name in (*os.listdir(layout.workers), *os.listdir(layout.processing))]
    for worker in sorted({one[0] for one in found if one}):
        for path, status in registry.unusable_files(layout, worker):
            where = os.path.relpath(path, layout.root)
            fact = f"{where} is {safe_open.file_type(status.st_mode)}, so no worker can use the name {worker}"
            if stat.S_ISREG(status.st_mode):
                fact = f"{where} is a file, so no worker can use the name {worker}"
            fix = partial(quarantine.put, layout, path, fact, inode=status.st_ino, now=case.now())
            yield Finding("worker file", where, fact, "move it to data/aside/", fix)
        yield from _odd_record(case, worker)


def _odd_record(case: Case, worker: str) -> Iterator[Finding]:
    """A record that is damaged: the worker that it is about cannot be found, and so not be stopped."""
    path = case.layout.worker_file(worker, "json")
    try:
        inode = os.lstat(path).st_ino
        data, _ = safe_open.read_regular(path, registry.READ_LIMIT)
    except (OSError, safe_open.NotReadable):
        return
    record = registry.read_json(path)
    if ProcessIdentity.of(record) is not None or record.get("mode") == registry.STARTING:
        return
    where = f"data/workers/{worker}.json"
    fact = f"{where} ({len(data)} bytes) is not the record of a worker"
    fix = partial(quarantine.put, case.layout, path, fact, inode=inode, now=case.now())
    yield Finding("worker file", where, fact, "move it to data/aside/; a living worker writes it anew", fix)


def processes(case: Case) -> Iterator[Finding]:
    """Look for processes of runs that have ended, which a job left in the background, and for runs that no limit counts."""
    uncounted: set[str] = set()
    for one in process_tree.find_tree({run_lock.SPOOL_ID: case.layout.identity}):
        environ = process_tree.environment_of(one)
        job_id, worker = environ.get("QUEUECTL_JOB_ID"), environ.get("QUEUECTL_WORKER")
        if not (job_id and worker and "QUEUECTL_RUN" in environ):
            continue
        if not os.path.lexists(os.path.join(case.layout.claims(worker), f"{job_id}.json")):
            fact = f"process {one.pid} of job {job_id} is running, though that run has ended"
            cure = f"if it was not meant to stay: kill {one.pid}"
            yield Finding("process", f"process {one.pid}", fact, cure, harmless=True)
        elif job_id not in uncounted and (deleted := _deleted_permit(case, one.pid)):
            uncounted.add(job_id)
            fact = f"job {job_id} runs, and no limit counts it, as the lock file {deleted} was deleted"
            cure = "until it has ended, one job more than its limit may run; delete nothing in data/ while workers run"
            yield Finding("permit", job_id, fact, cure)


def _deleted_permit(case: Case, pid: int) -> str | None:
    """Return a deleted lock file of a limit that a process has open; None also where the system does not tell."""
    begin, fds = os.path.realpath(case.layout.permits) + os.sep, f"/proc/{pid}/fd"
    with suppress(OSError):
        for fd in os.listdir(fds):
            with suppress(OSError):  # closed just now
                link = os.readlink(f"{fds}/{fd}")
                if link.startswith(begin) and link.endswith(_DELETED):
                    return f"{PERMITS}/{link.removeprefix(begin).removesuffix(_DELETED)}"
    return None


def _take_back(case: Case) -> None:
    """Take back the jobs of dead workers."""
    case.intake.refresh()
    try:
        recovery.recover_claims(case.storage, case.settings, case.say)
    finally:
        case.storage.index.close()


def _sweep(layout: Layout, worker: str) -> None:
    """Delete the recycled files of a dead worker: copies of jobs whose outcomes are elsewhere."""
    boot = boot_id()
    power_loss.restore(layout, boot)
    lock = Lock.acquire(layout.worker_file(worker, "lock"), patience=_LOCK_TIMEOUT)
    if lock is not None:
        try:
            power_loss.sweep(layout, worker, boot)
        finally:
            lock.release()
