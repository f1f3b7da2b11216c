"""What dead workers have left: claimed jobs, recycled files, and processes of runs that have ended."""

from __future__ import annotations

import os
import re
from functools import partial
from typing import TYPE_CHECKING

from queuectl.doctor.finding import Finding
from queuectl.layout import PROCESSING
from queuectl.storage import locate, power_loss, recovery
from queuectl.system import process_tree
from queuectl.system.host import boot_id
from queuectl.system.locks import Lock

if TYPE_CHECKING:
    from collections.abc import Iterator

    from queuectl.doctor.finding import Case
    from queuectl.layout import Layout

_LOCK_TIMEOUT = 0.3
"""Seconds to wait for the lock of a worker's name: a new worker may be checking whether it is free."""

_FILE_POOL = re.compile(r"(worker-[0-9]+)\.(?:held\.[0-9a-f]+|spare)\.[0-9]+", re.ASCII)


def examine(case: Case) -> Iterator[Finding]:
    """Look for the claims and the recycled files of dead workers."""
    for worker, names in locate.claimed_by_worker(case.layout).items():
        if not case.is_alive(worker):
            for name in names:
                where = f"{PROCESSING}/{worker}/{name}"
                yield Finding(
                    "abandoned", where, f"{where} is claimed by {worker}, which is not alive",
                    "end what is left of its run and put it back, as any worker does", partial(_take_back, case),
                )  # fmt: skip
    for name in sorted(os.listdir(case.layout.workers)):
        found = _FILE_POOL.fullmatch(name)
        if found and not case.is_alive(found[1]):
            yield Finding(
                "held files", f"data/workers/{name}", f"data/workers/{name} was left by {found[1]}, which is not alive",
                "make sure that the outcomes are on the disk, then delete the copies", partial(_sweep, case.layout, found[1]),
            )  # fmt: skip


def processes(case: Case) -> Iterator[Finding]:
    """Look for processes of runs that have ended: a job left them in the background, on purpose or not."""
    for one in process_tree.find_tree({"QUEUECTL_SPOOL": case.layout.root}):
        environ = one.info["environ"] or {}
        job_id, worker = environ.get("QUEUECTL_JOB_ID"), environ.get("QUEUECTL_WORKER")
        if not (job_id and worker and "QUEUECTL_RUN" in environ):
            continue
        if not os.path.lexists(os.path.join(case.layout.claims(worker), f"{job_id}.json")):
            fact = f"process {one.pid} of job {job_id} is running, though that run has ended"
            cure = f"if it was not meant to stay: kill {one.pid}"
            yield Finding("process", f"process {one.pid}", fact, cure, harmless=True)


def _take_back(case: Case) -> None:
    """Take back the jobs of dead workers."""
    case.intake.refresh()
    try:
        recovery.recover_claims(case.storage, case.settings, case.say)
    finally:
        case.index.close()


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
