"""What a worker has to find out before it starts a job that tells of others. A spool without such jobs loads nothing for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from queuectl.errors import SpoolError

if TYPE_CHECKING:
    from queuectl.job.record import Job
    from queuectl.worker.job_run import WorkerContext


def why_not_needed(context: WorkerContext, job: Job) -> str | None:
    """Return why a hook has nothing to tell any more; None: it has, or that is not known."""
    from queuectl.rules import hook_facts

    with context.barrier:
        return hook_facts.why_not_needed(context.storage, context.rules, job)
    return None


def variables(context: WorkerContext, job: Job, list_file: str) -> dict[str, str]:
    """Return the variables of a hook.

    Args:
        list_file: where the list of the jobs of a period is written.

    Raises:
        SpoolError: they cannot be found out now.
    """
    from queuectl.rules import hook_facts

    facts = None
    with context.barrier:  # a damaged index is made anew, and the job starts then
        facts = hook_facts.variables(context.storage, context.rules, job, list_file)
    if facts is None:
        raise SpoolError("it cannot be found out of what it tells")
    return facts
