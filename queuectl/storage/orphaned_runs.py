"""End what the runs of a dead worker have left alive: all of them together, so that one that lingers holds up no other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from queuectl.control import run_lock
from queuectl.system.locks import is_locked
from queuectl.system.process_table import SharedLook
from queuectl.system.process_tree import orphaned_tree, terminate_lock_holders, terminate_together

if TYPE_CHECKING:
    from collections.abc import Sequence

    from queuectl.job.record import Job
    from queuectl.layout import Layout
    from queuectl.system.process import Session
    from queuectl.system.process_tree import TreeTermination

_GRACE = 0.5
"""Seconds between TERM and KILL for a run whose worker is dead: its outcome cannot be recorded any more."""


_ALIVE = "processes of its run are still alive"


class _Orphan:
    """What is known of one run.

    Attributes:
        by_id, by_path: the variables that its processes have: with the identity of the spool, however its path was
            written then; with the path, for runs of an older queuectl.
        lock: the path of its run lock.
        has_begun: False: the locks belong to other runs, whose processes may go on.
    """

    __slots__ = ("by_id", "by_path", "has_begun", "lock", "session")

    def __init__(self, layout: Layout, job: Job, worker: str, known: run_lock.WorkerRuns | None) -> None:
        marks = run_lock.marks(layout, job, worker)
        self.has_begun, slot = True, worker
        self.session: Session | None = None
        if known is not None:
            started = next((one for one in known.records if one.is_last(job.id, job.next_run)), None)
            if started is None:
                self.has_begun = False
            else:
                marks["QUEUECTL_RUN"], slot = started.run, started.slot
                self.session = started.living_session()
        self.lock = layout.worker_file(slot, "run")
        self.by_id = {name: value for name, value in marks.items() if name != "QUEUECTL_SPOOL"}
        self.by_path = {name: value for name, value in marks.items() if name != run_lock.SPOOL_ID}

    def lingers(self) -> str | None:
        """Say why it is not known to be over; None: nothing shows a living process of it."""
        try:
            if is_locked(self.lock) or (self.session and self.session.has_living()):
                return _ALIVE
        except OSError as error:
            return f"its run lock cannot be opened: {(error.strerror or str(error)).lower()}"
        return None


def end_runs(
    layout: Layout, jobs: Sequence[Job], worker: str, known: run_lock.WorkerRuns | None
) -> list[str | None]:
    """End the processes of a dead worker's runs; return for each job None when none is alive, else what is known of it.

    A process that has cleared its environment is not found by its marks, but it still holds the run lock, or it is in
    the run's session.
    """
    runs = [_Orphan(layout, job, worker, known) for job in jobs]
    left = [one for one in runs if one.has_begun]
    look = SharedLook()
    left = _ended(left, [orphaned_tree(one.by_id, None, _GRACE, one.session, look) for one in left])
    left = _ended(left, [orphaned_tree(one.by_path, None, _GRACE, None, look) for one in left])
    held = terminate_lock_holders({one.lock for one in left}, _GRACE)
    over = {one for one in left if one.lock not in held}
    return [(one.lingers() if one in over else _ALIVE) if one.has_begun else None for one in runs]


def end_run(layout: Layout, job: Job, worker: str, known: run_lock.WorkerRuns | None) -> bool:
    """End the processes of one run of a dead worker; return True when none of them is alive."""
    return end_runs(layout, [job], worker, known) == [None]


def _ended(runs: list[_Orphan], trees: list[TreeTermination]) -> list[_Orphan]:
    """End these trees together, and return the runs of which no process was left in them."""
    return [one for one, is_over in zip(runs, terminate_together(trees), strict=True) if is_over]
