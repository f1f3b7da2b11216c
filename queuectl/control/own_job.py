"""Which job of a spool a command is run by. Such a command must not wait for its own job: it would wait for ever."""

from __future__ import annotations

import os
from contextlib import suppress

from queuectl.errors import QueuectlError
from queuectl.fast_start.dataclass import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from queuectl.layout import Layout


@dataclass(frozen=True, slots=True)
class OwnJob:
    """The job that this process belongs to, and the worker that runs it."""

    job_id: str
    worker: str


def find(layout: Layout) -> OwnJob | None:
    """Return the running job of this spool that has started this process; None when there is none.

    The variables alone prove nothing: a program that a job left in the background keeps them after the job's end.
    """
    root, job_id, worker = (
        os.environ.get(name, "") for name in ("QUEUECTL_SPOOL", "QUEUECTL_JOB_ID", "QUEUECTL_WORKER")
    )
    if not (root and job_id and worker) or os.sep in job_id + worker:
        return None
    with suppress(OSError):
        is_here = os.path.samefile(root, layout.root)
        if is_here and os.path.exists(os.path.join(layout.claims(worker), f"{job_id}.json")):
            return OwnJob(job_id, worker)
    return None


def refuse_to_wait(layout: Layout, waiting: str, *, hint: str) -> None:
    """Do not let a command wait for the job that it belongs to.

    Args:
        waiting: what it would wait for, as the end of a sentence.
        hint: what can be done instead.

    Raises:
        QueuectlError: the command belongs to a running job of this spool.
    """
    own = find(layout)
    if own is not None:
        raise QueuectlError(f"this command belongs to job {own.job_id}, {waiting}", hint=hint)
